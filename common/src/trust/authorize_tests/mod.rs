//! Every rule of the decision: a world in which all is well, and one thing that is not.

mod config;
mod decisions;
mod edges;
mod gates;
mod host;
mod hostile;
mod plans;
mod returns;
mod rules;
mod separation;
mod time;

use std::collections::BTreeMap;

use super::*;
use crate::{
    json,
    limits::{EVIDENCE_BYTES, FUTURE_MS, STATEMENTS},
    name::Id,
    trust::{
        Allowance, AppTrust, CoordinatorPin, Envelope, Gate, Key, Predicate, Published, RoleKeys,
        STATEMENT_TYPE, Scheme, SigningKey, Statement, Subject,
    },
};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const CONNECTED: &str = "c0ffee";
const PLAN: &str = r#"
app = "shop"
[[step]]
name = "migrate"
run = ["bin/migrate"]
user = "shop"
[[step]]
name = "activate"
activate = true
[[step]]
name = "restart"
systemd = { restart = "shop.service" }
"#;

pub(super) struct World {
    pub(super) publisher: SigningKey,
    pub(super) root: TrustRoot,
    pub(super) word: ServersWord,
    pub(super) privilege: Privilege,
    pub(super) manifest: Manifest,
    pub(super) statements: Vec<Vec<u8>>,
    /// The plan document that comes with the order.
    pub(super) document: Option<Vec<u8>>,
    pub(super) order: Order,
    pub(super) memory: Memory,
    pub(super) now: UnixMs,
}

pub(super) fn at(ms: u64) -> OrderingNumber {
    OrderingNumber { epoch: 1, ms: UnixMs(ms) }
}

fn id(seed: u8) -> Id {
    Id::from_bytes([seed; 16])
}

fn trusted(key: &SigningKey, owner: &str) -> (Sha256, Key) {
    let public = key.public();
    (public.id(), Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: owner.parse().unwrap() })
}

fn only(key: &SigningKey) -> RoleKeys {
    RoleKeys { keys: vec![key.public().id()], threshold: 1 }
}

fn manifest(plan: &str) -> Manifest {
    Manifest {
        format: "consign-manifest-v1".into(),
        app: "shop".parse().unwrap(),
        version: "1.2.0".parse().unwrap(),
        platform: None,
        plan: plan.into(),
        entries: vec![],
    }
}

/// A published artifact, ordered to a server that takes it.
pub(super) fn world() -> World {
    let publisher = SigningKey::generate().unwrap();
    let trust = AppTrust { publishers: only(&publisher), epoch: 1, floor: at(1000), config: None };
    let root = TrustRoot {
        version: 3,
        issued: UnixMs(1),
        expires: NOW.plus(std::time::Duration::from_secs(1)),
        keys: BTreeMap::from([trusted(&publisher, "ci")]),
        root: only(&publisher),
        roles: BTreeMap::new(),
        apps: BTreeMap::from([("shop".parse().unwrap(), trust)]),
        environments: BTreeMap::from([("production".parse().unwrap(), Gate::PublisherOnly {})]),
        coordinators: vec![CoordinatorPin { id: CONNECTED.into(), ca_sha256: Sha256::of(b"ca") }],
        revoked: vec![],
        enrolment: None,
    };
    root.check().unwrap();
    let allowance = Allowance {
        app: "shop".parse().unwrap(),
        users: vec!["shop".into()],
        units: vec!["shop.service".into()],
    };
    let mut world = World {
        publisher,
        root,
        word: ServersWord {
            server: "web-1".parse().unwrap(),
            environment: "production".parse().unwrap(),
            labels: BTreeMap::new(),
            allowances: vec![allowance],
        },
        privilege: Privilege::Root,
        manifest: manifest(PLAN),
        statements: vec![],
        document: None,
        order: Order {
            format: "consign-order-v1".into(),
            id: id(1),
            coordinator: CONNECTED.into(),
            server: "web-1".parse().unwrap(),
            environment: "production".parse().unwrap(),
            app: "shop".parse().unwrap(),
            rollout: id(2),
            deployment: id(3),
            term: 7,
            issued: NOW,
            order: OrderKind::deploy(Sha256::of(b""), false),
        },
        memory: Memory { term: 7, ..Memory::default() },
        now: NOW,
    };
    world.publish(at(NOW.0));
    world
}

