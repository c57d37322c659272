//! What is the case in a rollout, and what changed with the last event.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use consign_common::{deployment::Attempt, terminal::escape_line, time::UnixMs};
use consign_proto::v1::{FollowEvent, follow_event::Kind};

use super::{Output, Outputs, Part};
use crate::cli::{
    output::{Deployment, Line, Rollout, Step},
    text::span,
};

/// Something that happened, as the coordinator tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Where to go on after this; 0 for what has no place of its own.
    pub(crate) cursor: u64,
    pub(crate) at: UnixMs,
    pub(crate) kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Rollout(Box<Rollout>),
    Deployment(Deployment),
    Log(Part),
}

/// What a person is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Rollout {
        at: UnixMs,
        rollout: Box<Rollout>,
    },
    Server {
        at: UnixMs,
        server: String,
        wave: u32,
        state: String,
        because: String,
    },
    StepBegan {
        at: UnixMs,
        server: String,
        step: String,
        phase: String,
        attempt: u32,
    },
    StepEnded {
        at: UnixMs,
        server: String,
        step: String,
        state: String,
        because: String,
        took: Option<Duration>,
    },
    Output(Output),
}

#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) rollout: Rollout,
    /// By wave, then name.
    pub(crate) deployments: BTreeMap<(u32, String), Deployment>,
    outputs: Outputs,
    /// Servers and attempts whose beginning was told.
    begun: BTreeSet<(String, String)>,
    cursor: u64,
}

impl Event {
    /// `None`: a kind that a newer coordinator knows and we do not.
    pub(crate) fn from_wire(wire: FollowEvent) -> Option<Self> {
        let kind = match wire.kind? {
            Kind::Rollout(rollout) => EventKind::Rollout(Box::new(rollout.into())),
            Kind::Deployment(deployment) => EventKind::Deployment(deployment.into()),
            Kind::Log(part) => EventKind::Log(part.into()),
        };
        Some(Self { cursor: wire.cursor, at: UnixMs(wire.at_ms), kind })
    }
}

