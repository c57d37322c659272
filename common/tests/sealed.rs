//! Golden files of sealed values. Sealing draws random bytes, so that these files are not written again: they must be
//! opened, now and by every later version. `UPDATE_GOLDEN=1` writes others, for a format that is new.

#![expect(clippy::unwrap_used, reason = "all of this file is tests and their helpers")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use consign_common::{
    digest::Sha256,
    name::{Environment, StepName},
    plan::Plan,
    sealing::{Fingerprint, Given, Salt, Sealed, SealingKey, Secret, open},
};

const VALUE: &str = "correct horse \"battery\"\n\u{e9}";
const SALT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn plan() -> Plan {
    let text = "app = \"shop\"\n[params.db_password]\ntype = \"string\"\nsecret = true\n\
                [[step]]\nname = \"activate\"\nactivate = true\n";
    Plan::parse(text, "consign.toml").unwrap()
}

fn secret() -> Secret {
    Secret::new(Salt::from_base64(SALT).unwrap(), VALUE.to_owned())
}

fn write() {
    let key = SealingKey::generate();
    let (plan, name, environment) = (plan(), "db_password".parse().unwrap(), "production".parse().unwrap());
    let given = Given { app: &plan.app, environment: &environment, name: &name };
    let file = given.seal(&secret(), &key.recipient()).unwrap();
    fs::write(path("sealing.key"), key.to_file()).unwrap();
    fs::write(path("sealed.json"), Sealed::new([(&name, file.as_slice())]).to_vec()).unwrap();
}

#[test]
fn what_was_sealed_once_is_opened_for_ever() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write();
    }
    let key = SealingKey::parse(&fs::read_to_string(path("sealing.key")).unwrap()).unwrap();
    let sealed = fs::read(path("sealed.json")).unwrap();
    assert_eq!(Sealed::parse(&sealed).unwrap().to_vec(), sealed, "it has one form");
    let (name, environment): (StepName, Environment) =
        ("db_password".parse().unwrap(), "production".parse().unwrap());
    let commitments = BTreeMap::from([(name.clone(), secret().commitment())]);
    let opened = open(&sealed, &key, &plan(), &environment, &commitments).unwrap();
    assert_eq!(opened.get(&name).unwrap().value(), VALUE);
}

#[test]
fn a_commitment_and_a_fingerprint_are_what_others_compute() {
    // printf of the salt's bytes and the value, through sha256sum.
    assert_eq!(
        secret().commitment().commitment.to_string(),
        "d9d80e27131a8d189e984dbf2ebcbb54e59764a9847ad416bf86cbe62ee65135"
    );
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".parse().unwrap();
    let fingerprint = Fingerprint::of(Sha256::of(b"spki"), &recipient);
    assert_eq!(fingerprint.to_string(), "b91a-f37d-1dd4-7e1d-a09f-b877-9916-bf78");
}
