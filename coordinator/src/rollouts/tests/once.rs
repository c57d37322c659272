//! A `once` step from the plan to the orders and back.

use consign_common::{deployment::StepOutcome, trust::OnceWord};

use super::*;

fn word(order: &Order) -> &OnceWord {
    let OrderKind::Once { step, word } = &order.order else { panic!("{order:?}") };
    assert_eq!(step.as_str(), "migrate");
    word
}

#[tokio::test]
async fn one_server_runs_it_and_the_other_is_told() {
    use consign_common::deployment::Event;
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let (mut one, mut two) = (fixture.connect("web-1").await, fixture.connect("web-2").await);
    let id = fixture.start_of("shop", "once", "production", "").await.unwrap().row.id;
    let (first, second) = (one.order().await, two.order().await);
    one.accept(&first).await;
    two.accept(&second).await;
    two.tell(&second, &Event::Awaiting { step: 0 }).await;
    two.expect_nothing();
    one.tell(&first, &Event::Awaiting { step: 0 }).await;
    assert_eq!(fixture.states(&id).await, ["awaiting", "awaiting"]);
    let because = fixture.controller.show_exactly(&id).await.unwrap().because();
    assert!(because.contains("web-2 waits for step migrate, which runs once, on web-1"), "{because}");

    // Told once: a session that breaks gets the same order again.
    let run = one.order().await;
    assert_eq!(word(&run), &OnceWord::Run {});
    let mut again = fixture.connect("web-1").await;
    assert_eq!(again.order().await, run);
    one.tell(&first, &Event::Answered { order: run.id.clone(), step: 0, word: OnceWord::Run {} }).await;
    let mut again = fixture.connect("web-1").await;
    again.expect_nothing();

    one.migrate(&first, StepOutcome::Succeeded).await;
    let done = two.order().await;
    assert_eq!(word(&done), &OnceWord::Done { server: "web-1".parse().unwrap() });
}

#[tokio::test]
async fn what_is_unknown_on_one_server_is_decided_by_a_person_and_the_rest_follows() {
    use consign_common::{deployment::Event, plan::Phase, trust::DecisionAction};
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let (mut one, mut two) = (fixture.connect("web-1").await, fixture.connect("web-2").await);
    let id = fixture.start_of("shop", "once", "production", "").await.unwrap().row.id;
    let (first, second) = (one.order().await, two.order().await);
    one.accept(&first).await;
    two.accept(&second).await;
    two.tell(&second, &Event::Awaiting { step: 0 }).await;
    one.tell(&first, &Event::Awaiting { step: 0 }).await;
    let run = one.order().await;
    one.tell(&first, &Event::Answered { order: run.id, step: 0, word: OnceWord::Run {} }).await;
    let attempt = consign_common::deployment::Attempt { phase: Phase::Deploy, step: 0, number: 1 };
    one.tell(&first, &Event::Started { attempt, boot_id: "b".into() }).await;
    let undecided = Event::Undecided { phase: Phase::Deploy, step: 0, because: "power".into() };
    one.tell(&first, &undecided).await;
    let cancel = two.order().await;
    assert!(matches!(cancel.order, OrderKind::Cancel { .. }), "{cancel:?}");
    two.end(&second, DeploymentOutcome::Cancelled { because: "told to".into() }).await;
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("unknown", 7));
    assert!(shown.because().contains("step migrate: power; it waits for"), "{}", shown.because());

    let decide =
        |action| Verb::Decide { server: "web-1".parse().unwrap(), step: "migrate".parse().unwrap(), action };
    fixture.controller.press(id.as_str(), decide(DecisionAction::Done), "looked", "ann").await.unwrap();
    let order = one.order().await;
    let OrderKind::Decide { action: DecisionAction::Done, reason, .. } = &order.order else {
        panic!("{order:?}")
    };
    assert_eq!(reason, "decided by ann: looked");
    let decided = Event::Decided {
        order: order.id.clone(),
        phase: Phase::Deploy,
        step: 0,
        action: DecisionAction::Done,
        reason: reason.clone(),
    };
    one.tell(&first, &decided).await;
    one.end(&first, succeeded()).await;
    fixture.controller.press(id.as_str(), Verb::Retry, "", "ann").await.unwrap();
    let retried = two.order().await;
    assert_ne!(retried.deployment, second.deployment);
    assert!(retried.term > second.term, "a retry has a term of its own");
    two.accept(&retried).await;
    two.tell(&retried, &Event::Awaiting { step: 0 }).await;
    assert_eq!(word(&two.order().await), &OnceWord::Done { server: "web-1".parse().unwrap() });
    two.end(&retried, succeeded()).await;
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("succeeded", 0));
}
