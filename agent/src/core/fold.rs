//! What an event changes. The one place that does: for an event that has just been decided on, and for one that is
//! replayed.

use consign_common::{
    deployment::{Attempt, Event, Failure, Leftover, StepOutcome},
    name::Id,
    plan::{FailurePolicy, Kind, Phase, Retry, Step},
    trust::DecisionAction,
};

use super::{
    model::{Begun, Process, Way},
    run::Run,
    state::{Confirmation, Once, Question, Track, Trouble, Undecided},
};

impl Run {
    pub(super) fn fold(&mut self, event: &Event) {
        if let Some(order) = order_of(event)
            && !self.orders.contains(order)
        {
            self.orders.push(order.clone());
        }
        // The way back is folded once its plan is known again; its end needs no plan.
        let ends = matches!(event, Event::Ended { .. });
        if self.returning.is_some() && self.restored.is_none() && !ends {
            self.deferred.push(event.clone());
            return;
        }
        match event {
            Event::Accepted { .. } => self.accepted = true,
            Event::Staging { .. } => {}
            Event::Staged { release, .. } => self.staged = Some(release.clone()),
            Event::Skipped { phase, step, .. } => self.track_mut(*phase).pass(*step),
            Event::Started { attempt, boot_id } => {
                let track = self.track_mut(attempt.phase);
                track.cursor = attempt.step;
                track.attempts = attempt.number;
                track.once = None;
                track.running = Some(Begun { attempt: *attempt, boot_id: boot_id.clone(), process: None });
            }
            Event::Spawned { attempt, pid, start_ticks, cgroup } => {
                let running = self.track_mut(attempt.phase).running.as_mut();
                if let Some(begun) = running.filter(|begun| begun.attempt == *attempt) {
                    begun.process =
                        Some(Process { pid: *pid, start_ticks: *start_ticks, cgroup: cgroup.clone() });
                }
            }
            Event::Finished { attempt, result, log_length, duration_ms, leftovers } => {
                if let Some(step) = self.steps(attempt.phase).get(attempt.step as usize).cloned() {
                    let track = self.track_mut(attempt.phase);
                    track.finish(*attempt, result, &step);
                    track.keep(*attempt, *log_length, *duration_ms, leftovers);
                }
            }
            Event::Returning { because, .. } => self.returning = Some(because.clone()),
            Event::Awaiting { step } => {
                self.deploy.cursor = *step;
                self.deploy.attempts = 0;
                self.deploy.once = Some(Once { step: *step, word: None });
            }
            Event::Answered { step, word, .. } => {
                let once = self.deploy.once.as_mut().filter(|once| once.step == *step);
                if let Some(once) = once.filter(|once| once.word.is_none()) {
                    once.word = Some(word.clone());
                }
            }
            Event::Undecided { phase, step, .. } => {
                let undecided = self.track_mut(*phase).undecided.as_mut();
                if let Some(undecided) = undecided.filter(|it| it.attempt.step == *step) {
                    undecided.question = Question::Asked;
                }
            }
            Event::Decided { phase, step, action, reason, .. } => {
                self.track_mut(*phase).decide(*step, *action, reason);
            }
            Event::Confirming { boot_id, deadline_boot_ms, .. } => {
                self.confirmation =
                    Confirmation::Awaited { boot_id: boot_id.clone(), deadline_boot_ms: *deadline_boot_ms };
            }
            Event::Confirmed { .. } => self.confirmation = Confirmation::Given,
            Event::Unconfirmed { because } => {
                let policy = FailurePolicy::Return;
                self.deploy.trouble = Some(Trouble::Failed { because: because.clone(), policy });
            }
            Event::Cancelling { because, .. } => self.fold_cancel(because),
            Event::Ended { result } => self.ended = Some(result.clone()),
        }
    }

    fn fold_cancel(&mut self, because: &str) {
        let phase = self.phase();
        if let Some(undecided) = &mut self.track_mut(phase).undecided {
            undecided.question = Question::Withdrawn;
            return;
        }
        let track = match &self.setting.way {
            Way::Return { .. } => &mut self.back,
            Way::Deploy { .. } if self.returning.is_none() => &mut self.deploy,
            // On its way back already.
            Way::Deploy { .. } => return,
        };
        if track.trouble.is_none() {
            track.trouble = Some(Trouble::Cancelled { because: because.to_owned() });
            track.cancelling = track.running.is_some();
        }
    }

    fn track_mut(&mut self, phase: Phase) -> &mut Track {
        match phase {
            Phase::Deploy => &mut self.deploy,
            Phase::Return => &mut self.back,
        }
    }
}

impl Track {
    fn pass(&mut self, step: u32) {
        self.cursor = step.saturating_add(1);
        self.attempts = 0;
        self.once = None;
    }

