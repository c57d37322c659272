use std::collections::BTreeMap;

use super::*;
use crate::{
    digest::Sha256,
    name::{Environment, StepName},
    plan::Plan,
    trust::{Commitment, Refusal},
};

const VALUE: &str = "correct horse battery";

fn plan() -> Plan {
    let text = "app = \"shop\"\n[params.password]\ntype = \"string\"\nsecret = true\nmax_length = 40\n\
                [params.token]\ntype = \"string\"\nsecret = true\npattern = \"[a-z ]+\"\ndeliver = \"file\"\n\
                [[step]]\nname = \"a\"\nactivate = true\n";
    Plan::parse(text, "consign.toml").unwrap()
}

fn production() -> Environment {
    "production".parse().unwrap()
}

fn name(text: &str) -> StepName {
    text.parse().unwrap()
}

fn secret(value: &str) -> Secret {
    Secret::new(Salt::random().unwrap(), value.to_owned())
}

fn seal(parameter: &str, secret: &Secret, key: &SealingKey) -> Vec<u8> {
    let (plan, name, environment) = (plan(), name(parameter), production());
    let given = Given { app: &plan.app, environment: &environment, name: &name };
    given.seal(secret, &key.recipient()).unwrap()
}

fn document(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<(StepName, &[u8])> =
        files.iter().map(|(parameter, file)| (name(parameter), *file)).collect();
    Sealed::new(files.iter().map(|(name, file)| (name, *file))).to_vec()
}

fn commitments(of: &[(&str, &Secret)]) -> BTreeMap<StepName, Commitment> {
    of.iter().map(|(parameter, secret)| (name(parameter), secret.commitment())).collect()
}

fn refusal(sealed: &[u8], key: &SealingKey, commitments: &BTreeMap<StepName, Commitment>) -> Refusal {
    open(sealed, key, &plan(), &production(), commitments).unwrap_err()
}

#[test]
fn a_server_opens_what_was_sealed_to_it() {
    let key = SealingKey::generate();
    let (password, token) = (secret(VALUE), secret("another value"));
    let sealed = document(&[
        ("password", &seal("password", &password, &key)),
        ("token", &seal("token", &token, &key)),
    ]);
    let commitments = commitments(&[("password", &password), ("token", &token)]);
    let opened = open(&sealed, &key, &plan(), &production(), &commitments).unwrap();
    assert_eq!(opened[&name("password")].value(), VALUE);
    assert_eq!(opened[&name("token")].value(), "another value");
    assert!(open(b"", &key, &plan(), &production(), &BTreeMap::new()).unwrap().is_empty());
}

