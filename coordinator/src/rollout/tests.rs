//! The engine, exhaustively on small fleets and by chance on larger ones.

use std::collections::{BTreeSet, HashSet};

use consign_common::name::ServerName;
use proptest::prelude::*;

use super::*;

fn server(number: usize) -> ServerName {
    format!("web-{number}").parse().unwrap()
}

fn planned(kind: Kind, servers: usize, waves: &[&str]) -> Rollout {
    let targets: Vec<Target> = waves.iter().map(|text| text.parse().unwrap()).collect();
    let candidates =
        (1..=servers).map(|n| Candidate { server: server(n), presence: Presence::Enabled }).collect();
    plan(kind, &targets, candidates).unwrap()
}

fn ends() -> Vec<End> {
    let because = "x".to_owned();
    vec![
        End::Succeeded { tolerated: Vec::new() },
        End::NoOp,
        End::Failed { because: because.clone() },
        End::Returned { because: because.clone() },
        End::Stopped { because: because.clone() },
        End::Unknown { because: because.clone() },
        End::Cancelled { because: because.clone() },
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
        News::Returning,
        News::Lost { because: "x".into() },
    ];
    all.extend(ends().into_iter().map(News::Ended));
    all
}

fn events(servers: usize) -> Vec<Event> {
    let mut all = vec![Event::Begin, Event::Abort { because: "asked".into() }];
    for n in 1..=servers {
        all.extend(news().into_iter().map(|news| Event::Server { server: server(n), news }));
    }
    all
}

fn about(n: usize, news: News) -> Event {
    Event::Server { server: server(n), news }
}

fn ended(n: usize, end: End) -> Event {
    about(n, News::Ended(end))
}

fn run(mut rollout: Rollout, events: impl IntoIterator<Item = Event>) -> (Rollout, Vec<Command>) {
    let mut commands = Vec::new();
    for event in events {
        let (next, more) = apply(rollout, event);
        rollout = next;
        commands.extend(more);
    }
    (rollout, commands)
}

fn states(rollout: &Rollout) -> Vec<&'static str> {
    rollout.members.iter().map(|member| member.state.as_str()).collect()
}

/// What must hold after every event, whatever it was.
fn check_step(before: &Rollout, after: &Rollout, commands: &[Command]) {
    let stopped = before.members.iter().any(|member| member.state.end().is_some_and(End::stops));
    for (old, new) in before.members.iter().zip(&after.members) {
        assert_eq!((&old.server, old.wave), (&new.server, new.wave), "membership is frozen");
        if old.state.end().is_some() {
            assert_eq!(old.state, new.state, "an end is final");
        }
        let ordered = commands.contains(&Command::Order { server: new.server.clone() });
        assert_eq!(
            ordered,
            !old.state.is_ordered() && new.state.is_ordered(),
            "ordered exactly when the state says so"
        );
        if ordered {
            assert_eq!(before.phase, Phase::Running, "orders go out only while it runs");
            assert!(before.kind == Kind::Return || !stopped, "no order after a server did not take it");
            for other in before.members.iter().filter(|other| other.wave < new.wave) {
                let end = other.state.end().expect("an earlier wave has not ended");
                assert!(
                    before.kind == Kind::Return || end.is_green() || matches!(end, End::Skipped { .. }),
                    "{end:?}"
                );
            }
        }
    }
    let all_ended = after.members.iter().all(|member| member.state.end().is_some());
    let Some(verdict) = after.verdict() else {
        assert!(!all_ended || after.phase == Phase::Queued, "all servers ended, and the rollout did not");
        return;
    };
    assert!(all_ended, "the rollout ended before its servers");
    assert!(!verdict.because.is_empty() && !verdict.because.contains('\n'));
    let all_green = after.members.iter().all(|member| member.state.end().is_some_and(End::is_green));
    if verdict.state.exit_code() == 0 {
        assert!(all_green, "green with a server that is not: {after:?}");
    } else {
        assert!(!all_green || verdict.state == Final::Aborted, "not green, and every server is: {after:?}");
    }
    if before.verdict().is_some() {
        assert_eq!(before, after, "nothing happens after the end");
        assert!(commands.is_empty());
    }
}

