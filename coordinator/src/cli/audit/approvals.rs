//! `consign audit who-approved`: the approvals themselves, read by our own trust root.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    name::{Environment, Owner},
    time::UnixMs,
    trust::{
        APPROVAL, Approval, Envelope, Gate, Key, Predicate, PublicKey, RoleKeys, STATEMENT_TYPE, Statement,
        TrustRoot,
    },
};
use consign_proto::v1;

use super::commands::WhoArgs;
use crate::cli::{
    approve,
    client::{Client, unary},
    failure::Result,
    output::{ApprovalSigner, ApprovedBy, LetThrough, Proof},
    print::Printer,
    profile::Home,
    text::{precise, short, table},
    trust,
};

/// Of the app, the newest, that are looked through.
const ROLLOUTS: u32 = 1000;

pub(super) async fn run(args: WhoArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (_, root) = trust::newest(home, client).await?;
    let (app, version) = (&args.artifact.0, &args.artifact.1);
    let papers = approve::fetch(client, &root, (app, version), args.platform.as_ref()).await?;
    let told = papers.statements.iter().filter(|told| told.predicate == APPROVAL);
    let mut lines: Vec<ApprovedBy> = told.map(|told| line(told, papers.digest, &root)).collect();
    let request = v1::ListRolloutsRequest { app: app.to_string(), limit: ROLLOUTS, ..Default::default() };
    let rollouts = client.operators().list_rollouts(unary(request)).await;
    let rollouts = rollouts.map_err(|status| client.failure(status))?.into_inner().rollouts;
    for line in lines.iter_mut().filter(|line| line.proof.is_proven()) {
        line.rollouts = let_through(line, papers.digest, &rollouts);
    }
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
        Some((signers, approval)) => ApprovedBy {
            environment: approval.environment.to_string(),
            at_ms: approval.number.ms.0,
            until_ms: approval.start_by.max(approval.converge_until).0,
            reason: approval.reason.unwrap_or_default(),
            proof: Proof::proven(signers.iter().map(|signer| signer.owner.clone()).collect()),
            signers,
            rollouts: Vec::new(),
            digest,
        },
        None => ApprovedBy {
            environment: told.environment.clone(),
            at_ms: told.added_ms,
            until_ms: 0,
            reason: String::new(),
            signers: Vec::new(),
            rollouts: Vec::new(),
            proof: Proof::told(),
            digest,
        },
    }
}

/// Signed by one of those very keys that the gate asks: another key of the same person is not one.
fn proven(
    told: &v1::Statement,
    manifest: Sha256,
    root: &TrustRoot,
) -> Option<(Vec<ApprovalSigner>, Approval)> {
    let envelope = Envelope::parse(&told.envelope, ENVELOPE_BYTES).ok()?;
    if envelope.payload_type() != STATEMENT_TYPE {
        return None;
    }
    // As claimed, to find whom to ask; nothing is believed of it before somebody of them has signed it.
    let claimed = Statement::parse(envelope.payload()).ok()?;
    let Predicate::Approval(approval) = claimed.predicate else { return None };
    let asked = asked(root, &approval.environment);
    let keys = RoleKeys { keys: asked.keys().copied().collect(), threshold: 1 };
    let signers = envelope.signers(&keys, &root.keys);
    if signers.is_empty() || claimed.subject.sha256 != manifest {
        return None;
    }
    let signer = |(public, known): (PublicKey, &Key)| ApprovalSigner {
        owner: known.owner.to_string(),
        key: public.id().to_string(),
        roles: asked.get(&public.id()).into_iter().flatten().map(ToString::to_string).collect(),
    };
    Some((signers.into_iter().map(signer).collect(), approval))
}

/// Deployments of it there that began while the approval held.
fn let_through(line: &ApprovedBy, manifest: Sha256, rollouts: &[v1::Rollout]) -> Vec<LetThrough> {
    let digest = manifest.to_string();
    let began = |rollout: &&v1::Rollout| {
        rollout.kind == "deploy"
            && rollout.digest == digest
            && rollout.environment == line.environment
            && (line.at_ms..=line.until_ms).contains(&rollout.started_ms)
    };
    let one = |rollout: &v1::Rollout| LetThrough {
        rollout: rollout.id.clone(),
        state: rollout.state.clone(),
        started_ms: rollout.started_ms,
    };
    rollouts.iter().filter(began).map(one).collect()
}

/// The keys that the environment's gate asks for approvals, each with the roles in which it is asked.
fn asked<'a>(root: &'a TrustRoot, environment: &Environment) -> BTreeMap<Sha256, BTreeSet<&'a Owner>> {
    let rules = match root.environments.get(environment) {
        Some(Gate::Statements { require, rearm, .. }) => require.iter().chain(rearm).collect(),
        Some(Gate::PublisherOnly {}) | None => Vec::new(),
    };
    let mut asked: BTreeMap<Sha256, BTreeSet<&Owner>> = BTreeMap::new();
    for rule in rules.into_iter().filter(|rule| rule.predicate == APPROVAL) {
        for key in root.roles.get(&rule.role).into_iter().flat_map(|role| &role.keys) {
            asked.entry(*key).or_default().insert(&rule.role);
        }
    }
    asked
}

fn text(lines: &[ApprovedBy]) -> String {
    if lines.is_empty() {
        return "Nobody.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let signer = |signer: &ApprovalSigner| {
                format!("{} ({}, key {})", signer.owner, signer.roles.join(", "), short(&signer.key, 12))
            };
            let who = match line.proof.is_proven() {
                true => format!("proven: {}", line.signers.iter().map(signer).collect::<Vec<_>>().join("; ")),
                false => "told: nobody whom the gate asks has signed it".to_owned(),
            };
            let rollouts = line.rollouts.iter();
            let rollouts = rollouts.map(|one| format!("{} {}", short(&one.rollout, 8), one.state));
            let rollouts = rollouts.collect::<Vec<_>>().join(", ");
            let at = precise(UnixMs(line.at_ms));
            vec![line.environment.clone(), who, at, rollouts, line.reason.clone()]
        })
        .collect();
    table(&["ENVIRONMENT", "APPROVED BY", "AT", "ROLLOUTS", "REASON"], &rows)
}
