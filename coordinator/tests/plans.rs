//! Plans: what servers say that they would do, and rollouts that are held to it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{
    World,
    agent::publish_plan,
    fleet::{PLAN, Server, start},
};
use consign_common::trust::{Foreseen, OrderKind};
use consign_proto::v1;
use tonic::Code;

fn step(name: &str, decision: &str, because: &str) -> v1::PlannedStep {
    v1::PlannedStep {
        name: name.into(),
        kind: "run".into(),
        decision: decision.into(),
        because: because.into(),
    }
}

fn request(selector: &str) -> v1::PlanRolloutRequest {
    v1::PlanRolloutRequest {
        app: "shop".into(),
        version: "1.0".into(),
        environment: "staging".into(),
        selector: selector.into(),
        ..v1::PlanRolloutRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_and_held_to_what_they_said() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    let mut two = Server::new(&world, "web-2", &[]).await;
    let mut three = Server::new(&world, "web-3", &[]).await;
    world.enrol("web-4", "agent").await;
    let (digest, _) = publish_plan(&world, "1.0", PLAN).await;
    let (other, _) = publish_plan(&world, "1.1", PLAN).await;
    let mut admin = world.admin().await;

    assert_eq!(one.fetch_manifest(digest).await.unwrap_err().code(), Code::NotFound, "not asked yet");
    let asking = tokio::spawn({
        let mut admin = admin.clone();
        async move { admin.plan_rollout(request("")).await.unwrap().into_inner() }
    });
    let (query, order) = one.query().await;
    let OrderKind::Deploy { manifest, force, .. } = &order.order else { panic!("{order:?}") };
    assert_eq!((*manifest, *force, order.term, order.server.as_str()), (digest, false, 1, "web-1"));
    one.fetch_manifest(digest).await.unwrap();
    assert_eq!(one.fetch_manifest(other).await.unwrap_err().code(), Code::NotFound, "not asked about");
    let steps = vec![step("migrate", "skip", "changed('x') is false"), step("activate", "run", "")];
    one.answer(v1::Answer { query, steps: steps.clone(), ..Default::default() }).await;
    let (query, _) = two.query().await;
    let undetermined = vec![step("migrate", "undetermined", "once"), step("activate", "run", "")];
    two.answer(v1::Answer { query, steps: undetermined, ..Default::default() }).await;
    let (query, _) = three.query().await;
    let refusal = v1::Answer { query, code: "older".into(), message: "no".into(), ..Default::default() };
    three.answer(refusal).await;

    let plan = asking.await.unwrap();
    let states: Vec<_> = plan.servers.iter().map(|it| (it.server.as_str(), it.state.as_str())).collect();
    let expected =
        [("web-1", "planned"), ("web-2", "planned"), ("web-3", "refused"), ("web-4", "not-connected")];
    assert_eq!(states, expected);
    assert_eq!((plan.servers[0].steps.as_slice(), plan.servers[2].code.as_str()), (&steps[..], "older"));
    assert_eq!(plan.digest.len(), 64);
    assert_eq!(plan.artifact, digest.to_string());
    assert_eq!(one.fetch_manifest(digest).await.unwrap_err().code(), Code::NotFound, "it has answered");

    let pinned = |version: &str, only: &str| v1::StartRolloutRequest {
        plan: plan.digest.clone(),
        selector: only.into(),
        ..start(version, &[])
    };
    let missing = admin.start_rollout(pinned("1.0", "")).await.unwrap_err();
    assert!(missing.message().starts_with("plan-other: "), "{missing:?}");
    assert!(missing.message().contains("does not have web-3, web-4"), "{missing:?}");
    let wrong = admin.start_rollout(pinned("1.1", "web-1")).await.unwrap_err();
    assert!(wrong.message().starts_with("plan-other: "), "{wrong:?}");
    assert!(
        admin
            .list_rollouts(v1::ListRolloutsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .rollouts
            .is_empty()
    );

    let begun = admin.start_rollout(pinned("1.0", "web-1,web-2")).await.unwrap().into_inner();
    assert_eq!(begun.plan, plan.digest);
    let foreseen = |order: &consign_common::trust::Order| {
        let OrderKind::Deploy { plan, .. } = &order.order else { panic!("{order:?}") };
        plan.iter().map(|(step, foreseen)| (step.to_string(), *foreseen)).collect::<Vec<_>>()
    };
    let (first, second) = (one.order().await, two.order().await);
    assert_eq!(
        foreseen(&first),
        [("activate".to_owned(), Foreseen::Run), ("migrate".to_owned(), Foreseen::Skip)]
    );
    assert_eq!(foreseen(&second), [("activate".to_owned(), Foreseen::Run)], "undetermined is not pinned");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_answers_have_the_same_digest_and_a_lost_server_has_none() {
    let world = World::new().await;
    let mut one = Server::new(&world, "web-1", &[]).await;
    publish_plan(&world, "1.0", PLAN).await;
    let mut digests = Vec::new();
    for decision in ["run", "run", "skip"] {
        let asking = tokio::spawn({
            let mut admin = world.admin().await;
            async move { admin.plan_rollout(request("web-1")).await.unwrap().into_inner() }
        });
        let (query, _) = one.query().await;
        let steps = vec![step("activate", decision, "x")];
        one.answer(v1::Answer { query, steps, ..Default::default() }).await;
        digests.push(asking.await.unwrap().digest);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[1], digests[2]);

    let asking = tokio::spawn({
        let mut admin = world.admin().await;
        async move { admin.plan_rollout(request("")).await.unwrap().into_inner() }
    });
    one.query().await;
    drop(one);
    let plan = asking.await.unwrap();
    assert_eq!((plan.servers[0].state.as_str(), plan.digest.as_str()), ("not-connected", ""));
}
