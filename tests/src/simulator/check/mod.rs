//! What must hold, checked at every step against what really happened: an effect log that the steps' own processes write,
//! and every agent's journal as it became durable.
//!
//! The oracle has no part in the run: it is told, remembers, and compares. The first violation ends the run.

mod end;
mod rollout;
mod server;

pub(crate) use end::People;

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, StepOutcome},
    digest::Sha256,
    name::{App, Id, ServerName, StepName},
    plan::{Phase, Plan},
    time::UnixMs,
    trust::OrderingNumber,
};
use consign_coordinator::rollout::{Event, Verb};

use super::{
    catalog::Signer,
    queue::{Key, Moment, Place},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// As I3: the name of the invariant.
    pub invariant: &'static str,
    pub what: String,
    pub at: Moment,
}

/// How an attempt's process, or what ran in the agent, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    Well,
    Badly,
    Killed,
}

/// What made the engine step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Event(Event),
    Verb(Verb),
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub violation: Option<Violation>,
    pub checks: u64,
    pub effects: u64,
    /// Counts whatever changed anything durable.
    pub progress: u64,
    now: Moment,
    plans: BTreeMap<Sha256, (Plan, Signer)>,
    deployments: BTreeMap<Id, Told>,
    /// What runs now.
    running: BTreeMap<(Place, App), BTreeSet<Key>>,
    /// All that ever ran of a rollout's `once` steps.
    once: BTreeMap<(Id, StepName), Vec<Ran>>,
    /// What people allowed: that a `once` step runs again, and that a rollout is tried again.
    allowed_again: BTreeMap<(Id, StepName), Moment>,
    retried: BTreeMap<Id, Moment>,
    refusals: BTreeMap<Id, String>,
    accepted: Vec<Id>,
    /// By server and app: the highest term, and what may only grow.
    seen: BTreeMap<(Place, App), Seen>,
    /// By deployment: the events that the coordinator has.
    stored: BTreeMap<Id, u64>,
    logs: BTreeMap<Key, u64>,
    terms: BTreeMap<App, u64>,
    /// The newest that anything was ordered under.
    begun_terms: BTreeMap<App, u64>,
    /// Servers of rollouts that were told to cancel.
    cancelled: BTreeSet<(Id, ServerName)>,
    holds: BTreeMap<App, UnixMs>,
}

/// A deployment, as its agent's journal tells it.
#[derive(Debug)]
struct Told {
    place: Place,
    app: App,
    rollout: Id,
    digest: Sha256,
    bodies: Vec<Vec<u8>>,
    started: BTreeSet<Attempt>,
    settled: BTreeMap<(Phase, u32), StepOutcome>,
    ran: BTreeMap<Attempt, Stopped>,
    again: BTreeMap<(Phase, u32), u32>,
    done: BTreeSet<(Phase, u32)>,
    restored: Option<Sha256>,
    awaiting: Option<u32>,
    granted: BTreeSet<u32>,
    undecided: Option<(Phase, u32)>,
    ever_undecided: BTreeSet<StepName>,
    confirming: Option<u64>,
    confirmed: bool,
    unconfirmed: bool,
    ended: Option<DeploymentOutcome>,
}

#[derive(Debug, Default)]
struct Seen {
    term: u64,
    highest: Option<OrderingNumber>,
}

#[derive(Clone, Debug)]
struct Ran {
    key: Key,
    at: Moment,
    stopped: Option<Stopped>,
    known: Known,
    /// By a person, who could not know.
    called_failed: bool,
}

/// What its server's journal, or a person, says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nobody knows how it ended, or it has not.
    Not,
    Done,
    Failed,
}

impl Oracle {
    pub(crate) fn at(&mut self, now: Moment) {
        self.now = now;
    }

    pub(crate) fn published(&mut self, digest: Sha256, plan: &Plan, signer: Signer) {
        self.plans.insert(digest, (plan.clone(), signer));
    }

    /// The first violation is the one that is told; what follows may follow from it.
    fn hold(&mut self, invariant: &'static str, holds: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { invariant, what: what(), at: self.now });
        }
    }

    fn steps(&self, told: &Told, phase: Phase) -> &[consign_common::plan::Step] {
        let digest = match phase {
            Phase::Deploy => Some(told.digest),
            Phase::Return => told.restored,
        };
        digest
            .and_then(|digest| self.plans.get(&digest))
            .map(|(plan, _)| plan.steps.as_slice())
            .unwrap_or_default()
    }

    /// Orders that agents took up since this was asked last.
    pub(crate) fn newly_accepted(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.accepted)
    }

    pub(crate) fn not_durable(&mut self, order: &Id) {
        self.hold("I2", false, || format!("an agent has order {order}, and the coordinator does not"));
    }
}
