//! Which blobs are signatures. `tests/` asks `ssh-keygen` itself.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;
use crate::trust::SigningKey;

fn fresh() -> SigningKey {
    SigningKey::generate().unwrap()
}

fn signed(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    blob(&key.public(), &key.sign(&to_sign(message)))
}

/// A blob of these parts, signed over a frame of the same parts.
fn forged(key: &SigningKey, change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts {
        magic: b"SSHSIG".to_vec(),
        version: 1,
        public: public_blob(&key.public()),
        namespace: b"consign".to_vec(),
        reserved: vec![],
        hash: b"sha512".to_vec(),
        digest: Hash::Sha512.of(b"message"),
        signature_type: KEY_TYPE.to_vec(),
        inner_tail: vec![],
        tail: vec![],
    };
    change(&mut parts);
    let mut frame = parts.magic.clone();
    for part in [&parts.namespace, &parts.reserved, &parts.hash, &parts.digest] {
        put(&mut frame, part);
    }
    let mut bytes = parts.magic;
    bytes.extend(parts.version.to_be_bytes());
    for part in [&parts.public, &parts.namespace, &parts.reserved, &parts.hash] {
        put(&mut bytes, part);
    }
    let mut inner = Vec::new();
    put(&mut inner, &parts.signature_type);
    put(&mut inner, &key.sign(&frame));
    inner.extend(parts.inner_tail);
    put(&mut bytes, &inner);
    bytes.extend(parts.tail);
    bytes
}

struct Parts {
    magic: Vec<u8>,
    version: u32,
    public: Vec<u8>,
    namespace: Vec<u8>,
    reserved: Vec<u8>,
    hash: Vec<u8>,
    digest: Vec<u8>,
    signature_type: Vec<u8>,
    inner_tail: Vec<u8>,
    tail: Vec<u8>,
}

#[test]
fn a_signature_is_of_its_message_and_key() {
    let (key, other) = (fresh(), fresh());
    let blob = signed(&key, b"message");
    assert!(verify(&key.public(), b"message", &blob));
    assert!(!verify(&key.public(), b"massage", &blob));
    assert!(!verify(&other.public(), b"message", &blob));
    assert_eq!(forged(&key, |_| {}), blob);
}

/// Made by `ssh-keygen -Y sign -n consign` of OpenSSH 9.2, with and without `-O hashalg=sha256`.
#[test]
fn what_openssh_made_is_read() {
    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGoQ3OeDNwxc+ciejASQTNXw4WToYR6rrsHr0lQMcSrT";
    const SHA512: &str = "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgahDc54M3DFz5yJ6MBJBM1fDhZOhhHquuwevS\
VAxxKtMAAAAHY29uc2lnbgAAAAAAAAAGc2hhNTEyAAAAUwAAAAtzc2gtZWQyNTUxOQAAAEASIUER4E6B\
qSCTV6L/RqsgzXaU1f4jR1ioFAqcuooY2fyy6/UBc+733nSThFUiPtCnW/O4REN4w8uDqjzeEMkJ";
    const SHA256: &str = "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgahDc54M3DFz5yJ6MBJBM1fDhZOhhHquuwevS\
VAxxKtMAAAAHY29uc2lnbgAAAAAAAAAGc2hhMjU2AAAAUwAAAAtzc2gtZWQyNTUxOQAAAEBGE9mqH8hd\
/43VlgawgqZirNP0ka2RcUoKoG0VRGC4WsdP9G4g9jtTXTB/7jeBeosChTScsJrk+cq2cAgx0DkF";
    let bytes = |text: &str| STANDARD.decode(text).unwrap();
    let key = PublicKey::from_raw(raw_key(&bytes(KEY)).unwrap()).unwrap();
    let message = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    for blob in [SHA512, SHA256] {
        assert!(verify(&key, message, &bytes(blob)));
        assert!(!verify(&key, b"another", &bytes(blob)));
        assert!(!verify(&fresh().public(), message, &bytes(blob)));
    }
}

