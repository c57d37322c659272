//! Orders that come at an inconvenient moment: while another deployment is being cancelled, or before theirs has begun.

use std::{fs, sync::atomic::Ordering, time::Duration};

use consign_agent::ports::Outbound;
use consign_common::{
    deployment::{DeploymentOutcome, Event},
    digest::Sha256,
    trust::{DecisionAction, Order, OrderKind},
};
use tokio::time::timeout;

use crate::{
    NOTE, succeeded,
    world::{Agent, Artifact, OUTBOUND, World},
};

/// Told to end, it does so once `go` exists beside the effects.
const LINGERS: &str = r#"
[[step]]
name = "linger"
shell = "trap 'while ! test -e @effects.go; do sleep 0.02; done; exit 1' TERM; echo begin >> @effects; while :; do sleep 0.02; done"

[[step]]
name = "activate"
activate = true
"#;

fn cancelled(because: &str) -> DeploymentOutcome {
    DeploymentOutcome::Cancelled { because: because.into() }
}

fn cancel(reason: &str) -> OrderKind {
    OrderKind::Cancel { reason: reason.into() }
}

fn skip(step: &str) -> OrderKind {
    let (step, reason) = (step.parse().unwrap(), "not here".into());
    OrderKind::Decide { step, action: DecisionAction::Skip, reason }
}

/// A deployment whose step was told to end, and has not.
async fn cancelling(world: &World, agent: &Agent) {
    let artifact = world.publish("1.0.0", &[("index", "one")], LINGERS);
    let order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&order, &artifact)).await;
    world.effect("begin").await;
    agent.give(world.about(&order.deployment, cancel("wrong day"))).await;
}

fn deploy(world: &World, artifact: &Artifact) -> Order {
    world.order(OrderKind::deploy(artifact.digest, false))
}

#[tokio::test]
async fn an_order_right_after_a_cancel_waits_for_the_end_of_what_was_cancelled() {
    let world = World::new();
    let mut agent = world.start().await;
    cancelling(&world, &agent).await;
    let again = world.publish("1.1.0", &[("index", "again")], NOTE);
    let order = deploy(&world, &again);
    for _ in 0..2 {
        agent.give(world.send(&order, &again)).await;
    }
    // One of them; who comes later still hears that there is no place.
    agent.give(world.deploy(&again)).await;
    while !matches!(agent.hear().await, Outbound::Refused { code, .. } if code == "busy") {}
    fs::write(world.path("effects/log.go"), "").unwrap();
    assert_eq!(agent.ended().await, cancelled("wrong day"));
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.releases().len(), 1);
    agent.kill().await;
}

#[tokio::test]
async fn also_where_the_cancel_was_heard_in_the_agents_life_before() {
    let world = World::new();
    let mut agent = world.start().await;
    cancelling(&world, &agent).await;
    agent.until(|event| matches!(event, Event::Cancelling { .. })).await;
    agent.kill().await;
    let mut agent = world.start().await;
    agent.give(world.deploy(&world.publish("1.1.0", &[("index", "again")], NOTE))).await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    assert_eq!(agent.ended().await, cancelled("wrong day"));
    assert_eq!(agent.ended().await, succeeded());
    agent.kill().await;
}

/// On the way back it runs until it is killed.
const STUCK_ON_ITS_WAY_BACK: &str = r#"
[[step]]
name = "activate"
activate = true

[[step]]
name = "restart"
shell = "echo restart >> @effects; while :; do sleep 0.02; done"
on = ["return"]

[[step]]
name = "healthy"
shell = "test $CONSIGN_VERSION != 2.0.0"
"#;

#[tokio::test]
async fn an_order_that_waits_does_not_wait_for_a_decision_that_nobody_makes() {
    let world = World::new();
    let mut agent = world.start().await;
    agent.give(world.deploy(&world.publish("1.0.0", &[("index", "one")], STUCK_ON_ITS_WAY_BACK))).await;
    assert_eq!(agent.ended().await, succeeded());
    let two = world.publish("2.0.0", &[("index", "two")], STUCK_ON_ITS_WAY_BACK);
    let order = deploy(&world, &two);
    agent.give(world.send(&order, &two)).await;
    world.effect("restart").await;
    agent.give(world.about(&order.deployment, cancel("enough"))).await;
    agent.give(world.deploy(&world.publish("3.0.0", &[("index", "three")], NOTE))).await;
    agent.until(|event| matches!(event, Event::Cancelling { .. })).await;
    world.kill_supervisor(&order.deployment);
    agent.until(|event| matches!(event, Event::Undecided { .. })).await;
    assert_eq!(agent.ended().await.as_str(), "unknown");
    assert_eq!(agent.ended().await, succeeded());
    agent.kill().await;
}

