//! A coordinator's state with a trust root, artifacts and enrolled servers; agents that do what the test says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consign_common::{
    artifact::Manifest,
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome, StepSummary},
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{Environment, Id, ServerName},
    plan::Phase,
    time::{Clock, SystemClock, UnixMs},
    trust::{
        AppTrust, Approval, CoordinatorPin, Envelope, Gate, GateRule, Key, Order, OrderingNumber, Predicate,
        Published, RoleKeys, STATEMENT_TYPE, Scheme, SigningKey, Statement, Subject, TRUST_ROOT_TYPE,
        TrustRoot,
    },
};

use super::*;
use crate::{
    fleet::{AppReport, NewServer, Papers, Registry, Report, Selector, Session, Sessions, ToAgent},
    repository::Repository,
    rollout::Strategy,
    store::{StateDir, Store},
    trust_roots::TrustRoots,
};

pub(super) struct Fixture {
    pub(super) store: Arc<Store>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) controller: Arc<Controller>,
    pub(super) feed: Feed,
    pub(super) dir: tempfile::TempDir,
}

pub(super) struct Agent {
    controller: Arc<Controller>,
    pub(super) server: ServerName,
    pub(super) session: Session,
    sequences: BTreeMap<Id, u64>,
}

const PLAN: &str = r#"app = "shop"

[[step]]
name = "activate"
activate = true

[[step]]
name = "migrate"
run = ["bin/migrate"]
"#;

fn plans() -> Vec<(&'static str, String)> {
    vec![
        ("1", PLAN.to_owned()),
        ("2", PLAN.to_owned()),
        ("once", format!("{PLAN}once = true\n")),
        ("confirm", PLAN.replacen('\n', "\nconfirm = \"5m\"\n", 1)),
        ("param", format!("{PLAN}[params.workers]\ntype = \"int\"\n")),
    ]
}

fn manifest(version: &str, plan: String) -> Vec<u8> {
    json::to_vec(&Manifest {
        format: "consign-manifest-v1".into(),
        app: "shop".parse().unwrap(),
        version: version.parse().unwrap(),
        platform: None,
        plan,
        entries: Vec::new(),
    })
}

pub(super) fn succeeded() -> DeploymentOutcome {
    DeploymentOutcome::Succeeded { tolerated: Vec::new() }
}

pub(super) fn end(result: DeploymentOutcome) -> Event {
    Event::Ended { result }
}

