//! The coordinator's audit log (docs/formats.md, "audit entry"): entries in a chain of hashes, so that whoever remembers
//! one hash finds every entry before it that was removed, altered or put elsewhere. Pure.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Hasher, Sha256},
    json,
    limits::AUDIT_ENTRY_BYTES,
    time::UnixMs,
};

pub const AUDIT_FORMAT: &str = "consign-audit-v1";

/// What somebody did, or was not let do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`AUDIT_FORMAT`].
    pub format: String,
    /// 1, 2, 3, ... without gaps.
    pub sequence: u64,
    pub at: UnixMs,
    pub who: Who,
    /// The peer's address; `socket`: the unix socket; `coordinator`: nobody asked.
    pub from: String,
    /// The verb, as the command line has it: `rollout start`.
    pub what: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<About, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Digests of the envelopes and manifests that it went by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<Sha256>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// As the coordinator names its callers: `ada`, `server web-1`, `local user 0`; itself `coordinator`.
    pub identity: String,
    pub role: String,
}

/// What a verb was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    App,
    Artifact,
    Deployment,
    Environment,
    Key,
    Operator,
    Predicate,
    Role,
    Rollout,
    Server,
    Settings,
    Step,
    Token,
    TrustRoot,
    Version,
    Webhook,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    Done {},
    Refused { code: String, message: String },
}

impl About {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Artifact => "artifact",
            Self::Deployment => "deployment",
            Self::Environment => "environment",
            Self::Key => "key",
            Self::Operator => "operator",
            Self::Predicate => "predicate",
            Self::Role => "role",
            Self::Rollout => "rollout",
            Self::Server => "server",
            Self::Settings => "settings",
            Self::Step => "step",
            Self::Token => "token",
            Self::TrustRoot => "trust-root",
            Self::Version => "version",
            Self::Webhook => "webhook",
        }
    }
}

/// Where a chain ends: what is worth remembering of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Of the newest entry; 0: there is none.
    pub sequence: u64,
    pub hash: Sha256,
}

impl Head {
    /// Before the first entry.
    pub const START: Self = Self { sequence: 0, hash: Sha256::from_bytes([0; 32]) };

    /// With one more entry: its hash is of the one before and of its bytes.
    pub fn with(self, entry: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(self.hash.as_bytes());
        hasher.update(entry);
        Self { sequence: self.sequence.saturating_add(1), hash: hasher.finish() }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.sequence, self.hash.short())
    }
}

/// What one head says of another one, of the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    Same,
    /// The other one is newer; whether it goes on from here, only the entries between them tell.
    Newer,
    /// The other one is older, or another entry stands in the same place: what was there is not there any more.
    Rewritten,
}

impl Head {
    pub fn compare(self, other: Self) -> Compared {
        match (self == other, other.sequence > self.sequence) {
            (true, _) => Compared::Same,
            (false, true) => Compared::Newer,
            (false, false) => Compared::Rewritten,
        }
    }
}

/// The first thing that is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("entry {sequence} was removed: {found} stands where it was")]
    Removed { sequence: u64, found: u64 },
    #[error("entry {sequence} was put elsewhere: {found} stands where it was")]
    Reordered { sequence: u64, found: u64 },
    #[error("entry {sequence} was altered: it has not the hash that is kept with it")]
    Altered { sequence: u64 },
    #[error("entry {sequence} was altered: it cannot be read ({why})")]
    Unreadable { sequence: u64, why: String },
    #[error("entries after {end} were removed: {who} has seen {seen}")]
    CutOff { end: u64, seen: u64, who: String },
    #[error(
        "an entry up to {sequence} was altered and the chain made anew from there: {who} has seen another {sequence}"
    )]
    Rewritten { sequence: u64, who: String },
}

/// Reads a chain from its beginning, entry by entry, and compares it with the heads that others remember.
#[derive(Debug)]
pub struct Verifier {
    head: Head,
    /// Heads that somebody remembers, with who does; those that were not met yet.
    remembered: Vec<(Head, String)>,
    fault: Option<Fault>,
    /// Entries that agree with a head that somebody remembers.
    agreed: usize,
}

impl Verifier {
    pub fn new(mut remembered: Vec<(Head, String)>) -> Self {
        remembered.retain(|(head, _)| head.sequence > 0);
        remembered.sort_by_key(|(head, _)| head.sequence);
        Self { head: Head::START, remembered, fault: None, agreed: 0 }
    }

    /// The next entry with the hash that is kept with it. What it says, if nothing was wrong up to here.
    pub fn take(&mut self, bytes: &[u8], hash: Sha256) -> Option<Entry> {
        let sequence = self.head.sequence.saturating_add(1);
        let read = json::from_slice_exact::<Entry>(bytes, AUDIT_ENTRY_BYTES);
        if let Some(fault) = &mut self.fault {
            // It goes on only to tell what was removed from what stands elsewhere.
            if let (Fault::Removed { sequence, found }, Ok(entry)) = (&fault, &read)
                && entry.sequence == *sequence
            {
                *fault = Fault::Reordered { sequence: *sequence, found: *found };
            }
            return None;
        }
        let entry = match read {
            Ok(entry) if entry.format == AUDIT_FORMAT => entry,
            Ok(entry) => {
                return self.fault(Fault::Unreadable { sequence, why: format!("format {:?}", entry.format) });
            }
            Err(error) => return self.fault(Fault::Unreadable { sequence, why: error.to_string() }),
        };
        if entry.sequence != sequence {
            return self.fault(Fault::Removed { sequence, found: entry.sequence });
        }
        let head = self.head.with(bytes);
        if head.hash != hash {
            return self.fault(Fault::Altered { sequence });
        }
        self.head = head;
        for (remembered, who) in self.remembered.iter().filter(|(head, _)| head.sequence == sequence) {
            if *remembered != head {
                self.fault = Some(Fault::Rewritten { sequence, who: who.clone() });
                return None;
            }
            self.agreed += 1;
        }
        Some(entry)
    }

