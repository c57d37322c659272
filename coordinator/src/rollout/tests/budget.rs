//! What is tolerated, counted over the whole rollout, and how many servers may be down at once.

use super::*;

fn tolerating(failures: u32) -> Strategy {
    Strategy { failures, ..Strategy::default() }
}

#[test]
fn the_budget_spans_waves() {
    let (rollout, _) = run(with(tolerating(1), 4, &["1", "2", "3", "4"]), [Event::Begin]);
    let (rollout, commands) = run(rollout, through(1, failed()));
    assert_eq!(commands, [order(1), find(2)], "one is tolerated");
    let (rollout, _) = run(rollout, through(2, good()));
    let (rollout, commands) = run(rollout, through(3, returned()));
    assert_eq!(commands, [order(3)], "the second one stops it, in another wave");
    assert_eq!(verdict(&rollout), (Final::Stopped, "2 failed, 1 tolerated: web-1, web-3"));
    assert_eq!(states(&rollout), ["failed", "succeeded", "returned", "not-reached"]);
}

#[test]
fn within_its_budget_it_goes_through_and_is_not_called_green() {
    let events = [Event::Begin].into_iter().chain(through(1, returned())).chain(through(2, good()));
    let (rollout, _) = run(with(tolerating(1), 2, &["1", "2"]), events);
    assert_eq!(verdict(&rollout), (Final::Partial, "web-1 returned: healthy: timed out"));
}

#[test]
fn a_group_has_a_budget_of_its_own() {
    let group = Some(GroupBudget { label: "zone".into(), failures: 1 });
    let strategy = Strategy { failures: 8, group, ..Strategy::default() };
    let (mut rollout, _) = run(with(strategy, 8, &["2"]), [Event::Begin]);
    for (even, odd) in [(2, 1), (4, 3)] {
        assert!(rollout.verdict().is_none());
        let both = through(odd, good()).into_iter().chain(through(even, failed()));
        rollout = run(rollout, both).0;
    }
    let because = "2 failed with zone=even, 1 tolerated: web-2, web-4";
    assert_eq!(verdict(&rollout), (Final::Stopped, because));
}

#[test]
fn what_is_unknown_or_not_signed_is_never_tolerated() {
    let unknown = End::Unknown { because: "power".into(), step: None };
    let gate = End::Refused { code: "below-floor".into(), message: "too old".into() };
    for end in [unknown, gate] {
        let events = [Event::Begin].into_iter().chain(through(1, end));
        let (rollout, commands) = run(with(tolerating(3), 4, &["1", "4"]), events);
        assert_eq!(commands, [find(1), order(1)]);
        assert!(matches!(verdict(&rollout).0, Final::Unknown | Final::Refused));
    }
}

#[test]
fn only_so_many_are_down_at_once() {
    let strategy = Strategy { min_healthy: 2, failures: 4, ..Strategy::default() };
    let (rollout, commands) = run(with(strategy, 4, &[]), [Event::Begin]);
    assert_eq!(commands, [find(1), find(2)], "two of four must stay up");
    let (rollout, commands) = run(rollout, through(1, good()));
    assert_eq!(commands, [order(1), find(3)]);
    let stopped = End::Stopped { because: "no way back".into() };
    let (rollout, commands) = run(rollout, through(2, stopped.clone()));
    assert_eq!(commands, [order(2)], "one that is down stays down");
    let (rollout, commands) = run(rollout, through(3, stopped));
    assert_eq!(commands, [order(3)]);
    assert_eq!(verdict(&rollout), (Final::Stopped, "2 of 4 servers must stay up, and 2 are not"));
}

#[test]
fn a_server_that_comes_late_is_not_ordered_when_another_went_down_meanwhile() {
    let strategy = Strategy { min_healthy: 2, failures: 4, confirm_ms: 60_000, ..Strategy::default() };
    let (rollout, commands) = run(
        with(strategy, 4, &[]),
        [Event::Begin, about(1, News::Ready), about(2, News::Ready), about(1, News::Confirming)],
    );
    assert_eq!(commands.last(), Some(&find(3)), "one that waits to be confirmed is up");
    let (rollout, commands) = run(rollout, [about(1, News::Returning), about(3, News::Ready)]);
    assert_eq!(commands, [], "two are out, and one of them was not when web-3 was looked for");
    assert_eq!(states(&rollout), ["returning", "ordered", "pending", "pending"]);
    let (_, commands) = run(rollout, [ended(1, returned())]);
    assert_eq!(commands, [find(3)]);
}

