//! Steps that one server runs for all.

use consign_common::{
    name::StepName,
    trust::{DecisionAction, OnceWord},
};

use super::*;

fn step() -> StepName {
    "migrate".parse().unwrap()
}

fn once(servers: usize, waves: &[&str]) -> Rollout {
    let strategy = Strategy { failures: 1, ..Strategy::default() };
    let mut asked = request(Kind::Deploy, servers, waves, strategy);
    asked.once.insert(step());
    let begun = [Event::Begin].into_iter().chain((1..=servers).map(|n| about(n, News::Ready)));
    run(plan(asked).unwrap(), begun).0
}

fn awaiting(n: usize) -> Event {
    about(n, News::Awaiting { step: step() })
}

fn told(n: usize, word: OnceWord) -> Command {
    Command::Once { server: server(n), step: step(), word }
}

fn ends(n: usize, how: StepEnd) -> Event {
    about(n, News::StepEnded { step: step(), how })
}

fn started(n: usize) -> [Event; 2] {
    [about(n, News::Answered), about(n, News::StepStarted { step: step() })]
}

fn broken() -> StepEnd {
    StepEnd::Failed { because: "exit code 1".into() }
}

#[test]
fn the_first_in_order_runs_it_however_fast_the_others_are() {
    let (rollout, commands) = run(once(3, &[]), [awaiting(2), awaiting(3)]);
    assert_eq!(commands, [], "web-1 is under way and may want it");
    let (rollout, commands) = run(rollout, [ends(1, StepEnd::Skipped)]);
    assert_eq!(commands, [told(2, OnceWord::Run {})], "its condition is false there");
    let (rollout, commands) = run(rollout, started(2).into_iter().chain([ends(2, StepEnd::Succeeded)]));
    let done = OnceWord::Done { server: server(2) };
    assert_eq!(commands, [told(3, done)]);
    assert_eq!(rollout.once[&step()].state, OnceState::Done { server: server(2) });
}

#[test]
fn a_failure_is_told_when_it_is_final() {
    let (rollout, _) = run(once(2, &[]), [awaiting(1), awaiting(2)]);
    let (rollout, commands) = run(rollout, started(1).into_iter().chain([ends(1, broken())]));
    assert_eq!(commands, [], "it may be tried again");
    let again = [about(1, News::StepStarted { step: step() }), ends(1, broken())];
    let (rollout, commands) = run(rollout, again);
    assert_eq!(commands, []);
    let (_, commands) = run(rollout, [ended(1, failed())]);
    let word = OnceWord::Failed { server: server(1), because: "exit code 1".into() };
    assert_eq!(commands, [told(2, word)]);
}

#[test]
fn a_server_that_never_began_leaves_it_to_the_next() {
    let (rollout, commands) = run(once(2, &[]), [awaiting(1), awaiting(2)]);
    assert_eq!(commands, [told(1, OnceWord::Run {})]);
    let (_, commands) = run(rollout, [about(1, News::Answered), ended(1, failed())]);
    assert_eq!(commands, [told(2, OnceWord::Run {})]);
}