    fn decide(&mut self, step: u32, action: DecisionAction, reason: &str) {
        let undecided = self.undecided.take_if(|undecided| undecided.attempt.step == step);
        let result = match action {
            DecisionAction::Skip => {
                self.skips.insert(step, reason.to_owned());
                return;
            }
            DecisionAction::Again => return,
            DecisionAction::Done => StepOutcome::Succeeded,
            DecisionAction::Failed => {
                let message = format!("its outcome is unknown, and an operator called it failed: {reason}");
                StepOutcome::Failed { failure: Failure::Decided { message } }
            }
        };
        self.decided = undecided.map(|Undecided { attempt, log_length, duration_ms, leftovers, .. }| {
            Event::Finished { attempt, result, log_length, duration_ms, leftovers }
        });
    }

    /// What is told again with the decision.
    fn keep(&mut self, attempt: Attempt, log_length: u64, duration_ms: u64, leftovers: &[Leftover]) {
        if let Some(undecided) = self.undecided.as_mut().filter(|undecided| undecided.attempt == attempt) {
            undecided.log_length = log_length;
            undecided.duration_ms = duration_ms;
            undecided.leftovers = leftovers.to_vec();
        }
    }

    fn finish(&mut self, attempt: Attempt, result: &StepOutcome, step: &Step) {
        self.running = None;
        self.decided = None;
        let cancelled = std::mem::take(&mut self.cancelling);
        let again = match step.retry {
            Retry::Never => false,
            Retry::Attempts(most) => attempt.number < most,
        };
        match result {
            StepOutcome::Succeeded | StepOutcome::Skipped { .. } => {
                self.active |= step.kind == Kind::Activate;
                self.pass(attempt.step);
            }
            StepOutcome::Failed { failure } => {
                if cancelled || is_final(failure) || !again {
                    self.pass(attempt.step);
                    self.fail(step, failure);
                }
            }
            StepOutcome::Unknown { because } => {
                // Whether it switched nobody knows: going back is right in both cases.
                self.active |= step.kind == Kind::Activate;
                let idempotent = !step.kind.is_process();
                if cancelled && idempotent {
                    self.pass(attempt.step);
                } else if cancelled || !(idempotent || again) {
                    let question = if cancelled { Question::Withdrawn } else { Question::Unasked };
                    self.undecided = Some(Undecided {
                        attempt,
                        because: because.clone(),
                        log_length: 0,
                        duration_ms: 0,
                        leftovers: Vec::new(),
                        question,
                    });
                }
            }
            StepOutcome::Cancelled => {
                self.active |= step.kind == Kind::Activate;
                self.pass(attempt.step);
                if self.trouble.is_none() {
                    let because = format!("step {} was cancelled", step.name);
                    self.trouble = Some(Trouble::Cancelled { because });
                }
            }
        }
    }

    /// The first trouble is the one that counts; what fails while cleaning up is in the journal.
    fn fail(&mut self, step: &Step, failure: &Failure) {
        if self.trouble.is_some() {
            return;
        }
        let because = format!("step {} failed: {failure}", step.name);
        // Whatever the plan says: a switch that did not happen is not tolerable, it is all that this is about; and
        // neither is what the operator was not shown.
        let tolerable = step.kind != Kind::Activate && !matches!(failure, Failure::PlanDrift { .. });
        match step.if_fails {
            FailurePolicy::Continue if tolerable => self.tolerated.push(step.name.to_string()),
            FailurePolicy::Continue => {
                self.trouble = Some(Trouble::Failed { because, policy: FailurePolicy::Return });
            }
            policy @ (FailurePolicy::Return | FailurePolicy::Stop) => {
                self.trouble = Some(Trouble::Failed { because, policy });
            }
        }
    }
}

/// No retry changes it.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Condition { .. }
        | Failure::PlanDrift { .. }
        | Failure::Elsewhere { .. }
        | Failure::Decided { .. } => true,
        Failure::Exit { .. }
        | Failure::Signal { .. }
        | Failure::Timeout { .. }
        | Failure::Exec { .. }
        | Failure::OutOfMemory
        | Failure::Check { .. } => false,
    }
}

/// The order that an event is the effect of.
fn order_of(event: &Event) -> Option<&Id> {
    match event {
        Event::Cancelling { order, .. }
        | Event::Answered { order, .. }
        | Event::Decided { order, .. }
        | Event::Confirmed { order } => Some(order),
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Staged { .. }
        | Event::Skipped { .. }
        | Event::Started { .. }
        | Event::Spawned { .. }
        | Event::Finished { .. }
        | Event::Returning { .. }
        | Event::Awaiting { .. }
        | Event::Undecided { .. }
        | Event::Confirming { .. }
        | Event::Unconfirmed { .. }
        | Event::Ended { .. } => None,
    }
}
