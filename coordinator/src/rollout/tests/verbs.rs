//! What a person may do, and when.

use consign_common::trust::DecisionAction;

use super::*;

fn refused(rollout: &Rollout, verb: Verb) -> String {
    press(rollout.clone(), verb, "asked by ann", UnixMs(0)).unwrap_err().to_string()
}

#[test]
fn a_pause_holds_back_orders_and_lets_what_runs_go_on() {
    let events = [Event::Begin, about(1, News::Ready), about(1, News::Accepted)];
    let (rollout, _) = run(planned(Kind::Deploy, 3, &["2", "3"]), events);
    let (rollout, _) = pressed(rollout, Verb::Pause);
    assert_eq!(rollout.as_str(), "paused");
    let (rollout, commands) = run(rollout, [about(2, News::Ready), ended(1, good())]);
    assert_eq!(commands, [], "web-2 had not been ordered");
    assert_eq!(refused(&rollout, Verb::Pause), "cannot pause: the rollout is paused; it must be running");
    let (rollout, commands) = pressed(rollout, Verb::Resume);
    assert_eq!(commands, [find(2)]);
    assert_eq!(refused(&rollout, Verb::Resume), "cannot resume: the rollout is running; it must be paused");
}

#[test]
fn abort_cancels_what_runs_lets_returns_finish_and_gives_up_on_the_absent() {
    let events = [Event::Begin, about(1, News::Ready), about(2, News::Ready), about(2, News::Returning)];
    let (rollout, _) = run(planned(Kind::Deploy, 4, &["3", "100%"]), events);
    let (rollout, commands) = pressed(rollout, Verb::Abort);
    assert_eq!(commands, [Command::Cancel { server: server(1), because: "asked by ann".into() }]);
    assert_eq!(states(&rollout), ["ordered", "returning", "not-reached", "not-reached"]);
    let (gone, _) = run(rollout.clone(), [ended(2, returned()), about(1, News::Absent)]);
    assert_eq!(verdict(&gone).0, Final::Unknown);
    let cancelled = End::Cancelled { because: "told to".into() };
    let (done, _) = run(rollout.clone(), [ended(1, cancelled), ended(2, returned())]);
    assert_eq!(verdict(&done), (Final::Aborted, "asked by ann"));
    assert_eq!(pressed(rollout.clone(), Verb::Abort), (rollout, vec![]), "asked twice it is asked once");
    let legal = "it must be queued, running, paused or stopping";
    assert_eq!(refused(&done, Verb::Abort), format!("cannot abort: the rollout is aborted; {legal}"));
}

#[test]
fn a_queued_rollout_is_aborted_at_once() {
    let (rollout, commands) = pressed(planned(Kind::Deploy, 2, &[]), Verb::Abort);
    assert_eq!((commands, verdict(&rollout).0), (vec![], Final::Aborted));
}

#[test]
fn a_retry_takes_those_that_failed_and_those_that_were_not_reached() {
    let events = [Event::Begin].into_iter().chain(through(1, good())).chain(through(2, failed()));
    let (rollout, _) = run(planned(Kind::Deploy, 3, &["1", "2", "3"]), events);
    assert_eq!(verdict(&rollout).0, Final::Stopped);
    let (rollout, _) = pressed(rollout, Verb::Retry);
    assert_eq!(states(&rollout), ["succeeded", "pending", "pending"]);
    let (rollout, commands) = run(rollout, [Event::Begin]);
    assert_eq!(commands, [find(2)], "waves go on from there");
    let (rollout, _) = run(rollout, through(2, good()).into_iter().chain(through(3, good())));
    assert_eq!(verdict(&rollout).0, Final::Succeeded);
    assert_eq!(refused(&rollout, Verb::Retry), "nothing to retry: no server failed or was not reached");
}

