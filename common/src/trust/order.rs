//! Orders: what the coordinator sends to an agent (docs/formats.md, "order").

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    json,
    limits::ORDER_BYTES,
    name::{App, Environment, Id, ServerName, StepName},
    time::UnixMs,
    trust::{DecisionAction, Refusal},
};

/// What `format` of every order says.
pub const ORDER_FORMAT: &str = "consign-order-v1";

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

impl Order {
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |why: String| Refusal::Malformed { what: "order", why };
        let order: Self =
            json::from_slice_exact(bytes, ORDER_BYTES).map_err(|error| malformed(error.to_string()))?;
        order.check_format()?;
        Ok(order)
    }

    pub fn to_vec(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    pub(super) fn check_format(&self) -> Result<(), Refusal> {
        if self.format != ORDER_FORMAT {
            let why =
                format!("its format is {:?}, this version of consign reads {ORDER_FORMAT:?}", self.format);
            return Err(Refusal::Malformed { what: "order", why });
        }
        Ok(())
    }
}
