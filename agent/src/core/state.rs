//! What a run remembers of its steps.

use std::collections::BTreeMap;

use consign_common::{
    deployment::{Attempt, Event, Leftover},
    plan::FailurePolicy,
    trust::OnceWord,
};

use super::model::Begun;

/// How far the steps of one phase have come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Track {
    /// The step to look at next.
    pub(super) cursor: u32,
    /// Attempts of that step so far.
    pub(super) attempts: u32,
    pub(super) running: Option<Begun>,
    /// The running attempt is being cancelled.
    pub(super) cancelling: bool,
    /// `current` was switched, or may have been.
    pub(super) active: bool,
    /// Why only `always` steps run from here on.
    pub(super) trouble: Option<Trouble>,
    pub(super) tolerated: Vec<String>,
    /// The attempt whose outcome nobody knows, and that may not simply run again.
    pub(super) undecided: Option<Undecided>,
    /// How an operator wants it to be taken: the event that says so is next.
    pub(super) decided: Option<Event>,
    /// Steps that an operator leaves out, and why.
    pub(super) skips: BTreeMap<u32, String>,
    /// The `once` step before which the run has asked.
    pub(super) once: Option<Once>,
}

impl Track {
    pub(super) fn attempt(&self) -> Option<Attempt> {
        self.running.as_ref().map(|begun| begun.attempt)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Undecided {
    pub(super) attempt: Attempt,
    pub(super) because: String,
    pub(super) log_length: u64,
    pub(super) duration_ms: u64,
    pub(super) leftovers: Vec<Leftover>,
    pub(super) question: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Nobody was told that a decision is needed.
    Unasked,
    Asked,
    /// Nobody will decide any more.
    Withdrawn,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Once {
    pub(super) step: u32,
    pub(super) word: Option<OnceWord>,
}

/// How far a success is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// Not asked for, or not yet.
    Open,
    Awaited {
        boot_id: String,
        deadline_boot_ms: u64,
    },
    Given,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trouble {
    Failed { because: String, policy: FailurePolicy },
    Cancelled { because: String },
}

impl Trouble {
    pub(super) fn because(&self) -> &str {
        match self {
            Self::Failed { because, .. } | Self::Cancelled { because } => because,
        }
    }
}