impl Fixture {
    pub(super) async fn new(servers: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(StateDir::open(&dir.path().join("state")).unwrap()).await.unwrap());
        lay_down(&store, servers, "production").await;
        Self::over(store, dir).await
    }

    /// Its servers are in an environment whose gate asks for an approval by ada.
    pub(super) async fn gated(servers: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(StateDir::open(&dir.path().join("state")).unwrap()).await.unwrap());
        lay_down(&store, servers, "gated").await;
        Self::over(store, dir).await
    }

    /// Ada approves the version for an environment; the repository has it.
    pub(super) async fn approve(&self, version: &str, environment: &str, plan: Option<Sha256>) {
        let now = SystemClock.now();
        let later = UnixMs(now.0 + 3_600_000);
        let approval = Predicate::Approval(Approval {
            app: "shop".parse().unwrap(),
            environment: environment.parse().unwrap(),
            number: OrderingNumber { epoch: 0, ms: now },
            start_by: later,
            converge_until: later,
            config_sha256: None,
            plan_sha256: plan,
            reason: None,
        });
        say(&self.store, self.digest(version), approval);
        self.controller.repository.sweep().await.unwrap();
    }

    /// A coordinator over this state, as after a start.
    pub(super) async fn over(store: Arc<Store>, dir: tempfile::TempDir) -> Self {
        let (sessions, feed) = (Arc::new(Sessions::default()), Feed::default());
        let moment = Duration::from_millis(50);
        let patience = Patience { turn: moment, restart: moment * 4, cancel: moment, stopping: moment * 2 };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let trust_roots = Arc::new(TrustRoots::load(Arc::clone(&store), Arc::clone(&clock)).await.unwrap());
        let repository = Arc::new(Repository::new(
            Arc::clone(&store),
            Arc::clone(&trust_roots),
            ArtifactLimits::default(),
            Arc::clone(&clock),
        ));
        repository.sweep().await.unwrap();
        let surroundings = Surroundings {
            coordinator: "main".into(),
            store: Arc::clone(&store),
            repository,
            trust_roots,
            sessions: Arc::clone(&sessions),
            feed: feed.clone(),
            clock,
            health_programs: dir.path().join("health.d"),
        };
        let controller = Controller::new(surroundings, patience);
        Self { store, sessions, controller, feed, dir }
    }

    /// The coordinator dies and comes back: nothing but the state directory is left.
    pub(super) async fn restarted(self) -> Self {
        let Self { store, sessions, controller, feed, dir } = self;
        drop((sessions, controller, feed));
        store.close().await;
        drop(store);
        let mut state = StateDir::open(&dir.path().join("state"));
        // Timers of the former coordinator may hold it for a moment.
        while state.is_err() {
            tokio::task::yield_now().await;
            state = StateDir::open(&dir.path().join("state"));
        }
        let store = Arc::new(Store::open(state.unwrap()).await.unwrap());
        let fixture = Self::over(store, dir).await;
        fixture.controller.resume().await.unwrap();
        fixture
    }

    pub(super) fn digest(&self, version: &str) -> Sha256 {
        let (_, plan) = plans().into_iter().find(|(other, _)| *other == version).unwrap();
        Sha256::of(&manifest(version, plan))
    }

    pub(super) async fn connect(&self, server: &str) -> Agent {
        self.connect_with_clock(server, 0).await
    }

    pub(super) async fn connect_with_clock(&self, server: &str, offset_ms: i64) -> Agent {
        let server: ServerName = server.parse().unwrap();
        let session = self.sessions.open(&server, offset_ms);
        self.controller.connected(&server).await.unwrap();
        Agent { controller: Arc::clone(&self.controller), server, session, sequences: BTreeMap::new() }
    }

    /// Version 2 to all servers of production, in these waves.
    pub(super) fn request(&self, waves: &[&str]) -> StartRequest {
        StartRequest {
            id: None,
            app: "shop".parse().unwrap(),
            version: "2".parse().unwrap(),
            environment: "production".parse().unwrap(),
            candidate: None,
            waves: waves.iter().map(|wave| (*wave).to_owned()).collect(),
            canary: None,
            selector: Selector::All,
            selector_text: String::new(),
            strategy: Strategy::default(),
            min_healthy: None,
            confirm_ms: None,
            queueing: Queueing::Refuse,
            not_before: UnixMs(0),
            skip: Vec::new(),
            pinned: None,
            again: Again::LeaveAlone,
            by: "ann".into(),
            reason: String::new(),
        }
    }

    pub(super) async fn start(&self, waves: &[&str]) -> Result<Shown, NotStarted> {
        self.controller.start(self.request(waves)).await
    }

    pub(super) async fn start_of(
        &self,
        app: &str,
        version: &str,
        environment: &str,
        only: &str,
    ) -> Result<Shown, NotStarted> {
        let request = StartRequest {
            app: app.parse().unwrap(),
            version: version.parse().unwrap(),
            environment: environment.parse().unwrap(),
            selector: only.parse().unwrap(),
            selector_text: only.to_owned(),
            ..self.request(&[])
        };
        self.controller.start(request).await
    }

    pub(super) async fn rollback(&self, only: &str) -> Result<Shown, NotStarted> {
        let of =
            RollbackOf::Newest { app: "shop".parse().unwrap(), environment: "production".parse().unwrap() };
        let (selector, reason, by) = (only.parse().unwrap(), String::new(), "ann".into());
        self.controller.rollback(RollbackRequest { of, selector, waves: Vec::new(), reason, by }).await
    }

    /// Version 1 is good on these servers.
    pub(super) async fn deployed_before(&self, servers: &[&str]) {
        for server in servers {
            let digest = Some(self.digest("1"));
            let report =
                AppReport { good: digest, good_version: "1".into(), current: digest, ..AppReport::default() };
            let registry = Registry::new(Arc::clone(&self.store));
            registry
                .set_app(&server.parse().unwrap(), &"shop".parse().unwrap(), &report, UnixMs(1))
                .await
                .unwrap();
        }
    }

    pub(super) async fn states(&self, id: &Id) -> Vec<&'static str> {
        let shown = self.controller.show_exactly(id).await.unwrap();
        shown.row.state.members.iter().map(|member| member.state.as_str()).collect()
    }

    pub(super) fn now(&self) -> UnixMs {
        SystemClock.now()
    }

    /// Waits until the clock is past the beginning of this rollout.
    pub(super) async fn later(&self, id: Id) {
        let begun = self.controller.show_exactly(&id).await.unwrap().row.started;
        while self.now() <= begun {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits, woken by the feed, until the rollout is so.
    pub(super) async fn until(&self, id: &Id, wanted: impl Fn(&Shown) -> bool) {
        let mut feed = self.feed.subscribe();
        let reached = async {
            while !wanted(&self.controller.show_exactly(id).await.unwrap()) {
                feed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("it never came to that");
    }
}

impl Agent {
    /// The next order, which must be there.
    pub(super) async fn order(&mut self) -> Order {
        json::from_slice(&self.papers().await.document, 1 << 20).unwrap()
    }

    /// The same, with what came beside it.
    pub(super) async fn papers(&mut self) -> Papers {
        let message = tokio::time::timeout(Duration::from_secs(20), self.session.queue.recv());
        match message.await.expect("no order came").expect("the session ended") {
            ToAgent::Order(papers) => papers,
            other @ (ToAgent::EventAck { .. }
            | ToAgent::Query { .. }
            | ToAgent::TrustRoots(_)
            | ToAgent::Heartbeat
            | ToAgent::Ask(_)
            | ToAgent::Resend { .. }) => {
                panic!("not an order: {other:?}")
            }
        }
    }

    pub(super) fn expect_nothing(&mut self) {
        if let Ok(message) = self.session.queue.try_recv() {
            panic!("{} was sent {message:?}", self.server);
        }
    }

    pub(super) async fn report(
        &self,
        order: &Order,
        sequence: u64,
        event: &Event,
    ) -> Result<Heard, NotTaken> {
        let reported = Reported {
            deployment: order.deployment.clone(),
            sequence,
            at: SystemClock.now(),
            body: json::to_vec(event),
            journal_position: 0,
        };
        self.controller.event(&self.server, &reported).await
    }

    /// The next event of the order's deployment.
    pub(super) async fn tell(&mut self, order: &Order, event: &Event) {
        let sequence = self.sequences.get(&order.deployment).copied().unwrap_or(0) + 1;
        assert_eq!(self.report(order, sequence, event).await.unwrap(), Heard::Up(sequence));
        self.sequences.insert(order.deployment.clone(), sequence);
    }

    /// Goes on from where another agent's session ended.
    pub(super) fn knowing(mut self, order: &Order, sequence: u64) -> Self {
        self.sequences.insert(order.deployment.clone(), sequence);
        self
    }

    /// Its one step ran.
    pub(super) async fn migrate(&mut self, order: &Order, result: StepOutcome) {
        let attempt = Attempt { phase: Phase::Deploy, step: 0, number: 1 };
        self.tell(order, &Event::Started { attempt, boot_id: "b".into() }).await;
        let finished =
            Event::Finished { attempt, result, log_length: 0, duration_ms: 1, leftovers: Vec::new() };
        self.tell(order, &finished).await;
    }

    pub(super) async fn accept(&mut self, order: &Order) {
        let step = StepSummary { name: "migrate".parse().unwrap(), kind: "run".into() };
        let event = Event::Accepted {
            order: order.id.clone(),
            app: order.app.clone(),
            version: "2".parse().unwrap(),
            digest: Sha256::of(b"x"),
            previous: None,
            steps: vec![step],
        };
        self.tell(order, &event).await;
    }

    pub(super) async fn end(&mut self, order: &Order, result: DeploymentOutcome) {
        self.tell(order, &end(result)).await;
    }
}

/// What `consign serve`, enrolment and publication leave behind.
async fn lay_down(store: &Arc<Store>, servers: &[&str], environment: &str) {
    let environment: Environment = environment.parse().unwrap();
    let key = SigningKey::generate().unwrap();
    std::fs::write(key_file(store), key.to_pkcs8()).unwrap();
    let mut write = store.write().await.unwrap();
    sqlx::query("INSERT INTO coordinator (one, id, bundle_sha256, imported_ms) VALUES (1, 'main', '', 0)")
        .execute(&mut *write)
        .await
        .unwrap();
    sqlx::query("INSERT INTO trust_roots (version, envelope, added_ms) VALUES (1, ?, 0)")
        .bind(trust_root(&key))
        .execute(&mut *write)
        .await
        .unwrap();
    for (version, plan) in plans() {
        let bytes = manifest(version, plan);
        let digest = Sha256::of(&bytes);
        let path = store.state().artifacts().join(digest.to_string());
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("manifest.json"), &bytes).unwrap();
        let published = Published {
            app: "shop".parse().unwrap(),
            version: version.parse().unwrap(),
            platform: None,
            number: OrderingNumber::default(),
        };
        say(store, digest, Predicate::Published(published));
        sqlx::query(
            "INSERT INTO artifacts (digest, app, version, platform, entries, bytes, pack_bytes, pack_sha256,
                                    added_ms, epoch, ms) VALUES (?, 'shop', ?, '', 0, 0, 0, '', 0, 0, 0)",
        )
        .bind(digest.to_string())
        .bind(version)
        .execute(&mut *write)
        .await
        .unwrap();
    }
    for (name, uid) in servers.iter().zip(1..) {
        let new = NewServer {
            name: name.parse().unwrap(),
            uid: Id::from_bytes([uid; 16]),
            environment: environment.clone(),
            labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
            agent_version: "0".into(),
        };
        Registry::enrol(&mut write, &new, UnixMs(1)).await.unwrap();
    }
    write.commit().await.unwrap();
    let registry = Registry::new(Arc::clone(store));
    for name in servers {
        let report =
            Report { labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]), ..Report::default() };
        let apps = BTreeMap::new();
        registry.hello(&name.parse().unwrap(), &report, &apps, 0, UnixMs(2)).await.unwrap();
    }
}

