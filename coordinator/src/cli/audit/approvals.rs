//! `consign audit who-approved`: the approvals themselves, read by our own trust root.

use consign_common::{
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    name::Environment,
    time::UnixMs,
    trust::{APPROVAL, Approval, Envelope, Gate, Predicate, RoleKeys, STATEMENT_TYPE, Statement, TrustRoot},
};
use consign_proto::v1;

use super::commands::WhoArgs;
use crate::cli::{
    approve,
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
pub(super) fn line(told: &v1::Statement, manifest: Sha256, root: &TrustRoot) -> ApprovedBy {
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

/// Signed by one of those very keys that the gate asks: another key of the same person is not one.
fn proven(told: &v1::Statement, manifest: Sha256, root: &TrustRoot) -> Option<(Vec<String>, Approval)> {
    let envelope = Envelope::parse(&told.envelope, ENVELOPE_BYTES).ok()?;
    if envelope.payload_type() != STATEMENT_TYPE {
        return None;
    }
    // As claimed, to find whom to ask; nothing is believed of it before somebody of them has signed it.
    let claimed = Statement::parse(envelope.payload()).ok()?;
    let Predicate::Approval(approval) = claimed.predicate else { return None };
    let asked = RoleKeys { keys: asked(root, &approval.environment), threshold: 1 };
    let signers = envelope.signers(&asked, &root.keys);
    if signers.is_empty() || claimed.subject.sha256 != manifest {
        return None;
    }
    Some((signers.into_values().map(|key| key.owner.to_string()).collect(), approval))
}

/// The keys that the environment's gate asks for approvals.
fn asked(root: &TrustRoot, environment: &Environment) -> Vec<Sha256> {
    let rules = match root.environments.get(environment) {
        Some(Gate::Statements { require, rearm, .. }) => require.iter().chain(rearm).collect(),
        Some(Gate::PublisherOnly {}) | None => Vec::new(),
    };
    let approvals = rules.into_iter().filter(|rule| rule.predicate == APPROVAL);
    approvals
        .filter_map(|rule| root.roles.get(&rule.role))
        .flat_map(|role| role.keys.iter().copied())
        .collect()
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