#[test]
fn what_does_not_belong_is_refused_by_name() {
    let (key, other) = (SealingKey::generate(), SealingKey::generate());
    let (password, token) = (secret(VALUE), secret("another value"));
    let both = commitments(&[("password", &password), ("token", &token)]);
    let (sealed_password, sealed_token) = (seal("password", &password, &key), seal("token", &token, &key));

    // Withheld.
    assert_eq!(refusal(b"", &key, &both).code(), "secret-missing");
    assert_eq!(refusal(&document(&[("token", &sealed_token)]), &key, &both).code(), "secret-missing");
    // Another server's.
    let theirs = document(&[("password", &seal("password", &password, &other)), ("token", &sealed_token)]);
    let refused = refusal(&theirs, &key, &both);
    assert_eq!(refused.code(), "secret-mismatch");
    assert!(refused.to_string().contains("this server's key"), "{refused}");
    // Swapped between two secrets.
    let swapped = document(&[("password", &sealed_token), ("token", &sealed_password)]);
    let refused = refusal(&swapped, &key, &both);
    assert_eq!(refused.code(), "secret-mismatch");
    assert!(refused.to_string().contains("the value of token"), "{refused}");
    // An older value, and somebody else's value under the right name.
    for value in [VALUE, "attacker's choice"] {
        let older =
            document(&[("password", &seal("password", &secret(value), &key)), ("token", &sealed_token)]);
        let refused = refusal(&older, &key, &both);
        assert_eq!(refused.code(), "secret-mismatch");
        assert!(refused.to_string().contains("signed"), "{refused}");
    }
    // Not sealed at all, and not what we read.
    let open = document(&[("password", VALUE.as_bytes()), ("token", &sealed_token)]);
    let refused = refusal(&open, &key, &both);
    assert!(!refused.to_string().contains(VALUE), "{refused}");
    assert_eq!(refusal(br#"{"format":"consign-sealed-v2","values":{}}"#, &key, &both).code(), "malformed");
}

#[test]
fn a_value_is_held_to_its_declaration_without_being_told() {
    let key = SealingKey::generate();
    for (parameter, value, why) in [
        ("password", "12345", "fewer than 6"),
        ("password", "  1234  ", "fewer than 6"),
        ("password", "a value of more than forty bytes in all of it", "max_length"),
        ("token", "NOT WHAT THE PATTERN SAYS", "pattern"),
    ] {
        let bad = secret(value);
        let sealed = document(&[(parameter, &seal(parameter, &bad, &key))]);
        let refused = refusal(&sealed, &key, &commitments(&[(parameter, &bad)]));
        assert_eq!(refused.code(), "secret-invalid");
        assert!(refused.to_string().contains(why), "{refused}");
        assert!(!refused.to_string().contains(value), "{refused}");
    }
    let text = format!("{:?} {:?} {key:?}", secret(VALUE), Salt::random());
    assert!(!text.contains(VALUE) && !text.contains("SECRET-KEY"), "{text}");
}

#[test]
fn a_commitment_is_of_salt_and_value() {
    let salt = Salt::from_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let mut bytes = vec![0; 32];
    bytes.extend_from_slice(VALUE.as_bytes());
    let commitment = Secret::new(salt, VALUE.to_owned()).commitment();
    assert_eq!(commitment.commitment, Sha256::of(&bytes));
    assert_ne!(secret(VALUE).commitment(), secret(VALUE).commitment(), "each has a salt of its own");
    assert_eq!(Salt::from_base64("AAAA"), None);
}

#[test]
fn a_key_has_one_text() {
    let key = SealingKey::generate();
    let again = SealingKey::parse(&key.to_file()).unwrap();
    assert_eq!(again.recipient(), key.recipient());
    let text = key.recipient().to_string();
    assert_eq!(text.parse(), Ok(key.recipient()));
    for bad in [text.to_uppercase(), format!("{text} "), "age1".to_owned(), "x".repeat(1000), String::new()] {
        assert!(bad.parse::<Recipient>().is_err(), "{bad}");
    }
    assert!(SealingKey::parse(&text).is_err());
}

#[test]
fn a_fingerprint_is_read_as_people_write_it() {
    let key: Recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".parse().unwrap();
    let fingerprint = Fingerprint::of(Sha256::of(b"spki"), &key);
    let text = fingerprint.to_string();
    assert_eq!(text.split('-').count(), 8, "{text}");
    assert_eq!(text.parse(), Ok(fingerprint));
    assert_eq!(text.to_uppercase().replace('-', " ").parse(), Ok(fingerprint));
    assert!(text.get(1..).unwrap().parse::<Fingerprint>().is_err());
    assert!(text.replace(|c: char| c.is_ascii_hexdigit(), "x").parse::<Fingerprint>().is_err());
    assert_ne!(fingerprint, Fingerprint::of(Sha256::of(b"other"), &key));
    assert_ne!(fingerprint, Fingerprint::of(Sha256::of(b"spki"), &SealingKey::generate().recipient()));
}

#[test]
fn masks_cover_a_value_its_lines_and_not_what_is_too_short() {
    let pem = "-----BEGIN KEY-----\nMIIBVgIBADAN\nabc\n-----END KEY-----\n";
    let masks = masks([pem, "  padded secret "]);
    for mask in [pem, pem.trim(), "MIIBVgIBADAN", "padded secret", "  padded secret "] {
        assert!(masks.iter().any(|known| known == mask), "{mask:?} in {masks:?}");
    }
    assert!(masks.iter().all(|mask| mask.len() >= 6), "{masks:?}");
}
