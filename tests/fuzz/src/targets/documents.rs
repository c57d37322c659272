//! Documents in JSON, as they are signed and sent.

use consign_common::{
    artifact::{EntryKind, Manifest},
    digest::Sha256,
    json,
    limits::{ArtifactLimits, ORDER_BYTES, TRUST_ROOT_BYTES},
    plan::Changes,
    time::UnixMs,
    trust::{
        Approval, Envelope, Gate, Order, Predicate, STATEMENT_TYPE, Statement, Subject, TRUST_ROOT_TYPE,
        TRUST_ROOT_V2_TYPE, TrustRoot, evidence,
        gate::{Arrival, Question, Time, assess},
    },
};
use serde_json::Value;

use super::{
    JSON_WORDS, Seen, Target, must, reached, refused, size,
    world::{NOW, OWNERS, ROOT, name, number, signed},
};

pub(super) const TRUST_ROOT: Target = Target {
    name: "trust-root",
    about: "trust roots: one type and one meaning, only the root role's word changes one, and no gate is open by itself",
    golden: &["trust-root.json", "trust-root-v2.json", "trust-root-envelope.json"],
    more: || {
        let next = TrustRoot { version: ROOT.version + 1, ..ROOT.clone() };
        vec![ROOT.to_payload(), next.to_payload()]
    },
    words: JSON_WORDS,
    most_bytes: 64 << 10,
    stages: &["JSON", "read", "checked", "pinned", "follows", "gates asked"],
    in_test: 10_000,
    check: trust_root,
};

/// A payload, which is signed here; or an envelope as it is.
fn trust_root(bytes: &[u8]) -> Result<Seen, String> {
    if let Ok(envelope) = Envelope::parse(bytes, TRUST_ROOT_BYTES) {
        return trust_root_envelope(bytes, &envelope);
    }
    if super::is_json(bytes) {
        reached("JSON");
    }
    let root =
        json::from_slice_exact::<TrustRoot>(bytes, TRUST_ROOT_BYTES).map_err(|error| error.to_string());
    if root.is_ok() {
        reached("read");
    }
    let root = match root.and_then(|root| root.check().map(|()| root).map_err(|refusal| refusal.to_string()))
    {
        Ok(root) => root,
        Err(why) => {
            // Now and then, because it takes two signatures: what does not pass here does not pass signed.
            if Sha256::of(bytes).as_bytes()[0] < 8 {
                for payload_type in [TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE] {
                    let envelope = signed(payload_type, bytes, &[&OWNERS.alice]).to_vec();
                    let opened = TrustRoot::open_pinned(&envelope, Sha256::of(bytes));
                    must(opened.is_err(), || "it opens though it does not check".into())?;
                }
            }
            return refused(&why);
        }
    };
    reached("checked");
    must(same_value(bytes, &root.to_payload()), || "it is not written as what it was read from".into())?;

    let mut opened = 0;
    for payload_type in [TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE] {
        let envelope = signed(payload_type, bytes, &[&OWNERS.alice, &OWNERS.carol]).to_vec();
        let pin = TrustRoot::pin(&envelope).map_err(|refusal| refusal.to_string())?;
        must(TrustRoot::open_pinned(&envelope, Sha256::of(b"another")).is_err(), || {
            "it opens with another pin".into()
        })?;
        match TrustRoot::open_pinned(&envelope, pin) {
            Ok(read) => {
                reached("pinned");
                opened += 1;
                must(read == root && payload_type == root.payload_type(), || {
                    "it opens as something else".into()
                })?;
            }
            Err(refusal) => drop(refused(&refusal)?),
        }
        if let Ok(next) = ROOT.open_next(&envelope) {
            reached("follows");
            must(next.version == ROOT.version + 1, || "a version that does not follow".into())?;
        }
        let stranger = signed(payload_type, bytes, &[&OWNERS.stranger]).to_vec();
        must(ROOT.open_next(&stranger).is_err(), || "a stranger's word changes the trust root".into())?;
    }
    must(opened <= 1, || "one payload opens as two types".into())?;
    gates(&root)?;
    Ok(Seen::Accepted(format!(
        "{} {opened} {} {} {} {}",
        root.payload_type().len(),
        size(root.keys.len()),
        size(root.roles.len()),
        size(root.apps.len()),
        size(root.environments.len())
    )))
}

