//! A success that must be confirmed: in time it is good, else the server returns, also where no agent lives to see it.

use std::{fs, time::Duration};

use consign_agent::{executor::boot_ms, state::LockedState};
use consign_common::{
    deployment::{DeploymentOutcome, Event},
    name::Id,
    trust::{Order, OrderKind},
};

use crate::{
    succeeded,
    world::{Agent, Artifact, World, supervised},
};

const STEPS: &str = r#"
[[step]]
name = "activate"
activate = true

[[step]]
name = "restart"
shell = "echo restart $CONSIGN_VERSION >> @effects"
on = ["deploy", "return"]
"#;

/// A good `1.0.0`, then `2.0.0` that waits to be confirmed for so long; and until when.
async fn confirming(world: &World, agent: &mut Agent, confirm: &str) -> (Id, u64, Artifact) {
    let one = world.publish("1.0.0", &[("index", "one")], STEPS);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let two = world.publish("2.0.0", &[("index", "two")], &format!("confirm = \"{confirm}\"\n{STEPS}"));
    let order = world.order(OrderKind::deploy(two.digest, false));
    agent.give(world.send(&order, &two)).await;
    let confirming = agent.until(|event| matches!(event, Event::Confirming { .. })).await;
    let Event::Confirming { deadline_boot_ms, .. } = confirming else { unreachable!() };
    (order.deployment, deadline_boot_ms, two)
}

fn running(world: &World) -> String {
    fs::read_to_string(world.current().unwrap().join("index")).unwrap()
}

async fn good(agent: &Agent) -> Option<String> {
    let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
    let memory = agent.journal.memory(&app, &environment, "c0ffee").await.unwrap();
    memory.good.map(|good| good.version.to_string())
}

