//! Bake, health, confirmation: what lies between two waves.

use super::*;

fn health() -> Option<HealthCheck> {
    Some(HealthCheck { probe: Probe::Command { name: "graphs".into() }, within_ms: 1000 })
}

fn said(wave: u32, health: Health) -> Event {
    Event::Health { wave, health, because: "5 errors/s".into() }
}

#[test]
fn a_wave_bakes_before_the_next_one_and_says_how_long() {
    let strategy = Strategy { bake_ms: 300_000, ..Strategy::default() };
    let events = [Event::Begin].into_iter().chain(through(1, good()));
    let (rollout, commands) = run_at(with(strategy, 2, &["1", "2"]), 1000, events);
    assert_eq!(commands, [find(1), order(1)]);
    assert_eq!(rollout.wake(), Some(UnixMs(301_000)));
    assert_eq!(explain(&rollout, UnixMs(109_000)), "waiting for wave 2 of 2: bake 3m12s left");
    let (rollout, commands) = run_at(rollout, 300_999, [Event::Tick]);
    assert_eq!(commands, []);
    let (rollout, commands) = run_at(rollout, 301_000, [Event::Tick]);
    assert_eq!(commands, [find(2)]);
    let (rollout, _) = run(rollout, through(2, good()));
    assert_eq!(verdict(&rollout).0, Final::Succeeded, "nothing bakes after the last wave");
}

#[test]
fn a_wave_that_ran_it_already_is_not_looked_at() {
    let strategy = Strategy { bake_ms: 300_000, health: health(), ..Strategy::default() };
    let events = [Event::Begin].into_iter().chain(through(1, End::NoOp));
    let (_, commands) = run(with(strategy, 2, &["1", "2"]), events);
    assert_eq!(commands, [find(1), order(1), find(2)]);
}

#[test]
fn the_health_of_every_wave_decides_and_of_no_other() {
    let strategy = Strategy { health: health(), failures: 2, ..Strategy::default() };
    let events = [Event::Begin].into_iter().chain(through(1, good()));
    let (rollout, commands) = run(with(strategy, 2, &["1", "2"]), events);
    assert_eq!(commands.last(), Some(&Command::Probe { wave: 1 }));
    assert_eq!(rollout.unfinished(), [Command::Probe { wave: 1 }], "asked again after a crash");
    let (rollout, _) = run(rollout, [said(2, Health::Fail)]);
    assert!(rollout.verdict().is_none(), "of a wave that nobody asked about");
    let (passed, commands) = run(rollout.clone(), [said(1, Health::Pass)]);
    assert_eq!(commands, [find(2)]);
    let (again, commands) = run(passed, [said(1, Health::Fail)]);
    assert_eq!((commands, again.verdict()), (vec![], None), "the second answer finds nobody");
    let (failed, _) = run(rollout, [said(1, Health::Fail)]);
    assert_eq!(verdict(&failed), (Final::Stopped, "the health of wave 1 failed: 5 errors/s"));
}

#[test]
fn what_is_inconclusive_pauses_and_is_asked_again() {
    let strategy = Strategy { health: health(), ..Strategy::default() };
    let events = [Event::Begin].into_iter().chain(through(1, good())).chain([said(1, Health::Inconclusive)]);
    let (rollout, _) = run(with(strategy, 2, &["1", "2"]), events);
    assert_eq!(rollout.as_str(), "paused");
    let (rollout, commands) = run(rollout, [said(1, Health::Pass)]);
    assert_eq!(commands, [], "a person decides");
    let (rollout, commands) = pressed(rollout, Verb::Resume);
    assert_eq!(commands, [Command::Probe { wave: 1 }]);
    let (_, commands) = run(rollout, [said(1, Health::Pass)]);
    assert_eq!(commands, [find(2)]);
}

#[test]
fn servers_are_confirmed_when_their_whole_wave_is_good() {
    let strategy = Strategy { health: health(), confirm_ms: 60_000, ..Strategy::default() };
    let events = [
        Event::Begin,
        about(1, News::Ready),
        about(2, News::Ready),
        about(1, News::Confirming),
        about(2, News::Accepted),
    ];
    let (rollout, commands) = run(with(strategy, 3, &["2", "3"]), events);
    assert!(!commands.iter().any(|it| matches!(it, Command::Confirm { .. } | Command::Probe { .. })));
    let (rollout, commands) = run(rollout, [about(2, News::Confirming)]);
    assert_eq!(commands, [Command::Probe { wave: 1 }]);
    let confirm = |n| Command::Confirm { server: server(n) };
    let (passed, commands) = run(rollout.clone(), [said(1, Health::Pass)]);
    assert_eq!(commands, [confirm(1), confirm(2)]);
    let (passed, commands) = run(passed, [ended(1, good())]);
    assert_eq!(commands, [], "not confirmed twice, and the wave has not ended");
    let (_, commands) = run(passed, [ended(2, good())]);
    assert_eq!(commands, [find(3)]);

    let (stopping, commands) = run(rollout, [said(1, Health::Fail)]);
    let cancel = |n| Command::Cancel {
        server: server(n),
        because: "the rollout stopped: the health of wave 1 failed: 5 errors/s".into(),
    };
    assert_eq!(commands, [cancel(1), cancel(2)], "those that wait are sent back");
    let (stopped, _) = run(stopping, [ended(1, returned()), ended(2, returned())]);
    assert_eq!(verdict(&stopped).0, Final::Returned);
}

#[test]
fn a_planned_start_waits_for_its_time() {
    let mut asked = request(Kind::Deploy, 1, &[], Strategy::default());
    asked.not_before = UnixMs(90_000);
    let rollout = plan(asked).unwrap();
    assert_eq!(rollout.wake(), Some(UnixMs(90_000)));
    assert_eq!(explain(&rollout, UnixMs(0)), "begins in 1m30s");
}
