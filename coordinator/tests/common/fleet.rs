//! Servers that do what the test says, and artifacts that are only a plan.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    artifact::{MANIFEST_FORMAT, Manifest, write_full},
    deployment::{Attempt, DeploymentOutcome, Event, Failure, StepOutcome, StepSummary},
    digest::Sha256,
    json,
    plan::Phase,
    time::{Clock as _, SystemClock},
    trust::{Envelope, Order, OrderingNumber, Predicate, Published, STATEMENT_TYPE, Statement, Subject},
};
use consign_proto::v1::{
    self, agent_message, agents_client::AgentsClient, coordinator_message::Kind, fetch_request::What,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::World;

pub const PLAN: &str = r#"app = "shop"
confirm = "10m"

[[step]]
name = "migrate"
run = ["bin/migrate"]

[[step]]
name = "activate"
activate = true
"#;

/// Its manifest's digest, and its pack.
pub async fn publish(world: &World, version: &str, plan: &str) -> (Sha256, Vec<u8>) {
    let manifest = Manifest {
        format: MANIFEST_FORMAT.into(),
        app: "shop".parse().unwrap(),
        version: version.parse().unwrap(),
        platform: None,
        plan: plan.into(),
        entries: Vec::new(),
    };
    let mut pack = Vec::new();
    write_full(&manifest, std::io::empty(), &mut pack).unwrap();
    let statement = Statement {
        subject: Subject { name: "shop".into(), sha256: manifest.digest() },
        predicate: Predicate::Published(Published {
            app: manifest.app.clone(),
            version: manifest.version.clone(),
            platform: None,
            number: OrderingNumber { epoch: 1, ms: SystemClock.now() },
        }),
    };
    let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&world.owner.publisher]);
    let mut admin = world.admin().await;
    let begin = v1::BeginPublishRequest {
        manifest: manifest.to_bytes().into(),
        statement: envelope.to_vec().into(),
        pack_length: pack.len() as u64,
        pack_sha256: Sha256::of(&pack).as_bytes().to_vec().into(),
    };
    let upload = admin.begin_publish(begin).await.unwrap().into_inner().upload;
    let chunk = v1::UploadChunk { upload, offset: 0, data: pack.clone().into() };
    assert!(admin.upload_pack(tokio_stream::once(chunk)).await.unwrap().into_inner().complete);
    (manifest.digest(), pack)
}

pub struct Server {
    pub client: AgentsClient<Channel>,
    to: mpsc::Sender<v1::AgentMessage>,
    from: Streaming<v1::CoordinatorMessage>,
    /// Of each deployment, the newest event.
    sequences: BTreeMap<String, u64>,
}

impl Server {
    /// Enrols and connects.
    pub async fn new(world: &World, name: &str, labels: &[(&str, &str)]) -> Self {
        let identity = world.enrol(name, "agent").await;
        let mut client = AgentsClient::new(world.channel(Some(&identity)).await.unwrap());
        let (to, messages) = mpsc::channel(8);
        let hello = v1::Hello {
            protocol: 1,
            environment: "staging".into(),
            now_ms: SystemClock.now().0,
            trust_root_version: 1,
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            boot_id: format!("boot-{name}"),
            journal: format!("journal-{name}"),
            ..v1::Hello::default()
        };
        to.send(v1::AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }).await.unwrap();
        let mut from = client.session(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let welcome = from.message().await.unwrap().and_then(|message| message.kind);
        assert!(matches!(welcome, Some(Kind::Welcome(_))), "{welcome:?}");
        Self { client, to, from, sequences: BTreeMap::new() }
    }

    /// The next message that is no heartbeat.
    async fn next(&mut self) -> Kind {
        let next = async {
            loop {
                match self.from.message().await.unwrap() {
                    Some(v1::CoordinatorMessage { kind: Some(Kind::Heartbeat(_)) }) => {}
                    Some(v1::CoordinatorMessage { kind: Some(kind) }) => return kind,
                    Some(v1::CoordinatorMessage { kind: None }) | None => panic!("the stream ended"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("nothing came")
    }

    pub async fn order(&mut self) -> Order {
        let next = self.next().await;
        let Kind::Order(order) = next else { panic!("not an order: {next:?}") };
        json::from_slice(&order.document, 1 << 20).unwrap()
    }

    pub async fn query(&mut self) -> (String, Order) {
        let next = self.next().await;
        let Kind::Query(query) = next else { panic!("not a query: {next:?}") };
        (query.id, json::from_slice(&query.order.unwrap().document, 1 << 20).unwrap())
    }

    pub async fn answer(&self, answer: v1::Answer) {
        self.to.send(v1::AgentMessage { kind: Some(agent_message::Kind::Answer(answer)) }).await.unwrap();
    }

    pub async fn fetch_manifest(&mut self, digest: Sha256) -> Result<Vec<u8>, Status> {
        let request = v1::FetchRequest { what: Some(What::Manifest(digest.to_string())), offset: 0 };
        let mut chunks = self.client.fetch(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend(chunk.data);
        }
        Ok(bytes)
    }

    pub async fn tell(&mut self, order: &Order, event: &Event) {
        let deployment = order.deployment.to_string();
        let sequence = self.sequences.get(&deployment).copied().unwrap_or(0) + 1;
        let event = v1::Event {
            deployment: deployment.clone(),
            sequence,
            at_ms: SystemClock.now().0,
            body: json::to_vec(event).into(),
        };
        self.to.send(v1::AgentMessage { kind: Some(agent_message::Kind::Event(event)) }).await.unwrap();
        let ack = self.next().await;
        assert_eq!(ack, Kind::EventAck(v1::EventAck { deployment: deployment.clone(), sequence }));
        self.sequences.insert(deployment, sequence);
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
    v1::StartRolloutRequest {
        app: "shop".into(),
        version: version.into(),
        environment: "staging".into(),
        settings: Some(v1::Settings { waves, ..v1::Settings::default() }),
        ..v1::StartRolloutRequest::default()
    }
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
