//! From what was fetched to what is shown, each part with its mark: proven or told. Pure.

use std::collections::BTreeMap;

use consign_common::{
    config::{InForce, effective},
    digest::Sha256,
    name::{App, Environment},
    plan::Plan as StepPlan,
    time::UnixMs,
    trust::{
        APPROVAL, Gate, GateRule, OrderingNumber, PUBLISHED, Predicate, Refusal, Statement, TrustRoot,
        evidence::{self, Content, Evidence as Paper},
        gate::{self, Arrival, Assessed, Part, Question, RuleState, Time},
    },
};
use consign_proto::v1;

use super::{changes, papers::Papers};
use crate::cli::{
    audit::Word,
    config::shown,
    output::{ConfigLine, Evidence, GateLine, Proof, ReturnLine, RolloutLine, RunningLine, StatementLine},
};

/// As [`GateLine::part`] names them.
pub(crate) const REQUIRE: &str = "require";
pub(crate) const REARM: &str = "rearm";

/// All that was fetched.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) root: &'a TrustRoot,
    pub(super) environment: &'a Environment,
    pub(super) papers: &'a Papers,
    /// Of the environment.
    pub(super) servers: &'a [v1::Server],
    /// What is said to run there, or why nothing is known of it.
    pub(super) others: &'a BTreeMap<String, Result<Papers, String>>,
    /// Of the app, newest first.
    pub(super) rollouts: &'a [v1::Rollout],
    /// What servers say they would do, or why that is not known.
    pub(super) plan: Result<v1::Plan, String>,
    pub(super) now: UnixMs,
}

pub(super) fn assemble(facts: Facts<'_>) -> Result<Evidence, Refusal> {
    let papers = facts.papers;
    let config = in_force(papers, facts.root, facts.environment)?;
    let gate = gate_lines(papers, facts.root, facts.environment, &config, facts.now)?;
    let (plan, plan_missing) = match facts.plan {
        Ok(plan) => (Some(plan.into()), String::new()),
        Err(why) => (None, why),
    };
    Ok(Evidence {
        app: papers.manifest.app.to_string(),
        version: papers.manifest.version.to_string(),
        platform: papers.manifest.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        environment: facts.environment.to_string(),
        digest: papers.digest.to_string(),
        entries: papers.manifest.entries.len() as u64,
        bytes: papers.manifest.total_bytes(),
        published: Proof::proven(papers.publishers.clone()),
        published_ms: papers.published.0,
        gate,
        config: config_line(papers, facts.root, facts.environment, &config),
        running: running(papers, facts.servers, facts.others),
        statements: statements(papers, facts.root),
        rollouts: rollouts(papers, facts.environment, facts.rollouts),
        returned: returned(facts.environment, facts.rollouts),
        plan,
        plan_missing,
    })
}

/// The values that hold in the environment, as what was signed says.
pub(crate) fn in_force(
    papers: &Papers,
    root: &TrustRoot,
    environment: &Environment,
) -> Result<InForce, Refusal> {
    let app = &papers.manifest.app;
    let trust = root.apps.get(app).ok_or_else(|| Refusal::AppUnknown { app: app.clone() })?;
    let plan = StepPlan::parse(&papers.manifest.plan, "consign.toml")
        .map_err(|error| Refusal::PlanInvalid { why: error.to_string() })?;
    let all = papers.evidence(root, environment);
    let config = evidence::config(&all, root, trust, app, environment)?;
    let values = effective(&plan, config.map(|config| &config.values))
        .map_err(|error| Refusal::ConfigInvalid { why: error.to_string() })?;
    Ok(InForce { sequence: config.map_or(0, |config| config.sequence), values })
}

