//! One attacked server: a real agent process in gated production, with one good artifact, and the line that it dials.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use consign_agent::{
    config::{AgentSection, Config},
    identity::roots::file,
    state::StatePaths,
    supervisor::DEFAULT_LOG_LIMIT,
};
use consign_common::{
    artifact::{MANIFEST_FORMAT, Manifest, write_full},
    deployment::{DeploymentOutcome, Event},
    digest::Sha256,
    json,
    limits::EVENT_BYTES,
    name::Id,
    sealing::{Recipient, SealingKey},
    time::UnixMs,
    trust::{
        Allowance, Approval, Config as Configured, ConfigValue, ORDER_FORMAT, Order, OrderKind,
        OrderingNumber, Predicate, Published, ServersWord, TrustRoot, TrustRootPin,
    },
};
use consign_proto::v1::{self, TrustRoots, agent_message::Kind as Said, coordinator_message::Kind};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    authority::{Authority, COORDINATOR, NEXT_COORDINATOR, SERVER, TEST_RESULT, now, shop},
    line::{Heard, Line, listen},
};
use crate::scene::Agent;

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// Two steps that leave a trace, one before and one after the switch.
pub(super) const STEPS: &str = r#"
[[step]]
name = "prepare"
shell = "echo prepare $CONSIGN_VERSION >> @effects"

[[step]]
name = "activate"
activate = true

[[step]]
name = "tell"
shell = "echo tell $CONSIGN_VERSION >> @effects"
"#;

/// On the line, for whom it may concern.
#[derive(Clone, Debug)]
pub(super) struct Artifact {
    pub(super) app: String,
    pub(super) version: String,
    pub(super) digest: Sha256,
}

/// One order, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) id: Id,
    pub(super) deployment: Id,
    pub(super) order: v1::Order,
}

/// All of the server that an attack could change.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    effects: Vec<String>,
    current: Option<String>,
    releases: Vec<String>,
    trust_root: usize,
}

pub(super) struct World {
    // The agent ends before the line, and the directory goes last.
    pub(super) agent: Agent,
    pub(super) authority: Authority,
    pub(super) line: Arc<Line>,
    /// The trust root in force.
    pub(super) root: TrustRoot,
    /// Under whose name orders are sent.
    pub(super) coordinator: &'static str,
    pub(super) environment: &'static str,
    pub(super) term: u64,
    /// What honest orders come with beside the usual: the newest config.
    pub(super) config: Option<(Vec<u8>, Sha256)>,
    /// And what is sealed to this server.
    pub(super) sealed: Vec<u8>,
    /// The plan's parameters in honest artifacts.
    pub(super) params: &'static str,
    /// The last deployment failed or was returned.
    pub(super) failed: Option<Failed>,
    hears: Receiver<Heard>,
    counter: u64,
    last_ms: u64,
    runtime: Runtime,
    directory: TempDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// What makes a world another one than the usual.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) environment: &'static str,
    /// Whose certificate the line shows.
    pub(super) identity: &'static str,
}

impl Setting {
    pub(super) const USUAL: Self = Self { environment: "production", identity: COORDINATOR };
}

impl Snapshot {
    /// Whether nothing has come since: old releases may be pruned meanwhile, which takes its time after a deployment.
    pub(super) fn assert_same(&self, after: &Self, what: &str) {
        let (effects, current, trust_root) = (&self.effects, &self.current, self.trust_root);
        assert_eq!(
            (&after.effects, &after.current, after.trust_root),
            (effects, current, trust_root),
            "{what}"
        );
        let new = after.releases.iter().find(|release| !self.releases.contains(release));
        assert_eq!(new, None, "{what}: a release that was not there before");
    }
}

impl World {
    /// With one good artifact, deployed honestly.
    pub(super) fn start(setting: Setting) -> Self {
        let mut world = Self::idle(setting);
        world.session();
        world.honest();
        world
    }

