//! The coordinator is somebody else's now, with all its keys: what it can and cannot make this server do.

use std::{fs, sync::atomic::Ordering};

use consign_agent::ports::{Inbound, Outbound};
use consign_common::{
    deployment::{DeploymentOutcome, Event},
    trust::{Order, OrderKind},
};

use crate::{
    NOTE, WAITS, succeeded,
    world::{Agent, Artifact, World},
};

fn deploy(artifact: &Artifact) -> OrderKind {
    OrderKind::deploy(artifact.digest, false)
}

/// Refused, with nothing fetched, written or executed for it.
async fn turned_away(
    world: &World,
    agent: &mut Agent,
    artifact: &Artifact,
    change: impl FnOnce(&mut Order),
) -> String {
    let before = world.shelf.manifests_fetched.load(Ordering::Relaxed);
    let mut order = world.order(deploy(artifact));
    change(&mut order);
    agent.give(world.send(&order, artifact)).await;
    let (code, _) = agent.refusal().await;
    assert_eq!(world.shelf.manifests_fetched.load(Ordering::Relaxed), before, "{code}");
    assert!(!world.path("state/deployments").join(order.deployment.as_str()).exists(), "{code}");
    assert!(world.effects().is_empty(), "{code}: {:?}", world.effects());
    code
}

#[tokio::test]
async fn an_order_that_is_not_for_this_server_costs_it_nothing() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    type Change = fn(&mut Order);
    let cases: [(&str, Change); 4] = [
        ("wrong-server", |order| order.server = "web-2".parse().unwrap()),
        ("wrong-environment", |order| order.environment = "staging".parse().unwrap()),
        ("coordinator-unknown", |order| order.coordinator = "deadbeef".into()),
        ("app-not-allowed", |order| order.app = "blog".parse().unwrap()),
    ];
    for (code, change) in cases {
        assert_eq!(turned_away(&world, &mut agent, &artifact, change).await, code);
    }
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.outcome().await, succeeded(), "and it still serves the next one");
    agent.kill().await;
}

#[tokio::test]
async fn an_older_term_is_refused_also_by_the_next_life_of_the_agent() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    let mut order = world.order(deploy(&artifact));
    order.term = 7;
    agent.give(world.send(&order, &artifact)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let done = world.effects();
    for _ in 0..2 {
        for kind in [deploy(&artifact), OrderKind::Cancel { reason: String::new() }] {
            let mut order = world.order(kind);
            order.term = 6;
            agent.give(world.send(&order, &artifact)).await;
            assert_eq!(agent.refusal().await.0, "old-term");
        }
        agent.kill().await;
        agent = world.start().await;
    }
    assert_eq!(world.effects(), done);
    agent.kill().await;
}

#[tokio::test]
async fn a_finished_order_runs_nothing_when_it_comes_again_however_often() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], NOTE);
    let old = world.order(deploy(&one));
    agent.give(world.send(&old, &one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let two = world.publish("2.0.0", &[("index", "two")], NOTE);
    agent.give(world.deploy(&two)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let (effects, current) = (world.effects(), world.current());
    for _ in 0..2 {
        for _ in 0..3 {
            agent.give(world.send(&old, &one)).await;
        }
        // The same artifact in an order that is new: its statement is older than what runs.
        agent.give(world.deploy(&one)).await;
        assert_eq!(agent.refusal().await.0, "older", "and not a word about the others");
        agent.kill().await;
        agent = world.start().await;
    }
    let mut forced = world.order(deploy(&two));
    forced.order = OrderKind::deploy(two.digest, true);
    agent.give(world.send(&forced, &two)).await;
    assert_eq!(agent.refusal().await.0, "used-up");
    assert_eq!((world.effects(), world.current()), (effects, current));
    agent.kill().await;
}

#[tokio::test]
async fn a_manifest_with_other_bytes_is_refused_and_not_kept() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    world.shelf.spoil_manifest(artifact.digest);
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.refusal().await.0, "manifest-digest");
    assert!(!world.path("state/artifacts").exists());
    assert_eq!(world.shelf.packs_fetched.load(Ordering::Relaxed), 0);
    agent.kill().await;
}

