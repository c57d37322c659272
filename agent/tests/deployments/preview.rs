//! What an order would come to, asked before anything is done.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use consign_agent::ports::{Answer, Foretold, Inbound, Outbound, Papers, PlannedStep};
use consign_common::trust::{Foreseen, Order, OrderKind};

use crate::{
    NOTE, succeeded,
    world::{Agent, Artifact, World},
};

const PLAN: &str = r#"
[[step]]
name = "migrate"
shell = "echo migrate >> @effects"
when = "changed('migrations/**')"
once = true

[[step]]
name = "first"
shell = "echo first >> @effects"
when = "first_deploy"

[[step]]
name = "seed"
shell = "echo seed >> @effects"
when = "!exists('storage/seeded')"

[[step]]
name = "activate"
activate = true

[[step]]
name = "tell"
shell = "echo tell >> @effects"
when = "steps.seed.outcome == 'succeeded'"

[[step]]
name = "back"
shell = "echo back >> @effects"
on = ["return"]
"#;

async fn ask(world: &World, agent: &mut Agent, order: &Order, artifact: &Artifact) -> Answer {
    agent.give(world.ask("q-1", order, artifact)).await;
    match agent.hear().await {
        Outbound::Answer { query, answer } => {
            assert_eq!(query, "q-1");
            answer
        }
        other @ (Outbound::Event { .. } | Outbound::Refused { .. } | Outbound::Again) => {
            panic!("no answer: {other:?}")
        }
    }
}

fn decisions(answer: Answer) -> Vec<(String, &'static str, String)> {
    let Answer::Foretold { foretold: Foretold::Work { steps }, held: None } = answer else {
        panic!("{answer:?}")
    };
    let decision = |step: PlannedStep| (step.name, step.decision, step.because);
    steps.into_iter().map(decision).collect()
}

fn no_op() -> Answer {
    Answer::Foretold { foretold: Foretold::NoOp, held: None }
}

fn code(answer: Answer) -> String {
    let Answer::Refused { code, .. } = answer else { panic!("{answer:?}") };
    code
}

#[tokio::test]
async fn a_preview_says_what_would_run_and_why_and_keeps_nothing() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("migrations/1", "create"), ("index", "one")], PLAN);
    let order = world.order(OrderKind::deploy(one.digest, false));
    let once = "once: on the first server where it is true";
    let found = decisions(ask(&world, &mut agent, &order, &one).await);
    let found: Vec<_> = found.iter().map(|(name, what, why)| (name.as_str(), *what, why.as_str())).collect();
    assert_eq!(
        found,
        [
            ("migrate", "undetermined", once),
            ("first", "run", ""),
            ("seed", "undetermined", "it depends on exists('storage/seeded')"),
            ("activate", "run", ""),
            ("tell", "undetermined", "it depends on steps.seed.outcome"),
            ("back", "skip", "not for a deployment"),
        ]
    );
    assert!(world.effects().is_empty() && !world.path("state/artifacts").exists());
    assert!(!world.path("apps/shop/releases").exists() && !world.path("state/deployments").exists());
    assert_eq!(agent.journal.open_deployments().await.unwrap(), []);
    assert_eq!(agent.journal.known(&order.id, &order.to_vec()).await.unwrap().unwrap(), None);
    let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
    assert_eq!(agent.journal.memory(&app, &environment, "c0ffee").await.unwrap(), Default::default());

    // The order itself, by the same document, is still one that never came.
    let note = world.publish("1.1.0", &[("migrations/1", "create"), ("index", "one")], NOTE);
    agent.give(world.deploy(&note)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let two = world.publish("2.0.0", &[("migrations/1", "create"), ("index", "two")], PLAN);
    let found =
        decisions(ask(&world, &mut agent, &world.order(OrderKind::deploy(two.digest, false)), &two).await);
    assert_eq!(found[0].1, "skip");
    assert_eq!(found[0].2, "changed('migrations/**') is false");
    assert_eq!((found[1].1, found[1].2.as_str()), ("skip", "first_deploy is false"));
    assert!(!world.path("state/artifacts").join(two.digest.to_string()).exists());
    agent.kill().await;
}