    /// Nothing is deployed, and nobody has waited for the agent to come.
    pub(super) fn idle(setting: Setting) -> Self {
        let authority = Authority::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (line, hears) = Line::new(setting.identity);
        let identity = authority.coordinator(setting.identity);
        let address = runtime.block_on(listen(&authority, &identity, line.clone()));
        let directory = tempfile::tempdir().unwrap();
        let mut agent = Agent::prepared(directory.path(), SERVER);
        let root = authority.root();
        enrol(&agent, &authority, &root, address, setting.environment);
        agent.launch();
        Self {
            agent,
            authority,
            line,
            root,
            coordinator: COORDINATOR,
            environment: setting.environment,
            term: 1,
            config: None,
            sealed: Vec::new(),
            params: "",
            failed: None,
            hears,
            counter: 0,
            last_ms: 0,
            runtime,
            directory,
        }
    }

    // What is signed by those who may.

    /// On the line, and signed by nobody yet.
    pub(super) fn artifact(&mut self) -> Artifact {
        let plan = format!("{}{STEPS}", self.params);
        self.artifact_of("shop", &plan)
    }

    /// `@effects` in the plan stands for the file in which steps leave their traces.
    pub(super) fn artifact_of(&mut self, app: &str, plan: &str) -> Artifact {
        self.counter += 1;
        let version = format!("1.{}.0", self.counter);
        let effects = self.directory.path().join("effects");
        let plan = format!("app = \"{app}\"\n{plan}").replace("@effects", effects.to_str().unwrap());
        let manifest = Manifest {
            format: MANIFEST_FORMAT.into(),
            app: app.parse().unwrap(),
            version: version.parse().unwrap(),
            platform: None,
            plan,
            entries: Vec::new(),
        };
        let mut pack = Vec::new();
        write_full(&manifest, std::io::empty(), &mut pack).unwrap();
        let digest = manifest.digest();
        self.line.manifests.lock().unwrap().insert(digest, manifest.to_bytes());
        self.line.packs.lock().unwrap().insert(digest, pack);
        Artifact { app: app.into(), version, digest }
    }

    /// Later than every number before.
    pub(super) fn number(&mut self) -> OrderingNumber {
        self.last_ms = now().0.max(self.last_ms + 1);
        let epoch = self.root.apps[&shop()].epoch;
        OrderingNumber { epoch, ms: UnixMs(self.last_ms) }
    }

    pub(super) fn published(&mut self, artifact: &Artifact, by: &str) -> Vec<u8> {
        let number = self.number();
        self.published_at(artifact, by, number)
    }

    pub(super) fn published_at(&self, artifact: &Artifact, by: &str, number: OrderingNumber) -> Vec<u8> {
        let published = Published {
            app: artifact.app.parse().unwrap(),
            version: artifact.version.parse().unwrap(),
            platform: None,
            number,
        };
        self.authority.statement(&[by], artifact.digest, Predicate::Published(published))
    }

    /// What a product owner would sign now.
    pub(super) fn approval(&mut self) -> Approval {
        let number = self.number();
        Approval {
            app: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
            number,
            start_by: now().plus(HOUR),
            converge_until: now().plus(HOUR * 2),
            config_sha256: self.config.as_ref().map(|(_, digest)| *digest),
            plan_sha256: None,
            reason: None,
        }
    }

    pub(super) fn approved(&mut self, artifact: &Artifact, by: &str) -> Vec<u8> {
        let approval = self.approval();
        self.authority.statement(&[by], artifact.digest, Predicate::Approval(approval))
    }

    /// By pat and by paul, both changed in the same way.
    pub(super) fn approvals(&mut self, artifact: &Artifact, change: impl Fn(&mut Approval)) -> Vec<Vec<u8>> {
        ["pat", "paul"]
            .map(|by| {
                let mut approval = self.approval();
                change(&mut approval);
                self.authority.statement(&[by], artifact.digest, Predicate::Approval(approval))
            })
            .into()
    }

    pub(super) fn tested(&self, artifact: &Artifact, by: &str, result: &str) -> Vec<u8> {
        let value = serde_json::json!({ "result": result });
        let predicate = Predicate::Foreign { predicate_type: TEST_RESULT.into(), value };
        self.authority.statement(&[by], artifact.digest, predicate)
    }

    /// Signed by who keeps the config, and in force from now on.
    pub(super) fn configure(&mut self, sequence: u64, values: &[(&str, ConfigValue)]) -> Vec<u8> {
        let (statement, digest) = self.config_by("carl", sequence, values);
        self.config = Some((statement.clone(), digest));
        statement
    }

