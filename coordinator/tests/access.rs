//! Who gets in, and how far: over the network, with real certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{DAY, World, enroll_request};
use consign_common::{
    time::{Clock as _, SystemClock, UnixMs},
    tls::{Identity, spki_from_csr},
};
use consign_coordinator::grpc::{Role, roles};
use consign_proto::v1::{
    ListServersRequest, RemoveOperatorRequest, RemoveServerRequest, RenewRequest, StatusRequest, UploadChunk,
    agents_client::AgentsClient,
};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

/// An empty message to any method, whatever its kind; what came of it. A method that waits has let us in.
async fn call(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = Request::new(tokio_stream::once(()));
    let codec = ProstCodec::<(), ()>::default();
    let answer = async {
        let mut answers = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner();
        answers.message().await.map(|_| ())
    };
    tokio::time::timeout(Duration::from_secs(2), answer).await.unwrap_or(Ok(()))
}

fn is_denied(result: &Result<(), Status>) -> bool {
    result
        .as_ref()
        .is_err_and(|status| matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated))
}

/// The agent's key under a certificate that ended yesterday.
fn expired(world: &World, agent: &Identity, csr: &[u8]) -> Identity {
    let subject = agent.peer().unwrap().subject;
    let then = UnixMs(SystemClock.now().0 - 10 * 24 * 3600 * 1000);
    let certificate = world.owner.ca.issue(&spki_from_csr(csr).unwrap(), &subject, then, DAY).unwrap();
    Identity { certificate, key_pkcs8: agent.key_pkcs8.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_lets_in_exactly_the_roles_of_its_row() {
    let world = World::new().await;
    let (agent, csr) = world.enrol_with_csr("web-1", "agent").await;
    let mut callers = vec![(Role::Anonymous, world.channel(None).await.unwrap())];
    for (role, name) in [(Role::Viewer, "vi"), (Role::Deployer, "dee"), (Role::Ci, "ci")] {
        let identity = world.enrol(name, role.as_str()).await;
        callers.push((role, world.channel(Some(&identity)).await.unwrap()));
    }
    callers.push((Role::Admin, world.channel(Some(&world.owner.admin)).await.unwrap()));
    callers.push((Role::Agent, world.channel(Some(&agent)).await.unwrap()));
    callers.push((Role::Expired, world.channel(Some(&expired(&world, &agent, &csr))).await.unwrap()));
    assert_eq!(callers.len(), Role::ALL.len());

    let mut wrong = Vec::new();
    for (path, allowed) in roles::TABLE {
        for (role, channel) in &callers {
            let result = call(channel, path).await;
            if is_denied(&result) == allowed.contains(role) {
                wrong.push(format!("{path} as {}: {result:?}", role.as_str()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (role, channel) in &callers {
        assert!(is_denied(&call(channel, "/consign.v1.Operators/Everything").await), "{role:?}");
    }
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_operators_open_stream_ends_within_a_second() {
    let world = World::new().await;
    let ci = world.enrol("ci", "ci").await;
    let mut client = world.operators(&ci).await;
    client.status(StatusRequest {}).await.unwrap();
    let (to, chunks) = tokio::sync::mpsc::channel::<UploadChunk>(1);
    let open = tokio::spawn(async move {
        client.upload_pack(tokio_stream::wrappers::ReceiverStream::new(chunks)).await.map(|_| client)
    });
    let mut admin = world.admin().await;
    admin.remove_operator(RemoveOperatorRequest { name: "ci".into() }).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), open).await.expect("the stream is still open");
    assert!(ended.unwrap().is_err());
    drop(to);
    assert!(
        world.channel(Some(&ci)).await.is_err() || {
            let mut again = world.operators(&ci).await;
            again.status(StatusRequest {}).await.is_err()
        }
    );
    let again = admin.remove_operator(RemoveOperatorRequest { name: "ci".into() }).await;
    assert_eq!(again.unwrap_err().code(), Code::NotFound);
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_server_is_nobody_also_with_its_certificate() {
    let world = World::new().await;
    let agent = world.enrol("web-1", "agent").await;
    let channel = world.channel(Some(&agent)).await.unwrap();
    assert!(!is_denied(&call(&channel, "/consign.v1.Agents/Fetch").await));
    let mut admin = world.admin().await;
    admin.remove_server(RemoveServerRequest { name: "web-1".into() }).await.unwrap();
    assert!(call(&channel, "/consign.v1.Agents/Fetch").await.is_err());
    let servers = admin.list_servers(ListServersRequest::default()).await.unwrap().into_inner().servers;
    assert!(servers.is_empty());
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_while_connected_reaches_renewal_only_and_is_renewed() {
    let world = World::new().await;
    let agent = world.enrol("web-1", "agent").await;
    let channel = world.channel(Some(&agent)).await.unwrap();
    assert!(!is_denied(&call(&channel, "/consign.v1.Agents/Fetch").await));
    world.clock.advance(DAY * 91);
    let refused = call(&channel, "/consign.v1.Agents/Fetch").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("renew"), "{refused}");

    let (csr, key_pkcs8) = Identity::generate_csr().unwrap();
    let mut agents = AgentsClient::new(channel.clone());
    let renewed = agents.renew(RenewRequest { csr: csr.into() }).await.unwrap().into_inner();
    let renewed = Identity { certificate: renewed.certificate.to_vec().into(), key_pkcs8 };
    assert_eq!(renewed.peer().unwrap().subject, agent.peer().unwrap().subject);

    // The old key goes on until the new one has been seen, and no longer.
    let (csr, _) = Identity::generate_csr().unwrap();
    agents.renew(RenewRequest { csr: csr.into() }).await.unwrap();
    let new = world.channel(Some(&renewed)).await.unwrap();
    assert!(!is_denied(&call(&new, "/consign.v1.Agents/Fetch").await));
    assert!(call(&channel, "/consign.v1.Agents/Renew").await.is_err());
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_who_use_a_token_at_once_one_gets_in() {
    let world = World::new().await;
    let token = world.token("web-1", "agent").await.unwrap();
    let mut tries = tokio::task::JoinSet::new();
    let channels: Vec<_> = {
        let mut channels = Vec::new();
        for _ in 0..100 {
            channels.push(world.channel(None).await.unwrap());
        }
        channels
    };
    for channel in channels {
        let (csr, _) = Identity::generate_csr().unwrap();
        let request = enroll_request(&token, "web-1", "staging", csr);
        tries.spawn(async move {
            consign_proto::v1::enrolment_client::EnrolmentClient::new(channel).enroll(request).await
        });
    }
    let results = tries.join_all().await;
    let refusals: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refusals.len(), 99);
    assert!(refusals.iter().all(|status| status.message().starts_with("token-used")), "{refusals:?}");
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_worth_what_it_was_made_for() {
    let world = World::new().await;
    let token = world.token("web-1", "agent").await.unwrap();
    let csr = || Identity::generate_csr().unwrap().0;
    let refusal = async |request| world.redeem(request).await.unwrap_err().message().to_owned();

    let other_name = enroll_request(&token, "web-2", "staging", csr());
    assert!(refusal(other_name).await.starts_with("wrong-name"));
    let other_environment = enroll_request(&token, "web-1", "production", csr());
    assert!(refusal(other_environment).await.starts_with("wrong-environment"));
    let mut other_secret = enroll_request(&token, "web-1", "staging", csr());
    other_secret.token_secret = vec![0; 32].into();
    assert!(refusal(other_secret).await.starts_with("token-unknown"));
    let no_csr = enroll_request(&token, "web-1", "staging", b"nothing".to_vec());
    assert!(refusal(no_csr).await.contains("certificate request"));

    world.clock.advance(Duration::from_secs(601));
    let late = enroll_request(&token, "web-1", "staging", csr());
    assert!(refusal(late).await.starts_with("token-expired"));

    world.enrol("web-1", "agent").await;
    let taken = world.token("web-1", "agent").await.unwrap_err();
    assert!(taken.message().starts_with("name-taken"), "{taken}");
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_own_user_is_admin_on_the_socket() {
    let world = World::new().await;
    let status = world.local().await.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.role, "admin");
    assert!(status.identity.starts_with("local user"), "{}", status.identity);
    world.coordinator.stop().await;
}
