//! The journal's events: what the agent writes before and after each act, and what the coordinator folds into its view.
//! JSON, tagged by `event`; docs/formats.md, "journal events".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Attempt, DeploymentOutcome, StepOutcome};
use crate::{
    digest::Sha256,
    name::{App, Id, StepName, Version},
    plan::Phase,
    time::UnixMs,
    trust::{DecisionAction, OnceWord},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The order was verified and is the agent's now. Always the first; lists all steps, so that a viewer can draw the
    /// whole plan before anything runs.
    Accepted {
        order: Id,
        app: App,
        version: Version,
        digest: Sha256,
        previous: Option<Version>,
        steps: Vec<StepSummary>,
    },
    /// Files are being brought in; `fetched` of `total` bytes of the pack. Not journalled: only the newest matters.
    Staging {
        fetched: u64,
        total: u64,
    },
    /// The release is whole and checked on disk.
    Staged {
        release: String,
        reused_bytes: u64,
        fetched_bytes: u64,
    },
    /// The condition was false: its expression, and the values of all that it names.
    Skipped {
        phase: Phase,
        step: u32,
        expression: String,
        inputs: BTreeMap<String, String>,
    },
    /// Durable before the attempt's first act. From here on it has run, or its outcome is unknown.
    Started {
        attempt: Attempt,
        boot_id: String,
    },
    /// The attempt's process exists; durable before it executes anything.
    Spawned {
        attempt: Attempt,
        pid: u32,
        start_ticks: u64,
        cgroup: Option<String>,
    },
    Finished {
        attempt: Attempt,
        result: StepOutcome,
        /// Length of the attempt's log file.
        log_length: u64,
        duration_ms: u64,
        /// Processes that stayed behind with `leaves`.
        leftovers: Vec<Leftover>,
    },
    /// The way back begins: the artifact being restored, and all steps of its plan.
    Returning {
        because: String,
        digest: Sha256,
        version: Version,
        steps: Vec<StepSummary>,
    },
    /// The condition of a `once` step is true: the server waits to be told whether it is the one that runs it. Only in
    /// phase deploy.
    Awaiting {
        step: u32,
    },
    /// It was told.
    Answered {
        order: Id,
        step: u32,
        word: OnceWord,
    },
    /// Nobody knows how a step ended that may not simply run again: the deployment waits for an operator's decision.
    Undecided {
        phase: Phase,
        step: u32,
        because: String,
    },
    /// An operator decided: `skip` a step that has not begun; or that of unknown outcome is `done`, `failed`, or runs
    /// `again`.
    Decided {
        order: Id,
        phase: Phase,
        step: u32,
        action: DecisionAction,
        reason: String,
    },
    /// All steps succeeded, and the plan wants a confirmation: without one the server returns at the deadline, by the
    /// clock that is never set (CLOCK_BOOTTIME, of this boot); `deadline` is for people. A reboot ends the wait as well.
    Confirming {
        boot_id: String,
        deadline_boot_ms: u64,
        deadline: UnixMs,
    },
    Confirmed {
        order: Id,
    },
    /// It was not confirmed in time; the way back begins.
    Unconfirmed {
        because: String,
    },
    /// A cancel order arrived.
    Cancelling {
        order: Id,
        because: String,
    },
    /// The last event of every deployment.
    Ended {
        result: DeploymentOutcome,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSummary {
    pub name: StepName,
    /// The kind's key in `consign.toml`.
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leftover {
    pub pid: u32,
    pub command: String,
}
