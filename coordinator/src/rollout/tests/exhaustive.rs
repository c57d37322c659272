//! Whatever happens, in whatever order.

use std::collections::{BTreeSet, HashSet};

use consign_common::{
    name::StepName,
    trust::{DecisionAction, OnceWord},
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

fn step() -> StepName {
    "migrate".parse().unwrap()
}

fn ends() -> Vec<End> {
    let because = "x".to_owned();
    vec![
        good(),
        End::NoOp,
        failed(),
        returned(),
        End::Stopped { because: because.clone() },
        End::Unknown { because: because.clone(), step: None },
        End::Cancelled { because },
        End::Refused { code: "below-floor".into(), message: "x".into() },
        End::Refused { code: "disk-full".into(), message: "x".into() },
    ]
}

fn news() -> Vec<News> {
    let mut all = vec![
        News::Ready,
        News::Absent,
        News::Disabled { because: "x".into() },
        News::ClockSkew { message: "x".into() },
        News::NothingToDo,
        News::Impossible(End::Refused { code: "nothing-to-return-to".into(), message: "x".into() }),
        News::Accepted,
        News::Undecided { step: step(), because: "power".into() },
        News::Decided { step: step(), action: DecisionAction::Done, because: "seen".into() },
        News::Confirming,
        News::Returning,
        News::Lost { because: "x".into() },
    ];
    all.extend(ends().into_iter().map(News::Ended));
    all
}

/// What only rollouts with a `once` step hear.
fn once_news() -> Vec<News> {
    let how = |how| News::StepEnded { step: step(), how };
    vec![
        News::Awaiting { step: step() },
        News::Answered,
        News::StepStarted { step: step() },
        how(StepEnd::Succeeded),
        how(StepEnd::Failed { because: "exit code 1".into() }),
        how(StepEnd::Skipped),
    ]
}

#[derive(Clone, Debug)]
enum Act {
    Happens(Event),
    Pressed(Verb),
}

fn acts(servers: usize, once: bool) -> Vec<Act> {
    let mut all: Vec<Act> =
        [Verb::Abort, Verb::Pause, Verb::Resume, Verb::Retry].into_iter().map(Act::Pressed).collect();
    all.push(Act::Happens(Event::Begin));
    all.push(Act::Happens(Event::Tick));
    for health in [Health::Pass, Health::Fail, Health::Inconclusive] {
        all.push(Act::Happens(Event::Health { wave: 1, health, because: "said".into() }));
    }
    for n in 1..=servers {
        let more = if once { once_news() } else { Vec::new() };
        all.extend(news().into_iter().chain(more).map(|news| Act::Happens(about(n, news))));
        all.push(Act::Pressed(Verb::SkipServer { server: server(n) }));
        for action in [DecisionAction::Done, DecisionAction::Failed, DecisionAction::Again] {
            all.push(Act::Pressed(Verb::Decide { server: server(n), step: step(), action }));
        }
    }
    all
}

fn act(rollout: &Rollout, act: &Act, now: u64) -> (Rollout, Vec<Command>) {
    match act {
        Act::Happens(event) => apply(rollout.clone(), event.clone(), UnixMs(now)),
        // What is not legal changes nothing.
        Act::Pressed(verb) => press(rollout.clone(), verb.clone(), "asked", UnixMs(now))
            .unwrap_or_else(|_| (rollout.clone(), Vec::new())),
    }
}

/// What must hold after every event, whatever it was.
fn check_step(before: &Rollout, after: &Rollout, commands: &[Command]) {
    assert_eq!(before.members.len(), after.members.len(), "membership is frozen");
    let over = |rollout: &Rollout| {
        let failures = rollout.members.iter().filter(|it| it.state.end().is_some_and(End::is_failure));
        failures.count() > rollout.strategy.failures as usize
    };
    for old in &before.members {
        let new = after.member(&old.server).unwrap();
        assert_eq!(old.wave, new.wave, "membership is frozen");
        let ordered = commands.contains(&Command::Order { server: new.server.clone() });
        if ordered {
            assert!(!old.state.is_ordered(), "ordered twice");
            assert!(before.paused.is_none(), "ordered while it is paused");
            assert!(matches!(before.phase, Phase::Running { .. }), "ordered in {:?}", before.phase);
            assert!(before.kind == Kind::Return || !over(before), "ordered beyond the budget: {before:?}");
            for other in before.members.iter().filter(|other| other.wave < new.wave) {
                assert!(other.state.end().is_some(), "an earlier wave has not ended");
            }
        } else if !old.state.is_ordered() && new.state.is_ordered() {
            let undecided = matches!(old.state.end(), Some(End::Unknown { step: Some(_), .. }));
            assert!(undecided, "it runs without an order: {old:?} {new:?}");
        }
    }
    for (name, once) in &before.once {
        let runs = commands.iter().filter(
            |command| matches!(command, Command::Once { step, word: OnceWord::Run {}, .. } if step == name),
        );
        let runs = runs.count();
        assert!(runs <= 1, "two servers are told to run {name}");
        let reopened = after.once[name].passed.len() < once.passed.len();
        let decided = matches!(once.state, OnceState::Unknown { .. } | OnceState::Granted { .. });
        let free = once.state == OnceState::Open || reopened || decided;
        assert!(runs == 0 || free, "{name} runs again after {:?}", once.state);
    }
    let Some(verdict) = after.verdict() else {
        let queued = matches!(after.phase, Phase::Queued { .. });
        assert!(after.is_under_way() || queued || waits(after), "all ended, and it did not: {after:?}");
        return;
    };
    assert!(!verdict.because.is_empty() && !verdict.because.contains('\n'));
    if !after.is_under_way() {
        let all_green = after.members.iter().all(|member| member.state.end().is_some_and(End::is_green));
        match verdict.state {
            Final::Succeeded => assert!(all_green, "green with a server that is not: {after:?}"),
            Final::Aborted | Final::Stopped => {}
            Final::Returned | Final::Refused | Final::Unknown | Final::Partial => {
                assert!(!all_green, "not green, and every server is: {after:?}");
            }
        }
    }
}

/// It waits for a clock, an answer about health, or a person.
fn waits(rollout: &Rollout) -> bool {
    let stage = matches!(rollout.phase, Phase::Running { stage: Stage::Baking { .. } | Stage::Judging, .. });
    stage || rollout.paused.is_some()
}

/// Every reachable state of small fleets, under every event and verb.
#[test]
fn every_reachable_state_keeps_the_rules() {
    let health = HealthCheck { probe: Probe::Command { name: "ok".into() }, within_ms: 1 };
    let judged = Strategy { health: Some(health), bake_ms: 5, failures: 1, ..Strategy::default() };
    for (kind, servers, waves, strategy) in [
        (Kind::Deploy, 1, &[][..], Strategy::default()),
        (Kind::Deploy, 2, &["1", "100%"], Strategy::default()),
        (Kind::Deploy, 2, &["1", "100%"], judged),
        (Kind::Return, 2, &[], Strategy::default()),
    ] {
        let acts = acts(servers, false);
        let mut seen = HashSet::new();
        let mut todo = vec![plan(request(kind, servers, waves, strategy)).unwrap()];
        while let Some(before) = todo.pop() {
            if !seen.insert(before.clone()) {
                continue;
            }
            for each in &acts {
                // One moment for all: a bake is over at the next event or never.
                let (after, commands) = act(&before, each, 0);
                check_step(&before, &after, &commands);
                todo.push(after);
            }
        }
        let verdicts: BTreeSet<u8> =
            seen.iter().filter_map(|rollout| Some(rollout.verdict()?.state.exit_code())).collect();
        let expected = match kind {
            Kind::Deploy => BTreeSet::from([0, 3, 4, 5, 6, 7]),
            // What returned did what it was asked.
            Kind::Return => BTreeSet::from([0, 3, 5, 6, 7]),
        };
        assert_eq!(verdicts, expected, "{kind:?} of {servers}");
        println!("{kind:?} of {servers}: {} states", seen.len());
    }
}

/// From any state, once everybody that is asked answers and every order ends, the rollout ends.
fn settle(mut rollout: Rollout, now: &mut u64) -> Rollout {
    for _ in 0..rollout.members.len() * 8 + 20 {
        if rollout.verdict().is_some() && !rollout.is_under_way() {
            return rollout;
        }
        *now += 1_000_000;
        let mut answers =
            vec![Act::Happens(Event::Begin), Act::Pressed(Verb::Resume), Act::Happens(Event::Tick)];
        if let Phase::Running { wave, stage: Stage::Judging } = rollout.phase {
            answers.push(Act::Happens(Event::Health { wave, health: Health::Pass, because: "x".into() }));
        }
        for member in &rollout.members {
            let news = match &member.state {
                ServerState::Due { .. } => News::Ready,
                ServerState::Awaiting { told: Told::Ordered, .. } => News::Answered,
                ServerState::Ordered
                | ServerState::Running
                | ServerState::Returning
                | ServerState::Confirming { told: Told::Ordered } => News::Ended(good()),
                ServerState::Pending
                | ServerState::Awaiting { told: Told::NotYet, .. }
                | ServerState::Confirming { told: Told::NotYet }
                | ServerState::Ended { .. } => continue,
            };
            answers.push(Act::Happens(Event::Server { server: member.server.clone(), news }));
        }
        // Nobody knows what became of a once step: a person says so.
        for (step, once) in &rollout.once {
            if let OnceState::Unknown { server, .. } = &once.state {
                let (server, step) = (server.clone(), step.clone());
                answers.push(Act::Pressed(Verb::Decide { server, step, action: DecisionAction::Done }));
            }
        }
        for each in answers {
            let (after, commands) = act(&rollout, &each, *now);
            check_step(&rollout, &after, &commands);
            rollout = after;
        }
    }
    rollout
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_history_keeps_the_rules_terminates_and_replays(
        servers in 1_usize..9,
        percent in 1_u32..=100,
        returns in any::<bool>(),
        once in any::<bool>(),
        (failures, min_healthy, bake_ms, offline) in (0_u32..3, 0_u32..3, 0_u64..30, 0_u8..3),
        picks in proptest::collection::vec((any::<prop::sample::Index>(), 0_u64..20), 0..160),
    ) {
        let kind = if returns { Kind::Return } else { Kind::Deploy };
        let offline = match offline { 0 => Offline::Fail, 1 => Offline::Owe, _ => Offline::Wait { ms: 40 } };
        let strategy = Strategy { failures, min_healthy, bake_ms, offline, ..Strategy::default() };
        let mut asked = request(kind, servers, &[&format!("{percent}%")], strategy);
        if once && !returns {
            asked.once.insert(step());
        }
        let Ok(start) = plan(asked) else { return Ok(()) };
        let acts = acts(servers, once);
        let (mut rollout, mut now) = (start.clone(), 0);
        for (pick, later) in &picks {
            now += later;
            // What is read back from the store is what was written.
            let text = serde_json::to_string(&rollout).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Rollout>(&text).unwrap(), &rollout);
            let (next, commands) = act(&rollout, pick.get(&acts), now);
            check_step(&rollout, &next, &commands);
            rollout = next;
        }
        let mut again = (start, 0);
        for (pick, later) in &picks {
            again.1 += later;
            again.0 = act(&again.0, pick.get(&acts), again.1).0;
        }
        prop_assert_eq!(&again.0, &rollout);
        let settled = settle(rollout, &mut now);
        prop_assert!(settled.verdict().is_some(), "it does not end: {:?}", settled);
    }
}
