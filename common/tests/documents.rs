//! Golden files of the documents that coordinator, agent and operator exchange. Each is written here from values, must
//! have exactly the bytes of its file, and must be read back to the same values. A change that alters a file is a new
//! format with a new name; `UPDATE_GOLDEN=1` writes the files for a format that is new.

#![expect(clippy::unwrap_used, reason = "all of this file is tests and their helpers")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    audit::{About, Entry, Head, Outcome, Who},
    deployment::{Attempt, DeploymentOutcome, Event, Failure, Leftover, StepOutcome, StepSummary},
    digest::Sha256,
    json,
    limits::{AUDIT_ENTRY_BYTES, ENVELOPE_BYTES, EVENT_BYTES, TRUST_ROOT_BYTES},
    name::Id,
    plan::{Phase, Plan},
    time::UnixMs,
    trust::{
        AppTrust, Approval, Commitment, Config, ConfigValue, CoordinatorPin, Decision, DecisionAction,
        Enrolled, Envelope, Foreseen, Gate, GateRule, JoinRole, JoinToken, Key, KeyFile, OnceWord, Order,
        OrderKind, OrderingNumber, Predicate, Published, Receipt, ReceiptKey, RoleKeys, STATEMENT_TYPE,
        Scheme, Separation, SigningKey, Statement, StepReceipt, Subject, TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE,
        TrustRoot, TrustRootPin,
    },
};
use ring::signature::{Ed25519KeyPair, KeyPair};

const SIGNED: UnixMs = UnixMs(1_767_225_600_000);

/// The bytes of the golden file, which must be those that are given.
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let expected = fs::read(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(&expected), "{name}");
}

