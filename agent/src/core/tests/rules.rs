//! The rules, one by one.

use consign_common::{
    deployment::{DeploymentOutcome, Event, StepOutcome},
    plan::{FailurePolicy, Phase, Retry},
};

use super::world::{World, activate, check, deploy, failed, finished, installed, run, when};
use crate::core::{Input, Verdict, Waiting, Way};

pub(super) fn effects(world: &World) -> Vec<String> {
    world.effects.iter().map(ToString::to_string).collect()
}

fn rollback() -> World {
    let mut setting = deploy(Vec::new());
    let before = setting.before.clone().unwrap();
    setting.digest = before.manifest;
    setting.version = before.version;
    setting.way = Way::Return { because: "looks bad".into() };
    World::new(setting)
}

#[test]
fn a_success_runs_all_steps_in_order_and_moves_the_pointers() {
    let mut world = World::new(deploy(vec![run("migrate"), activate(), check("healthy")]));
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1", "deploy-2-1"]);
    let pointers = world.pointers.clone().unwrap();
    assert_eq!(pointers.good.map(|it| it.version.to_string()).as_deref(), Some("2.0.0"));
    assert_eq!(pointers.before, Some(installed("1.0.0")));
    assert!(world.pruned && !world.removed);
}

#[test]
fn what_runs_already_is_left_alone_unless_forced() {
    let mut setting = deploy(vec![activate()]);
    setting.good = Some(installed("2.0.0"));
    setting.current = Some(setting.digest);
    let mut world = World::new(setting.clone());
    assert_eq!(world.finish(), DeploymentOutcome::NoOp);
    assert!(world.effects.is_empty() && world.pointers.is_none());

    let Way::Deploy { force, .. } = &mut setting.way else { unreachable!() };
    *force = true;
    let mut world = World::new(setting);
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(
        world.pointers.unwrap().before,
        Some(installed("0.9.0")),
        "the same artifact again is no step away from `before`"
    );
}

#[test]
fn a_failure_before_activate_touches_nothing_but_always_steps() {
    let mut clean = run("clean");
    clean.always = true;
    let mut world = World::new(deploy(vec![run("migrate"), activate(), run("warm"), clean])).script(
        Phase::Deploy,
        0,
        &[failed()],
    );
    let outcome = world.finish();
    assert_eq!(outcome, DeploymentOutcome::Failed { because: "step migrate failed: exit code 1".into() });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-3-1"]);
    assert!(world.removed && world.pointers.is_none());
    assert_eq!(world.current, world.setting.current);
}

#[test]
fn a_failure_never_removes_a_release_that_something_points_at() {
    let mut setting = deploy(vec![run("migrate"), activate()]);
    setting.current = Some(setting.digest);
    let mut world = World::new(setting).script(Phase::Deploy, 0, &[failed()]);
    assert!(matches!(world.finish(), DeploymentOutcome::Failed { .. }));
    assert!(!world.removed);
}

#[test]
fn a_failure_after_activate_returns_by_the_good_artifacts_own_plan() {
    let mut world =
        World::new(deploy(vec![activate(), check("healthy")])).script(Phase::Deploy, 1, &[failed()]);
    world.restored = Ok(vec![run("migrate"), activate(), check("restart")]);
    let outcome = world.finish();
    assert_eq!(outcome, DeploymentOutcome::Returned { because: "step healthy failed: exit code 1".into() });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1", "return-1-1", "return-2-1"]);
    assert_eq!(world.current, Some(installed("1.0.0").manifest));
    assert!(world.pointers.is_none() && !world.removed);
    let skipped = world.journal.iter().find_map(|event| {
        let Event::Skipped { phase: Phase::Return, step: 0, expression, inputs } = event else { return None };
        Some((expression.clone(), inputs.clone()))
    });
    let (expression, inputs) = skipped.expect("the skipped migration is recorded");
    assert_eq!(expression, "phase in ['deploy']");
    assert_eq!(inputs.get("phase").map(String::as_str), Some("return"));
}