/// Every reachable state of small fleets, under every event.
#[test]
fn every_reachable_state_keeps_the_rules() {
    for kind in [Kind::Deploy, Kind::Return] {
        for (servers, waves) in [(1, &[][..]), (2, &["1", "100%"]), (2, &[]), (3, &["1", "100%"])] {
            let events = events(servers);
            let mut seen = HashSet::new();
            let mut todo = vec![planned(kind, servers, waves)];
            while let Some(before) = todo.pop() {
                if !seen.insert(before.clone()) {
                    continue;
                }
                for event in &events {
                    let (after, commands) = apply(before.clone(), event.clone());
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
        }
    }
}

/// From any state, once every server that is asked for answers and every order ends, the rollout ends.
fn settle(mut rollout: Rollout) -> Rollout {
    for _ in 0..=rollout.members.len() * 3 {
        if rollout.verdict().is_some() {
            return rollout;
        }
        rollout = apply(rollout, Event::Begin).0;
        let waiting: Vec<_> = rollout.members.iter().map(|m| (m.server.clone(), m.state.clone())).collect();
        for (server, state) in waiting {
            let news = match state {
                ServerState::Due => News::Ready,
                ServerState::Ordered | ServerState::Running | ServerState::Returning => {
                    News::Ended(End::Succeeded { tolerated: Vec::new() })
                }
                ServerState::Pending | ServerState::Ended { .. } => continue,
            };
            rollout = apply(rollout, Event::Server { server, news }).0;
        }
    }
    rollout
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules_terminates_and_replays(
        servers in 1_usize..12,
        percent in 1_u32..=100,
        returns in any::<bool>(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let kind = if returns { Kind::Return } else { Kind::Deploy };
        let events = events(servers);
        let start = planned(kind, servers, &[&format!("{percent}%")]);
        let history: Vec<Event> = picks.iter().map(|pick| pick.get(&events).clone()).collect();
        let mut rollout = start.clone();
        for event in &history {
            // What is read back from the store is what was written.
            let text = serde_json::to_string(&rollout).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Rollout>(&text).unwrap(), &rollout);
            let (next, commands) = apply(rollout.clone(), event.clone());
            check_step(&rollout, &next, &commands);
            rollout = next;
        }
        prop_assert_eq!(&run(start, history).0, &rollout);
        prop_assert!(settle(rollout).verdict().is_some());
    }
}

#[test]
fn waves_open_one_after_the_other_in_the_order_of_names() {
    let (rollout, commands) = run(planned(Kind::Deploy, 3, &["1", "100%"]), [Event::Begin]);
    assert_eq!(commands, [Command::Find { server: server(1) }]);
    let (rollout, commands) = run(rollout, [about(1, News::Ready), ended(1, ends()[0].clone())]);
    assert_eq!(
        commands,
        [
            Command::Order { server: server(1) },
            Command::Find { server: server(2) },
            Command::Find { server: server(3) }
        ]
    );
    assert_eq!(rollout.members.iter().map(|member| member.wave).collect::<Vec<_>>(), [1, 2, 2]);
}

#[test]
fn a_failed_server_stops_the_waves_and_what_runs_finishes() {
    let failed = End::Failed { because: "step migrate: exit code 1".into() };
    let (rollout, _) = run(
        planned(Kind::Deploy, 3, &["2", "100%"]),
        [
            Event::Begin,
            about(1, News::Ready),
            about(2, News::Ready),
            about(2, News::Accepted),
            ended(1, failed),
        ],
    );
    assert_eq!(states(&rollout), ["failed", "running", "skipped"]);
    assert_eq!(rollout.members[2].state.because(), "not reached: web-1 is failed");
    let (rollout, _) = run(rollout, [ended(2, ends()[0].clone())]);
    let verdict = rollout.verdict().unwrap();
    assert_eq!((verdict.state, verdict.state.exit_code()), (Final::Stopped, 3));
    assert_eq!(verdict.because, "web-1 failed: step migrate: exit code 1");
}

#[test]
fn exit_codes_follow_their_order() {
    let returned = End::Returned { because: "healthy: timed out".into() };
    let unknown = End::Unknown { because: "step migrate".into() };
    let gate = End::Refused { code: "below-floor".into(), message: "too old".into() };
    let skew = End::Refused { code: "clock-skew".into(), message: "two hours".into() };
    let good = End::Succeeded { tolerated: Vec::new() };
    let failed = End::Failed { because: "exit code 1".into() };
    for (first, second, state) in [
        (&good, &good, Final::Succeeded),
        (&good, &End::NoOp, Final::Succeeded),
        (&returned, &returned, Final::Returned),
        (&returned, &failed, Final::Returned),
        (&returned, &good, Final::Stopped),
        (&failed, &failed, Final::Stopped),
        (&skew, &good, Final::Stopped),
        (&unknown, &returned, Final::Unknown),
        (&unknown, &gate, Final::Refused),
        (&gate, &good, Final::Refused),
    ] {
        let (rollout, _) = run(
            planned(Kind::Deploy, 2, &[]),
            [
                Event::Begin,
                about(1, News::Ready),
                about(2, News::Ready),
                ended(1, first.clone()),
                ended(2, second.clone()),
            ],
        );
        assert_eq!(rollout.verdict().unwrap().state, state, "{first:?}, {second:?}");
    }
}

#[test]
fn a_disabled_server_is_left_out_and_the_end_is_partial() {
    let mut candidates = vec![Candidate { server: server(2), presence: Presence::Enabled }];
    let because = "disk swap".to_owned();
    candidates.push(Candidate { server: server(1), presence: Presence::Disabled { because } });
    let rollout = plan(Kind::Deploy, &["1".parse().unwrap()], candidates).unwrap();
    let (rollout, commands) = run(rollout, [Event::Begin]);
    assert_eq!(
        commands,
        [Command::Find { server: server(2) }],
        "the first wave is a server that really tries"
    );
    let (rollout, _) = run(rollout, [about(2, News::Ready), ended(2, ends()[0].clone())]);
    let verdict = rollout.verdict().unwrap();
    assert_eq!((verdict.state, verdict.state.exit_code()), (Final::Partial, 7));
    assert_eq!(verdict.because, "web-1 skipped: disabled: disk swap");
}

#[test]
fn redeploying_what_runs_says_so() {
    let (rollout, _) =
        run(planned(Kind::Deploy, 1, &[]), [Event::Begin, about(1, News::Ready), ended(1, End::NoOp)]);
    assert_eq!(rollout.verdict().unwrap().because, "nothing to do: 1 server ran it already");
}

#[test]
fn abort_cancels_what_runs_lets_returns_finish_and_gives_up_on_the_absent() {
    let (rollout, commands) = run(
        planned(Kind::Deploy, 4, &["3", "100%"]),
        [
            Event::Begin,
            about(1, News::Ready),
            about(2, News::Ready),
            about(2, News::Returning),
            Event::Abort { because: "wrong version".into() },
        ],
    );
    let cancels: Vec<_> = commands.iter().filter(|c| matches!(c, Command::Cancel { .. })).collect();
    assert_eq!(cancels, [&Command::Cancel { server: server(1), because: "wrong version".into() }]);
    assert_eq!(states(&rollout), ["ordered", "returning", "skipped", "skipped"]);
    let returned = End::Returned { because: "x".into() };
    let (gone, _) = run(rollout.clone(), [ended(2, returned.clone()), about(1, News::Absent)]);
    assert_eq!(gone.verdict().unwrap().state, Final::Unknown);
    let cancelled = End::Cancelled { because: "wrong version".into() };
    let (done, _) = run(rollout, [ended(1, cancelled), ended(2, returned)]);
    let verdict = done.verdict().unwrap();
    assert_eq!((verdict.state.exit_code(), verdict.because.as_str()), (5, "wrong version"));
}

#[test]
fn a_skewed_clock_stops_deployments_and_not_returns() {
    let skew = || about(1, News::ClockSkew { message: "two hours ahead".into() });
    let (deploy, commands) = run(planned(Kind::Deploy, 1, &[]), [Event::Begin, skew()]);
    assert_eq!(states(&deploy), ["refused"]);
    assert!(!commands.contains(&Command::Order { server: server(1) }));
    let (back, commands) = run(planned(Kind::Return, 1, &[]), [Event::Begin, skew()]);
    assert_eq!(states(&back), ["ordered"]);
    assert!(commands.contains(&Command::Order { server: server(1) }));
}

#[test]
fn one_server_that_cannot_return_keeps_nobody_from_it() {
    let (rollout, _) = run(
        planned(Kind::Return, 2, &["1", "100%"]),
        [Event::Begin, about(1, News::Absent), about(2, News::Ready)],
    );
    assert_eq!(states(&rollout), ["offline", "ordered"]);
    let (rollout, _) = run(rollout, [ended(2, End::Returned { because: "rollback".into() })]);
    assert_eq!(rollout.verdict().unwrap().state, Final::Stopped);
}
