//! What is checked before a statement about an artifact is kept: that it says something a gate may count, by somebody
//! who may say it. Agents check all of this again. Here it is for whoever signed, who learns now what would not count.

use std::collections::BTreeSet;

use consign_common::{
    audit::About,
    digest::Sha256,
    limits::{ENVELOPE_BYTES, FUTURE_MS},
    name::{App, Environment, Owner},
    time::UnixMs,
    trust::{
        APPROVAL, Approval, Envelope, Gate, GateRule, OrderingNumber, PUBLISHED, Predicate, Refusal,
        RoleKeys, STATEMENT_TYPE, Statement, TrustRoot, condition::Where,
    },
};

use super::{
    Artifact, Repository, RepositoryError, Wanted,
    relevant::{ARTIFACT_EVIDENCE_BYTES, bytes_with_an_order},
    statements::{self, Kept, Novelty},
};
use crate::{audit, grpc::Apps};

/// Who hands a statement in; not who signed it.
#[derive(Clone, Copy, Debug)]
pub struct Bringer<'a> {
    pub name: &'a str,
    /// Of what it is not a person's own decision, only those who deploy or publish bring word.
    pub brings: Brings,
    pub apps: &'a Apps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    Everything,
    /// The signature decides.
    ApprovalsOnly,
}

/// A statement that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    pub kept: Kept,
    pub novelty: Novelty,
    pub signers: Vec<(Sha256, Owner)>,
    /// The rules of gates that it counts for.
    pub helps: Vec<(Environment, GateRule)>,
}

impl Repository {
    /// Checks a statement about an artifact that is here, and keeps it.
    pub async fn attest(
        &self,
        envelope: Vec<u8>,
        bringer: Bringer<'_>,
        now: UnixMs,
    ) -> Result<Attested, RepositoryError> {
        let root = self.trust_roots.newest();
        let parsed = Envelope::parse(&envelope, ENVELOPE_BYTES)?;
        if parsed.payload_type() != STATEMENT_TYPE {
            return Err(RepositoryError::Statement("the envelope does not hold an in-toto statement"));
        }
        // As claimed, to find the artifact that it is about; everything else is decided after the signatures.
        let claimed = Statement::parse(parsed.payload())?;
        let artifact = self.find(&Wanted::Digest(claimed.subject.sha256)).await?;
        audit::note(|act| {
            act.about(About::App, &artifact.app).about(About::Version, &artifact.version);
            act.about(About::Artifact, artifact.digest)
                .about(About::Predicate, claimed.predicate.type_name());
            if let Predicate::Approval(approval) = &claimed.predicate {
                act.about(About::Environment, &approval.environment);
            }
            if let Predicate::Decision(decision) = &claimed.predicate {
                act.about(About::Rollout, &decision.rollout).about(About::Step, &decision.step);
            }
        });
        audit::note_signers(&envelope, &root);
        if !bringer.apps.has(&artifact.app) {
            return Err(RepositoryError::NotYourApp { app: artifact.app });
        }
        let checked = check(&parsed, &claimed, &artifact, &root, now)?;
        match (bringer.brings, &claimed.predicate) {
            (Brings::Everything, _) | (Brings::ApprovalsOnly, Predicate::Approval(_)) => {}
            (
                Brings::ApprovalsOnly,
                Predicate::Published(_)
                | Predicate::Config(_)
                | Predicate::Enrolled(_)
                | Predicate::Decision(_)
                | Predicate::Foreign { .. },
            ) => return Err(RepositoryError::BringsApprovalsOnly),
        }
        let keys = checked.signers.iter().map(|(key, _)| *key).collect();
        let kept = Kept::new(envelope, &claimed, keys, bringer.name, now);

        let _changing = self.changing.lock().await;
        self.find(&Wanted::Digest(artifact.digest)).await?;
        if checked.asked == Asked::ByNobody {
            self.has_room(&kept).await?;
        }
        let mut write = self.store.write().await?;
        let novelty = statements::put(&mut write, &kept).await?;
        let all = statements::select(&mut *write, artifact.digest).await?;
        fits(&all, &root)?;
        // Of what is here already nothing is written.
        if novelty == Novelty::New {
            write.commit().await?;
            tracing::info!(
                app = %artifact.app, version = %artifact.version, predicate = kept.predicate, by = bringer.name,
                "statement kept"
            );
        }
        Ok(Attested { kept, novelty, signers: checked.signers, helps: checked.helps })
    }

