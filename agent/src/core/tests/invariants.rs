//! What holds of every run, whatever happened to it.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome},
    plan::{FailurePolicy, Phase, Retry},
    trust::{DecisionAction, OnceWord},
};
use proptest::prelude::*;

use super::world::World;
use crate::core::Way;

pub(super) fn check_invariants(world: &World) -> Result<(), TestCaseError> {
    let mut started = BTreeSet::new();
    let mut settled: BTreeMap<(Phase, u32), StepOutcome> = BTreeMap::new();
    for event in &world.journal {
        match event {
            Event::Started { attempt, .. } => {
                prop_assert!(started.insert(*attempt), "{attempt} is started twice");
                in_order(world, *attempt, &settled)?;
            }
            Event::Finished { attempt, result, .. } => {
                settled.insert((attempt.phase, attempt.step), result.clone());
            }
            Event::Skipped { phase, step, expression, inputs } => {
                let skipped = StepOutcome::Skipped { expression: expression.clone(), inputs: inputs.clone() };
                settled.insert((*phase, *step), skipped);
            }
            Event::Accepted { .. }
            | Event::Staging { .. }
            | Event::Staged { .. }
            | Event::Spawned { .. }
            | Event::Returning { .. }
            | Event::Cancelling { .. }
            | Event::Awaiting { .. }
            | Event::Answered { .. }
            | Event::Undecided { .. }
            | Event::Decided { .. }
            | Event::Confirming { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Ended { .. } => {}
        }
    }
    let ends = world.journal.iter().filter(|event| matches!(event, Event::Ended { .. })).count();
    prop_assert_eq!(ends, 1, "one end: {:?}", world.journal);
    let mut effects: BTreeMap<Attempt, u32> = BTreeMap::new();
    for attempt in &world.effects {
        prop_assert!(started.contains(attempt), "{} ran, and nothing says that it started", attempt);
        *effects.entry(*attempt).or_default() += 1;
    }
    for (attempt, count) in &effects {
        prop_assert_eq!(*count, 1, "{} ran more than once", attempt);
    }
    for phase in [Phase::Deploy, Phase::Return] {
        for (index, step) in (0u32..).zip(world.steps(phase)) {
            let runs = world.effects.iter().filter(|it| it.phase == phase && it.step == index).count();
            if step.kind.is_process() && step.retry == Retry::Never {
                let most = 1 + decided(world, phase, index, DecisionAction::Again);
                prop_assert!(runs <= most, "step {} ran {} times, {} are allowed", step.name, runs, most);
            }
        }
    }
    waits_are_kept(world)?;
    confirmation_is_kept(world)?;
    outcome_is_true(world, &settled)
}

fn decided(world: &World, phase: Phase, step: u32, action: DecisionAction) -> usize {
    let is = |event: &&Event| {
        let Event::Decided { phase: of, step: index, action: word, .. } = event else { return false };
        (*of, *index, *word) == (phase, step, action)
    };
    world.journal.iter().filter(is).count()
}

/// A question stands before its answer, and nothing runs between the two.
fn waits_are_kept(world: &World) -> Result<(), TestCaseError> {
    let (mut awaited, mut undecided) = (None, None);
    let mut granted = BTreeSet::new();
    for event in &world.journal {
        match event {
            Event::Awaiting { step } => {
                prop_assert!(awaited.replace(*step).is_none(), "asked twice");
            }
            Event::Answered { step, word, .. } => {
                prop_assert_eq!(awaited.take(), Some(*step), "an answer to nothing");
                if *word == (OnceWord::Run {}) {
                    granted.insert(*step);
                }
            }
            Event::Undecided { phase, step, .. } => {
                prop_assert!(undecided.replace((*phase, *step)).is_none(), "undecided twice");
            }
            Event::Decided { phase, step, action: DecisionAction::Skip, .. } => {
                undecided = undecided.filter(|it| it != &(*phase, *step));
                awaited = awaited.filter(|it| (Phase::Deploy, *it) != (*phase, *step));
            }
            Event::Decided { phase, step, .. } => {
                prop_assert_eq!(undecided.take(), Some((*phase, *step)), "a decision about nothing");
            }
            Event::Cancelling { .. } => awaited = None,
            Event::Started { attempt, .. } => {
                prop_assert!(undecided.is_none() && awaited.is_none(), "{} runs while it waits", attempt);
                if attempt.phase == Phase::Deploy && world.step(*attempt).once {
                    prop_assert!(granted.contains(&attempt.step), "{} runs unasked", attempt);
                }
            }
            Event::Accepted { .. }
            | Event::Staging { .. }
            | Event::Staged { .. }
            | Event::Skipped { .. }
            | Event::Spawned { .. }
            | Event::Finished { .. }
            | Event::Returning { .. }
            | Event::Confirming { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Ended { .. } => {}
        }
    }
    Ok(())
}

/// Good only once it is confirmed, and then for sure.
fn confirmation_is_kept(world: &World) -> Result<(), TestCaseError> {
    let has = |what: fn(&Event) -> bool| world.journal.iter().filter(|event| what(event)).count();
    let confirmed = has(|event| matches!(event, Event::Confirmed { .. }));
    let unconfirmed = has(|event| matches!(event, Event::Unconfirmed { .. }));
    prop_assert!(confirmed + unconfirmed <= 1);
    let Way::Deploy { confirm: Some(_), .. } = world.setting.way else { return Ok(()) };
    let succeeded = matches!(world.outcome(), Some(DeploymentOutcome::Succeeded { .. }));
    prop_assert_eq!(succeeded, confirmed == 1);
    prop_assert_eq!(world.pointers.is_some(), confirmed == 1);
    if unconfirmed == 1 {
        prop_assert!(!succeeded && world.pointers.is_none());
    }
    Ok(())
}

/// Every earlier step of the phase has ended, or was passed over on the way out.
fn in_order(
    world: &World,
    attempt: Attempt,
    settled: &BTreeMap<(Phase, u32), StepOutcome>,
) -> Result<(), TestCaseError> {
    let cleaning = world.step(attempt).always;
    for earlier in 0..attempt.step {
        let ended = settled.get(&(attempt.phase, earlier));
        match ended {
            Some(StepOutcome::Succeeded | StepOutcome::Skipped { .. }) => {}
            Some(StepOutcome::Failed { .. }) => {
                let tolerated =
                    world.steps(attempt.phase)[earlier as usize].if_fails == FailurePolicy::Continue;
                prop_assert!(cleaning || tolerated, "{} runs after a failure", attempt);
            }
            Some(StepOutcome::Unknown { .. } | StepOutcome::Cancelled) | None => {
                prop_assert!(cleaning, "{} runs before step {} has ended", attempt, earlier);
            }
        }
    }
    Ok(())
}

fn outcome_is_true(
    world: &World,
    settled: &BTreeMap<(Phase, u32), StepOutcome>,
) -> Result<(), TestCaseError> {
    let phase = if matches!(world.setting.way, Way::Return { .. }) { Phase::Return } else { Phase::Deploy };
    let good = world.setting.good.as_ref().map(|it| it.manifest);
    match world.outcome().unwrap() {
        DeploymentOutcome::Succeeded { tolerated } => {
            for (index, step) in (0u32..).zip(world.steps(phase)) {
                match settled.get(&(phase, index)) {
                    Some(StepOutcome::Succeeded) => {
                        let ran = world.effects.iter().any(|it| it.phase == phase && it.step == index);
                        let done = decided(world, phase, index, DecisionAction::Done) > 0;
                        prop_assert!(ran || done, "{} is said to have succeeded and never ran", step.name);
                    }
                    Some(StepOutcome::Skipped { .. }) => {}
                    Some(StepOutcome::Failed { .. }) => {
                        prop_assert!(tolerated.contains(&step.name.to_string()))
                    }
                    Some(StepOutcome::Unknown { .. } | StepOutcome::Cancelled) | None => {
                        prop_assert!(false, "{} was lost", step.name);
                    }
                }
            }
            prop_assert!(world.pointers.is_some() && world.current == Some(world.setting.digest));
        }
        DeploymentOutcome::Failed { .. } => {
            prop_assert_eq!(world.current, world.setting.current);
            prop_assert!(world.removed && world.pointers.is_none());
        }
        DeploymentOutcome::Returned { .. } => {
            prop_assert!(world.current == good && world.pointers.is_none());
        }
        DeploymentOutcome::Cancelled { .. } => {
            prop_assert!(world.current == world.setting.current && world.pointers.is_none());
        }
        DeploymentOutcome::Unknown { .. } => {
            let unknown = settled.values().any(|it| matches!(it, StepOutcome::Unknown { .. }));
            prop_assert!(unknown, "no step is unknown");
            prop_assert!(world.pointers.is_none());
        }
        DeploymentOutcome::Stopped { .. } => prop_assert!(world.pointers.is_none()),
        DeploymentOutcome::NoOp | DeploymentOutcome::Refused { .. } => {
            prop_assert!(false, "nothing here asks for that");
        }
    }
    Ok(())
}
