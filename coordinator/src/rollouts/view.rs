//! What a deployment's events add up to: a pure fold. An event that does not fit (a step that was never listed) is kept
//! in the store and changes nothing here: agents are believed about their own server, not about our memory.

use std::collections::BTreeMap;

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome, StepSummary},
    limits::STEPS,
    name::{StepName, Version},
    plan::Phase,
    time::UnixMs,
    trust::DecisionAction,
};
use serde::{Deserialize, Serialize};

use crate::rollout::{End, Kind, News, Rollout, StepEnd};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The version that ran before.
    pub previous: Option<Version>,
    pub steps: Vec<StepView>,
    /// What it is at beside its steps, in one line: staging, returning, cancelling.
    pub progress: String,
    /// It returns by itself then, unless it is confirmed.
    #[serde(default)]
    pub confirm_until: Option<UnixMs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepView {
    pub phase: Phase,
    /// From 0, within its phase.
    pub index: u32,
    pub name: StepName,
    pub kind: String,
    pub state: StepState,
    pub because: String,
    pub started: UnixMs,
    pub ended: UnixMs,
    /// By the attempt's number: the length of its log file, once it is known.
    pub attempts: BTreeMap<u32, Option<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    Pending,
    Running,
    Succeeded,
    Skipped,
    Failed,
    Unknown,
    Cancelled,
}

impl StepState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

impl View {
    /// Whether a step was started.
    pub fn has_begun(&self) -> bool {
        self.steps.iter().any(|step| !step.attempts.is_empty())
    }

    pub fn fold(&mut self, kind: Kind, event: &Event, at: UnixMs) {
        match event {
            Event::Accepted { previous, steps, .. } => {
                self.previous.clone_from(previous);
                self.list(phase_of(kind), steps);
            }
            Event::Staging { fetched, total } => {
                let mib = |bytes: &u64| bytes.div_ceil(1 << 20);
                self.progress = format!("fetching: {} of {} MiB", mib(fetched), mib(total));
            }
            Event::Staged { .. } => self.progress.clear(),
            Event::Skipped { phase, step, expression, inputs } => {
                let outcome = StepOutcome::Skipped { expression: expression.clone(), inputs: inputs.clone() };
                if let Some(step) = self.step_mut(*phase, *step) {
                    step.end(&outcome, at);
                }
            }
            Event::Started { attempt, .. } => {
                if let Some(step) = self.step_mut(attempt.phase, attempt.step) {
                    if step.attempts.is_empty() {
                        step.started = at;
                    }
                    step.state = StepState::Running;
                    step.attempts.entry(attempt.number).or_insert(None);
                }
            }
            Event::Spawned { .. } => {}
            Event::Finished { attempt, result, log_length, .. } => {
                if let Some(step) = self.step_mut(attempt.phase, attempt.step) {
                    step.end(result, at);
                    step.attempts.insert(attempt.number, Some(*log_length));
                }
            }
            Event::Returning { because, version, steps, .. } => {
                self.progress = format!("returning to {version}: {because}");
                self.list(Phase::Return, steps);
            }
            Event::Awaiting { step } => {
                let name = self.step_name(Attempt { phase: Phase::Deploy, step: *step, number: 1 });
                self.progress = format!("waiting to be told about the once step {name}");
            }
            Event::Answered { .. } => self.progress.clear(),
            Event::Undecided { phase, step, because } => {
                if let Some(step) = self.step_mut(*phase, *step) {
                    step.end(&StepOutcome::Unknown { because: because.clone() }, at);
                }
                self.progress = "waiting for a decision".to_owned();
            }
            Event::Decided { phase, step, action, reason, .. } => {
                self.progress.clear();
                if let Some(step) = self.step_mut(*phase, *step) {
                    step.decide(*action, reason);
                }
            }
            Event::Confirming { deadline, .. } => {
                self.progress = format!("returns by itself unless confirmed until {deadline}");
                self.confirm_until = Some(*deadline);
            }
            Event::Confirmed { .. } => {
                self.progress.clear();
                self.confirm_until = None;
            }
            Event::Unconfirmed { because } => {
                self.progress.clone_from(because);
                self.confirm_until = None;
            }
            Event::Cancelling { because, .. } => self.progress = format!("cancelling: {because}"),
            Event::Ended { result } => self.close(result, at),
        }
    }

    /// The name of the step that an attempt is of; its index where it was not listed.
    pub fn step_name(&self, attempt: Attempt) -> String {
        let step = self.steps.iter().find(|step| step.phase == attempt.phase && step.index == attempt.step);
        step.map_or_else(|| attempt.to_string(), |step| step.name.to_string())
    }

    /// Every attempt that began, with the length of its log where the agent has said it.
    pub fn attempts(&self) -> impl Iterator<Item = (Attempt, Option<u64>)> {
        self.steps.iter().flat_map(|step| {
            let attempt = |number| Attempt { phase: step.phase, step: step.index, number };
            step.attempts.iter().map(move |(number, length)| (attempt(*number), *length))
        })
    }

