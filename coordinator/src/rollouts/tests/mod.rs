//! The controller with a real store and scripted agents.

mod fixture;
mod following;
mod once;
mod promote;
mod restart;
mod succession;
mod verbs;

use consign_common::{
    deployment::DeploymentOutcome,
    digest::Sha256,
    trust::{Order, OrderKind},
};
use fixture::{Fixture, end, succeeded};

use super::*;
use crate::rollout::{ServerState, Verb};

#[tokio::test]
async fn waves_go_one_after_the_other_and_end_green() {
    let fixture = Fixture::new(&["web-1", "web-2", "web-3"]).await;
    let mut one = fixture.connect("web-1").await;
    let mut two = fixture.connect("web-2").await;
    let mut three = fixture.connect("web-3").await;
    let id = fixture.start(&["1", "100%"]).await.unwrap().row.id;
    let order = one.order().await;
    assert!(matches!(order.order, OrderKind::Deploy { force: false, .. }), "{order:?}");
    assert_eq!((order.term, &order.rollout), (1, &id));
    two.expect_nothing();
    one.accept(&order).await;
    assert_eq!(fixture.states(&id).await, ["running", "pending", "pending"]);
    one.end(&order, succeeded()).await;
    for agent in [&mut two, &mut three] {
        let order = agent.order().await;
        agent.accept(&order).await;
        agent.end(&order, succeeded()).await;
    }
    let shown = fixture.controller.show(id.short()).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("succeeded", 0));
    assert_eq!(shown.because(), "3 servers succeeded");
}

#[tokio::test]
async fn a_second_start_is_refused_and_names_the_active_one() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let first = fixture.start(&[]).await.unwrap().row.id;
    let refused = fixture.start(&[]).await.unwrap_err();
    assert_eq!(refused.code(), "busy");
    assert!(refused.to_string().contains(first.as_str()), "{refused}");
    let order = one.order().await;
    one.end(&order, succeeded()).await;
    assert_eq!(fixture.start(&[]).await.unwrap().row.term, 2, "every rollout raises the term");
}

#[tokio::test]
async fn an_absent_server_is_given_its_grace_and_one_that_comes_in_time_is_served() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let mut two = fixture.connect("web-2").await;
    let order = two.order().await;
    fixture.until(&id, |shown| shown.row.state.members[0].state.as_str() == "offline").await;
    two.accept(&order).await;
    two.end(&order, succeeded()).await;
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("stopped", 3));
    assert_eq!(fixture.states(&id).await, ["offline", "succeeded"]);
}

#[tokio::test]
async fn no_agent_touches_what_is_another_ones() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let mut two = fixture.connect("web-2").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let (theirs, own) = (one.order().await, two.order().await);
    let refused = two.report(&theirs, 1, &end(succeeded())).await.unwrap_err();
    assert!(matches!(refused, NotTaken::NotYours { .. }), "{refused}");
    let refused = fixture.controller.refused(&two.server, &theirs.id, "below-floor", "x").await.unwrap_err();
    assert!(matches!(refused, NotTaken::NotYours { .. }), "{refused}");
    two.accept(&own).await;
    assert_eq!(fixture.states(&id).await, ["ordered", "running"]);
}

#[tokio::test]
async fn events_are_taken_once_and_in_order() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    let gap = one.report(&order, 2, &end(succeeded())).await.unwrap_err();
    assert!(matches!(gap, NotTaken::Gap { expected: 1, .. }), "{gap}");
    one.accept(&order).await;
    assert_eq!(one.report(&order, 1, &end(succeeded())).await.unwrap(), Heard::Up(1), "heard already");
    assert_eq!(fixture.states(&id).await, ["running"]);
    let reported = Reported {
        deployment: order.deployment.clone(),
        sequence: 2,
        at: consign_common::time::UnixMs(1),
        body: b"{\"event\":\"ended\",\"event\":\"ended\"}".to_vec(),
        journal_position: 0,
    };
    let refused = fixture.controller.event(&one.server, &reported).await.unwrap_err();
    assert!(matches!(refused, NotTaken::Unreadable { .. }), "{refused}");
}

