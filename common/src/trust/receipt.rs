//! Receipts: what an agent says of a deployment once it has ended (docs/formats.md, "receipt"), and whose key says it.
//!
//! The agent signs with a key of its own that is never renewed. That this key is the server's, the key of its certificate
//! says, in an endorsement that is made anew for every certificate: so whichever of the server's certificates somebody
//! vouched for (`consign:enrolled/v1`), from there a line leads to every receipt.

use serde::{Deserialize, Serialize};

use super::{Envelope, PublicKey, Refusal, SigningKey};
use crate::{
    deployment::{DeploymentOutcome, StepOutcome},
    digest::Sha256,
    json,
    limits::{ENVELOPE_BYTES, RECEIPT_BYTES},
    name::{App, Environment, Id, ServerName, StepName},
    plan::Phase,
    time::UnixMs,
};

pub const RECEIPT_FORMAT: &str = "consign-receipt-v1";
pub const RECEIPT_TYPE: &str = "application/vnd.consign.receipt.v1+json";
pub const RECEIPT_KEY_FORMAT: &str = "consign-receipt-key-v1";
pub const RECEIPT_KEY_TYPE: &str = "application/vnd.consign.receipt-key.v1+json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`RECEIPT_FORMAT`].
    pub format: String,
    pub server: ServerName,
    pub environment: Environment,
    pub order: Id,
    pub rollout: Id,
    pub deployment: Id,
    pub app: App,
    pub manifest: Sha256,
    pub result: DeploymentOutcome,
    /// In the order in which they ran; a step that was never reached is not listed.
    pub steps: Vec<StepReceipt>,
    pub started: UnixMs,
    pub ended: UnixMs,
    /// Of the boot in which the deployment ended.
    pub boot_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReceipt {
    pub name: StepName,
    pub phase: Phase,
    /// 0 for a step that was skipped.
    pub attempts: u32,
    /// Of the last attempt.
    pub result: StepOutcome,
    /// Of the last attempt's log file, whole.
    pub log_sha256: Sha256,
    pub log_length: u64,
}

impl Receipt {
    pub fn sign(&self, key: &SigningKey) -> Envelope {
        Envelope::sign(RECEIPT_TYPE, json::to_vec(self), &[key])
    }

    /// Whom it is of, before it is known whose key is asked for.
    pub fn claimed(envelope: &[u8]) -> Result<Self, Refusal> {
        let envelope = Envelope::parse(envelope, RECEIPT_BYTES)?;
        read("receipt", RECEIPT_TYPE, &envelope, RECEIPT_BYTES)
    }

    /// A receipt that this key signed.
    pub fn open(envelope: &[u8], key: &PublicKey) -> Result<Self, Refusal> {
        let envelope = Envelope::parse(envelope, RECEIPT_BYTES)?;
        signed_by("receipt", &envelope, key)?;
        let receipt: Self = read("receipt", RECEIPT_TYPE, &envelope, RECEIPT_BYTES)?;
        format("receipt", &receipt.format, RECEIPT_FORMAT)?;
        Ok(receipt)
    }
}

/// The word of a server's certified key for the key that it signs receipts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptKey {
    /// [`RECEIPT_KEY_FORMAT`].
    pub format: String,
    pub server: ServerName,
    /// The key of its certificate, which signs this; Ed25519, base64.
    pub identity: String,
    /// What receipts are signed with; Ed25519, base64.
    pub key: String,
}

/// An endorsement that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsed {
    pub server: ServerName,
    /// SHA-256 of the certified key as certificates have it (SPKI, DER).
    pub spki: Sha256,
    pub key: PublicKey,
}

impl ReceiptKey {
    pub fn endorse(server: &ServerName, identity: &SigningKey, key: &PublicKey) -> Envelope {
        let word = Self {
            format: RECEIPT_KEY_FORMAT.to_owned(),
            server: server.clone(),
            identity: identity.public().to_base64(),
            key: key.to_base64(),
        };
        Envelope::sign(RECEIPT_KEY_TYPE, json::to_vec(&word), &[identity])
    }

    /// Verified by the key that it names itself: whose that one is, its digest says.
    pub fn open(envelope: &[u8]) -> Result<Endorsed, Refusal> {
        let envelope = Envelope::parse(envelope, ENVELOPE_BYTES)?;
        let word: Self = read("receipt key", RECEIPT_KEY_TYPE, &envelope, ENVELOPE_BYTES)?;
        format("receipt key", &word.format, RECEIPT_KEY_FORMAT)?;
        let public = |text: &str| {
            PublicKey::from_base64(text).map_err(|error| malformed("receipt key", error.to_string()))
        };
        let identity = public(&word.identity)?;
        signed_by("receipt key", &envelope, &identity)?;
        Ok(Endorsed { server: word.server, spki: spki(&identity), key: public(&word.key)? })
    }
}