#[test]
fn a_server_is_left_out_until_it_is_ordered() {
    let (rollout, _) = run(planned(Kind::Deploy, 2, &["1", "2"]), [Event::Begin, about(1, News::Ready)]);
    let (rollout, _) = pressed(rollout, Verb::SkipServer { server: server(2) });
    assert_eq!(states(&rollout), ["ordered", "skipped"]);
    let told = refused(&rollout, Verb::SkipServer { server: server(1) });
    assert!(told.starts_with("cannot leave web-1 out: it is ordered"), "{told}");
    assert_eq!(refused(&rollout, Verb::SkipServer { server: server(9) }), "web-9 is not in this rollout");
    let (rollout, _) = run(rollout, [ended(1, good())]);
    assert_eq!(verdict(&rollout).0, Final::Partial);
}

#[test]
fn a_step_is_left_out_where_it_runs_and_where_it_will() {
    let (rollout, _) = run(planned(Kind::Deploy, 2, &["1", "2"]), [Event::Begin, about(1, News::Ready)]);
    let step: consign_common::name::StepName = "warm_up".parse().unwrap();
    let (rollout, commands) = pressed(rollout, Verb::SkipStep { step: step.clone(), server: None });
    assert!(matches!(commands.as_slice(), [Command::Decide { action: DecisionAction::Skip, .. }]));
    assert_eq!(rollout.skips_on(&server(2)), [step]);
}

#[test]
fn only_what_is_unknown_is_decided() {
    let (rollout, _) = run(planned(Kind::Deploy, 1, &[]), [Event::Begin, about(1, News::Ready)]);
    let decide = |step: &str| Verb::Decide {
        server: server(1),
        step: step.parse().unwrap(),
        action: DecisionAction::Again,
    };
    let told = refused(&rollout, decide("migrate"));
    assert_eq!(
        told,
        "nothing to decide: the outcome of step migrate on web-1 is not unknown (web-1 is ordered)"
    );
    let undecided = News::Undecided { step: "migrate".parse().unwrap(), because: "power".into() };
    let (rollout, _) = run(rollout, [about(1, undecided)]);
    let told = refused(&rollout, decide("restart"));
    assert_eq!(told, "web-1 waits for a decision on step migrate, not on restart");
    let (_, commands) = pressed(rollout, decide("migrate"));
    assert!(matches!(commands.as_slice(), [Command::Decide { .. }]));
}

#[test]
fn what_only_an_unknown_outcome_stopped_has_succeeded_once_that_is_decided_well() {
    let undecided = News::Undecided { step: "migrate".parse().unwrap(), because: "power".into() };
    let decided =
        |action| about(1, News::Decided { step: "migrate".parse().unwrap(), action, because: "seen".into() });
    let begun = [Event::Begin, about(1, News::Ready), about(2, News::Ready)];
    let all = begun.into_iter().chain([about(1, undecided), ended(2, good())]);
    let (rollout, _) = run(planned(Kind::Deploy, 2, &[]), all);
    assert_eq!(verdict(&rollout).0, Final::Unknown);

    let (whole, _) = run(rollout.clone(), [decided(DecisionAction::Done)]);
    assert_eq!(verdict(&whole).0, Final::Unknown, "not before it ends");
    let (whole, _) = run(whole, [ended(1, good())]);
    assert_eq!(verdict(&whole), (Final::Succeeded, "2 servers succeeded"));

    let (failed, _) = run(rollout, [decided(DecisionAction::Failed), ended(1, failed())]);
    assert_eq!(verdict(&failed).0, Final::Stopped);
}

#[test]
fn a_server_that_was_given_up_does_not_wait_for_a_word_for_ever() {
    let begun =
        run(planned(Kind::Deploy, 1, &[]), [Event::Begin, about(1, News::Ready), about(1, News::Accepted)]);
    let (rollout, _) = pressed(begun.0, Verb::Abort);
    let (rollout, _) = run(rollout, [about(1, News::Absent)]);
    assert_eq!(verdict(&rollout).0, Final::Unknown);
    for news in [News::Awaiting { step: "migrate".parse().unwrap() }, News::Confirming] {
        let (after, commands) = run(rollout.clone(), [about(1, news)]);
        assert!(matches!(commands.as_slice(), [Command::Cancel { .. }]), "{commands:?}");
        let cancelled = End::Cancelled { because: "given up".into() };
        let (after, _) = run(after, [ended(1, cancelled)]);
        assert_eq!(states(&after), ["cancelled"], "its own word is the truth");
    }
}
