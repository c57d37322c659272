//! A server without root in a temporary directory: the real manager, journal, staging and supervisor; only the network
//! is a directory of artifacts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use consign_agent::{
    config::{AgentSection, Config as AgentConfig},
    executor::{ConfirmTimer, Processes, Roots, Site, Supervised, host_facts},
    identity::roots::file,
    journal::Journal,
    manager::{Manager, ManagerError},
    ports::{Fetch, FetchError, Inbound, Outbound, Papers},
    state::StatePaths,
    supervisor::{DEFAULT_LOG_LIMIT, ExitRecord, Launcher},
};
use consign_common::{
    artifact::{Identity, Options, read_directory},
    deployment::{DeploymentOutcome, Event, log::Decoder},
    digest::Sha256,
    limits::ArtifactLimits,
    name::{Id, StepName},
    sealing::SealingKey,
    time::{Clock as _, SystemClock},
    tls::{self, Ca},
    trust::{
        APPROVAL, Allowance, AppTrust, Approval, Config, ConfigValue, CoordinatorPin, Envelope, Gate,
        GateRule, Key, Order, OrderKind, OrderingNumber, Predicate, Privilege, Published, RoleKeys,
        STATEMENT_TYPE, Scheme, Separation, ServersWord, SigningKey, Statement, Subject, TRUST_ROOT_TYPE,
        TrustRoot, TrustRootPin, values_digest,
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

const COORDINATOR: &str = "c0ffee";
/// Messages that wait for a session that is behind.
pub(crate) const OUTBOUND: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct OneRoot(Arc<TrustRoot>);

impl Roots for OneRoot {
    fn current(&self) -> Arc<TrustRoot> {
        self.0.clone()
    }

    fn version(&self, version: u64) -> Option<Arc<TrustRoot>> {
        (version == self.0.version).then(|| self.0.clone())
    }
}

#[derive(Debug)]
struct Shelved {
    manifest: Vec<u8>,
    pack: Vec<u8>,
}

/// Artifacts by the digest of their manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    artifacts: Arc<Mutex<BTreeMap<Sha256, Shelved>>>,
    pub(crate) packs_fetched: Arc<AtomicUsize>,
    pub(crate) manifests_fetched: Arc<AtomicUsize>,
    /// Manifests do not come as long as this is so.
    pub(crate) silent: Arc<AtomicBool>,
    /// So many times a manifest cannot be had.
    pub(crate) blips: Arc<AtomicUsize>,
}

impl Fetch for Shelf {
    async fn manifest(&self, digest: Sha256) -> Result<Vec<u8>, FetchError> {
        self.manifests_fetched.fetch_add(1, Ordering::Relaxed);
        while self.silent.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let less = |blips: usize| blips.checked_sub(1);
        if self.blips.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Err(FetchError::Unreachable("a blip".into()));
        }
        let artifacts = self.artifacts.lock().unwrap();
        let found = artifacts.get(&digest).map(|shelved| shelved.manifest.clone());
        found.ok_or_else(|| FetchError::NotFound(digest.to_string()))
    }

    async fn pack(
        &self,
        _: Option<Sha256>,
        to: Sha256,
        _: u64,
        into: PathBuf,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<(), FetchError> {
        self.packs_fetched.fetch_add(1, Ordering::Relaxed);
        let pack = self.artifacts.lock().unwrap().get(&to).map(|shelved| shelved.pack.clone());
        let pack = pack.ok_or_else(|| FetchError::NotFound(to.to_string()))?;
        fs::write(&into, &pack).map_err(|source| FetchError::Io { path: into, source })?;
        progress(pack.len() as u64, pack.len() as u64);
        Ok(())
    }
}

impl Shelf {
    /// One byte more in the manifest, which changes nothing that it says.
    pub(crate) fn spoil_manifest(&self, digest: Sha256) {
        self.artifacts.lock().unwrap().get_mut(&digest).unwrap().manifest.push(b'\n');
    }

    /// What is on the shelf is not what was published any more.
    pub(crate) fn spoil(&self, digest: Sha256) {
        let mut artifacts = self.artifacts.lock().unwrap();
        let pack = &mut artifacts.get_mut(&digest).unwrap().pack;
        let middle = pack.len() / 2;
        pack[middle] ^= 1;
    }
}

pub(crate) struct Artifact {
    pub(crate) digest: Sha256,
    pub(crate) statements: Vec<Vec<u8>>,
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) shelf: Shelf,
    publisher: SigningKey,
    pub(crate) sealing_key: Arc<SealingKey>,
    pub(crate) root: Arc<TrustRoot>,
    counter: AtomicU64,
}

