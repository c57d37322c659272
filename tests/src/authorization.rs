//! How long the decision takes: an artifact of two hundred files with ten conditions, and a gate with two rules over 64
//! keys.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use consign_common::{
    artifact::{Entry, EntryKind, Manifest, Mode},
    digest::Sha256,
    json,
    name::Id,
    time::UnixMs,
    trust::{
        APPROVAL, Allowance, AppTrust, Approval, CoordinatorPin, Envelope, Gate, GateRule, Key, Order,
        OrderKind, OrderingNumber, Predicate, Privilege, Published, RoleKeys, STATEMENT_TYPE, Scheme,
        Separation, ServersWord, SigningKey, Statement, Subject, TrustRoot,
        authorize::{Documents, Host, Intent, Memory, authorize},
    },
};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const TESTED: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// In each of the two roles, beside two publishers.
const PEOPLE: usize = 31;
const STEPS: usize = 10;
const FILES: usize = 200;
const ROUNDS: usize = 200;

/// What is decided from.
#[derive(Debug)]
pub struct Scene {
    root: TrustRoot,
    manifest: Vec<u8>,
    statements: Vec<Vec<u8>>,
    order: Order,
    word: ServersWord,
}

impl Scene {
    /// With so many statements: a publication, and of approvals and tests half each.
    pub fn new(count: usize) -> Self {
        let mut keys = BTreeMap::new();
        let mut people = |role: &str, count: usize| -> Vec<SigningKey> {
            let person = |index: usize| {
                let key = SigningKey::generate().unwrap();
                let public = key.public();
                let owner = format!("{role}-{index}").parse().unwrap();
                let entry = Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner };
                keys.insert(public.id(), entry);
                key
            };
            (0..count).map(person).collect()
        };
        let (ci, owners, qa) = (people("ci", 2), people("owner", PEOPLE), people("qa", PEOPLE));
        let role = |of: &[SigningKey]| RoleKeys {
            keys: of.iter().map(|key| key.public().id()).collect(),
            threshold: 1,
        };
        let rule = |predicate: &str, role: &str, threshold, condition: Option<&str>| GateRule {
            predicate: predicate.into(),
            role: role.parse().unwrap(),
            threshold,
            condition: condition.map(Into::into),
        };
        let gate = Gate::Statements {
            require: vec![
                rule(APPROVAL, "owners", 2, None),
                rule(TESTED, "qa", 1, Some("predicate.result == 'PASSED' && predicate.failed == 0")),
            ],
            rearm: vec![],
            separation: Separation::All,
        };
        let trust =
            AppTrust { publishers: role(&ci), epoch: 0, floor: OrderingNumber::default(), config: None };
        let root = TrustRoot {
            version: 1,
            issued: UnixMs(1),
            expires: UnixMs(NOW.0 * 2),
            root: role(&ci),
            roles: BTreeMap::from([
                ("owners".parse().unwrap(), role(&owners)),
                ("qa".parse().unwrap(), role(&qa)),
            ]),
            keys,
            apps: BTreeMap::from([("shop".parse().unwrap(), trust)]),
            environments: BTreeMap::from([("production".parse().unwrap(), gate)]),
            coordinators: vec![CoordinatorPin { id: "main".into(), ca_sha256: Sha256::of(b"ca") }],
            revoked: vec![],
            enrolment: None,
        };
        root.check().unwrap();
        let manifest = manifest();
        let digest = Sha256::of(&manifest);
        let statements = statements(count, digest, &ci, &owners, &qa);
        let word = ServersWord {
            server: "web-1".parse().unwrap(),
            environment: "production".parse().unwrap(),
            labels: BTreeMap::new(),
            allowances: vec![Allowance {
                app: "shop".parse().unwrap(),
                users: vec!["shop".into()],
                units: vec![],
            }],
        };
        let id = |byte| Id::from_bytes([byte; 16]);
        let order = Order {
            format: "consign-order-v1".into(),
            id: id(1),
            coordinator: "main".into(),
            server: word.server.clone(),
            environment: word.environment.clone(),
            app: "shop".parse().unwrap(),
            rollout: id(2),
            deployment: id(3),
            term: 1,
            issued: NOW,
            order: OrderKind::deploy(digest, false),
        };
        Self { root, manifest, statements, order, word }
    }

    /// One decision, which must let the order through.
    pub fn decide(&self) {
        let documents = Documents { manifest: &self.manifest, statements: &self.statements, plan: None };
        let host = Host { word: &self.word, privilege: &Privilege::Root, platform: "linux-x86_64" };
        let intent = Intent::Order { order: &self.order, connected: "main" };
        authorize(intent, documents, &self.root, host, &Memory::default(), NOW).unwrap();
    }

    /// The median of many decisions.
    pub fn measure(&self) -> Duration {
        let once = || {
            let began = Instant::now();
            self.decide();
            began.elapsed()
        };
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| once()).collect();
        times.sort_unstable();
        times.get(ROUNDS / 2).copied().unwrap_or_default()
    }
}

fn manifest() -> Vec<u8> {
    let step = |index| {
        format!(
            "[[step]]\nname = \"step_{index}\"\nrun = [\"bin/step\", \"{index}\"]\nuser = \"shop\"\nwhen = \"changed('lib/**')\"\n"
        )
    };
    let steps: String = (0..STEPS).map(step).collect();
    let file = |index| Entry {
        path: format!("file-{index:03}"),
        kind: EntryKind::File { size: 1000, sha256: Sha256::of(b"x"), mode: Mode::Plain },
    };
    json::to_vec(&Manifest {
        format: "consign-manifest-v1".into(),
        app: "shop".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        platform: None,
        plan: format!("app = \"shop\"\n{steps}[[step]]\nname = \"activate\"\nactivate = true\n"),
        entries: (0..FILES).map(file).collect(),
    })
}

fn statements(
    count: usize,
    digest: Sha256,
    ci: &[SigningKey],
    owners: &[SigningKey],
    qa: &[SigningKey],
) -> Vec<Vec<u8>> {
    let signed = |key: &SigningKey, predicate| {
        let statement = Statement { subject: Subject { name: "shop".into(), sha256: digest }, predicate };
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()
    };
    let number = |ms| OrderingNumber { epoch: 0, ms: UnixMs(ms) };
    let published = Predicate::Published(Published {
        app: "shop".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        platform: None,
        number: number(1000),
    });
    let approval = |ms| {
        Predicate::Approval(Approval {
            app: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
            number: number(ms),
            start_by: UnixMs(NOW.0 + 1000),
            converge_until: UnixMs(NOW.0 + 1000),
            config_sha256: None,
            plan_sha256: None,
            reason: Some("looks good".into()),
        })
    };
    let tested = || Predicate::Foreign {
        predicate_type: TESTED.into(),
        value: serde_json::json!({"result": "PASSED", "failed": 0, "suites": [{"name": "unit", "count": 812}]}),
    };
    let half = count / 2;
    let mut all: Vec<Vec<u8>> = ci.iter().take(1).map(|key| signed(key, published.clone())).collect();
    all.extend(owners.iter().zip(2000..).take(half).map(|(key, ms)| signed(key, approval(ms))));
    all.extend(qa.iter().take(count - half - 1).map(|key| signed(key, tested())));
    all
}

#[cfg(test)]
mod tests {
    use consign_common::limits::STATEMENTS;

    use super::*;

    #[test]
    fn the_scene_is_as_large_as_it_says() {
        for count in [4, STATEMENTS] {
            let scene = Scene::new(count);
            assert_eq!((scene.root.keys.len(), scene.statements.len()), (64, count));
            scene.decide();
        }
    }
}
