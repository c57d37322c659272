//! `consign audit who-approved`: the approvals themselves, read by our own trust root.

use std::collections::BTreeSet;

use consign_common::{
    digest::Sha256,
    name::{Environment, Owner},
    time::UnixMs,
    trust::{APPROVAL, Approval, Gate, Predicate, TrustRoot},
};
use consign_proto::v1;

use super::commands::WhoArgs;
use crate::cli::{
    approve::{self, Papers},
    client::Client,
    failure::Result,
    output::{ApprovedBy, Proof},
    print::Printer,
    profile::Home,
    text::{precise, table},
    trust,
};

pub(super) async fn run(args: WhoArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (_, root) = trust::newest(home, client).await?;
    let (app, version) = (&args.artifact.0, &args.artifact.1);
    let papers = approve::fetch(client, &root, (app, version), args.platform.as_ref()).await?;
    let told = papers.statements.iter().filter(|told| told.predicate == APPROVAL);
    let mut lines: Vec<ApprovedBy> = told.map(|told| line(told, papers.digest, &root)).collect();
    if let Some(environment) = &args.environment {
        lines.retain(|line| line.environment == environment.as_str());
    }
    lines.sort_by_key(|line| line.at_ms);
    printer.show(&lines, |lines| text(lines))
}

/// What nobody signed whom the gate asks is only told.
fn line(told: &v1::Statement, manifest: Sha256, root: &TrustRoot) -> ApprovedBy {
    let digest = Sha256::of(&told.envelope).to_string();
    match proven(told, manifest, root) {
        Some((owners, approval)) => ApprovedBy {
            environment: approval.environment.to_string(),
            at_ms: approval.number.ms.0,
            reason: approval.reason.unwrap_or_default(),
            proof: Proof::proven(owners),
            digest,
        },
        None => ApprovedBy {
            environment: told.environment.clone(),
            at_ms: told.added_ms,
            reason: String::new(),
            proof: Proof::told(),
            digest,
        },
    }
}

fn proven(told: &v1::Statement, manifest: Sha256, root: &TrustRoot) -> Option<(Vec<String>, Approval)> {
    let (owners, statement) = Papers::read_one(told, root)?;
    let Predicate::Approval(approval) = statement.predicate else { return None };
    if statement.subject.sha256 != manifest {
        return None;
    }
    let asked = asked(root, &approval.environment);
    let owners: Vec<String> =
        owners.into_iter().filter(|owner| asked.iter().any(|asked| asked.as_str() == owner)).collect();
    (!owners.is_empty()).then_some((owners, approval))
}

/// Whom the environment's gate asks for approvals.
fn asked<'a>(root: &'a TrustRoot, environment: &Environment) -> BTreeSet<&'a Owner> {
    let rules = match root.environments.get(environment) {
        Some(Gate::Statements { require, rearm, .. }) => require.iter().chain(rearm).collect(),
        Some(Gate::PublisherOnly {}) | None => Vec::new(),
    };
    let approvals = rules.into_iter().filter(|rule| rule.predicate == APPROVAL);
    let keys = approvals.filter_map(|rule| root.roles.get(&rule.role)).flat_map(|role| &role.keys);
    keys.filter_map(|key| root.keys.get(key)).map(|key| &key.owner).collect()
}

fn text(lines: &[ApprovedBy]) -> String {
    if lines.is_empty() {
        return "Nobody.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let who = match line.proof.is_proven() {
                true => format!("{} (proven)", line.proof.by.join(", ")),
                false => "told only: nobody whom the gate asks has signed it".to_owned(),
            };
            vec![line.environment.clone(), who, precise(UnixMs(line.at_ms)), line.reason.clone()]
        })
        .collect();
    table(&["ENVIRONMENT", "APPROVED BY", "AT", "REASON"], &rows)
}