impl World {
    pub(super) fn bytes(&self) -> Vec<u8> {
        json::to_vec(&self.manifest)
    }

    pub(super) fn digest(&self) -> Sha256 {
        Sha256::of(&self.bytes())
    }

    /// The statement that the publisher makes of the manifest as it is.
    pub(super) fn publication(&self, number: OrderingNumber) -> Statement {
        let Manifest { app, version, platform, .. } = self.manifest.clone();
        Statement {
            subject: Subject { name: "shop".into(), sha256: self.digest() },
            predicate: Predicate::Published(Published { app, version, platform, number }),
        }
    }

    pub(super) fn signed(&self, statement: &Statement) -> Vec<u8> {
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&self.publisher]).to_vec()
    }

    /// Publishes the manifest as it is, and orders it.
    pub(super) fn publish(&mut self, number: OrderingNumber) {
        self.statements = vec![self.signed(&self.publication(number))];
        self.order.order = OrderKind::deploy(self.digest(), false);
    }

    /// Another plan, published and ordered.
    pub(super) fn plan(&mut self, plan: &str) {
        self.manifest.plan = plan.to_owned();
        self.publish(at(NOW.0));
    }

    pub(super) fn installed(&self, published: OrderingNumber) -> Installed {
        Installed {
            manifest: self.digest(),
            version: self.manifest.version.clone(),
            published,
            release: "1.2.0-abc".into(),
            config: None,
        }
    }

    pub(super) fn decide(&self, intent: Intent<'_>) -> Result<Work, Refusal> {
        let bytes = self.bytes();
        let documents =
            Documents { manifest: &bytes, statements: &self.statements, plan: self.document.as_deref() };
        let host = Host { word: &self.word, privilege: &self.privilege, platform: "linux-x86_64" };
        authorize(intent, documents, &self.root, host, &self.memory, self.now).map(Verified::into_inner)
    }

    pub(super) fn ordered(&self) -> Result<Work, Refusal> {
        self.decide(Intent::Order { order: &self.order, connected: CONNECTED })
    }

    pub(super) fn resumed(&self) -> Result<Work, Refusal> {
        self.decide(Intent::Resume { order: &self.order })
    }

    /// The name of the refusal of the order.
    pub(super) fn code(&self) -> &'static str {
        self.ordered().expect_err("must be refused").code()
    }
}

/// The refusal once `change` has been made to a world in which all is well.
pub(super) fn refused(change: impl FnOnce(&mut World)) -> &'static str {
    let mut world = world();
    world.ordered().unwrap();
    change(&mut world);
    world.code()
}

#[test]
fn a_published_artifact_is_authorized_with_its_plan_and_number() {
    let world = world();
    let work = world.ordered().unwrap();
    assert_eq!((work.digest, work.number, work.published), (world.digest(), at(NOW.0), at(NOW.0)));
    assert_eq!(work.manifest, world.manifest);
    assert_eq!(work.plan.steps.len(), 3);
    assert_eq!(world.resumed(), Ok(work));
}

#[test]
fn the_order_is_for_this_server_from_the_coordinator_that_is_connected() {
    assert_eq!(refused(|world| world.order.format = "consign-order-v2".into()), "malformed");
    assert_eq!(refused(|world| world.order.server = "web-2".parse().unwrap()), "wrong-server");
    assert_eq!(refused(|world| world.order.environment = "staging".parse().unwrap()), "wrong-environment");
    assert_eq!(refused(|world| world.word.environment = "staging".parse().unwrap()), "wrong-environment");
    assert_eq!(refused(|world| world.order.coordinator = "another".into()), "coordinator-unknown");
    assert_eq!(refused(|world| world.root.coordinators.clear()), "coordinator-unknown");
    assert_eq!(refused(|world| world.memory.term = 8), "old-term");
    let another = |world: &mut World| {
        // Named by the trust root, but not the one that TLS authenticated.
        world.order.coordinator = "second".into();
        let ca_sha256 = Sha256::of(b"second");
        world.root.coordinators.push(CoordinatorPin { id: "second".into(), ca_sha256 });
    };
    assert_eq!(refused(another), "coordinator-unknown");
}

