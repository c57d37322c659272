//! What a run waits for, and what each answer comes to.

use std::time::Duration;

use consign_common::{
    deployment::{DeploymentOutcome, Event, Failure, StepOutcome},
    plan::{FailurePolicy, Phase, Retry, Step},
    trust::{DecisionAction, Foreseen, OnceWord},
};

use super::{
    rules::effects,
    world::{BOOT_MS, Word, World, activate, check, deploy, failed, id, installed, run, when},
};
use crate::core::{Input, Misfit, Setting, Verdict, Waiting, Way};

fn once() -> Step {
    let mut step = run("migrate");
    step.once = true;
    step
}

fn succeeded() -> DeploymentOutcome {
    DeploymentOutcome::Succeeded { tolerated: vec![] }
}

fn decide(step: &str, action: DecisionAction) -> Input {
    Input::Decide { order: id(50), step: step.parse().unwrap(), action, reason: "looked".into() }
}

fn to_confirm(steps: Vec<Step>) -> Setting {
    let mut setting = deploy(steps);
    let Way::Deploy { confirm, .. } = &mut setting.way else { unreachable!() };
    *confirm = Some(Duration::from_secs(300));
    setting
}

/// `migrate` of unknown outcome, then `activate`.
fn undecided(word: DecisionAction) -> World {
    let unknown = StepOutcome::Unknown { because: "lost".into() };
    let mut world = World::new(deploy(vec![run("migrate"), activate()])).script(Phase::Deploy, 0, &[unknown]);
    world.words.push_back(Word::decide(word));
    world
}

#[test]
fn a_once_step_asks_and_does_what_it_is_told() {
    let steps = || vec![once(), activate()];
    let mut world = World::new(deploy(steps()));
    assert_eq!(world.settle(), Some(Waiting::Once { step: 0 }));
    assert!(world.effects.is_empty());
    world.words.push_back(Word::once(OnceWord::Run {}));
    assert_eq!(world.finish(), succeeded());
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1"]);

    let server = || "web-2".parse().unwrap();
    let mut world = World::new(deploy(steps()));
    world.words.push_back(Word::once(OnceWord::Done { server: server() }));
    assert_eq!(world.finish(), succeeded());
    assert_eq!(effects(&world), ["deploy-1-1"]);
    let (expression, inputs) = StepOutcome::ran_on(&server());
    assert!(world.journal.contains(&Event::Skipped { phase: Phase::Deploy, step: 0, expression, inputs }));

    for (policy, outcome) in [
        (FailurePolicy::Continue, DeploymentOutcome::Succeeded { tolerated: vec!["migrate".into()] }),
        (
            FailurePolicy::Return,
            DeploymentOutcome::Failed {
                because: "step migrate failed: it failed on web-2: exit code 2".into(),
            },
        ),
    ] {
        let mut steps = steps();
        (steps[0].if_fails, steps[0].retry) = (policy, Retry::Attempts(3));
        let mut world = World::new(deploy(steps));
        let because = "exit code 2".into();
        world.words.push_back(Word::once(OnceWord::Failed { server: server(), because }));
        assert_eq!(world.finish(), outcome);
        assert!(!effects(&world).contains(&"deploy-0-1".to_owned()));
    }
}

#[test]
fn a_once_step_whose_condition_is_false_asks_nobody() {
    let mut step = once();
    step.when = Some(when("first_deploy"));
    let mut world = World::new(deploy(vec![step.clone(), activate()]));
    let skip = Verdict::Skip { expression: "first_deploy".into(), inputs: Default::default() };
    world.verdicts.insert((Phase::Deploy, 0), skip);
    assert_eq!(world.finish(), succeeded());
    assert!(!world.journal.iter().any(|event| matches!(event, Event::Awaiting { .. })));

    let mut world = World::new(deploy(vec![step, activate()]));
    assert_eq!(world.settle(), Some(Waiting::Once { step: 0 }));
    world.crash();
    assert_eq!(world.settle(), Some(Waiting::Once { step: 0 }), "and waits on in its next life");
    world.cancel();
    assert_eq!(world.finish(), DeploymentOutcome::Cancelled { because: "told so".into() });
    assert!(world.removed && world.effects.is_empty());
}

#[test]
fn the_one_that_runs_a_once_step_retries_it_without_asking_again() {
    let mut step = once();
    step.retry = Retry::Attempts(2);
    let mut world = World::new(deploy(vec![step, activate()])).script(Phase::Deploy, 0, &[failed()]);
    world.words.push_back(Word::once(OnceWord::Run {}));
    assert_eq!(world.finish(), succeeded());
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-0-2", "deploy-1-1"]);
}