    /// The statement, and the digest of the values, which are all that the plan declares.
    pub(super) fn config_by(
        &self,
        by: &str,
        sequence: u64,
        values: &[(&str, ConfigValue)],
    ) -> (Vec<u8>, Sha256) {
        let config = Configured {
            app: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
            sequence,
            values: values.iter().map(|(name, value)| (name.parse().unwrap(), value.clone())).collect(),
        };
        let digest = Sha256::of(&json::to_vec(&config.values));
        (self.authority.statement(&[by], digest, Predicate::Config(config)), digest)
    }

    /// All that production asks for.
    pub(super) fn evidence(&mut self, artifact: &Artifact) -> Vec<Vec<u8>> {
        let mut all = vec![
            self.published(artifact, "ci"),
            self.approved(artifact, "pat"),
            self.approved(artifact, "paul"),
            self.tested(artifact, "quinn", "PASSED"),
        ];
        if self.failed.is_some() {
            all.push(self.approved(artifact, "rita"));
        }
        all.extend(self.config.iter().map(|(statement, _)| statement.clone()));
        all
    }

    /// What is asked for but for the approvals, which are these.
    pub(super) fn evidence_with(&mut self, artifact: &Artifact, approvals: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut all = approvals;
        all.push(self.published(artifact, "ci"));
        all.push(self.tested(artifact, "quinn", "PASSED"));
        all.extend(self.config.iter().map(|(statement, _)| statement.clone()));
        all
    }

    // What the coordinator says by itself.

    pub(super) fn id(&mut self) -> Id {
        self.counter += 1;
        let mut bits = [0; 16];
        bits[..8].copy_from_slice(&self.counter.to_le_bytes());
        bits[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        Id::from_bytes(bits)
    }

    pub(super) fn order(&mut self, app: &str, kind: OrderKind) -> Order {
        Order {
            format: ORDER_FORMAT.into(),
            id: self.id(),
            coordinator: self.coordinator.into(),
            server: SERVER.parse().unwrap(),
            environment: self.environment.parse().unwrap(),
            app: app.parse().unwrap(),
            rollout: self.id(),
            deployment: self.id(),
            term: self.term,
            issued: now(),
            order: kind,
        }
    }

    pub(super) fn deploy(&mut self, artifact: &Artifact, statements: Vec<Vec<u8>>) -> Shot {
        let order = self.order(&artifact.app, OrderKind::deploy(artifact.digest, false));
        let mut shot = shot(&order, statements);
        shot.order.sealed = self.sealed.clone().into();
        shot
    }

    /// What secrets are sealed to, for this server.
    pub(super) fn recipient(&self) -> Recipient {
        let key = fs::read_to_string(StatePaths::new(&self.agent.state()).sealing_key()).unwrap();
        SealingKey::parse(&key).unwrap().recipient()
    }

    pub(super) fn say(&self, kind: Kind) {
        self.line.say(kind);
    }

    pub(super) fn send(&self, shot: &Shot) {
        self.say(Kind::Order(shot.order.clone()));
    }

    /// A trust root that those who may have signed comes into force.
    pub(super) fn take_root(&mut self, change: impl FnOnce(&mut TrustRoot)) {
        let mut next = self.next_root();
        change(&mut next);
        let envelope = self.authority.sign_root(&next, &["alice"]);
        assert_eq!(self.offer(vec![envelope]), (next.version, String::new()));
        self.root = next;
    }

    pub(super) fn next_root(&self) -> TrustRoot {
        TrustRoot { version: self.root.version + 1, ..self.root.clone() }
    }

    /// The version in force afterwards, and why a newer one was refused.
    pub(super) fn offer(&mut self, envelopes: Vec<Vec<u8>>) -> (u64, String) {
        let envelopes = envelopes.into_iter().map(Into::into).collect();
        self.say(Kind::TrustRoots(TrustRoots { envelopes }));
        self.hear("what becomes of the trust root", |said| match said {
            Said::TrustRootTaken(taken) => Some((taken.version, taken.error.clone())),
            _ => None,
        })
    }

    // What the agent makes of it.

    /// Waits for the next session.
    pub(super) fn session(&mut self) -> v1::Hello {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.hears.recv_timeout(left).expect("the agent comes back") {
                Heard::Session(hello) => return *hello,
                Heard::Said(_) => {}
            }
        }
    }