/// Without statements, a gate that asks for any is closed.
fn gates(root: &TrustRoot) -> Result<(), String> {
    let Some(app) = root.apps.keys().next() else { return Ok(()) };
    let config = consign_common::config::InForce::default();
    for (environment, gate) in &root.environments {
        reached("gates asked");
        for failed in [None, Some(number(1))] {
            let question = Question {
                root,
                app,
                environment,
                manifest: Sha256::of(b"a"),
                config: &config,
                plan: None,
                arrival: Arrival::WithTheOthers,
                failed,
                time: Time::Now(NOW),
            };
            let assessed = assess(&question, &[]).map_err(|refusal| refusal.to_string())?;
            let is_open = matches!(gate, Gate::PublisherOnly {});
            must(assessed.is_met() == is_open, || {
                format!("without statements the gate of {environment} is met")
            })?;
            if let Some(refusal) = assessed.refusal(environment) {
                refused(&refusal)?;
            }
        }
    }
    Ok(())
}

fn trust_root_envelope(bytes: &[u8], envelope: &Envelope) -> Result<Seen, String> {
    match TrustRoot::open_pinned(bytes, Sha256::of(envelope.payload())) {
        Ok(root) => {
            must(envelope.verified_by("trust root", &root.root, &root.keys).is_ok(), || {
                "it is not signed".into()
            })?;
            must(envelope.payload_type() == root.payload_type(), || "it is of another type".into())?;
            Ok(Seen::Accepted(format!("an envelope, {}", size(root.keys.len()))))
        }
        Err(refusal) => refused(&refusal),
    }
}

/// As JSON, whatever the order of keys and the spelling of text.
fn same_value(one: &[u8], other: &[u8]) -> bool {
    let read = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    read(one).is_some_and(|value| read(other) == Some(value))
}

pub(super) const STATEMENT: Target = Target {
    name: "statement",
    about: "statements: ours have one meaning, and an approval counts for exactly what it says",
    golden: &[
        "statement-approval.json",
        "statement-config.json",
        "statement-decision.json",
        "statement-enrolled.json",
        "statement-published.json",
        "statement-test-result.json",
    ],
    more: approvals,
    words: JSON_WORDS,
    most_bytes: 64 << 10,
    stages: &["JSON", "read", "ours", "counts"],
    in_test: 20_000,
    check: statement,
};

/// That would count now; the golden one is long over.
fn approvals() -> Vec<Vec<u8>> {
    let approval = |environment| {
        let predicate = Predicate::Approval(Approval {
            app: name("shop"),
            environment: name(environment),
            number: number(NOW.0),
            start_by: UnixMs(NOW.0 + 1000),
            converge_until: UnixMs(NOW.0 + 2000),
            config_sha256: None,
            plan_sha256: None,
            reason: None,
        });
        let subject = Subject { name: "shop".into(), sha256: Sha256::of(b"a") };
        Statement { subject, predicate }.to_payload()
    };
    vec![approval("production"), approval("vault")]
}

fn statement(bytes: &[u8]) -> Result<Seen, String> {
    if super::is_json(bytes) {
        reached("JSON");
    }
    let statement = match Statement::parse(bytes) {
        Ok(statement) => statement,
        Err(refusal) => return refused(&refusal),
    };
    reached("read");
    let written = statement.to_payload();
    must(Statement::parse(&written).as_ref() == Ok(&statement), || {
        "it is not read again as what it was".into()
    })?;
    let name = statement.predicate.type_name().to_owned();
    let is_foreign = matches!(statement.predicate, Predicate::Foreign { .. });
    if !is_foreign {
        reached("ours");
    }
    must(is_foreign || same_value(bytes, &written), || "it is not written as what it was read from".into())?;
    must(is_foreign != name.starts_with("consign:"), || format!("{name} is read as another's"))?;

    let envelope = signed(STATEMENT_TYPE, bytes, &[&OWNERS.alice]).to_vec();
    let (app, config) = ("shop".parse().unwrap(), consign_common::config::InForce::default());
    let mut shape = String::new();
    for environment in ["production", "vault"] {
        let environment = environment.parse().unwrap();
        let read = evidence::read(std::slice::from_ref(&envelope), &ROOT, &app, &environment);
        let read = read.map_err(|refusal| refusal.to_string())?;
        let question = Question {
            root: &ROOT,
            app: &app,
            environment: &environment,
            manifest: statement.subject.sha256,
            config: &config,
            plan: None,
            arrival: Arrival::WithTheOthers,
            failed: None,
            time: Time::Now(NOW),
        };
        let assessed = assess(&question, &read).map_err(|refusal| refusal.to_string())?;
        must(!assessed.is_met(), || "one statement is enough for two".into())?;
        let counted: Vec<_> = assessed.rules.iter().flat_map(|rule| &rule.counted).collect();
        let should = match &statement.predicate {
            Predicate::Approval(approval) => {
                approval.app == app
                    && approval.environment == environment
                    && approval.number.epoch == 1
                    && approval.number.ms.0 <= NOW.0 + 600_000
                    && NOW < approval.start_by
                    && approval.plan_sha256.is_none()
                    && approval.config_sha256.is_none_or(|digest| digest == config.digest())
            }
            Predicate::Published(_)
            | Predicate::Config(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. } => false,
        };
        must(counted.len() == usize::from(should), || {
            format!("{} signatures count in {environment}", counted.len())
        })?;
        if should {
            reached("counts");
        }
        must(counted.iter().all(|vote| vote.owner.as_str() == "alice"), || "another owner counts".into())?;
        shape.push_str(&format!(" {}", counted.len()));
        if let Some(refusal) = assessed.refusal(&environment) {
            refused(&refusal)?;
        }
    }
    let shown = if is_foreign { "foreign" } else { &name };
    Ok(Seen::Accepted(format!("{shown}{shape} {}", size(written.len()))))
}

pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    about: "manifests: accepted in one form as bytes, and no path leaves the release",
    golden: &["manifest.golden"],
    more: manifests,
    words: JSON_WORDS,
    most_bytes: 64 << 10,
    stages: &["JSON", "read", "with entries"],
    in_test: 10_000,
    check: manifest,
};

fn manifests() -> Vec<Vec<u8>> {
    let text = String::from_utf8(super::golden("manifest.golden")).unwrap();
    let rest = text.split_once("\"entries\":[").unwrap().0;
    ["", r#"{"path":"a","kind":"dir"}"#, r#"{"path":"a","kind":"link","target":"b"}"#]
        .iter()
        .map(|entries| format!("{rest}\"entries\":[{entries}]}}").into_bytes())
        .collect()
}

fn manifest(bytes: &[u8]) -> Result<Seen, String> {
    if super::is_json(bytes) {
        reached("JSON");
    }
    let limits = ArtifactLimits::default();
    let manifest = match Manifest::parse(bytes, &limits) {
        Ok(manifest) => manifest,
        Err(error) => {
            // A plan's problems are lines, with what is wrong in each.
            error.to_string().lines().try_for_each(super::is_harmless)?;
            return Ok(Seen::Refused(error.to_string()));
        }
    };
    reached("read");
    if !manifest.entries.is_empty() {
        reached("with entries");
    }
    must(manifest.to_bytes() == bytes && manifest.digest() == Sha256::of(bytes), || "a second form".into())?;
    must(manifest.total_bytes() <= limits.total_bytes, || "more bytes than the limit".into())?;
    let paths: Vec<&[u8]> = manifest.entries.iter().map(|entry| entry.path.as_bytes()).collect();
    must(paths.is_sorted_by(|a, b| a < b), || "entries out of order, or twice".into())?;
    for entry in &manifest.entries {
        let path = &entry.path;
        let is_clean = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
        must(path.split('/').all(is_clean), || format!("the path {path:?}"))?;
        if let Some((parent, _)) = path.rsplit_once('/') {
            let is_parent = |entry: &&consign_common::artifact::Entry| entry.path == parent;
            let kind = manifest.entries.iter().find(is_parent).map(|entry| &entry.kind);
            must(kind == Some(&EntryKind::Dir), || format!("{path:?} lies in no directory"))?;
        }
    }
    drop(Changes::between(None, &manifest));
    drop(Changes::between(Some(&manifest), &manifest));
    let plan = consign_common::plan::Plan::parse(&manifest.plan, "consign.toml");
    must(plan.is_ok_and(|plan| plan.app == manifest.app), || "its plan is not one of its app".into())?;
    Ok(Seen::Accepted(format!("{} {}", size(manifest.entries.len()), size(manifest.plan.len()))))
}

pub(super) const ORDER: Target = Target {
    name: "order",
    about: "orders: one meaning, written as what was read",
    golden: &[
        "order-cancel.json",
        "order-confirm.json",
        "order-decide.json",
        "order-deploy.json",
        "order-deploy-pinned.json",
        "order-once-done.json",
        "order-once-failed.json",
        "order-once-run.json",
        "order-return.json",
    ],
    more: Vec::new,
    words: JSON_WORDS,
    most_bytes: ORDER_BYTES + 100,
    stages: &["JSON", "read"],
    in_test: 20_000,
    check: order,
};

fn order(bytes: &[u8]) -> Result<Seen, String> {
    if super::is_json(bytes) {
        reached("JSON");
    }
    let order = match Order::parse(bytes) {
        Ok(order) => order,
        Err(refusal) => return refused(&refusal),
    };
    reached("read");
    let written = order.to_vec();
    must(same_value(bytes, &written), || "it is not written as what it was read from".into())?;
    must(bytes.len() <= ORDER_BYTES, || "longer than the limit".into())?;
    if written.len() <= ORDER_BYTES {
        must(Order::parse(&written).as_ref() == Ok(&order), || "it is not read again as what it was".into())?;
    }
    let kind = format!("{:?}", order.order);
    let kind = kind.split([' ', '{']).next().unwrap_or_default();
    Ok(Seen::Accepted(format!("{kind} {}", size(written.len()))))
}
