//! Deployments from the order to the end, through all that the agent consists of but its network.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod confirm;
mod gates;
mod hostile;
mod orders;
mod preview;
mod secrets;
mod unlucky;
mod waits;
mod world;

use std::fs;

use consign_agent::ports::{Inbound, Outbound};
use consign_common::{
    deployment::{DeploymentOutcome, Event, StepOutcome},
    trust::OrderKind,
};
use world::World;

const NOTE: &str = r#"
[[step]]
name = "migrate"
shell = "echo migrating $CONSIGN_VERSION; echo migrate $CONSIGN_VERSION >> @effects"
when = "changed('migrations/**')"

[[step]]
name = "activate"
activate = true

[[step]]
name = "note"
run = ["/bin/sh", "-c", "echo note $CONSIGN_VERSION in $PWD >> @effects; echo oops >&2"]
"#;

const FAILS: &str = r#"
[[step]]
name = "activate"
activate = true

[[step]]
name = "restart"
shell = "echo restart $CONSIGN_VERSION >> @effects"
on = ["deploy", "return"]

[[step]]
name = "healthy"
shell = "test $CONSIGN_VERSION != 2.0.0"
on = ["deploy", "return"]
"#;

/// Goes on once `go` exists beside the effects.
const WAITS: &str = r#"
[[step]]
name = "wait"
shell = "echo begin >> @effects; while ! test -e @effects.go; do sleep 0.02; done; echo end >> @effects"

[[step]]
name = "activate"
activate = true
"#;

fn succeeded() -> DeploymentOutcome {
    DeploymentOutcome::Succeeded { tolerated: vec![] }
}

#[tokio::test]
async fn a_first_deployment_and_an_upgrade_that_skips() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("migrations/1", "create"), ("index", "one")], NOTE);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let release = world.current().unwrap();
    assert_eq!(fs::read_to_string(release.join("index")).unwrap(), "one");
    assert_eq!(world.effects(), ["migrate 1.0.0".to_owned(), format!("note 1.0.0 in {}", release.display())]);

    let two = world.publish("2.0.0", &[("migrations/1", "create"), ("index", "two")], NOTE);
    let order = world.order(OrderKind::deploy(two.digest, false));
    agent.give(world.send(&order, &two)).await;
    let events = agent.events().await;
    let skipped = events.iter().find_map(|event| {
        let Event::Skipped { step: 0, expression, inputs, .. } = event else { return None };
        Some((expression.clone(), inputs.clone()))
    });
    let (expression, inputs) = skipped.expect("the skip is told");
    assert_eq!(expression, "changed('migrations/**')");
    assert!(inputs.values().any(|value| value == "false"), "{inputs:?}");
    assert!(world.effects().last().unwrap().starts_with("note 2.0.0"), "{:?}", world.effects());
    assert!(world.log(&order.deployment, "deploy-2-1").contains("oops\n"));
    assert!(world.log(&order.deployment, "deploy-1-1").contains("current -> releases/2.0.0-"));
    // The same order again is known, and what runs already is left alone.
    agent.give(world.send(&order, &two)).await;
    agent.give(world.deploy(&two)).await;
    assert_eq!(agent.outcome().await, DeploymentOutcome::NoOp);
    assert_eq!(world.effects().len(), 3);
    agent.kill().await;
}

#[tokio::test]
async fn a_failing_version_returns_and_a_rollback_goes_one_further() {
    let world = World::new();
    let mut agent = world.start().await;
    let zero = world.publish("0.9.0", &[("index", "zero")], FAILS);
    let one = world.publish("1.0.0", &[("index", "one")], FAILS);
    let two = world.publish("2.0.0", &[("index", "two")], FAILS);
    for artifact in [&zero, &one] {
        agent.give(world.deploy(artifact)).await;
        assert_eq!(agent.outcome().await, succeeded());
    }
    let good = world.current().unwrap();
    agent.give(world.deploy(&two)).await;
    let outcome = agent.outcome().await;
    let because = "step healthy failed: exit code 1".to_owned();
    assert_eq!(outcome, DeploymentOutcome::Returned { because });
    assert_eq!(world.current().unwrap(), good);
    assert_eq!(world.effects(), ["restart 0.9.0", "restart 1.0.0", "restart 2.0.0", "restart 1.0.0"]);

    let back = OrderKind::back(zero.digest, "looks bad");
    agent.give(world.send(&world.order(back.clone()), &zero)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(fs::read_to_string(world.current().unwrap().join("index")).unwrap(), "zero");
    agent.give(world.send(&world.order(back), &zero)).await;
    assert_eq!(agent.refusal().await.0, "nothing-to-return-to");
    // Forward again needs a new statement of the same bytes.
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.refusal().await.0, "older");
    agent.give(world.deploy(&world.publish_again("1.0.0", &one))).await;
    assert_eq!(agent.outcome().await, succeeded());
    agent.kill().await;
}

#[tokio::test]
async fn a_damaged_good_release_is_not_returned_to() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], FAILS);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let index = world.current().unwrap().join("index");
    fs::remove_file(&index)
        .or_else(|_| {
            let writable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(index.parent().unwrap(), writable)?;
            fs::remove_file(&index)
        })
        .unwrap();
    agent.give(world.deploy(&world.publish("2.0.0", &[("index", "two")], FAILS))).await;
    let DeploymentOutcome::Stopped { because } = agent.outcome().await else { panic!("not stopped") };
    assert!(
        because.contains("cannot return to 1.0.0") && because.contains("\"index\" is missing"),
        "{because}"
    );
    agent.kill().await;
}

