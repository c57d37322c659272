//! Deployments that wait for a word: before a `once` step, and after an outcome that nobody knows.

use std::{collections::BTreeMap, fs};

use consign_agent::{journal::Received, ports::Outbound};
use consign_common::{
    deployment::{DeploymentOutcome, Event, Failure, StepOutcome},
    name::Id,
    trust::{DecisionAction, Foreseen, OnceWord, Order, OrderKind},
};

use crate::{
    NOTE, WAITS, succeeded,
    world::{Agent, Artifact, World, supervised},
};

const ONCE: &str = r#"
[[step]]
name = "migrate"
shell = "echo migrate $CONSIGN_VERSION >> @effects"
once = true

[[step]]
name = "activate"
activate = true
"#;

fn once(word: OnceWord) -> OrderKind {
    OrderKind::Once { step: "migrate".parse().unwrap(), word }
}

fn decide(step: &str, action: DecisionAction) -> OrderKind {
    OrderKind::Decide { step: step.parse().unwrap(), action, reason: "looked at it".into() }
}

/// A deployment that waits before its `once` step.
async fn awaiting(world: &World, agent: &mut Agent, version: &str) -> Id {
    let artifact = world.publish(version, &[("index", version)], ONCE);
    let order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&order, &artifact)).await;
    agent.until(|event| matches!(event, Event::Awaiting { step: 0 })).await;
    order.deployment
}

/// A deployment whose first step nobody knows the outcome of: its supervisor was killed while no agent lived.
async fn undecided(world: &World) -> (Agent, Id, Artifact) {
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
    (agent, order.deployment, artifact)
}

#[tokio::test]
async fn a_server_that_waits_before_a_once_step_does_what_it_is_told() {
    let world = World::new();
    let mut agent = world.start().await;
    let server = || "web-2".parse().unwrap();

    let first = awaiting(&world, &mut agent, "1.0.0").await;
    assert!(world.effects().is_empty());
    agent.give(world.about(&first, once(OnceWord::Run {}))).await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["migrate 1.0.0"]);

    let second = awaiting(&world, &mut agent, "2.0.0").await;
    agent.give(world.about(&second, once(OnceWord::Done { server: server() }))).await;
    let skipped = agent.until(|event| matches!(event, Event::Skipped { .. })).await;
    let Event::Skipped { expression, inputs, .. } = skipped else { unreachable!() };
    let outcome = StepOutcome::Skipped { expression, inputs };
    assert_eq!(outcome.to_string(), "skipped: ran once, on web-2");
    assert_eq!(agent.ended().await, succeeded());

    let third = awaiting(&world, &mut agent, "3.0.0").await;
    let because = "exit code 2".to_owned();
    agent.give(world.about(&third, once(OnceWord::Failed { server: server(), because }))).await;
    let because = "step migrate failed: it failed on web-2: exit code 2".to_owned();
    assert_eq!(agent.ended().await, DeploymentOutcome::Failed { because });
    assert_eq!(world.effects(), ["migrate 1.0.0"], "it ran here for the first one only");
    assert_eq!(fs::read_to_string(world.current().unwrap().join("index")).unwrap(), "2.0.0");
    agent.kill().await;
}

#[tokio::test]
async fn a_server_waits_on_in_the_agents_next_life_and_takes_an_answer_once() {
    let world = World::new();
    let mut agent = world.start().await;
    let deployment = awaiting(&world, &mut agent, "1.0.0").await;
    // Meanwhile the app has its place, and a word for another step changes nothing.
    let other = OrderKind::Once { step: "activate".parse().unwrap(), word: OnceWord::Run {} };
    agent.give(world.about(&deployment, other)).await;
    assert_eq!(agent.refusal().await.0, "not-awaiting");
    agent.give(world.deploy(&world.publish("2.0.0", &[("index", "two")], ONCE))).await;
    assert_eq!(agent.refusal().await.0, "busy");
    agent.kill().await;
    world.enrolled();
    let status = world.program("status");
    assert!(status.contains("of shop waits before the once step migrate"), "{status}");
    let mut agent = world.start_as(supervised(), "11111111-2222-3333-4444-555555555555").await;
    let answer = Order { deployment: deployment.clone(), ..world.order(once(OnceWord::Run {})) };
    // The agent before died right after it had made it durable: sent again it counts, and once.
    let received = Received {
        id: answer.id.clone(),
        deployment: deployment.clone(),
        app: answer.app.clone(),
        environment: answer.environment.clone(),
        coordinator: answer.coordinator.clone(),
        term: answer.term,
        document: answer.to_vec(),
        statements: Vec::new(),
        plan: None,
        sealed: None,
        trust_root_version: 1,
        decided: Vec::new(),
        at: answer.issued,
    };
    agent.journal.accept_control(&received).await.unwrap().unwrap();
    for _ in 0..2 {
        agent.give(world.send_alone(&answer)).await;
    }
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["migrate 1.0.0"]);
    let events = agent.journal.events(&deployment).await.unwrap();
    let answered = events.iter().filter(|record| matches!(record.event, Event::Answered { .. })).count();
    assert_eq!(answered, 1);
    agent.kill().await;
}

