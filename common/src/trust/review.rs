//! What signed documents say of an artifact in an environment, whatever server it is for: who published it, with which
//! config, and whether the gate is met. The decision begins here; so does whoever shows beforehand what it will be.

use std::collections::BTreeMap;

use super::{
    AppTrust, Foreseen, OrderingNumber, PlanDocument, Refusal, TrustRoot,
    authorize::Memory,
    evidence::{self, Evidence},
    gate::{Arrival, Assessed, Question, Time, assess, is_far_future},
    host_rules,
};
use crate::{
    artifact::Manifest,
    config::{InForce, InvalidConfig, effective},
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{Environment, ServerName, StepName},
    plan::Plan,
    time::UnixMs,
};

/// What is to be reviewed.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub root: &'a TrustRoot,
    pub environment: &'a Environment,
    pub digest: Sha256,
    /// What has that digest.
    pub manifest: &'a Manifest,
    pub statements: &'a [Vec<u8>],
    /// The plan document, if there is one.
    pub plan: Option<&'a [u8]>,
    /// `None`: for none in particular. Then a plan document binds nothing, and need not have it.
    pub server: Option<&'a ServerName>,
    pub arrival: Arrival,
    /// What the server remembers of the app; the default where nobody knows.
    pub memory: &'a Memory,
    pub time: Time,
}

/// What the documents come to. Whether the gate is met is in [`Assessed`]: those who are asked to sign see the rest, too.
#[derive(Clone, Debug)]
pub struct Reviewed {
    pub evidence: Vec<Evidence>,
    /// The numbers of the publications that may count, highest first; at least one.
    pub published: Vec<OrderingNumber>,
    pub plan: Plan,
    pub config: InForce,
    /// What the plan document says of the server's steps.
    pub pinned: BTreeMap<StepName, Foreseen>,
    pub assessed: Assessed,
}

/// From the trust root to the gate, every rule that does not depend on the server.
pub fn review(case: Case<'_>) -> Result<Reviewed, Refusal> {
    let Case { root, environment, digest, manifest, memory, time, .. } = case;
    match time {
        Time::Now(now) => check_expiry(root, now)?,
        Time::Passed { .. } => {}
    }
    let app = &manifest.app;
    let trust = root.apps.get(app).ok_or_else(|| Refusal::AppUnknown { app: app.clone() })?;
    if !root.environments.contains_key(environment) {
        return Err(Refusal::EnvironmentUnknown { environment: environment.clone() });
    }
    let evidence = evidence::read(case.statements, root, app, environment)?;
    let published = evidence::publications(&evidence, trust, digest, manifest)?;
    check_revoked(root, digest)?;
    let published = in_time(&published, trust, time)?;
    let plan = host_rules::read_plan(manifest)?;
    let config = evidence::config(&evidence, root, trust, app, environment)?;
    let sequence = config.map_or(0, |config| config.sequence);
    check_sequence(sequence, memory, time)?;
    let values =
        effective(&plan, config.map(|config| &config.values)).map_err(|error| invalid_config(&error))?;
    let config = InForce { sequence, values };
    let Bound { document, pinned } = bind(&case, &config, &plan)?;
    let question = Question {
        root,
        app,
        environment,
        manifest: digest,
        config: &config,
        plan: document,
        arrival: case.arrival,
        failed: memory.failed,
        time,
    };
    let assessed = assess(&question, &evidence)?;
    Ok(Reviewed { evidence, published, plan, config, pinned, assessed })
}

/// A config never goes back; and once there is one, there is always one.
fn check_sequence(ordered: u64, memory: &Memory, time: Time) -> Result<(), Refusal> {
    let known = memory.config_sequence;
    match time {
        Time::Now(_) if ordered < known => Err(Refusal::ConfigOlder { ordered, known }),
        Time::Now(_) | Time::Passed { .. } => Ok(()),
    }
}

/// What the plan document says of this server.
#[derive(Default)]
struct Bound {
    document: Option<Sha256>,
    pinned: BTreeMap<StepName, Foreseen>,
}

/// A plan document is about this artifact with this config, and has this server: no other may come with an order.
fn bind(case: &Case<'_>, config: &InForce, plan: &Plan) -> Result<Bound, Refusal> {
    let Some(bytes) = case.plan else { return Ok(Bound::default()) };
    let other = |why: String| Err(Refusal::PlanOther { why });
    let document = PlanDocument::parse(bytes)?;
    if document.artifact != case.digest {
        return other(format!("it is about the artifact {}", document.artifact));
    }
    if document.config != Some(config.digest()).filter(|_| config.sequence > 0) {
        return other("it is about another config than the one that came".to_owned());
    }
    let bound = |pinned| Bound { document: Some(Sha256::of(bytes)), pinned };
    let Some(server) = case.server else { return Ok(bound(BTreeMap::new())) };
    match document.pinned(server, plan)? {
        Some(pinned) => Ok(bound(pinned)),
        None => other(format!("it does not have {server}")),
    }
}

/// The publications that may count, highest first: at or above the floor, of the app's epoch, not from the future. Else
/// the refusal of the highest.
fn in_time(found: &[OrderingNumber], trust: &AppTrust, time: Time) -> Result<Vec<OrderingNumber>, Refusal> {
    let mut first = None;
    let mut numbers = Vec::new();
    for number in found {
        match check_published(*number, trust, time) {
            Ok(()) => numbers.push(*number),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    match first {
        Some(refusal) if numbers.is_empty() => Err(refusal),
        Some(_) | None => Ok(numbers),
    }
}

fn check_published(number: OrderingNumber, trust: &AppTrust, time: Time) -> Result<(), Refusal> {
    check_floor(trust, number)?;
    if number.epoch != trust.epoch {
        return Err(Refusal::WrongEpoch { given: number.epoch, current: trust.epoch });
    }
    match time {
        Time::Now(now) if is_far_future(number.ms, now) => Err(Refusal::FarFuture { number, now }),
        Time::Now(_) | Time::Passed { .. } => Ok(()),
    }
}

fn check_expiry(root: &TrustRoot, now: UnixMs) -> Result<(), Refusal> {
    if now >= root.expires { Err(Refusal::TrustRootExpired { expired: root.expires }) } else { Ok(()) }
}

pub(super) fn check_revoked(root: &TrustRoot, manifest: Sha256) -> Result<(), Refusal> {
    if root.revoked.contains(&manifest) { Err(Refusal::Revoked { manifest }) } else { Ok(()) }
}

pub(super) fn check_floor(trust: &AppTrust, number: OrderingNumber) -> Result<(), Refusal> {
    if number < trust.floor { Err(Refusal::BelowFloor { number, floor: trust.floor }) } else { Ok(()) }
}

pub(super) fn invalid_config(error: &InvalidConfig) -> Refusal {
    Refusal::ConfigInvalid { why: error.to_string() }
}

pub(super) fn read_manifest(bytes: &[u8], expected: Sha256) -> Result<Manifest, Refusal> {
    if Sha256::of(bytes) != expected {
        return Err(Refusal::ManifestDigest { expected });
    }
    let max = ArtifactLimits::default().manifest_bytes;
    json::from_slice(bytes, max)
        .map_err(|error| Refusal::Malformed { what: "manifest", why: error.to_string() })
}
