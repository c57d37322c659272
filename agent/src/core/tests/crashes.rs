//! The invariants (write-ahead, at most once, no lost step, order) over random plans, outcomes, cancels and crashes.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome},
    plan::{FailurePolicy, Phase, Retry, Step},
};
use proptest::prelude::*;

use super::world::{World, activate, check, deploy, failed, run, when};
use crate::core::{Verdict, Way};

fn any_step(index: usize) -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(run("x")), 1 => Just(check("x")), 1 => Just(activate())];
    let policy = prop_oneof![
        4 => Just(FailurePolicy::Return), 1 => Just(FailurePolicy::Stop), 1 => Just(FailurePolicy::Continue)
    ];
    let retry = prop_oneof![3 => Just(Retry::Never), 1 => (2u32..4).prop_map(Retry::Attempts)];
    (kind, policy, retry, prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.2))
        .prop_map(move |(mut step, policy, retry, always, condition, both)| {
            step.name = format!("s{index}").parse().unwrap();
            step.if_fails = policy;
            step.retry = retry;
            step.always = always;
            step.when = condition.then(|| when("first_deploy"));
            if both {
                step.on = vec![Phase::Deploy, Phase::Return];
            }
            step
        })
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    (0usize..7).prop_flat_map(|count| (0..count).map(any_step).collect::<Vec<_>>())
}

type Scripts = BTreeMap<(Phase, u32), Vec<StepOutcome>>;

fn any_script() -> impl Strategy<Value = Scripts> {
    let phase = prop_oneof![3 => Just(Phase::Deploy), 1 => Just(Phase::Return)];
    let unknown = StepOutcome::Unknown { because: "nobody knows".into() };
    let outcome = prop_oneof![
        6 => Just(failed()), 2 => Just(StepOutcome::Succeeded), 1 => Just(unknown), 1 => Just(StepOutcome::Cancelled)
    ];
    prop::collection::btree_map((phase, 0u32..7), prop::collection::vec(outcome, 1..4), 0..4)
}

fn any_verdicts() -> impl Strategy<Value = BTreeMap<(Phase, u32), Verdict>> {
    let phase = prop_oneof![Just(Phase::Deploy), Just(Phase::Return)];
    let verdict = prop_oneof![
        3 => Just(Verdict::Skip { expression: "first_deploy".into(), inputs: BTreeMap::new() }),
        1 => Just(Verdict::Invalid { message: "no".into() })
    ];
    prop::collection::btree_map((phase, 0u32..7), verdict, 0..3)
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    restored: Vec<Step>,
    script: Scripts,
    verdicts: BTreeMap<(Phase, u32), Verdict>,
    rollback: bool,
    good: bool,
    /// After how many ticks the agent dies, counted from the last death; and whether the supervisor dies with it.
    crashes: Vec<(usize, bool)>,
    cancel: Option<usize>,
    /// The files of what is returned to are damaged.
    damaged: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let crashes = prop::collection::vec((0usize..40, prop::bool::weighted(0.2)), 0..6);
    (
        any_steps(),
        any_steps(),
        any_script(),
        any_verdicts(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.8),
        crashes,
        prop::option::weighted(0.3, 0usize..60),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(steps, restored, script, verdicts, rollback, good, crashes, cancel, damaged)| Case {
            steps,
            restored,
            script,
            verdicts,
            rollback,
            good,
            crashes,
            cancel,
            damaged,
        })
}

fn world(case: &Case) -> World {
    let mut setting = deploy(case.steps.clone());
    if case.rollback {
        setting.digest = setting.before.as_ref().unwrap().manifest;
        setting.way = Way::Return { because: "order".into() };
    } else if !case.good {
        (setting.good, setting.before, setting.current) = (None, None, None);
    }
    let mut world = World::new(setting);
    world.restored = if case.damaged { Err("damaged".into()) } else { Ok(case.restored.clone()) };
    world.verdicts = case.verdicts.clone();
    world.script =
        case.script.iter().map(|(at, outcomes)| (*at, outcomes.iter().cloned().collect())).collect();
    world
}

fn play(case: &Case) -> World {
    let mut world = world(case);
    let mut crashes = case.crashes.iter();
    let mut next = crashes.next();
    let (mut since, mut total) = (0, 0);
    loop {
        if case.cancel == Some(total) {
            world.cancel();
        }
        if let Some((after, lose)) = next
            && since >= *after
        {
            world.lost = *lose;
            world.crash();
            (since, next) = (0, crashes.next());
        }
        if !world.tick() && next.is_none() {
            return world;
        }
        (since, total) = (since + 1, total + 1);
        assert!(total < 5000, "never ends");
    }
}

fn check_invariants(world: &World) -> Result<(), TestCaseError> {
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
                prop_assert!(runs <= 1, "step {} may run once and ran {} times", step.name, runs);
            }
        }
    }
    outcome_is_true(world, &settled)
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
                        prop_assert!(ran, "{} is said to have succeeded and never ran", step.name);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_breaks_what_is_promised(case in any_case()) {
        check_invariants(&play(&case))?;
    }

    /// A crash after which the supervisor still answers changes nothing that a user can see, if every step is a process.
    #[test]
    fn a_run_with_crashes_comes_to_the_same_end(mut case in any_case()) {
        case.cancel = None;
        for step in case.steps.iter_mut().chain(&mut case.restored) {
            if step.kind == check("x").kind {
                step.kind = run("x").kind;
            }
        }
        case.script.retain(|(phase, step), _| {
            let steps = if *phase == Phase::Deploy { &case.steps } else { &case.restored };
            steps.get(*step as usize).is_some_and(|step| step.kind.is_process())
        });
        case.crashes.iter_mut().for_each(|crash| crash.1 = false);
        let crashed = play(&case);
        let smooth = play(&Case { crashes: Vec::new(), ..case });
        prop_assert_eq!(crashed.outcome(), smooth.outcome());
        prop_assert_eq!(crashed.current, smooth.current);
    }
}

/// Every single crash point of a deployment that returns, one by one, and every pair.
#[test]
fn every_crash_point_of_a_return() {
    let steps = vec![run("migrate"), activate(), check("healthy"), run("announce")];
    let case = |crashes: Vec<(usize, bool)>| Case {
        steps: steps.clone(),
        restored: vec![activate(), check("restart")],
        script: BTreeMap::from([((Phase::Deploy, 3), vec![failed()])]),
        verdicts: BTreeMap::new(),
        rollback: false,
        good: true,
        crashes,
        cancel: None,
        damaged: false,
    };
    let mut points = 0;
    for first in 0..60 {
        for second in 0..60 {
            let world = play(&case(vec![(first, false), (second, false)]));
            check_invariants(&world).unwrap_or_else(|error| panic!("crashes at {first}, {second}: {error}"));
            assert!(matches!(world.outcome(), Some(DeploymentOutcome::Returned { .. })), "{first} {second}");
            points += 1;
        }
    }
    println!("{points} pairs of crash points");
}