#[test]
fn without_a_good_artifact_a_failure_after_activate_stops_and_says_so() {
    let mut setting = deploy(vec![activate(), check("healthy")]);
    (setting.good, setting.before, setting.current) = (None, None, None);
    let mut world = World::new(setting).script(Phase::Deploy, 1, &[failed()]);
    let DeploymentOutcome::Stopped { because } = world.finish() else { panic!("not stopped") };
    assert!(because.contains("healthy") && because.contains("no earlier good artifact"), "{because}");
}

#[test]
fn a_return_that_fails_or_cannot_begin_stops() {
    let steps = vec![activate(), check("healthy")];
    let mut world = World::new(deploy(steps.clone())).script(Phase::Deploy, 1, &[failed()]).script(
        Phase::Return,
        1,
        &[failed()],
    );
    let DeploymentOutcome::Stopped { because } = world.finish() else { panic!("not stopped") };
    assert!(because.contains("healthy") && because.contains("restart"), "{because}");

    let mut world = World::new(deploy(steps)).script(Phase::Deploy, 1, &[failed()]);
    world.restored = Err("bin/shop is missing".into());
    let DeploymentOutcome::Stopped { because } = world.finish() else { panic!("not stopped") };
    assert!(because.contains("1.0.0") && because.contains("bin/shop is missing"), "{because}");
}

#[test]
fn a_return_that_cannot_go_on_after_a_crash_first_ends_what_runs() {
    let mut restart = run("restart");
    restart.on = vec![Phase::Return];
    let mut world =
        World::new(deploy(vec![activate(), check("healthy")])).script(Phase::Deploy, 1, &[failed()]);
    world.restored = Ok(vec![activate(), restart]);
    world.until_started("return-1-1");
    world.crash();
    world.restored = Err("its files are damaged".into());
    world.settle();
    let attempt = "return-1-1".parse().unwrap();
    assert!(world.cancelled.contains(&attempt));
    assert_eq!(world.outcome(), None, "nothing has ended while a process of it runs");
    world.tell(finished(attempt, StepOutcome::Cancelled));
    assert_eq!(world.finish().as_str(), "stopped");
    assert!(world.effects.iter().all(|it| *it != attempt), "nothing is released any more");
}

#[test]
fn retry_and_if_fails_decide() {
    let mut flaky = run("flaky");
    flaky.retry = Retry::Attempts(3);
    let mut world =
        World::new(deploy(vec![flaky.clone(), activate()])).script(Phase::Deploy, 0, &[failed(), failed()]);
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-0-2", "deploy-0-3", "deploy-1-1"]);

    flaky.if_fails = FailurePolicy::Continue;
    let three = [failed(), failed(), failed()];
    let mut world = World::new(deploy(vec![flaky, activate()])).script(Phase::Deploy, 0, &three);
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec!["flaky".into()] });

    let mut last = check("healthy");
    last.if_fails = FailurePolicy::Stop;
    let mut world = World::new(deploy(vec![activate(), last])).script(Phase::Deploy, 1, &[failed()]);
    assert!(matches!(world.finish(), DeploymentOutcome::Stopped { .. }));
    assert_eq!(world.current, Some(world.setting.digest), "told to stop where it is");
}

#[test]
fn nothing_is_called_done_that_never_became_current() {
    let mut careless = activate();
    careless.if_fails = FailurePolicy::Continue;
    let mut world = World::new(deploy(vec![careless.clone()])).script(Phase::Deploy, 0, &[failed()]);
    assert!(matches!(world.finish(), DeploymentOutcome::Failed { .. }));

    let mut world = World::new(deploy(vec![run("migrate")]));
    let DeploymentOutcome::Failed { because } = world.finish() else { panic!("not failed") };
    assert!(because.contains("never became current") && world.removed, "{because}");

    for restored in [vec![careless], vec![check("restart")]] {
        let mut world = World::new(deploy(vec![activate(), check("healthy")]))
            .script(Phase::Deploy, 1, &[failed()])
            .script(Phase::Return, 0, &[failed()]);
        world.restored = Ok(restored);
        assert!(matches!(world.finish(), DeploymentOutcome::Stopped { .. }));
    }
    let mut world =
        World::new(deploy(vec![activate(), check("healthy")])).script(Phase::Deploy, 1, &[failed()]);
    world.restored = Ok(vec![check("restart")]);
    let DeploymentOutcome::Stopped { because } = world.finish() else { panic!("not stopped") };
    assert!(because.contains("was not switched back"), "{because}");
}