/// One life of the agent.
pub(crate) struct Agent {
    pub(crate) inbound: mpsc::Sender<Inbound>,
    outbound: mpsc::Receiver<Outbound>,
    task: JoinHandle<Result<(), ManagerError>>,
    pub(crate) journal: Journal,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["state", "apps/shop/shared", "effects"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let publisher = SigningKey::generate().unwrap();
        let public = publisher.public();
        let only = RoleKeys { keys: vec![public.id()], threshold: 1 };
        let key = Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "ci".parse().unwrap() };
        let now = SystemClock.now();
        let trust =
            AppTrust { publishers: only.clone(), epoch: 0, floor: OrderingNumber::default(), config: None };
        let root = TrustRoot {
            version: 1,
            issued: now,
            expires: now.plus(Duration::from_secs(3600)),
            keys: BTreeMap::from([(public.id(), key)]),
            root: only,
            roles: BTreeMap::new(),
            apps: BTreeMap::from([("shop".parse().unwrap(), trust)]),
            environments: BTreeMap::from([("production".parse().unwrap(), Gate::PublisherOnly {})]),
            coordinators: vec![CoordinatorPin { id: COORDINATOR.into(), ca_sha256: Sha256::of(b"ca") }],
            revoked: vec![],
            enrolment: None,
        };
        Self {
            dir,
            shelf: Shelf::default(),
            publisher,
            sealing_key: Arc::new(SealingKey::generate()),
            root: Arc::new(root),
            counter: AtomicU64::new(1),
        }
    }

    /// A server whose environment takes what this key approves, and after a failure what it has approved since.
    pub(crate) fn gated() -> (Self, SigningKey) {
        let mut world = Self::new();
        let alice = SigningKey::generate().unwrap();
        let public = alice.public();
        let mut root = (*world.root).clone();
        let key =
            Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "alice".parse().unwrap() };
        root.keys.insert(public.id(), key);
        let role = RoleKeys { keys: vec![public.id()], threshold: 1 };
        root.roles.insert("owners".parse().unwrap(), role);
        let rule = GateRule {
            predicate: APPROVAL.into(),
            role: "owners".parse().unwrap(),
            threshold: 1,
            condition: None,
        };
        let (require, rearm) = (vec![rule.clone()], vec![rule]);
        let gate = Gate::Statements { require, rearm, separation: Separation::Publisher };
        root.environments.insert("production".parse().unwrap(), gate);
        root.check().unwrap();
        world.root = Arc::new(root);
        (world, alice)
    }

    /// A statement about the artifact, beside those that it has.
    pub(crate) fn say(&self, key: &SigningKey, artifact: &mut Artifact, predicate: Predicate) {
        let subject = Subject { name: "shop".into(), sha256: artifact.digest };
        let statement = Statement { subject, predicate };
        let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]);
        artifact.statements.push(envelope.to_vec());
    }

    pub(crate) fn approve(
        &self,
        key: &SigningKey,
        artifact: &mut Artifact,
        change: impl FnOnce(&mut Approval),
    ) {
        // Later than whatever this server has done so far.
        let now = SystemClock.now().plus(Duration::from_millis(self.next()));
        let later = now.plus(Duration::from_secs(600));
        let mut approval = Approval {
            app: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
            number: OrderingNumber { epoch: 0, ms: now },
            start_by: later,
            converge_until: later,
            config_sha256: None,
            plan_sha256: None,
            reason: None,
        };
        change(&mut approval);
        self.say(key, artifact, Predicate::Approval(approval));
    }

    /// A config by the app's publisher, beside the artifact's statements.
    pub(crate) fn configure(&self, artifact: &mut Artifact, sequence: u64, workers: i64) -> Sha256 {
        let values = BTreeMap::from([("workers".parse().unwrap(), ConfigValue::Int(workers))]);
        let canonical = format!("{{\"workers\":{workers}}}");
        let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
        let digest = Sha256::of(canonical.as_bytes());
        let statement = Statement {
            subject: Subject { name: "config".into(), sha256: digest },
            predicate: Predicate::Config(Config { app, environment, sequence, values }),
        };
        let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&self.publisher]);
        artifact.statements.push(envelope.to_vec());
        digest
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// What steps have noted, line by line.
    pub(crate) fn effects(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("effects/log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn effect(&self, line: &str) {
        let wait = async {
            while !self.effects().iter().any(|effect| effect == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{line:?} never happens: {:?}", self.effects()));
    }

    /// Packs and publishes. `@effects` in the plan stands for the file that steps note what they do in.
    pub(crate) fn publish(&self, version: &str, files: &[(&str, &str)], steps: &str) -> Artifact {
        let source = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = source.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let effects = self.path("effects/log");
        let plan =
            format!("app = \"shop\"\nkeep = 3\n{steps}").replace("@effects", effects.to_str().unwrap());
        let limits = ArtifactLimits::default();
        let options = Options {
            plan: Some((plan, "consign.toml".into())),
            strip_components: 0,
            limits: &limits,
            spool: self.dir.path(),
        };
        let identity = Identity { version: version.parse().unwrap(), platform: None };
        let mut built =
            read_directory(source.path(), &identity, &options).unwrap_or_else(|error| panic!("{error:?}"));
        let mut pack = Vec::new();
        built.write_pack(&mut pack).unwrap();
        let (manifest, digest) = (built.manifest.to_bytes(), built.manifest.digest());
        self.shelf.artifacts.lock().unwrap().insert(digest, Shelved { manifest, pack });
        Artifact { digest, statements: vec![self.statement(version, digest)] }
    }

    /// The same bytes once more, under a new number.
    pub(crate) fn publish_again(&self, version: &str, artifact: &Artifact) -> Artifact {
        Artifact { digest: artifact.digest, statements: vec![self.statement(version, artifact.digest)] }
    }

    fn statement(&self, version: &str, digest: Sha256) -> Vec<u8> {
        // Each one millisecond after the one before, however fast this runs.
        let ms = self.root.issued.plus(Duration::from_millis(self.next()));
        let published = Published {
            app: "shop".parse().unwrap(),
            version: version.parse().unwrap(),
            platform: None,
            number: OrderingNumber { epoch: 0, ms },
        };
        let statement = Statement {
            subject: Subject { name: "shop".into(), sha256: digest },
            predicate: Predicate::Published(published),
        };
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&self.publisher]).to_vec()
    }

    fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn id(&self) -> Id {
        let mut bits = [0; 16];
        bits[..8].copy_from_slice(&self.next().to_le_bytes());
        // Tests run side by side, each in a process of its own.
        bits[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        Id::from_bytes(bits)
    }

    pub(crate) fn order(&self, kind: OrderKind) -> Order {
        Order {
            format: "consign-order-v1".into(),
            id: self.id(),
            coordinator: COORDINATOR.into(),
            server: "web-1".parse().unwrap(),
            environment: "production".parse().unwrap(),
            app: "shop".parse().unwrap(),
            rollout: self.id(),
            deployment: self.id(),
            term: 1,
            issued: SystemClock.now(),
            order: kind,
        }
    }

    pub(crate) fn deploy(&self, artifact: &Artifact) -> Inbound {
        let kind = OrderKind::deploy(artifact.digest, false);
        self.send(&self.order(kind), artifact)
    }

    /// An order about a deployment.
    pub(crate) fn about(&self, deployment: &Id, kind: OrderKind) -> Inbound {
        self.send_alone(&Order { deployment: deployment.clone(), ..self.order(kind) })
    }

    /// Without statements.
    pub(crate) fn send_alone(&self, order: &Order) -> Inbound {
        let papers = Papers { document: order.to_vec(), ..Papers::default() };
        Inbound::Order { papers, connected: COORDINATOR.into() }
    }

    pub(crate) fn send(&self, order: &Order, artifact: &Artifact) -> Inbound {
        Inbound::Order { papers: papers(order, artifact), connected: COORDINATOR.into() }
    }

    /// With a config, and what is sealed to the server.
    pub(crate) fn send_with(
        &self,
        order: &Order,
        artifact: &Artifact,
        config: Vec<u8>,
        sealed: Vec<u8>,
    ) -> Inbound {
        let mut papers = papers(order, artifact);
        papers.statements.push(config);
        papers.sealed = Some(sealed);
        Inbound::Order { papers, connected: COORDINATOR.into() }
    }

    pub(crate) fn config(&self, sequence: u64, values: BTreeMap<StepName, ConfigValue>) -> Vec<u8> {
        let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
        let config = Config { app, environment, sequence, values };
        let subject = Subject { name: "config".into(), sha256: values_digest(&config) };
        let statement = Statement { subject, predicate: Predicate::Config(config) };
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&self.publisher]).to_vec()
    }

    pub(crate) fn ask(&self, query: &str, order: &Order, artifact: &Artifact) -> Inbound {
        let papers = papers(order, artifact);
        Inbound::Query { query: query.into(), papers, connected: COORDINATOR.into() }
    }

    /// What enrolment would have left, for the program itself.
    pub(crate) fn enrolled(&self) {
        let envelope = Envelope::sign(TRUST_ROOT_TYPE, self.root.to_payload(), &[&self.publisher]).to_vec();
        let pin = TrustRootPin { version: 1, sha256: TrustRoot::pin(&envelope).unwrap() };
        let roots = StatePaths::new(&self.path("state")).trust_roots();
        fs::create_dir_all(&roots).unwrap();
        fs::write(file(&roots, 1), &envelope).unwrap();
        let allowance = Allowance { app: "shop".parse().unwrap(), users: vec!["root".into()], units: vec![] };
        let config = AgentConfig {
            agent: AgentSection {
                coordinator: vec!["127.0.0.1:1".into()],
                ca: Sha256::of(b"ca"),
                trust_root: pin,
                state: self.path("state"),
                apps: self.path("apps"),
                log_limit: DEFAULT_LOG_LIMIT,
            },
            word: ServersWord {
                server: "web-1".parse().unwrap(),
                environment: "production".parse().unwrap(),
                labels: BTreeMap::new(),
                allowances: vec![allowance],
            },
        };
        fs::write(self.path("agent.toml"), config.to_toml().unwrap()).unwrap();
        let ca = Ca::generate(COORDINATOR, SystemClock.now()).unwrap();
        let subject = tls::Subject::Agent { server: "web-1".parse().unwrap(), uid: self.id() };
        let hour = Duration::from_secs(3600);
        let identity = ca.issue_identity(&subject, SystemClock.now(), hour).unwrap();
        identity.write(&StatePaths::new(&self.path("state")).identity()).unwrap();
    }

    /// What the program itself says, on this server.
    pub(crate) fn program(&self, command: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_consign-agent"))
            .arg("--config")
            .arg(self.path("agent.toml"))
            .arg(command)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn start(&self) -> Agent {
        self.start_as(supervised(), &consign_agent::supervisor::boot_id().unwrap()).await
    }

    pub(crate) async fn start_as(&self, processes: impl Processes, boot_id: &str) -> Agent {
        let (events, outbound) = mpsc::channel(OUTBOUND);
        let (inbound, orders) = mpsc::channel(16);
        let allowance = Allowance { app: "shop".parse().unwrap(), users: vec![], units: vec![] };
        let journal = Journal::open(&self.path("state")).await.unwrap();
        let site = Site {
            state: self.path("state"),
            apps: self.path("apps"),
            journal: journal.clone(),
            fetch: self.shelf.clone(),
            processes,
            roots: OneRoot(self.root.clone()),
            sealing_key: self.sealing_key.clone(),
            word: ServersWord {
                server: "web-1".parse().unwrap(),
                environment: "production".parse().unwrap(),
                labels: BTreeMap::new(),
                allowances: vec![allowance],
            },
            privilege: Privilege::User("me".into()),
            platform: "linux-x86_64".into(),
            facts: host_facts(),
            boot_id: boot_id.to_owned(),
            clock: Arc::new(SystemClock),
            confirm_timer: ConfirmTimer::None,
            log_limit: DEFAULT_LOG_LIMIT,
            outbound: events,
        };
        let task = tokio::spawn(Manager::new(Arc::new(site)).run(orders));
        Agent { inbound, outbound, task, journal }
    }

    pub(crate) fn current(&self) -> Option<PathBuf> {
        fs::canonicalize(self.path("apps/shop/current")).ok()
    }

    pub(crate) fn releases(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("apps/shop/releases")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// All that an attempt's log says.
    pub(crate) fn log(&self, deployment: &Id, attempt: &str) -> String {
        let path = self.path("state/deployments").join(deployment.as_str()).join(format!("{attempt}.log"));
        read_log(&path)
    }

    /// Waits until the attempt's end is on disk.
    pub(crate) async fn exited(&self, deployment: &Id, attempt: &str) {
        let directory = self.path("state/deployments").join(deployment.as_str());
        let attempt = attempt.parse().unwrap();
        let wait = async {
            while !matches!(ExitRecord::read(&directory, attempt), Ok(Some(_))) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the attempt ends");
    }

    /// Kills the supervisor of a deployment, as the out-of-memory killer would.
    pub(crate) fn kill_supervisor(&self, deployment: &Id) {
        let directory = self.path("state/deployments").join(deployment.as_str());
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).into_owned();
            (command.contains("supervise") && command.contains(directory.to_str()?)).then_some(pid)
        });
        let pids: Vec<i32> = processes.collect();
        assert!(!pids.is_empty(), "no supervisor runs for {directory:?}");
        for pid in pids {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }
    }
}

