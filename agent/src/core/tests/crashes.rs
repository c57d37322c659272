//! The invariants (write-ahead, at most once, no lost step, order) over random plans, outcomes, cancels and crashes.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    deployment::{DeploymentOutcome, StepOutcome},
    name::StepName,
    plan::{FailurePolicy, Phase, Retry, Step},
    trust::{DecisionAction, Foreseen, OnceWord},
};
use proptest::prelude::*;

use super::{
    invariants::check_invariants,
    world::{Word, World, activate, check, deploy, failed, id, run, when},
};
use crate::core::{Input, Verdict, Waiting, Way};

fn any_step(index: usize) -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(run("x")), 1 => Just(check("x")), 1 => Just(activate())];
    let policy = prop_oneof![
        4 => Just(FailurePolicy::Return), 1 => Just(FailurePolicy::Stop), 1 => Just(FailurePolicy::Continue)
    ];
    let retry = prop_oneof![3 => Just(Retry::Never), 1 => (2u32..4).prop_map(Retry::Attempts)];
    let flag = prop::bool::weighted;
    (kind, policy, retry, flag(0.2), flag(0.3), flag(0.2), flag(0.2)).prop_map(
        move |(mut step, policy, retry, always, condition, both, once)| {
            step.name = format!("s{index}").parse().unwrap();
            step.if_fails = policy;
            step.retry = retry;
            step.always = always;
            step.when = condition.then(|| when("first_deploy"));
            if both {
                step.on = vec![Phase::Deploy, Phase::Return];
            }
            step.once = once && step.kind.is_process() && !always && !both;
            step
        },
    )
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

fn any_words() -> impl Strategy<Value = Vec<Word>> {
    let server = "web-2".parse().unwrap();
    let once = prop_oneof![
        2 => Just(OnceWord::Run {}),
        1 => Just(OnceWord::Done { server: "web-2".parse().unwrap() }),
        1 => Just(OnceWord::Failed { server, because: "exit code 2".into() })
    ];
    let decision = prop_oneof![
        Just(DecisionAction::Skip),
        Just(DecisionAction::Done),
        Just(DecisionAction::Failed),
        Just(DecisionAction::Again)
    ];
    let word = (once, decision, prop::bool::weighted(0.6)).prop_map(|(once, decision, confirmed)| Word {
        once,
        decision,
        confirmed,
    });
    prop::collection::vec(word, 0..8)
}

fn step_name(index: usize) -> StepName {
    format!("s{index}").parse().unwrap()
}

fn any_pins() -> impl Strategy<Value = BTreeMap<StepName, Foreseen>> {
    let foreseen = prop_oneof![3 => Just(Foreseen::Run), 1 => Just(Foreseen::Skip)];
    prop::collection::btree_map((0usize..7).prop_map(step_name), foreseen, 0..3)
}

/// What operators say of the deployment.
#[derive(Clone, Debug)]
struct Will {
    words: Vec<Word>,
    skips: Vec<StepName>,
    pinned: BTreeMap<StepName, Foreseen>,
    confirm: Option<Duration>,
}

fn any_will() -> impl Strategy<Value = Will> {
    let skips = prop::collection::vec((0usize..7).prop_map(step_name), 0..2);
    let confirm = prop::option::weighted(0.4, Just(Duration::from_secs(300)));
    (any_words(), skips, prop_oneof![2 => Just(BTreeMap::new()), 1 => any_pins()], confirm)
        .prop_map(|(words, skips, pinned, confirm)| Will { words, skips, pinned, confirm })
}

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Agent,
    WithSupervisor,
    Server,
}

fn any_death() -> impl Strategy<Value = Death> {
    prop_oneof![6 => Just(Death::Agent), 1 => Just(Death::WithSupervisor), 1 => Just(Death::Server)]
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    restored: Vec<Step>,
    script: Scripts,
    verdicts: BTreeMap<(Phase, u32), Verdict>,
    rollback: bool,
    good: bool,
    will: Will,
    /// After how many ticks the agent dies, counted from the last death.
    crashes: Vec<(usize, Death)>,
    cancel: Option<usize>,
    /// After how many ticks an operator leaves out a step, whatever runs then.
    skip: Option<(usize, usize)>,
    /// The files of what is returned to are damaged.
    damaged: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let crashes = prop::collection::vec((0usize..40, any_death()), 0..6);
    (
        any_steps(),
        any_steps(),
        any_script(),
        any_verdicts(),
        any_will(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.8),
        crashes,
        prop::option::weighted(0.3, 0usize..60),
        prop::option::weighted(0.3, (0usize..60, 0usize..7)),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(steps, restored, script, verdicts, will, rollback, good, crashes, cancel, skip, damaged)| {
                Case {
                    steps,
                    restored,
                    script,
                    verdicts,
                    will,
                    rollback,
                    good,
                    crashes,
                    cancel,
                    skip,
                    damaged,
                }
            },
        )
}

fn world(case: &Case) -> World {
    let mut setting = deploy(case.steps.clone());
    setting.skips.clone_from(&case.will.skips);
    if let Way::Deploy { pinned, confirm, .. } = &mut setting.way {
        pinned.clone_from(&case.will.pinned);
        *confirm = case.will.confirm;
    }
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
    world.words = case.will.words.iter().cloned().collect();
    world
}

