//! A server: what outlives its agent. Processes of attempts under their supervisors, and the power.
//!
//! What a step does to the world is told to the [`Oracle`](super::check::Oracle) by its own process, when it begins and when
//! it ends: that is the effect log, and no shell can keep it from being written.

use std::collections::BTreeMap;

use consign_agent::core::{Input, Process};
use consign_common::{
    deployment::{Attempt, Failure, StepOutcome},
    name::{App, ServerName},
};

use super::{
    agent::{Agent, Mode},
    around::Around,
    check::Stopped,
    disk::Disk,
    queue::{Inner, Key, Moment, Outer, Place, What},
};

#[derive(Debug)]
pub(super) struct Server {
    pub(super) place: Place,
    pub(super) name: ServerName,
    pub(super) labels: BTreeMap<String, String>,
    /// Its clock, minus one that is right.
    pub(super) skew_ms: i64,
    pub(super) enrolled: bool,
    pub(super) is_up: bool,
    pub(super) boot: u64,
    pub(super) booted: Moment,
    pub(super) disk: Disk,
    pub(super) processes: BTreeMap<Key, Attempted>,
    pub(super) life: u64,
    pub(super) agent: Option<Agent>,
}

/// A process of an attempt, and what its supervisor knows.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) app: App,
    pub(super) state: State,
    pub(super) supervisor: Supervisor,
    pub(super) process: Process,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// For its release.
    Waiting,
    Running,
    Ended {
        result: StepOutcome,
        record: ExitRecord,
    },
}

/// How the attempt ended, as its supervisor wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitRecord {
    /// In the supervisor's memory, on its way to the disk.
    Fresh,
    Durable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supervisor {
    There,
    Lost,
}