/// The key of this seed, in PKCS#8 v2 as ring writes it. Ed25519 is deterministic, and so are the signed files.
fn key(seed: u8) -> SigningKey {
    let seed = [seed; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let mut pkcs8 =
        vec![0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend(seed);
    pkcs8.extend([0x81, 0x21, 0x00]);
    pkcs8.extend(pair.public_key().as_ref());
    SigningKey::from_pkcs8(&pkcs8).unwrap()
}

fn owner() -> SigningKey {
    key(1)
}

fn publisher() -> SigningKey {
    key(2)
}

fn id(seed: u8) -> Id {
    Id::from_bytes([seed; 16])
}

fn manifest() -> Sha256 {
    Sha256::of(b"the bytes of a manifest")
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn number() -> OrderingNumber {
    OrderingNumber { epoch: 1, ms: SIGNED }
}

fn about(sha256: Sha256, called: &str, predicate: Predicate) -> Statement {
    Statement { subject: Subject { name: called.into(), sha256 }, predicate }
}

fn published() -> Statement {
    let predicate = Published {
        app: name("shop"),
        version: name("1.2.0"),
        platform: Some(name("linux-x86_64")),
        number: number(),
    };
    about(manifest(), "shop@1.2.0", Predicate::Published(predicate))
}

#[test]
fn statements() {
    let approval = Approval {
        app: name("shop"),
        environment: name("production"),
        number: number(),
        start_by: UnixMs(SIGNED.0 + 86_400_000),
        converge_until: UnixMs(SIGNED.0 + 2_592_000_000),
        config_sha256: Some(Sha256::of(b"values")),
        plan_sha256: Some(Sha256::of(b"plan")),
        reason: Some("change 4711".into()),
    };
    let config = Config {
        app: name("shop"),
        environment: name("production"),
        sequence: 12,
        values: BTreeMap::from([
            (name("banner"), ConfigValue::String("spring sale".into())),
            (name("debug"), ConfigValue::Bool(false)),
            (
                name("password"),
                ConfigValue::Commitment(Commitment { commitment: Sha256::of(b"salt and value") }),
            ),
            (name("workers"), ConfigValue::Int(8)),
        ]),
    };
    let enrolled = Enrolled {
        server: name("web-1"),
        environment: name("production"),
        at: SIGNED,
        sealing_key: Some(STANDARD.encode([9; 32])),
    };
    let decision = Decision {
        environment: name("production"),
        rollout: id(2),
        server: Some(name("web-1")),
        step: name("migrate"),
        action: DecisionAction::Done,
        at: SIGNED,
        reason: "done by hand".into(),
    };
    let test_result = Predicate::Foreign {
        predicate_type: "https://in-toto.io/attestation/test-result/v0.1".into(),
        value: serde_json::json!({ "result": "PASSED" }),
    };
    for (file, statement) in [
        ("statement-published.json", published()),
        ("statement-approval.json", about(manifest(), "shop@1.2.0", Predicate::Approval(approval))),
        ("statement-config.json", about(Sha256::of(b"values"), "values", Predicate::Config(config))),
        ("statement-enrolled.json", about(Sha256::of(b"spki"), "web-1", Predicate::Enrolled(enrolled))),
        ("statement-decision.json", about(manifest(), "shop@1.2.0", Predicate::Decision(decision))),
        ("statement-test-result.json", about(manifest(), "shop@1.2.0", test_result)),
    ] {
        let payload = statement.to_payload();
        golden(file, &payload);
        assert_eq!(Statement::parse(&payload), Ok(statement));
    }
}

#[test]
fn envelope() {
    let bytes = Envelope::sign(STATEMENT_TYPE, published().to_payload(), &[&publisher()]).to_vec();
    golden("envelope.json", &bytes);
    let envelope = Envelope::parse(&bytes, ENVELOPE_BYTES).unwrap();
    assert_eq!(envelope.to_vec(), bytes);
    let root = trust_root();
    let app = root.apps.values().next().unwrap();
    let payload = envelope.verified_by("publication", &app.publishers, &root.keys).unwrap();
    assert_eq!(Statement::parse(payload), Ok(published()));
}

fn trust_root() -> TrustRoot {
    let entry = |key: &SigningKey, owner: &str| {
        let public = key.public();
        (public.id(), Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: name(owner) })
    };
    let only = |key: &SigningKey| RoleKeys { keys: vec![key.public().id()], threshold: 1 };
    let rule = |predicate: &str, role: &str, condition: Option<&str>| GateRule {
        predicate: predicate.into(),
        role: name(role),
        threshold: 1,
        condition: condition.map(Into::into),
    };
    let gate = Gate::Statements {
        require: vec![
            rule("consign:approval/v1", "product-owners", None),
            rule(
                "https://in-toto.io/attestation/test-result/v0.1",
                "qa",
                Some("predicate.result == 'PASSED'"),
            ),
        ],
        rearm: vec![rule("consign:approval/v1", "product-owners", None)],
        separation: Separation::None,
    };
    TrustRoot {
        version: 1,
        issued: SIGNED,
        expires: UnixMs(SIGNED.0 + 31_536_000_000),
        keys: BTreeMap::from([entry(&owner(), "alice"), entry(&publisher(), "ci")]),
        root: only(&owner()),
        roles: BTreeMap::from([(name("product-owners"), only(&owner())), (name("qa"), only(&publisher()))]),
        apps: BTreeMap::from([(
            name("shop"),
            AppTrust {
                publishers: only(&publisher()),
                epoch: 1,
                floor: OrderingNumber { epoch: 1, ms: UnixMs(0) },
                config: None,
            },
        )]),
        environments: BTreeMap::from([(name("staging"), Gate::PublisherOnly {}), (name("production"), gate)]),
        coordinators: vec![CoordinatorPin { id: id(7).to_string(), ca_sha256: Sha256::of(b"ca") }],
        revoked: vec![Sha256::of(b"a bad artifact")],
        enrolment: None,
    }
}

/// What version 1 has no field for.
fn trust_root_v2() -> TrustRoot {
    let mut root = trust_root();
    if let Some(key) = root.keys.get_mut(&owner().public().id()) {
        key.scheme = Scheme::Sshsig;
    }
    if let Some(Gate::Statements { separation, .. }) = root.environments.get_mut("production") {
        *separation = Separation::All;
    }
    if let Some(app) = root.apps.get_mut("shop") {
        app.config = Some(name("product-owners"));
    }
    root.enrolment = Some(root.root.clone());
    root
}

#[test]
fn trust_roots() {
    let root = trust_root();
    root.check().unwrap();
    golden("trust-root.json", &root.to_payload());
    assert_eq!(json::from_slice::<TrustRoot>(&root.to_payload(), TRUST_ROOT_BYTES).unwrap(), root);
    let envelope = Envelope::sign(TRUST_ROOT_TYPE, root.to_payload(), &[&owner()]).to_vec();
    golden("trust-root-envelope.json", &envelope);
    let pin = TrustRoot::pin(&envelope).unwrap();
    assert_eq!(pin, Sha256::of(&root.to_payload()));
    assert_eq!(TrustRoot::open_pinned(&envelope, pin), Ok(root));

    let root = trust_root_v2();
    root.check().unwrap();
    assert_eq!(root.payload_type(), TRUST_ROOT_V2_TYPE);
    golden("trust-root-v2.json", &root.to_payload());
}

#[test]
fn orders() {
    let kinds = [
        ("deploy", OrderKind::deploy(manifest(), false)),
        (
            "deploy-pinned",
            OrderKind::Deploy {
                manifest: manifest(),
                force: true,
                skip: vec![name("warm_up")],
                plan: BTreeMap::from([(name("migrate"), Foreseen::Skip), (name("activate"), Foreseen::Run)]),
                confirm_ms: Some(60_000),
                converge: false,
            },
        ),
        ("return", OrderKind::back(manifest(), "rollback by alice")),
        ("cancel", OrderKind::Cancel { reason: "aborted by alice".into() }),
        ("confirm", OrderKind::Confirm {}),
        (
            "decide",
            OrderKind::Decide {
                step: name("migrate"),
                action: DecisionAction::Again,
                reason: "it was the network".into(),
            },
        ),
        ("once-run", OrderKind::Once { step: name("migrate"), word: OnceWord::Run {} }),
        (
            "once-done",
            OrderKind::Once { step: name("migrate"), word: OnceWord::Done { server: name("web-2") } },
        ),
        (
            "once-failed",
            OrderKind::Once {
                step: name("migrate"),
                word: OnceWord::Failed { server: name("web-2"), because: "exit code 2".into() },
            },
        ),
    ];
    for (file, order) in kinds {
        let order = Order {
            format: "consign-order-v1".into(),
            id: id(1),
            coordinator: id(7).to_string(),
            server: name("web-1"),
            environment: name("production"),
            app: name("shop"),
            rollout: id(2),
            deployment: id(3),
            term: 4,
            issued: SIGNED,
            order,
        };
        golden(&format!("order-{file}.json"), &order.to_vec());
        assert_eq!(Order::parse(&order.to_vec()), Ok(order));
    }
}

#[test]
fn audit_entry() {
    let entry = Entry {
        format: "consign-audit-v1".into(),
        sequence: 2,
        at: UnixMs(1_767_225_600_000),
        who: Who { identity: "ada".into(), role: "deployer".into() },
        from: "192.0.2.7:50312".into(),
        what: "rollout start".into(),
        about: [
            (About::App, "shop".into()),
            (About::Environment, "production".into()),
            (About::Rollout, "02020202020202020202020202020202".into()),
        ]
        .into(),
        reason: "spring sale".into(),
        documents: vec![Sha256::of(b"a manifest")],
        outcome: Outcome::Refused {
            code: "approval-missing".into(),
            message: "approval-missing: one of product-owners has to approve".into(),
        },
    };
    let bytes = json::to_vec(&entry);
    golden("audit-entry.json", &bytes);
    assert_eq!(json::from_slice_exact::<Entry>(&bytes, AUDIT_ENTRY_BYTES).unwrap(), entry);
    let first = Head::START.with(b"the entry before");
    let chain = format!("{}\n{}\n", first.hash, first.with(&bytes).hash);
    golden("audit-chain.txt", chain.as_bytes());
}

#[test]
fn receipt_key() {
    let (identity, key) = (key(3), key(4));
    let envelope = ReceiptKey::endorse(&name("web-1"), &identity, &key.public());
    golden("receipt-key.json", &envelope.to_vec());
    assert_eq!(ReceiptKey::open(&envelope.to_vec()).unwrap().key, key.public());
}

#[test]
fn receipt() {
    let step = |step: &str, attempts, result| StepReceipt {
        name: name(step),
        phase: Phase::Deploy,
        attempts,
        result,
        log_sha256: Sha256::of(b""),
        log_length: 0,
    };
    let skipped = StepOutcome::Skipped {
        expression: "changed('migrations/**')".into(),
        inputs: BTreeMap::from([("changed('migrations/**')".into(), "false".into())]),
    };
    let receipt = Receipt {
        format: "consign-receipt-v1".into(),
        server: name("web-1"),
        environment: name("production"),
        order: id(1),
        rollout: id(2),
        deployment: id(3),
        app: name("shop"),
        manifest: manifest(),
        result: DeploymentOutcome::Returned { because: "step healthy failed".into() },
        steps: vec![
            step("migrate", 0, skipped),
            step("restart", 1, StepOutcome::Succeeded),
            step("healthy", 2, StepOutcome::Failed { failure: Failure::Exit { code: 1 } }),
        ],
        started: SIGNED,
        ended: UnixMs(SIGNED.0 + 61_000),
        boot_id: "5f8b8e3a-3f5c-4c1e-9b0a-1d2e3f405162".into(),
    };
    let bytes = json::to_vec(&receipt);
    golden("receipt.json", &bytes);
    assert_eq!(json::from_slice::<Receipt>(&bytes, EVENT_BYTES).unwrap(), receipt);
}

#[test]
fn token() {
    let token = |role| JoinToken {
        enrolment: vec!["deploy.example:7444".into()],
        addresses: vec!["deploy.example:7443".into()],
        coordinator: id(7).to_string(),
        ca_sha256: Sha256::of(b"ca"),
        trust_root: TrustRootPin { version: 1, sha256: Sha256::of(&trust_root().to_payload()) },
        id: id(8).to_string(),
        secret: STANDARD.encode([5; 32]),
        name: name("web-1"),
        role,
    };
    let agent = token(JoinRole::Agent { environment: name("production") });
    let operator = token(JoinRole::Operator { role: "deployer".into() });
    for (file, token) in [("token-agent.txt", agent), ("token-operator.txt", operator)] {
        let text = token.to_text().unwrap();
        golden(file, text.as_bytes());
        assert_eq!(JoinToken::parse(&text), Ok(token));
    }
}

#[test]
fn key_file() {
    let file = KeyFile::new(name("alice"), &owner());
    golden("key.json", &json::to_vec(&file));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/key.json");
    let (read, key) = KeyFile::read(&path).unwrap();
    assert_eq!((read, key.public()), (file, owner().public()));
}

#[test]
fn events() {
    let attempt = Attempt { phase: Phase::Deploy, step: 3, number: 1 };
    let steps = || vec![StepSummary { name: name("migrate"), kind: "run".into() }];
    let finished =
        |result| Event::Finished { attempt, result, log_length: 4096, duration_ms: 1500, leftovers: vec![] };
    let failed = |failure| finished(StepOutcome::Failed { failure });
    let ended = |result| Event::Ended { result };
    let because = || "what it was".to_owned();
    let inputs = || BTreeMap::from([("previous.version".to_owned(), "1.1.0".to_owned())]);
    let expression = || "previous.version != \"1.1.0\"".to_owned();
    let events = [
        Event::Accepted {
            order: id(1),
            app: name("shop"),
            version: name("1.2.0"),
            digest: manifest(),
            previous: Some(name("1.1.0")),
            steps: steps(),
        },
        Event::Accepted {
            order: id(1),
            app: name("shop"),
            version: name("1.2.0"),
            digest: manifest(),
            previous: None,
            steps: vec![],
        },
        Event::Staging { fetched: 1024, total: 4096 },
        Event::Staged { release: "1.2.0-0123456789ab".into(), reused_bytes: 10, fetched_bytes: 20 },
        Event::Skipped { phase: Phase::Return, step: 0, expression: expression(), inputs: inputs() },
        Event::Started { attempt, boot_id: "5f8b8e3a-3f5c-4c1e-9b0a-1d2e3f405162".into() },
        Event::Spawned { attempt, pid: 4711, start_ticks: 123_456, cgroup: Some("/consign.slice/x".into()) },
        Event::Spawned { attempt, pid: 4711, start_ticks: 123_456, cgroup: None },
        Event::Finished {
            attempt,
            result: StepOutcome::Succeeded,
            log_length: 4096,
            duration_ms: 1500,
            leftovers: vec![Leftover { pid: 4712, command: "bin/server".into() }],
        },
        finished(StepOutcome::Skipped { expression: expression(), inputs: inputs() }),
        finished(StepOutcome::Unknown { because: because() }),
        finished(StepOutcome::Cancelled),
        failed(Failure::Exit { code: 2 }),
        failed(Failure::Signal { signal: 11, core_dumped: true }),
        failed(Failure::Timeout { after_ms: 600_000 }),
        failed(Failure::Exec { message: because() }),
        failed(Failure::OutOfMemory),
        failed(Failure::Condition { message: because() }),
        failed(Failure::Check { message: because() }),
        failed(Failure::PlanDrift { message: because() }),
        failed(Failure::Elsewhere { message: because() }),
        failed(Failure::Decided { message: because() }),
        Event::Returning { because: because(), digest: manifest(), version: name("1.1.0"), steps: steps() },
        Event::Awaiting { step: 2 },
        Event::Answered { order: id(4), step: 2, word: OnceWord::Run {} },
        Event::Answered { order: id(4), step: 2, word: OnceWord::Done { server: name("web-2") } },
        Event::Answered {
            order: id(4),
            step: 2,
            word: OnceWord::Failed { server: name("web-2"), because: because() },
        },
        Event::Undecided { phase: Phase::Deploy, step: 3, because: because() },
        Event::Decided {
            order: id(4),
            phase: Phase::Deploy,
            step: 3,
            action: DecisionAction::Done,
            reason: because(),
        },
        Event::Confirming { boot_id: "b".into(), deadline_boot_ms: 300_000, deadline: SIGNED },
        Event::Confirmed { order: id(4) },
        Event::Unconfirmed { because: because() },
        Event::Cancelling { order: id(4), because: because() },
        ended(DeploymentOutcome::Succeeded { tolerated: vec!["warm_up".into()] }),
        ended(DeploymentOutcome::NoOp),
        ended(DeploymentOutcome::Failed { because: because() }),
        ended(DeploymentOutcome::Returned { because: because() }),
        ended(DeploymentOutcome::Stopped { because: because() }),
        ended(DeploymentOutcome::Unknown { step: "migrate".into(), because: because() }),
        ended(DeploymentOutcome::Cancelled { because: because() }),
        ended(DeploymentOutcome::Refused { code: "older".into(), message: because() }),
    ];
    let mut lines = Vec::new();
    for event in events {
        let bytes = json::to_vec(&event);
        assert_eq!(json::from_slice::<Event>(&bytes, EVENT_BYTES).unwrap(), event);
        lines.extend(bytes);
        lines.push(b'\n');
    }
    golden("events.jsonl", &lines);
}

/// The plan is written by people, so here the file is given, and what it means is what must not change.
#[test]
fn plan() {
    let text = include_str!("golden/plan.toml");
    let plan = Plan::parse(text, "consign.toml").unwrap();
    let mut meaning = format!("{:#?}\n", plan);
    // A condition's text is its meaning; how it is held is not.
    for step in &plan.steps {
        if let Some(condition) = &step.when {
            let held = format!("{condition:#?}");
            let indented = held.replace('\n', "\n                ");
            meaning = meaning.replace(&indented, &format!("{:?}", condition.text()));
        }
    }
    golden("plan.txt", meaning.as_bytes());
}
