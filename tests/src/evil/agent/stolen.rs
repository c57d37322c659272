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
use consign_common::{digest::Sha256, tls::Identity};
use consign_proto::v1::{
    AgentMessage, CoordinatorMessage, Hello, agent_message, agents_client::AgentsClient,
    coordinator_message::Kind,
};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::scene::{Agent, Coordinator, Operator, write_tree};

/// What the coordinator may take while it is attacked, KiB.
const MEMORY_KIB: u64 = 256 << 10;

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
        let dialer = Dialer {
            addresses: vec![self.coordinator.address.clone()],
            ca: self.ca,
            proxies: Proxies::default(),
        };
        let connected = self.runtime.block_on(dialer.dial(identity));
        connected.map(|Connection { channel, .. }| channel).map_err(|error| error.to_string())
    }

    pub(super) fn agents(&self) -> AgentsClient<Channel> {
        AgentsClient::new(self.dial(Some(&self.identity)).unwrap())
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

impl Session {
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
        now_ms: consign_common::time::Clock::now(&consign_common::time::SystemClock).0,
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
