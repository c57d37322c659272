//! The evidence from documents to text: what is proven, what is only told, and what is a lie.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    artifact::{Entry, EntryKind, Manifest, Mode},
    config::InForce,
    digest::Sha256,
    name::Environment,
    time::UnixMs,
    trust::{
        APPROVAL, AppTrust, CoordinatorPin, Envelope, Gate, GateRule, Key, OrderingNumber, Predicate,
        Published, RoleKeys, STATEMENT_TYPE, Scheme, Separation, SigningKey, Statement, Subject, TrustRoot,
    },
};
use consign_proto::v1;
use serde_json::json;

use super::{
    approval::{self, Terms},
    evidence::{self, Facts},
    papers::{self, Papers, prove},
    text::{Files, text},
};
use crate::cli::{failure::Exit, output::Evidence};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const TESTED: &str = "https://in-toto.io/attestation/test-result/v0.1";
const HOUR: Duration = Duration::from_secs(3600);

/// A trust root with a publisher, two product owners and QA; production asks for one approval and passed tests.
struct People {
    ci: SigningKey,
    pat: SigningKey,
    quinn: SigningKey,
    root: TrustRoot,
}

impl People {
    fn new() -> Self {
        let [ci, pat, quinn] = std::array::from_fn(|_| SigningKey::generate().unwrap());
        let mut keys = BTreeMap::new();
        for (key, owner) in [(&ci, "ci"), (&pat, "pat"), (&quinn, "quinn")] {
            let public = key.public();
            let scheme = Scheme::Ed25519;
            keys.insert(
                public.id(),
                Key { scheme, public: public.to_base64(), owner: owner.parse().unwrap() },
            );
        }
        let role = |key: &SigningKey| RoleKeys { keys: vec![key.public().id()], threshold: 1 };
        let rule = |predicate: &str, role: &str, condition: Option<&str>| GateRule {
            predicate: predicate.to_owned(),
            role: role.parse().unwrap(),
            threshold: 1,
            condition: condition.map(ToOwned::to_owned),
        };
        let gate = Gate::Statements {
            require: vec![
                rule(TESTED, "qa", Some("predicate.result == 'PASSED'")),
                rule(APPROVAL, "product-owners", None),
            ],
            rearm: vec![rule(APPROVAL, "product-owners", None)],
            separation: Separation::Publisher,
        };
        let publishers = role(&ci);
        let trust = AppTrust { publishers, epoch: 0, floor: OrderingNumber::default(), config: None };
        let root = TrustRoot {
            version: 3,
            issued: UnixMs(0),
            expires: NOW.plus(HOUR * 10_000),
            keys,
            root: role(&pat),
            roles: [("qa".parse().unwrap(), role(&quinn)), ("product-owners".parse().unwrap(), role(&pat))]
                .into(),
            apps: [("shop".parse().unwrap(), trust)].into(),
            environments: [
                ("production".parse().unwrap(), gate),
                ("staging".parse().unwrap(), Gate::PublisherOnly {}),
            ]
            .into(),
            coordinators: vec![CoordinatorPin { id: "main".into(), ca_sha256: Sha256::of(b"ca") }],
            revoked: vec![],
            enrolment: None,
        };
        Self { ci, pat, quinn, root }
    }

    fn publish(&self, manifest: &Manifest, ago: Duration) -> v1::Statement {
        let Manifest { app, version, platform, .. } = manifest.clone();
        let ms = UnixMs(NOW.0 - u64::try_from(ago.as_millis()).unwrap());
        let number = OrderingNumber { epoch: 0, ms };
        let predicate = Predicate::Published(Published { app, version, platform, number });
        signed(manifest, predicate, &self.ci, ms)
    }

    fn tested(&self, manifest: &Manifest, result: &str, key: &SigningKey) -> v1::Statement {
        let value = json!({ "result": result, "configuration": [] });
        let predicate = Predicate::Foreign { predicate_type: TESTED.to_owned(), value };
        signed(manifest, predicate, key, UnixMs(NOW.0 - 3_600_000))
    }

