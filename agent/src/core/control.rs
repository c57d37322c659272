//! Words from outside about a deployment that runs: cancel, once, decide, confirm. Each fits what the run is at, or changes
//! nothing and has a name.

use consign_common::{
    deployment::Event,
    name::StepName,
    plan::{Kind, Phase},
    time::UnixMs,
    trust::DecisionAction,
};

use super::{
    model::{Command, Input, Waiting, Way},
    run::Run,
    state::{Confirmation, Question},
};

/// Why a word about a deployment changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("the plan that runs now has no step {step}")]
    StepUnknown { step: StepName },
    #[error("step {step} has begun already, or is left out")]
    StepBegun { step: StepName },
    #[error("step {step} cannot be left out: without it the release never becomes current")]
    NotSkippable { step: StepName },
    #[error("step {step} does not wait for a decision")]
    NotUndecided { step: StepName },
    #[error("the deployment does not wait before step {step}")]
    NotAwaiting { step: StepName },
    #[error("the deployment does not wait to be confirmed")]
    NotConfirming,
    #[error("the deployment waits for no decision: it goes on")]
    GoesOn,
}

impl Misfit {
    /// The refusal's name on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::StepUnknown { .. } => "step-unknown",
            Self::StepBegun { .. } => "step-begun",
            Self::NotSkippable { .. } => "not-skippable",
            Self::NotUndecided { .. } => "not-undecided",
            Self::NotAwaiting { .. } => "not-awaiting",
            Self::NotConfirming => "not-confirming",
            Self::GoesOn => "busy",
        }
    }
}

impl Run {
    /// Whether the word would be taken now. One of an order that was taken before fits, and changes nothing.
    pub fn fits(&self, input: &Input) -> Result<(), Misfit> {
        self.said(input.clone()).map(drop)
    }

    /// What the run waits for.
    pub fn waiting(&self) -> Option<Waiting> {
        if self.ended.is_some() {
            return None;
        }
        let phase = self.phase();
        let track = self.track(phase);
        if let Some(undecided) = track.undecided.as_ref().filter(|it| it.question == Question::Asked) {
            return Some(Waiting::Decision { phase, step: undecided.attempt.step });
        }
        let once = track.once.as_ref().filter(|once| once.word.is_none());
        if let Some(once) = once.filter(|_| track.trouble.is_none()) {
            return Some(Waiting::Once { step: once.step });
        }
        match &self.confirmation {
            Confirmation::Awaited { deadline_boot_ms, .. } if self.is_confirming() => {
                Some(Waiting::Confirmation { deadline_boot_ms: *deadline_boot_ms })
            }
            Confirmation::Awaited { .. } | Confirmation::Open | Confirmation::Given => None,
        }
    }

    /// The steps of the way back are not known (again) yet: until then no word about them can be judged.
    pub fn is_catching_up(&self) -> bool {
        self.ended.is_none() && self.phase() == Phase::Return && self.restored.is_none()
    }

    /// The phase whose steps run now.
    pub(super) fn phase(&self) -> Phase {
        match (&self.setting.way, &self.returning) {
            (Way::Deploy { .. }, None) => Phase::Deploy,
            (Way::Deploy { .. }, Some(_)) | (Way::Return { .. }, _) => Phase::Return,
        }
    }

    /// A success waits to be confirmed, in this boot.
    pub fn is_confirming(&self) -> bool {
        let own = |boot_id: &String| *boot_id == self.setting.boot_id;
        let awaited = matches!(&self.confirmation, Confirmation::Awaited { boot_id, .. } if own(boot_id));
        awaited && self.deploy.trouble.is_none()
    }

    /// The event that the word comes to; none for an order that was taken before.
    pub(super) fn said(&self, input: Input) -> Result<Option<Event>, Misfit> {
        let taken = |order| !self.accepted || self.orders.contains(order);
        Ok(match input {
            Input::Cancel { order, .. }
            | Input::Once { order, .. }
            | Input::Decide { order, .. }
            | Input::Confirm { order }
                if taken(&order) =>
            {
                None
            }
            Input::Cancel { order, because } => Some(Event::Cancelling { order, because }),
            Input::Once { order, step, word } => match self.waiting() {
                Some(Waiting::Once { step: index }) if self.is_called(index, &step) => {
                    Some(Event::Answered { order, step: index, word })
                }
                Some(Waiting::Once { .. } | Waiting::Decision { .. } | Waiting::Confirmation { .. })
                | None => {
                    return Err(Misfit::NotAwaiting { step });
                }
            },
            Input::Decide { order, step, action, reason } => {
                let (phase, step) = (self.phase(), self.decidable(&step, action)?);
                Some(Event::Decided { order, phase, step, action, reason })
            }
            Input::Confirm { order } => {
                if !self.is_confirming() {
                    return Err(Misfit::NotConfirming);
                }
                Some(Event::Confirmed { order })
            }
            Input::GiveUp => {
                let undecided = self.track(self.phase()).undecided.as_ref();
                let result = undecided.map(|undecided| self.unknown(undecided)).ok_or(Misfit::GoesOn)?;
                Some(Event::Ended { result })
            }
            // No words about a deployment.
            Input::Go
            | Input::Staged { .. }
            | Input::StagingFailed { .. }
            | Input::StagingCancelled
            | Input::Evaluated { .. }
            | Input::Spawned { .. }
            | Input::Finished { .. }
            | Input::NeverBegan { .. }
            | Input::Restorable { .. }
            | Input::NotRestorable { .. }
            | Input::Clocks { .. }
            | Input::ConfirmExpired => None,
        })
    }

    fn is_called(&self, index: u32, name: &StepName) -> bool {
        self.steps(self.phase()).get(index as usize).is_some_and(|step| step.name == *name)
    }

    /// The step of this name, if that may be decided about it now.
    fn decidable(&self, name: &StepName, action: DecisionAction) -> Result<u32, Misfit> {
        let phase = self.phase();
        let mut steps = (0u32..).zip(self.steps(phase));
        let Some((index, step)) = steps.find(|(_, step)| step.name == *name) else {
            return Err(Misfit::StepUnknown { step: name.clone() });
        };
        let track = self.track(phase);
        let undecided = track.undecided.as_ref().is_some_and(|undecided| {
            undecided.attempt.step == index && undecided.question == Question::Asked
        });
        match action {
            DecisionAction::Done | DecisionAction::Failed | DecisionAction::Again if undecided => Ok(index),
            DecisionAction::Done | DecisionAction::Failed | DecisionAction::Again => {
                Err(Misfit::NotUndecided { step: name.clone() })
            }
            DecisionAction::Skip if step.kind == Kind::Activate => {
                Err(Misfit::NotSkippable { step: name.clone() })
            }
            DecisionAction::Skip if undecided => Ok(index),
            DecisionAction::Skip => {
                let begun = index < track.cursor
                    || (index == track.cursor && track.attempts > 0)
                    || self.left_out(phase, index, step).is_some();
                if begun { Err(Misfit::StepBegun { step: name.clone() }) } else { Ok(index) }
            }
        }
    }

    pub(super) fn begin_confirmation(&mut self, boot_ms: u64, now: UnixMs, commands: &mut Vec<Command>) {
        let Way::Deploy { confirm: Some(window), .. } = &self.setting.way else { return };
        // Cancelled while the clocks were read: there is nothing to confirm.
        if self.deploy.trouble.is_some() {
            return;
        }
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let event = Event::Confirming {
            boot_id: self.setting.boot_id.clone(),
            deadline_boot_ms: boot_ms.saturating_add(window_ms),
            deadline: now.plus(*window),
        };
        self.record(event, commands);
    }
}