impl Server {
    pub(super) fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.processes.values().any(|it| it.state != State::Waiting)
            || self.agent.as_ref().is_some_and(|agent| !agent.slots.is_empty())
    }

    pub(super) fn runs_something(&self) -> bool {
        self.processes.values().any(|it| it.state == State::Running)
    }

    pub(super) fn boot_ms(&self, now: Moment) -> u64 {
        now.saturating_sub(self.booted)
    }

    pub(super) fn clock_ms(&self, around: &Around) -> u64 {
        around.unix().0.saturating_add_signed(self.skew_ms)
    }

    /// Power is lost: what runs is gone, and what was not durable.
    pub(super) fn lose_power(&mut self, around: &mut Around) {
        around.say(|| format!("{}: power lost", self.name));
        around.counts.reboots += 1;
        if self.agent.is_some() {
            self.agent_dies(around, around.now + 45_000);
        }
        self.is_up = false;
        self.boot += 1;
        for (key, attempted) in &mut self.processes {
            if attempted.state == State::Running {
                around.oracle.stopped(self.place, key, Stopped::Killed, around.now);
            }
        }
        let durable = |attempted: &Attempted| {
            matches!(attempted.state, State::Ended { record: ExitRecord::Durable, .. })
        };
        self.processes.retain(|_, attempted| durable(attempted));
        for attempted in self.processes.values_mut() {
            attempted.supervisor = Supervisor::Lost;
        }
        let away = around.random.span(5_000, 90_000);
        around.after(away, What::ServerBoots { server: self.place });
    }

    pub(super) fn boots(&mut self, around: &mut Around) {
        around.say(|| format!("{}: boots", self.name));
        self.is_up = true;
        self.booted = around.now;
        around.after(1000, What::AgentStarts { server: self.place });
    }

    /// One supervisor is killed; what it supervised goes on until the agent looks.
    pub(super) fn lose_supervisor(&mut self, around: &mut Around) {
        let live: Vec<Key> = self
            .processes
            .iter()
            .filter(|(_, it)| matches!(it.state, State::Waiting | State::Running))
            .filter(|(_, it)| it.supervisor == Supervisor::There)
            .map(|(key, _)| key.clone())
            .collect();
        let Some(key) = around.random.pick(&live).cloned() else { return };
        around.say(|| format!("{}: the supervisor of {} {} is lost", self.name, key.0.short(), key.1));
        around.counts.supervisors += 1;
        if let Some(attempted) = self.processes.get_mut(&key) {
            attempted.supervisor = Supervisor::Lost;
        }
        if self.watches(&key) {
            self.reap(around, &key);
        }
    }

    /// As `reap_lost`: nothing is left of it, and nobody knows how far it came.
    pub(super) fn reap(&mut self, around: &mut Around, key: &Key) {
        if let Some(attempted) = self.processes.remove(key)
            && attempted.state == State::Running
        {
            around.oracle.stopped(self.place, key, Stopped::Killed, around.now);
        }
        let because = "its supervisor was lost".to_owned();
        self.tell_end(around, key, StepOutcome::Unknown { because });
    }

    pub(super) fn outer(&mut self, around: &mut Around, what: Outer) {
        match what {
            Outer::Created { attempt, life } => {
                let Some(app) = self.app_of(&attempt) else { return };
                if life != self.life && self.processes.contains_key(&attempt) {
                    return;
                }
                let pid = u32::try_from(around.random.between(2, 4_000_000)).unwrap_or(2);
                let process = Process { pid, start_ticks: around.now, cgroup: None };
                let supervisor = Supervisor::There;
                let waiting = Attempted { app, state: State::Waiting, supervisor, process: process.clone() };
                self.processes.insert(attempt.clone(), waiting);
                // Nobody hears of one whose agent has died meanwhile: it waits in vain.
                if life == self.life {
                    let (deployment, attempt) = attempt;
                    self.answer(around, &deployment, 5, Input::Spawned { attempt, process });
                }
            }
            Outer::Ends { attempt } => {
                let Some(attempted) = self.processes.get_mut(&attempt) else { return };
                if attempted.state != State::Running {
                    return;
                }
                let result = outcome(around);
                around.say(|| {
                    format!("{}: process of {} {} ends: {result}", self.name, attempt.0.short(), attempt.1)
                });
                let how = if result == StepOutcome::Succeeded { Stopped::Well } else { Stopped::Badly };
                around.oracle.stopped(self.place, &attempt, how, around.now);
                attempted.state = State::Ended { result: result.clone(), record: ExitRecord::Fresh };
                let supervised = attempted.supervisor == Supervisor::There;
                let written = around.random.between(0, 1000);
                if let Some(log) = self.disk.logs.get_mut(&attempt) {
                    log.length += written;
                }
                if supervised {
                    let (server, boot) = (self.place, self.boot);
                    around.after(2, What::Host { server, boot, what: Outer::Recorded { attempt } });
                }
            }
            Outer::Recorded { attempt } => {
                let Some(attempted) = self.processes.get_mut(&attempt) else { return };
                let State::Ended { result, record } = &mut attempted.state else { return };
                *record = ExitRecord::Durable;
                let result = result.clone();
                if self.watches(&attempt) {
                    self.tell_end(around, &attempt, result);
                }
            }
            Outer::Killed { attempt } => self.killed(around, attempt),
            Outer::ConfirmExpired => {
                if self.is_up && self.agent.is_none() && !self.disk.is_full(around.now) {
                    self.agent_starts(around, Mode::Alone);
                }
            }
        }
    }

    fn killed(&mut self, around: &mut Around, attempt: Key) {
        let Some(attempted) = self.processes.get_mut(&attempt) else { return };
        match attempted.state {
            State::Ended { .. } => return,
            State::Running => around.oracle.stopped(self.place, &attempt, Stopped::Killed, around.now),
            State::Waiting => {}
        }
        around.say(|| format!("{}: process of {} {} is killed", self.name, attempt.0.short(), attempt.1));
        attempted.state = State::Ended { result: StepOutcome::Cancelled, record: ExitRecord::Fresh };
        let (server, boot) = (self.place, self.boot);
        around.after(2, What::Host { server, boot, what: Outer::Recorded { attempt } });
    }

    /// The process executes from here on. Released twice it is released once.
    pub(super) fn release(&mut self, around: &mut Around, key: &Key) {
        let Some(attempted) = self.processes.get_mut(key) else {
            let because = "there is no such process".to_owned();
            return self.tell_end(around, key, StepOutcome::Unknown { because });
        };
        if attempted.supervisor == Supervisor::Lost {
            return self.reap(around, key);
        }
        match attempted.state.clone() {
            State::Waiting => {
                attempted.state = State::Running;
                around.say(|| format!("{}: process of {} {} runs", self.name, key.0.short(), key.1));
                around.oracle.started(self.place, key, &attempted.app, around.now);
                self.disk.logs.entry(key.clone()).or_default().length += 10;
                let longest = around.weather.longest_step_ms;
                let span = around.random.span(longest / 100, longest);
                let (server, boot, attempt) = (self.place, self.boot, key.clone());
                around.after(span, What::Host { server, boot, what: Outer::Ends { attempt } });
            }
            State::Running | State::Ended { record: ExitRecord::Fresh, .. } => {}
            State::Ended { result, record: ExitRecord::Durable } => self.tell_end(around, key, result),
        }
    }

    fn app_of(&self, key: &Key) -> Option<App> {
        self.disk.deployments.get(&key.0).map(|deployment| deployment.order.app.clone())
    }

    pub(super) fn watches(&self, key: &Key) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.watched.contains(key))
    }

    pub(super) fn tell_end(&self, around: &mut Around, key: &Key, result: StepOutcome) {
        let log_length = self.disk.logs.get(key).map_or(0, |log| log.length);
        let (deployment, attempt) = key.clone();
        let input = finished(attempt, result, log_length);
        self.answer(around, &deployment, 3, input);
    }

    /// To the agent that there is now, whether it asked or not.
    pub(super) fn answer(
        &self,
        around: &mut Around,
        deployment: &consign_common::name::Id,
        within: u64,
        input: Input,
    ) {
        let (server, life) = (self.place, self.life);
        let Some(app) = self.disk.deployments.get(deployment).map(|it| it.order.app.clone()) else { return };
        let deployment = deployment.clone();
        let what = Inner::Answer { app, deployment, task: 0, input };
        around.after(within, What::Agent { server, life, what });
    }
}

pub(super) fn finished(attempt: Attempt, result: StepOutcome, log_length: u64) -> Input {
    Input::Finished { attempt, result, log_length, duration_ms: 0, leftovers: Vec::new() }
}

/// How an attempt ends that nobody ends.
pub(super) fn outcome(around: &mut Around) -> StepOutcome {
    if !around.random.chance(around.weather.fail_permille) {
        return StepOutcome::Succeeded;
    }
    let failure = match around.random.below(4) {
        0 => Failure::Signal { signal: 9, core_dumped: false },
        1 => Failure::OutOfMemory,
        2 => Failure::Timeout { after_ms: 1000 },
        _ => Failure::Exit { code: 1 },
    };
    StepOutcome::Failed { failure }
}
