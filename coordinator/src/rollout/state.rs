//! A rollout, its servers, and how each can end.

use std::{collections::BTreeMap, fmt};

use consign_common::{
    name::{ServerName, StepName},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

use super::{Verdict, once::Once, strategy::Strategy};

/// All that the engine knows. Kept as JSON in the store; membership and waves never change once planned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    pub kind: Kind,
    pub strategy: Strategy,
    pub phase: Phase,
    /// No new orders until someone resumes it; what runs goes on.
    pub paused: Option<Pause>,
    /// In the order in which they are deployed to: by wave, then by name.
    pub members: Vec<Member>,
    /// The plan's `once` steps.
    pub once: BTreeMap<StepName, Once>,
    /// Steps that an operator leaves out.
    pub skips: Vec<Skip>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Bring an artifact in. What servers do not take it stops the waves, beyond what is tolerated.
    Deploy,
    /// Bring servers back. One that fails stops nobody: the others must not stay on what is being left.
    Return,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase", deny_unknown_fields)]
pub enum Phase {
    /// Waits for its time, or for the rollout before it.
    Queued {
        not_before: UnixMs,
    },
    Running {
        wave: u32,
        stage: Stage,
    },
    /// Its budget is used up: no new orders; what runs may finish.
    Stopping {
        because: String,
        stop: Stop,
    },
    /// Told to end: no new orders, and what runs was told to cancel.
    Aborting {
        because: String,
    },
    /// Owed and new servers may still converge.
    Ended {
        verdict: Verdict,
    },
}

/// What stopped a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// More servers failed than are tolerated. A decision or a late word may change that.
    Budget,
    Health,
    /// Too few servers are up.
    Capacity,
}

/// What a wave is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase", deny_unknown_fields)]
pub enum Stage {
    Deploying,
    Baking {
        until: UnixMs,
    },
    /// Its health is being asked for.
    Judging,
    /// It is good: servers that wait for it are being told.
    Confirming,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    pub because: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    pub step: StepName,
    /// Absent: on every server.
    pub server: Option<ServerName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub server: ServerName,
    /// From 1. 0: in no wave, since it was disabled when the rollout was planned, or came later.
    pub wave: u32,
    /// The value of the label that failures are counted by; empty if there is none.
    pub group: String,
    pub joined: Joined,
    pub state: ServerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Joined {
    Planned,
    /// It was new when the rollout had ended. How it goes there changes no verdict.
    Later,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum ServerState {
    Pending,
    /// Its turn has come, and it is being looked for. Nothing has been ordered.
    Due {
        since: UnixMs,
    },
    /// The order is written down, and may have been sent.
    Ordered,
    Running,
    /// Before a `once` step, until it is told whether it is the one that runs it.
    Awaiting {
        step: StepName,
        told: Told,
    },
    /// All steps succeeded; it returns by itself unless it is confirmed.
    Confirming {
        told: Told,
    },
    Returning,
    Ended {
        end: End,
    },
}

/// Whether the order that a server waits for is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    NotYet,
    Ordered,
}

/// How it ended on one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case", deny_unknown_fields)]
pub enum End {
    Succeeded {
        /// Names of steps that failed and were allowed to.
        tolerated: Vec<String>,
    },
    NoOp,
    /// Nothing of the artifact is active.
    Failed {
        because: String,
    },
    Returned {
        because: String,
    },
    /// It failed and is not back: a person must look.
    Stopped {
        because: String,
    },
    Unknown {
        because: String,
        /// The step that the server waits for a decision on. Absent: nobody knows what the server does.
        step: Option<StepName>,
    },
    Cancelled {
        because: String,
    },
    Refused {
        code: String,
        message: String,
    },
    Offline,
    /// It was not connected, and converges when it is back.
    Owed,
    /// Left out by a person's word.
    Skipped {
        because: String,
    },
    /// The rollout ended before its turn.
    NotReached {
        because: String,
    },
}

impl Stage {
    /// The stage's name for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Deploying => "deploying",
            Self::Baking { .. } => "baking",
            Self::Judging => "judging",
            Self::Confirming => "confirming",
        }
    }
}

impl Rollout {
    pub fn member(&self, server: &ServerName) -> Option<&Member> {
        self.members.iter().find(|member| member.server == *server)
    }

    pub(super) fn member_mut(&mut self, server: &ServerName) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.server == *server)
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.phase {
            Phase::Ended { verdict } => Some(verdict),
            Phase::Queued { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Aborting { .. } => None,
        }
    }

    pub fn is_aborting(&self) -> bool {
        matches!(self.phase, Phase::Aborting { .. })
    }

    /// Whether a server that stays away is given up: nothing new is ordered, and the end must come.
    pub fn gives_up(&self) -> bool {
        match self.phase {
            Phase::Stopping { .. } | Phase::Aborting { .. } | Phase::Ended { .. } => true,
            Phase::Queued { .. } | Phase::Running { .. } => false,
        }
    }

    /// Whether an order is out, or may go out without anybody's word.
    pub fn is_under_way(&self) -> bool {
        self.members.iter().any(|member| member.state.end().is_none())
    }

    pub fn last_wave(&self) -> u32 {
        self.members.iter().map(|member| member.wave).max().unwrap_or(0)
    }

    pub(super) fn in_wave(&self, wave: u32) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.wave == wave)
    }

    /// The steps that an order to this server leaves out.
    pub fn skips_on(&self, server: &ServerName) -> Vec<StepName> {
        let mut steps: Vec<StepName> = self
            .skips
            .iter()
            .filter(|skip| skip.server.as_ref().is_none_or(|only| only == server))
            .map(|skip| skip.step.clone())
            .collect();
        steps.sort();
        steps.dedup();
        steps
    }
}

