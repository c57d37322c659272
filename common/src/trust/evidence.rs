//! What came with an order, read once: whose signatures are on each statement, and what it says.
//!
//! Signatures first, then the bytes: what nobody has signed whose word is asked for is never parsed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AppTrust, Config, Envelope, Gate, OrderingNumber, Predicate, Published, Refusal, RoleKeys,
    STATEMENT_TYPE, Statement, TrustRoot,
};
use crate::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::{ENVELOPE_BYTES, EVIDENCE_BYTES, STATEMENTS},
    name::{App, Environment, Owner},
};

/// One envelope with a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The SHA-256 of the statement's bytes: the same in every envelope around it.
    pub statement: Sha256,
    /// The keys that have signed it, of those whose word is asked for, with their owners.
    pub signers: BTreeMap<Sha256, Owner>,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Without any signature.
    Unsigned,
    /// Signed by nobody whose word is asked for; not read.
    OfStrangers,
    Unreadable(Refusal),
    Statement(Statement),
}

/// Reads the statements for an app in an environment. A trust root that names neither asks for nobody's word.
pub fn read(
    envelopes: &[Vec<u8>],
    root: &TrustRoot,
    app: &App,
    environment: &Environment,
) -> Result<Vec<Evidence>, Refusal> {
    if envelopes.len() > STATEMENTS {
        let why = format!("{} of them, at most {STATEMENTS} are allowed", envelopes.len());
        return Err(Refusal::Malformed { what: "statements", why });
    }
    let bytes: usize = envelopes.iter().map(Vec::len).sum();
    if bytes > EVIDENCE_BYTES {
        let why = format!("{bytes} bytes, at most {EVIDENCE_BYTES} are allowed");
        return Err(Refusal::Malformed { what: "statements", why });
    }
    let asked = RoleKeys { keys: asked(root, app, environment).into_iter().collect(), threshold: 1 };
    let mut all = Vec::new();
    for bytes in envelopes {
        let envelope = Envelope::parse(bytes, ENVELOPE_BYTES)?;
        if envelope.payload_type() == STATEMENT_TYPE {
            all.push(Evidence::of(&envelope, &asked, root));
        }
    }
    Ok(all)
}

/// The keys whose word counts for something: the app's publishers, who signs its config, and the roles of the gate.
fn asked(root: &TrustRoot, app: &App, environment: &Environment) -> BTreeSet<Sha256> {
    let mut keys = BTreeSet::new();
    if let Some(trust) = root.apps.get(app) {
        keys.extend(&trust.publishers.keys);
        keys.extend(config_role(root, trust).into_iter().flat_map(|role| &role.keys));
    }
    if let Some(Gate::Statements { require, rearm, .. }) = root.environments.get(environment) {
        let roles = require.iter().chain(rearm).filter_map(|rule| root.roles.get(&rule.role));
        keys.extend(roles.flat_map(|role| &role.keys));
    }
    keys
}

/// Who signs the app's config; nobody, where the role that is named is not there.
fn config_role<'a>(root: &'a TrustRoot, trust: &'a AppTrust) -> Option<&'a RoleKeys> {
    match &trust.config {
        Some(role) => root.roles.get(role),
        None => Some(&trust.publishers),
    }
}

impl Evidence {
    fn of(envelope: &Envelope, asked: &RoleKeys, root: &TrustRoot) -> Self {
        let signers: BTreeMap<Sha256, Owner> = envelope
            .signers(asked, &root.keys)
            .into_iter()
            .map(|(public, key)| (public.id(), key.owner.clone()))
            .collect();
        let content = if envelope.signatures().is_empty() {
            Content::Unsigned
        } else if signers.is_empty() {
            Content::OfStrangers
        } else {
            Statement::parse(envelope.payload()).map_or_else(Content::Unreadable, Content::Statement)
        };
        Self { statement: Sha256::of(envelope.payload()), signers, content }
    }