#[tokio::test]
async fn a_step_outlives_the_agent_and_runs_once() {
    let world = World::new();
    let agent = world.start().await;
    agent.give(world.deploy(&world.publish("1.0.0", &[("index", "one")], WAITS))).await;
    world.effect("begin").await;
    agent.kill().await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    world.effect("end").await;
    let mut agent = world.start().await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.effects(), ["begin", "end"]);
    agent.kill().await;
}

#[tokio::test]
async fn a_step_whose_supervisor_is_lost_is_unknown_and_nothing_of_it_is_left() {
    let world = World::new();
    let agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], WAITS);
    let order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&order, &artifact)).await;
    world.effect("begin").await;
    agent.kill().await;
    world.kill_supervisor(&order.deployment);
    let mut agent = world.start().await;
    agent.until(|event| matches!(event, Event::Undecided { step: 0, .. })).await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    // Another order does not wait for a decision; the step that was lost is gone by then.
    agent.give(world.deploy(&world.publish("2.0.0", &[("index", "two")], WAITS))).await;
    let unknown = agent.until(|event| matches!(event, Event::Ended { .. })).await;
    let Event::Ended { result: DeploymentOutcome::Unknown { step, .. } } = unknown else {
        panic!("{unknown:?}")
    };
    assert_eq!(step, "wait");
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["begin", "begin", "end"]);
    agent.kill().await;
}

#[tokio::test]
async fn a_cancel_ends_the_step_and_removes_what_was_staged() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], WAITS);
    let deploy = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&deploy, &artifact)).await;
    world.effect("begin").await;
    // One app never has two deployments at once.
    agent.give(world.deploy(&artifact)).await;
    let mut cancel = world.order(OrderKind::Cancel { reason: "wrong day".into() });
    cancel.deployment = deploy.deployment.clone();
    agent.give(world.send(&cancel, &artifact)).await;
    let mut events = Vec::new();
    let mut busy = false;
    while !matches!(events.last(), Some(Event::Ended { .. })) {
        match agent.hear().await {
            Outbound::Event { body, .. } => events.push(body),
            Outbound::Refused { code, .. } => busy |= code == "busy",
            Outbound::Answer { answer, .. } => panic!("nobody asked: {answer:?}"),
            Outbound::Again => {}
        }
    }
    assert!(busy);
    let result = DeploymentOutcome::Cancelled { because: "wrong day".into() };
    assert_eq!(events.last(), Some(&Event::Ended { result }));
    let cancelled = |event: &Event| matches!(event, Event::Finished { result: StepOutcome::Cancelled, .. });
    assert!(events.iter().any(cancelled), "{events:?}");
    assert!(world.releases().is_empty() && world.current().is_none());
    agent.kill().await;
}

#[tokio::test]
async fn what_the_coordinator_lost_comes_again_in_order() {
    let world = World::new();
    let mut agent = world.start().await;
    agent.give(world.deploy(&world.publish("1.0.0", &[("index", "one")], NOTE))).await;
    let first = agent.unacknowledged().await;
    agent.give(Inbound::Connected).await;
    assert_eq!(agent.unacknowledged().await, first);
    // Some of it arrived; the rest is told by another life of the agent, from the journal.
    agent.give(Inbound::EventAck { deployment: first.0.clone(), sequence: 2 }).await;
    agent.give(world.deploy(&world.publish("2.0.0", &[("index", "two")], NOTE))).await;
    let second = agent.unacknowledged().await;
    agent.kill().await;
    let mut agent = world.start().await;
    for expected in first.1.iter().skip(2).chain(&second.1) {
        match agent.hear().await {
            Outbound::Event { body, .. } => assert_eq!(body, *expected),
            other @ (Outbound::Refused { .. } | Outbound::Answer { .. } | Outbound::Again) => {
                panic!("no event: {other:?}")
            }
        }
    }
    agent.kill().await;
}

#[tokio::test]
async fn a_spoilt_pack_is_fetched_once_more_and_then_refused() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one"), ("more", &"x".repeat(4000))], NOTE);
    world.shelf.spoil(artifact.digest);
    agent.give(world.deploy(&artifact)).await;
    let DeploymentOutcome::Refused { code, .. } = agent.outcome().await else { panic!("not refused") };
    assert_eq!(code, "pack-mismatch");
    assert_eq!(world.shelf.packs_fetched.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert!(world.releases().is_empty(), "{:?}", world.releases());
    agent.kill().await;
}

#[tokio::test]
async fn another_order_under_a_known_id_is_an_equivocation() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    let mut order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&order, &artifact)).await;
    assert_eq!(agent.outcome().await, succeeded());
    order.term = 2;
    agent.give(world.send(&order, &artifact)).await;
    assert_eq!(agent.refusal().await.0, "equivocation");
    let Inbound::Order { papers, .. } = world.deploy(&artifact) else { unreachable!() };
    agent.give(Inbound::Order { papers, connected: "deadbeef".into() }).await;
    assert_eq!(agent.refusal().await.0, "coordinator-unknown");
    agent.kill().await;
}

#[tokio::test]
async fn a_missing_shared_path_is_named_before_anything_is_fetched() {
    let world = World::new();
    let mut agent = world.start().await;
    let plan = format!("shared = [\"storage\"]\n{NOTE}");
    let artifact = world.publish("1.0.0", &[("index", "one")], &plan);
    agent.give(world.deploy(&artifact)).await;
    let DeploymentOutcome::Refused { code, message } = agent.outcome().await else { panic!("not refused") };
    assert_eq!(code, "shared-missing");
    assert!(message.contains("apps/shop/shared/storage"), "{message}");
    fs::create_dir(world.path("apps/shop/shared/storage")).unwrap();
    agent.give(world.deploy(&artifact)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert!(world.current().unwrap().join("storage").is_dir());
    agent.kill().await;
}