/// The gate as every server will judge it, by our own trust root; then the rules that hold only after a failure, which
/// each server knows of itself.
pub(crate) fn gate_lines(
    papers: &Papers,
    root: &TrustRoot,
    environment: &Environment,
    config: &InForce,
    now: UnixMs,
) -> Result<Vec<GateLine>, Refusal> {
    let all = papers.evidence(root, environment);
    let assessed = assess(&all, papers, root, environment, config, After::Success, None, now)?;
    let mut lines: Vec<GateLine> =
        assessed.rules.iter().map(|state| gate_line(state, papers, environment)).collect();
    if let Some(Gate::Statements { rearm, .. }) = root.environments.get(environment) {
        lines.extend(rearm.iter().map(rearm_line));
    }
    Ok(lines)
}

/// How the last deployment on a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Success,
    /// It failed or was returned, before everything that is signed by now.
    Failure,
}

#[expect(clippy::too_many_arguments, reason = "each is a part of the question")]
pub(super) fn assess(
    all: &[Paper],
    papers: &Papers,
    root: &TrustRoot,
    environment: &Environment,
    config: &InForce,
    after: After,
    plan: Option<Sha256>,
    now: UnixMs,
) -> Result<Assessed, Refusal> {
    let question = Question {
        root,
        app: &papers.manifest.app,
        environment,
        manifest: papers.digest,
        config,
        plan,
        arrival: Arrival::WithTheOthers,
        failed: match after {
            After::Success => None,
            After::Failure => Some(OrderingNumber::default()),
        },
        time: Time::Now(now),
    };
    gate::assess(&question, all)
}

fn gate_line(state: &RuleState, papers: &Papers, environment: &Environment) -> GateLine {
    let by: Vec<String> = state.counted.iter().map(|vote| vote.owner.to_string()).collect();
    let uncounted = state.uncounted.iter().map(|one| {
        let owners: Vec<&str> = one.owners.iter().map(|owner| owner.as_str()).collect();
        format!("{}: {}", owners.join(", "), one.why)
    });
    GateLine {
        part: match state.part {
            Part::Require => REQUIRE,
            Part::Rearm => REARM,
        },
        predicate: state.rule.predicate.clone(),
        role: state.rule.role.to_string(),
        condition: state.rule.condition.clone().unwrap_or_default(),
        needed: state.rule.threshold,
        by,
        missing: state.missing,
        uncounted: uncounted.collect(),
        next: if state.missing > 0 { supplies(state, papers, environment) } else { String::new() },
    }
}

fn rearm_line(rule: &GateRule) -> GateLine {
    GateLine {
        part: REARM,
        predicate: rule.predicate.clone(),
        role: rule.role.to_string(),
        condition: rule.condition.clone().unwrap_or_default(),
        needed: rule.threshold,
        ..GateLine::default()
    }
}

/// The command by which somebody of the role gives what is missing.
fn supplies(state: &RuleState, papers: &Papers, environment: &Environment) -> String {
    let name = papers.name();
    match state.rule.predicate.as_str() {
        APPROVAL => format!("consign approve {name} --env {environment}"),
        predicate => format!("consign attest {name} --type {predicate}"),
    }
}

fn config_line(
    papers: &Papers,
    root: &TrustRoot,
    environment: &Environment,
    config: &InForce,
) -> Option<ConfigLine> {
    let signers = papers.evidence(root, environment).into_iter().find_map(|paper| match &paper.content {
        Content::Statement(statement) => match &statement.predicate {
            Predicate::Config(own) if own.sequence == config.sequence => {
                Some(paper.signers.values().map(ToString::to_string).collect())
            }
            Predicate::Config(_)
            | Predicate::Published(_)
            | Predicate::Approval(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. } => None,
        },
        Content::Unsigned | Content::OfStrangers | Content::Unreadable(_) => None,
    });
    (config.sequence > 0).then(|| ConfigLine {
        sequence: config.sequence,
        sha256: config.digest().to_string(),
        values: config.values.iter().map(|(name, value)| (name.to_string(), shown(value))).collect(),
        proof: Proof::proven(signers.unwrap_or_default()),
    })
}

