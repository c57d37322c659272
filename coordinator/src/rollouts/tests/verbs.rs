//! Verbs through the store: refused where they are not legal, recorded where they are.

use super::*;

#[tokio::test]
async fn every_verb_is_recorded_with_who_and_why() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&["1", "2"]).await.unwrap().row.id;
    let order = one.order().await;
    let press = async |verb, reason: &str| fixture.controller.press(id.as_str(), verb, reason, "ann").await;
    press(Verb::Pause, "lunch").await.unwrap();
    press(Verb::Resume, "").await.unwrap();
    press(Verb::SkipServer { server: "web-2".parse().unwrap() }, "broken disk").await.unwrap();
    one.end(&order, succeeded()).await;
    let history = store::history(fixture.store.read(), &id, 100).await.unwrap();
    let lines: Vec<String> =
        history.iter().map(|row| format!("{}|{}|{}", row.who, row.what, row.because)).collect();
    assert_eq!(
        lines,
        [
            "ann|start|",
            "|wave 1|wave 1 of 2: web-1 is waited for to connect",
            "ann|pause|lunch",
            "|paused|paused: paused by ann: lunch; wave 1 of 2: web-1 runs",
            "ann|resume|",
            "|wave 1|wave 1 of 2: web-1 runs",
            "ann|skip web-2|broken disk",
            "|partial|web-2 skipped: left out by ann: broken disk",
        ]
    );
}

#[tokio::test]
async fn a_verb_that_is_not_legal_changes_nothing() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    let before = fixture.controller.show_exactly(&id).await.unwrap().row;
    for verb in [Verb::Resume, Verb::Retry, Verb::SkipServer { server: "web-1".parse().unwrap() }] {
        let refused = fixture.controller.press(id.as_str(), verb, "", "ann").await.unwrap_err();
        assert_eq!(refused.code(), "not-now", "{refused}");
    }
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().row, before);
    let unknown = fixture.controller.press("0000abcd", Verb::Abort, "", "ann").await.unwrap_err();
    assert_eq!(unknown.code(), "rollout-unknown");
    one.end(&order, succeeded()).await;
    for verb in [Verb::Pause, Verb::Abort, Verb::Retry] {
        let refused = fixture.controller.press(id.as_str(), verb, "", "ann").await.unwrap_err();
        assert_eq!(refused.code(), "not-now", "{refused}");
    }
}

#[tokio::test]
async fn of_two_operators_who_press_opposite_verbs_both_are_answered_and_one_state_stands() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    let (abort, pause) = tokio::join!(
        fixture.controller.press(id.as_str(), Verb::Abort, "", "ann"),
        fixture.controller.press(id.as_str(), Verb::Pause, "", "ben"),
    );
    assert!(abort.is_ok(), "an abort is legal before and after a pause");
    if let Err(refused) = pause {
        assert_eq!(refused.code(), "not-now", "{refused}");
    }
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().state(), "aborting");
    let cancel = one.order().await;
    assert!(matches!(cancel.order, OrderKind::Cancel { .. }));
    one.expect_nothing();
    one.end(&order, DeploymentOutcome::Cancelled { because: "told to".into() }).await;
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().exit_code(), 5);
}

#[tokio::test]
async fn a_retried_server_is_not_judged_by_what_its_old_deployment_says_late() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let old = one.order().await;
    fixture.controller.refused(&one.server, &old.id, "disk-full", "no space").await.unwrap();
    fixture.controller.press(id.as_str(), Verb::Retry, "", "ann").await.unwrap();
    let new = one.order().await;
    one.accept(&new).await;
    // However it came to that: the old deployment went on after all.
    one.accept(&old).await;
    one.end(&old, succeeded()).await;
    assert_eq!(fixture.states(&id).await, ["running"]);
    one.end(&new, succeeded()).await;
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().exit_code(), 0);
}

#[tokio::test]
async fn a_refusal_of_an_order_that_a_retry_replaced_decides_nothing() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let old = one.order().await;
    fixture.controller.refused(&one.server, &old.id, "busy", "another one runs").await.unwrap();
    fixture.controller.press(id.as_str(), Verb::Retry, "", "ann").await.unwrap();
    let new = one.order().await;
    one.accept(&new).await;
    for order in [&old, &new] {
        fixture.controller.refused(&one.server, &order.id, "busy", "another one runs").await.unwrap();
    }
    assert_eq!(
        fixture.states(&id).await,
        ["running"],
        "it was accepted, whatever was said of another delivery"
    );
}

#[tokio::test]
async fn what_is_not_the_newest_is_not_taken_up_again() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let old = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.end(&order, DeploymentOutcome::Failed { because: "exit code 1".into() }).await;
    fixture.start(&[]).await.unwrap();
    let refused = fixture.controller.press(old.as_str(), Verb::Retry, "", "ann").await.unwrap_err();
    assert_eq!(refused.code(), "superseded", "{refused}");
}

#[tokio::test]
async fn a_server_that_is_gone_in_the_middle_is_said_to_be_gone() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().because(), "wave 1 of 1: web-1 runs");
    fixture.sessions.ended(&one.session);
    let because = fixture.controller.show_exactly(&id).await.unwrap().because();
    assert_eq!(because, "wave 1 of 1: web-1 runs; web-1 is not connected");
}
