//! A server where people sign: what they let in, what they let in again after a failure, and with which config.

use consign_agent::ports::{Answer, Foretold, Held, Inbound, Outbound};
use consign_common::{
    deployment::{DeploymentOutcome, Event},
    trust::{
        Decision, DecisionAction, Order, OrderKind, PlanDocument, Planned, PlannedStep, Predicate,
        authorize::Memory,
    },
};

use crate::{
    FAILS, NOTE, WAITS, succeeded,
    world::{Agent, Artifact, World},
};

const CONFIGURED: &str = r#"
[params.workers]
type = "int"
default = 4

[[step]]
name = "more"
shell = "echo more >> @effects"
when = "params.workers > 8"

[[step]]
name = "activate"
activate = true

[[step]]
name = "start"
shell = "echo $CONSIGN_VERSION with $WORKERS >> @effects; test $WORKERS != 13"
on = ["deploy", "return"]
"#;

async fn memory(agent: &Agent) -> Memory {
    let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
    agent.journal.memory(&app, &environment, "c0ffee").await.unwrap()
}

fn with_plan(inbound: Inbound, document: &PlanDocument) -> Inbound {
    match inbound {
        Inbound::Order { mut papers, connected } => {
            papers.plan = Some(document.to_vec());
            Inbound::Order { papers, connected }
        }
        other @ (Inbound::Query { .. } | Inbound::EventAck { .. } | Inbound::Connected) => other,
    }
}

/// What a preview says of the server.
async fn previewed(world: &World, agent: &mut Agent, artifact: &Artifact) -> (Foretold, Option<Held>) {
    let order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.ask("q", &order, artifact)).await;
    match agent.hear().await {
        Outbound::Answer { answer: Answer::Foretold { foretold, held }, .. } => (foretold, held),
        other @ (Outbound::Answer { .. }
        | Outbound::Event { .. }
        | Outbound::Refused { .. }
        | Outbound::Again) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_nobody_approved_executes_nothing_and_what_somebody_approved_does() {
    let (world, alice) = World::gated();
    let mut agent = world.start().await;
    let mut one = world.publish("1.0.0", &[("migrations/1", "create"), ("index", "one")], NOTE);
    let (foretold, held) = previewed(&world, &mut agent, &one).await;
    assert!(matches!(&foretold, Foretold::Work { steps } if steps.len() == 3), "{foretold:?}");
    assert_eq!(held.unwrap().code, "approval-missing");
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.refusal().await.0, "approval-missing");
    let two = world.publish("2.0.0", &[("index", "two")], NOTE);
    let lent = Artifact { digest: two.digest, statements: two.statements.clone() };
    world.approve(&alice, &mut one, |it| it.environment = "staging".parse().unwrap());
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.refusal().await.0, "wrong-environment");
    assert!(world.effects().is_empty() && world.current().is_none());
    assert_eq!(memory(&agent).await, Memory::default());

    world.approve(&alice, &mut one, |_| {});
    let mut borrowed = lent;
    borrowed.statements.extend(one.statements.iter().skip(1).cloned());
    agent.give(world.deploy(&borrowed)).await;
    assert_eq!(agent.refusal().await.0, "approval-missing", "one artifact's approval is not another's");
    assert_eq!(previewed(&world, &mut agent, &one).await.1, None);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let remembered = memory(&agent).await;
    assert_eq!(remembered.highest, remembered.succeeded);
    assert!(remembered.good.unwrap().published < remembered.highest.unwrap(), "ordered by the approval");
    agent.kill().await;
}