    /// What a gate asks for is bounded by its rules and keys; the rest is here.
    async fn has_room(&self, new: &Kept) -> Result<(), RepositoryError> {
        let kept = self.kept(new.artifact).await?;
        let is_other =
            |kept: &&Kept| ![PUBLISHED, APPROVAL].contains(&kept.predicate.as_str()) && kept.about.is_empty();
        let others = kept.iter().filter(is_other);
        if kept.iter().any(|kept| kept.digest == new.digest) || others.count() < statements::OTHERS {
            return Ok(());
        }
        Err(RepositoryError::StatementsFull { most: statements::OTHERS })
    }
}

/// What is taken here can be sent: an order to any environment has room for it, and for the config beside it.
fn fits(kept: &[Kept], root: &TrustRoot) -> Result<(), RepositoryError> {
    for environment in root.environments.keys() {
        let bytes = bytes_with_an_order(kept, root, environment);
        if bytes > ARTIFACT_EVIDENCE_BYTES {
            let environment = environment.clone();
            return Err(RepositoryError::StatementsTooLarge {
                environment,
                bytes,
                most: ARTIFACT_EVIDENCE_BYTES,
            });
        }
    }
    Ok(())
}

/// Whose word it is, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Checked {
    signers: Vec<(Sha256, Owner)>,
    asked: Asked,
    helps: Vec<(Environment, GateRule)>,
}

/// Whether a rule of a gate asks for such a statement of one of its signers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    ByAGate,
    ByNobody,
}

fn check(
    envelope: &Envelope,
    statement: &Statement,
    artifact: &Artifact,
    root: &TrustRoot,
    now: UnixMs,
) -> Result<Checked, RepositoryError> {
    match &statement.predicate {
        Predicate::Approval(approval) => {
            let rules = rules(root, &approval.environment, APPROVAL)?;
            let signers = signers(envelope, &roles(root, &rules), root, "an approval")?;
            check_approval(approval, artifact, root, now)?;
            Ok(helping(signers, rules, root, &statement.predicate))
        }
        Predicate::Decision(decision) => {
            // Who approves decides too.
            let rules = rules(root, &decision.environment, APPROVAL)?;
            let signers = signers(envelope, &roles(root, &rules), root, "a decision")?;
            Ok(Checked { signers, asked: Asked::ByAGate, helps: Vec::new() })
        }
        Predicate::Foreign { predicate_type, value } => {
            if let Some(ms) = statements::said_at(value).filter(|ms| ms.0 > now.0.saturating_add(FUTURE_MS)) {
                // It would stand before every honest one until then.
                return Err(Refusal::FarFuture { number: OrderingNumber { epoch: 0, ms }, now }.into());
            }
            let all = gates(root).collect::<Vec<_>>();
            let mut roles = roles(root, &all);
            roles.extend(root.apps.get(&artifact.app).map(|app| &app.publishers));
            let signers = signers(envelope, &roles, root, "a statement about an artifact")?;
            let asking = all.into_iter().filter(|(_, rule)| rule.predicate == *predicate_type).collect();
            Ok(helping(signers, asking, root, &statement.predicate))
        }
        Predicate::Published(_) => {
            Err(RepositoryError::Statement("a publication is made with `consign artifact publish`"))
        }
        Predicate::Config(_) => {
            Err(RepositoryError::Statement("a config is about an environment, not about an artifact"))
        }
        Predicate::Enrolled(_) => Err(RepositoryError::Statement(
            "an `enrolled` statement is about a server, not about an artifact",
        )),
    }
}

fn check_approval(
    approval: &Approval,
    artifact: &Artifact,
    root: &TrustRoot,
    now: UnixMs,
) -> Result<(), RepositoryError> {
    if approval.app != artifact.app {
        return Err(RepositoryError::Statement("the approval's app is not the artifact's"));
    }
    let app = root.apps.get(&approval.app).ok_or_else(|| unknown_app(&approval.app))?;
    let number = approval.number;
    if number.epoch != app.epoch {
        return Err(Refusal::WrongEpoch { given: number.epoch, current: app.epoch }.into());
    }
    if number.ms.0 > now.0.saturating_add(FUTURE_MS) {
        return Err(Refusal::FarFuture { number, now }.into());
    }
    if approval.start_by <= now && approval.converge_until <= now {
        return Err(RepositoryError::Statement("the approval has expired"));
    }
    if root.revoked.contains(&artifact.digest) {
        return Err(Refusal::Revoked { manifest: artifact.digest }.into());
    }
    Ok(())
}

fn unknown_app(app: &App) -> Refusal {
    Refusal::AppUnknown { app: app.clone() }
}

