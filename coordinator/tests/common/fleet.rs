//! Servers that deploy as the test says.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, Failure, StepOutcome, StepSummary},
    digest::Sha256,
    json,
    plan::Phase,
    trust::Order,
};
use consign_proto::v1::{self, agent_message, coordinator_message::Kind, fetch_request::What};
use tonic::Status;

use super::{
    World,
    agent::{self, Agent, hello},
};

pub const PLAN: &str = r#"app = "shop"
confirm = "10m"

[[step]]
name = "migrate"
run = ["bin/migrate"]

[[step]]
name = "activate"
activate = true
"#;

pub struct Server {
    agent: Agent,
    /// Of each deployment, the newest event.
    sequences: BTreeMap<String, u64>,
}

impl Server {
    /// Enrols and connects.
    pub async fn new(world: &World, name: &str, labels: &[(&str, &str)]) -> Self {
        let identity = world.enrol(name, "agent").await;
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let hello = v1::Hello { labels, ..hello("staging") };
        let agent = Agent::greet(world, &identity, hello).await.unwrap();
        Self { agent, sequences: BTreeMap::new() }
    }

    pub async fn order(&mut self) -> Order {
        self.agent.order().await.0
    }

    pub async fn query(&mut self) -> (String, Order) {
        let next = self.agent.next().await.unwrap();
        let Kind::Query(query) = next else { panic!("not a query: {next:?}") };
        (query.id, json::from_slice(&query.order.unwrap().document, 1 << 20).unwrap())
    }

    pub async fn answer(&self, answer: v1::Answer) {
        self.agent.send(agent_message::Kind::Answer(answer)).await;
    }

    pub async fn fetch_manifest(&mut self, digest: Sha256) -> Result<Vec<u8>, Status> {
        self.agent.fetch(What::Manifest(digest.to_string()), 0).await
    }

    pub async fn tell(&mut self, order: &Order, event: &Event) {
        let sequence = self.sequences.entry(order.deployment.to_string()).or_insert(0);
        *sequence += 1;
        self.agent.tell(order, *sequence, event).await;
    }

    pub async fn accept(&mut self, order: &Order) {
        let step = |name: &str, kind: &str| StepSummary { name: name.parse().unwrap(), kind: kind.into() };
        let event = Event::Accepted {
            order: order.id.clone(),
            app: order.app.clone(),
            version: "1.0".parse().unwrap(),
            digest: Sha256::of(b"x"),
            previous: None,
            steps: vec![step("migrate", "run"), step("activate", "activate")],
        };
        self.tell(order, &event).await;
    }

    /// Runs the first step to this end.
    pub async fn step(&mut self, order: &Order, result: StepOutcome) {
        let attempt = Attempt { phase: Phase::Deploy, step: 0, number: 1 };
        self.tell(order, &Event::Started { attempt, boot_id: "b".into() }).await;
        let (log_length, duration_ms, leftovers) = (0, 1, Vec::new());
        self.tell(order, &Event::Finished { attempt, result, log_length, duration_ms, leftovers }).await;
    }

    pub async fn end(&mut self, order: &Order, result: DeploymentOutcome) {
        self.tell(order, &Event::Ended { result }).await;
    }

    /// All of it, well.
    pub async fn succeed(&mut self, order: &Order) {
        self.accept(order).await;
        self.step(order, StepOutcome::Succeeded).await;
        self.end(order, DeploymentOutcome::Succeeded { tolerated: Vec::new() }).await;
    }

    pub async fn fail(&mut self, order: &Order) {
        self.accept(order).await;
        self.step(order, StepOutcome::Failed { failure: Failure::Exit { code: 3 } }).await;
        self.end(order, DeploymentOutcome::Failed { because: "step migrate: exit code 3".into() }).await;
    }
}

pub fn start(version: &str, waves: &[&str]) -> v1::StartRolloutRequest {
    let waves = waves.iter().map(|wave| (*wave).to_owned()).collect();
    let settings = Some(v1::Settings { waves, ..v1::Settings::default() });
    v1::StartRolloutRequest { settings, ..agent::start(version) }
}

/// Waits until the rollout is so, and gives it.
pub async fn until(world: &World, id: &str, wanted: impl Fn(&v1::Rollout) -> bool) -> v1::Rollout {
    let mut admin = world.admin().await;
    let reached = async {
        loop {
            let request = v1::ShowRolloutRequest { rollout: id.to_owned() };
            let rollout = admin.show_rollout(request).await.unwrap().into_inner();
            if wanted(&rollout) {
                return rollout;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("it never came to that")
}
