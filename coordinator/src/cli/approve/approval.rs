//! The approval: what is signed, and whether servers will count it. Pure.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    config::InForce,
    digest::Sha256,
    name::{App, Environment, ServerName},
    time::UnixMs,
    trust::{
        APPROVAL, Approval, Gate, GateRule, OrderingNumber, PlanDocument, Planned, PlannedStep, Predicate,
        Statement, Subject, TrustRoot,
    },
};
use consign_proto::v1;

use super::papers::Papers;
use crate::cli::{
    failure::{Failure, Result},
    text::short,
};

/// What the one who approves says of time and plan.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) start_by: Duration,
    pub(super) converge_until: Duration,
    pub(super) plan: Option<Sha256>,
    pub(super) reason: Option<String>,
}

/// Whoever approves must be of a role that the gate asks; known before anything is shown.
pub(super) fn check_role(root: &TrustRoot, environment: &Environment, key: Sha256) -> Result<()> {
    let asking = asking(root, environment)?;
    if asking.is_empty() {
        return Err(Failure::refused(format!("no gate of {environment} asks for an approval"))
            .next("`consign trust show` shows what each environment asks for"));
    }
    let may = asking.iter().filter_map(|rule| root.roles.get(&rule.role));
    if may.clone().any(|role| role.keys.contains(&key)) {
        return Ok(());
    }
    let known = may.flat_map(|role| &role.keys).filter_map(|id| Some((id, root.keys.get(id)?)));
    if let Some(one) = root.keys.get(&key)
        && let Some((other, _)) = known.clone().find(|(_, other)| other.owner == one.owner)
    {
        let (whose, key, other) = (&one.owner, short(&key.to_string(), 12), short(&other.to_string(), 12));
        return Err(Failure::refused(format!(
            "an approval for {environment} by {whose} with the key {key} does not count"
        ))
        .next(format!("{whose} may approve with the key {other}: --key FILE names it")));
    }
    let mut owners: Vec<&str> = known.map(|(_, key)| key.owner.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let whose = root.keys.get(&key).map_or("nobody whom the trust root names", |key| key.owner.as_str());
    Err(Failure::refused(format!("an approval for {environment} by {whose} does not count"))
        .next(format!("{} may approve: --key FILE names the key", owners.join(", "))))
}

/// The gate's rules that ask for approvals.
fn asking<'a>(root: &'a TrustRoot, environment: &Environment) -> Result<Vec<&'a GateRule>> {
    match root.environments.get(environment) {
        None => Err(Failure::refused(format!("the trust root does not name the environment {environment}"))
            .next("`consign trust show` shows those it names")),
        Some(Gate::PublisherOnly {}) => Ok(Vec::new()),
        Some(Gate::Statements { require, rearm, .. }) => {
            Ok(require.iter().chain(rearm).filter(|rule| rule.predicate == APPROVAL).collect())
        }
    }
}

pub(super) fn statement(
    papers: &Papers,
    root: &TrustRoot,
    environment: &Environment,
    config: &InForce,
    terms: &Terms,
    now: UnixMs,
) -> Statement {
    let app: &App = &papers.manifest.app;
    let epoch = root.apps.get(app).map_or(0, |trust| trust.epoch);
    let approval = Approval {
        app: app.clone(),
        environment: environment.clone(),
        number: OrderingNumber { epoch, ms: now },
        start_by: now.plus(terms.start_by),
        converge_until: now.plus(terms.converge_until),
        config_sha256: (config.sequence > 0).then(|| config.digest()),
        plan_sha256: terms.plan,
        reason: terms.reason.clone(),
    };
    let subject = Subject { name: papers.name(), sha256: papers.digest };
    Statement { subject, predicate: Predicate::Approval(approval) }
}

/// What the plan's digest is of, made here from what servers said: what is signed is what was shown.
pub(super) fn plan_document(plan: &v1::Plan, artifact: Sha256, config: &InForce) -> Result<PlanDocument> {
    let odd = |what: &str| Failure::refused(format!("the coordinator's plan cannot be: {what}"));
    let mut servers = BTreeMap::new();
    for server in &plan.servers {
        let planned = match server.state.as_str() {
            "no-op" => Planned::NoOp,
            "planned" => Planned::Steps(steps(server).ok_or_else(|| odd("its steps"))?),
            _ => continue,
        };
        let name: ServerName = server.server.parse().map_err(|_| odd("a server's name"))?;
        servers.insert(name, planned);
    }
    let config = (config.sequence > 0).then(|| config.digest());
    let document = PlanDocument { artifact, config, servers };
    if !plan.digest.is_empty() && plan.digest != document.digest().to_string() {
        return Err(odd("its digest is not that of what servers would do"));
    }
    Ok(document)
}

fn steps(server: &v1::PlannedServer) -> Option<Vec<(consign_common::name::StepName, PlannedStep)>> {
    let step = |step: &v1::PlannedStep| {
        let decision = match step.decision.as_str() {
            "run" => PlannedStep::Run,
            "skip" => PlannedStep::Skip,
            "undetermined" => PlannedStep::Undetermined,
            _ => return None,
        };
        Some((step.name.parse().ok()?, decision))
    };
    server.steps.iter().map(step).collect()
}
