//! What an event changes. The one place that does: for an event that has just been decided on, and for one that is
//! replayed.

use consign_common::{
    deployment::{Attempt, Event, Failure, StepOutcome},
    plan::{FailurePolicy, Kind, Phase, Retry, Step},
};

use super::{
    model::{Begun, Process, Way},
    run::{Run, Track, Trouble},
};

impl Run {
    pub(super) fn fold(&mut self, event: &Event) {
        if let Event::Cancelling { order, .. } = event
            && !self.cancels.contains(order)
        {
            self.cancels.push(order.clone());
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
                track.running = Some(Begun { attempt: *attempt, boot_id: boot_id.clone(), process: None });
            }
            Event::Spawned { attempt, pid, start_ticks, cgroup } => {
                let running = self.track_mut(attempt.phase).running.as_mut();
                if let Some(begun) = running.filter(|begun| begun.attempt == *attempt) {
                    begun.process =
                        Some(Process { pid: *pid, start_ticks: *start_ticks, cgroup: cgroup.clone() });
                }
            }
            Event::Finished { attempt, result, .. } => {
                if let Some(step) = self.steps(attempt.phase).get(attempt.step as usize).cloned() {
                    self.track_mut(attempt.phase).finish(*attempt, result, &step);
                }
            }
            Event::Returning { because, .. } => self.returning = Some(because.clone()),
            Event::Awaiting { .. }
            | Event::Answered { .. }
            | Event::Undecided { .. }
            | Event::Decided { .. }
            | Event::Confirming { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. } => {}
            Event::Cancelling { because, .. } => self.fold_cancel(because),
            Event::Ended { result } => self.ended = Some(result.clone()),
        }
    }

    fn fold_cancel(&mut self, because: &str) {
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
    }

    fn finish(&mut self, attempt: Attempt, result: &StepOutcome, step: &Step) {
        self.running = None;
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
                let final_word = matches!(failure, Failure::Condition { .. });
                if cancelled || final_word || !again {
                    self.pass(attempt.step);
                    self.fail(step, format!("step {} failed: {failure}", step.name));
                }
            }
            StepOutcome::Unknown { because } => {
                // Whether it switched nobody knows: going back is right in both cases.
                self.active |= step.kind == Kind::Activate;
                let idempotent = !step.kind.is_process();
                if cancelled && idempotent {
                    self.pass(attempt.step);
                } else if cancelled || !(idempotent || again) {
                    self.unknown = Some((step.name.to_string(), because.clone()));
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
    fn fail(&mut self, step: &Step, because: String) {
        if self.trouble.is_some() {
            return;
        }
        match step.if_fails {
            // Whatever the plan says: a switch that did not happen is not tolerable, it is all that this is about.
            FailurePolicy::Continue if step.kind == Kind::Activate => {
                self.trouble = Some(Trouble::Failed { because, policy: FailurePolicy::Return });
            }
            FailurePolicy::Continue => self.tolerated.push(step.name.to_string()),
            policy @ (FailurePolicy::Return | FailurePolicy::Stop) => {
                self.trouble = Some(Trouble::Failed { because, policy });
            }
        }
    }
}
