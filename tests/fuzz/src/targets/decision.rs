//! The whole decision over orders that nobody trusts, beside documents that are well signed.

use std::{collections::BTreeMap, sync::LazyLock};

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    name::Id,
    time::UnixMs,
    trust::{
        Allowance, Approval, DecisionAction, Order, OrderKind, Predicate, Privilege, Published,
        STATEMENT_TYPE, ServersWord, SigningKey, Statement, Subject,
        authorize::{
            Deciding, Documents, Host, Installed, Intent, Memory, authorize, authorize_approach,
            authorize_control,
        },
    },
};
use serde_json::json;

use super::{
    JSON_WORDS, Seen, Target, must, reached, refused,
    world::{COORDINATOR, NOW, OWNERS, Owners, ROOT, name, number, signed},
};

pub(super) const DECISION: Target = Target {
    name: "decision",
    about: "the decision: an order chooses among what was signed for its environment, and leaves out nothing that people must sign",
    golden: &["order-cancel.json", "order-deploy-pinned.json", "order-return.json", "order-decide.json"],
    more: orders,
    words: JSON_WORDS,
    most_bytes: 16 << 10,
    stages: &["read", "for this server", "let into staging", "let into production", "a word that counts"],
    in_test: 3_000,
    check: decision,
};

pub(super) struct World {
    pub(super) manifest: Vec<u8>,
    pub(super) digest: Sha256,
    publication: Vec<u8>,
    /// What `production` asks for beside it.
    approvals: Vec<Vec<u8>>,
}

pub(super) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let manifest = Manifest {
        format: "consign-manifest-v1".into(),
        app: name("shop"),
        version: name("1.2.0"),
        platform: None,
        plan: "app = \"shop\"\n[[step]]\nname = \"one\"\nrun = [\"a\"]\nuser = \"shop\"\n[params.size]\ntype = \"int\"\ndefault = 1\n[[step]]\nname = \"activate\"\nactivate = true\n".into(),
        entries: Vec::new(),
    };
    let digest = manifest.digest();
    let Owners { alice, ci, .. } = &*OWNERS;
    let by = |key: &SigningKey, predicate| {
        let statement = Statement { subject: Subject { name: "shop".into(), sha256: digest }, predicate };
        signed(STATEMENT_TYPE, &statement.to_payload(), &[key]).to_vec()
    };
    let published =
        Published { app: name("shop"), version: name("1.2.0"), platform: None, number: number(NOW.0 - 1000) };
    let approval = Approval {
        app: name("shop"),
        environment: name("production"),
        number: number(NOW.0 - 500),
        start_by: UnixMs(NOW.0 + 1000),
        converge_until: UnixMs(NOW.0 + 1000),
        config_sha256: None,
        plan_sha256: None,
        reason: None,
    };
    let result = Predicate::Foreign {
        predicate_type: "https://in-toto.io/attestation/test-result/v0.1".into(),
        value: json!({"result": "PASSED"}),
    };
    World {
        manifest: manifest.to_bytes(),
        digest,
        publication: by(ci, Predicate::Published(published)),
        approvals: vec![by(alice, Predicate::Approval(approval)), by(ci, result)],
    }
});

fn orders() -> Vec<Vec<u8>> {
    let skip = vec![name("one")];
    let mut kinds = vec![
        OrderKind::deploy(WORLD.digest, false),
        OrderKind::deploy(WORLD.digest, true),
        OrderKind::deploy(Sha256::of(b"another"), false),
        OrderKind::back(WORLD.digest, "it is broken"),
        OrderKind::Return { manifest: WORLD.digest, reason: "it is broken".into(), skip: skip.clone() },
        OrderKind::Decide { step: name("one"), action: DecisionAction::Skip, reason: "it hangs".into() },
        OrderKind::Confirm {},
    ];
    if let OrderKind::Deploy { manifest, .. } = OrderKind::deploy(WORLD.digest, false) {
        let plan = BTreeMap::from([(name("one"), consign_common::trust::Foreseen::Run)]);
        kinds.push(OrderKind::Deploy {
            manifest,
            force: false,
            skip,
            plan,
            confirm_ms: Some(1),
            converge: true,
        });
    }
    let mut seeds = Vec::new();
    for environment in ["staging", "production", "vault"] {
        for kind in &kinds {
            let order = Order {
                format: "consign-order-v1".into(),
                id: Id::from_bytes([1; 16]),
                coordinator: COORDINATOR.into(),
                server: name("web-1"),
                environment: name(environment),
                app: name("shop"),
                rollout: Id::from_bytes([2; 16]),
                deployment: Id::from_bytes([3; 16]),
                term: 7,
                issued: NOW,
                order: kind.clone(),
            };
            seeds.push(order.to_vec());
        }
    }
    seeds
}

