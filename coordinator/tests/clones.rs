//! Two agents under one identity: found out, shut out, and let in again by a person's word. And what is not a clone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{
    World,
    agent::{Agent, hello, publish, start},
};
use consign_common::{
    deployment::{Event, StepSummary},
    digest::Sha256,
    tls::Identity,
    trust::Order,
};
use consign_proto::v1::{self, fetch_request::What};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Less than an agent that is asked may take to answer: nobody was asked.
const AT_ONCE: Duration = Duration::from_secs(4);

/// The hello of an agent in this process and boot, with the journal `j` so far.
fn of(process: &str, boot_id: &str, position: u64) -> v1::Hello {
    v1::Hello {
        process: process.into(),
        boot_id: boot_id.into(),
        journal: "j".into(),
        journal_position: position,
        ..hello("staging")
    }
}

async fn refused(world: &World, identity: &Identity, hello: v1::Hello) -> Status {
    Agent::greet(world, identity, hello).await.map(|_| ()).expect_err("it got a session")
}

/// It is, and everybody who looks is told why.
async fn assert_quarantined(world: &World, identity: &Identity, why: &str) {
    let server = shown(world).await;
    assert!(server.quarantined.contains(why), "{:?}", server.quarantined);
    assert!(server.quarantined_since_ms > 0 && !server.online, "{server:?}");
    let status = world.admin().await.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.quarantined, ["web-1"]);
    let again = refused(world, identity, of("later", "c", 1000)).await;
    assert_eq!(again.code(), Code::FailedPrecondition, "{again}");
    assert!(again.message().starts_with("quarantined: ") && again.message().contains(why), "{again}");
}

async fn shown(world: &World) -> v1::Server {
    let request = v1::ListServersRequest { name: "web-1".into(), ..v1::ListServersRequest::default() };
    world.admin().await.list_servers(request).await.unwrap().into_inner().servers.remove(0)
}

async fn enable(world: &World, reason: &str) -> Result<v1::Server, Status> {
    let request = v1::SetServerRequest { name: "web-1".into(), enabled: true, reason: reason.into() };
    world.admin().await.set_server(request).await.map(tonic::Response::into_inner)
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

#[tokio::test]
async fn a_second_agent_beside_a_living_one_shuts_both_out() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let (digest, _) = publish(&world, "1.0").await;
    let mut first = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap();
    let mut client = first.client.clone();
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    // It has been ordered something, and has not answered: both could take it up.
    let (order, _) = first.order().await;
    let (_chunks, none) = mpsc::channel(1);
    let mut acks = client.logs(ReceiverStream::new(none)).await.unwrap().into_inner();
    let first = first.live();

    refused(&world, &identity, of("q", "b", 5)).await;
    first.await.unwrap();
    acks.message().await.expect_err("its stream of logs is open still");
    assert_quarantined(&world, &identity, "two agents").await;

    // On new connections too, nothing is given.
    let channel = world.channel(Some(&identity)).await.unwrap();
    let mut client = v1::agents_client::AgentsClient::new(channel);
    let what = v1::FetchRequest { what: Some(What::Manifest(digest.to_string())), offset: 0 };
    let nothing = client.fetch(what).await.map(|_| ()).unwrap_err();
    assert!(nothing.message().starts_with("quarantined: "), "{nothing}");
    let nothing = client.logs(tokio_stream::empty()).await.map(|_| ()).unwrap_err();
    assert!(nothing.message().starts_with("quarantined: "), "{nothing}");
    assert_eq!(order.server.as_str(), "web-1");
}

#[tokio::test]
async fn who_comes_back_to_find_another_in_its_place_shuts_both_out() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    // Suspended, it does not answer: its copy takes its place, and one may be the other after a reboot.
    let mut suspended = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap();
    let copy = Agent::greet(&world, &identity, of("q", "b", 5)).await.unwrap().live();
    suspended.next().await.map(|_| ()).unwrap_err();
    refused(&world, &identity, of("p", "a", 5)).await;
    copy.await.unwrap();
    assert_quarantined(&world, &identity, "boots \"b\" and \"a\"").await;
}

#[tokio::test]
async fn copies_within_one_boot_are_found_out_too() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let first = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap().live();
    refused(&world, &identity, of("q", "a", 5)).await;
    first.await.unwrap();
    assert_quarantined(&world, &identity, "both in boot \"a\"").await;
}

