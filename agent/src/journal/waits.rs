//! What an open deployment waits for, as its events say.

use consign_common::{
    deployment::{Event, StepSummary},
    plan::Phase,
    time::UnixMs,
    trust::DecisionAction,
};
use serde::{Deserialize, Serialize};

/// For somebody that is not on this server, or for a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Waits {
    /// Whether it is the server that runs this `once` step.
    Once { step: String },
    /// How this step of unknown outcome is to be taken.
    Decision { step: String, because: String },
    /// To be confirmed: until `deadline_boot_ms` by CLOCK_BOOTTIME of the boot `boot_id`.
    Confirmation { boot_id: String, deadline_boot_ms: u64, deadline: UnixMs },
}

impl Waits {
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Self> {
        let (mut deploy, mut back): (&[StepSummary], &[StepSummary]) = (&[], &[]);
        let mut waits: Option<(Phase, u32, Self)> = None;
        for event in events {
            let name = |phase: Phase, step: u32| {
                let steps = match phase {
                    Phase::Deploy => deploy,
                    Phase::Return => back,
                };
                let named = steps.get(step as usize).map(|step| step.name.to_string());
                named.unwrap_or_else(|| format!("{} {step}", phase.as_str()))
            };
            match event {
                Event::Awaiting { step } => {
                    let step_name = name(Phase::Deploy, *step);
                    waits = Some((Phase::Deploy, *step, Self::Once { step: step_name }));
                }
                Event::Undecided { phase, step, because } => {
                    let decision = Self::Decision { step: name(*phase, *step), because: because.clone() };
                    waits = Some((*phase, *step, decision));
                }
                Event::Confirming { boot_id, deadline_boot_ms, deadline } => {
                    let (boot_id, deadline_boot_ms) = (boot_id.clone(), *deadline_boot_ms);
                    let deadline = *deadline;
                    let confirmation = Self::Confirmation { boot_id, deadline_boot_ms, deadline };
                    waits = Some((Phase::Deploy, u32::MAX, confirmation));
                }
                // Another step is left out: that ends no wait.
                Event::Decided { phase, step, action: DecisionAction::Skip, .. } => {
                    waits = waits.filter(|(of, index, _)| (of, index) != (phase, step));
                }
                Event::Accepted { steps, .. } => deploy = steps,
                Event::Returning { steps, .. } => (back, waits) = (steps, None),
                Event::Staging { .. }
                | Event::Staged { .. }
                | Event::Skipped { .. }
                | Event::Started { .. }
                | Event::Spawned { .. }
                | Event::Finished { .. }
                | Event::Answered { .. }
                | Event::Decided { .. }
                | Event::Confirmed { .. }
                | Event::Unconfirmed { .. }
                | Event::Cancelling { .. }
                | Event::Ended { .. } => waits = None,
            }
        }
        waits.map(|(_, _, waits)| waits)
    }
}

#[cfg(test)]
mod tests {
    use consign_common::{digest::Sha256, name::Id};

    use super::*;

    #[test]
    fn a_wait_lasts_until_what_ends_it() {
        let id = || Id::from_bytes([1; 16]);
        let step = StepSummary { name: "migrate".parse().unwrap(), kind: "run".into() };
        let accepted = Event::Accepted {
            order: id(),
            app: "shop".parse().unwrap(),
            version: "1".parse().unwrap(),
            digest: Sha256::of(b"x"),
            previous: None,
            steps: vec![step],
        };
        let skip = |step| Event::Decided {
            order: id(),
            phase: Phase::Deploy,
            step,
            action: DecisionAction::Skip,
            reason: String::new(),
        };
        let mut events = vec![accepted, Event::Awaiting { step: 0 }, skip(3)];
        assert_eq!(Waits::of(&events), Some(Waits::Once { step: "migrate".into() }));
        events.push(skip(0));
        assert_eq!(Waits::of(&events), None);
        let because = "lost".to_owned();
        events.push(Event::Undecided { phase: Phase::Deploy, step: 7, because: because.clone() });
        assert_eq!(Waits::of(&events), Some(Waits::Decision { step: "deploy 7".into(), because }));
        events.push(Event::Cancelling { order: id(), because: String::new() });
        assert_eq!(Waits::of(&events), None);
    }
}