/// What came with the order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Nothing,
    Publication,
    All,
}

fn decision(bytes: &[u8]) -> Result<Seen, String> {
    let order = match Order::parse(bytes) {
        Ok(order) => order,
        Err(refusal) => return refused(&refusal),
    };
    reached("read");
    let mut shape = String::new();
    for environment in ["staging", "production", "vault"] {
        for came in [Came::Nothing, Came::Publication, Came::All] {
            shape.push_str(&decided(&order, environment, came)?);
            shape.push(' ');
        }
    }
    Ok(Seen::Accepted(shape))
}

fn decided(order: &Order, environment: &str, came: Came) -> Result<String, String> {
    let allowance = Allowance { app: name("shop"), users: vec!["shop".into()], units: Vec::new() };
    let word = ServersWord {
        server: name("web-1"),
        environment: name(environment),
        labels: BTreeMap::new(),
        allowances: vec![allowance],
    };
    let installed = Installed {
        manifest: WORLD.digest,
        version: name("1.2.0"),
        published: number(1),
        release: "1".into(),
        config: None,
    };
    let memory = Memory { term: 7, before: Some(installed), ..Memory::default() };
    let statements = match came {
        Came::Nothing => Vec::new(),
        Came::Publication => vec![WORLD.publication.clone()],
        Came::All => [vec![WORLD.publication.clone()], WORLD.approvals.clone()].concat(),
    };
    let is_ours = order.server.as_str() == "web-1"
        && order.environment.as_str() == environment
        && order.coordinator == COORDINATOR
        && order.term >= 7
        && order.app.as_str() == "shop";
    if is_ours {
        reached("for this server");
    }
    let approach = authorize_approach(order, COORDINATOR, &ROOT, &word, &memory);
    must(approach.is_ok() == is_ours, || "the first rules say otherwise".into())?;

    let documents = Documents { manifest: &WORLD.manifest, statements: &statements, plan: None };
    let host = Host { word: &word, privilege: &Privilege::Root, platform: "linux-x86_64" };
    let work =
        authorize(Intent::Order { order, connected: COORDINATOR }, documents, &ROOT, host, &memory, NOW);
    let is_open = match environment {
        "staging" => came != Came::Nothing,
        "production" => came == Came::All,
        _ => false,
    };
    let should = is_ours
        && match &order.order {
            OrderKind::Deploy { manifest, skip, .. } => {
                *manifest == WORLD.digest && is_open && (skip.is_empty() || environment == "staging")
            }
            OrderKind::Return { manifest, skip, .. } => {
                *manifest == WORLD.digest && (skip.is_empty() || environment == "staging")
            }
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => false,
        };
    must(work.is_ok() == should, || {
        let told = work.as_ref().map_or_else(ToString::to_string, |_| "let through".into());
        format!("in {environment}, the decision is: {told}")
    })?;

    match (environment, should) {
        ("staging", true) => reached("let into staging"),
        ("production", true) => reached("let into production"),
        _ => {}
    }
    let deciding = Deciding { manifest: Some(WORLD.digest), statements: &statements, now: NOW };
    let control = authorize_control(order, COORDINATOR, &ROOT, &word, &memory, deciding);
    // Whether it is about an app of this server is the journal's business: such a word is about a deployment that is here.
    let reaches = order.server.as_str() == "web-1"
        && order.environment.as_str() == environment
        && order.coordinator == COORDINATOR
        && order.term >= 7;
    let should = reaches
        && match &order.order {
            OrderKind::Cancel { .. } | OrderKind::Confirm {} | OrderKind::Once { .. } => true,
            OrderKind::Decide { .. } => environment == "staging",
            OrderKind::Deploy { .. } | OrderKind::Return { .. } => false,
        };
    if should {
        reached("a word that counts");
    }
    must(control.is_ok() == should, || format!("in {environment}, a word about it is {}", control.is_ok()))?;
    for refusal in [work.err(), control.err(), approach.err()].into_iter().flatten() {
        refused(&refusal)?;
    }
    Ok(format!("{}{}", u8::from(is_ours), u8::from(should)))
}