impl ServerState {
    pub(super) fn ended(end: End) -> Self {
        Self::Ended { end }
    }

    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Ended { end } => Some(end),
            Self::Pending
            | Self::Due { .. }
            | Self::Ordered
            | Self::Running
            | Self::Awaiting { .. }
            | Self::Confirming { .. }
            | Self::Returning => None,
        }
    }

    /// Whether an order is out whose outcome is awaited.
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Ordered
            | Self::Running
            | Self::Awaiting { .. }
            | Self::Confirming { .. }
            | Self::Returning => true,
            Self::Pending | Self::Due { .. } | Self::Ended { .. } => false,
        }
    }

    /// The state's name for people and for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending | Self::Due { .. } => "pending",
            Self::Ordered => "ordered",
            Self::Running => "running",
            Self::Awaiting { .. } => "awaiting",
            Self::Confirming { .. } => "confirming",
            Self::Returning => "returning",
            Self::Ended { end } => end.as_str(),
        }
    }

    /// One line; empty where the state says it all.
    pub fn because(&self) -> String {
        match self {
            Self::Pending | Self::Ordered | Self::Running | Self::Returning => String::new(),
            Self::Due { .. } => "waiting for it to connect".to_owned(),
            Self::Awaiting { step, .. } => format!("waiting to be told about the once step {step}"),
            Self::Confirming { .. } => "waiting to be confirmed".to_owned(),
            Self::Ended { end } => end.because(),
        }
    }
}

impl End {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::NoOp => "no-op",
            Self::Failed { .. } => "failed",
            Self::Returned { .. } => "returned",
            Self::Stopped { .. } => "stopped",
            Self::Unknown { .. } => "unknown",
            Self::Cancelled { .. } => "cancelled",
            Self::Refused { .. } => "refused",
            Self::Offline => "offline",
            Self::Owed => "owed",
            Self::Skipped { .. } => "skipped",
            Self::NotReached { .. } => "not-reached",
        }
    }

    pub fn because(&self) -> String {
        match self {
            Self::Succeeded { tolerated } if tolerated.is_empty() => String::new(),
            Self::Succeeded { tolerated } => format!("tolerated failures: {}", tolerated.join(", ")),
            Self::NoOp => "it runs this already".to_owned(),
            Self::Unknown { because, step: Some(step) } => {
                format!("step {step}: {because}; it waits for `consign rollout decide`")
            }
            Self::Failed { because }
            | Self::Returned { because }
            | Self::Stopped { because }
            | Self::Unknown { because, step: None }
            | Self::Cancelled { because }
            | Self::Skipped { because }
            | Self::NotReached { because } => because.clone(),
            Self::Refused { code, message } => format!("{code}: {message}"),
            Self::Offline => "it was not connected when its turn came".to_owned(),
            Self::Owed => "it was not connected when its turn came; it converges when it is back".to_owned(),
        }
    }

    /// What happened, without what is to be done about it.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Unknown { because, step: Some(step) } => format!("step {step}: {because}"),
            Self::Unknown { .. }
            | Self::Succeeded { .. }
            | Self::NoOp
            | Self::Failed { .. }
            | Self::Returned { .. }
            | Self::Stopped { .. }
            | Self::Cancelled { .. }
            | Self::Refused { .. }
            | Self::Offline
            | Self::Owed
            | Self::Skipped { .. }
            | Self::NotReached { .. } => self.because(),
        }
    }

    /// Whether the server runs what it was to run.
    pub fn is_green(&self) -> bool {
        match self {
            Self::Succeeded { .. } | Self::NoOp => true,
            Self::Failed { .. }
            | Self::Returned { .. }
            | Self::Stopped { .. }
            | Self::Unknown { .. }
            | Self::Cancelled { .. }
            | Self::Refused { .. }
            | Self::Offline
            | Self::Owed
            | Self::Skipped { .. }
            | Self::NotReached { .. } => false,
        }
    }

    /// Whether it counts against the budget. Servers that were left out did not fail.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Failed { .. }
            | Self::Returned { .. }
            | Self::Stopped { .. }
            | Self::Unknown { .. }
            | Self::Cancelled { .. }
            | Self::Refused { .. }
            | Self::Offline => true,
            Self::Succeeded { .. }
            | Self::NoOp
            | Self::Owed
            | Self::Skipped { .. }
            | Self::NotReached { .. } => false,
        }
    }

    /// Whether the server may be out of order now, so that it is not one of those that are up.
    pub(super) fn is_down(&self) -> bool {
        match self {
            Self::Stopped { .. } | Self::Unknown { .. } | Self::Offline | Self::Owed => true,
            Self::Succeeded { .. }
            | Self::NoOp
            | Self::Failed { .. }
            | Self::Returned { .. }
            | Self::Cancelled { .. }
            | Self::Refused { .. }
            | Self::Skipped { .. }
            | Self::NotReached { .. } => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = self.because();
        if because.is_empty() {
            f.write_str(self.as_str())
        } else {
            write!(f, "{}: {because}", self.as_str())
        }
    }
}