#[tokio::test]
async fn a_refused_order_ends_the_rollout_with_the_agents_reason() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    fixture.controller.refused(&one.server, &order.id, "below-floor", "too old").await.unwrap();
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("refused", 6));
    assert_eq!(shown.because(), "web-1 refused: below-floor: too old");
}

#[tokio::test]
async fn a_skewed_clock_gets_no_deploy_order() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect_with_clock("web-1", 2 * 3600 * 1000).await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    one.expect_nothing();
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!(shown.exit_code(), 3);
    assert!(shown.because().contains("clock-skew: its clock is 7200 s ahead of"), "{}", shown.because());
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name_before_any_server_hears_of_it() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let code = async |app, version, environment, only| {
        fixture.start_of(app, version, environment, only).await.unwrap_err().code()
    };
    assert_eq!(code("shop", "9", "production", "").await, "artifact-unknown");
    assert_eq!(code("blog", "2", "production", "").await, "app-unknown");
    assert_eq!(code("shop", "2", "staging", "").await, "environment-unknown");
    assert_eq!(code("shop", "2", "gated", "").await, "no-server");
    assert_eq!(code("shop", "2", "production", "web-9").await, "server-unknown");
    assert_eq!(code("shop", "2", "production", "role=db").await, "no-server");
    assert_eq!(code("shop", "param", "production", "").await, "config-invalid");
}

#[tokio::test]
async fn a_gate_is_closed_until_it_is_met_and_then_what_meets_it_goes_with_the_order() {
    let fixture = Fixture::gated(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let refused = fixture.start_of("shop", "2", "gated", "").await.unwrap_err();
    let NotStarted::Refused(refusal) = &refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code(), "approval-missing");
    assert!(refusal.is_of_trust(), "which is exit code 6");
    fixture.approve("2", "production", None).await;
    fixture.approve("1", "gated", None).await;
    assert_eq!(fixture.start_of("shop", "2", "gated", "").await.unwrap_err().code(), "approval-missing");
    one.expect_nothing();

    fixture.approve("2", "gated", None).await;
    fixture.start_of("shop", "2", "gated", "").await.unwrap();
    let papers = one.papers().await;
    assert_eq!(papers.statements.len(), 2, "the publication and the approval; none for elsewhere");
    assert!(papers.plan.is_empty() && papers.sealed.is_empty());
    let order = Order::parse(&papers.document).unwrap();
    assert!(matches!(order.order, OrderKind::Deploy { converge: false, .. }), "{order:?}");
}

#[tokio::test]
async fn an_approval_of_a_plan_lets_nothing_in_without_it() {
    let fixture = Fixture::gated(&["web-1"]).await;
    fixture.approve("2", "gated", Some(Sha256::of(b"a plan"))).await;
    assert_eq!(fixture.start_of("shop", "2", "gated", "").await.unwrap_err().code(), "plan-not-approved");
}

