//! Receipts: what an agent says of a deployment once it has ended (docs/formats.md, "receipt").

use serde::{Deserialize, Serialize};

use crate::{
    deployment::{DeploymentOutcome, StepOutcome},
    digest::Sha256,
    name::{App, Environment, Id, ServerName, StepName},
    plan::Phase,
    time::UnixMs,
};

pub const RECEIPT_FORMAT: &str = "consign-receipt-v1";

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
