//! What is known of an artifact before somebody signs for it, and whose word each part is.

use std::collections::BTreeMap;

use consign_proto::v1;
use serde::Serialize;

use super::Plan;

/// Whose word it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// `proven`: signed by somebody whom our trust root names for it, and checked here; `told`: the coordinator says so;
    /// `false`: what is signed says otherwise.
    pub mark: &'static str,
    /// The owners who signed it; empty where it is told.
    pub by: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub app: String,
    pub version: String,
    pub platform: String,
    pub environment: String,
    /// SHA-256 of the manifest, computed here.
    pub digest: String,
    pub entries: u64,
    pub bytes: u64,
    pub published: Proof,
    pub published_ms: u64,
    /// In the order of the gate; empty: the publisher is enough.
    pub gate: Vec<GateLine>,
    /// Of the values that are in force; absent: no config statement gives any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigLine>,
    /// By version; what most servers run comes first.
    pub running: Vec<RunningLine>,
    pub statements: Vec<StatementLine>,
    /// Rollouts of this artifact, the newest of each environment.
    pub rollouts: Vec<RolloutLine>,
    /// When servers there last went back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned: Option<ReturnLine>,
    /// What servers say that they would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Why there is no plan.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub plan_missing: String,
}

/// A rule of the environment's gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GateLine {
    /// `require`, or `rearm`: only where the last deployment failed or was returned.
    pub part: &'static str,
    pub predicate: String,
    pub role: String,
    #[serde(skip_serializing_if = "String::is_empty", rename = "where")]
    pub condition: String,
    pub needed: u32,
    /// Owners who count.
    pub by: Vec<String>,
    pub missing: u32,
    /// What came and does not count, and why.
    pub uncounted: Vec<String>,
    /// What supplies what is missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigLine {
    pub sequence: u64,
    /// Of the effective values: what an approval names.
    pub sha256: String,
    /// The effective values, defaults filled in; a secret is only said to be there.
    pub values: BTreeMap<String, String>,
    pub proof: Proof,
}

/// What servers run now, as the coordinator says, and what is different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunningLine {
    /// Empty: nothing.
    pub version: String,
    pub digest: String,
    pub servers: Vec<String>,
    /// Of the artifact that is said to run there: its manifest has the digest, and somebody published it.
    pub artifact: Proof,
    /// It is what would be deployed.
    pub same: bool,
    pub files: FileChanges,
    pub steps: Vec<StepChange>,
    /// Why nothing can be compared.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unknown: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileChanges {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StepChange {
    /// Empty: it is about the whole plan.
    pub step: String,
    /// `added`, `removed`, `changed`, `order` or `plan`.
    pub change: String,
    pub details: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatementLine {
    pub predicate: String,
    /// Of a test result; empty of others.
    pub result: String,
    pub environment: String,
    pub added_ms: u64,
    pub proof: Proof,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RolloutLine {
    pub id: String,
    pub environment: String,
    pub state: String,
    pub ended_ms: u64,
    pub servers: u32,
    /// Of them, those that have it.
    pub succeeded: u32,
    /// Servers whose own receipts say that they have it, with keys that somebody vouched for.
    pub receipts: u32,
    pub proof: Proof,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReturnLine {
    pub rollout: String,
    pub servers: Vec<String>,
    /// The version that was left.
    pub from: String,
    pub at_ms: u64,
    pub proof: Proof,
}

/// An approval, and what was known when it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approved {
    pub by: String,
    pub start_by_ms: u64,
    pub converge_until_ms: u64,
    /// Empty: bound to no config.
    pub config_sha256: String,
    /// Empty: bound to no plan.
    pub plan_sha256: String,
    pub envelope: String,
    /// Absent: it was written into a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    pub evidence: Evidence,
}

/// A statement that the coordinator keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub digest: String,
    pub artifact: String,
    pub predicate: String,
    pub environment: String,
    pub by: Vec<String>,
    /// Environments whose gates it counts for.
    pub helps: Vec<String>,
    /// `new`, `known` or `outdated`.
    pub novelty: String,
}

impl From<v1::Statement> for Kept {
    fn from(wire: v1::Statement) -> Self {
        Self {
            digest: wire.digest,
            artifact: wire.artifact,
            predicate: wire.predicate,
            environment: wire.environment,
            by: wire.signers.into_iter().map(|signer| signer.owner).collect(),
            helps: wire.helps,
            novelty: wire.novelty,
        }
    }
}

impl Default for Proof {
    fn default() -> Self {
        Self::told()
    }
}

impl Proof {
    pub fn told() -> Self {
        Self { mark: "told", by: Vec::new() }
    }

    pub fn proven(mut by: Vec<String>) -> Self {
        by.sort();
        by.dedup();
        Self { mark: "proven", by }
    }

    pub fn disproven() -> Self {
        Self { mark: "false", by: Vec::new() }
    }

    pub fn is_false(&self) -> bool {
        self.mark == "false"
    }

    pub fn is_proven(&self) -> bool {
        self.mark == "proven"
    }
}
