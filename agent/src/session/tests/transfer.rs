//! Manifests and packs.

use std::sync::Arc;

use consign_common::{digest::Sha256, limits::ArtifactLimits};
use tokio::sync::watch;

use super::world::World;
use crate::{
    ports::{Fetch as _, FetchError},
    session::fetch::Fetcher,
};

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_ended() {
    let world = World::new(|coordinator| coordinator.cut = Arc::new(2.into())).await;
    let fetcher = fetcher(&world, ArtifactLimits::default());
    let into = world.dir.path().join("pack");
    fetcher.pack(None, Sha256::of(b"x"), u64::MAX, into.clone(), |_, _| {}).await.unwrap();
    assert_eq!(std::fs::read(into).unwrap(), *world.coordinator.pack);
    assert_eq!(*world.coordinator.fetched_from.lock().unwrap(), [0, 3000, 6000]);
}

#[tokio::test]
async fn a_longer_file_than_the_pack_is_begun_again() {
    let world = World::new(|_| {}).await;
    let into = world.dir.path().join("pack");
    std::fs::write(&into, vec![0; 100_000]).unwrap();
    fetcher(&world, ArtifactLimits::default())
        .pack(None, Sha256::of(b"x"), u64::MAX, into.clone(), |_, _| {})
        .await
        .unwrap();
    assert_eq!(std::fs::read(into).unwrap(), *world.coordinator.pack);
}

#[tokio::test]
async fn a_manifest_beyond_its_limit_is_refused_before_it_is_read() {
    let world = World::new(|_| {}).await;
    let limits = ArtifactLimits { manifest_bytes: 5000, ..ArtifactLimits::default() };
    let refused = fetcher(&world, limits).manifest(Sha256::of(b"x")).await;
    assert!(matches!(refused, Err(FetchError::TooLong(5000))), "{refused:?}");
}

pub(super) fn fetcher(world: &World, limits: ArtifactLimits) -> Fetcher {
    let (_, identity) = watch::channel(world.authority.agent());
    Fetcher::new(world.dialer(), identity, world.roots(), limits)
}