#[test]
fn a_way_back_takes_down_no_more_than_that_and_still_reaches_everybody() {
    let mut asked = request(Kind::Deploy, 3, &[], Strategy::default());
    asked = Request::back(Vec::new(), 2, asked.candidates);
    let (rollout, commands) = run(plan(asked).unwrap(), [Event::Begin]);
    assert_eq!(commands, [find(1)]);
    let stopped = End::Stopped { because: "its steps failed".into() };
    let (rollout, commands) = run(rollout, through(1, stopped));
    assert_eq!(commands, [order(1), find(2)], "less than two are up, and web-2 must not stay where it is");
    let (rollout, commands) = run(rollout, through(2, returned()));
    assert_eq!(commands, [order(2), find(3)]);
    let (rollout, _) = run(rollout, through(3, returned()));
    assert_eq!(verdict(&rollout).0, Final::Stopped);
}

#[test]
fn a_server_that_is_away_is_waited_for_and_then_has_failed() {
    let strategy = Strategy { offline: Offline::Wait { ms: 60_000 }, ..Strategy::default() };
    let (rollout, _) = run(with(strategy, 1, &[]), [Event::Begin, about(1, News::Absent)]);
    assert_eq!((states(&rollout), rollout.wake()), (vec!["pending"], Some(UnixMs(60_000))));
    let (early, _) = run_at(rollout.clone(), 59_999, [Event::Tick]);
    assert_eq!(states(&early), ["pending"]);
    let (late, _) = run_at(rollout, 60_000, [Event::Tick]);
    assert_eq!((states(&late), verdict(&late).0), (vec!["offline"], Final::Stopped));
}

#[test]
fn it_brings_back_what_it_brought_where_that_is_wanted() {
    let strategy = Strategy { on_stop: OnStop::Rollback, ..Strategy::default() };
    let events = [Event::Begin].into_iter().chain(through(1, good())).chain(through(2, failed()));
    let (rollout, commands) = run(with(strategy.clone(), 2, &["1", "2"]), events);
    let because = "1 failed, 0 tolerated: web-2 failed: exit code 1";
    assert_eq!(commands.last(), Some(&Command::RollBack { because: because.into() }));
    assert_eq!(verdict(&rollout), (Final::Stopped, because));
    let events = [Event::Begin].into_iter().chain(through(1, failed()));
    let (_, commands) = run(with(strategy, 2, &["1", "2"]), events);
    assert!(
        !commands.iter().any(|it| matches!(it, Command::RollBack { .. })),
        "there is nothing to bring back"
    );
}

#[test]
fn what_cannot_be_is_refused_when_it_is_planned() {
    let refused = |strategy: Strategy| plan(request(Kind::Deploy, 4, &[], strategy)).unwrap_err();
    assert!(matches!(refused(tolerating(5)), InvalidStrategy::Budget { failures: 5, members: 4 }));
    let group = |failures| Some(GroupBudget { label: "zone".into(), failures });
    let budget = refused(Strategy { group: group(9), ..Strategy::default() });
    assert!(matches!(budget, InvalidStrategy::Budget { failures: 9, .. }));
    let all_up = refused(Strategy { min_healthy: 4, ..Strategy::default() });
    assert!(matches!(all_up, InvalidStrategy::MinHealthy { min: 4, members: 4 }));
    let short = refused(Strategy { bake_ms: 300_000, confirm_ms: 300_000, ..Strategy::default() });
    assert!(matches!(short, InvalidStrategy::ConfirmTooShort { needed_ms: 300_000, .. }));
    let mut nobody = request(Kind::Deploy, 2, &[], Strategy { group: group(0), ..Strategy::default() });
    nobody.candidates.iter_mut().for_each(|candidate| candidate.group.clear());
    assert!(matches!(plan(nobody), Err(InvalidStrategy::GroupUnknown { .. })));
}

#[test]
fn a_server_that_is_lost_does_not_keep_a_stopped_rollout_from_its_end() {
    let strategy = Strategy { on_stop: OnStop::Rollback, ..Strategy::default() };
    let events = [Event::Begin].into_iter().chain((1..=3).map(|n| about(n, News::Ready)));
    let (rollout, _) = run(with(strategy, 3, &[]), events);
    let (rollout, _) = run(rollout, [ended(1, good()), ended(2, failed()), about(3, News::Accepted)]);
    assert_eq!(states(&rollout), ["succeeded", "failed", "running"]);
    let (rollout, commands) = run(rollout, [about(3, News::Absent)]);
    assert!(commands.iter().any(|it| matches!(it, Command::RollBack { .. })), "web-1 must not stay on it");
    assert_eq!((states(&rollout)[2], verdict(&rollout).0), ("unknown", Final::Unknown));
    let (rollout, _) = run(rollout, [ended(3, returned())]);
    assert_eq!(states(&rollout)[2], "returned", "its own word, once it is heard");
}
