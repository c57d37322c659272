//! A coordinator that was restored from a backup: what its agents are ahead of it, and what it asks them for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    World,
    agent::{Agent, hello, publish, start},
};
use consign_common::{
    deployment::{
        Attempt, DeploymentOutcome, Event, StepSummary,
        log::{Stream, encode_into},
    },
    digest::Sha256,
    json,
    name::Id,
    plan::Phase,
    time::{Clock, SystemClock},
    trust::Order,
};
use consign_coordinator::store::{StateDir, Store};
use consign_proto::v1::{self, agent_message, coordinator_message::Kind, resend::Lost};
use tonic::{Code, Status};

/// An agent that has seen this term of `shop`.
fn having_seen(term: u64) -> v1::Hello {
    v1::Hello {
        apps: vec![v1::AppState { app: "shop".into(), term, ..v1::AppState::default() }],
        ..hello("staging")
    }
}

fn accepted(order: &Order) -> Event {
    Event::Accepted {
        order: order.id.clone(),
        app: order.app.clone(),
        version: "1.0".parse().unwrap(),
        digest: Sha256::of(b"x"),
        previous: None,
        steps: vec![StepSummary { name: "activate".parse().unwrap(), kind: "activate".into() }],
    }
}

fn event(deployment: &Id, sequence: u64, event: &Event) -> agent_message::Kind {
    agent_message::Kind::Event(v1::Event {
        deployment: deployment.to_string(),
        sequence,
        at_ms: SystemClock.now().0,
        body: json::to_vec(event).into(),
        journal_position: sequence,
    })
}

async fn status(world: &World) -> v1::StatusResponse {
    world.admin().await.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

async fn shown(world: &World) -> v1::Server {
    let request = v1::ListServersRequest { name: "web-1".into(), ..v1::ListServersRequest::default() };
    world.admin().await.list_servers(request).await.unwrap().into_inner().servers.remove(0)
}

async fn take_over(world: &World, reason: &str) -> Result<v1::TakeOverResponse, Status> {
    let request =
        v1::TakeOverRequest { app: "shop".into(), environment: "staging".into(), reason: reason.into() };
    world.admin().await.take_over(request).await.map(tonic::Response::into_inner)
}

fn assert_behind(refused: &Status) {
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let told = refused.message();
    assert!(told.starts_with("coordinator-behind: "), "{told}");
    assert!(told.contains("gave term 1") && told.contains("web-1 has seen term 9"), "{told}");
    assert!(told.contains("consign env take-over shop --env staging"), "{told}");
}

#[tokio::test]
async fn it_stops_until_somebody_takes_over_and_goes_on_above_all_that_was_seen() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    let mut admin = world.admin().await;
    // Its order waits, for the server is away.
    let rollout = admin.start_rollout(start("1.0")).await.unwrap().into_inner();
    let behind = Agent::greet(&world, &identity, having_seen(9)).await.unwrap();
    let behind = behind.live();

    assert_behind(&admin.start_rollout(start("1.0")).await.unwrap_err());
    let rollback = v1::RollbackRequest { rollout: rollout.id.clone(), ..v1::RollbackRequest::default() };
    assert_behind(&admin.rollback(rollback).await.unwrap_err());
    let abort = v1::AbortRolloutRequest { rollout: rollout.id.clone(), reason: String::new() };
    assert_behind(&admin.abort_rollout(abort.clone()).await.unwrap_err());
    let told = status(&world).await.behind;
    assert_eq!((told.len(), told[0].term, told[0].given, told[0].server.as_str()), (1, 9, 1, "web-1"));
    assert_eq!(shown(&world).await.behind, told);

    // It is still so for the next process, and the order is still not sent.
    let world = world.restarted().await;
    let (heard, _) = behind.await.unwrap();
    assert!(!heard.iter().any(|kind| matches!(kind, Kind::Order(_))), "{heard:?}");
    let mut agent = Agent::greet(&world, &identity, having_seen(9)).await.unwrap();
    assert_behind(&world.admin().await.start_rollout(start("1.0")).await.unwrap_err());

    assert_eq!(take_over(&world, " ").await.unwrap_err().code(), Code::InvalidArgument);
    let taken = take_over(&world, "restored on Monday").await.unwrap();
    assert_eq!((taken.term, taken.behind.unwrap().term), (10, 9));
    assert!(status(&world).await.behind.is_empty());
    // What was held back goes out now; that its term is too old, the agent says.
    let (order, _) = agent.order().await;
    assert_eq!((order.rollout.to_string(), order.term), (rollout.id, 1));
    let refused = v1::Refused { order: order.id.to_string(), code: "stale-term".into(), message: "x".into() };
    agent.send(agent_message::Kind::Refused(refused)).await;
    let next = loop {
        // The first one ends as soon as the refusal has come.
        match world.admin().await.start_rollout(start("1.0")).await {
            Ok(next) => break next.into_inner(),
            Err(busy) => assert!(busy.message().starts_with("busy"), "{busy}"),
        }
    };
    assert!(next.term > 9, "{}", next.term);
    assert_eq!(agent.order().await.0.term, next.term);
    let again = take_over(&world, "again").await.unwrap_err();
    assert!(again.message().starts_with("not-behind: "), "{again}");

    // Who, and why, is kept.
    let World { coordinator, dir, .. } = world;
    coordinator.stop().await;
    let store = Store::open(StateDir::open(&dir.path().join("state")).unwrap()).await.unwrap();
    let kept: Vec<(String, String, i64, i64)> =
        sqlx::query_as("SELECT taken_by, reason, seen, term FROM take_overs")
            .fetch_all(store.read())
            .await
            .unwrap();
    assert_eq!(kept, [("ada".to_owned(), "restored on Monday".to_owned(), 9, 10)]);
}