    fn papers(&self, manifest: &Manifest, statements: Vec<v1::Statement>) -> Papers {
        prove(manifest.to_bytes(), manifest.digest(), statements, &self.root).unwrap()
    }
}

fn signed(manifest: &Manifest, predicate: Predicate, key: &SigningKey, at: UnixMs) -> v1::Statement {
    let subject = Subject { name: "shop".into(), sha256: manifest.digest() };
    let statement = Statement { subject, predicate };
    v1::Statement {
        predicate: statement.predicate.type_name().to_owned(),
        envelope: Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec().into(),
        added_ms: at.0,
        ..Default::default()
    }
}

fn manifest(version: &str, migration: &str, files: u32) -> Manifest {
    let file = |path: String, content: &str| Entry {
        path,
        kind: EntryKind::File {
            mode: Mode::Plain,
            size: content.len() as u64,
            sha256: Sha256::of(content.as_bytes()),
        },
    };
    let mut entries =
        vec![Entry { path: "app".into(), kind: EntryKind::Dir }, file("app/main".into(), version)];
    entries.extend((0..files).map(|n| file(format!("app/view-{n:02}.html"), "view")));
    Manifest {
        format: "consign-manifest-v1".into(),
        app: "shop".parse().unwrap(),
        version: version.parse().unwrap(),
        platform: None,
        plan: format!(
            "app = \"shop\"\n[[step]]\nname = \"migrate\"\nrun = [\"bin/migrate\", \"{migration}\"]\n\
             [[step]]\nname = \"activate\"\nactivate = true\n"
        ),
        entries,
    }
}

fn server(name: &str, runs: Option<&Manifest>) -> v1::Server {
    let app = runs.map(|manifest| v1::AppState {
        app: "shop".into(),
        good: manifest.digest().to_string(),
        good_version: manifest.version.to_string(),
        ..Default::default()
    });
    v1::Server { name: name.into(), apps: app.into_iter().collect(), ..Default::default() }
}

fn rollout(
    environment: &str,
    of: &Manifest,
    kind: &str,
    state: &str,
    servers: &[(&str, &str)],
) -> v1::Rollout {
    let deployment = |(server, state): &(&str, &str)| v1::Deployment {
        server: (*server).to_owned(),
        state: (*state).to_owned(),
        ..Default::default()
    };
    v1::Rollout {
        id: "0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d".into(),
        kind: kind.into(),
        environment: environment.into(),
        version: of.version.to_string(),
        digest: of.digest().to_string(),
        state: state.into(),
        started_ms: NOW.0 - 7_300_000,
        ended_ms: NOW.0 - 7_200_000,
        deployments: servers.iter().map(deployment).collect(),
        ..Default::default()
    }
}

fn plan(of: &Manifest) -> v1::Plan {
    let step = |name: &str, decision: &str, because: &str| v1::PlannedStep {
        name: name.into(),
        kind: "run".into(),
        decision: decision.into(),
        because: because.into(),
    };
    let held = |name: &str| v1::PlannedServer {
        server: name.into(),
        state: "planned".into(),
        code: "approval-missing".into(),
        because: "production takes what 1 of product-owners have approved, and 0 have".into(),
        steps: vec![
            step("migrate", "skip", "changed('migrations/**') is false"),
            step("activate", "run", ""),
        ],
    };
    let away = v1::PlannedServer {
        server: "web-3".into(),
        state: "not-connected".into(),
        because: "it is not connected".into(),
        ..Default::default()
    };
    v1::Plan {
        artifact: of.digest().to_string(),
        servers: vec![held("web-1"), held("web-2"), away],
        ..Default::default()
    }
}

