//! Agents and operators over real connections: a rollout from its start to the last byte of its output.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    World,
    agent::{Agent, publish, start},
};
use consign_common::{
    deployment::{
        Attempt, DeploymentOutcome, Event, StepOutcome, StepSummary,
        log::{Stream, encode_into},
    },
    digest::Sha256,
    plan::Phase,
    time::{Clock, SystemClock},
    trust::OrderKind,
};
use consign_proto::v1::{self, fetch_request::What, follow_event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const ATTEMPT: Attempt = Attempt { phase: Phase::Deploy, step: 0, number: 1 };

fn full_pack(digest: Sha256) -> What {
    What::Pack(v1::PackPair { from: String::new(), to: digest.to_string() })
}

#[tokio::test]
async fn a_rollout_from_start_to_the_last_byte() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let (digest, pack) = publish(&world, "1.0").await;
    let (other, _) = publish(&world, "1.1").await;
    let mut agent = Agent::connect(&world, &identity, "staging").await.unwrap();
    assert_eq!(
        agent.fetch(full_pack(digest), 0).await.unwrap_err().code(),
        Code::NotFound,
        "not ordered yet"
    );

    let mut admin = world.admin().await;
    let rollout = admin.start_rollout(start("1.0")).await.unwrap().into_inner();
    let follow = v1::FollowRolloutRequest { rollout: rollout.id.clone(), cursor: 0, logs: true };
    let mut follower = admin.follow_rollout(follow).await.unwrap().into_inner();

    let (order, statements) = agent.order().await;
    assert!(matches!(order.order, OrderKind::Deploy { manifest, .. } if manifest == digest));
    assert_eq!((statements, order.term), (1, 1));
    assert_eq!(agent.fetch(full_pack(digest), 0).await.unwrap(), pack);
    assert_eq!(agent.fetch(full_pack(digest), 5).await.unwrap(), pack[5..], "resumed by offset");
    let refused = agent.fetch(What::Manifest(other.to_string()), 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "no order names it");

    let accepted = Event::Accepted {
        order: order.id.clone(),
        app: order.app.clone(),
        version: "1.0".parse().unwrap(),
        digest,
        previous: None,
        steps: vec![StepSummary { name: "activate".parse().unwrap(), kind: "activate".into() }],
    };
    agent.tell(&order, 1, &accepted).await;
    agent.tell(&order, 2, &Event::Started { attempt: ATTEMPT, boot_id: "b".into() }).await;

    let mut records = Vec::new();
    encode_into(&mut records, SystemClock.now(), Stream::Stdout, b"switched\n");
    let chunk = v1::LogChunk {
        deployment: order.deployment.to_string(),
        attempt: ATTEMPT.to_string(),
        offset: 0,
        records: records.clone().into(),
    };
    // The same chunk twice, as after a reconnect that lost the acknowledgement.
    let chunks = tokio_stream::iter([chunk.clone(), chunk]);
    let mut acks = agent.client.logs(chunks).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(acks.message().await.unwrap().unwrap().offset, records.len() as u64);
    }
    let finished = Event::Finished {
        attempt: ATTEMPT,
        result: StepOutcome::Succeeded,
        log_length: records.len() as u64,
        duration_ms: 3,
        leftovers: Vec::new(),
    };
    agent.tell(&order, 3, &finished).await;
    let result = DeploymentOutcome::Succeeded { tolerated: Vec::new() };
    agent.tell(&order, 4, &Event::Ended { result }).await;

    let (mut seen, mut last) = (Vec::new(), None);
    while let Some(event) = follower.message().await.unwrap() {
        match event.kind.unwrap() {
            follow_event::Kind::Rollout(rollout) => last = Some(rollout),
            follow_event::Kind::Deployment(deployment) => assert_eq!(deployment.server, "web-1"),
            follow_event::Kind::Log(part) => {
                assert_eq!((part.server.as_str(), part.step.as_str()), ("web-1", "activate"));
                seen.extend(part.records);
            }
        }
    }
    assert_eq!(seen, records, "every byte, once");
    let last = last.unwrap();
    assert_eq!((last.state.as_str(), last.exit_code), ("succeeded", 0));
    assert_eq!(last.deployments[0].steps[0].state, "succeeded");
}

#[tokio::test]
async fn a_second_session_ends_the_first_and_gets_what_is_open() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    let mut first = Agent::connect(&world, &identity, "staging").await.unwrap();
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let (sent, _) = first.order().await;
    let mut second = Agent::connect(&world, &identity, "staging").await.unwrap();
    assert_eq!(second.order().await.0, sent);
    assert_eq!(first.next().await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn an_agent_of_another_environment_is_told_so() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let refused = Agent::connect(&world, &identity, "production").await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("wrong-environment"), "{}", refused.message());
}

#[tokio::test]
async fn a_removed_servers_session_and_its_other_streams_end_within_a_second() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let mut agent = Agent::connect(&world, &identity, "staging").await.unwrap();
    let (_chunks, none) = mpsc::channel(1);
    let mut acks = agent.client.logs(ReceiverStream::new(none)).await.unwrap().into_inner();
    world.admin().await.remove_server(v1::RemoveServerRequest { name: "web-1".into() }).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), async {
        (agent.next().await.unwrap_err(), acks.message().await.unwrap_err())
    });
    ended.await.expect("a stream is open still");
    let again = agent.client.fetch(v1::FetchRequest { what: Some(full_pack(Sha256::of(b"x"))), offset: 0 });
    again.await.map(|_| ()).unwrap_err();
    let status = world.admin().await.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.servers, status.servers_online), (0, 0));
}