    fn step_mut(&mut self, phase: Phase, index: u32) -> Option<&mut StepView> {
        self.steps.iter_mut().find(|step| step.phase == phase && step.index == index)
    }

    /// The steps of a phase, all to come. Heard twice, they are what they were.
    fn list(&mut self, phase: Phase, steps: &[StepSummary]) {
        if self.steps.iter().any(|step| step.phase == phase) {
            return;
        }
        self.steps.extend(steps.iter().take(STEPS).zip(0..).map(|(summary, index)| StepView {
            phase,
            index,
            name: summary.name.clone(),
            kind: summary.kind.chars().take(20).collect(),
            state: StepState::Pending,
            because: String::new(),
            started: UnixMs(0),
            ended: UnixMs(0),
            attempts: BTreeMap::new(),
        }));
    }

    /// A step that was running when the deployment ended has no outcome of its own.
    fn close(&mut self, result: &DeploymentOutcome, at: UnixMs) {
        self.progress.clear();
        self.confirm_until = None;
        let outcome = match result {
            DeploymentOutcome::Cancelled { .. } => StepOutcome::Cancelled,
            DeploymentOutcome::Unknown { because, .. } => StepOutcome::Unknown { because: because.clone() },
            DeploymentOutcome::Succeeded { .. }
            | DeploymentOutcome::NoOp
            | DeploymentOutcome::Failed { .. }
            | DeploymentOutcome::Returned { .. }
            | DeploymentOutcome::Stopped { .. }
            | DeploymentOutcome::Refused { .. } => {
                StepOutcome::Unknown { because: "the deployment ended without its outcome".to_owned() }
            }
        };
        for step in self.steps.iter_mut().filter(|step| step.state == StepState::Running) {
            step.end(&outcome, at);
        }
    }
}

impl StepView {
    /// What an operator called it. A step that is to run again, or has not begun, says the rest itself.
    fn decide(&mut self, action: DecisionAction, reason: &str) {
        let state = match action {
            DecisionAction::Done => StepState::Succeeded,
            DecisionAction::Failed => StepState::Failed,
            DecisionAction::Skip if self.state == StepState::Unknown => StepState::Skipped,
            DecisionAction::Skip | DecisionAction::Again => return,
        };
        self.state = state;
        self.because = format!("decided: {reason}");
    }

    fn end(&mut self, outcome: &StepOutcome, at: UnixMs) {
        self.ended = at;
        (self.state, self.because) = match outcome {
            StepOutcome::Succeeded => (StepState::Succeeded, String::new()),
            StepOutcome::Skipped { .. } => {
                let text = outcome.to_string();
                (StepState::Skipped, text.strip_prefix("skipped: ").unwrap_or(&text).to_owned())
            }
            StepOutcome::Failed { failure } => (StepState::Failed, failure.to_string()),
            StepOutcome::Unknown { because } => (StepState::Unknown, because.clone()),
            StepOutcome::Cancelled => (StepState::Cancelled, String::new()),
        };
    }
}

fn phase_of(kind: Kind) -> Phase {
    match kind {
        Kind::Deploy => Phase::Deploy,
        Kind::Return => Phase::Return,
    }
}

