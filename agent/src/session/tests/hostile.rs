//! A coordinator with all its keys that says what no coordinator says: the agent stays up, keeps its bounds, and comes back.

use consign_common::{
    digest::Sha256,
    limits::{ArtifactLimits, PLAN_DOCUMENT_BYTES, SEALED_BYTES},
};
use consign_proto::v1::{EventAck, Order, Query, Welcome, coordinator_message::Kind};

use super::{
    transfer::fetcher,
    world::{World, deployment},
};
use crate::ports::{Fetch as _, FetchError, Inbound};

/// Whatever the session before said last, a heartbeat or nothing, is passed over.
async fn next_session(world: &mut World) {
    while world.heard().await.is_some() {}
}

fn order() -> Kind {
    Kind::Order(Order { document: "{}".into(), ..Order::default() })
}

#[tokio::test]
async fn what_no_coordinator_says_ends_the_session_and_reaches_nobody() {
    let welcome = Welcome { coordinator: "me".into(), now_ms: 0, heartbeat_seconds: 1, protocol: 1 };
    let ack = |deployment: &str| EventAck { deployment: deployment.into(), sequence: 1 };
    ends_the_session(vec![
        Kind::Welcome(welcome),
        Kind::Order(Order { document: "{}".into(), statements: vec!["s".into(); 33], ..Order::default() }),
        Kind::EventAck(ack("../../etc/passwd")),
        Kind::EventAck(ack("")),
    ])
    .await;
}

#[tokio::test]
async fn a_query_beyond_its_bounds_ends_the_session() {
    let too_many = Order { document: "{}".into(), statements: vec!["s".into(); 33], ..Order::default() };
    let long = |plan: usize, sealed: usize| Order {
        plan: vec![b'x'; plan].into(),
        sealed: vec![b'x'; sealed].into(),
        ..Order::default()
    };
    let query = |order: Order| Kind::Query(Query { id: "q".into(), order: Some(order) });
    ends_the_session(vec![
        query(long(PLAN_DOCUMENT_BYTES + 1, 0)),
        query(long(0, SEALED_BYTES + 1)),
        Kind::Order(long(0, SEALED_BYTES + 1)),
    ])
    .await;
    ends_the_session(vec![
        Kind::Query(Query { id: "q".into(), order: None }),
        Kind::Query(Query { id: "q".repeat(65), order: Some(Order::default()) }),
        Kind::Query(Query { id: "q".into(), order: Some(too_many) }),
    ])
    .await;
}

/// Few at a time: after each the agent waits longer before it comes back.
async fn ends_the_session(games: Vec<Kind>) {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Default::default());
    for game in games {
        next_session(&mut world).await;
        assert!(matches!(agent.told().await, Inbound::Connected));
        world.say(game).await;
        // Nothing said after it in the same session is heard.
        world.say(order()).await;
    }
    next_session(&mut world).await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    world.say(order()).await;
    assert!(matches!(agent.told().await, Inbound::Order { .. }), "and it still serves");
}

#[tokio::test]
async fn no_heartbeat_interval_makes_it_spin_or_overflow() {
    for seconds in [0, u32::MAX] {
        let mut world = World::new(|coordinator| coordinator.heartbeat_seconds = seconds).await;
        let mut agent = world.start(Default::default());
        world.hello().await;
        assert!(matches!(agent.told().await, Inbound::Connected));
        world
            .say(Kind::EventAck(EventAck { deployment: deployment().to_string(), sequence: u64::MAX }))
            .await;
        assert!(matches!(agent.told().await, Inbound::EventAck { sequence: u64::MAX, .. }));
    }
}

#[tokio::test]
async fn a_pack_beyond_what_the_manifest_can_need_is_refused_before_a_byte_is_written() {
    let world = World::new(|_| {}).await;
    let into = world.dir.path().join("pack");
    let refused = fetcher(&world, ArtifactLimits::default())
        .pack(None, Sha256::of(b"x"), 5000, into.clone(), |_, _| {})
        .await;
    assert!(matches!(refused, Err(FetchError::TooLong(5000))), "{refused:?}");
    assert_eq!(std::fs::metadata(into).unwrap().len(), 0);
}

#[tokio::test]
async fn a_transfer_of_nothing_ends() {
    let world = World::new(|coordinator| coordinator.idle = true).await;
    let fetcher = fetcher(&world, ArtifactLimits::default());
    let into = world.dir.path().join("pack");
    let pack = fetcher.pack(None, Sha256::of(b"x"), u64::MAX, into, |_, _| {}).await;
    assert!(matches!(pack, Err(FetchError::Malformed(_))), "{pack:?}");
    let manifest = fetcher.manifest(Sha256::of(b"x")).await;
    assert!(matches!(manifest, Err(FetchError::Malformed(_))), "{manifest:?}");
}