#[tokio::test]
async fn one_artifacts_statement_brings_no_other_in() {
    let world = World::new();
    let mut agent = world.start().await;
    let signed = world.publish("1.0.0", &[("index", "one")], NOTE);
    let other = world.publish("1.0.0", &[("index", "evil")], NOTE);
    let order = world.order(deploy(&other));
    agent.give(world.send(&order, &signed)).await;
    assert_eq!(agent.refusal().await.0, "wrong-subject");
    let Inbound::Order { mut papers, connected } = world.deploy(&other) else { unreachable!() };
    papers.statements.clear();
    agent.give(Inbound::Order { papers, connected }).await;
    assert_eq!(agent.refusal().await.0, "statement-missing");
    assert!(world.effects().is_empty() && world.current().is_none());
    agent.kill().await;
}

#[tokio::test]
async fn a_return_goes_to_before_once_and_nowhere_else() {
    let world = World::new();
    let mut agent = world.start().await;
    let [one, two, three] =
        ["1.0.0", "2.0.0", "3.0.0"].map(|version| world.publish(version, &[("index", version)], NOTE));
    for artifact in [&one, &two, &three] {
        agent.give(world.deploy(artifact)).await;
        assert_eq!(agent.outcome().await, succeeded());
    }
    let back = |to: &Artifact| OrderKind::back(to.digest, "mine");
    // `good` itself, and what lies further back, though its release is still on disk.
    for to in [&three, &one] {
        agent.give(world.send(&world.order(back(to)), to)).await;
        assert_eq!(agent.refusal().await.0, "wrong-return");
    }
    agent.give(world.send(&world.order(back(&two)), &two)).await;
    assert_eq!(agent.outcome().await, succeeded());
    for to in [&one, &two, &three] {
        agent.give(world.send(&world.order(back(to)), to)).await;
        assert_eq!(agent.refusal().await.0, "nothing-to-return-to");
    }
    assert_eq!(fs::read_to_string(world.current().unwrap().join("index")).unwrap(), "2.0.0");
    agent.kill().await;
}

#[tokio::test]
async fn events_that_have_not_happened_cannot_be_acknowledged() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], WAITS);
    let order = world.order(deploy(&artifact));
    agent.give(world.send(&order, &artifact)).await;
    world.effect("begin").await;
    agent.give(Inbound::EventAck { deployment: order.deployment.clone(), sequence: u64::MAX }).await;
    // Answered in its turn: by now the acknowledgement is in the journal.
    agent.give(world.deploy(&artifact)).await;
    while !matches!(agent.hear().await, Outbound::Refused { .. }) {}
    agent.kill().await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    let mut agent = world.start().await;
    loop {
        if let Outbound::Event { body: Event::Ended { result }, .. } = agent.hear().await {
            assert_eq!(result, succeeded());
            break;
        }
    }
    agent.kill().await;
}

#[tokio::test]
async fn a_flood_of_cancels_is_one_cancel() {
    let world = World::new();
    let mut agent = world.start().await;
    let plan = "[[step]]\nname = \"stubborn\"\nshell = \"trap '' TERM; echo begin >> @effects; \
                while ! test -e @effects.go; do sleep 0.02; done\"\n[[step]]\nname = \"on\"\nactivate = true\n";
    let artifact = world.publish("1.0.0", &[("index", "one")], plan);
    let order = world.order(deploy(&artifact));
    agent.give(world.send(&order, &artifact)).await;
    world.effect("begin").await;
    let flood = async {
        for _ in 0..100 {
            let mut cancel = world.order(OrderKind::Cancel { reason: "x".repeat(30_000) });
            cancel.deployment = order.deployment.clone();
            agent.inbound.send(world.send(&cancel, &artifact)).await.unwrap();
        }
        fs::write(world.path("effects/log.go"), "").unwrap();
    };
    flood.await;
    let (mut cancelling, mut refused) = (0, 0);
    let result = loop {
        match agent.hear().await {
            Outbound::Event { body: Event::Ended { result }, .. } => break result,
            Outbound::Event { body, .. } => {
                cancelling += usize::from(matches!(body, Event::Cancelling { .. }))
            }
            Outbound::Refused { .. } => refused += 1,
            Outbound::Answer { answer, .. } => panic!("nobody asked: {answer:?}"),
            Outbound::Again => {}
        }
    };
    assert!(matches!(result, DeploymentOutcome::Cancelled { .. }), "{result:?}");
    assert!((1..=8).contains(&cancelling) && refused > 0, "{cancelling} {refused}");
    agent.kill().await;
}