#[tokio::test]
async fn after_a_failure_only_what_was_approved_since_comes_in() {
    let (world, alice) = World::gated();
    let mut agent = world.start().await;
    let [mut one, mut two, mut three] =
        ["1.0.0", "2.0.0", "3.0.0"].map(|version| world.publish(version, &[("index", version)], FAILS));
    for artifact in [&mut one, &mut two, &mut three] {
        world.approve(&alice, artifact, |_| {});
    }
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(memory(&agent).await.failed, None);
    agent.give(world.deploy(&two)).await;
    assert!(matches!(agent.outcome().await, DeploymentOutcome::Returned { .. }));
    let failed = memory(&agent).await.failed.unwrap();
    assert!(failed >= memory(&agent).await.highest.unwrap());
    agent.kill().await;

    let mut agent = world.start().await;
    agent.give(world.deploy(&three)).await;
    let (code, message) = agent.refusal().await;
    assert_eq!(code, "rearmed", "{message}");
    world.approve(&alice, &mut three, |_| {});
    agent.give(world.deploy(&three)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(memory(&agent).await.failed, None);
    let back = OrderKind::back(one.digest, "looks bad");
    agent.give(world.send(&world.order(back), &one)).await;
    assert_eq!(agent.outcome().await, succeeded(), "a way back needs nobody");
    assert!(memory(&agent).await.failed.is_some(), "and is a judgement on what it left");
    agent.kill().await;
}

#[tokio::test]
async fn steps_and_conditions_see_the_config_and_a_way_back_sees_the_one_before() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], CONFIGURED);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.effects(), ["1.0.0 with 4"]);

    // The same artifact with a config is something to do, without a new publication; the same once more is not.
    let configured = |sequence, workers| {
        let mut artifact = Artifact { digest: one.digest, statements: one.statements.clone() };
        world.configure(&mut artifact, sequence, workers);
        artifact
    };
    agent.give(world.deploy(&configured(1, 9))).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.effects()[1..], ["more", "1.0.0 with 9"]);
    agent.give(world.deploy(&configured(1, 9))).await;
    assert_eq!(agent.outcome().await, DeploymentOutcome::NoOp);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.refusal().await.0, "config-older");
    // A config with which it does not come up: back to the one that it ran with.
    agent.give(world.deploy(&configured(2, 13))).await;
    assert!(matches!(agent.outcome().await, DeploymentOutcome::Returned { .. }));
    assert_eq!(world.effects()[3..], ["more", "1.0.0 with 13", "1.0.0 with 9"]);
    let remembered = memory(&agent).await;
    let sequence = remembered.good.and_then(|good| good.config).map(|config| config.sequence);
    assert_eq!((remembered.config_sequence, sequence), (2, Some(1)));

    let mut two = world.publish("2.0.0", &[("index", "two")], CONFIGURED);
    world.configure(&mut two, 3, 5);
    agent.give(world.deploy(&two)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let back = OrderKind::back(one.digest, "looks bad");
    agent.give(world.send(&world.order(back), &one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    assert_eq!(world.effects()[6..], ["2.0.0 with 5", "1.0.0 with 9"]);
    agent.kill().await;
}

#[tokio::test]
async fn what_was_shown_and_approved_is_what_binds_also_after_a_restart() {
    let (world, alice) = World::gated();
    let mut agent = world.start().await;
    let mut one = world.publish("1.0.0", &[("index", "one")], WAITS);
    let document = |first| {
        let steps = vec![("wait".parse().unwrap(), first), ("activate".parse().unwrap(), PlannedStep::Run)];
        let servers = [("web-1".parse().unwrap(), Planned::Steps(steps))].into();
        PlanDocument { artifact: one.digest, config: None, servers }
    };
    let (runs, skips) = (document(PlannedStep::Run), document(PlannedStep::Skip));
    world.approve(&alice, &mut one, |it| it.plan_sha256 = Some(runs.digest()));
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.refusal().await.0, "plan-not-approved");
    agent.give(with_plan(world.deploy(&one), &skips)).await;
    assert_eq!(agent.refusal().await.0, "plan-not-approved");
    agent.give(with_plan(world.deploy(&one), &runs)).await;
    world.effect("begin").await;
    agent.kill().await;

    let mut agent = world.start().await;
    std::fs::write(world.path("effects/log.go"), "").unwrap();
    agent.give(Inbound::Connected).await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["begin", "end"]);
    agent.kill().await;

    // A document that nobody asked for binds as well.
    let world = World::new();
    let mut agent = world.start().await;
    agent.give(with_plan(world.deploy(&world.publish("1.0.0", &[("index", "one")], WAITS)), &skips)).await;
    assert!(["plan-drift", "plan-other"].contains(&agent.refusal().await.0.as_str()));
    agent.kill().await;
}

#[tokio::test]
async fn a_decision_that_nobody_signed_changes_nothing() {
    let (world, alice) = World::gated();
    let mut agent = world.start().await;
    let steps = format!("{WAITS}\n[[step]]\nname = \"after\"\nshell = \"echo after >> @effects\"\n");
    let mut one = world.publish("1.0.0", &[("index", "one")], &steps);
    world.approve(&alice, &mut one, |_| {});
    let order = world.order(OrderKind::deploy(one.digest, false));
    agent.give(world.send(&order, &one)).await;
    world.effect("begin").await;
    let skip = OrderKind::Decide {
        step: "after".parse().unwrap(),
        action: DecisionAction::Skip,
        reason: "trust me".into(),
    };
    let about = |kind| Order {
        deployment: order.deployment.clone(),
        rollout: order.rollout.clone(),
        ..world.order(kind)
    };
    let refused = async |agent: &mut Agent| loop {
        match agent.hear().await {
            Outbound::Refused { code, .. } => return code,
            Outbound::Event { .. } | Outbound::Answer { .. } | Outbound::Again => {}
        }
    };
    agent.give(world.send(&about(skip.clone()), &one)).await;
    assert_eq!(refused(&mut agent).await, "decision-missing");
    let decision = Decision {
        environment: order.environment.clone(),
        rollout: order.rollout.clone(),
        server: None,
        step: "after".parse().unwrap(),
        action: DecisionAction::Skip,
        at: order.issued,
        reason: "it is broken".into(),
    };
    world.say(&alice, &mut one, Predicate::Decision(decision));
    let stray = Order { deployment: world.order(skip.clone()).id, ..about(skip.clone()) };
    agent.give(world.send(&stray, &one)).await;
    assert_eq!(refused(&mut agent).await, "not-running");
    agent.give(world.send(&about(skip), &one)).await;
    agent.until(|event| matches!(event, Event::Decided { .. })).await;
    std::fs::write(world.path("effects/log.go"), "").unwrap();
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["begin", "end"]);
    agent.kill().await;
}
