//! Who is deployed to when, and what the end is called.

use super::*;

#[test]
fn waves_open_one_after_the_other_in_the_order_of_names() {
    let (rollout, commands) = run(planned(Kind::Deploy, 3, &["1", "100%"]), [Event::Begin]);
    assert_eq!(commands, [find(1)]);
    let (rollout, commands) = run(rollout, through(1, good()));
    assert_eq!(commands, [order(1), find(2), find(3)]);
    assert_eq!(rollout.members.iter().map(|member| member.wave).collect::<Vec<_>>(), [1, 2, 2]);
}

#[test]
fn canaries_are_the_first_wave_and_the_others_are_counted_without_them() {
    let mut asked = request(Kind::Deploy, 5, &["50%", "100%"], Strategy::default());
    asked.canaries = Some("role=canary".into());
    asked.candidates[3].place = Place::Canary;
    let rollout = plan(asked.clone()).unwrap();
    let waves: Vec<_> = rollout.members.iter().map(|it| (it.server.as_str(), it.wave)).collect();
    assert_eq!(waves, [("web-4", 1), ("web-1", 2), ("web-2", 2), ("web-3", 3), ("web-5", 3)]);
    asked.candidates[3].place = Place::Fleet;
    assert!(matches!(plan(asked), Err(InvalidStrategy::NoCanary { .. })));
}

#[test]
fn a_failed_server_stops_the_waves_and_what_runs_finishes() {
    let events = [
        Event::Begin,
        about(1, News::Ready),
        about(2, News::Ready),
        about(2, News::Accepted),
        ended(1, failed()),
    ];
    let (rollout, _) = run(planned(Kind::Deploy, 3, &["2", "100%"]), events);
    assert_eq!(states(&rollout), ["failed", "running", "not-reached"]);
    assert_eq!(
        rollout.members[2].state.because(),
        "not reached: 1 failed, 0 tolerated: web-1 failed: exit code 1"
    );
    let (rollout, _) = run(rollout, [ended(2, good())]);
    assert_eq!(verdict(&rollout), (Final::Stopped, "1 failed, 0 tolerated: web-1 failed: exit code 1"));
}

#[test]
fn exit_codes_follow_their_order() {
    let unknown = End::Unknown { because: "step migrate".into(), step: None };
    let gate = End::Refused { code: "below-floor".into(), message: "too old".into() };
    let skew = End::Refused { code: "clock-skew".into(), message: "two hours".into() };
    for (first, second, state) in [
        (good(), good(), Final::Succeeded),
        (good(), End::NoOp, Final::Succeeded),
        (returned(), returned(), Final::Returned),
        (returned(), failed(), Final::Returned),
        (returned(), good(), Final::Stopped),
        (failed(), failed(), Final::Stopped),
        (skew, good(), Final::Stopped),
        (unknown, returned(), Final::Unknown),
        (failed(), gate.clone(), Final::Refused),
        (gate, good(), Final::Refused),
    ] {
        let both =
            [about(1, News::Ready), about(2, News::Ready), ended(1, first.clone()), ended(2, second.clone())];
        let (rollout, _) = run(planned(Kind::Deploy, 2, &[]), [Event::Begin].into_iter().chain(both));
        assert_eq!(verdict(&rollout).0, state, "{first:?}, {second:?}");
    }
}

#[test]
fn a_disabled_server_is_left_out_and_the_end_is_partial() {
    let mut asked = request(Kind::Deploy, 2, &["1"], Strategy::default());
    asked.candidates[0].presence = Presence::Disabled { because: "disk swap".into() };
    let (rollout, commands) = run(plan(asked).unwrap(), [Event::Begin]);
    assert_eq!(commands, [find(2)], "the first wave is a server that really tries");
    let (rollout, _) = run(rollout, through(2, good()));
    assert_eq!(verdict(&rollout), (Final::Partial, "web-1 skipped: disabled: disk swap"));
    assert_eq!(verdict(&rollout).0.exit_code(), 7);
}

#[test]
fn redeploying_what_runs_says_so() {
    let (rollout, _) = run(planned(Kind::Deploy, 1, &[]), [Event::Begin]);
    let (rollout, _) = run(rollout, through(1, End::NoOp));
    assert_eq!(verdict(&rollout).1, "nothing to do: 1 server ran it already");
}

#[test]
fn a_skewed_clock_stops_deployments_and_not_returns() {
    let skew = || about(1, News::ClockSkew { message: "two hours ahead".into() });
    let (deploy, commands) = run(planned(Kind::Deploy, 1, &[]), [Event::Begin, skew()]);
    assert_eq!(states(&deploy), ["refused"]);
    assert!(!commands.contains(&order(1)));
    let (back, commands) = run(planned(Kind::Return, 1, &[]), [Event::Begin, skew()]);
    assert_eq!(states(&back), ["ordered"]);
    assert!(commands.contains(&order(1)));
}

#[test]
fn one_server_that_cannot_return_keeps_nobody_from_it() {
    let events = [Event::Begin, about(1, News::Absent), about(2, News::Ready)];
    let (rollout, _) = run(planned(Kind::Return, 2, &["1", "100%"]), events);
    assert_eq!(states(&rollout), ["offline", "ordered"]);
    let (rollout, _) = run(rollout, [ended(2, returned())]);
    assert_eq!(verdict(&rollout).0, Final::Stopped);
}

#[test]
fn owed_and_new_servers_converge_when_it_has_ended_and_change_no_verdict_for_the_worse() {
    let strategy = Strategy { offline: Offline::Owe, ..Strategy::default() };
    let events = [Event::Begin, about(1, News::Ready), about(2, News::Absent), ended(1, good())];
    let (rollout, _) = run(with(strategy, 2, &[]), events);
    assert_eq!(verdict(&rollout).0, Final::Partial, "done but for what is owed");
    let converge = |n| Event::Converge { server: server(n), group: String::new() };
    let (rollout, commands) = run(rollout, [converge(2), about(2, News::Ready)]);
    assert_eq!(commands, [find(2), order(2)]);
    assert!(rollout.is_under_way() && rollout.verdict().is_some());
    let (rollout, commands) = run(rollout, [converge(2), ended(2, good())]);
    assert_eq!((commands, verdict(&rollout).0), (vec![], Final::Succeeded), "asked twice it is ordered once");
    let (rollout, _) = run(rollout, [converge(3), about(3, News::Ready), ended(3, failed())]);
    assert_eq!(verdict(&rollout).0, Final::Succeeded, "a new server's trouble is its own");
    assert_eq!(rollout.member(&server(3)).unwrap().state.as_str(), "failed");
}