    fn fault(&mut self, fault: Fault) -> Option<Entry> {
        self.fault = Some(fault);
        None
    }

    /// The chain's head, and how many heads agreed; or what is wrong with it first.
    pub fn end(self) -> Result<(Head, usize), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let end = self.head.sequence;
        match self.remembered.into_iter().find(|(head, _)| head.sequence > end) {
            Some((seen, who)) => Err(Fault::CutOff { end, seen: seen.sequence, who }),
            None => Ok((self.head, self.agreed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64) -> Entry {
        Entry {
            format: AUDIT_FORMAT.into(),
            sequence,
            at: UnixMs(sequence),
            who: Who { identity: "ada".into(), role: "admin".into() },
            from: "192.0.2.1:5000".into(),
            what: "rollout start".into(),
            about: [(About::App, "shop".into())].into(),
            reason: String::new(),
            documents: Vec::new(),
            outcome: Outcome::Done {},
        }
    }

    type Chain = Vec<(Vec<u8>, Sha256)>;

    fn chain_of(entries: impl IntoIterator<Item = Entry>) -> Chain {
        let mut head = Head::START;
        let link = |entry: Entry| {
            let bytes = json::to_vec(&entry);
            head = head.with(&bytes);
            (bytes, head.hash)
        };
        entries.into_iter().map(link).collect()
    }

    fn chain() -> Chain {
        chain_of((1..=9).map(entry))
    }

    fn head_at(chain: &Chain, sequence: u64) -> Head {
        Head { sequence, hash: chain[usize::try_from(sequence).unwrap() - 1].1 }
    }

    fn verify(chain: &Chain, remembered: &[(Head, &str)]) -> Result<(Head, usize), Fault> {
        let mut verifier =
            Verifier::new(remembered.iter().map(|(head, who)| (*head, (*who).to_owned())).collect());
        for (bytes, hash) in chain {
            verifier.take(bytes, *hash);
        }
        verifier.end()
    }

    #[test]
    fn a_whole_chain_is_whole() {
        let chain = chain();
        let (last, fifth) = (head_at(&chain, 9), head_at(&chain, 5));
        assert_eq!(verify(&chain, &[(last, "me"), (fifth, "web-1"), (Head::START, "web-2")]), Ok((last, 2)));
        assert_eq!(verify(&Vec::new(), &[]), Ok((Head::START, 0)));
    }

    #[test]
    fn every_byte_counts() {
        let whole = chain();
        let (bytes, _) = &whole[3];
        for at in 0..bytes.len() {
            let mut altered = whole.clone();
            altered[3].0[at] ^= 1;
            let fault = verify(&altered, &[]).unwrap_err();
            let named = match fault {
                Fault::Altered { sequence } | Fault::Unreadable { sequence, .. } => sequence == 4,
                // Its own number was what was altered.
                Fault::Removed { sequence, .. } => sequence == 4,
                Fault::Reordered { .. } | Fault::CutOff { .. } | Fault::Rewritten { .. } => false,
            };
            assert!(named, "byte {at}");
        }
    }

    #[test]
    fn what_is_removed_or_put_elsewhere_is_named() {
        let mut removed = chain();
        removed.remove(3);
        assert_eq!(verify(&removed, &[]), Err(Fault::Removed { sequence: 4, found: 5 }));
        let mut moved = chain();
        moved.swap(3, 6);
        assert_eq!(verify(&moved, &[]), Err(Fault::Reordered { sequence: 4, found: 7 }));
        let mut first = chain();
        first.remove(0);
        assert_eq!(verify(&first, &[]), Err(Fault::Removed { sequence: 1, found: 2 }));
    }

    #[test]
    fn a_cut_end_and_a_chain_made_anew_are_found_by_who_remembers() {
        let whole = chain();
        let cut = whole[..6].to_vec();
        assert!(verify(&cut, &[]).is_ok(), "in itself it is whole");
        let fault = verify(&cut, &[(head_at(&whole, 5), "web-1"), (head_at(&whole, 8), "web-2")]);
        assert_eq!(fault, Err(Fault::CutOff { end: 6, seen: 8, who: "web-2".into() }));

        let mut entries: Vec<Entry> = (1..=9).map(entry).collect();
        entries[4].who.identity = "mallory".into();
        let anew = chain_of(entries);
        assert!(verify(&anew, &[]).is_ok(), "in itself it is whole");
        assert!(verify(&anew, &[(head_at(&whole, 4), "web-1")]).is_ok(), "it has seen nothing of that");
        let fault = verify(&anew, &[(head_at(&whole, 4), "web-1"), (head_at(&whole, 7), "me")]);
        assert_eq!(fault, Err(Fault::Rewritten { sequence: 7, who: "me".into() }));
    }

    #[test]
    fn heads_of_one_log_are_compared() {
        let chain = chain();
        let (third, fifth) = (head_at(&chain, 3), head_at(&chain, 5));
        assert_eq!(third.compare(fifth), Compared::Newer);
        assert_eq!(fifth.compare(fifth), Compared::Same);
        assert_eq!(fifth.compare(third), Compared::Rewritten);
        assert_eq!(fifth.compare(Head { hash: Sha256::of(b"other"), ..fifth }), Compared::Rewritten);
    }
}
