//! What an identity for CI may do, and how soon a removed one may do nothing: over the wire, with open streams.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{
    Owner, World,
    agent::start as rollout,
    enroll_request,
    fleet::{Server, start},
    packed::{begin, now, pack, statement, upload},
};
use consign_common::{
    audit::{Entry, Outcome},
    digest::Sha256,
    json,
    tls::Identity,
    trust::{Envelope, STATEMENT_TYPE, SigningKey, Statement},
};
use consign_proto::v1::{
    self, CreateTokenRequest, ListOperatorsRequest, PutStatementRequest, ReadAuditRequest,
    RemoveOperatorRequest, StatusRequest, UploadChunk, operators_client::OperatorsClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

async fn token(
    world: &World,
    name: &str,
    role: &str,
    apps: &[&str],
) -> Result<v1::CreateTokenResponse, Status> {
    let request = CreateTokenRequest {
        name: name.into(),
        role: role.into(),
        ttl_seconds: 600,
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        ..CreateTokenRequest::default()
    };
    world.admin().await.create_token(request).await.map(tonic::Response::into_inner)
}

async fn ci(world: &World, name: &str, apps: &[&str]) -> OperatorsClient<Channel> {
    let token = token(world, name, "ci", apps).await.unwrap();
    let (csr, key_pkcs8) = Identity::generate_csr().unwrap();
    let answer = world.redeem(enroll_request(&token, name, "", csr)).await.unwrap();
    world.operators(&Identity { certificate: answer.certificate.to_vec().into(), key_pkcs8 }).await
}

/// A coordinator whose trust root names a second app too, with the same publisher.
async fn two_apps() -> World {
    let mut owner = Owner::new();
    let trust = owner.root.apps.values().next().unwrap().clone();
    owner.root.apps.insert("blog".parse().unwrap(), trust);
    World::of(owner).await
}

/// By the publisher, about the artifact.
fn tested(key: &SigningKey, artifact: Sha256) -> PutStatementRequest {
    let text = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"shop","digest":{{"sha256":"{artifact}"}}}}],"predicateType":"https://in-toto.io/attestation/test-result/v0.1","predicate":{{"result":"PASSED"}}}}"#
    );
    let statement = Statement::parse(text.as_bytes()).unwrap();
    let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]);
    PutStatementRequest { envelope: envelope.to_vec().into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ci_of_an_app_publishes_attests_and_rolls_out_that_app_and_no_other() {
    let world = two_apps().await;
    let (mut shop, mut blog) =
        (ci(&world, "ci-shop", &["shop"]).await, ci(&world, "ci-blog", &["blog"]).await);
    let mut any = ci(&world, "ci-any", &[]).await;
    let refused = |status: Status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().starts_with("not-your-app"), "{status}");
    };

    let packed = pack("1.0", b"one");
    let signed = || statement(&packed, "1.0", now(), &world.owner.publisher);
    refused(begin(&mut blog, &packed, signed()).await.unwrap_err());
    let begun = begin(&mut shop, &packed, signed()).await.unwrap();
    refused(upload(&mut blog, &begun, &packed.pack).await.unwrap_err());
    assert!(upload(&mut shop, &begun, &packed.pack).await.unwrap().complete);
    let artifact = Sha256::of(&packed.manifest);

    refused(blog.put_statement(tested(&world.owner.publisher, artifact)).await.unwrap_err());
    shop.put_statement(tested(&world.owner.publisher, artifact)).await.unwrap();

    let mut server = Server::new(&world, "web-1", &[]).await;
    refused(blog.start_rollout(rollout("1.0")).await.unwrap_err());
    let started = shop.start_rollout(rollout("1.0")).await.unwrap().into_inner();
    server.order().await;
    // What somebody else began is not its to end, whatever its apps are.
    let abort = v1::AbortRolloutRequest { rollout: started.id.clone(), reason: String::new() };
    assert_eq!(any.abort_rollout(abort.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
    shop.abort_rollout(abort).await.unwrap();
    // Nothing more, not even of its own app.
    let back =
        v1::RollbackRequest { app: "shop".into(), environment: "staging".into(), ..Default::default() };
    assert_eq!(shop.rollback(back).await.unwrap_err().code(), Code::PermissionDenied);
    let set = v1::SetServerRequest { name: "web-1".into(), enabled: false, reason: "x".into() };
    assert_eq!(shop.set_server(set).await.unwrap_err().code(), Code::PermissionDenied);

    let operators =
        world.admin().await.list_operators(ListOperatorsRequest {}).await.unwrap().into_inner().operators;
    let apps: Vec<_> = operators
        .iter()
        .filter(|one| one.role == "ci")
        .map(|one| (one.name.as_str(), one.apps.join(" ")))
        .collect();
    assert_eq!(apps, [("ci-any", String::new()), ("ci-blog", "blog".into()), ("ci-shop", "shop".into())]);
    for role in ["viewer", "deployer", "admin"] {
        assert_eq!(token(&world, "x", role, &["shop"]).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // What was refused stands in the log, with its name.
    let mut log = any
        .read_audit(ReadAuditRequest { who: "ci-blog".into(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let mut codes = Vec::new();
    while let Some(entry) = log.message().await.unwrap() {
        let entry: Entry = json::from_slice(&entry.entry, 1 << 20).unwrap();
        if let Outcome::Refused { code, .. } = entry.outcome {
            codes.push((entry.what, code));
        }
    }
    let expected = ["artifact publish", "artifact publish", "statement put", "rollout start"];
    assert_eq!(codes, expected.map(|what| (what.to_owned(), "not-your-app".to_owned())));
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ci_of_an_app_reads_nothing_of_another_one() {
    let world = two_apps().await;
    let (mut shop, mut blog) =
        (ci(&world, "ci-shop", &["shop"]).await, ci(&world, "ci-blog", &["blog"]).await);
    let (digest, _) = common::agent::publish(&world, "1.0").await;
    let mut server = Server::new(&world, "web-1", &[]).await;
    let id = world.admin().await.start_rollout(rollout("1.0")).await.unwrap().into_inner().id;
    server.order().await;
    let refused = |status: Status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().starts_with("not-your-app"), "{status}");
    };
    let digest = digest.to_string();

    let artifact = v1::ShowArtifactRequest { digest: digest.clone(), ..Default::default() };
    refused(blog.show_artifact(artifact.clone()).await.unwrap_err());
    shop.show_artifact(artifact).await.unwrap();
    let what = Some(v1::fetch_request::What::Manifest(digest.clone()));
    refused(blog.fetch_artifact(v1::FetchRequest { what, offset: 0 }).await.unwrap_err());
    let pack = v1::PackPair { from: String::new(), to: digest.clone() };
    let what = Some(v1::fetch_request::What::Pack(pack));
    refused(blog.fetch_artifact(v1::FetchRequest { what, offset: 0 }).await.unwrap_err());
    let statements = v1::ListStatementsRequest { digest: digest.clone() };
    refused(blog.list_statements(statements.clone()).await.unwrap_err());
    shop.list_statements(statements).await.unwrap();
    let plan = v1::PlanRolloutRequest {
        app: "shop".into(),
        version: "1.0".into(),
        environment: "staging".into(),
        ..Default::default()
    };
    refused(blog.plan_rollout(plan.clone()).await.unwrap_err());
    refused(blog.check_rollout(plan).await.unwrap_err());
    let config = v1::ShowConfigRequest { app: "shop".into(), environment: "staging".into(), sequence: 0 };
    refused(blog.show_config(config.clone()).await.unwrap_err());
    shop.show_config(config).await.unwrap();

    refused(blog.show_rollout(v1::ShowRolloutRequest { rollout: id.clone() }).await.unwrap_err());
    refused(blog.show_history(v1::ShowHistoryRequest { rollout: id.clone() }).await.unwrap_err());
    refused(blog.show_timeline(v1::ShowTimelineRequest { rollout: id.clone() }).await.unwrap_err());
    let follow = v1::FollowRolloutRequest { rollout: id.clone(), cursor: 0, logs: true };
    refused(blog.follow_rollout(follow.clone()).await.err().unwrap());
    shop.follow_rollout(follow).await.unwrap();
    let logs = v1::ReadLogsRequest { rollout: id.clone(), ..Default::default() };
    refused(blog.read_logs(logs).await.err().unwrap());
    for request in [
        v1::ListReceiptsRequest::default(),
        v1::ListReceiptsRequest { digest, ..Default::default() },
        v1::ListReceiptsRequest { rollout: id, ..Default::default() },
    ] {
        refused(blog.list_receipts(request).await.err().unwrap());
    }
    refused(blog.read_audit(ReadAuditRequest::default()).await.err().unwrap());
    refused(
        blog.read_audit(ReadAuditRequest { app: "shop".into(), ..Default::default() }).await.err().unwrap(),
    );
    shop.read_audit(ReadAuditRequest { app: "shop".into(), ..Default::default() }).await.unwrap();

    let artifacts = |client: &mut OperatorsClient<Channel>| {
        let mut client = client.clone();
        async move {
            client
                .list_artifacts(v1::ListArtifactsRequest::default())
                .await
                .unwrap()
                .into_inner()
                .artifacts
                .len()
        }
    };
    assert_eq!((artifacts(&mut shop).await, artifacts(&mut blog).await), (1, 0));
    let rollouts = |client: &mut OperatorsClient<Channel>| {
        let mut client = client.clone();
        async move {
            client
                .list_rollouts(v1::ListRolloutsRequest::default())
                .await
                .unwrap()
                .into_inner()
                .rollouts
                .len()
        }
    };
    assert_eq!((rollouts(&mut shop).await, rollouts(&mut blog).await), (1, 0));
    let listed =
        blog.list_candidates(v1::ListCandidatesRequest { settled: true, ..Default::default() }).await;
    assert!(listed.unwrap().into_inner().candidates.is_empty());

    // What is a person's is nobody's of CI, whatever its apps are.
    let veto = v1::VetoCandidateRequest {
        app: "shop".into(),
        version: "1.0".into(),
        environment: "staging".into(),
        reason: "x".into(),
    };
    assert_eq!(shop.veto_candidate(veto).await.unwrap_err().code(), Code::PermissionDenied);
    let hold =
        v1::HoldEnvironmentRequest { app: "shop".into(), environment: "staging".into(), reason: "x".into() };
    assert_eq!(shop.hold_environment(hold).await.unwrap_err().code(), Code::PermissionDenied);
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_of_a_removed_operator_ends_within_a_second() {
    let world = World::new().await;
    common::agent::publish(&world, "1.0").await;
    let mut server = Server::new(&world, "web-1", &[]).await;
    let id = world.admin().await.start_rollout(start("1.0", &["100%"])).await.unwrap().into_inner().id;
    server.order().await;

    let identity = world.enrol("ci", "ci").await;
    let mut client = world.operators(&identity).await;
    let follow = v1::FollowRolloutRequest { rollout: id.clone(), cursor: 0, logs: true };
    let mut followed = client.follow_rollout(follow).await.unwrap().into_inner();
    assert!(followed.message().await.unwrap().is_some(), "the stream lives");
    let logs = v1::ReadLogsRequest { rollout: id.clone(), follow: true, ..Default::default() };
    let mut logs = client.read_logs(logs).await.unwrap().into_inner();
    let packed = pack("2.0", b"two");
    let begun =
        begin(&mut client, &packed, statement(&packed, "2.0", now(), &world.owner.publisher)).await.unwrap();
    let (to, chunks) = mpsc::channel(4);
    let first =
        UploadChunk { upload: begun.upload.clone(), offset: 0, data: packed.pack[..1].to_vec().into() };
    to.send(first).await.unwrap();
    let mut uploader = world.operators(&identity).await;
    let uploading = tokio::spawn(async move { uploader.upload_pack(ReceiverStream::new(chunks)).await });
    let mut asked = world.operators(&identity).await;
    asked.status(StatusRequest {}).await.unwrap();

    let removed = Instant::now();
    world.admin().await.remove_operator(RemoveOperatorRequest { name: "ci".into() }).await.unwrap();
    let ends = async {
        while followed.message().await.is_ok_and(|message| message.is_some()) {}
        while logs.message().await.is_ok_and(|message| message.is_some()) {}
        uploading.await.unwrap().unwrap_err();
        asked.status(StatusRequest {}).await.unwrap_err();
    };
    tokio::time::timeout(Duration::from_secs(1), ends).await.expect("a stream is still open");
    println!("every stream had ended after {:?}", removed.elapsed());
    drop(to);

    // Nor is it let in again; and who was given its name is somebody else.
    let again = world.channel(Some(&identity)).await;
    if let Ok(channel) = again {
        assert!(OperatorsClient::new(channel).status(StatusRequest {}).await.is_err());
    }
    let anew = world.enrol("ci", "viewer").await;
    let status = world.operators(&anew).await.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.role, "viewer");
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_role_under_the_same_name_ends_what_the_old_one_had_open() {
    let world = World::new().await;
    let old = world.enrol("dee", "deployer").await;
    let mut client = world.operators(&old).await;
    client.status(StatusRequest {}).await.unwrap();
    let anew = world.enrol_anew("dee", "viewer").await;
    let ended = async {
        while client.status(StatusRequest {}).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), ended).await.expect("the old key still does");
    let mut viewer = world.operators(&anew).await;
    let denied = viewer.start_rollout(rollout("1.0")).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    world.coordinator.stop().await;
}