#[test]
fn nobody_runs_it_after_an_unknown_outcome_until_a_person_decides() {
    let (rollout, _) = run(once(2, &[]), [awaiting(1), awaiting(2)]);
    let undecided = about(1, News::Undecided { step: step(), because: "power".into() });
    let (rollout, commands) = run(rollout, started(1).into_iter().chain([undecided]));
    let stopped = "the rollout stopped: web-1 is unknown: step migrate: power";
    assert_eq!(commands, [Command::Cancel { server: server(2), because: stopped.into() }]);
    let cancelled = End::Cancelled { because: "told to".into() };
    let (rollout, _) = run(rollout, [ended(2, cancelled)]);
    assert_eq!(verdict(&rollout).0, Final::Unknown);
    let illegal = press(rollout.clone(), Verb::Retry, "", UnixMs(0)).unwrap_err();
    assert!(matches!(illegal, Illegal::NothingToRetry { .. }), "{illegal}");

    let decide = Verb::Decide { server: server(1), step: step(), action: DecisionAction::Done };
    let (rollout, commands) = pressed(rollout, decide);
    let decide = Command::Decide {
        server: server(1),
        step: step(),
        action: DecisionAction::Done,
        because: "asked by ann".into(),
    };
    assert_eq!(commands, [decide]);
    let decided = News::Decided { step: step(), action: DecisionAction::Done, because: "seen".into() };
    let (rollout, _) = run(rollout, [about(1, decided), ended(1, good())]);
    assert_eq!((states(&rollout), verdict(&rollout).0), (vec!["succeeded", "cancelled"], Final::Stopped));
    let (rollout, _) = pressed(rollout, Verb::Retry);
    let (_, commands) = run(rollout, [Event::Begin, about(2, News::Ready), awaiting(2)]);
    assert_eq!(commands, [find(2), order(2), told(2, OnceWord::Done { server: server(1) })]);
}

#[test]
fn a_server_that_is_lost_with_it_is_decided_about_without_it() {
    let (rollout, _) = run(once(2, &[]), [awaiting(1), awaiting(2)]);
    let (rollout, _) = run(rollout, started(1));
    let (rollout, _) = pressed(rollout, Verb::Abort);
    let cancelled = End::Cancelled { because: "told to".into() };
    let (rollout, _) = run(rollout, [ended(2, cancelled), about(1, News::Absent)]);
    assert!(matches!(rollout.once[&step()].state, OnceState::Unknown { .. }));
    let (retried, _) = pressed(rollout.clone(), Verb::Retry);
    let (_, commands) = run(retried, [Event::Begin, about(2, News::Ready), awaiting(2)]);
    assert!(!commands.contains(&told(2, OnceWord::Run {})), "a retry alone does not risk it");

    let again = Verb::Decide { server: server(1), step: step(), action: DecisionAction::Again };
    let (rollout, commands) = pressed(rollout.clone(), again);
    let cancel = Command::Cancel { server: server(1), because: "asked by ann".into() };
    assert_eq!(commands, [cancel], "should it come back, it does not run it after all");
    let (rollout, _) = pressed(rollout, Verb::Retry);
    let (_, commands) =
        run(rollout, [Event::Begin, about(1, News::Absent), about(2, News::Ready), awaiting(2)]);
    assert!(commands.contains(&told(2, OnceWord::Run {})), "{commands:?}");
}

#[test]
fn the_word_of_a_server_that_comes_back_is_the_truth() {
    let (rollout, _) = run(once(1, &[]), [awaiting(1)]);
    let (rollout, _) = run(rollout, started(1));
    let (rollout, _) = pressed(rollout, Verb::Abort);
    let (rollout, _) = run(rollout, [about(1, News::Absent)]);
    assert_eq!(verdict(&rollout).0, Final::Unknown);
    let (rollout, _) = run(rollout, [ends(1, StepEnd::Succeeded), ended(1, good())]);
    assert_eq!(rollout.once[&step()].state, OnceState::Done { server: server(1) });
    assert_eq!((states(&rollout), verdict(&rollout).0), (vec!["succeeded"], Final::Aborted));
}

#[test]
fn a_decision_settles_what_stopped_the_rollout() {
    let undecided = about(1, News::Undecided { step: step(), because: "power".into() });
    let (rollout, _) = run(once(1, &[]), [undecided]);
    assert_eq!(verdict(&rollout).0, Final::Unknown);
    let decided = News::Decided { step: step(), action: DecisionAction::Done, because: "seen".into() };
    let (rollout, _) = run(rollout, [about(1, decided), ended(1, good())]);
    assert_eq!(verdict(&rollout), (Final::Succeeded, "1 server succeeded"));
}