fn play(case: &Case) -> World {
    let mut world = world(case);
    let mut crashes = case.crashes.iter();
    let mut next = crashes.next();
    let (mut since, mut total, mut cancels) = (0, 0, 0);
    loop {
        if case.cancel == Some(total) {
            world.cancel();
        }
        if let Some((at, step)) = case.skip
            && at == total
        {
            let (step, reason) = (step_name(step), "not needed".to_owned());
            world.tell(Input::Decide { order: id(60), step, action: DecisionAction::Skip, reason });
        }
        if let Some((after, death)) = next
            && since >= *after
        {
            world.lost = *death == Death::WithSupervisor;
            if *death == Death::Server {
                world.reboot()
            } else {
                world.crash()
            }
            (since, next) = (0, crashes.next());
        }
        if !world.tick() && next.is_none() {
            if world.outcome().is_some() {
                return world;
            }
            // Nobody has a word for what it waits for: it has to give way, or is cancelled, again and again.
            let waiting = world.machine().waiting();
            assert!(waiting.is_some(), "stuck: {:?}", world.journal);
            cancels += 1;
            let gives_way = matches!(waiting, Some(Waiting::Decision { .. })) && case.cancel.is_some();
            let cancel = Input::Cancel { order: id(200 + cancels), because: "enough".into() };
            world.tell(if gives_way { Input::GiveUp } else { cancel });
        }
        (since, total) = (since + 1, total + 1);
        assert!(total < 5000, "never ends");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_breaks_what_is_promised(case in any_case()) {
        check_invariants(&play(&case))?;
    }

    /// A crash of the agent alone changes nothing that a user can see, if every step is a process.
    #[test]
    fn a_run_with_crashes_comes_to_the_same_end(mut case in any_case()) {
        (case.cancel, case.skip) = (None, None);
        for step in case.steps.iter_mut().chain(&mut case.restored) {
            if step.kind == check("x").kind {
                step.kind = run("x").kind;
            }
        }
        case.script.retain(|(phase, step), _| {
            let steps = if *phase == Phase::Deploy { &case.steps } else { &case.restored };
            steps.get(*step as usize).is_some_and(|step| step.kind.is_process())
        });
        case.crashes.iter_mut().for_each(|crash| crash.1 = Death::Agent);
        let crashed = play(&case);
        let smooth = play(&Case { crashes: Vec::new(), ..case });
        prop_assert_eq!(crashed.outcome(), smooth.outcome());
        prop_assert_eq!(crashed.current, smooth.current);
    }
}

fn will(words: Vec<Word>, confirm: Option<Duration>) -> Will {
    Will { words, skips: Vec::new(), pinned: BTreeMap::new(), confirm }
}

/// Every single crash point, one by one, of a deployment that asks before a step, loses one, has it run again and is
/// confirmed; and of one that is not confirmed.
#[test]
fn every_crash_point_of_a_deployment_that_waits() {
    let mut migrate = run("migrate");
    migrate.once = true;
    let steps = vec![migrate, run("seed"), activate(), check("healthy")];
    let unknown = StepOutcome::Unknown { because: "lost".into() };
    let word = |decision, confirmed| Word { once: OnceWord::Run {}, decision, confirmed };
    for confirmed in [true, false] {
        for death in [Death::Agent, Death::Server] {
            for point in 0..60 {
                let again = word(DecisionAction::Again, confirmed);
                let world = play(&Case {
                    steps: steps.clone(),
                    restored: vec![activate(), check("restart")],
                    script: BTreeMap::from([((Phase::Deploy, 1), vec![unknown.clone()])]),
                    verdicts: BTreeMap::new(),
                    will: will(vec![again; 8], Some(Duration::from_secs(300))),
                    rollback: false,
                    good: true,
                    crashes: vec![(point, death)],
                    cancel: None,
                    skip: None,
                    damaged: false,
                });
                let at = format!("confirmed {confirmed}, {death:?} at {point}");
                check_invariants(&world).unwrap_or_else(|error| panic!("{at}: {error}"));
                match world.outcome() {
                    Some(DeploymentOutcome::Succeeded { .. }) => assert!(confirmed, "{at}"),
                    Some(DeploymentOutcome::Returned { .. }) => {
                        assert!(!confirmed || death == Death::Server, "{at}");
                    }
                    other => panic!("{at}: {other:?}"),
                }
            }
        }
    }
}

/// Every single crash point of a deployment that returns, one by one, and every pair.
#[test]
fn every_crash_point_of_a_return() {
    let steps = vec![run("migrate"), activate(), check("healthy"), run("announce")];
    let case = |crashes: Vec<(usize, Death)>| Case {
        steps: steps.clone(),
        restored: vec![activate(), check("restart")],
        script: BTreeMap::from([((Phase::Deploy, 3), vec![failed()])]),
        verdicts: BTreeMap::new(),
        will: will(Vec::new(), None),
        rollback: false,
        good: true,
        crashes,
        cancel: None,
        skip: None,
        damaged: false,
    };
    let mut points = 0;
    for first in 0..60 {
        for second in 0..60 {
            let world = play(&case(vec![(first, Death::Agent), (second, Death::Agent)]));
            check_invariants(&world).unwrap_or_else(|error| panic!("crashes at {first}, {second}: {error}"));
            assert!(matches!(world.outcome(), Some(DeploymentOutcome::Returned { .. })), "{first} {second}");
            points += 1;
        }
    }
    println!("{points} pairs of crash points");
}
