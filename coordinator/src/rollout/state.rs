//! A rollout, its servers, and how each can end.

use std::fmt;

use consign_common::name::ServerName;
use serde::{Deserialize, Serialize};

use super::Verdict;

/// All that the engine knows. Kept as JSON in the store; membership and waves never change once planned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    pub kind: Kind,
    pub phase: Phase,
    /// Ordered by name.
    pub members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Bring an artifact in. The first server that does not take it stops the waves.
    Deploy,
    /// Bring servers back. One that fails stops nobody: the others must not stay on what is being left.
    Return,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase", deny_unknown_fields)]
pub enum Phase {
    /// Waits for the rollout that it pre-empts to end.
    Queued,
    Running,
    /// A server did not take it: no new orders; what runs may finish.
    Stopping,
    /// Told to end: no new orders, and what runs was told to cancel.
    Aborting {
        because: String,
    },
    Ended {
        verdict: Verdict,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub server: ServerName,
    /// From 1. 0: in no wave, since it was disabled when the rollout was planned.
    pub wave: u32,
    pub state: ServerState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum ServerState {
    Pending,
    /// Its turn has come, and it is being looked for. Nothing has been ordered.
    Due,
    /// The order is written down, and may have been sent.
    Ordered,
    Running,
    Returning,
    Ended {
        end: End,
    },
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
    },
    Cancelled {
        because: String,
    },
    Refused {
        code: String,
        message: String,
    },
    Offline,
    Skipped {
        because: String,
    },
}

impl Rollout {
    pub fn member(&self, server: &ServerName) -> Option<&Member> {
        self.members.iter().find(|member| member.server == *server)
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.phase {
            Phase::Ended { verdict } => Some(verdict),
            Phase::Queued | Phase::Running | Phase::Stopping | Phase::Aborting { .. } => None,
        }
    }
}

impl ServerState {
    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Ended { end } => Some(end),
            Self::Pending | Self::Due | Self::Ordered | Self::Running | Self::Returning => None,
        }
    }

    /// Whether an order is out whose outcome is awaited.
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Ordered | Self::Running | Self::Returning => true,
            Self::Pending | Self::Due | Self::Ended { .. } => false,
        }
    }

    /// The state's name for people and for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending | Self::Due => "pending",
            Self::Ordered => "ordered",
            Self::Running => "running",
            Self::Returning => "returning",
            Self::Ended { end } => end.as_str(),
        }
    }

    /// One line; empty where the state says it all.
    pub fn because(&self) -> String {
        match self {
            Self::Pending | Self::Ordered | Self::Running | Self::Returning => String::new(),
            Self::Due => "waiting for it to connect".to_owned(),
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
            Self::Skipped { .. } => "skipped",
        }
    }

    pub fn because(&self) -> String {
        match self {
            Self::Succeeded { tolerated } if tolerated.is_empty() => String::new(),
            Self::Succeeded { tolerated } => format!("tolerated failures: {}", tolerated.join(", ")),
            Self::NoOp => "it runs this already".to_owned(),
            Self::Failed { because }
            | Self::Returned { because }
            | Self::Stopped { because }
            | Self::Unknown { because }
            | Self::Cancelled { because }
            | Self::Skipped { because } => because.clone(),
            Self::Refused { code, message } => format!("{code}: {message}"),
            Self::Offline => "it was not connected when its turn came".to_owned(),
        }
    }

    /// Whether the server runs what it was to run. Nothing else lets the waves go on.
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
            | Self::Skipped { .. } => false,
        }
    }

    /// Whether it stops the waves. A skipped server was left out by a person's word, not by a failure.
    pub fn stops(&self) -> bool {
        !self.is_green() && !matches!(self, Self::Skipped { .. })
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