#[test]
fn an_unknown_outcome_is_what_an_operator_says() {
    let mut world = undecided(DecisionAction::Done);
    assert_eq!(world.finish(), succeeded());
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1"]);

    let mut world = undecided(DecisionAction::Again);
    assert_eq!(world.finish(), succeeded());
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-0-2", "deploy-1-1"]);

    let mut world = undecided(DecisionAction::Skip);
    assert_eq!(world.finish(), succeeded());
    let (expression, inputs) = StepOutcome::left_out("looked");
    assert!(world.journal.contains(&Event::Skipped { phase: Phase::Deploy, step: 0, expression, inputs }));

    let mut world = undecided(DecisionAction::Failed);
    let DeploymentOutcome::Failed { because } = world.finish() else { panic!("not failed") };
    assert!(because.contains("migrate") && because.contains("looked"), "{because}");
    assert!(world.removed && world.pointers.is_none());
}

#[test]
fn a_decision_that_fits_nothing_has_a_name_and_changes_nothing() {
    let unknown = StepOutcome::Unknown { because: "lost".into() };
    let steps = vec![run("first"), run("migrate"), activate(), check("healthy")];
    let mut world = World::new(deploy(steps)).script(Phase::Deploy, 1, &[unknown]);
    assert_eq!(world.settle(), Some(Waiting::Decision { phase: Phase::Deploy, step: 1 }));
    let before = world.journal.clone();
    for (step, action, code) in [
        ("nothing", DecisionAction::Skip, "step-unknown"),
        ("nothing", DecisionAction::Done, "step-unknown"),
        ("first", DecisionAction::Skip, "step-begun"),
        ("first", DecisionAction::Again, "not-undecided"),
        ("healthy", DecisionAction::Done, "not-undecided"),
        ("activate", DecisionAction::Skip, "not-skippable"),
    ] {
        let input = decide(step, action);
        assert_eq!(world.machine().fits(&input).unwrap_err().code(), code, "{step} {action:?}");
        world.tell(input);
        world.settle();
    }
    assert_eq!(world.machine().fits(&Input::Confirm { order: id(51) }), Err(Misfit::NotConfirming));
    let word = OnceWord::Run {};
    let early = Input::Once { order: id(52), step: "migrate".parse().unwrap(), word };
    assert_eq!(world.machine().fits(&early).unwrap_err().code(), "not-awaiting");
    assert_eq!(world.journal, before);
    // A step that has not begun may be left out also now; it is skipped when its turn comes.
    world.tell(decide("healthy", DecisionAction::Skip));
    assert_eq!(world.settle(), Some(Waiting::Decision { phase: Phase::Deploy, step: 1 }));
    world.words.push_back(Word::decide(DecisionAction::Done));
    assert_eq!(world.finish(), succeeded());
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1", "deploy-2-1"]);
}

#[test]
fn an_undecided_deployment_is_given_up_by_a_cancel_or_another_order() {
    let unknown = DeploymentOutcome::Unknown { step: "migrate".into(), because: "lost".into() };
    for end in [Input::GiveUp, Input::Cancel { order: id(9), because: "enough".into() }] {
        let mut clean = run("clean");
        clean.always = true;
        let lost = StepOutcome::Unknown { because: "lost".into() };
        let steps = vec![run("migrate"), activate(), clean];
        let mut world = World::new(deploy(steps)).script(Phase::Deploy, 0, &[lost]);
        assert!(matches!(world.settle(), Some(Waiting::Decision { .. })));
        world.crash();
        world.settle();
        world.tell(end);
        assert_eq!(world.finish(), unknown);
        assert_eq!(effects(&world), ["deploy-0-1"], "no step runs, not even an `always` one");
    }
    let mut world = World::new(deploy(vec![once(), activate()]));
    world.settle();
    assert_eq!(world.machine().fits(&Input::GiveUp), Err(Misfit::GoesOn));
}

#[test]
fn also_the_way_back_waits_for_a_decision() {
    let lost = StepOutcome::Unknown { because: "lost".into() };
    let mut restart = run("restart");
    restart.on = vec![Phase::Deploy, Phase::Return];
    for (word, expected) in [(DecisionAction::Done, "returned"), (DecisionAction::Failed, "stopped")] {
        let mut world = World::new(deploy(vec![activate(), check("healthy")]))
            .script(Phase::Deploy, 1, &[failed()])
            .script(Phase::Return, 1, std::slice::from_ref(&lost));
        world.restored = Ok(vec![activate(), restart.clone()]);
        assert_eq!(world.settle(), Some(Waiting::Decision { phase: Phase::Return, step: 1 }));
        world.crash();
        assert!(world.machine().is_catching_up(), "its plan is not known before its files were hashed again");
        world.words.push_back(Word::decide(word));
        assert_eq!(world.finish().as_str(), expected);
    }
}

