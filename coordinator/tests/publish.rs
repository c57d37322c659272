//! Publishing: what is taken, what is refused, and what is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::{fs, path::PathBuf, sync::Arc};

use common::{
    Owner, World,
    packed::{begin, now, pack, statement, upload},
    start,
};
use consign_common::{
    digest::Sha256,
    limits::ArtifactLimits,
    time::{SystemClock, UnixMs},
    trust::SigningKey,
};
use consign_coordinator::{
    fleet::{AppReport, Registry},
    repository::Repository,
    store::{StateDir, Store},
    trust_roots::TrustRoots,
};
use consign_proto::v1::{
    FetchRequest, ListArtifactsRequest, PackPair, ShowArtifactRequest, fetch_request::What,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_resumed_checked_and_then_published() {
    let world = World::new().await;
    let mut client = world.admin().await;
    let packed = pack("1.0", b"one");
    let signed = statement(&packed, "1.0", now(), &world.owner.publisher);
    let begun = begin(&mut client, &packed, signed.clone()).await.unwrap();
    assert_eq!((begun.offset, begun.complete), (0, false));
    let half = packed.pack.len() / 2;
    let part = upload(&mut client, &begun, &packed.pack[..half]).await.unwrap();
    assert_eq!((part.offset, part.complete), (half as u64, false));

    let wrong = upload(&mut client, &begun, &packed.pack).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition, "from the beginning again: {wrong}");
    let begun = begin(&mut client, &packed, signed).await.unwrap();
    assert_eq!(begun.offset, half as u64);
    let whole = upload(&mut client, &begun, &packed.pack[half..]).await.unwrap();
    assert!(whole.complete);
    let artifact = whole.artifact.unwrap();
    assert_eq!(artifact.digest, Sha256::of(&packed.manifest).to_string());
    assert!(names(&world, "uploads").is_empty());

    // The same bytes once more: one more statement, and the newest comes first.
    let again = statement(&packed, "1.0", now() + 1000, &world.owner.publisher);
    assert!(begin(&mut client, &packed, again.clone()).await.unwrap().complete);
    let request = ShowArtifactRequest { digest: artifact.digest.clone(), ..Default::default() };
    let shown = client.show_artifact(request).await.unwrap().into_inner();
    assert_eq!(shown.manifest, packed.manifest);
    assert_eq!(shown.statements.len(), 2);
    assert_eq!(shown.statements.first().unwrap(), &again);

    let what = What::Pack(PackPair { from: String::new(), to: artifact.digest });
    let request = FetchRequest { what: Some(what), offset: 10 };
    let mut chunks = client.fetch_artifact(request).await.unwrap().into_inner();
    let mut fetched = packed.pack[..10].to_vec();
    while let Some(chunk) = chunks.message().await.unwrap() {
        assert_eq!((chunk.offset, chunk.total), (fetched.len() as u64, packed.pack.len() as u64));
        fetched.extend_from_slice(&chunk.data);
    }
    assert_eq!(fetched, packed.pack);
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_signed_or_is_not_what_was_signed_is_refused_by_name() {
    let world = World::new().await;
    let mut client = world.admin().await;
    let publisher = &world.owner.publisher;
    let packed = pack("1.0", b"one");
    let stranger = SigningKey::generate().unwrap();
    let cases = [
        (statement(&packed, "1.0", now(), &stranger), "signature-invalid"),
        (statement(&packed, "1.1", now(), publisher), "wrong-statement"),
        (statement(&packed, "1.0", now() + 3_600_000, publisher), "far-future"),
        (statement(&pack("1.0", b"two"), "1.0", now(), publisher), "wrong-subject"),
    ];
    for (statement, name) in cases {
        let refused = begin(&mut client, &packed, statement).await.unwrap_err();
        assert!(refused.message().starts_with(name), "{name}: {refused}");
    }
    assert!(names(&world, "uploads").is_empty());

    // One flipped byte anywhere: nothing is stored, and the next try begins anew.
    let mut flipped = pack("1.0", b"one");
    *flipped.pack.last_mut().unwrap() ^= 1;
    let signed = statement(&packed, "1.0", now(), publisher);
    let begun = begin(&mut client, &flipped, signed.clone()).await.unwrap();
    let refused = upload(&mut client, &begun, &flipped.pack).await.unwrap_err();
    assert!(refused.message().starts_with("pack-invalid"), "{refused}");
    assert!(names(&world, "uploads").is_empty());
    assert!(names(&world, "artifacts").is_empty());

    let begun = begin(&mut client, &packed, signed).await.unwrap();
    upload(&mut client, &begun, &packed.pack).await.unwrap();
    let other = pack("1.0", b"other");
    let refused = begin(&mut client, &other, statement(&other, "1.0", now(), publisher)).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().starts_with("version-exists"), "{refused}");
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_the_newest_and_what_a_server_runs() {
    let world = World::new().await;
    let agent = world.enrol("web-1", "agent").await;
    drop(agent);
    let mut client = world.admin().await;
    let begun_at = now() - 10_000;
    let mut digests = Vec::new();
    for (version, ms) in [("1", 0), ("2", 1), ("3", 2), ("4", 3)] {
        let packed = pack(version, version.as_bytes());
        let signed = statement(&packed, version, begun_at + ms, &world.owner.publisher);
        let begun = begin(&mut client, &packed, signed).await.unwrap();
        upload(&mut client, &begun, &packed.pack).await.unwrap();
        digests.push(Sha256::of(&packed.manifest));
    }
    let World { owner, coordinator, dir, clock } = world;
    coordinator.stop().await;

    // A directory without a row is what a crash between rename and row leaves.
    let state = dir.path().join("state");
    fs::create_dir(state.join("artifacts").join(Sha256::of(b"half").to_string())).unwrap();
    let store = Arc::new(Store::open(StateDir::open(&state).unwrap()).await.unwrap());
    let registry = Registry::new(Arc::clone(&store));
    let good = AppReport { good: digests.first().copied(), ..AppReport::default() };
    registry.set_app(&"web-1".parse().unwrap(), &"shop".parse().unwrap(), &good, UnixMs(1)).await.unwrap();
    let roots = Arc::new(TrustRoots::load(Arc::clone(&store), Arc::new(SystemClock)).await.unwrap());
    let repository =
        Repository::new(Arc::clone(&store), roots, ArtifactLimits::default(), Arc::new(SystemClock));
    let gone = repository.retain(2).await.unwrap();
    assert_eq!(gone, [digests[1]]);
    drop(repository);
    store.close().await;
    drop((store, registry));

    let coordinator = start(&Owner::options(&owner, dir.path()), &clock).await.unwrap();
    let world = World { owner, clock, coordinator, dir };
    let mut client = world.admin().await;
    let listed = client.list_artifacts(ListArtifactsRequest::default()).await.unwrap().into_inner();
    let versions: Vec<_> = listed.artifacts.iter().map(|artifact| artifact.version.as_str()).collect();
    assert_eq!(versions, ["4", "3", "1"]);
    assert_eq!(listed.artifacts.last().unwrap().running_on, ["web-1"]);
    assert_eq!(names(&world, "artifacts").len(), 3);
    world.coordinator.stop().await;
}

fn names(world: &World, under: &str) -> Vec<PathBuf> {
    let dir = world.dir.path().join("state").join(under);
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}
