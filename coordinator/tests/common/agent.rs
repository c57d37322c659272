//! An agent that does what a test says, and what it deploys.

use std::time::Duration;

use consign_common::{
    artifact::{MANIFEST_FORMAT, Manifest, write_full},
    deployment::Event,
    digest::Sha256,
    json,
    time::{Clock, SystemClock},
    tls::Identity,
    trust::{Envelope, Order, OrderingNumber, Predicate, Published, STATEMENT_TYPE, Statement, Subject},
};
use consign_proto::v1::{
    self, agent_message, agents_client::AgentsClient, coordinator_message::Kind, fetch_request::What,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::World;

const PLAN: &str = r#"app = "shop"

[[step]]
name = "activate"
activate = true
"#;

/// Publishes a version of `shop` that only activates: its digest and pack.
pub async fn publish(world: &World, version: &str) -> (Sha256, Vec<u8>) {
    publish_plan(world, version, PLAN).await
}

/// Publishes a version of `shop` with this plan: its digest and pack.
pub async fn publish_plan(world: &World, version: &str, plan: &str) -> (Sha256, Vec<u8>) {
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

/// An agent that does what the test says, and nothing while the test does not wait for it.
pub struct Agent {
    pub client: AgentsClient<Channel>,
    to: mpsc::Sender<v1::AgentMessage>,
    from: Streaming<v1::CoordinatorMessage>,
}

/// What an agent says of itself that has nothing to tell yet.
pub fn hello(environment: &str) -> v1::Hello {
    v1::Hello {
        protocol: 1,
        environment: environment.into(),
        now_ms: SystemClock.now().0,
        trust_root_version: 1,
        os: "linux".into(),
        arch: "x86_64".into(),
        ..v1::Hello::default()
    }
}

impl Agent {
    pub async fn connect(world: &World, identity: &Identity, environment: &str) -> Result<Self, Status> {
        Self::greet(world, identity, hello(environment)).await
    }

    pub async fn greet(world: &World, identity: &Identity, hello: v1::Hello) -> Result<Self, Status> {
        let mut client = AgentsClient::new(world.channel(Some(identity)).await.unwrap());
        let (to, messages) = mpsc::channel(8);
        to.send(v1::AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }).await.unwrap();
        let mut from = client.session(ReceiverStream::new(messages)).await?.into_inner();
        let welcome = from.message().await?.and_then(|message| message.kind);
        let Some(Kind::Welcome(welcome)) = welcome else { panic!("no welcome: {welcome:?}") };
        assert_eq!(welcome.coordinator, world.owner.coordinator.as_str());
        Ok(Self { client, to, from })
    }

    /// The next message that is no heartbeat; one that asks for a sign of life is answered.
    pub async fn next(&mut self) -> Result<Kind, Status> {
        tokio::time::timeout(Duration::from_secs(20), self.hear()).await.expect("nothing came")
    }

    async fn hear(&mut self) -> Result<Kind, Status> {
        loop {
            match self.from.message().await? {
                Some(v1::CoordinatorMessage { kind: Some(Kind::Heartbeat(beat)) }) => {
                    if beat.echo != 0 {
                        let alive = v1::Heartbeat {
                            now_ms: SystemClock.now().0,
                            echo: beat.echo,
                            ..Default::default()
                        };
                        let kind = Some(agent_message::Kind::Heartbeat(alive));
                        drop(self.to.send(v1::AgentMessage { kind }).await);
                    }
                }
                Some(v1::CoordinatorMessage { kind: Some(kind) }) => return Ok(kind),
                Some(v1::CoordinatorMessage { kind: None }) | None => {
                    return Err(Status::cancelled("the stream ended"));
                }
            }
        }
    }

    /// Lives on by itself until its session ends: what it heard, and how it ended.
    pub fn live(mut self) -> JoinHandle<(Vec<Kind>, Status)> {
        tokio::spawn(async move {
            let mut heard = Vec::new();
            loop {
                match self.hear().await {
                    Ok(kind) => heard.push(kind),
                    Err(end) => return (heard, end),
                }
            }
        })
    }

    /// The next order, and how many statements came with it; what a restored coordinator asks for is passed over.
    pub async fn order(&mut self) -> (Order, usize) {
        loop {
            match self.next().await.unwrap() {
                Kind::Order(order) => {
                    return (json::from_slice(&order.document, 1 << 20).unwrap(), order.statements.len());
                }
                Kind::Resend(_) => {}
                other @ (Kind::Welcome(_)
                | Kind::Heartbeat(_)
                | Kind::EventAck(_)
                | Kind::TrustRoots(_)
                | Kind::Query(_)
                | Kind::ReceiptAck(_)) => panic!("not an order: {other:?}"),
            }
        }
    }

    pub async fn tell(&mut self, order: &Order, sequence: u64, event: &Event) {
        self.tell_at(order, sequence, event, 0).await;
    }

    /// With the journal's position.
    pub async fn tell_at(&mut self, order: &Order, sequence: u64, event: &Event, position: u64) {
        let event = v1::Event {
            deployment: order.deployment.to_string(),
            sequence,
            at_ms: SystemClock.now().0,
            body: json::to_vec(event).into(),
            journal_position: position,
        };
        self.send(agent_message::Kind::Event(event)).await;
        let wanted = Kind::EventAck(v1::EventAck { deployment: order.deployment.to_string(), sequence });
        loop {
            match self.next().await.unwrap() {
                // An order may come twice while its rollout and the session begin.
                Kind::Order(_) | Kind::Resend(_) => {}
                ack @ (Kind::Welcome(_)
                | Kind::Heartbeat(_)
                | Kind::EventAck(_)
                | Kind::TrustRoots(_)
                | Kind::Query(_)
                | Kind::ReceiptAck(_)) => return assert_eq!(ack, wanted),
            }
        }
    }

    pub async fn send(&self, kind: agent_message::Kind) {
        self.to.send(v1::AgentMessage { kind: Some(kind) }).await.unwrap();
    }

    pub async fn fetch(&mut self, what: What, offset: u64) -> Result<Vec<u8>, Status> {
        let mut chunks = self.client.fetch(v1::FetchRequest { what: Some(what), offset }).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend(chunk.data);
        }
        Ok(bytes)
    }
}

pub fn start(version: &str) -> v1::StartRolloutRequest {
    v1::StartRolloutRequest {
        app: "shop".into(),
        version: version.into(),
        environment: "staging".into(),
        ..v1::StartRolloutRequest::default()
    }
}
