//! Documents of other programs: the Python packages securesystemslib and in-toto-attestation make a test result that
//! verifies here, and verify ours. (`ssh-keygen` is asked beside the code, in the coordinator's `cli/signer/tests.rs`.)

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use consign_common::{
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    trust::{
        Envelope, Key, Predicate, PublicKey, RoleKeys, STATEMENT_TYPE, Scheme, SigningKey, Statement, Subject,
    },
};

const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// Where the script's packages are.
fn packages() -> String {
    let script = interop().join("install.sh");
    let output = Command::new("sh").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn interop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

fn python(args: &[&str]) -> Result<String, String> {
    let output = Command::new("python3")
        .args(["-B", "-W", "ignore"])
        .env("PYTHONPATH", packages())
        .arg(interop().join("envelope.py"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn role(public: &PublicKey, scheme: Scheme) -> (RoleKeys, Key) {
    let key = Key { scheme, public: public.to_base64(), owner: "qa".parse().unwrap() };
    (RoleKeys { keys: vec![public.id()], threshold: 1 }, key)
}

#[test]
fn a_test_result_of_other_programs_verifies_here() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Sha256::of(b"manifest");
    python(&["make", dir.path().to_str().unwrap(), &digest.to_string()]).unwrap();
    let bytes = std::fs::read(dir.path().join("theirs.json")).unwrap();
    let raw = std::fs::read_to_string(dir.path().join("theirs.hex")).unwrap();
    let raw: Vec<u8> =
        (0..raw.len()).step_by(2).map(|at| u8::from_str_radix(&raw[at..at + 2], 16).unwrap()).collect();
    let public = PublicKey::from_raw(&raw).unwrap();

    let (role_keys, key) = role(&public, Scheme::Ed25519);
    let keys = [(public.id(), key)].into();
    let envelope = Envelope::parse(&bytes, ENVELOPE_BYTES).unwrap();
    assert_eq!(envelope.payload_type(), STATEMENT_TYPE);
    let payload = envelope.verified_by("test result", &role_keys, &keys).unwrap();
    let statement = Statement::parse(payload).unwrap();
    assert_eq!(statement.subject.sha256, digest);
    let Predicate::Foreign { predicate_type, value } = statement.predicate else { panic!("not foreign") };
    assert_eq!(predicate_type, TEST_RESULT);
    assert_eq!(value["result"], "PASSED");
    assert_eq!(value["passedTests"], serde_json::json!(["a", "b"]));

    let stranger = SigningKey::generate().unwrap().public();
    let (role_keys, key) = role(&stranger, Scheme::Ed25519);
    envelope.verified_by("test result", &role_keys, &[(stranger.id(), key)].into()).unwrap_err();
}

#[test]
fn our_test_result_verifies_in_other_programs() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let public = key.public();
    let statement = Statement {
        subject: Subject { name: "shop@1.2.0".into(), sha256: Sha256::of(b"manifest") },
        predicate: Predicate::Foreign {
            predicate_type: TEST_RESULT.into(),
            value: serde_json::json!({ "result": "PASSED", "passedTests": ["a"] }),
        },
    };
    let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&key]);
    let path = dir.path().join("ours.json");
    std::fs::write(&path, envelope.to_vec()).unwrap();
    let file = path.to_str().unwrap();
    let said = python(&["check", file, &hex(public.as_raw()), &public.id().to_string()]).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["predicateType"], TEST_RESULT);
    assert_eq!(said["predicate"]["result"], "PASSED");
    assert_eq!(said["subject"][0]["digest"]["sha256"], Sha256::of(b"manifest").to_string());

    let other = SigningKey::generate().unwrap().public();
    let refused = python(&["check", file, &hex(other.as_raw()), &public.id().to_string()]).unwrap_err();
    assert!(refused.contains("VerificationError"), "{refused}");
}
