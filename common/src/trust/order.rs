//! Orders: what the coordinator sends to an agent (docs/formats.md, "order").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    json,
    limits::ORDER_BYTES,
    name::{App, Environment, Id, ServerName, StepName},
    time::UnixMs,
    trust::{DecisionAction, Refusal, refusal::shown},
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
    /// Bring this artifact in.
    Deploy {
        manifest: Sha256,
        /// Also when it is what runs.
        force: bool,
        /// Steps that an operator leaves out on this server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip: Vec<StepName>,
        /// What the preview determined for this server, where the operator pinned it: where a condition comes out
        /// otherwise, the deployment ends as `plan-drift`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        plan: BTreeMap<StepName, Foreseen>,
        /// The environment's `confirm`; it can only shorten the plan's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_ms: Option<u64>,
        /// The server comes later to what the others run (new, rebuilt, long away): an approval's `converge_until` counts
        /// in place of its `start_by`.
        #[serde(default, skip_serializing_if = "is_false")]
        converge: bool,
    },
    /// Go back to `before`, which must be this artifact.
    Return {
        manifest: Sha256,
        reason: String,
        /// Steps that an operator leaves out on this server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip: Vec<StepName>,
    },
    Cancel {
        reason: String,
    },
    /// The deployment that waits to be confirmed is good.
    Confirm {},
    /// An operator's word: leave a step out that has not begun; or how a step of unknown outcome is to be taken.
    Decide {
        step: StepName,
        action: DecisionAction,
        reason: String,
    },
    /// The answer to a server that waits before a `once` step.
    Once {
        step: StepName,
        word: OnceWord,
    },
}

/// What the preview determined of a step's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Foreseen {
    Run,
    Skip,
}

/// What a server that waits before a `once` step is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "lowercase", deny_unknown_fields)]
pub enum OnceWord {
    /// It is the one that runs it.
    Run {},
    /// It ran on that server, and succeeded.
    Done { server: ServerName },
    /// It ran on that server, and failed.
    Failed { server: ServerName, because: String },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl OrderKind {
    /// All steps as their conditions decide.
    pub fn deploy(manifest: Sha256, force: bool) -> Self {
        Self::Deploy {
            manifest,
            force,
            skip: Vec::new(),
            plan: BTreeMap::new(),
            confirm_ms: None,
            converge: false,
        }
    }

    /// All steps as their conditions decide.
    pub fn back(manifest: Sha256, reason: impl Into<String>) -> Self {
        Self::Return { manifest, reason: reason.into(), skip: Vec::new() }
    }
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
            let why = format!(
                "its format is \"{}\", this version of consign reads {ORDER_FORMAT:?}",
                shown(&self.format)
            );
            return Err(Refusal::Malformed { what: "order", why });
        }
        Ok(())
    }
}
