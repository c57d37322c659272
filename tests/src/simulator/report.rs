//! What a run, or many, came to.

use std::{collections::BTreeMap, fmt, ops::AddAssign};

use super::{bug::Bug, check::Violation};

#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// Over all that happened.
    pub fingerprint: u64,
    pub counts: Counts,
    pub coverage: Coverage,
    pub violation: Option<Violation>,
    /// One line for everything that happened, where it was asked for.
    pub trace: Vec<String>,
}

impl Report {
    /// Runs this very seed again, with its trace.
    pub fn replay(&self) -> String {
        let bug = self.bug.map(|bug| format!(" BUG={bug}")).unwrap_or_default();
        format!("make simulate SEED={}{bug}", self.seed)
    }
}

/// How often each kind of thing happened: what never does was not tested.
pub type Coverage = BTreeMap<String, u64>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub seeds: u64,
    pub events: u64,
    pub simulated_ms: u64,
    pub checks: u64,
    pub rollouts: u64,
    pub engine: u64,
    pub orders: u64,
    pub journalled: u64,
    pub effects: u64,
    pub verbs: u64,
    pub refused_verbs: u64,
    pub messages: u64,
    pub unruly: u64,
    pub sessions: u64,
    pub agent_crashes: u64,
    pub coordinator_crashes: u64,
    pub reboots: u64,
    pub supervisors: u64,
    pub partitions: u64,
    pub full_disks: u64,
}

macro_rules! add {
    ($own:ident, $other:ident, $($field:ident),+) => { $($own.$field += $other.$field;)+ };
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        add!(
            self,
            other,
            seeds,
            events,
            simulated_ms,
            checks,
            rollouts,
            engine,
            orders,
            journalled,
            effects,
            verbs,
            refused_verbs,
            messages,
            unruly,
            sessions,
            agent_crashes,
            coordinator_crashes,
            reboots,
            supervisors,
            partitions,
            full_disks
        );
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        writeln!(f, "events            {:>12}   simulated hours   {hours:>12.0}", self.events)?;
        writeln!(f, "invariant checks  {:>12}   rollouts          {:>12}", self.checks, self.rollouts)?;
        writeln!(f, "engine steps      {:>12}   orders            {:>12}", self.engine, self.orders)?;
        writeln!(f, "journal events    {:>12}   effects of steps  {:>12}", self.journalled, self.effects)?;
        writeln!(f, "verbs             {:>12}   of them refused   {:>12}", self.verbs, self.refused_verbs)?;
        writeln!(f, "messages          {:>12}   lost, late, twice {:>12}", self.messages, self.unruly)?;
        writeln!(f, "sessions          {:>12}   partitions        {:>12}", self.sessions, self.partitions)?;
        writeln!(
            f,
            "agent crashes     {:>12}   coordinator crashes {:>10}",
            self.agent_crashes, self.coordinator_crashes
        )?;
        writeln!(f, "power losses      {:>12}   supervisors lost  {:>12}", self.reboots, self.supervisors)?;
        write!(f, "full disks        {:>12}", self.full_disks)
    }
}