#[tokio::test]
async fn a_reboot_is_no_clone_and_gets_what_waits() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    // The power went: its end of the line is open, and nobody is there.
    let mut gone = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap();
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let (order, _) = gone.order().await;
    let mut back = Agent::greet(&world, &identity, of("q", "b", 5)).await.unwrap();
    assert_eq!(back.order().await.0, order);
    assert_eq!(gone.live().await.unwrap().1.code(), Code::Aborted);
    assert_eq!(shown(&world).await.quarantined, "");
}

#[tokio::test]
async fn an_agent_that_lost_its_line_is_back_at_once() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let _half_open = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap();
    let began = Instant::now();
    let second = Agent::greet(&world, &identity, of("p", "a", 7)).await.unwrap();
    // And one that was started again, for its old process's connection ended with it.
    drop(second);
    Agent::greet(&world, &identity, of("q", "a", 7)).await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_journal_that_goes_back_is_an_old_copy() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    let mut agent = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap();
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let (order, _) = agent.order().await;
    agent.tell_at(&order, 1, &accepted(&order), 6).await;
    drop(agent);
    // The copy was made before that event, and comes when the other one has gone.
    let reason = "ends at event 5 and had 6 before";
    refused(&world, &identity, of("q", "b", 5)).await;
    assert_quarantined(&world, &identity, reason).await;
    // What is durable is also so for the next coordinator.
    let world = world.restarted().await;
    assert_quarantined(&world, &identity, reason).await;
}

#[tokio::test]
async fn another_journal_under_the_same_key_is_a_copy() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    drop(Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap());
    let world = world.restarted().await;
    let other = v1::Hello { journal: "k".into(), ..of("q", "b", 9) };
    refused(&world, &identity, other).await;
    assert_quarantined(&world, &identity, "another journal").await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_says_nothing_about_clones() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    drop(Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap());
    let silent = v1::Hello { journal: String::new(), ..of("q", "a", 0) };
    drop(Agent::greet(&world, &identity, silent).await.unwrap());
    refused(&world, &identity, of("r", "a", 4)).await;
    assert_quarantined(&world, &identity, "had 5 before").await;
}

#[tokio::test]
async fn a_new_enrolment_or_a_reason_lifts_it() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    publish(&world, "1.0").await;
    let mut first = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap();
    world.admin().await.start_rollout(start("1.0")).await.unwrap();
    let (order, _) = first.order().await;
    drop(first);
    refused(&world, &identity, of("q", "b", 4)).await;

    let unsaid = enable(&world, "").await.unwrap_err();
    assert_eq!(unsaid.code(), Code::FailedPrecondition);
    assert!(unsaid.message().contains("--replace") && unsaid.message().contains("--reason"), "{unsaid}");
    assert_quarantined(&world, &identity, "ends at event 4").await;

    // The snapshot was meant: its journal counts from now on, and what waited is sent.
    assert_eq!(enable(&world, "gone back to the snapshot of Monday").await.unwrap().quarantined, "");
    let mut reverted = Agent::greet(&world, &identity, of("q", "b", 4)).await.unwrap();
    assert_eq!(reverted.order().await.0, order);
    drop(reverted);
    refused(&world, &identity, of("r", "b", 3)).await;

    // Enrolled anew, it is told to wait for the person too; then it is in, and the other one is out for good.
    let anew = world.enrol_anew("web-1", "agent").await;
    let waits = refused(&world, &anew, of("s", "b", 3)).await;
    assert!(waits.message().starts_with("quarantined: "), "{waits}");
    assert_eq!(enable(&world, "").await.unwrap().quarantined, "");
    let mut server = Agent::greet(&world, &anew, of("s", "b", 3)).await.unwrap();
    // Its key is nobody's: it gets as far as a connection at most.
    if world.channel(Some(&identity)).await.is_ok() {
        refused(&world, &identity, of("q", "b", 9)).await;
    }
    assert_eq!(server.order().await.0, order);
}

#[tokio::test]
async fn a_rollout_passes_a_quarantined_server_by_and_says_why() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    world.enrol("web-2", "agent").await;
    publish(&world, "1.0").await;
    let first = Agent::greet(&world, &identity, of("p", "a", 5)).await.unwrap().live();
    refused(&world, &identity, of("q", "b", 5)).await;
    first.await.unwrap();
    let rollout = world.admin().await.start_rollout(start("1.0")).await.unwrap().into_inner();
    let member = rollout.deployments.iter().find(|member| member.server == "web-1").unwrap();
    assert_eq!(member.state, "skipped");
    assert!(member.because.contains("quarantined: two agents"), "{}", member.because);
}