impl View {
    /// What the engine learns from an agent's event. Single steps matter only where they are `once`.
    pub fn news(&self, rollout: &Rollout, event: &Event) -> Vec<News> {
        let step = |phase: Phase, index: u32| {
            let step = self.steps.iter().find(|step| step.phase == phase && step.index == index);
            step.map(|step| step.name.clone())
        };
        let once = |phase: Phase, index: u32| {
            step(phase, index).filter(|_| phase == Phase::Deploy && !rollout.once.is_empty())
        };
        let news = match event {
            Event::Accepted { .. } | Event::Staging { .. } | Event::Staged { .. } => Some(News::Accepted),
            Event::Started { attempt, .. } => {
                once(attempt.phase, attempt.step).map(|step| News::StepStarted { step })
            }
            Event::Finished { attempt, result, .. } => once(attempt.phase, attempt.step)
                .zip(step_end(result))
                .map(|(step, how)| News::StepEnded { step, how }),
            Event::Skipped { phase, step: index, .. } => {
                once(*phase, *index).map(|step| News::StepEnded { step, how: StepEnd::Skipped })
            }
            Event::Awaiting { step: index } => {
                step(Phase::Deploy, *index).map(|step| News::Awaiting { step })
            }
            Event::Answered { .. } => Some(News::Answered),
            Event::Undecided { phase, step: index, because } => {
                step(*phase, *index).map(|step| News::Undecided { step, because: because.clone() })
            }
            Event::Decided { phase, step: index, action, reason, .. } => {
                let because = reason.clone();
                step(*phase, *index).map(|step| News::Decided { step, action: *action, because })
            }
            Event::Confirming { .. } => Some(News::Confirming),
            Event::Returning { .. } => Some(News::Returning),
            Event::Ended { result } => Some(News::Ended(end(result))),
            Event::Spawned { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Cancelling { .. } => None,
        };
        news.into_iter().collect()
    }
}

fn step_end(result: &StepOutcome) -> Option<StepEnd> {
    match result {
        StepOutcome::Succeeded => Some(StepEnd::Succeeded),
        StepOutcome::Skipped { .. } => Some(StepEnd::Skipped),
        StepOutcome::Failed { failure } => Some(StepEnd::Failed { because: failure.to_string() }),
        StepOutcome::Cancelled => Some(StepEnd::Failed { because: "it was cancelled".to_owned() }),
        // It runs again, or the server asks for a decision: that is what counts.
        StepOutcome::Unknown { .. } => None,
    }
}

/// The engine's word for how a deployment ended.
pub fn end(result: &DeploymentOutcome) -> End {
    match result {
        DeploymentOutcome::Succeeded { tolerated } => End::Succeeded { tolerated: tolerated.clone() },
        DeploymentOutcome::NoOp => End::NoOp,
        DeploymentOutcome::Failed { because } => End::Failed { because: because.clone() },
        DeploymentOutcome::Returned { because } => End::Returned { because: because.clone() },
        DeploymentOutcome::Stopped { because } => End::Stopped { because: because.clone() },
        DeploymentOutcome::Unknown { step, because } => {
            let because = if step.is_empty() { because.clone() } else { format!("step {step}: {because}") };
            End::Unknown { because, step: None }
        }
        DeploymentOutcome::Cancelled { because } => End::Cancelled { because: because.clone() },
        DeploymentOutcome::Refused { code, message } => {
            End::Refused { code: code.clone(), message: message.clone() }
        }
    }
}

#[cfg(test)]
mod tests {
    use consign_common::{deployment::Failure, digest::Sha256, name::Id};

    use super::*;

    fn summary(name: &str) -> StepSummary {
        StepSummary { name: name.parse().unwrap(), kind: "run".into() }
    }

    fn accepted() -> Event {
        Event::Accepted {
            order: Id::from_bytes([1; 16]),
            app: "shop".parse().unwrap(),
            version: "2".parse().unwrap(),
            digest: Sha256::of(b"2"),
            previous: Some("1".parse().unwrap()),
            steps: vec![summary("migrate"), summary("restart")],
        }
    }

    fn attempt(step: u32, number: u32) -> Attempt {
        Attempt { phase: Phase::Deploy, step, number }
    }

    fn finished(step: u32, number: u32, result: StepOutcome) -> Event {
        let attempt = attempt(step, number);
        Event::Finished { attempt, result, log_length: 40, duration_ms: 5, leftovers: Vec::new() }
    }

    fn folded(events: &[Event]) -> View {
        let mut view = View::default();
        for (event, at) in events.iter().zip(1..) {
            view.fold(Kind::Deploy, event, UnixMs(at));
        }
        view
    }

    #[test]
    fn a_view_shows_every_step_with_its_state_and_reason() {
        let inputs = BTreeMap::from([("changed('migrations/**')".to_owned(), "false".to_owned())]);
        let failed = StepOutcome::Failed { failure: Failure::Exit { code: 3 } };
        let view = folded(&[
            accepted(),
            Event::Skipped {
                phase: Phase::Deploy,
                step: 0,
                expression: "changed('migrations/**')".into(),
                inputs,
            },
            Event::Started { attempt: attempt(1, 1), boot_id: "b".into() },
            finished(1, 1, failed),
            Event::Started { attempt: attempt(1, 2), boot_id: "b".into() },
        ]);
        assert_eq!(view.previous.as_ref().unwrap().as_str(), "1");
        let [migrate, restart] = view.steps.as_slice() else { panic!("{view:?}") };
        assert_eq!(migrate.state, StepState::Skipped);
        assert_eq!(migrate.because, "changed('migrations/**') is false");
        assert_eq!(restart.state, StepState::Running);
        assert_eq!(restart.started, UnixMs(3), "of the first attempt");
        assert_eq!(restart.attempts, BTreeMap::from([(1, Some(40)), (2, None)]));
    }

    #[test]
    fn a_running_step_does_not_outlive_its_deployment() {
        let view = folded(&[
            accepted(),
            Event::Started { attempt: attempt(0, 1), boot_id: "b".into() },
            Event::Ended {
                result: DeploymentOutcome::Unknown { step: "migrate".into(), because: "power".into() },
            },
        ]);
        assert_eq!(view.steps[0].state, StepState::Unknown);
        assert_eq!(view.steps[1].state, StepState::Pending);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let before = folded(&[accepted()]);
        let after = folded(&[accepted(), finished(7, 1, StepOutcome::Succeeded), accepted()]);
        assert_eq!(before, after);
    }
}