    /// The keys of the role that have signed, with their owners.
    pub fn signers_of<'a>(&'a self, role: &'a RoleKeys) -> impl Iterator<Item = (&'a Sha256, &'a Owner)> {
        self.signers.iter().filter(|(key, _)| role.keys.contains(key))
    }

    /// Signed by enough distinct owners of the role, in this one envelope.
    fn check(&self, what: &'static str, role: &RoleKeys) -> Result<(), Refusal> {
        if self.content == Content::Unsigned {
            return Err(Refusal::SignatureMissing { what });
        }
        let owners: BTreeSet<&Owner> = self.signers_of(role).map(|(_, owner)| owner).collect();
        let valid = u32::try_from(owners.len()).unwrap_or(u32::MAX);
        // A threshold of 0 never passes TrustRoot::check; here it must not mean "anybody" either.
        let threshold = role.threshold.max(1);
        if valid < threshold {
            return Err(Refusal::SignatureInvalid { what, valid, threshold });
        }
        Ok(())
    }

    /// The statement says something else than that the artifact is published.
    fn is_other_business(&self) -> bool {
        match &self.content {
            Content::Statement(statement) => !matches!(statement.predicate, Predicate::Published(_)),
            Content::Unsigned | Content::OfStrangers | Content::Unreadable(_) => false,
        }
    }
}

/// The numbers under which the app's publishers have published exactly this manifest, highest first; at least one.
pub fn publications(
    evidence: &[Evidence],
    trust: &AppTrust,
    digest: Sha256,
    manifest: &Manifest,
) -> Result<Vec<OrderingNumber>, Refusal> {
    let mut found = Vec::new();
    let mut last = Refusal::StatementMissing { manifest: digest };
    for one in evidence {
        // Statements by others are not this rule's business, unless none is left.
        if let Err(refusal) = one.check("the publication", &trust.publishers) {
            if !one.is_other_business() {
                last = refusal;
            }
            continue;
        }
        let statement = match &one.content {
            Content::Statement(statement) => statement,
            Content::Unreadable(refusal) => return Err(refusal.clone()),
            Content::Unsigned | Content::OfStrangers => continue,
        };
        match &statement.predicate {
            Predicate::Published(published) if is_about(statement, published, digest, manifest) => {
                found.push(published.number);
            }
            Predicate::Published(_) => last = Refusal::WrongSubject { manifest: digest },
            Predicate::Approval(_)
            | Predicate::Config(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. } => {}
        }
    }
    if found.is_empty() {
        return Err(last);
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The subject decides; what the statement repeats of the manifest must agree with it.
fn is_about(statement: &Statement, published: &Published, digest: Sha256, manifest: &Manifest) -> bool {
    statement.subject.sha256 == digest
        && published.app == manifest.app
        && published.version == manifest.version
        && published.platform == manifest.platform
}

/// Everybody who has signed that this manifest is published, whether or not others had to as well.
pub fn publishers(evidence: &[Evidence], manifest: Sha256) -> BTreeSet<&Owner> {
    let published = evidence.iter().filter(|one| match &one.content {
        Content::Statement(statement) => {
            statement.subject.sha256 == manifest && matches!(statement.predicate, Predicate::Published(_))
        }
        Content::Unsigned | Content::OfStrangers | Content::Unreadable(_) => false,
    });
    published.flat_map(|one| one.signers.values()).collect()
}

/// Of the app's config for the environment the one with the highest sequence, signed by enough of those who may.
pub fn config<'a>(
    evidence: &'a [Evidence],
    root: &TrustRoot,
    trust: &AppTrust,
    app: &App,
    environment: &Environment,
) -> Result<Option<&'a Config>, Refusal> {
    let invalid = |why: String| Refusal::ConfigInvalid { why };
    let Some(role) = config_role(root, trust) else { return Ok(None) };
    let mut highest: Option<&Config> = None;
    for one in evidence {
        let Content::Statement(Statement { subject, predicate: Predicate::Config(config) }) = &one.content
        else {
            continue;
        };
        if config.app != *app || config.environment != *environment || one.check("config", role).is_err() {
            continue;
        }
        if subject.sha256 != Sha256::of(&json::to_vec(&config.values)) {
            return Err(invalid(format!("config {}: its subject is not its values", config.sequence)));
        }
        if config.sequence == 0 {
            return Err(invalid("sequences begin with 1".to_owned()));
        }
        match highest {
            Some(other) if other.sequence == config.sequence && other.values != config.values => {
                return Err(invalid(format!("there are two configs {}", config.sequence)));
            }
            Some(other) if other.sequence >= config.sequence => {}
            Some(_) | None => highest = Some(config),
        }
    }
    Ok(highest)
}