/// Servers by what they run; most first.
fn running(
    papers: &Papers,
    servers: &[v1::Server],
    others: &BTreeMap<String, Result<Papers, String>>,
) -> Vec<RunningLine> {
    let app = papers.manifest.app.as_str();
    let mut groups: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for server in servers {
        let state = server.apps.iter().find(|state| state.app == app);
        let runs = state.map(|state| (state.good.clone(), state.good_version.clone())).unwrap_or_default();
        groups.entry(runs).or_default().push(server.name.clone());
    }
    let mut lines: Vec<RunningLine> = groups
        .into_iter()
        .map(|((digest, version), servers)| {
            let line = RunningLine { version, digest, servers, ..RunningLine::default() };
            compared(line, papers, others)
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.servers.len()));
    lines
}

fn compared(
    line: RunningLine,
    papers: &Papers,
    others: &BTreeMap<String, Result<Papers, String>>,
) -> RunningLine {
    if line.digest == papers.digest.to_string() {
        return RunningLine { same: true, artifact: Proof::proven(papers.publishers.clone()), ..line };
    }
    let before = match others.get(&line.digest) {
        None if line.digest.is_empty() => None,
        None => return RunningLine { unknown: "it was not fetched".to_owned(), ..line },
        Some(Err(why)) => return RunningLine { unknown: why.clone(), ..line },
        Some(Ok(other)) => Some(other),
    };
    RunningLine {
        artifact: before.map(|other| Proof::proven(other.publishers.clone())).unwrap_or_default(),
        // What was signed under that version, not what the coordinator calls it.
        version: before.map_or(line.version, |other| other.manifest.version.to_string()),
        files: changes::files(before.map(|other| &other.manifest), &papers.manifest),
        steps: changes::steps(before.map(|other| &other.manifest), &papers.manifest),
        ..line
    }
}

/// Everything that was said of the artifact but that it is published. What nobody signed whom we know is only told.
fn statements(papers: &Papers, root: &TrustRoot) -> Vec<StatementLine> {
    let others = papers.statements.iter().filter(|told| told.predicate != PUBLISHED);
    let line = |told| {
        let read = Papers::read_one(told, root);
        statement_line(told, read.filter(|(_, statement)| statement.subject.sha256 == papers.digest))
    };
    others.map(line).collect()
}

fn statement_line(told: &v1::Statement, read: Option<(Vec<String>, Statement)>) -> StatementLine {
    let Some((owners, statement)) = read else {
        return StatementLine {
            predicate: told.predicate.clone(),
            environment: told.environment.clone(),
            added_ms: told.added_ms,
            ..StatementLine::default()
        };
    };
    let (environment, result) = match &statement.predicate {
        Predicate::Approval(approval) => (approval.environment.to_string(), String::new()),
        Predicate::Decision(decision) => (decision.environment.to_string(), String::new()),
        Predicate::Config(config) => (config.environment.to_string(), String::new()),
        Predicate::Enrolled(enrolled) => (enrolled.environment.to_string(), String::new()),
        Predicate::Published(_) => (String::new(), String::new()),
        Predicate::Foreign { value, .. } => {
            let result = value.get("result").and_then(serde_json::Value::as_str).unwrap_or_default();
            (String::new(), result.to_owned())
        }
    };
    StatementLine {
        predicate: statement.predicate.type_name().to_owned(),
        result,
        environment,
        added_ms: told.added_ms,
        proof: Proof::proven(owners),
    }
}

/// Of this artifact, the newest of each environment; the one that it is meant for last.
fn rollouts(papers: &Papers, environment: &Environment, all: &[v1::Rollout]) -> Vec<RolloutLine> {
    let digest = papers.digest.to_string();
    let mut newest: BTreeMap<(bool, &str), &v1::Rollout> = BTreeMap::new();
    for rollout in all.iter().filter(|rollout| rollout.kind == "deploy" && rollout.digest == digest) {
        let here = rollout.environment == environment.as_str();
        let known = newest.entry((here, &rollout.environment)).or_insert(rollout);
        if known.started_ms < rollout.started_ms {
            *known = rollout;
        }
    }
    newest.into_values().map(rollout_line).collect()
}

