//! Starting and stopping.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Owner, TestClock, World, start};
use consign_coordinator::{
    serve::{Addresses, ServeError},
    store::{StateError, StoreError},
};
use consign_proto::v1::{GetTrustRootsRequest, PutTrustRootRequest, StatusRequest, UploadChunk};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_imported_once_and_no_other_after_it() {
    let owner = Owner::new();
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let mut options = owner.options(dir.path());
    let bundle = options.bundle.take();
    let error = start(&options, &clock).await.unwrap_err();
    assert!(matches!(error, ServeError::NoBundle { .. }), "{error}");
    assert!(error.to_string().contains("--bundle"), "{error}");

    options.bundle = bundle;
    start(&options, &clock).await.unwrap().stop().await;
    start(&options, &clock).await.unwrap().stop().await;
    // Deleted as its import asks, and still named by a unit.
    std::fs::remove_file(options.bundle.as_ref().unwrap()).unwrap();
    start(&options, &clock).await.unwrap().stop().await;
    options.bundle = None;
    start(&options, &clock).await.unwrap().stop().await;

    let other = tempfile::tempdir().unwrap();
    options.bundle = Owner::new().options(other.path()).bundle;
    let error = start(&options, &clock).await.unwrap_err();
    assert!(matches!(error, ServeError::OtherBundle { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_do_not_share_a_directory_or_a_port() {
    let world = World::new().await;
    let clock = Arc::new(TestClock::default());
    let same = world.owner.options(world.dir.path());
    let error = start(&same, &clock).await.unwrap_err();
    assert!(matches!(error, ServeError::Store(StoreError::State(StateError::InUse { .. }))), "{error}");

    let elsewhere = tempfile::tempdir().unwrap();
    let mut options = world.owner.options(elsewhere.path());
    options.listen = world.coordinator.addresses.listen;
    let error = start(&options, &clock).await.unwrap_err();
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("is in use"), "{error}");
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_with_streams_open_and_says_where_it_is_while_it_runs() {
    let world = World::new().await;
    let file = world.dir.path().join("state/addresses.json");
    let addresses: Addresses = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(addresses, world.coordinator.addresses);

    let mut client = world.admin().await;
    client.status(StatusRequest {}).await.unwrap();
    let (_to, chunks) = tokio::sync::mpsc::channel::<UploadChunk>(1);
    let open =
        tokio::spawn(
            async move { client.upload_pack(tokio_stream::wrappers::ReceiverStream::new(chunks)).await },
        );
    tokio::time::timeout(Duration::from_secs(5), world.coordinator.stop()).await.expect("it does not stop");
    assert!(open.await.unwrap().is_err());
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_root_follows_the_one_before() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let mut next = world.owner.root.clone();
    next.version = 2;
    next.environments.insert("production".parse().unwrap(), consign_common::trust::Gate::PublisherOnly {});
    let envelope = world.owner.sign(&next);

    let stranger = Owner::new().sign(&next);
    let refused = admin.put_trust_root(PutTrustRootRequest { envelope: stranger.into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("signature-invalid"), "{refused}");

    let request = PutTrustRootRequest { envelope: envelope.clone().into() };
    assert_eq!(admin.put_trust_root(request.clone()).await.unwrap().into_inner().version, 2);
    assert!(admin.put_trust_root(request).await.is_err(), "the same version twice");
    let all = admin.get_trust_roots(GetTrustRootsRequest { after_version: 0 }).await.unwrap().into_inner();
    assert_eq!(all.envelopes.len(), 2);
    assert_eq!(all.envelopes.last().unwrap(), &envelope);
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.trust_root_version, 2);
    world.coordinator.stop().await;
}
