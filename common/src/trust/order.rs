//! Orders: what the coordinator sends to an agent (docs/formats.md, "order").

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    name::{App, Environment, Id, ServerName, StepName},
    time::UnixMs,
    trust::DecisionAction,
};

/// Strict JSON of format `consign-order-v1`. Sent again it is answered from the journal; the same id with other content
/// is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// `consign-order-v1`.
    pub format: String,
    pub id: Id,
    /// The id of the coordinator that sends it; must be the one that TLS authenticated.
    pub coordinator: String,
    pub server: ServerName,
    pub environment: Environment,
    pub app: App,
    pub rollout: Id,
    /// The deployment that it begins, or that it is about.
    pub deployment: Id,
    /// Of the lease on (app, environment); an agent refuses an older one.
    pub term: u64,
    pub issued: UnixMs,
    pub order: OrderKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OrderKind {
    /// Bring this artifact in. `force`: also when it is what runs. `peers`: servers in the rollout, this one included.
    Deploy {
        manifest: Sha256,
        force: bool,
        peers: u32,
    },
    /// Go back to `before`, which must be this artifact.
    Return {
        manifest: Sha256,
        reason: String,
    },
    Cancel {
        reason: String,
    },
    Confirm {},
    Decide {
        step: StepName,
        action: DecisionAction,
        reason: String,
    },
}