    /// Whether a session begins within this time.
    pub(super) fn session_within(&mut self, time: Duration) -> Option<v1::Hello> {
        match self.hears.recv_timeout(time) {
            Ok(Heard::Session(hello)) => Some(*hello),
            Ok(Heard::Said(_)) | Err(_) => None,
        }
    }

    pub(super) fn hear<T>(&mut self, what: &str, mut pick: impl FnMut(&Said) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(heard) = self.hears.recv_timeout(left) else {
                panic!("{what}: never heard; heard was {last:?}");
            };
            if let Heard::Said(said) = &heard
                && let Some(found) = pick(said)
            {
                return found;
            }
            last.push(heard);
        }
    }

    pub(super) fn refusal_of(&mut self, shot: &Shot) -> String {
        let id = shot.id.to_string();
        // A deployment that runs has more to say than what becomes of a word about it.
        let names_it = |body: &[u8]| String::from_utf8_lossy(body).contains(&id);
        self.hear("a refusal", |said| match said {
            Said::Refused(refused) if refused.order == id => Some(refused.code.clone()),
            Said::Event(event) if names_it(&event.body) => {
                panic!("it was accepted: {}", String::from_utf8_lossy(&event.body))
            }
            _ => None,
        })
    }

    pub(super) fn event<T>(&mut self, shot: &Shot, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let (id, deployment) = (shot.id.to_string(), shot.deployment.to_string());
        self.hear("an event", |said| match said {
            Said::Event(event) if event.deployment == deployment => {
                pick(json::from_slice(&event.body, EVENT_BYTES).unwrap())
            }
            Said::Refused(refused) if refused.order == id => panic!("it was refused: {refused:?}"),
            _ => None,
        })
    }

    pub(super) fn outcome_of(&mut self, shot: &Shot) -> DeploymentOutcome {
        self.event(shot, |event| match event {
            Event::Ended { result } => Some(result),
            _ => None,
        })
    }

    pub(super) fn run(&mut self, shot: &Shot) -> DeploymentOutcome {
        self.send(shot);
        self.outcome_of(shot)
    }

    /// Nothing that was sent before is still under way, and nothing came of it.
    pub(super) fn assert_silence(&mut self) {
        let mut order = self.order("shop", OrderKind::Cancel { reason: "is anybody there?".into() });
        order.server = "nobody".parse().unwrap();
        let marker = shot(&order, Vec::new());
        self.send(&marker);
        let id = marker.id.to_string();
        self.hear("the marker", |said| match said {
            Said::Refused(refused) if refused.order == id => Some(()),
            // What an honest order before it came to, signed.
            Said::Heartbeat(_) | Said::Receipt(_) => None,
            other => panic!("not silent: {other:?}"),
        });
    }

    /// The next honest order works, whatever went before.
    pub(super) fn honest(&mut self) -> (Artifact, Vec<Vec<u8>>) {
        let artifact = self.artifact();
        let statements = self.evidence(&artifact);
        self.honest_with(&artifact, statements.clone());
        (artifact, statements)
    }

    pub(super) fn honest_with(&mut self, artifact: &Artifact, statements: Vec<Vec<u8>>) {
        let shot = self.deploy(artifact, statements);
        let outcome = self.run(&shot);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "the honest order: {outcome:?}");
        let version = &artifact.version;
        let effects = self.effects();
        for step in ["prepare", "tell"] {
            let times = effects.iter().filter(|effect| **effect == format!("{step} {version}")).count();
            assert_eq!(times, 1, "{step} of the honest {version}: {effects:?}");
        }
        assert_eq!(self.current().as_deref(), Some(version.as_str()));
        self.failed = None;
    }

    /// What became of an order in the agent's journal: `None`, it is not there; an empty name, it was accepted.
    pub(super) fn journalled(&self, order: &Id) -> Option<String> {
        let options = SqliteConnectOptions::new()
            .filename(StatePaths::new(&self.agent.state()).journal())
            .read_only(true);
        self.runtime.block_on(async {
            let mut journal = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::query_scalar("SELECT coalesce(refused_code, '') FROM orders WHERE id = ?")
                .bind(order.as_str())
                .fetch_optional(&mut journal)
                .await
                .unwrap()
        })
    }

    pub(super) fn orders_kept(&self) -> i64 {
        let options = SqliteConnectOptions::new()
            .filename(StatePaths::new(&self.agent.state()).journal())
            .read_only(true);
        self.runtime.block_on(async {
            let mut journal = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&mut journal).await.unwrap()
        })
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let list = |path| fs::read_dir(path).map(|entries| entries.count()).unwrap_or_default();
        let releases = fs::read_dir(self.agent.apps().join("shop/releases"));
        let mut releases: Vec<String> = releases
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with(".removing"))
            .collect();
        releases.sort();
        Snapshot {
            effects: self.effects(),
            current: self.current(),
            releases,
            trust_root: list(StatePaths::new(&self.agent.state()).trust_roots()),
        }
    }

    /// What steps have left, line by line.
    pub(super) fn effects(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("effects")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Makes the file that a step waits for.
    pub(super) fn release(&self, name: &str) {
        fs::write(self.directory.path().join(name), "").unwrap();
    }

    /// The version that `current` points at.
    pub(super) fn current(&self) -> Option<String> {
        let link = fs::read_link(self.agent.apps().join("shop/current")).ok()?;
        Some(link.file_name()?.to_str()?.split_once('-')?.0.to_owned())
    }

    /// Another identity, which the trust root names, takes over: the agent is told to dial it.
    pub(super) fn hand_over(&mut self) {
        let (line, hears) = Line::new(NEXT_COORDINATOR);
        *line.manifests.lock().unwrap() = self.line.manifests.lock().unwrap().clone();
        *line.packs.lock().unwrap() = self.line.packs.lock().unwrap().clone();
        let identity = self.authority.coordinator(NEXT_COORDINATOR);
        let address = self.runtime.block_on(listen(&self.authority, &identity, line.clone()));
        self.agent.kill();
        let text = fs::read_to_string(self.agent.config()).unwrap();
        let mut config = Config::parse(&text, &self.agent.config()).unwrap();
        config.agent.coordinator = vec![address.to_string()];
        fs::write(self.agent.config(), config.to_toml().unwrap()).unwrap();
        self.line = line;
        self.hears = hears;
        self.coordinator = NEXT_COORDINATOR;
        self.agent.launch();
        self.session();
    }
}