fn rollout_line(rollout: &v1::Rollout) -> RolloutLine {
    let has_it = |state: &str| matches!(state, "succeeded" | "no-op");
    let succeeded = rollout.deployments.iter().filter(|deployment| has_it(&deployment.state)).count();
    let count = |length| u32::try_from(length).unwrap_or(u32::MAX);
    RolloutLine {
        id: rollout.id.clone(),
        environment: rollout.environment.clone(),
        state: rollout.state.clone(),
        ended_ms: rollout.ended_ms,
        servers: count(rollout.deployments.len()),
        succeeded: count(succeeded),
        receipts: 0,
        proof: Proof::told(),
    }
}

/// The newest rollout there in which servers went back: because somebody said so, or by themselves.
fn returned(environment: &Environment, all: &[v1::Rollout]) -> Option<ReturnLine> {
    let went_back = |rollout: &v1::Rollout| -> Vec<String> {
        let back = |state: &str| match rollout.kind.as_str() {
            "return" => state == "succeeded",
            _ => state == "returned",
        };
        let servers = rollout.deployments.iter().filter(|deployment| back(&deployment.state));
        servers.map(|deployment| deployment.server.clone()).collect()
    };
    let here = all.iter().filter(|rollout| rollout.environment == environment.as_str());
    here.filter_map(|rollout| {
        let servers = went_back(rollout);
        (!servers.is_empty()).then(|| ReturnLine {
            rollout: rollout.id.clone(),
            servers,
            from: rollout.version.clone(),
            at_ms: if rollout.ended_ms > 0 { rollout.ended_ms } else { rollout.started_ms },
            proof: Proof::told(),
        })
    })
    .max_by_key(|line| line.at_ms)
}

/// What servers themselves signed about a rollout makes its line proven, or false.
pub(super) fn prove_rollout(line: &mut RolloutLine, digest: Sha256, words: &[Word]) {
    let newest = newest(words, |word| word.environment == line.environment && word.manifest == Some(digest));
    let has_it = newest.values().filter(|word| word.has_it());
    let owners: Vec<String> = has_it.clone().flat_map(|word| word.proof.by.clone()).collect();
    line.receipts = u32::try_from(has_it.count()).unwrap_or(u32::MAX);
    let has_not = newest.len().saturating_sub(line.receipts as usize);
    if line.succeeded as usize + has_not > line.servers as usize {
        line.proof = Proof::disproven();
    } else if line.succeeded > 0 && line.receipts >= line.succeeded {
        line.proof = Proof::proven(owners);
    }
}

/// That they went back: each of the servers says so itself.
pub(super) fn prove_return(line: &mut ReturnLine, environment: &Environment, words: &[Word]) {
    let newest = newest(words, |word| word.environment == environment.as_str());
    let own: Vec<&&Word> = line.servers.iter().filter_map(|server| newest.get(server.as_str())).collect();
    if own.iter().any(|word| !word.went_back()) {
        line.proof = Proof::disproven();
    } else if own.len() == line.servers.len() {
        line.proof = Proof::proven(own.iter().flat_map(|word| word.proof.by.clone()).collect());
    }
}

/// The last word of each server, of those that are proven.
fn newest(words: &[Word], about: impl Fn(&Word) -> bool) -> BTreeMap<&str, &Word> {
    let mut newest: BTreeMap<&str, &Word> = BTreeMap::new();
    for word in words.iter().filter(|word| word.proof.is_proven() && about(word)) {
        let known = newest.entry(&word.server).or_insert(word);
        if known.ended_ms < word.ended_ms {
            *known = word;
        }
    }
    newest
}

/// Digests of what the coordinator says that servers run of the app.
pub(super) fn running_digests(app: &App, servers: &[v1::Server]) -> Vec<Sha256> {
    let of_app = servers.iter().flat_map(|server| &server.apps).filter(|state| state.app == app.as_str());
    let mut digests: Vec<Sha256> = of_app.filter_map(|state| state.good.parse().ok()).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}
