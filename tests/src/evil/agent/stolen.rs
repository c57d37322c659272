//! A coordinator with two servers: an honest one, and one whose disk somebody has.

use std::{fs, time::Duration};

use consign_agent::{
    config::Config,
    session::{
        dial::{Connection, Dialer},
        proxy::Proxies,
    },
    state::StatePaths,
};
use consign_common::{
    deployment::{Event, StepSummary},
    digest::Sha256,
    json,
    name::Id,
    time::{Clock as _, SystemClock},
    tls::Identity,
    trust::{Order, OrderKind},
};
use consign_proto::v1::{
    self, AgentMessage, CoordinatorMessage, Hello, agent_message, agents_client::AgentsClient,
    coordinator_message::Kind,
};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::scene::{Agent, Coordinator, Operator, write_tree};
use crate::wait::until;

/// What the coordinator may take while it is attacked, KiB.
const MEMORY_KIB: u64 = 256 << 10;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Stolen {
    honest: Agent,
    pub(super) coordinator: Coordinator,
    pub(super) operator: Operator,
    pub(super) identity: Identity,
    pub(super) ca: Sha256,
    /// Published; nobody was ordered to run it.
    pub(super) artifact: String,
    pub(super) runtime: Runtime,
    pub(super) directory: tempfile::TempDir,
}

impl std::fmt::Debug for Stolen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stolen").finish_non_exhaustive()
    }
}

/// One session of the stolen server's.
pub(super) struct Session {
    to: mpsc::Sender<AgentMessage>,
    from: Streaming<CoordinatorMessage>,
}

impl Stolen {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("operator");
        let mut operator = Operator::init(&home, &["app"], &["staging"]);
        let coordinator = Coordinator::start(directory.path(), &mut operator, "127.0.0.1");
        let word = ["--allow-app", "app", "--allow-user", "root"];
        let honest = Agent::start(directory.path(), &operator, "web-1", "staging", &word);
        let source = directory.path().join("source");
        fs::create_dir_all(&source).unwrap();
        let plan = "app = \"app\"\n[[step]]\nname = \"activate\"\nactivate = true\n";
        write_tree(&source, &[("consign.toml", plan), ("secret", "nobody else's")]);
        operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", "1.0.0"]);
        let shown = operator.json(&["artifact", "show", "app@1.0.0"]);
        let artifact = shown["digest"].as_str().unwrap().to_owned();
        let (identity, ca) = steal(&operator, directory.path(), "web-2");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { honest, coordinator, operator, identity, ca, artifact, runtime, directory }
    }

    /// The honest server and the operator notice nothing, and the coordinator keeps its bounds.
    pub(super) fn assert_serves(&mut self) {
        assert!(!self.coordinator.is_gone(), "the coordinator has ended");
        assert!(!self.honest.is_gone(), "the honest agent has ended");
        let shown = self.operator.json(&["server", "show", "web-1"]);
        assert_eq!(shown["online"], true, "{shown}");
        let kib = self.resident_kib();
        assert!(kib < MEMORY_KIB, "the coordinator has {kib} KiB");
    }

    pub(super) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.coordinator.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(super) fn dial(&self, identity: Option<&Identity>) -> Result<Channel, String> {
        self.dial_at(&self.coordinator.address, identity)
    }

    pub(super) fn dial_at(&self, address: &str, identity: Option<&Identity>) -> Result<Channel, String> {
        let dialer = Dialer { addresses: vec![address.to_owned()], ca: self.ca, proxies: Proxies::default() };
        let connected = self.runtime.block_on(dialer.dial(identity));
        connected.map(|Connection { channel, .. }| channel).map_err(|error| error.to_string())
    }

    pub(super) fn agents(&self) -> AgentsClient<Channel> {
        AgentsClient::new(self.dial(Some(&self.identity)).unwrap())
    }

    /// A rollout to the stolen server alone, which has told that it accepted it and lists these steps.
    pub(super) fn ordered(&self, hello: Hello, steps: &[&str]) -> Own {
        // The session before may be over already here and not yet there.
        let mut session = until("a session begins", PATIENCE, || {
            self.session(&self.identity, hello.clone()).map_err(|status| status.to_string())
        });
        self.operator.ok(&[
            "rollout",
            "start",
            "app@1.0.0",
            "--env",
            "staging",
            "--only",
            "web-2",
            "--force",
        ]);
        let order = self.runtime.block_on(session.hear(PATIENCE, |kind| match kind {
            Kind::Order(order) => Order::parse(&order.document).ok(),
            _ => None,
        }));
        let order = order.expect("the order comes");
        let OrderKind::Deploy { manifest, .. } = &order.order else { panic!("{order:?}") };
        let accepted = Event::Accepted {
            order: order.id.clone(),
            app: order.app.clone(),
            version: "1.0.0".parse().unwrap(),
            digest: *manifest,
            previous: None,
            steps: steps
                .iter()
                .map(|name| StepSummary { name: name.parse().unwrap(), kind: "shell".into() })
                .collect(),
        };
        let mut own = Own { session, order, sequence: 0 };
        self.runtime.block_on(own.say(&accepted));
        own
    }

    /// How the coordinator has a rollout.
    pub(super) fn state_of(&self, rollout: &Id) -> String {
        self.operator.json(&["rollout", "show", rollout.as_str()])["state"].as_str().unwrap_or("").to_owned()
    }

    /// A session that was welcomed.
    pub(super) fn session(&self, identity: &Identity, hello: Hello) -> Result<Session, Status> {
        let mut agents = AgentsClient::new(self.dial(Some(identity)).map_err(Status::unavailable)?);
        self.runtime.block_on(async {
            let (to, messages) = mpsc::channel(64);
            let kind = Some(agent_message::Kind::Hello(hello));
            drop(to.send(AgentMessage { kind }).await);
            let mut from = agents.session(ReceiverStream::new(messages)).await?.into_inner();
            match from.message().await?.and_then(|message| message.kind) {
                Some(Kind::Welcome(_)) => Ok(Session { to, from }),
                other => Err(Status::aborted(format!("no welcome: {other:?}"))),
            }
        })
    }
}