#[tokio::test]
async fn words_about_an_order_that_waits_for_its_place_wait_with_it() {
    let world = World::new();
    let mut agent = world.start().await;
    cancelling(&world, &agent).await;
    let again = world.publish("1.1.0", &[("index", "again")], NOTE);
    let order = deploy(&world, &again);
    agent.give(world.send(&order, &again)).await;
    agent.give(world.about(&order.deployment, cancel("not today either"))).await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    assert_eq!(agent.ended().await, cancelled("wrong day"));
    assert_eq!(agent.ended().await, cancelled("not today either"));
    assert!(world.current().is_none() && world.effects() == ["begin"], "{:?}", world.effects());
    agent.kill().await;
}

#[tokio::test]
async fn a_skip_that_comes_while_its_order_is_judged_counts() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    world.shelf.silent.store(true, Ordering::Relaxed);
    let order = deploy(&world, &artifact);
    agent.give(world.send(&order, &artifact)).await;
    let left_out = Order { deployment: order.deployment.clone(), ..world.order(skip("note")) };
    for _ in 0..2 {
        agent.give(world.send_alone(&left_out)).await;
    }
    let unfit = Order { deployment: order.deployment.clone(), ..world.order(skip("nothing")) };
    agent.give(world.send_alone(&unfit)).await;
    let (known, document) = (agent.journal.clone(), left_out.to_vec());
    let taken = async {
        while known.known(&left_out.id, &document).await.unwrap().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), taken).await.expect("the word is taken");
    world.shelf.silent.store(false, Ordering::Relaxed);
    let (mut skipped, mut refused) = (0, Vec::new());
    let outcome = loop {
        match agent.hear().await {
            Outbound::Event { body: Event::Skipped { step: 2, .. }, .. } => skipped += 1,
            Outbound::Event { body: Event::Ended { result }, .. } => break result,
            Outbound::Refused { order, code, .. } => refused.push((order, code)),
            Outbound::Event { .. } | Outbound::Answer { .. } | Outbound::Again => {}
        }
    };
    assert_eq!((outcome, skipped), (succeeded(), 1));
    assert!(world.effects().is_empty(), "{:?}", world.effects());
    assert_eq!(refused, [(unfit.id, "step-unknown".to_owned())]);
    agent.kill().await;
}

#[tokio::test]
async fn words_about_an_order_that_is_refused_are_answered() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    world.shelf.silent.store(true, Ordering::Relaxed);
    let unsigned = Artifact { digest: artifact.digest, statements: Vec::new() };
    let order = deploy(&world, &unsigned);
    agent.give(world.send(&order, &unsigned)).await;
    for _ in 0..9 {
        agent.give(world.about(&order.deployment, skip("note"))).await;
    }
    assert_eq!(agent.refusal().await.0, "busy", "not more of them than are heard");
    world.shelf.silent.store(false, Ordering::Relaxed);
    assert_eq!(agent.refusal().await.0, "statement-missing");
    for _ in 0..8 {
        assert_eq!(agent.refusal().await.0, "not-running");
    }
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.outcome().await, succeeded());
    agent.kill().await;
}

#[tokio::test]
async fn a_blip_of_the_network_refuses_no_order_and_what_is_not_there_is_asked_for_once() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    world.shelf.blips.store(2, Ordering::Relaxed);
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.shelf.manifests_fetched.swap(0, Ordering::Relaxed), 3);
    let nowhere = Artifact { digest: Sha256::of(b"nowhere"), statements: artifact.statements };
    agent.give(world.deploy(&nowhere)).await;
    assert_eq!(agent.refusal().await.0, "fetch-failed");
    assert_eq!(world.shelf.manifests_fetched.load(Ordering::Relaxed), 1);
    agent.kill().await;
}

#[tokio::test]
async fn a_session_that_is_behind_hears_every_refusal() {
    let world = World::new();
    let mut agent = world.start().await;
    let orders: Vec<Order> = (0..OUTBOUND + 100).map(|_| world.order(cancel("nothing"))).collect();
    for order in &orders {
        agent.give(world.send_alone(order)).await;
    }
    for order in orders {
        let Outbound::Refused { order: refused, code, .. } = agent.hear().await else { panic!("no refusal") };
        assert_eq!((refused, code.as_str()), (order.id, "not-running"));
    }
    agent.kill().await;
}