#[tokio::test]
async fn a_rollback_pre_empts_and_brings_back_those_that_have_it() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let mut two = fixture.connect("web-2").await;
    fixture.deployed_before(&["web-1", "web-2"]).await;
    let first = fixture.start(&["1", "100%"]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    one.end(&order, succeeded()).await;
    let running = two.order().await;
    two.accept(&running).await;

    let back = fixture.rollback("").await.unwrap();
    assert_eq!(back.state(), "queued");
    assert_eq!(fixture.rollback("").await.unwrap_err().code(), "busy");
    let cancel = two.order().await;
    assert!(matches!(cancel.order, OrderKind::Cancel { .. }), "{cancel:?}");
    one.expect_nothing();
    two.end(&running, DeploymentOutcome::Cancelled { because: "told to".into() }).await;
    assert_eq!(fixture.controller.show_exactly(&first).await.unwrap().exit_code(), 5);

    let order = one.order().await;
    let OrderKind::Return { manifest, .. } = order.order else { panic!("{order:?}") };
    assert_eq!(manifest, fixture.digest("1"));
    two.expect_nothing();
    one.accept(&order).await;
    one.end(&order, DeploymentOutcome::Returned { because: "told to".into() }).await;
    let shown = fixture.controller.show_exactly(&back.row.id).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("succeeded", 0), "{}", shown.because());
    assert_eq!(fixture.states(&back.row.id).await, ["succeeded", "no-op"]);
    assert_eq!(fixture.rollback("").await.unwrap_err().code(), "nothing-to-return-to", "only once");
}

#[tokio::test]
async fn an_abort_ends_a_server_that_never_comes_back_as_unknown() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    fixture.sessions.ended(&one.session);
    fixture.controller.press(id.as_str(), Verb::Abort, "wrong one", "ann").await.unwrap();
    fixture.until(&id, |shown| shown.row.is_ended()).await;
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!((shown.state(), shown.exit_code()), ("unknown", 7));
    assert!(matches!(shown.row.state.members[0].state, ServerState::Ended { .. }));
}

#[tokio::test]
async fn an_agent_that_lost_a_deployment_does_not_keep_an_abort_from_ending() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    fixture.controller.press(id.as_str(), Verb::Abort, "", "ann").await.unwrap();
    let cancel = one.order().await;
    fixture.controller.refused(&one.server, &cancel.id, "not-running", "it does not run").await.unwrap();
    fixture.until(&id, |shown| shown.row.is_ended()).await;
    let shown = fixture.controller.show_exactly(&id).await.unwrap();
    assert_eq!(shown.exit_code(), 7);
    assert!(shown.because().contains("could not cancel it: it does not run"), "{}", shown.because());
    let mut again = fixture.connect("web-1").await;
    again.expect_nothing();
}

#[tokio::test]
async fn of_old_rollouts_nothing_is_left_and_a_rollback_still_finds_what_runs() {
    let fixture = Fixture::new(&["web-1"]).await;
    fixture.deployed_before(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = fixture.start(&[]).await.unwrap().row.id;
        let order = one.order().await;
        one.accept(&order).await;
        one.end(&order, succeeded()).await;
        let logs = fixture.store.state().logs().join(order.deployment.as_str());
        std::fs::create_dir_all(&logs).unwrap();
        ids.push((id, logs));
    }
    let (running, _) = (fixture.start(&[]).await.unwrap().row.id, one.order().await);
    let gone = fixture.controller.retain(2).await.unwrap();
    assert_eq!(gone, [ids[0].0.clone(), ids[1].0.clone()]);
    assert!(!ids[1].1.exists() && ids[2].1.exists(), "the logs go with their rollout");
    assert_eq!(fixture.controller.show(gone[0].as_str()).await.unwrap_err().code(), "rollout-unknown");
    for table in ["deployment_events", "orders", "deployments", "changes"] {
        let left: (i64,) = sqlx::query_as(sqlx::AssertSqlSafe(match table {
            "changes" => "SELECT count(DISTINCT rollout) FROM changes".to_owned(),
            "deployments" => "SELECT count(*) FROM deployments".to_owned(),
            other => format!("SELECT count(DISTINCT deployment) FROM {other}"),
        }))
        .fetch_one(fixture.store.read())
        .await
        .unwrap();
        // The running one has no event yet.
        assert_eq!(left.0, if table == "deployment_events" { 2 } else { 3 }, "{table}");
    }
    let back = fixture.rollback("").await.unwrap();
    assert_eq!(back.state(), "queued");
    assert!(!fixture.controller.retain(0).await.unwrap().contains(&running), "what has not ended stays");
}