#[test]
fn steps_that_the_order_leaves_out_are_skipped() {
    let mut setting = deploy(vec![run("migrate"), activate(), check("healthy")]);
    setting.skips = vec!["migrate".parse().unwrap()];
    let mut world = World::new(setting).script(Phase::Deploy, 2, &[failed()]);
    world.restored = Ok(vec![activate(), check("migrate")]);
    assert!(matches!(world.finish(), DeploymentOutcome::Returned { .. }));
    let all = ["deploy-1-1", "deploy-2-1", "return-0-1", "return-1-1"];
    assert_eq!(effects(&world), all, "it does not speak of the way back");
}

#[test]
fn a_condition_that_comes_out_otherwise_than_pinned_fails_whatever_the_plan_says() {
    for (foreseen, verdict) in [
        (Foreseen::Skip, Verdict::Run),
        (Foreseen::Run, Verdict::Skip { expression: "first_deploy".into(), inputs: Default::default() }),
    ] {
        let mut step = run("migrate");
        step.when = Some(when("first_deploy"));
        (step.if_fails, step.retry) = (FailurePolicy::Continue, Retry::Attempts(3));
        let mut setting = deploy(vec![step, activate()]);
        let Way::Deploy { pinned, .. } = &mut setting.way else { unreachable!() };
        pinned.insert("migrate".parse().unwrap(), foreseen);
        let mut world = World::new(setting);
        world.verdicts.insert((Phase::Deploy, 0), verdict);
        let DeploymentOutcome::Failed { because } = world.finish() else { panic!("not failed") };
        assert!(because.contains("plan-drift"), "{because}");
        assert!(world.effects.is_empty());
        let drift = |event: &Event| {
            let Event::Finished { result: StepOutcome::Failed { failure }, .. } = event else { return false };
            matches!(failure, Failure::PlanDrift { .. })
        };
        assert!(world.journal.iter().any(drift));
    }
}

#[test]
fn where_nothing_was_to_be_done_no_step_runs_or_asks_and_doing_nothing_is_no_drift() {
    let pinned = |first: Step| {
        let mut setting = deploy(vec![first, activate()]);
        let Way::Deploy { pinned, steps, .. } = &mut setting.way else { unreachable!() };
        pinned.extend(steps.iter().map(|step| (step.name.clone(), Foreseen::Skip)));
        setting
    };
    for first in [run("migrate"), once()] {
        let mut world = World::new(pinned(first.clone()));
        let DeploymentOutcome::Failed { because } = world.finish() else { panic!("not failed") };
        assert!(because.contains("plan-drift") && because.contains("migrate"), "{because}");
        assert!(world.effects.is_empty() && world.removed);
        assert!(!world.journal.iter().any(|event| matches!(event, Event::Awaiting { .. })));

        let mut setting = pinned(first);
        setting.good = Some(installed("2.0.0"));
        setting.current = Some(setting.digest);
        assert_eq!(World::new(setting).finish(), DeploymentOutcome::NoOp);
    }
}

#[test]
fn a_success_is_good_only_once_it_is_confirmed() {
    let mut world = World::new(to_confirm(vec![activate(), check("healthy")]));
    let deadline_boot_ms = BOOT_MS + 300_000;
    assert_eq!(world.settle(), Some(Waiting::Confirmation { deadline_boot_ms }));
    assert!(world.pointers.is_none());
    world.crash();
    assert_eq!(world.settle(), Some(Waiting::Confirmation { deadline_boot_ms }), "the same deadline");
    world.tell(Input::Confirm { order: id(30) });
    assert_eq!(world.finish(), succeeded());
    assert!(world.pointers.is_some());
    world.tell(Input::ConfirmExpired);
    assert_eq!(world.finish(), succeeded(), "the timer comes too late");
}

#[test]
fn what_is_not_confirmed_in_time_or_in_this_boot_returns() {
    type Act = fn(&mut World);
    let acts: [(Act, &str); 3] = [
        (|world| world.tell(Input::ConfirmExpired), "returned"),
        (World::reboot, "returned"),
        (World::cancel, "cancelled"),
    ];
    for (act, outcome) in acts {
        let mut world = World::new(to_confirm(vec![activate(), check("healthy")]));
        assert!(matches!(world.settle(), Some(Waiting::Confirmation { .. })));
        act(&mut world);
        assert_eq!(world.finish().as_str(), outcome);
        assert_eq!(world.current, Some(installed("1.0.0").manifest));
        assert!(world.pointers.is_none());
        assert_eq!(world.machine().fits(&Input::Confirm { order: id(30) }), Err(Misfit::NotConfirming));
    }
}

#[test]
fn what_runs_already_needs_no_confirmation() {
    let mut setting = to_confirm(vec![activate()]);
    setting.good = Some(installed("2.0.0"));
    setting.current = Some(setting.digest);
    assert_eq!(World::new(setting).finish(), DeploymentOutcome::NoOp);
}