#[tokio::test]
async fn a_preview_is_refused_as_the_order_would_be() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], NOTE);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    let deploy = |artifact: &Artifact| world.order(OrderKind::deploy(artifact.digest, false));
    assert_eq!(ask(&world, &mut agent, &deploy(&one), &one).await, no_op());

    let mut order = deploy(&one);
    order.server = "web-2".parse().unwrap();
    assert_eq!(code(ask(&world, &mut agent, &order, &one).await), "wrong-server");
    let unsigned = Artifact { digest: one.digest, statements: Vec::new() };
    assert_eq!(code(ask(&world, &mut agent, &deploy(&one), &unsigned).await), "statement-missing");
    let fetched = world.shelf.manifests_fetched.load(Ordering::Relaxed);
    let cancel = world.order(OrderKind::Cancel { reason: String::new() });
    assert_eq!(code(ask(&world, &mut agent, &cancel, &one).await), "malformed");
    agent
        .give(Inbound::Query {
            query: "q-2".into(),
            papers: Papers { document: b"{".to_vec(), ..Papers::default() },
            connected: "c0ffee".into(),
        })
        .await;
    let Outbound::Answer { answer, .. } = agent.hear().await else { panic!("no answer") };
    assert_eq!(code(answer), "malformed");
    assert_eq!(world.shelf.manifests_fetched.load(Ordering::Relaxed), fetched);

    let two = world.publish("2.0.0", &[("index", "two")], NOTE);
    let pinned = |skip: Vec<_>, plan| OrderKind::Deploy {
        manifest: two.digest,
        force: false,
        skip,
        plan,
        confirm_ms: None,
        converge: false,
    };
    let plan = BTreeMap::from([("migrate".parse().unwrap(), Foreseen::Run)]);
    let order = world.order(pinned(Vec::new(), plan));
    assert_eq!(code(ask(&world, &mut agent, &order, &two).await), "plan-drift");
    let order = world.order(pinned(vec!["note".parse().unwrap()], BTreeMap::new()));
    let found = decisions(ask(&world, &mut agent, &order, &two).await);
    assert_eq!((found[2].1, found[2].2.as_str()), ("skip", "by an operator: left out by the order"));
    agent.kill().await;
}

#[tokio::test]
async fn a_flood_of_previews_is_answered_and_stops_nothing() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], NOTE);
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    world.shelf.silent.store(true, Ordering::Relaxed);
    let two = world.publish("2.0.0", &[("index", "two")], NOTE);
    for _ in 0..50 {
        agent.give(world.ask("q", &world.order(OrderKind::deploy(two.digest, false)), &two)).await;
    }
    for _ in 0..46 {
        let Outbound::Answer { answer, .. } = agent.hear().await else { panic!("no answer") };
        assert_eq!(code(answer), "busy");
    }
    // What needs nothing from the coordinator goes on beside them.
    agent.give(world.deploy(&world.publish_again("1.0.0", &one))).await;
    assert_eq!(agent.outcome().await.as_str(), "no-op");
    agent.kill().await;
}

#[tokio::test]
async fn a_server_that_was_to_have_nothing_to_do_does_nothing_else() {
    let world = World::new();
    let mut agent = world.start().await;
    let one = world.publish("1.0.0", &[("index", "one")], NOTE);
    let two = world.publish("2.0.0", &[("index", "two")], NOTE);
    let nothing = |artifact: &Artifact| {
        let steps = ["migrate", "activate", "note"].map(|step| (step.parse().unwrap(), Foreseen::Skip));
        world.order(OrderKind::Deploy {
            manifest: artifact.digest,
            force: false,
            skip: Vec::new(),
            plan: BTreeMap::from(steps),
            confirm_ms: None,
            converge: false,
        })
    };
    agent.give(world.deploy(&one)).await;
    assert_eq!(agent.outcome().await, succeeded());
    agent.give(world.send(&nothing(&one), &one)).await;
    assert_eq!(agent.outcome().await.as_str(), "no-op");
    // It was left behind by another deployment since it was asked.
    agent.give(world.send(&nothing(&two), &two)).await;
    let (code, message) = agent.refusal().await;
    assert_eq!(code, "plan-drift");
    assert!(message.contains("foresaw skip"), "{message}");
    assert_eq!(world.effects().len(), 1, "{:?}", world.effects());
    agent.kill().await;
}
