//! Signed envelopes: DSSE v1.0.2 in JSON (https://github.com/secure-systems-lab/dsse).
//!
//! The order of reading is the point: verify the signatures over the payload's bytes, then parse those same bytes.
//! [`Envelope::verified_by`] is the way to a payload that something is decided by.

use std::collections::{BTreeMap, BTreeSet};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde::{Deserialize, Serialize};

use super::{Key, PublicKey, Refusal, RoleKeys, Scheme, SigningKey, sshsig};
use crate::{
    digest::Sha256,
    json,
    limits::{HINTLESS_VERIFICATIONS, SIGNATURES},
};

/// in-toto statements.
pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// Trust roots, so that no statement's signature is ever one on a trust root.
pub const TRUST_ROOT_TYPE: &str = "application/vnd.consign.trust-root.v1+json";
pub const TRUST_ROOT_V2_TYPE: &str = "application/vnd.consign.trust-root.v2+json";

/// A payload with signatures; nothing in it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// A hint, as DSSE has it: which key to try first. No decision looks at it.
    pub key_id: String,
    pub bytes: Vec<u8>,
}

impl Scheme {
    /// Whether these bytes of a `sig` are this key's signature of the message.
    pub fn verify(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519 => key.verify(message, signature),
            Self::Sshsig => sshsig::verify(key, message, signature),
        }
    }
}

/// What is signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// For signatures that are made elsewhere: [`Self::add`].
    pub fn unsigned(payload_type: &str, payload: Vec<u8>) -> Self {
        Self { payload, payload_type: payload_type.to_owned(), signatures: Vec::new() }
    }

    pub fn sign(payload_type: &str, payload: Vec<u8>, keys: &[&SigningKey]) -> Self {
        let mut envelope = Self::unsigned(payload_type, payload);
        keys.iter().for_each(|key| envelope.add_signature(key));
        envelope
    }

    pub fn add_signature(&mut self, key: &SigningKey) {
        self.add(Signature { key_id: key.public().id().to_string(), bytes: key.sign(&self.signed_bytes()) });
    }

    /// A second signature by the same key replaces the first.
    pub fn add(&mut self, signature: Signature) {
        self.signatures.retain(|known| known.key_id != signature.key_id);
        self.signatures.push(signature);
    }

    pub fn parse(bytes: &[u8], max_bytes: usize) -> Result<Self, Refusal> {
        let malformed = |why: String| Refusal::Malformed { what: "envelope", why };
        let wire: Wire = json::from_slice(bytes, max_bytes).map_err(|error| malformed(error.to_string()))?;
        if wire.signatures.len() > SIGNATURES {
            let count = wire.signatures.len();
            return Err(malformed(format!("{count} signatures, at most {SIGNATURES} are allowed")));
        }
        let decode = |text: &str| from_base64(text).ok_or_else(|| malformed("not base64".to_owned()));
        let signatures = wire
            .signatures
            .into_iter()
            .map(|signature| Ok(Signature { bytes: decode(&signature.sig)?, key_id: signature.keyid }));
        Ok(Self {
            payload: decode(&wire.payload)?,
            payload_type: wire.payload_type,
            signatures: signatures.collect::<Result<_, Refusal>>()?,
        })
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().map(|signature| WireSignature {
            keyid: signature.key_id.clone(),
            sig: STANDARD.encode(&signature.bytes),
        });
        json::to_vec(&Wire {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: signatures.collect(),
        })
    }

    /// The payload as claimed. For showing and for finding the right document; decisions take [`Self::verified_by`].
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The payload, if enough distinct owners of distinct keys of `role` have signed it. Keys come from the role only:
    /// what the envelope says of its signers is not looked at.
    pub fn verified_by(
        &self,
        what: &'static str,
        role: &RoleKeys,
        keys: &BTreeMap<Sha256, Key>,
    ) -> Result<&[u8], Refusal> {
        if self.signatures.is_empty() {
            return Err(Refusal::SignatureMissing { what });
        }
        let owners: BTreeSet<_> = self.signers(role, keys).into_values().map(|key| &key.owner).collect();
        let valid = u32::try_from(owners.len()).unwrap_or(u32::MAX);
        // A threshold of 0 never passes TrustRoot::check; here it must not mean "anybody" either.
        let threshold = role.threshold.max(1);
        if valid < threshold {
            return Err(Refusal::SignatureInvalid { what, valid, threshold });
        }
        Ok(&self.payload)
    }

    /// The keys of `role` that have signed, each in its own scheme. A public key that stands in the role twice, under
    /// two owners or two schemes, is one key.
    ///
    /// Each signature is tried with the key that its hint names, whatever its role; where that did not make it, with those
    /// of the role. Of the latter an envelope has [`HINTLESS_VERIFICATIONS`]: with many signatures and many keys it would
    /// take long to find that none fits.
    pub fn signers<'a>(
        &self,
        role: &RoleKeys,
        keys: &'a BTreeMap<Sha256, Key>,
    ) -> BTreeMap<PublicKey, &'a Key> {
        let message = self.signed_bytes();
        let made = |id: &Sha256, signature: &Signature| {
            let key = keys.get(id)?;
            let public = PublicKey::from_base64(&key.public).ok()?;
            key.scheme.verify(&public, &message, &signature.bytes).then_some((public, key))
        };
        let mut signers = BTreeMap::new();
        let mut others: Vec<(Option<Sha256>, &Signature)> = Vec::new();
        for signature in &self.signatures {
            let hint: Option<Sha256> = signature.key_id.parse().ok();
            match hint.and_then(|id| Some((id, made(&id, signature)?))) {
                Some((id, (public, key))) if role.keys.contains(&id) => {
                    signers.entry(public).or_insert(key);
                }
                // It is one by somebody else.
                Some(_) => {}
                None => others.push((hint, signature)),
            }
        }
        let mut left = HINTLESS_VERIFICATIONS;
        for (hint, signature) in others {
            for id in role.keys.iter().filter(|id| hint != Some(**id)) {
                if left == 0 {
                    return signers;
                }
                left -= 1;
                if let Some((public, key)) = made(id, signature) {
                    signers.entry(public).or_insert(key);
                    break;
                }
            }
        }
        signers
    }

    /// Whether this key has signed, whoever holds it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let message = self.signed_bytes();
        self.signatures.iter().any(|signature| key.verify(&message, &signature.bytes))
    }

    fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }
}

