//! Everything that gates are asked, over statements that are changed and then signed by those whose word counts: what lies
//! behind the signatures. A second reading of the rules says what must come of it.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    config::{InForce, effective},
    digest::Sha256,
    json,
    name::{Environment, Id},
    plan::Plan,
    time::UnixMs,
    trust::{
        Allowance, Approval, DecisionAction, Order, OrderKind, OrderingNumber, PlanDocument, Planned,
        PlannedStep, Predicate, Privilege, STATEMENT_TYPE, ServersWord, SigningKey, Statement,
        authorize::{Deciding, Documents, Host, Intent, Memory, authorize, authorize_control},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    JSON_WORDS, Seen, Target,
    decision::WORLD,
    must, reached, refused,
    world::{COORDINATOR, NOW, OWNERS, ROOT, name, number, signed},
};

pub(super) const GATE: Target = Target {
    name: "gate",
    about: "gates: statements that are changed and signed again count exactly where a second reading says so",
    golden: &[],
    more: scenes,
    words: JSON_WORDS,
    most_bytes: 16 << 10,
    stages: &[
        "a scene",
        "published",
        "configured",
        "let into staging",
        "let into production",
        "let into production again",
        "let into the vault",
        "decided",
    ],
    in_test: 4_000,
    check: gate,
};

const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
const AHEAD: u64 = 600_000;
/// The highest number that was accepted before.
const HIGHEST: u64 = NOW.0 - 3000;

/// What comes with one order, for which environment.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scene {
    environment: Environment,
    /// When the last deployment failed, if it did.
    failed: Option<u64>,
    /// The server comes later to what the others run.
    converge: bool,
    /// Whether the plan document comes, too.
    plan: bool,
    statements: Vec<Said>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    by: Vec<String>,
    /// `artifact`, `values`, or a digest.
    about: String,
    #[serde(rename = "type")]
    predicate_type: String,
    predicate: Value,
}

fn scenes() -> Vec<Vec<u8>> {
    let said = |by: &[&str], predicate_type: &str, predicate: Value| Said {
        by: by.iter().map(|name| (*name).to_owned()).collect(),
        about: if predicate_type.contains("config") { "values".into() } else { "artifact".into() },
        predicate_type: predicate_type.into(),
        predicate,
    };
    let published = json!({"app": "shop", "version": "1.2.0", "number": {"epoch": 1, "ms": NOW.0 - 1000}});
    let in_force = |size: i64| {
        let mut config = json!({"app": "shop", "sequence": 3, "values": {"size": size}});
        config["environment"] = "production".into();
        config
    };
    let approval = |environment: &str, ms: u64, config: Option<i64>, plan: bool| {
        let mut approval = json!({
            "app": "shop", "environment": environment, "number": {"epoch": 1, "ms": ms},
            "start_by": NOW.0 + 1000, "converge_until": NOW.0 + 2000,
        });
        if let Some(size) = config {
            let values = format!("{{\"size\":{size}}}");
            approval["config_sha256"] = Sha256::of(values.as_bytes()).to_string().into();
        }
        if plan {
            approval["plan_sha256"] = plan_document().digest().to_string().into();
        }
        approval
    };
    let decision = |environment: &str| {
        json!({
            "environment": environment, "rollout": Id::from_bytes([2; 16]).to_string(), "server": "web-1",
            "step": "one", "action": "skip", "at": NOW.0, "reason": "it hangs",
        })
    };
    let publication = said(&["ci"], "consign:published/v1", published);
    let passed = said(&["ci"], TEST_RESULT, json!({"result": "PASSED"}));
    let approved = |by: &[&str], environment: &str, ms, config, plan| {
        said(by, "consign:approval/v1", approval(environment, ms, config, plan))
    };
    let decided = |by: &[&str], environment: &str| said(by, "consign:decision/v1", decision(environment));
    let configured = said(&["alice"], "consign:config/v1", in_force(2));
    let scene = |environment: &str, failed: Option<u64>, plan: bool, statements: &[&Said]| {
        let statements = statements.iter().map(|said| (*said).clone()).collect();
        json::to_vec(&Scene { environment: name(environment), failed, converge: false, plan, statements })
    };
    let (early, late) = (NOW.0 - 500, NOW.0 - 100);
    vec![
        scene("staging", None, false, &[&publication]),
        scene(
            "production",
            None,
            false,
            &[&publication, &passed, &approved(&["alice"], "production", early, None, false)],
        ),
        scene(
            "production",
            None,
            true,
            &[
                &publication,
                &passed,
                &approved(&["second"], "production", early, None, true),
                &decided(&["alice"], "production"),
            ],
        ),
        scene(
            "production",
            Some(NOW.0 - 300),
            false,
            &[
                &publication,
                &passed,
                &approved(&["alice"], "production", early, None, false),
                &approved(&["second"], "production", late, None, false),
            ],
        ),
        scene(
            "production",
            None,
            false,
            &[
                &publication,
                &configured,
                &passed,
                &approved(&["alice"], "production", early, Some(2), false),
                &approved(&["alice"], "production", late, Some(1), false),
            ],
        ),
        scene(
            "vault",
            None,
            false,
            &[
                &publication,
                &approved(&["alice", "carol"], "vault", early, Some(1), false),
                &decided(&["alice", "carol"], "vault"),
            ],
        ),
        scene(
            "vault",
            None,
            false,
            &[
                &publication,
                &approved(&["alice"], "vault", early, None, false),
                &approved(&["carol"], "vault", late, None, false),
                &decided(&["second"], "vault"),
                &decided(&["carol"], "vault"),
            ],
        ),
    ]
}

