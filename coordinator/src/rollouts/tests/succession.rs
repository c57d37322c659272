//! What begins by itself, and what keeps it from that.

use consign_common::time::UnixMs;

use super::*;
use crate::rollout::{Offline, OnStop, Strategy};

fn queued(fixture: &Fixture, queueing: Queueing) -> StartRequest {
    StartRequest { queueing, again: Again::Force, ..fixture.request(&[]) }
}

#[tokio::test]
async fn one_runs_and_the_next_one_begins_when_it_has_ended() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    fixture.start(&[]).await.unwrap();
    let first = one.order().await;
    let second = fixture.controller.start(queued(&fixture, Queueing::Queue)).await.unwrap();
    assert_eq!(
        (second.state(), second.because().as_str()),
        ("queued", "waits for the rollout before it to end")
    );
    one.expect_nothing();
    one.accept(&first).await;
    one.end(&first, succeeded()).await;
    let order = one.order().await;
    assert_eq!((&order.rollout, order.term), (&second.row.id, 2));
}

#[tokio::test]
async fn what_is_asked_twice_is_not_queued_behind_itself() {
    let fixture = Fixture::new(&["web-1"]).await;
    let first = fixture.start(&[]).await.unwrap().row.id;
    let request = StartRequest { queueing: Queueing::Queue, ..fixture.request(&[]) };
    let refused = fixture.controller.start(request).await.unwrap_err();
    assert_eq!(refused.code(), "busy");
    assert!(refused.to_string().contains(first.as_str()), "{refused}");
}

#[tokio::test]
async fn of_those_that_wait_only_the_newest_goes_where_it_is_asked_to_supersede() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let running = fixture.start(&[]).await.unwrap().row.id;
    let old = fixture.controller.start(queued(&fixture, Queueing::Queue)).await.unwrap().row.id;
    let new = fixture.controller.start(queued(&fixture, Queueing::Supersede)).await.unwrap().row.id;
    let shown = fixture.controller.show_exactly(&old).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("aborted", 5));
    assert!(shown.because().contains("superseded by shop 2"), "{}", shown.because());
    assert_eq!(fixture.controller.show_exactly(&running).await.unwrap().state(), "running");
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    assert_eq!(one.order().await.rollout, new);
}

#[tokio::test]
async fn after_a_rollback_nothing_begins_by_itself_until_the_hold_is_lifted() {
    let fixture = Fixture::new(&["web-1"]).await;
    fixture.deployed_before(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    fixture.start(&[]).await.unwrap();
    let order = one.order().await;
    one.accept(&order).await;
    let waiting = fixture.controller.start(queued(&fixture, Queueing::Queue)).await.unwrap().row.id;
    let back = fixture.rollback("").await.unwrap().row.id;
    let cancel = one.order().await;
    assert!(matches!(cancel.order, OrderKind::Cancel { .. }), "{cancel:?}");
    one.end(&order, DeploymentOutcome::Cancelled { because: "told to".into() }).await;
    fixture.until(&back, |shown| shown.row.is_ended()).await;
    one.expect_nothing();
    let held = fixture.controller.show_exactly(&waiting).await.unwrap();
    assert_eq!(held.state(), "queued");
    assert!(held.because().starts_with("held: rolled back from 2: "), "{}", held.because());
    let (app, environment) = (held.row.app.clone(), held.row.environment.clone());
    fixture.controller.lift_hold(&app, &environment, "it is mended", "ann").await.unwrap();
    assert_eq!(one.order().await.rollout, waiting);
    let again = fixture.controller.lift_hold(&app, &environment, "it is mended", "ann").await.unwrap_err();
    assert_eq!(again.code(), "no-hold");
}

#[tokio::test]
async fn a_person_may_start_what_a_hold_keeps_from_starting_by_itself() {
    let fixture = Fixture::new(&["web-1"]).await;
    fixture.deployed_before(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    fixture.start(&[]).await.unwrap();
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    let back = fixture.rollback("").await.unwrap().row.id;
    let order = one.order().await;
    one.end(&order, DeploymentOutcome::Returned { because: "told to".into() }).await;
    assert!(fixture.controller.show_exactly(&back).await.unwrap().row.is_ended());
    let mut request = fixture.request(&[]);
    request.again = Again::Force;
    // A later millisecond: what was asked for before the hold waits for it.
    fixture.later(back).await;
    assert_eq!(fixture.controller.start(request).await.unwrap().state(), "running");
    assert_eq!(one.order().await.term, 3);
}

#[tokio::test]
async fn owed_and_new_servers_get_what_runs_when_they_connect() {
    let fixture = Fixture::new(&["web-1", "web-2", "web-3"]).await;
    let mut one = fixture.connect("web-1").await;
    let strategy = Strategy { offline: Offline::Owe, ..Strategy::default() };
    let selector: crate::fleet::Selector = "web-1,web-2".parse().unwrap();
    let request =
        StartRequest { strategy, selector, selector_text: "role=web".into(), ..fixture.request(&[]) };
    let id = fixture.controller.start(request).await.unwrap().row.id;
    let order = one.order().await;
    assert!(matches!(order.order, OrderKind::Deploy { converge: false, .. }), "{order:?}");
    one.end(&order, succeeded()).await;
    fixture.until(&id, |shown| shown.row.is_ended()).await;
    assert_eq!(fixture.states(&id).await, ["succeeded", "owed"]);
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().exit_code(), 7);

    let mut two = fixture.connect("web-2").await;
    let order = two.order().await;
    assert_eq!(order.rollout, id);
    assert!(matches!(order.order, OrderKind::Deploy { converge: true, .. }), "{order:?}");
    let mut twice = fixture.connect("web-2").await;
    assert_eq!(twice.order().await, order, "the same order again, not a second one");
    two.accept(&order).await;
    two.end(&order, succeeded()).await;
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().exit_code(), 0);

    let mut three = fixture.connect("web-3").await;
    let order = three.order().await;
    assert_eq!(order.rollout, id, "it was not there when the rollout was planned");
    three.end(&order, DeploymentOutcome::Failed { because: "exit code 1".into() }).await;
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.exit_code(), fixture.states(&id).await), (0, vec!["failed", "succeeded", "succeeded"]));
}

