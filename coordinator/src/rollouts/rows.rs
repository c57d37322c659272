//! What the store keeps of a rollout, as domain types.

use std::collections::BTreeMap;

use consign_common::{
    deployment::Attempt,
    digest::Sha256,
    name::{App, Environment, Id, ServerName, StepName, Version},
    time::UnixMs,
    trust::Foreseen,
};
use serde::{Deserialize, Serialize};

use super::view::View;
use crate::rollout::{Phase, Rollout};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutRow {
    pub id: Id,
    pub app: App,
    pub environment: Environment,
    /// Of the artifact that is brought in, or on a return of the one that is left.
    pub version: Version,
    pub digest: Sha256,
    /// As the operator gave them.
    pub waves: Vec<String>,
    pub again: Again,
    pub term: u64,
    pub started_by: String,
    pub reason: String,
    pub started: UnixMs,
    /// When a person last wanted it: a hold that is newer keeps it from beginning.
    pub asked: UnixMs,
    /// Zero while it has not.
    pub ended: UnixMs,
    pub state: Rollout,
    /// Which servers it is for, as the operator wrote it.
    pub selector: String,
    /// The rollout of returns that it began when it stopped.
    pub rolled_back_by: Option<Id>,
    /// What the preview determined, where the operator pinned it.
    pub pinned: Option<Pinned>,
    /// The cursor of its newest change.
    pub changed: u64,
}

/// Of every server, what the preview determined of its steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    pub digest: Sha256,
    pub servers: BTreeMap<ServerName, BTreeMap<StepName, Foreseen>>,
}

/// One line of a rollout's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    pub at: UnixMs,
    /// Empty: nobody, it followed.
    pub who: String,
    /// A verb, or the state that it came to.
    pub what: String,
    pub because: String,
}

/// Why nothing begins by itself in an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub app: App,
    pub environment: Environment,
    pub because: String,
    pub who: String,
    pub at: UnixMs,
}

/// Whether servers that run the artifact already are to be deployed to again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    LeaveAlone,
    Force,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRow {
    pub id: Id,
    pub rollout: Id,
    pub server: ServerName,
    /// From 1; the newest counts.
    pub attempt: u32,
    pub digest: Option<Sha256>,
    /// Of the newest event.
    pub sequence: u64,
    pub view: View,
    pub changed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    pub id: Id,
    pub deployment: Id,
    pub server: ServerName,
    pub kind: OrderTag,
    pub manifest: Option<Sha256>,
    pub document: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderTag {
    Deploy,
    Return,
    Cancel,
    Confirm,
    Decide,
    Once,
}

/// One row of the feed that followers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub cursor: u64,
    pub at: UnixMs,
    pub what: Changed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Rollout,
    Deployment(Id),
    /// These bytes of an attempt's log file.
    Log {
        deployment: Id,
        attempt: Attempt,
        start: u64,
        length: u64,
    },
}

/// How much of an attempt's log is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogLength {
    /// Acknowledged.
    pub length: u64,
    /// In the file; less than `length` where the quota was reached.
    pub kept: u64,
}

/// What a server has of an app, as far as a return is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    pub good: Option<Sha256>,
    pub before: Option<Sha256>,
}

impl RolloutRow {
    pub fn is_ended(&self) -> bool {
        self.state.verdict().is_some()
    }

    /// The column `standing`.
    pub(super) fn standing(&self) -> &'static str {
        match self.state.phase {
            Phase::Queued { .. } => "queued",
            Phase::Running { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } => "active",
            Phase::Ended { .. } => "ended",
        }
    }
}

impl OrderTag {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Return => "return",
            Self::Cancel => "cancel",
            Self::Confirm => "confirm",
            Self::Decide => "decide",
            Self::Once => "once",
        }
    }
}

impl std::str::FromStr for OrderTag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Deploy, Self::Return, Self::Cancel, Self::Confirm, Self::Decide, Self::Once]
            .into_iter()
            .find(|tag| tag.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no order"))
    }
}

/// A server has seen a term that this coordinator never gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub app: App,
    pub environment: Environment,
    /// The highest one seen.
    pub term: u64,
    /// The highest one that was given here.
    pub given: u64,
    /// That has seen it.
    pub server: ServerName,
    pub since: UnixMs,
}