#[test]
fn the_trust_root_names_the_app_and_the_environment() {
    assert_eq!(refused(|world| world.root.apps.clear()), "app-unknown");
    assert_eq!(refused(|world| world.root.environments.clear()), "environment-unknown");
    assert_eq!(refused(|world| world.order.app = "blog".parse().unwrap()), "malformed");
}

#[test]
fn the_manifest_is_the_one_that_is_ordered() {
    assert_eq!(refused(|world| world.manifest.version = "1.2.1".parse().unwrap()), "manifest-digest");
    let ordered = |world: &mut World| {
        world.order.order = OrderKind::deploy(Sha256::of(b"x"), true);
    };
    assert_eq!(refused(ordered), "manifest-digest");
}

#[test]
fn the_publication_is_about_this_manifest() {
    assert_eq!(refused(|world| world.statements.clear()), "statement-missing");
    let lie = |change: fn(&mut Statement)| {
        refused(move |world| {
            let mut statement = world.publication(at(NOW.0));
            change(&mut statement);
            world.statements = vec![world.signed(&statement)];
        })
    };
    let published = |change: fn(&mut Published)| {
        refused(move |world| {
            let mut statement = world.publication(at(NOW.0));
            let Predicate::Published(published) = &mut statement.predicate else { panic!() };
            change(published);
            world.statements = vec![world.signed(&statement)];
        })
    };
    assert_eq!(lie(|statement| statement.subject.sha256 = Sha256::of(b"another")), "wrong-subject");
    assert_eq!(published(|published| published.app = "blog".parse().unwrap()), "wrong-subject");
    assert_eq!(published(|published| published.version = "9".parse().unwrap()), "wrong-subject");
    assert_eq!(
        published(|published| published.platform = Some("linux-x86_64".parse().unwrap())),
        "wrong-subject"
    );
    let foreign = |statement: &mut Statement| {
        let value = serde_json::json!({"app": "shop"});
        statement.predicate =
            Predicate::Foreign { predicate_type: "https://example.org/published".into(), value };
    };
    assert_eq!(lie(foreign), "statement-missing");
}

#[test]
fn the_publication_is_signed_by_this_apps_publishers() {
    let by = |key: fn(&mut World) -> SigningKey| {
        refused(move |world| {
            let key = key(world);
            let payload = world.publication(at(NOW.0)).to_payload();
            world.statements = vec![Envelope::sign(STATEMENT_TYPE, payload, &[&key]).to_vec()];
        })
    };
    assert_eq!(by(|_| SigningKey::generate().unwrap()), "signature-invalid");
    // The publisher of another app, and one who has another role: known to the trust root, but not for this.
    let other_app = by(|world| {
        let key = SigningKey::generate().unwrap();
        world.root.keys.extend([trusted(&key, "blogger")]);
        let trust = AppTrust { publishers: only(&key), epoch: 1, floor: at(0), config: None };
        world.root.apps.insert("blog".parse().unwrap(), trust);
        key
    });
    assert_eq!(other_app, "signature-invalid");
    let other_role = by(|world| {
        let key = SigningKey::generate().unwrap();
        world.root.keys.extend([trusted(&key, "owner")]);
        world.root.root = only(&key);
        world.root.roles.insert("qa".parse().unwrap(), only(&key));
        key
    });
    assert_eq!(other_role, "signature-invalid");
    let unsigned = |world: &mut World| {
        let payload = world.publication(at(NOW.0)).to_payload();
        world.statements = vec![Envelope::sign(STATEMENT_TYPE, payload, &[]).to_vec()];
    };
    assert_eq!(refused(unsigned), "signature-missing");
}