/// What DER puts before an Ed25519 public key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The digest of a key as certificates have it.
fn spki(key: &PublicKey) -> Sha256 {
    Sha256::of(&[SPKI_PREFIX.as_slice(), key.as_raw()].concat())
}

fn signed_by(what: &'static str, envelope: &Envelope, key: &PublicKey) -> Result<(), Refusal> {
    if envelope.is_signed_by(key) {
        Ok(())
    } else {
        Err(Refusal::SignatureInvalid { what, valid: 0, threshold: 1 })
    }
}

fn read<T: serde::de::DeserializeOwned + Serialize>(
    what: &'static str,
    payload_type: &str,
    envelope: &Envelope,
    most: usize,
) -> Result<T, Refusal> {
    format(what, envelope.payload_type(), payload_type)?;
    json::from_slice_exact(envelope.payload(), most).map_err(|error| malformed(what, error.to_string()))
}

fn format(what: &'static str, found: &str, wanted: &str) -> Result<(), Refusal> {
    if found == wanted {
        return Ok(());
    }
    let found: String = found.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(malformed(what, format!("{found:?} is not {wanted}")))
}

fn malformed(what: &'static str, why: String) -> Refusal {
    Refusal::Malformed { what, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Identity;

    fn receipt() -> Receipt {
        Receipt {
            format: RECEIPT_FORMAT.into(),
            server: "web-1".parse().unwrap(),
            environment: "staging".parse().unwrap(),
            order: Id::from_bytes([1; 16]),
            rollout: Id::from_bytes([2; 16]),
            deployment: Id::from_bytes([3; 16]),
            app: "shop".parse().unwrap(),
            manifest: Sha256::of(b"manifest"),
            result: DeploymentOutcome::NoOp,
            steps: Vec::new(),
            started: UnixMs(1),
            ended: UnixMs(2),
            boot_id: "boot".into(),
        }
    }

    #[test]
    fn a_receipt_counts_under_its_key_only() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let envelope = receipt().sign(&key).to_vec();
        assert_eq!(Receipt::open(&envelope, &key.public()), Ok(receipt()));
        assert_eq!(Receipt::open(&envelope, &other.public()).unwrap_err().code(), "signature-invalid");
        let of_other_type = Envelope::sign("text/plain", json::to_vec(&receipt()), &[&key]).to_vec();
        assert_eq!(Receipt::open(&of_other_type, &key.public()).unwrap_err().code(), "malformed");
        let newer = Receipt { format: "consign-receipt-v2".into(), ..receipt() };
        assert_eq!(Receipt::open(&newer.sign(&key).to_vec(), &key.public()).unwrap_err().code(), "malformed");
    }

    #[test]
    fn a_certificates_key_endorses_the_key_of_receipts() {
        let server: ServerName = "web-1".parse().unwrap();
        let ca = crate::tls::Ca::generate("c", UnixMs(1_700_000_000_000)).unwrap();
        let subject = crate::tls::Subject::Agent { server: server.clone(), uid: Id::from_bytes([9; 16]) };
        let valid = std::time::Duration::from_secs(60);
        let identity: Identity = ca.issue_identity(&subject, UnixMs(1_700_000_000_000), valid).unwrap();
        let certified = SigningKey::from_pkcs8(&identity.key_pkcs8).unwrap();
        let key = SigningKey::generate().unwrap().public();

        let envelope = ReceiptKey::endorse(&server, &certified, &key);
        let endorsed = ReceiptKey::open(&envelope.to_vec()).unwrap();
        let spki = identity.peer().unwrap().spki_sha256;
        assert_eq!(
            endorsed,
            Endorsed { server: server.clone(), spki, key },
            "the digest is the certificate's"
        );

        let word = ReceiptKey {
            format: RECEIPT_KEY_FORMAT.into(),
            server,
            identity: certified.public().to_base64(),
            key: key.to_base64(),
        };
        let stranger = SigningKey::generate().unwrap();
        let forged = Envelope::sign(RECEIPT_KEY_TYPE, json::to_vec(&word), &[&stranger]).to_vec();
        assert_eq!(ReceiptKey::open(&forged).unwrap_err().code(), "signature-invalid");
    }
}