#[tokio::test]
async fn an_operator_decides_how_an_unknown_outcome_is_taken() {
    for (action, effects, outcome) in [
        (DecisionAction::Done, vec!["begin"], "succeeded"),
        (DecisionAction::Again, vec!["begin", "begin", "end"], "succeeded"),
        (DecisionAction::Skip, vec!["begin"], "succeeded"),
        (DecisionAction::Failed, vec!["begin"], "failed"),
    ] {
        let world = World::new();
        let (mut agent, deployment, _) = undecided(&world).await;
        agent.give(world.about(&deployment, decide("wait", action))).await;
        let result = agent.ended().await;
        assert_eq!(result.as_str(), outcome, "{action:?}: {result:?}");
        assert_eq!(world.effects(), effects, "{action:?}");
        assert_eq!(world.current().is_some(), outcome == "succeeded", "{action:?}");
        if let DeploymentOutcome::Failed { because } = result {
            assert!(because.contains("looked at it"), "{because}");
        }
        agent.kill().await;
    }
}

#[tokio::test]
async fn a_decision_that_fits_nothing_is_refused_by_name_and_changes_nothing() {
    let world = World::new();
    let (mut agent, deployment, _) = undecided(&world).await;
    world.enrolled();
    let status = world.program("status");
    assert!(status.contains("waits for a decision: nobody knows how step wait ended"), "{status}");
    let before = agent.journal.events(&deployment).await.unwrap();
    for (kind, code) in [
        (decide("nothing", DecisionAction::Done), "step-unknown"),
        (decide("activate", DecisionAction::Again), "not-undecided"),
        (decide("activate", DecisionAction::Skip), "not-skippable"),
        (OrderKind::Confirm {}, "not-confirming"),
        (once(OnceWord::Run {}), "not-awaiting"),
    ] {
        agent.give(world.about(&deployment, kind)).await;
        assert_eq!(agent.refusal().await.0, code);
    }
    let elsewhere = world.order(OrderKind::Confirm {}).deployment;
    agent.give(world.about(&elsewhere, decide("wait", DecisionAction::Done))).await;
    assert_eq!(agent.refusal().await.0, "not-running");
    assert_eq!(agent.journal.events(&deployment).await.unwrap(), before);
    // And it still waits for the one that does.
    agent.give(world.about(&deployment, decide("wait", DecisionAction::Done))).await;
    assert_eq!(agent.ended().await, succeeded());
    agent.give(world.about(&deployment, decide("wait", DecisionAction::Done))).await;
    assert_eq!(agent.refusal().await.0, "not-running", "it has ended");
    agent.kill().await;
}

#[tokio::test]
async fn a_cancel_ends_an_undecided_deployment() {
    let world = World::new();
    let (mut agent, deployment, _) = undecided(&world).await;
    agent.give(world.about(&deployment, OrderKind::Cancel { reason: "enough".into() })).await;
    assert!(matches!(agent.ended().await, DeploymentOutcome::Unknown { .. }));
    assert_eq!(world.effects(), ["begin"]);
    agent.kill().await;
}

#[tokio::test]
async fn only_an_order_that_could_be_for_this_server_ends_an_undecided_deployment() {
    let world = World::new();
    let (mut agent, deployment, artifact) = undecided(&world).await;
    let mut stranger = world.order(OrderKind::deploy(artifact.digest, false));
    stranger.server = "web-2".parse().unwrap();
    agent.give(world.send(&stranger, &artifact)).await;
    assert_eq!(agent.refusal().await.0, "wrong-server");
    assert_eq!(agent.journal.open_deployments().await.unwrap(), [deployment]);
    // The same artifact once more is an order as good as any.
    agent.give(world.deploy(&artifact)).await;
    assert!(matches!(agent.ended().await, DeploymentOutcome::Unknown { .. }));
    assert_eq!(agent.ended().await, succeeded());
    agent.kill().await;
}

