//! A next version on its way from one signer to another, in a file: who signs on another machine needs nothing else, not
//! even a coordinator. What is in it is believed only as far as it follows from the reader's own pinned copy.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    durable, json,
    limits::TRUST_ROOT_BYTES,
    trust::{Envelope, Refusal, TrustRoot},
};
use serde::{Deserialize, Serialize};

use super::difference::owners;
use crate::cli::{
    failure::{Doing, Failure, Result},
    profile::read,
};

const FORMAT: &str = "consign-trust-draft-v1";
const BYTES: usize = 8 << 20;
/// Of the versions before, so that who was away for long can follow.
const CHAIN_BYTES: usize = 2 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    /// `consign-trust-draft-v1`.
    format: String,
    /// Envelopes of the versions before, ascending, base64; the last one is the one that the next follows.
    chain: Vec<String>,
    /// The envelope of the next version, with the signatures so far, base64.
    next: String,
}

impl Draft {
    /// `chain`: ascending; of long ones the newest.
    pub(super) fn new(chain: &[Vec<u8>], next: &[u8]) -> Self {
        let mut left = CHAIN_BYTES;
        let mut kept: Vec<String> = chain
            .iter()
            .rev()
            .take_while(|envelope| {
                let fits = envelope.len() <= left;
                left = left.saturating_sub(envelope.len());
                fits
            })
            .map(|envelope| STANDARD.encode(envelope))
            .collect();
        kept.reverse();
        Self { format: FORMAT.into(), chain: kept, next: STANDARD.encode(next) }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let draft: Self = json::from_slice(&read(path, BYTES as u64)?, BYTES).at("read", path)?;
        if draft.format != FORMAT {
            return Err(Failure::new(format!("{} is no {FORMAT}", path.display())));
        }
        Ok(draft)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        durable::replace_file(path, &json::to_vec(self), 0o644).at("write", path)
    }

    pub(super) fn next(&self) -> Result<Vec<u8>> {
        decode(&self.next)
    }

    pub(super) fn set_next(&mut self, envelope: &Envelope) {
        self.next = STANDARD.encode(envelope.to_vec());
    }

    /// From the pinned copy through the draft's chain: the version that the next one follows, with its envelope.
    pub(super) fn follow(&self, pinned: (Vec<u8>, TrustRoot)) -> Result<(Vec<u8>, TrustRoot)> {
        let (mut envelope, mut root) = pinned;
        for link in &self.chain {
            let link = decode(link)?;
            // Those up to the pinned one do not follow it.
            if let Ok(next) = root.open_next(&link) {
                (envelope, root) = (link, next);
            }
        }
        Ok((envelope, root))
    }