/// The real thing, in its own session.
pub(crate) fn supervised() -> Supervised {
    Supervised { launcher: Launcher::Session { program: env!("CARGO_BIN_EXE_consign-agent").into() } }
}

fn read_log(path: &Path) -> String {
    let mut decoder = Decoder::at(0);
    decoder.push(&fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}")));
    let mut text = String::new();
    while let Some(record) = decoder.next_record().unwrap() {
        text.push_str(&String::from_utf8_lossy(&record.data));
    }
    text
}

impl Agent {
    pub(crate) async fn give(&self, message: Inbound) {
        self.inbound.send(message).await.unwrap();
    }

    /// The next message to the coordinator that is not about progress.
    pub(crate) async fn hear(&mut self) -> Outbound {
        loop {
            let message = timeout(PATIENCE, self.outbound.recv()).await.expect("the agent is silent");
            let Some(message) = message else { panic!("the agent ended: {:?}", (&mut self.task).await) };
            if !matches!(message, Outbound::Event { sequence: 0, .. } | Outbound::Again) {
                return message;
            }
        }
    }

    /// The next event of any deployment that is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            match self.hear().await {
                Outbound::Event { body, .. } if wanted(&body) => return body,
                Outbound::Event { .. } | Outbound::Again => {}
                other @ (Outbound::Refused { .. } | Outbound::Answer { .. }) => panic!("no event: {other:?}"),
            }
        }
    }

    /// How the next deployment ends.
    pub(crate) async fn ended(&mut self) -> DeploymentOutcome {
        let end = self.until(|event| matches!(event, Event::Ended { .. })).await;
        let Event::Ended { result } = end else { unreachable!("it is the end") };
        result
    }

    /// All events up to the end, checked to come in their order, and acknowledged.
    pub(crate) async fn events(&mut self) -> Vec<Event> {
        let (deployment, events) = self.unacknowledged().await;
        self.give(Inbound::EventAck { deployment, sequence: events.len() as u64 }).await;
        events
    }

    pub(crate) async fn unacknowledged(&mut self) -> (Id, Vec<Event>) {
        let mut events = Vec::new();
        loop {
            match self.hear().await {
                Outbound::Event { sequence, body, deployment, .. } => {
                    assert_eq!(sequence, events.len() as u64 + 1, "{body:?}");
                    let ended = matches!(body, Event::Ended { .. });
                    events.push(body);
                    if ended {
                        return (deployment, events);
                    }
                }
                Outbound::Refused { code, message, .. } => panic!("refused: {code}: {message}; {events:?}"),
                Outbound::Answer { answer, .. } => panic!("nobody asked: {answer:?}"),
                Outbound::Again => {}
            }
        }
    }

    pub(crate) async fn outcome(&mut self) -> DeploymentOutcome {
        match self.events().await.pop() {
            Some(Event::Ended { result }) => result,
            Some(_) | None => unreachable!("the last event is the end"),
        }
    }

    pub(crate) async fn refusal(&mut self) -> (String, String) {
        match self.hear().await {
            Outbound::Refused { code, message, .. } => (code, message),
            other @ (Outbound::Event { .. } | Outbound::Answer { .. } | Outbound::Again) => {
                panic!("not refused: {other:?}")
            }
        }
    }

    /// The agent is gone from one moment to the next.
    pub(crate) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
        // A process that ends takes its files along; here the connection's thread may still be at them.
        self.journal.close().await;
    }
}

fn papers(order: &Order, artifact: &Artifact) -> Papers {
    let statements = artifact.statements.clone();
    Papers { document: order.to_vec(), statements, ..Papers::default() }
}