#[tokio::test]
async fn a_stopped_rollout_brings_back_what_it_brought() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    fixture.deployed_before(&["web-1", "web-2"]).await;
    let (mut one, mut two) = (fixture.connect("web-1").await, fixture.connect("web-2").await);
    let strategy = Strategy { on_stop: OnStop::Rollback, ..Strategy::default() };
    let request = StartRequest { strategy, ..fixture.request(&["1", "2"]) };
    let id = fixture.controller.start(request).await.unwrap().row.id;
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    let order = two.order().await;
    two.end(&order, DeploymentOutcome::Returned { because: "unhealthy".into() }).await;
    let back = one.order().await;
    assert!(matches!(back.order, OrderKind::Return { .. }), "{back:?}");
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.exit_code(), shown.row.rolled_back_by.as_ref()), (3, Some(&back.rollout)));
    two.expect_nothing();
    one.end(&back, DeploymentOutcome::Returned { because: "told to".into() }).await;
    assert_eq!(fixture.controller.show_exactly(&back.rollout).await.unwrap().exit_code(), 0);
    assert!(shown.hold.is_some(), "and nothing begins by itself now");
}

#[tokio::test]
async fn a_planned_start_begins_at_its_time_also_after_a_restart() {
    let fixture = Fixture::new(&["web-1"]).await;
    let soon = UnixMs(fixture.now().0 + 300);
    let request = StartRequest { not_before: soon, ..fixture.request(&[]) };
    let id = fixture.controller.start(request).await.unwrap().row.id;
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().state(), "queued");
    let fixture = fixture.restarted().await;
    let mut one = fixture.connect("web-1").await;
    let time = tokio::spawn(std::sync::Arc::clone(&fixture.controller).keep_time());
    let order = one.order().await;
    assert!(order.issued >= soon, "{} before {soon}", order.issued);
    time.abort();
}

#[tokio::test]
async fn a_bake_is_over_in_time() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let (mut one, mut two) = (fixture.connect("web-1").await, fixture.connect("web-2").await);
    let strategy = Strategy { bake_ms: 200, ..Strategy::default() };
    let request = StartRequest { strategy, ..fixture.request(&["1", "2"]) };
    fixture.controller.start(request).await.unwrap();
    let time = tokio::spawn(std::sync::Arc::clone(&fixture.controller).keep_time());
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    let baked_from = fixture.now();
    two.expect_nothing();
    let order = two.order().await;
    assert!(order.issued.0 >= baked_from.0 + 150, "{} after {baked_from}", order.issued);
    time.abort();
}

#[tokio::test]
async fn a_rollback_goes_before_what_waits_also_when_nothing_runs_that_it_must_end() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    fixture.deployed_before(&["web-1", "web-2"]).await;
    let (mut one, mut two) = (fixture.connect("web-1").await, fixture.connect("web-2").await);
    let strategy = Strategy { bake_ms: 600_000, ..Strategy::default() };
    let request = StartRequest { strategy, ..fixture.request(&["1", "2"]) };
    let baking = fixture.controller.start(request).await.unwrap().row.id;
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    let waiting = fixture.controller.start(queued(&fixture, Queueing::Queue)).await.unwrap().row.id;
    let back = fixture.rollback("").await.unwrap().row.id;
    let order = one.order().await;
    assert_eq!(order.rollout, back);
    assert!(matches!(order.order, OrderKind::Return { .. }), "{order:?}");
    two.expect_nothing();
    assert_eq!(fixture.controller.show_exactly(&baking).await.unwrap().exit_code(), 5);
    assert_eq!(fixture.controller.show_exactly(&waiting).await.unwrap().state(), "queued");
}

#[tokio::test]
async fn a_rollback_right_after_a_failure_does_not_go_one_too_far() {
    let fixture = Fixture::new(&["web-1"]).await;
    fixture.deployed_before(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    fixture.start(&[]).await.unwrap();
    let order = one.order().await;
    one.end(&order, DeploymentOutcome::Returned { because: "unhealthy".into() }).await;
    let refused = fixture.rollback("").await.unwrap_err();
    assert_eq!(refused.code(), "nothing-to-return-to");
    assert!(refused.to_string().contains("is returned, and no server has anything of it"), "{refused}");
}

#[tokio::test]
async fn what_is_owed_is_owed_also_after_rollouts_that_were_not_meant_for_the_server() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let strategy = Strategy { offline: Offline::Owe, ..Strategy::default() };
    let request = StartRequest { strategy, ..fixture.request(&[]) };
    let owed = fixture.controller.start(request).await.unwrap().row.id;
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    fixture.until(&owed, |shown| shown.row.is_ended()).await;
    let request = StartRequest { again: Again::Force, ..fixture.request(&[]) };
    let request =
        StartRequest { selector: "web-1".parse().unwrap(), selector_text: "web-1".into(), ..request };
    fixture.controller.start(request).await.unwrap();
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    let mut two = fixture.connect("web-2").await;
    assert_eq!(two.order().await.rollout, owed);
}