/// DSSE asks readers to take both alphabets. Each has one spelling here: padded, and with no stray bits at the end.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// DSSE asks readers to ignore fields that they do not know; none of them is signed.
#[derive(Serialize, Deserialize)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ENVELOPE_BYTES;

    /// Keys with their owners, as a trust root holds them.
    fn keys(of: &[(&SigningKey, &str)]) -> BTreeMap<Sha256, Key> {
        let key = |(key, owner): &(&SigningKey, &str)| {
            let public = key.public();
            let entry =
                Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: owner.parse().unwrap() };
            (public.id(), entry)
        };
        of.iter().map(key).collect()
    }

    fn role(threshold: u32, of: &[&SigningKey]) -> RoleKeys {
        RoleKeys { keys: of.iter().map(|key| key.public().id()).collect(), threshold }
    }

    fn key() -> SigningKey {
        SigningKey::generate().unwrap()
    }

    fn code(envelope: &Envelope, role: &RoleKeys, keys: &BTreeMap<Sha256, Key>) -> &'static str {
        envelope.verified_by("document", role, keys).expect_err("must be refused").code()
    }

    #[test]
    fn the_pre_image_is_that_of_dsse() {
        // The example of the DSSE protocol, version 1.0.2.
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
        assert_ne!(pae("a", b"b c"), pae("a b", b"c"));
    }

    #[test]
    fn travels_and_verifies() {
        let (a, b) = (key(), key());
        let keys = keys(&[(&a, "alice"), (&b, "bob")]);
        let mut envelope = Envelope::sign("t", b"payload".to_vec(), &[&a]);
        assert_eq!(code(&envelope, &role(2, &[&a, &b]), &keys), "signature-invalid");
        envelope.add_signature(&b);
        let read = Envelope::parse(&envelope.to_vec(), ENVELOPE_BYTES).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(read.verified_by("document", &role(2, &[&a, &b]), &keys).unwrap(), b"payload");
    }

    #[test]
    fn an_owner_counts_once_however_the_signatures_are_multiplied() {
        let (a, second_of_a, stranger) = (key(), key(), key());
        let keys = keys(&[(&a, "alice"), (&second_of_a, "alice")]);
        let two = role(2, &[&a, &second_of_a]);

        let mut twice = Envelope::sign("t", b"p".to_vec(), &[&a]);
        let mut copy = twice.signatures[0].clone();
        copy.key_id = second_of_a.public().id().to_string();
        twice.signatures.push(copy);
        assert_eq!(code(&twice, &two, &keys), "signature-invalid");

        let both = Envelope::sign("t", b"p".to_vec(), &[&a, &second_of_a]);
        assert_eq!(code(&both, &two, &keys), "signature-invalid");

        let named_twice = RoleKeys { keys: vec![a.public().id(); 2], threshold: 2 };
        assert_eq!(code(&both, &named_twice, &keys), "signature-invalid");

        let unknown = Envelope::sign("t", b"p".to_vec(), &[&stranger]);
        assert_eq!(code(&unknown, &role(1, &[&a]), &keys), "signature-invalid");
        // A key that the trust root has, but for another role.
        assert_eq!(code(&both, &role(1, &[&stranger]), &keys), "signature-invalid");
    }

    #[test]
    fn one_public_key_under_two_owners_counts_once() {
        let a = key();
        let mut keys = keys(&[(&a, "alice")]);
        let bob = Key { owner: "bob".parse().unwrap(), ..keys.values().next().unwrap().clone() };
        let other_id = Sha256::of(b"not its id");
        keys.insert(other_id, bob);
        let two = RoleKeys { keys: vec![a.public().id(), other_id], threshold: 2 };
        assert_eq!(code(&Envelope::sign("t", b"p".to_vec(), &[&a]), &two, &keys), "signature-invalid");
    }

    #[test]
    fn a_key_signs_in_its_own_scheme_only() {
        let a = key();
        let mut keys = keys(&[(&a, "alice")]);
        let one = role(1, &[&a]);
        let raw = Envelope::sign("t", b"p".to_vec(), &[&a]);
        let mut ssh = Envelope::unsigned("t", b"p".to_vec());
        let signature = a.sign(&sshsig::to_sign(&pae("t", b"p")));
        ssh.add(Signature { key_id: String::new(), bytes: sshsig::blob(&a.public(), &signature) });
        // The signature of the frame, without the blob around it, is one in neither scheme.
        let mut bare = Envelope::unsigned("t", b"p".to_vec());
        bare.add(Signature { key_id: String::new(), bytes: signature });

        assert!(raw.verified_by("document", &one, &keys).is_ok());
        assert_eq!(code(&ssh, &one, &keys), "signature-invalid");
        assert_eq!(code(&bare, &one, &keys), "signature-invalid");
        keys.values_mut().for_each(|key| key.scheme = Scheme::Sshsig);
        assert_eq!(code(&raw, &one, &keys), "signature-invalid");
        assert!(ssh.verified_by("document", &one, &keys).is_ok());
        assert_eq!(code(&bare, &one, &keys), "signature-invalid");
    }

    #[test]
    fn one_public_key_under_two_schemes_counts_once() {
        let a = key();
        let mut keys = keys(&[(&a, "alice")]);
        let other_id = Sha256::of(b"not its id");
        let ssh =
            Key { scheme: Scheme::Sshsig, public: a.public().to_base64(), owner: "bob".parse().unwrap() };
        keys.insert(other_id, ssh);
        let two = RoleKeys { keys: vec![a.public().id(), other_id], threshold: 2 };
        let mut both = Envelope::sign("t", b"p".to_vec(), &[&a]);
        let signature = a.sign(&sshsig::to_sign(&pae("t", b"p")));
        both.add(Signature { key_id: "other".into(), bytes: sshsig::blob(&a.public(), &signature) });
        assert_eq!(both.signatures.len(), 2);
        assert_eq!(code(&both, &two, &keys), "signature-invalid");
        assert_eq!(both.signers(&two, &keys).len(), 1);
    }

    #[test]
    fn no_signature_or_no_threshold_is_a_refusal() {
        let a = key();
        let keys = keys(&[(&a, "alice")]);
        assert_eq!(code(&Envelope::sign("t", vec![], &[]), &role(1, &[&a]), &keys), "signature-missing");
        assert_eq!(code(&Envelope::sign("t", vec![], &[&key()]), &role(0, &[]), &keys), "signature-invalid");
    }

    #[test]
    fn a_signature_is_for_one_type() {
        let a = key();
        let keys = keys(&[(&a, "alice")]);
        let mut envelope = Envelope::sign(STATEMENT_TYPE, b"{}".to_vec(), &[&a]);
        envelope.payload_type = TRUST_ROOT_TYPE.to_owned();
        assert_eq!(code(&envelope, &role(1, &[&a]), &keys), "signature-invalid");
    }

    #[test]
    fn both_alphabets_are_read_in_one_spelling_each() {
        let wire = |payload: &str| {
            let text = format!(r#"{{"payload":"{payload}","payloadType":"t","signatures":[],"later":1}}"#);
            Envelope::parse(text.as_bytes(), ENVELOPE_BYTES).map(|envelope| envelope.payload)
        };
        assert_eq!(wire("+/+/").unwrap(), wire("-_-_").unwrap());
        wire("Zg==").unwrap();
        for bad in ["+/-_", "Zg", "Zh==", "Zg==\\n", " Zg==", "Z g="] {
            assert_eq!(wire(bad).unwrap_err().code(), "malformed", "{bad}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_has_signed_nothing() {
        let (alice, bob) = (key(), key());
        let mut keys = keys(&[(&alice, "alice"), (&bob, "bob")]);
        let envelope = Envelope::sign("a", b"b".to_vec(), &[&alice, &bob]);
        let role = role(1, &[&alice, &bob]);
        assert_eq!(envelope.signers(&role, &keys).len(), 2);
        if let Some(entry) = keys.get_mut(&alice.public().id()) {
            entry.public = "!".to_owned();
        }
        let signers = envelope.signers(&role, &keys);
        assert_eq!(signers.into_keys().collect::<Vec<_>>(), [bob.public()]);
    }

    #[test]
    fn signatures_are_bounded() {
        let a = key();
        let mut envelope = Envelope::sign("t", vec![], &[&a]);
        envelope.signatures = vec![envelope.signatures[0].clone(); SIGNATURES];
        Envelope::parse(&envelope.to_vec(), ENVELOPE_BYTES).unwrap();
        envelope.signatures = vec![envelope.signatures[0].clone(); SIGNATURES + 1];
        assert_eq!(Envelope::parse(&envelope.to_vec(), ENVELOPE_BYTES).unwrap_err().code(), "malformed");
        assert_eq!(Envelope::parse(&envelope.to_vec(), 100).unwrap_err().code(), "malformed");
    }

    #[test]
    fn a_wrong_hint_neither_makes_a_signature_count_nor_unmakes_it() {
        let (a, b, elsewhere, stranger) = (key(), key(), key(), key());
        let keys = keys(&[(&a, "alice"), (&b, "bob"), (&elsewhere, "carol")]);
        let both = role(2, &[&a, &b]);
        let hints = [String::new(), "no id".into()]
            .into_iter()
            .chain([&a, &b, &elsewhere, &stranger].map(|key| key.public().id().to_string()));
        for hint in hints {
            let mut envelope = Envelope::sign("t", b"p".to_vec(), &[&a, &b]);
            envelope.signatures.iter_mut().for_each(|signature| signature.key_id.clone_from(&hint));
            assert!(envelope.verified_by("document", &both, &keys).is_ok(), "{hint:?}");
            for other in [&elsewhere, &stranger] {
                let mut envelope = Envelope::sign("t", b"p".to_vec(), &[other]);
                envelope.signatures[0].key_id.clone_from(&hint);
                assert_eq!(code(&envelope, &role(1, &[&a, &b]), &keys), "signature-invalid", "{hint:?}");
            }
        }
    }

    #[test]
    fn tries_are_bounded_and_what_names_its_key_needs_none() {
        let strangers: Vec<SigningKey> =
            (0..HINTLESS_VERIFICATIONS / (SIGNATURES - 1)).map(|_| key()).collect();
        let a = key();
        let everybody: Vec<(&SigningKey, &str)> =
            strangers.iter().map(|key| (key, "somebody")).chain([(&a, "alice")]).collect();
        let keys = keys(&everybody);
        // One key more than there are tries for, and alice's is the last.
        let mut all = role(1, &strangers.iter().collect::<Vec<_>>());
        all.keys.push(a.public().id());
        let mut envelope = Envelope::sign("t", b"p".to_vec(), &[&a]);
        let junk = Signature { key_id: String::new(), bytes: vec![0; 64] };
        let honest = envelope.signatures.remove(0);
        envelope.signatures = vec![junk; SIGNATURES - 1];
        envelope.signatures.push(honest);
        assert!(envelope.verified_by("document", &all, &keys).is_ok());
        envelope.signatures.last_mut().unwrap().key_id = String::new();
        assert_eq!(code(&envelope, &all, &keys), "signature-invalid");
    }

    #[test]
    fn no_flipped_bit_changes_what_is_verified() {
        let a = key();
        let (keys, role) = (keys(&[(&a, "alice")]), role(1, &[&a]));
        let envelope = Envelope::sign(STATEMENT_TYPE, b"{\"some\":\"payload\"}".to_vec(), &[&a]);
        let bytes = envelope.to_vec();
        let text = String::from_utf8(bytes.clone()).unwrap();
        // The key id is a hint: a flip in it (or in its name, which makes it an unknown field) changes nothing.
        let hint = text.find("\"keyid\"").unwrap()..text.find(",\"sig\"").unwrap();
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                let read = Envelope::parse(&flipped, ENVELOPE_BYTES).and_then(|read| {
                    Ok((read.verified_by("document", &role, &keys)?.to_vec(), read.payload_type))
                });
                match read {
                    Err(_) => {}
                    Ok((payload, payload_type)) => {
                        assert!(hint.contains(&position), "byte {position} bit {bit}");
                        assert_eq!(
                            (payload.as_slice(), payload_type.as_str()),
                            (envelope.payload(), STATEMENT_TYPE)
                        );
                    }
                }
            }
        }
    }
}