/// The rules of an environment's gate that ask for this predicate; at least one.
fn rules<'a>(
    root: &'a TrustRoot,
    environment: &Environment,
    predicate: &str,
) -> Result<Vec<(&'a Environment, &'a GateRule)>, RepositoryError> {
    if !root.environments.contains_key(environment) {
        return Err(Refusal::EnvironmentUnknown { environment: environment.clone() }.into());
    }
    let asks = |(of, rule): &(&Environment, &GateRule)| *of == environment && rule.predicate == predicate;
    let rules: Vec<_> = gates(root).filter(asks).collect();
    if rules.is_empty() {
        return Err(RepositoryError::NotAsked { environment: environment.clone() });
    }
    Ok(rules)
}

fn gates(root: &TrustRoot) -> impl Iterator<Item = (&Environment, &GateRule)> {
    root.environments.iter().flat_map(|(environment, gate)| {
        let rules: Vec<&GateRule> = match gate {
            Gate::PublisherOnly {} => Vec::new(),
            Gate::Statements { require, rearm, .. } => require.iter().chain(rearm).collect(),
        };
        rules.into_iter().map(move |rule| (environment, rule))
    })
}

fn roles<'a>(root: &'a TrustRoot, rules: &[(&Environment, &GateRule)]) -> Vec<&'a RoleKeys> {
    let names: BTreeSet<&Owner> = rules.iter().map(|(_, rule)| &rule.role).collect();
    names.into_iter().filter_map(|name| root.roles.get(name)).collect()
}

/// The keys of these roles that have signed, with their owners; at least one.
fn signers(
    envelope: &Envelope,
    roles: &[&RoleKeys],
    root: &TrustRoot,
    what: &'static str,
) -> Result<Vec<(Sha256, Owner)>, RepositoryError> {
    let may: BTreeSet<Sha256> = roles.iter().flat_map(|role| role.keys.iter().copied()).collect();
    let signed: Vec<_> = signed_by(envelope, may.iter().copied(), root)
        .into_iter()
        .filter_map(|key| Some((key, root.keys.get(&key)?.owner.clone())))
        .collect();
    if !signed.is_empty() {
        return Ok(signed);
    }
    let owners: BTreeSet<&str> =
        may.iter().filter_map(|key| root.keys.get(key)).map(|key| key.owner.as_str()).collect();
    Err(RepositoryError::SignerUnknown {
        what,
        by: claimed(envelope, root),
        may: owners.into_iter().collect::<Vec<_>>().join(", "),
    })
}

/// Which of these keys have signed.
pub(super) fn signed_by(
    envelope: &Envelope,
    keys: impl IntoIterator<Item = Sha256>,
    root: &TrustRoot,
) -> Vec<Sha256> {
    let signed = |key: &Sha256| {
        let alone = RoleKeys { keys: vec![*key], threshold: 1 };
        envelope.verified_by("the statement", &alone, &root.keys).is_ok()
    };
    keys.into_iter().filter(signed).collect()
}

/// Who signed it by its own account, for the one who is told that it does not count.
fn claimed(envelope: &Envelope, root: &TrustRoot) -> String {
    let name = |key_id: &str| match key_id.parse::<Sha256>() {
        Ok(key) => match root.keys.get(&key) {
            Some(known) => known.owner.to_string(),
            None => format!("the key {}, which the trust root does not name", key.short()),
        },
        Err(_) => "a key that it does not name".to_owned(),
    };
    let names: BTreeSet<String> =
        envelope.signatures().iter().map(|signature| name(&signature.key_id)).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
}

/// The rules that ask for the word of one of these signers, and of them those whose `where` holds.
fn helping(
    signers: Vec<(Sha256, Owner)>,
    rules: Vec<(&Environment, &GateRule)>,
    root: &TrustRoot,
    predicate: &Predicate,
) -> Checked {
    let asks = |(_, rule): &(&Environment, &GateRule)| {
        let role = root.roles.get(&rule.role);
        role.is_some_and(|role| signers.iter().any(|(key, _)| role.keys.contains(key)))
    };
    let asking: Vec<_> = rules.into_iter().filter(asks).collect();
    let value = predicate.to_value();
    let holds = |(_, rule): &(&Environment, &GateRule)| match &rule.condition {
        None => true,
        Some(condition) => {
            Where::compile(condition).is_ok_and(|condition| condition.holds(&value).unwrap_or(false))
        }
    };
    let asked = if asking.is_empty() { Asked::ByNobody } else { Asked::ByAGate };
    let helps = asking.into_iter().filter(holds).map(|(of, rule)| (of.clone(), rule.clone())).collect();
    Checked { signers, asked, helps }
}