/// All that somebody is shown who is to approve 1.4.0.
fn shown(people: &People, statements: Vec<v1::Statement>) -> Evidence {
    let (old, new) = (manifest("1.3.0", "up", 30), manifest("1.4.0", "all", 12));
    let mut all = vec![people.publish(&new, HOUR * 3)];
    all.extend(statements);
    let papers = people.papers(&new, all);
    let before = people.papers(&old, vec![people.publish(&old, HOUR * 100)]);
    let production: Environment = "production".parse().unwrap();
    evidence::assemble(Facts {
        root: &people.root,
        environment: &production,
        papers: &papers,
        servers: &[server("web-1", Some(&old)), server("web-2", Some(&old)), server("web-3", None)],
        others: &BTreeMap::from([(old.digest().to_string(), Ok(before))]),
        rollouts: &[
            rollout(
                "staging",
                &new,
                "deploy",
                "succeeded",
                &[("stage-1", "succeeded"), ("stage-2", "no-op")],
            ),
            rollout(
                "production",
                &old,
                "return",
                "succeeded",
                &[("web-1", "succeeded"), ("web-2", "failed")],
            ),
        ],
        plan: Ok(plan(&new)),
        now: NOW,
    })
    .unwrap()
}

#[test]
fn eighty_columns_are_enough() {
    let people = People::new();
    let (new, stranger) = (manifest("1.4.0", "all", 12), SigningKey::generate().unwrap());
    let evidence = shown(
        &people,
        vec![people.tested(&new, "PASSED", &people.quinn), people.tested(&new, "PASSED", &stranger)],
    );
    let text = text(&evidence, Files::Some, NOW);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn what_nobody_signed_is_told_and_what_is_signed_names_its_signer() {
    let people = People::new();
    let (new, stranger) = (manifest("1.4.0", "all", 12), SigningKey::generate().unwrap());
    let evidence = shown(
        &people,
        vec![people.tested(&new, "FAILED", &people.quinn), people.tested(&new, "PASSED", &stranger)],
    );
    let marks: Vec<_> = evidence
        .statements
        .iter()
        .map(|line| (line.proof.mark, line.result.as_str(), line.proof.by.len()))
        .collect();
    // What a stranger signed is not even read: its result is nobody's.
    assert_eq!(marks, [("proven", "FAILED", 1), ("told", "", 0)]);
    assert_eq!(evidence.published.by, ["ci"]);
    assert!(evidence.rollouts.iter().all(|line| !line.proof.is_proven()));
    // The rules by our own trust root: a failed test does not count.
    let [tests, approval, rearm] = evidence.gate.as_slice() else { panic!("{:?}", evidence.gate) };
    assert_eq!((tests.missing, tests.uncounted.len()), (1, 1));
    assert!(tests.uncounted[0].contains("quinn") && tests.uncounted[0].contains("where"), "{tests:?}");
    assert_eq!(approval.next, "consign approve shop@1.4.0 --env production");
    assert_eq!((approval.part, rearm.part, rearm.missing), ("require", "rearm", 0));
    let [running, nothing] = evidence.running.as_slice() else { panic!("{:?}", evidence.running) };
    assert_eq!((running.version.as_str(), running.servers.len()), ("1.3.0", 2));
    assert_eq!(running.files.removed.len(), 18);
    assert_eq!(running.files.changed, ["app/main"]);
    assert_eq!((nothing.digest.as_str(), nothing.files.added.len()), ("", 13));
    let returned = evidence.returned.unwrap();
    assert_eq!((returned.servers.as_slice(), returned.from.as_str()), (&["web-1".to_owned()][..], "1.3.0"));
}

#[test]
fn a_coordinator_that_lies_about_the_artifact_is_refused() {
    let people = People::new();
    let (new, other) = (manifest("1.4.0", "all", 12), manifest("1.4.0", "none", 12));
    let published = || vec![people.publish(&new, HOUR)];
    let lies: [(&str, Vec<u8>, Sha256, Vec<v1::Statement>); 5] = [
        ("other bytes under the digest", other.to_bytes(), new.digest(), published()),
        ("other bytes under their own digest", other.to_bytes(), other.digest(), published()),
        ("nobody published it", new.to_bytes(), new.digest(), vec![]),
        ("no manifest at all", b"{}".to_vec(), Sha256::of(b"{}"), published()),
        (
            "published by somebody else",
            new.to_bytes(),
            new.digest(),
            vec![People { ci: SigningKey::generate().unwrap(), ..People::new() }.publish(&new, HOUR)],
        ),
    ];
    for (what, bytes, told, statements) in lies {
        let failure = prove(bytes, told, statements, &people.root).expect_err(what);
        assert_eq!(failure.exit, Exit::Refused, "{what}");
        assert!(failure.what.contains("not to be believed"), "{what}: {failure}");
    }
    assert!(prove(new.to_bytes(), new.digest(), published(), &people.root).is_ok());
}

#[test]
fn an_approval_is_bound_to_what_was_shown() {
    let people = People::new();
    let new = manifest("1.4.0", "all", 12);
    let papers = people.papers(&new, vec![people.publish(&new, HOUR)]);
    let production: Environment = "production".parse().unwrap();
    let document = approval::plan_document(&plan(&new), new.digest(), &InForce::default()).unwrap();
    assert_eq!(document.servers.len(), 2, "what is not connected said nothing");
    let told = v1::Plan { digest: document.digest().to_string(), ..plan(&new) };
    assert!(approval::plan_document(&told, new.digest(), &InForce::default()).is_ok());
    let lie = v1::Plan { digest: Sha256::of(b"other").to_string(), ..plan(&new) };
    assert_eq!(
        approval::plan_document(&lie, new.digest(), &InForce::default()).unwrap_err().exit,
        Exit::Refused
    );

    let terms = Terms {
        start_by: HOUR,
        converge_until: HOUR * 24,
        plan: Some(document.digest()),
        reason: Some("release 12".into()),
    };
    let statement = approval::statement(&papers, &people.root, &production, &InForce::default(), &terms, NOW);
    assert_eq!(statement.subject.sha256, new.digest());
    let Predicate::Approval(approval) = statement.predicate else { panic!("no approval") };
    assert_eq!((approval.start_by, approval.converge_until), (NOW.plus(HOUR), NOW.plus(HOUR * 24)));
    assert_eq!((approval.plan_sha256, approval.config_sha256), (Some(document.digest()), None));
}

#[test]
fn only_those_whom_the_gate_asks_approve() {
    let people = People::new();
    let check = |environment: &str, key: &SigningKey| {
        approval::check_role(&people.root, &environment.parse().unwrap(), key.public().id())
    };
    check("production", &people.pat).unwrap();
    for (environment, key, words) in [
        ("production", &people.ci, "by ci does not count"),
        ("production", &SigningKey::generate().unwrap(), "nobody whom the trust root names"),
        ("staging", &people.pat, "no gate of staging"),
        ("elsewhere", &people.pat, "does not name the environment"),
    ] {
        let failure = check(environment, key).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.what.contains(words), "{failure}");
    }
    assert_eq!(papers::statement_of(b"no envelope"), Sha256::of(b"no envelope"));
}

/// Pat is told which of her keys, and not that pat may approve where pat may not.
#[test]
fn another_key_of_who_may_approve_is_told_from_the_right_one() {
    let mut people = People::new();
    let id = |key: &SigningKey| key.public().id();
    let other = SigningKey::generate().unwrap();
    let owner = people.root.keys[&id(&people.pat)].owner.clone();
    let key = Key { scheme: Scheme::Ed25519, public: other.public().to_base64(), owner };
    people.root.keys.insert(id(&other), key);
    let failure = approval::check_role(&people.root, &"production".parse().unwrap(), id(&other)).unwrap_err();
    let first = |key: &SigningKey| id(key).to_string()[..12].to_owned();
    assert!(
        failure.what.ends_with(&format!("by pat with the key {} does not count", first(&other))),
        "{failure}"
    );
    let next = failure.next.unwrap();
    assert!(next.contains(&format!("pat may approve with the key {}", first(&people.pat))), "{next}");
}