fn key_file(store: &Store) -> std::path::PathBuf {
    store.state().artifacts().parent().unwrap().join("the-key")
}

/// A statement about the artifact, signed by the one key that there is; it lies where an upload leaves it.
fn say(store: &Store, digest: Sha256, predicate: Predicate) {
    let key = SigningKey::from_pkcs8(&std::fs::read(key_file(store)).unwrap()).unwrap();
    let statement = Statement { subject: Subject { name: "shop".into(), sha256: digest }, predicate };
    let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&key]).to_vec();
    let dir = store.state().artifacts().join(digest.to_string()).join("statements");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("{}.json", Sha256::of(&envelope))), envelope).unwrap();
}

fn trust_root(key: &SigningKey) -> Vec<u8> {
    let keys = || RoleKeys { keys: vec![key.public().id()], threshold: 1 };
    let gated = GateRule {
        predicate: "consign:approval/v1".into(),
        role: "product-owners".parse().unwrap(),
        threshold: 1,
        condition: None,
    };
    let owner =
        Key { scheme: Scheme::Ed25519, public: key.public().to_base64(), owner: "ada".parse().unwrap() };
    let root = TrustRoot {
        version: 1,
        issued: UnixMs(0),
        expires: UnixMs(u64::MAX / 4),
        keys: BTreeMap::from([(key.public().id(), owner)]),
        root: keys(),
        roles: BTreeMap::from([("product-owners".parse().unwrap(), keys())]),
        apps: BTreeMap::from([(
            "shop".parse().unwrap(),
            AppTrust { publishers: keys(), epoch: 0, floor: OrderingNumber::default(), config: None },
        )]),
        environments: BTreeMap::from([
            ("production".parse().unwrap(), Gate::PublisherOnly {}),
            (
                "gated".parse().unwrap(),
                Gate::Statements {
                    require: vec![gated],
                    rearm: Vec::new(),
                    separation: consign_common::trust::Separation::None,
                },
            ),
        ]),
        coordinators: vec![CoordinatorPin { id: "main".into(), ca_sha256: Sha256::of(b"ca") }],
        revoked: Vec::new(),
        enrolment: None,
    };
    Envelope::sign(TRUST_ROOT_TYPE, root.to_payload(), &[key]).to_vec()
}