impl View {
    /// Where to go on after a lost connection.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.rollout.ended_ms.is_some()
    }

    /// The rollout with what is known of its servers.
    pub(crate) fn whole(&self) -> Rollout {
        Rollout { deployments: self.deployments.values().cloned().collect(), ..self.rollout.clone() }
    }

    /// The rollout with what changes while nothing happens: the coordinator tells of a rollout when its state changes, of
    /// its servers in between, and not of time that passes.
    pub(crate) fn current(&self, now: UnixMs) -> Rollout {
        let mut rollout = self.rollout.clone();
        let (wave, last) = (rollout.wave, rollout.last_wave);
        let at = match (rollout.stage.as_str(), rollout.deadline_ms) {
            ("deploying", _) => {
                let open = self.deployments.values().filter(|one| one.wave == wave && !is_final(&one.state));
                format!("wave {wave} of {last}: {} to go", open.count())
            }
            ("baking", Some(until)) => {
                let left = span(UnixMs(until).since(now));
                format!("waiting for wave {} of {last}: bake {left} left", wave + 1)
            }
            _ => return rollout,
        };
        rollout.because = match rollout.paused.as_str() {
            "" => at,
            because => format!("{because}; {at}"),
        };
        rollout
    }

    /// Takes an event and gives what it changed; `json` gets the lines of `--output json`.
    pub(crate) fn apply(&mut self, event: Event, mut json: impl FnMut(Line)) -> Vec<Change> {
        let mut changes = Vec::new();
        let at = event.at;
        // After a reconnect the past may come again; what was newer stays.
        let past = event.cursor != 0 && event.cursor < self.cursor;
        self.cursor = self.cursor.max(event.cursor);
        match event.kind {
            EventKind::Log(part) => {
                self.output_began(at, &part, &mut changes);
                let record =
                    |part: &Part, offset, record: &_| json(super::run::json_of_record(part, offset, record));
                self.outputs.push(&part, record, |output| changes.push(Change::Output(output)));
            }
            EventKind::Rollout(_) | EventKind::Deployment(_) if past => {}
            EventKind::Rollout(rollout) => {
                self.rollout(at, *rollout, &mut changes, &mut json);
            }
            EventKind::Deployment(deployment) => self.deployment(at, deployment, &mut changes, &mut json),
        }
        changes
    }

    /// Between two looks at a server a step may begin and end: then its output is the first that is heard of it.
    fn output_began(&mut self, at: UnixMs, part: &Part, changes: &mut Vec<Change>) {
        let Ok(attempt) = part.attempt.parse::<Attempt>() else { return };
        if self.begun.insert((part.server.clone(), part.attempt.clone())) {
            changes.push(Change::StepBegan {
                at,
                server: part.server.clone(),
                step: part.step.clone(),
                phase: attempt.phase.as_str().into(),
                attempt: attempt.number,
            });
        }
    }

    pub(crate) fn look_anew(&mut self) {
        self.outputs.look_anew();
    }

    pub(crate) fn flush_idle(&mut self, now: UnixMs) -> Vec<Change> {
        let mut changes = Vec::new();
        self.outputs.flush_idle(now, |output| changes.push(Change::Output(output)));
        changes
    }

    pub(crate) fn finish(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.outputs.finish(|output| changes.push(Change::Output(output)));
        changes
    }

    fn rollout(
        &mut self,
        at: UnixMs,
        mut rollout: Rollout,
        changes: &mut Vec<Change>,
        json: &mut impl FnMut(Line),
    ) {
        let deployments = std::mem::take(&mut rollout.deployments);
        let told = (self.rollout.state != rollout.state) || (self.rollout.because != rollout.because);
        self.rollout = rollout;
        for deployment in deployments {
            self.deployment(at, deployment, changes, json);
        }
        if told {
            let rollout = self.whole();
            json(Line::Rollout { at_ms: at.0, rollout: rollout.clone() });
            changes.push(Change::Rollout { at, rollout: Box::new(rollout) });
        }
    }

    fn deployment(
        &mut self,
        at: UnixMs,
        deployment: Deployment,
        changes: &mut Vec<Change>,
        json: &mut impl FnMut(Line),
    ) {
        let key = (deployment.wave, deployment.server.clone());
        let old = self.deployments.insert(key, deployment.clone());
        if old.as_ref() == Some(&deployment) {
            return;
        }
        let server = escape_line(&deployment.server);
        let began = old.as_ref().is_none_or(|old| old.state != deployment.state);
        // `pending` is where every server begins; a list of it tells nothing.
        let told = began && !(old.is_none() && deployment.state == "pending");
        let ended = is_final(&deployment.state);
        let server_change = told.then(|| Change::Server {
            at,
            server: server.clone(),
            wave: deployment.wave,
            state: escape_line(&deployment.state),
            because: escape_line(&deployment.because),
        });
        // A server's end is told after its last step's, everything else before.
        let (before, after) = if ended { (None, server_change) } else { (server_change, None) };
        changes.extend(before);
        for step in &deployment.steps {
            let known = old.iter().flat_map(|old| &old.steps).find(|known| is_same(known, step));
            let mut told = step_changes(&server, known, step, at);
            let attempt = format!("{}-{}-{}", escape_line(&step.phase), step.index, step.attempts);
            told.retain(|change| match change {
                Change::StepBegan { .. } => self.begun.insert((server.clone(), attempt.clone())),
                Change::Rollout { .. }
                | Change::Server { .. }
                | Change::StepEnded { .. }
                | Change::Output(_) => true,
            });
            if told.iter().any(|change| matches!(change, Change::StepEnded { .. })) {
                self.outputs.finish_attempt(&server, &attempt, |output| changes.push(Change::Output(output)));
            }
            changes.append(&mut told);
        }
        changes.extend(after);
        json(Line::Deployment { at_ms: at.0, deployment });
    }
}

fn is_same(one: &Step, other: &Step) -> bool {
    (&one.phase, one.index) == (&other.phase, other.index)
}

fn step_changes(server: &str, known: Option<&Step>, step: &Step, at: UnixMs) -> Vec<Change> {
    let mut changes = Vec::new();
    let state = known.map_or("pending", |known| known.state.as_str());
    let attempts = known.map_or(0, |known| known.attempts);
    if state == step.state && attempts == step.attempts {
        return changes;
    }
    let name = escape_line(&step.name);
    let began =
        step.state == "running" || (step.started_ms > 0 && state == "pending" && step.state != "skipped");
    if began {
        let since = if step.started_ms > 0 { UnixMs(step.started_ms) } else { at };
        changes.push(Change::StepBegan {
            at: since,
            server: server.into(),
            step: name.clone(),
            phase: escape_line(&step.phase),
            attempt: step.attempts,
        });
    }
    if step.state != "running" && step.state != "pending" {
        let took = (step.started_ms > 0 && step.ended_ms >= step.started_ms)
            .then(|| UnixMs(step.ended_ms).since(UnixMs(step.started_ms)));
        changes.push(Change::StepEnded {
            at: if step.ended_ms > 0 { UnixMs(step.ended_ms) } else { at },
            server: server.into(),
            step: name,
            state: escape_line(&step.state),
            because: because(&step.state, &step.because),
            took,
        });
    }
    changes
}

/// A reason without the state's name in front of it.
pub(super) fn because(state: &str, because: &str) -> String {
    let rest = because.strip_prefix(state).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(because);
    escape_line(rest)
}

/// Whether nothing more happens on a server.
pub(super) fn is_final(state: &str) -> bool {
    !matches!(state, "pending" | "ordered" | "running" | "awaiting" | "confirming" | "returning")
}