#[test]
fn both_hashes_of_openssh_are_read() {
    let key = fresh();
    let sha256 = forged(&key, |parts| {
        parts.hash = b"sha256".to_vec();
        parts.digest = Hash::Sha256.of(b"message");
    });
    assert!(verify(&key.public(), b"message", &sha256));
    // The right name with the other hash's digest.
    assert!(!verify(&key.public(), b"message", &forged(&key, |parts| parts.hash = b"sha256".to_vec())));
}

#[test]
fn what_is_not_exactly_a_signature_for_consign_is_refused() {
    let key = fresh();
    let other = public_blob(&fresh().public());
    let refused = |change: &dyn Fn(&mut Parts)| {
        assert!(!verify(&key.public(), b"message", &forged(&key, change)));
    };
    refused(&|parts| parts.magic = b"SSHSIX".to_vec());
    refused(&|parts| parts.version = 0);
    refused(&|parts| parts.version = 2);
    refused(&|parts| parts.namespace = b"git".to_vec());
    refused(&|parts| parts.namespace = b"consign\0".to_vec());
    refused(&|parts| parts.namespace = vec![]);
    refused(&|parts| parts.reserved = b"x".to_vec());
    refused(&|parts| parts.hash = b"sha1".to_vec());
    refused(&|parts| parts.hash = b"SHA512".to_vec());
    refused(&|parts| parts.hash = vec![]);
    refused(&|parts| parts.public.clone_from(&other));
    refused(&|parts| parts.public = parts.public.replace(b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com"));
    refused(&|parts| parts.signature_type = b"sk-ssh-ed25519@openssh.com".to_vec());
    refused(&|parts| parts.signature_type = b"rsa-sha2-512".to_vec());
    refused(&|parts| parts.inner_tail = vec![0]);
    refused(&|parts| parts.tail = vec![0]);
    refused(&|parts| parts.tail = vec![0; SSHSIG_BYTES]);
}

trait Replace {
    fn replace(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl Replace for Vec<u8> {
    /// With the length in front of it, as a key type has.
    fn replace(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, to);
        bytes.extend_from_slice(&self[4 + from.len()..]);
        bytes
    }
}

#[test]
fn a_raw_signature_is_no_blob_and_a_blob_is_no_raw_signature() {
    let key = fresh();
    assert!(!verify(&key.public(), b"message", &key.sign(b"message")));
    assert!(!verify(&key.public(), b"message", &key.sign(&to_sign(b"message"))));
    assert!(!key.public().verify(b"message", &signed(&key, b"message")));
}

#[test]
fn no_cut_and_no_flipped_bit_passes() {
    let key = fresh();
    let blob = signed(&key, b"message");
    for length in 0..blob.len() {
        assert!(!verify(&key.public(), b"message", &blob[..length]), "{length} bytes");
    }
    for position in 0..blob.len() {
        for bit in 0..8 {
            let mut flipped = blob.clone();
            flipped[position] ^= 1 << bit;
            assert!(!verify(&key.public(), b"message", &flipped), "byte {position} bit {bit}");
        }
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let key = fresh();
    let blob = signed(&key, b"message");
    // Every place where a length stands: after magic and version, the key, its inner strings, and so on.
    for position in 10..blob.len().saturating_sub(4) {
        for length in [u32::MAX, 0x8000_0000, 0x7fff_ffff, 1 << 16] {
            let mut lying = blob.clone();
            lying[position..position + 4].copy_from_slice(&length.to_be_bytes());
            assert!(!verify(&key.public(), b"message", &lying), "byte {position}");
        }
    }
    assert!(!verify(&key.public(), b"message", b""));
}

#[test]
fn a_public_key_is_read_from_its_blob() {
    let key = fresh().public();
    assert_eq!(raw_key(&public_blob(&key)), Some(key.as_raw().as_slice()));
    let mut long = public_blob(&key);
    long.push(0);
    assert_eq!(raw_key(&long), None);
    assert_eq!(raw_key(&long[..10]), None);
    let mut other = Vec::new();
    put(&mut other, b"ssh-rsa");
    put(&mut other, key.as_raw());
    assert_eq!(raw_key(&other), None);
}