#[test]
fn conditions_skip_or_fail_a_step_before_anything_starts() {
    let mut migrate = run("migrate");
    migrate.when = Some(when("changed('migrations/**')"));
    let mut world = World::new(deploy(vec![migrate.clone(), activate()]));
    let skip = Verdict::Skip { expression: "changed('migrations/**')".into(), inputs: Default::default() };
    world.verdicts.insert((Phase::Deploy, 0), skip);
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-1-1"]);

    migrate.retry = Retry::Attempts(5);
    let mut world = World::new(deploy(vec![migrate, activate()]));
    world.verdicts.insert((Phase::Deploy, 0), Verdict::Invalid { message: "overflow".into() });
    let DeploymentOutcome::Failed { because } = world.finish() else { panic!("not failed") };
    assert!(because.contains("overflow"), "{because}");
    assert!(world.effects.is_empty());
}

#[test]
fn refused_staging_ends_with_the_refusals_name() {
    let mut world = World::new(deploy(vec![activate()]));
    let (code, message) = ("disk-full".to_owned(), "needs 10 bytes".to_owned());
    world.staging = Some(Input::StagingFailed { code: code.clone(), message: message.clone() });
    assert_eq!(world.finish(), DeploymentOutcome::Refused { code, message });
}

#[test]
fn an_unknown_outcome_runs_again_only_where_that_does_no_harm() {
    let unknown = StepOutcome::Unknown { because: "lost".into() };
    let mut world = World::new(deploy(vec![run("migrate"), activate()])).script(
        Phase::Deploy,
        0,
        std::slice::from_ref(&unknown),
    );
    assert_eq!(world.settle(), Some(Waiting::Decision { phase: Phase::Deploy, step: 0 }));
    assert_eq!(effects(&world), ["deploy-0-1"]);

    let mut again = run("migrate");
    again.retry = Retry::Attempts(2);
    let mut world = World::new(deploy(vec![again, activate()])).script(Phase::Deploy, 0, &[unknown]);
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-0-2", "deploy-1-1"]);
}

#[test]
fn after_a_crash_the_supervisor_is_asked_and_nothing_runs_twice() {
    let steps = vec![run("migrate"), activate()];
    // It ran while the agent was away.
    let mut world = World::new(deploy(steps.clone()));
    world.until_started("deploy-0-1");
    world.tick();
    world.crash();
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1"]);
    // It never began: the very same attempt begins now.
    let mut world = World::new(deploy(steps.clone()));
    world.until_started("deploy-0-1");
    world.crash();
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1"]);
    // Nobody knows.
    let mut world = World::new(deploy(steps));
    world.until_started("deploy-0-1");
    world.crash();
    world.lost = true;
    assert!(matches!(world.settle(), Some(Waiting::Decision { .. })));
    assert!(world.effects.is_empty());
}

#[test]
fn a_cancel_ends_the_attempt_and_puts_things_back() {
    let mut clean = run("clean");
    clean.always = true;
    let mut world = World::new(deploy(vec![run("migrate"), activate(), clean.clone()]));
    world.until_started("deploy-0-1");
    world.script.insert((Phase::Deploy, 0), [StepOutcome::Cancelled].into());
    world.cancel();
    let outcome = world.finish();
    assert_eq!(outcome, DeploymentOutcome::Cancelled { because: "told so".into() });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-2-1"]);
    assert!(world.removed);

    let mut world = World::new(deploy(vec![activate(), run("warm"), check("healthy")]));
    world.until_started("deploy-1-1");
    world.cancel();
    let outcome = world.finish();
    assert_eq!(outcome, DeploymentOutcome::Cancelled { because: "told so".into() });
    assert_eq!(world.current, Some(installed("1.0.0").manifest));
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1", "return-0-1", "return-1-1"]);
}