#[test]
fn a_threshold_of_two_is_not_met_by_one_publisher_in_two_statements() {
    let second = SigningKey::generate().unwrap();
    let mut world = world();
    world.root.keys.extend([trusted(&second, "release")]);
    let publishers =
        RoleKeys { keys: vec![world.publisher.public().id(), second.public().id()], threshold: 2 };
    world.root.apps.values_mut().for_each(|app| app.publishers = publishers.clone());
    let payload = world.publication(at(NOW.0)).to_payload();
    let by = |keys: &[&SigningKey]| Envelope::sign(STATEMENT_TYPE, payload.clone(), keys).to_vec();
    world.statements = vec![by(&[&world.publisher]), by(&[&second])];
    assert_eq!(world.code(), "signature-invalid");
    world.statements = vec![by(&[&world.publisher, &second])];
    world.ordered().unwrap();
}

#[test]
fn other_statements_beside_the_publication_do_no_harm_and_broken_ones_do() {
    let mut world = world();
    let stranger = SigningKey::generate().unwrap();
    let theirs = Envelope::sign(STATEMENT_TYPE, b"{}".to_vec(), &[&stranger]).to_vec();
    world.statements.push(theirs);
    world.ordered().unwrap();
    // Signed by the publisher, and not readable: nothing is decided beside it.
    let broken = Envelope::sign(STATEMENT_TYPE, b"{}".to_vec(), &[&world.publisher]).to_vec();
    world.statements.push(broken);
    assert_eq!(world.code(), "malformed");
    assert_eq!(refused(|world| world.statements.push(b"{".to_vec())), "malformed");
    assert_eq!(
        refused(|world| world.statements = vec![world.statements[0].clone(); STATEMENTS + 1]),
        "malformed"
    );
}

#[test]
fn all_statements_together_are_not_more_than_goes_with_an_order() {
    let of_size = |bytes: usize| {
        let mut world = world();
        let each = EVIDENCE_BYTES / 8;
        let padded =
            |statement: &Vec<u8>, to: usize| [&statement[..], &vec![b' '; to - statement.len()]].concat();
        let first = world.statements[0].clone();
        world.statements = (0..7).map(|_| padded(&first, each)).collect();
        world.statements.push(padded(&first, bytes - 7 * each));
        world.ordered().map(drop).map_err(|refusal| refusal.code())
    };
    assert_eq!(of_size(EVIDENCE_BYTES), Ok(()));
    assert_eq!(of_size(EVIDENCE_BYTES + 1), Err("malformed"));
}

#[test]
fn what_is_revoked_does_not_run() {
    assert_eq!(refused(|world| world.root.revoked.push(world.digest())), "revoked");
}

#[test]
fn control_orders_are_held_to_the_same_first_rules() {
    let mut world = world();
    world.order.order = OrderKind::Cancel { reason: "stop".into() };
    let decide = |world: &World| {
        let deciding =
            Deciding { manifest: Some(world.digest()), statements: &world.statements, now: world.now };
        authorize_control(&world.order, CONNECTED, &world.root, &world.word, &world.memory, deciding)
            .map(drop)
            .map_err(|refusal| refusal.code())
    };
    assert_eq!(decide(&world), Ok(()));
    assert_eq!(world.code(), "malformed", "a cancel carries no artifact");
    world.memory.term = 8;
    assert_eq!(decide(&world), Err("old-term"));
    world.memory.term = 7;
    world.root.expires = UnixMs(2);
    assert_eq!(decide(&world), Ok(()), "an expired trust root stops nothing that only stops");
    for kind in [
        OrderKind::Confirm {},
        OrderKind::Decide {
            step: "migrate".parse().unwrap(),
            action: crate::trust::DecisionAction::Skip,
            reason: "trust me".into(),
        },
    ] {
        world.order.order = kind;
        assert_eq!(decide(&world), Ok(()));
    }
    world.order.order = OrderKind::deploy(world.digest(), false);
    assert_eq!(decide(&world), Err("malformed"));
    world.order.server = "web-2".parse().unwrap();
    assert_eq!(decide(&world), Err("wrong-server"));
}

#[test]
fn a_refusal_that_names_the_coordinator_is_one_short_line() {
    let mut world = world();
    world.order.coordinator = "\n\u{1b}[31m".to_owned() + &"x".repeat(5000);
    let told = world.ordered().expect_err("must be refused").to_string();
    assert!(!told.contains(char::is_control) && told.len() < 400, "{told:?}");
}