/// For a server without a config.
fn plan_document() -> PlanDocument {
    let steps = vec![(name("one"), PlannedStep::Run), (name("activate"), PlannedStep::Run)];
    let servers = BTreeMap::from([(name("web-1"), Planned::Steps(steps))]);
    PlanDocument { artifact: WORLD.digest, config: None, servers }
}

fn plan() -> Plan {
    let manifest: Value = serde_json::from_slice(&WORLD.manifest).unwrap();
    Plan::parse(manifest["plan"].as_str().unwrap(), "consign.toml").unwrap()
}

/// The keys of a statement, and what it says, if it says anything.
struct Read {
    by: BTreeSet<&'static str>,
    statement: Option<Statement>,
}

impl Read {
    /// Its owners, of these keys.
    fn owners(&self, keys: &[&'static str]) -> BTreeSet<&'static str> {
        let of = |key: &&'static str| if *key == "second" { "alice" } else { *key };
        keys.iter().filter(|key| self.by.contains(*key)).map(of).collect()
    }
}

const OWNERS_ROLE: &[&str] = &["alice", "second"];
const BOTH: &[&str] = &["alice", "second", "carol"];

fn keys_of(by: &[String]) -> Vec<(&'static str, &'static SigningKey)> {
    let all = [
        ("alice", &OWNERS.alice),
        ("ci", &OWNERS.ci),
        ("carol", &OWNERS.carol),
        ("second", &OWNERS.second),
        ("stranger", &OWNERS.stranger),
    ];
    all.into_iter().filter(|(name, _)| by.iter().any(|by| by == name)).collect()
}

fn payload(said: &Said) -> Vec<u8> {
    let about = match said.about.as_str() {
        "artifact" => WORLD.digest.to_string(),
        "values" => {
            let values: Option<BTreeMap<String, Value>> =
                serde_json::from_value(said.predicate["values"].clone()).ok();
            Sha256::of(&json::to_vec(&values.unwrap_or_default())).to_string()
        }
        digest => digest.to_owned(),
    };
    json::to_vec(&json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "shop", "digest": {"sha256": about}}],
        "predicateType": said.predicate_type,
        "predicate": said.predicate,
    }))
}

fn gate(bytes: &[u8]) -> Result<Seen, String> {
    let scene = match json::from_slice::<Scene>(bytes, 16 << 10) {
        Ok(scene) if scene.statements.len() <= 12 => scene,
        Ok(_) => return Ok(Seen::Refused("too many statements".into())),
        Err(error) => return refused(&error),
    };
    let asked: &[&str] = match scene.environment.as_str() {
        "staging" | "production" => &["alice", "ci", "second"],
        "vault" => &["alice", "carol", "ci", "second"],
        _ => return Ok(Seen::Refused("an environment that nobody gates".into())),
    };
    reached("a scene");
    let mut envelopes = Vec::new();
    let mut read = Vec::new();
    for said in &scene.statements {
        let (payload, keys) = (payload(said), keys_of(&said.by));
        let by: Vec<&SigningKey> = keys.iter().map(|(_, key)| *key).collect();
        envelopes.push(signed(STATEMENT_TYPE, &payload, &by).to_vec());
        let by: BTreeSet<&'static str> = keys.iter().map(|(name, _)| *name).collect();
        if asked.iter().any(|key| by.contains(key)) {
            read.push(Read { by, statement: Statement::parse(&payload).ok() });
        }
    }
    let deployed = deploy(&scene, &envelopes, &read)?;
    let decided = decide(&scene, &envelopes, &read)?;
    Ok(Seen::Accepted(format!("{} {deployed} {decided}", scene.environment)))
}