#[test]
fn a_cancel_that_comes_before_there_is_a_process_reaches_it_all_the_same() {
    let mut world = World::new(deploy(vec![run("migrate"), activate()]));
    world.cancel_while_created("deploy-0-1");
    world.script.insert((Phase::Deploy, 0), [StepOutcome::Cancelled].into());
    assert!(matches!(world.finish(), DeploymentOutcome::Cancelled { .. }));
    assert!(world.cancelled.contains(&"deploy-0-1".parse().unwrap()), "{:?}", world.journal);
}

#[test]
fn a_cancel_that_comes_twice_is_taken_once() {
    let mut world = World::new(deploy(vec![run("migrate"), activate()]));
    world.until_started("deploy-0-1");
    world.cancel();
    world.tick();
    world.tick();
    world.crash();
    world.cancel();
    world.cancel();
    assert!(matches!(world.finish(), DeploymentOutcome::Cancelled { .. }));
    let taken = world.journal.iter().filter(|event| matches!(event, Event::Cancelling { .. })).count();
    assert_eq!(taken, 1);
}

#[test]
fn a_cancel_while_staging_leaves_nothing() {
    let mut world = World::new(deploy(vec![activate()]));
    // The order is accepted and staging was asked for; its answer has not come.
    while world.journal.is_empty() {
        world.tick();
    }
    world.cancel();
    world.staging = Some(Input::StagingCancelled);
    assert_eq!(world.finish(), DeploymentOutcome::Cancelled { because: "told so".into() });
    assert!(world.effects.is_empty());
}

#[test]
fn a_cancel_of_a_return_that_runs_by_itself_changes_nothing() {
    let mut world =
        World::new(deploy(vec![activate(), check("healthy")])).script(Phase::Deploy, 1, &[failed()]);
    world.until_started("return-0-1");
    world.cancel();
    assert!(matches!(world.finish(), DeploymentOutcome::Returned { .. }));
    assert!(world.cancelled.is_empty());
}

#[test]
fn a_rollback_swaps_to_before_and_clears_it() {
    let mut world = rollback();
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["return-0-1", "return-1-1"]);
    let pointers = world.pointers.clone().unwrap();
    assert_eq!(pointers.good, Some(installed("0.9.0")));
    assert_eq!((pointers.before, pointers.succeeded), (None, None));

    let mut world = rollback().script(Phase::Return, 0, &[failed()]);
    assert!(matches!(world.finish(), DeploymentOutcome::Stopped { .. }));
    assert!(world.pointers.is_none());
}

#[test]
fn a_cancelled_rollback_is_cancelled_only_while_nothing_is_switched() {
    let mut world = rollback();
    world.restored = Ok(vec![check("wait"), activate(), check("restart")]);
    world.until_started("return-0-1");
    world.cancel();
    assert!(matches!(world.finish(), DeploymentOutcome::Cancelled { .. }));

    let mut world = rollback();
    world.until_started("return-1-1");
    world.cancel();
    assert!(matches!(world.finish(), DeploymentOutcome::Stopped { .. }));
}

#[test]
fn a_late_word_is_ignored() {
    let mut world = World::new(deploy(vec![run("migrate"), activate()]));
    world.until_started("deploy-0-1");
    world.tell(finished("deploy-1-1".parse().unwrap(), failed()));
    world.tell(Input::NeverBegan { attempt: "deploy-0-2".parse().unwrap() });
    assert_eq!(world.finish(), DeploymentOutcome::Succeeded { tolerated: vec![] });
    assert_eq!(effects(&world), ["deploy-0-1", "deploy-1-1"]);
}