async fn past(deadline_boot_ms: u64) {
    while boot_ms() < deadline_boot_ms {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn confirm_expired(world: &World) -> String {
    world.program("confirm-expired")
}

fn returned(outcome: &DeploymentOutcome) -> bool {
    matches!(outcome, DeploymentOutcome::Returned { because } if because.contains("confirmed"))
}

#[tokio::test]
async fn confirmed_in_time_it_is_good() {
    let world = World::new();
    let mut agent = world.start().await;
    let (deployment, ..) = confirming(&world, &mut agent, "5m").await;
    assert_eq!((running(&world).as_str(), good(&agent).await.as_deref()), ("two", Some("1.0.0")));
    // Also an agent that was away meanwhile goes on waiting, and takes it once.
    agent.kill().await;
    world.enrolled();
    let status = world.program("status");
    assert!(status.contains("waits to be confirmed until") && status.contains(" s left"), "{status}");
    let mut agent = world.start().await;
    let confirm = world.order(OrderKind::Confirm {});
    let confirm = Order { deployment: deployment.clone(), ..confirm };
    agent.give(world.send_alone(&confirm)).await;
    agent.give(world.send_alone(&confirm)).await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!((running(&world).as_str(), good(&agent).await.as_deref()), ("two", Some("2.0.0")));
    agent.kill().await;
}

#[tokio::test]
async fn not_confirmed_in_time_the_server_returns_and_an_order_may_shorten_the_time() {
    let world = World::new();
    let mut agent = world.start().await;
    let (deployment, ..) = confirming(&world, &mut agent, "300ms").await;
    agent.until(|event| matches!(event, Event::Unconfirmed { .. })).await;
    let outcome = agent.ended().await;
    assert!(returned(&outcome), "{outcome:?}");
    assert_eq!((running(&world).as_str(), good(&agent).await.as_deref()), ("one", Some("1.0.0")));
    assert_eq!(world.effects(), ["restart 1.0.0", "restart 2.0.0", "restart 1.0.0"]);
    agent.give(world.about(&deployment, OrderKind::Confirm {})).await;
    assert_eq!(agent.refusal().await.0, "not-running");

    let three = world.publish("3.0.0", &[("index", "three")], &format!("confirm = \"10m\"\n{STEPS}"));
    for (confirm_ms, most) in [(Some(200), 200), (Some(3_600_000), 600_000)] {
        let OrderKind::Deploy { manifest, force, skip, plan, .. } = OrderKind::deploy(three.digest, false)
        else {
            unreachable!()
        };
        let order =
            world.order(OrderKind::Deploy { manifest, force, skip, plan, confirm_ms, converge: false });
        agent.give(world.send(&order, &world.publish_again("3.0.0", &three))).await;
        let confirming = agent.until(|event| matches!(event, Event::Confirming { .. })).await;
        let Event::Confirming { deadline_boot_ms, .. } = confirming else { unreachable!() };
        assert!(deadline_boot_ms <= boot_ms() + most, "it lengthens nothing");
        if most > 200 {
            agent.give(world.about(&order.deployment, OrderKind::Cancel { reason: "no".into() })).await;
        }
        let outcome = agent.ended().await;
        assert!(returned(&outcome) || matches!(outcome, DeploymentOutcome::Cancelled { .. }), "{outcome:?}");
        assert_eq!(running(&world), "one");
    }
    agent.kill().await;
}

#[tokio::test]
async fn an_agent_that_comes_too_late_or_after_a_reboot_returns() {
    let world = World::new();
    let mut agent = world.start().await;
    let (_, deadline, _) = confirming(&world, &mut agent, "2s").await;
    agent.kill().await;
    past(deadline).await;
    assert_eq!(running(&world), "two", "nobody was there to return it");
    let mut agent = world.start().await;
    let outcome = agent.ended().await;
    assert!(returned(&outcome), "{outcome:?}");
    assert_eq!(running(&world), "one");
    agent.kill().await;

    let world = World::new();
    let mut agent = world.start().await;
    confirming(&world, &mut agent, "5m").await;
    agent.kill().await;
    let mut agent = world.start_as(supervised(), "11111111-2222-3333-4444-555555555555").await;
    let outcome = agent.ended().await;
    assert!(returned(&outcome), "{outcome:?}");
    assert_eq!(running(&world), "one");
    agent.kill().await;
}

#[tokio::test]
async fn without_an_agent_the_command_returns_what_is_overdue_and_nothing_else() {
    let world = World::new();
    world.enrolled();
    let mut agent = world.start().await;
    let (deployment, deadline, _) = confirming(&world, &mut agent, "2s").await;
    agent.kill().await;
    let said = confirm_expired(&world);
    if boot_ms() < deadline {
        assert!(said.contains("Nothing waits"), "{said}");
        assert_eq!(running(&world), "two");
    }
    past(deadline).await;
    let said = confirm_expired(&world);
    assert!(said.contains("returned") || said.contains("Nothing waits"), "{said}");
    assert_eq!(running(&world), "one");
    assert!(confirm_expired(&world).contains("Nothing waits"), "it is done");
    // The next agent tells what was done without it.
    let mut agent = world.start().await;
    let outcome = agent.ended().await;
    assert!(returned(&outcome), "{outcome:?}");
    let events = agent.journal.events(&deployment).await.unwrap();
    let ends = events.iter().filter(|record| matches!(record.event, Event::Ended { .. })).count();
    assert_eq!((ends, good(&agent).await.as_deref()), (1, Some("1.0.0")));
    agent.kill().await;
}

#[tokio::test]
async fn without_an_agent_the_command_also_ends_the_way_back_that_a_cancel_began() {
    let hold = "[[step]]\nname = \"hold\"\nshell = \"while ! test -e @effects.go; do sleep 0.02; done\"\n\
                on = [\"return\"]\n";
    let world = World::new();
    world.enrolled();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], &format!("{hold}{STEPS}"));
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let two = world.publish("2.0.0", &[("index", "two")], &format!("confirm = \"5m\"\n{STEPS}"));
    let order = world.order(OrderKind::deploy(two.digest, false));
    agent.give(world.send(&order, &two)).await;
    agent.until(|event| matches!(event, Event::Confirming { .. })).await;
    agent.give(world.about(&order.deployment, OrderKind::Cancel { reason: "no".into() })).await;
    agent.until(|event| matches!(event, Event::Cancelling { .. })).await;
    agent.kill().await;
    assert_eq!(running(&world), "two");
    fs::write(world.path("effects/log.go"), "").unwrap();
    let said = confirm_expired(&world);
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!(running(&world), "one");
}

#[tokio::test]
async fn while_an_agent_holds_the_state_the_command_does_nothing() {
    let world = World::new();
    world.enrolled();
    let mut agent = world.start().await;
    let (_, deadline, _) = confirming(&world, &mut agent, "1s").await;
    agent.kill().await;
    past(deadline).await;
    let lock = LockedState::open(&world.path("state")).unwrap();
    let said = confirm_expired(&world);
    assert!(said.contains("An agent is running"), "{said}");
    assert_eq!(running(&world), "two");
    drop(lock);
    assert!(confirm_expired(&world).contains("returned"));
    assert_eq!(running(&world), "one");
}