    /// What the next version would say.
    pub(super) fn read_next(&self, root: &TrustRoot) -> Result<TrustRoot> {
        root.read_next(&self.next()?).map_err(|refusal| {
            Failure::refused(format!("the draft does not follow from your pinned copy: {refusal}")).next(
                format!(
                    "`consign trust show` shows yours, version {}; ask for a draft that follows it",
                    root.version
                ),
            )
        })
    }
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let bytes = STANDARD.decode(text).doing(|| "failed to read the draft".into())?;
    if bytes.len() > TRUST_ROOT_BYTES {
        return Err(Failure::new(format!(
            "an envelope in the draft is longer than {TRUST_ROOT_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Who has signed a next version, and who must still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Signatures {
    pub(super) complete: bool,
    /// For the version in force, and for the next one by itself.
    thresholds: [Threshold; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Threshold {
    version: u64,
    needed: u32,
    /// Owners.
    signed: Vec<String>,
    missing: Vec<String>,
}

impl Signatures {
    pub(super) fn of(envelope: &[u8], root: &TrustRoot, next: &TrustRoot) -> Result<Self> {
        let parsed = Envelope::parse(envelope, TRUST_ROOT_BYTES).doing(|| "the draft".into())?;
        let complete = match root.open_next(envelope) {
            Ok(_) => true,
            Err(Refusal::SignatureMissing { .. } | Refusal::SignatureInvalid { .. }) => false,
            Err(refusal) => return Err(Failure::refused(refusal.to_string())),
        };
        let threshold = |of: &TrustRoot| {
            let signed = parsed.signers(&of.root, &of.keys);
            let mut signed: Vec<String> = signed.values().map(|key| key.owner.to_string()).collect();
            signed.sort();
            signed.dedup();
            let owners =
                of.root.keys.iter().filter_map(|id| of.keys.get(id)).map(|key| key.owner.to_string());
            let mut missing: Vec<String> = owners.filter(|owner| !signed.contains(owner)).collect();
            missing.sort();
            missing.dedup();
            Threshold { version: of.version, needed: of.root.threshold, signed, missing }
        };
        Ok(Self { complete, thresholds: [threshold(root), threshold(next)] })
    }

    /// One line for each version whose owners must sign.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |threshold: &Threshold| {
            let Threshold { version, needed, signed, missing } = threshold;
            let by = if signed.is_empty() { "nobody".to_owned() } else { signed.join(", ") };
            let still = usize::try_from(*needed).unwrap_or(usize::MAX).saturating_sub(signed.len());
            let text = format!("owners of version {version}: {} of {needed} signed ({by})", signed.len());
            match still {
                0 => text,
                still => format!("{text}; still {still} of {}", missing.join(", ")),
            }
        };
        self.thresholds.iter().map(line).collect()
    }
}

/// Whose signatures a next version needs, for messages.
pub(super) fn needs(root: &TrustRoot, next: &TrustRoot) -> String {
    if root.root == next.root {
        return owners(root, &root.root);
    }
    format!("{} (now) and {} (then)", owners(root, &root.root), owners(next, &next.root))
}

#[cfg(test)]
mod tests {
    use consign_common::{
        time::UnixMs,
        trust::{Key, RoleKeys, Scheme, SigningKey},
    };

    use super::*;
    use crate::cli::trust::edit::tests::root;

    /// Owned by these, of whom as many must sign.
    fn of(version: u64, threshold: u32, owners: &[(&str, &SigningKey)]) -> TrustRoot {
        let mut root = root();
        (root.version, root.expires) = (version, UnixMs(u64::MAX / 2));
        for (owner, key) in owners {
            let public = key.public();
            let key =
                Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: owner.parse().unwrap() };
            root.keys.insert(public.id(), key);
        }
        root.root = RoleKeys { keys: owners.iter().map(|(_, key)| key.public().id()).collect(), threshold };
        root.check().unwrap();
        root
    }

    fn signed(root: &TrustRoot, keys: &[&SigningKey]) -> Vec<u8> {
        Envelope::sign(root.payload_type(), root.to_payload(), keys).to_vec()
    }

    #[test]
    fn a_draft_is_believed_as_far_as_it_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("next.json");
        let [ada, bob, eve] = [0; 3].map(|_| SigningKey::generate().unwrap());
        let owners = [("ada", &ada), ("bob", &bob)];
        let roots: Vec<TrustRoot> = (1..=4).map(|version| of(version, 2, &owners)).collect();
        let chain: Vec<Vec<u8>> = roots.iter().take(3).map(|root| signed(root, &[&ada, &bob])).collect();
        let begun = Draft::new(&chain, &signed(&roots[3], &[&ada]));
        begun.write(&path).unwrap();
        let draft = Draft::read(&path).unwrap();
        assert_eq!(draft, begun);
        for pinned in 0..3 {
            let (_, root) = draft.follow((chain[pinned].clone(), roots[pinned].clone())).unwrap();
            assert_eq!(root.version, 3);
            assert_eq!(draft.read_next(&root).unwrap().version, 4);
        }
        let state = Signatures::of(&draft.next().unwrap(), &roots[2], &roots[3]).unwrap();
        assert!(!state.complete);
        assert_eq!(state.lines()[0], "owners of version 3: 1 of 2 signed (ada); still 1 of bob");

        // Links that the owners of the pinned one did not sign lead nowhere.
        let forged = [("eve", &eve)];
        let forged: Vec<Vec<u8>> = (2..=3).map(|version| signed(&of(version, 1, &forged), &[&eve])).collect();
        let draft = Draft::new(&forged, &signed(&roots[3], &[&ada]));
        let (_, root) = draft.follow((chain[0].clone(), roots[0].clone())).unwrap();
        assert_eq!(root.version, 1);
        assert!(draft.read_next(&root).unwrap_err().what.contains("does not follow"));
        // Signed by somebody else, it is not complete, and eve is nobody.
        let state = Signatures::of(&signed(&roots[3], &[&ada, &eve]), &roots[2], &roots[3]).unwrap();
        assert_eq!((state.complete, state.lines()[1].contains("eve")), (false, false));
    }

    #[test]
    fn a_draft_of_another_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("next.json");
        for bad in [
            r#"{"format":"consign-trust-draft-v2","chain":[],"next":""}"#,
            r#"{"format":"consign-trust-draft-v1","chain":[],"next":"","more":1}"#,
            "{}",
        ] {
            std::fs::write(&path, bad).unwrap();
            Draft::read(&path).unwrap_err();
        }
        let long = vec![vec![b'x'; CHAIN_BYTES / 2]; 5];
        assert_eq!(Draft::new(&long, b"").chain.len(), 2);
    }
}