fn order(scene: &Scene, order: OrderKind) -> Order {
    Order {
        format: "consign-order-v1".into(),
        id: Id::from_bytes([1; 16]),
        coordinator: COORDINATOR.into(),
        server: name("web-1"),
        environment: scene.environment.clone(),
        app: name("shop"),
        rollout: Id::from_bytes([2; 16]),
        deployment: Id::from_bytes([3; 16]),
        term: 7,
        issued: NOW,
        order,
    }
}

fn word(scene: &Scene) -> ServersWord {
    let allowance = Allowance { app: name("shop"), users: vec!["shop".into()], units: Vec::new() };
    ServersWord {
        server: name("web-1"),
        environment: scene.environment.clone(),
        labels: BTreeMap::new(),
        allowances: vec![allowance],
    }
}

fn memory(scene: &Scene) -> Memory {
    Memory { highest: Some(number(HIGHEST)), term: 7, failed: scene.failed.map(number), ..Memory::default() }
}

/// What is let through.
#[derive(Debug, PartialEq)]
struct Through {
    published: OrderingNumber,
    number: OrderingNumber,
    config: InForce,
}

fn deploy(scene: &Scene, statements: &[Vec<u8>], read: &[Read]) -> Result<bool, String> {
    let kind = OrderKind::Deploy {
        manifest: WORLD.digest,
        force: false,
        skip: Vec::new(),
        plan: BTreeMap::new(),
        confirm_ms: None,
        converge: scene.converge,
    };
    let (order, word, memory) = (order(scene, kind), word(scene), memory(scene));
    let plan = scene.plan.then(|| plan_document().to_vec());
    let documents = Documents { manifest: &WORLD.manifest, statements, plan: plan.as_deref() };
    let host = Host { word: &word, privilege: &Privilege::Root, platform: "linux-x86_64" };
    let intent = Intent::Order { order: &order, connected: COORDINATOR };
    let work = authorize(intent, documents, &ROOT, host, &memory, NOW);
    let through = work.as_ref().ok().map(|work| {
        let work = work.get();
        let config = InForce { sequence: work.config_sequence, values: work.config.clone() };
        Through { published: work.published, number: work.number, config }
    });
    let should = should_deploy(scene, read);
    must(through == should, || match &work {
        Ok(_) => format!("{through:?} is let through, and {should:?} should be"),
        Err(refusal) => format!("it is refused: {refusal}; and {should:?} should be let through"),
    })?;
    if let Err(refusal) = &work {
        refused(refusal)?;
    } else {
        reached(match (scene.environment.as_str(), scene.failed) {
            ("staging", _) => "let into staging",
            ("production", None) => "let into production",
            ("production", Some(_)) => "let into production again",
            _ => "let into the vault",
        });
    }
    Ok(through.is_some())
}

/// The rules once more, from docs/formats.md and the design rather than from the code.
fn should_deploy(scene: &Scene, read: &[Read]) -> Option<Through> {
    // Whose statements cannot be read have said something that nobody understands.
    let publications: Vec<&Read> = read.iter().filter(|read| read.by.contains("ci")).collect();
    if publications.iter().any(|read| read.statement.is_none()) {
        return None;
    }
    let about = |read: &Read| read.statement.as_ref().is_some_and(|said| said.subject.sha256 == WORLD.digest);
    let published: Vec<OrderingNumber> = publications
        .iter()
        .filter(|read| about(read))
        .filter_map(|read| {
            let Predicate::Published(said) = &read.statement.as_ref()?.predicate else { return None };
            Some(said)
        })
        .filter(|said| {
            said.app.as_str() == "shop" && said.version == name("1.2.0") && said.platform.is_none()
        })
        .map(|said| said.number)
        .filter(|number| number.epoch == 1 && number.ms.0 <= NOW.0 + AHEAD)
        .collect();
    let published = *published.iter().max()?;
    reached("published");

    let config = config(scene, read)?;
    if config.sequence > 0 {
        reached("configured");
    }
    if scene.plan && config.sequence > 0 {
        return None;
    }
    let plan = scene.plan.then(|| plan_document().digest());
    let approvals = |keys: &[&'static str]| -> Vec<(&'static str, OrderingNumber)> {
        let counts = |approval: &Approval| {
            let until = if scene.converge { approval.converge_until } else { approval.start_by };
            approval.app.as_str() == "shop"
                && approval.environment == scene.environment
                && approval.number.epoch == 1
                && approval.number.ms.0 <= NOW.0 + AHEAD
                && NOW < until
                && approval.plan_sha256.is_none_or(|approved| Some(approved) == plan)
                && match approval.config_sha256 {
                    Some(approved) => approved == config.digest(),
                    None => config.sequence == 0,
                }
        };
        let mut found = Vec::new();
        for one in read.iter().filter(|read| about(read)) {
            if let Some(Statement { predicate: Predicate::Approval(approval), .. }) = &one.statement
                && counts(approval)
            {
                found.extend(one.owners(keys).into_iter().map(|owner| (owner, approval.number)));
            }
        }
        found
    };
    let ordered = match scene.environment.as_str() {
        "staging" => published,
        "production" => {
            let newest = approvals(OWNERS_ROLE).into_iter().map(|(_, number)| number).max()?;
            let passed = publications.iter().filter(|read| about(read)).any(|read| {
                matches!(&read.statement, Some(Statement { predicate: Predicate::Foreign { predicate_type, value }, .. })
                    if predicate_type == TEST_RESULT && value["result"] == "PASSED")
            });
            if !passed || scene.failed.is_some_and(|failed| newest <= number(failed)) {
                return None;
            }
            newest
        }
        _ => {
            let apart = publishers(read);
            let votes = approvals(BOTH);
            let newest = |owner: &str| {
                let of = votes.iter().filter(|(by, _)| *by == owner && !apart.contains(by));
                of.map(|(_, number)| *number).max()
            };
            newest("alice")?.min(newest("carol")?)
        }
    };
    (ordered >= number(HIGHEST)).then_some(Through { published, number: ordered, config })
}