/// A single agent cannot drive the terms so high that nobody can go above them.
#[tokio::test]
async fn a_term_that_nobody_ever_gave_is_no_hello() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let refused = Agent::greet(&world, &identity, having_seen(u64::MAX)).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(status(&world).await.behind.is_empty());
}

#[tokio::test]
async fn what_it_gave_itself_is_nothing_to_stop_for() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let mut agent = Agent::greet(&world, &identity, having_seen(1)).await.unwrap();
    agent.order().await;
    assert!(status(&world).await.behind.is_empty());
}

#[tokio::test]
async fn events_that_it_lost_are_asked_for_when_later_ones_come() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let mut agent = Agent::connect(&world, &identity, "staging").await.unwrap();
    let (order, _) = agent.order().await;
    let end = Event::Ended { result: DeploymentOutcome::Succeeded { tolerated: Vec::new() } };
    agent.send(event(&order.deployment, 3, &end)).await;
    let deployment = order.deployment.to_string();
    let lost = Some(Lost::EventsAfter(0));
    assert_eq!(agent.next().await.unwrap(), Kind::Resend(v1::Resend { deployment, lost }));
    assert_eq!(agent.next().await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_deployment_that_has_ended_at_the_agent_is_asked_for() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let mut agent = Agent::connect(&world, &identity, "staging").await.unwrap();
    let (order, _) = agent.order().await;
    agent.tell(&order, 1, &accepted(&order)).await;
    let deployment = order.deployment.to_string();
    // Open there: nothing is missing.
    let open = v1::Hello { open_deployments: vec![deployment.clone()], ..hello("staging") };
    drop(agent);
    let mut agent = Agent::greet(&world, &identity, open).await.unwrap();
    agent.tell(&order, 2, &Event::Started { attempt: ATTEMPT, boot_id: "b".into() }).await;
    drop(agent);
    let mut agent = Agent::connect(&world, &identity, "staging").await.unwrap();
    let lost = Some(Lost::EventsAfter(2));
    assert_eq!(agent.next().await.unwrap(), Kind::Resend(v1::Resend { deployment, lost }));
}

const ATTEMPT: Attempt = Attempt { phase: Phase::Deploy, step: 0, number: 1 };

#[tokio::test]
async fn output_that_it_lost_is_asked_for() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let mut agent = Agent::connect(&world, &identity, "staging").await.unwrap();
    let (order, _) = agent.order().await;
    let mut records = Vec::new();
    encode_into(&mut records, SystemClock.now(), Stream::Stdout, b"later\n");
    let deployment = order.deployment.to_string();
    let chunk = v1::LogChunk {
        deployment: deployment.clone(),
        attempt: ATTEMPT.to_string(),
        offset: 100,
        records: records.into(),
    };
    let mut acks = agent.client.logs(tokio_stream::iter([chunk])).await.unwrap().into_inner();
    acks.message().await.unwrap_err();
    let lost = Some(Lost::Logs(true));
    assert_eq!(agent.next().await.unwrap(), Kind::Resend(v1::Resend { deployment, lost }));
}

#[tokio::test]
async fn a_deployment_that_it_does_not_know_is_counted_and_breaks_nothing() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    let open = Id::from_bytes([4; 16]);
    let hello = v1::Hello { open_deployments: vec![open.to_string()], ..hello("staging") };
    let mut agent = Agent::greet(&world, &identity, hello).await.unwrap();
    let unknown = Id::from_bytes([5; 16]);
    let started = Event::Started { attempt: ATTEMPT, boot_id: "b".into() };
    for sequence in 2..5 {
        agent.send(event(&unknown, sequence, &started)).await;
        agent.send(event(&open, sequence, &started)).await;
    }
    // The session goes on: what comes after them is taken.
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let (order, _) = agent.order().await;
    agent.tell(&order, 1, &accepted(&order)).await;
    assert_eq!(shown(&world).await.unknown_deployments, 2);
    let quiet = tokio::time::timeout(Duration::from_millis(200), agent.next());
    assert!(quiet.await.is_err(), "nothing of it is acknowledged");
}