#[tokio::test]
async fn steps_that_an_order_leaves_out_are_skipped_and_must_be_there() {
    let world = World::new();
    let mut agent = world.start().await;
    let artifact = world.publish("1.0.0", &[("index", "one")], NOTE);
    let leaving_out = |step: &str| OrderKind::Deploy {
        manifest: artifact.digest,
        force: false,
        skip: vec![step.parse().unwrap()],
        plan: BTreeMap::new(),
        confirm_ms: None,
        converge: false,
    };
    for (step, code) in [("nothing", "step-unknown"), ("activate", "not-skippable")] {
        agent.give(world.send(&world.order(leaving_out(step)), &artifact)).await;
        assert_eq!(agent.refusal().await.0, code);
    }
    agent.give(world.send(&world.order(leaving_out("note")), &artifact)).await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects().len(), 0, "{:?}", world.effects());
    agent.kill().await;
}

#[tokio::test]
async fn a_skip_may_be_decided_while_another_step_runs() {
    let world = World::new();
    let mut agent = world.start().await;
    let plan = format!("{WAITS}\n[[step]]\nname = \"note\"\nshell = \"echo noted >> @effects\"\n");
    let artifact = world.publish("1.0.0", &[("index", "one")], &plan);
    let order = world.order(OrderKind::deploy(artifact.digest, false));
    agent.give(world.send(&order, &artifact)).await;
    world.effect("begin").await;
    agent.give(world.about(&order.deployment, decide("note", DecisionAction::Skip))).await;
    agent.until(|event| matches!(event, Event::Decided { step: 2, .. })).await;
    agent.give(world.about(&order.deployment, decide("wait", DecisionAction::Skip))).await;
    assert_eq!(agent.refusal().await.0, "step-begun");
    agent.kill().await;
    fs::write(world.path("effects/log.go"), "").unwrap();
    let mut agent = world.start().await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["begin", "end"]);
    agent.kill().await;
}

#[tokio::test]
async fn a_plan_that_comes_out_otherwise_than_pinned_is_refused_or_fails() {
    let world = World::new();
    let mut agent = world.start().await;
    let plan = "[[step]]\nname = \"seed\"\nshell = \"echo seed >> @effects\"\nwhen = \"exists('marker')\"\n\
                if_fails = \"continue\"\n";
    let artifact = world.publish("1.0.0", &[("migrations/1", "create")], &format!("{}{plan}", NOTE));
    let pinned = |step: &str, foreseen| OrderKind::Deploy {
        manifest: artifact.digest,
        force: false,
        skip: Vec::new(),
        plan: BTreeMap::from([(step.parse().unwrap(), foreseen)]),
        confirm_ms: None,
        converge: false,
    };
    let refused = world.order(pinned("migrate", Foreseen::Skip));
    for _ in 0..2 {
        agent.give(world.send(&refused, &artifact)).await;
        let Outbound::Refused { code, message, .. } = agent.hear().await else { panic!("not refused") };
        assert_eq!(code, "plan-drift");
        assert!(message.contains("step migrate") && message.contains("foresaw skip"), "{message}");
    }
    assert!(world.effects().is_empty() && !world.path("apps/shop/releases").exists());

    // What the order itself leaves out is no drift.
    let mut left_out = pinned("note", Foreseen::Run);
    let OrderKind::Deploy { skip, plan, .. } = &mut left_out else { unreachable!() };
    skip.push("note".parse().unwrap());
    plan.insert("migrate".parse().unwrap(), Foreseen::Run);
    agent.give(world.send(&world.order(left_out), &artifact)).await;
    assert_eq!(agent.ended().await, succeeded());
    assert_eq!(world.effects(), ["migrate 1.0.0"]);
    // Nobody could foresee this one when the order was judged; `if_fails` does not make it tolerable.
    let again = world.publish_again("1.0.0", &artifact);
    let OrderKind::Deploy { manifest, skip, plan, .. } = pinned("seed", Foreseen::Run) else {
        unreachable!()
    };
    let kind = OrderKind::Deploy { manifest, force: true, skip, plan, confirm_ms: None, converge: false };
    agent.give(world.send(&world.order(kind), &again)).await;
    let drift = |event: &Event| {
        let Event::Finished { result: StepOutcome::Failed { failure }, .. } = event else { return false };
        matches!(failure, Failure::PlanDrift { .. })
    };
    agent.until(drift).await;
    let DeploymentOutcome::Returned { because } = agent.ended().await else { panic!("not returned") };
    assert!(because.contains("plan-drift"), "{because}");
    agent.kill().await;
}