/// Whoever has signed that it is published.
fn publishers(read: &[Read]) -> BTreeSet<&'static str> {
    let published = read.iter().filter(|read| {
        read.statement.as_ref().is_some_and(|said| {
            said.subject.sha256 == WORLD.digest && matches!(said.predicate, Predicate::Published(_))
        })
    });
    published.flat_map(|read| read.owners(&["alice", "ci", "second", "carol"])).collect()
}

/// `None`: what came is refused.
fn config(scene: &Scene, read: &[Read]) -> Option<InForce> {
    let mut highest: Option<&consign_common::trust::Config> = None;
    for one in read.iter().filter(|read| !read.owners(OWNERS_ROLE).is_empty()) {
        let Some(Statement { subject, predicate: Predicate::Config(config) }) = &one.statement else {
            continue;
        };
        if config.app.as_str() != "shop" || config.environment != scene.environment {
            continue;
        }
        let is_twice = |other: &&consign_common::trust::Config| {
            other.sequence == config.sequence && other.values != config.values
        };
        let is_whole = subject.sha256 == Sha256::of(&json::to_vec(&config.values)) && config.sequence > 0;
        if !is_whole || highest.as_ref().is_some_and(is_twice) {
            return None;
        }
        if highest.is_none_or(|other| other.sequence < config.sequence) {
            highest = Some(config);
        }
    }
    let values = effective(&plan(), highest.map(|config| &config.values)).ok()?;
    Some(InForce { sequence: highest.map_or(0, |config| config.sequence), values })
}

fn decide(scene: &Scene, statements: &[Vec<u8>], read: &[Read]) -> Result<bool, String> {
    let kind =
        OrderKind::Decide { step: name("one"), action: DecisionAction::Skip, reason: "it hangs".into() };
    let (order, word, memory) = (order(scene, kind), word(scene), memory(scene));
    let deciding = Deciding { manifest: Some(WORLD.digest), statements, now: NOW };
    let word = authorize_control(&order, COORDINATOR, &ROOT, &word, &memory, deciding);
    let keys = if scene.environment.as_str() == "vault" { BOTH } else { OWNERS_ROLE };
    let signed: BTreeSet<&str> = read
        .iter()
        .filter(|read| {
            let Some(Statement { subject, predicate: Predicate::Decision(said) }) = &read.statement else {
                return false;
            };
            subject.sha256 == WORLD.digest
                && said.environment == scene.environment
                && said.rollout == order.rollout
                && said.server.as_ref().is_none_or(|server| server.as_str() == "web-1")
                && said.step.as_str() == "one"
                && said.action == DecisionAction::Skip
                && said.at <= UnixMs(NOW.0 + AHEAD)
        })
        .flat_map(|read| read.owners(keys))
        .collect();
    let apart = publishers(read);
    let should = match scene.environment.as_str() {
        "staging" => true,
        "production" => !signed.is_empty(),
        _ => {
            !apart.is_empty()
                && ["alice", "carol"].iter().all(|owner| signed.contains(owner) && !apart.contains(owner))
        }
    };
    must(word.is_ok() == should, || {
        let told = word.as_ref().map_or_else(ToString::to_string, |_| "let through".into());
        format!("the decision about a step: {told}; and {should} would be right")
    })?;
    if let Err(refusal) = &word {
        refused(refusal)?;
    } else if scene.environment.as_str() != "staging" {
        reached("decided");
    }
    Ok(should)
}
