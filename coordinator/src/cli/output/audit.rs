//! The audit log, and what servers say they ran.

use consign_common::audit::{Entry, Outcome};
use consign_proto::v1;
use serde::Serialize;

use super::{Proof, Rollout};

/// An entry as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    pub hash: String,
    #[serde(flatten)]
    pub entry: Entry,
}

/// As it is kept, so that the hashes can be made again: each is the SHA-256 of the one before (32 bytes) and of `entry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportedEntry {
    pub entry: String,
    pub hash: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditVerified {
    pub entries: u64,
    pub hash: String,
    /// Heads that somebody remembers and that agree: our own, and agents'.
    pub agreed: usize,
    /// Receipts whose signatures hold and that the log names.
    pub receipts: usize,
}

/// An agent has seen an entry that is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditDispute {
    pub server: String,
    pub sequence: u64,
    pub hash: String,
    /// The hash that stands there instead; empty: there is no such entry.
    pub found: String,
    pub since_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptLine {
    pub server: String,
    pub environment: String,
    pub rollout: String,
    pub deployment: String,
    /// `succeeded`, `no-op`, `failed`, `returned`, `stopped`, `unknown`, `cancelled`, `refused`.
    pub result: String,
    pub because: String,
    pub started_ms: u64,
    pub ended_ms: u64,
    pub steps: Vec<ReceiptStep>,
    /// Whose word it is that the server has the key that signed it. `false`: the server has not signed it, and the rest of
    /// the line is empty.
    pub key: Proof,
}

/// A rollout with what its servers signed of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownRollout {
    #[serde(flatten)]
    pub rollout: Rollout,
    pub receipts: Vec<RolloutReceipt>,
}

/// The last word of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RolloutReceipt {
    pub server: String,
    pub deployment: String,
    /// As in `audit receipts`.
    pub result: String,
    /// `false` also where the coordinator says that it ended otherwise.
    pub proof: Proof,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptStep {
    pub name: String,
    pub phase: String,
    pub attempts: u32,
    pub result: String,
    pub log_sha256: String,
    pub log_length: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovedBy {
    pub environment: String,
    /// When it was signed; where it is only told, when it came.
    pub at_ms: u64,
    /// No server takes it under this approval after this; 0 where it is only told.
    pub until_ms: u64,
    pub reason: String,
    /// Who signed it with which key, and as what: roles that the gate asks.
    pub signers: Vec<ApprovalSigner>,
    /// Rollouts that began under it, as the coordinator tells.
    pub rollouts: Vec<LetThrough>,
    /// `proven`: signed by people whom the environment's gate asks, by our own trust root.
    pub proof: Proof,
    /// Of the envelope.
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovalSigner {
    pub owner: String,
    /// SHA-256 of the public key.
    pub key: String,
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetThrough {
    pub rollout: String,
    pub state: String,
    pub started_ms: u64,
}

/// Somebody who is told, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    pub name: String,
    /// Of its address.
    pub host: String,
    /// Empty: all.
    pub events: Vec<String>,
    pub apps: Vec<String>,
    pub environments: Vec<String>,
    pub waiting: u64,
    pub delivered: u64,
    pub given_up: u64,
    /// Because too many waited.
    pub lost: u64,
    /// Of the oldest that waits: what its last try came to.
    pub error: String,
    pub next_ms: u64,
    pub delivered_ms: u64,
}

impl From<v1::Webhook> for Webhook {
    fn from(wire: v1::Webhook) -> Self {
        Self {
            name: wire.name,
            host: wire.host,
            events: wire.events,
            apps: wire.apps,
            environments: wire.environments,
            waiting: wire.waiting,
            delivered: wire.delivered,
            given_up: wire.given_up,
            lost: wire.lost,
            error: wire.error,
            next_ms: wire.next_ms,
            delivered_ms: wire.delivered_ms,
        }
    }
}

impl From<v1::AuditDispute> for AuditDispute {
    fn from(wire: v1::AuditDispute) -> Self {
        let seen = wire.seen.unwrap_or_default();
        Self {
            server: wire.server,
            sequence: seen.sequence,
            hash: hex(&seen.hash),
            found: hex(&wire.found),
            since_ms: wire.seen_ms,
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl AuditLine {
    /// `done`, or the name of the refusal.
    pub(crate) fn outcome(&self) -> String {
        match &self.entry.outcome {
            Outcome::Done {} => "done".to_owned(),
            Outcome::Refused { code, .. } => format!("refused: {code}"),
        }
    }
}