pub(super) fn shot(order: &Order, statements: Vec<Vec<u8>>) -> Shot {
    Shot {
        id: order.id.clone(),
        deployment: order.deployment.clone(),
        order: v1::Order {
            document: order.to_vec().into(),
            statements: statements.into_iter().map(Into::into).collect(),
            ..v1::Order::default()
        },
    }
}

/// What enrolment leaves on a server.
fn enrol(agent: &Agent, authority: &Authority, root: &TrustRoot, address: SocketAddr, environment: &str) {
    let paths = StatePaths::new(&agent.state());
    fs::create_dir_all(paths.trust_roots()).unwrap();
    let envelope = authority.sign_root(root, &["alice"]);
    fs::write(file(&paths.trust_roots(), 1), &envelope).unwrap();
    authority.agent().write(&paths.identity()).unwrap();
    let allow = |app: &str| Allowance {
        app: app.parse().unwrap(),
        users: vec!["root".into()],
        units: vec!["shop.service".into()],
    };
    let config = Config {
        agent: AgentSection {
            coordinator: vec![address.to_string()],
            ca: authority.ca.pin(),
            trust_root: TrustRootPin { version: 1, sha256: TrustRoot::pin(&envelope).unwrap() },
            state: agent.state(),
            apps: agent.apps(),
            log_limit: DEFAULT_LOG_LIMIT,
        },
        word: ServersWord {
            server: SERVER.parse().unwrap(),
            environment: environment.parse().unwrap(),
            labels: [].into(),
            allowances: vec![allow("shop")],
        },
    };
    fs::write(agent.config(), config.to_toml().unwrap()).unwrap();
}