/// A deployment that the stolen server was ordered to begin, and the session in which it says what it likes of it.
pub(super) struct Own {
    pub(super) session: Session,
    pub(super) order: Order,
    sequence: u64,
}

impl Own {
    pub(super) async fn say(&mut self, event: &Event) {
        self.sequence += 1;
        let event = v1::Event {
            deployment: self.order.deployment.to_string(),
            sequence: self.sequence,
            at_ms: SystemClock.now().0,
            body: json::to_vec(event).into(),
            // Its journal never grows: the next session would be taken for an old copy of its disk.
            journal_position: 0,
        };
        assert!(self.session.say(agent_message::Kind::Event(event)).await);
    }
}

impl Session {
    /// What comes next, but for signs of life.
    pub(super) async fn next(&mut self, within: Duration) -> Option<Kind> {
        let next = async {
            loop {
                match self.from.message().await {
                    Ok(Some(CoordinatorMessage { kind: Some(kind) })) => return Some(kind),
                    Ok(Some(CoordinatorMessage { kind: None })) => {}
                    Ok(None) | Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(within, next).await.ok().flatten()
    }

    pub(super) async fn hear<T>(&mut self, within: Duration, pick: impl Fn(&Kind) -> Option<T>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let kind = self.next(left).await?;
            if let Some(found) = pick(&kind) {
                return Some(found);
            }
        }
    }

    pub(super) async fn say(&self, kind: agent_message::Kind) -> bool {
        self.to.send(AgentMessage { kind: Some(kind) }).await.is_ok()
    }

    /// How it ends, if it does within this time.
    pub(super) async fn end(&mut self, within: Duration) -> Option<Status> {
        let end = async {
            loop {
                match self.from.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok("closed"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(within, end).await.ok()
    }
}

/// What an agent says of itself.
pub(super) fn hello() -> Hello {
    Hello {
        protocol: 1,
        environment: "staging".into(),
        now_ms: SystemClock.now().0,
        trust_root_version: 1,
        os: "linux".into(),
        arch: "x86_64".into(),
        journal: "stolen".into(),
        process: "stolen".into(),
        ..Hello::default()
    }
}

/// Enrols a server and takes what is on its disk.
pub(super) fn steal(operator: &Operator, directory: &std::path::Path, name: &str) -> (Identity, Sha256) {
    let agent = Agent::prepared(directory, name);
    let token = operator.ok(&["server", "token", "--name", name, "--env", "staging"]);
    agent.enroll(&token, &["--allow-app", "app"]);
    let identity = Identity::read(&StatePaths::new(&agent.state()).identity()).unwrap();
    let config = Config::read(&agent.config()).unwrap();
    (identity, config.agent.ca)
}
