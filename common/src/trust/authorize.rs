//! The decision: may this run here, now? One pure function, the same on agent, coordinator and at a desk.
//!
//! [`authorize`] reads from top to bottom: every line is a rule with a refusal of its own, and the first that is broken
//! answers. An order can only choose: which artifact that somebody signed, for which server, when. Only where the gate is
//! publisher-only may it leave out a step.

use super::host_rules;
use crate::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::{ArtifactLimits, ENVELOPE_BYTES, FUTURE_MS, STATEMENTS},
    name::{Environment, Version},
    plan::Plan,
    time::UnixMs,
    trust::{
        AppTrust, Envelope, Gate, Order, OrderKind, OrderingNumber, Predicate, Privilege, Published, Refusal,
        STATEMENT_TYPE, ServersWord, Statement, TrustRoot,
    },
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Intent<'a> {
    /// An order from the coordinator that TLS authenticated as this id: deploy or return.
    Order { order: &'a Order, connected: &'a str },
    /// The agent's own: a deployment failed after `activate`, go back to `good`.
    AutomaticReturn,
    /// The agent's own: after a restart, go on with a deployment that was authorized before. No rule of time applies,
    /// and `root` is the version recorded with it.
    Resume { order: &'a Order },
}

/// The documents that the decision is made from, as received.
#[derive(Clone, Copy, Debug)]
pub struct Documents<'a> {
    /// Of the artifact that would run: for returns, the one being restored.
    pub manifest: &'a [u8],
    pub statements: &'a [Vec<u8>],
    /// The plan document (docs/formats.md) that approvals are bound to, if one came with the order.
    pub plan: Option<&'a [u8]>,
}

/// The server as far as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    pub word: &'a ServersWord,
    pub privilege: &'a Privilege,
    /// As `linux-x86_64`.
    pub platform: &'a str,
}

/// What the agent remembers of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The highest ordering number seen in an accepted order.
    pub highest: Option<OrderingNumber>,
    /// The ordering number that succeeded last: an artifact succeeds once per ordering statement.
    pub succeeded: Option<OrderingNumber>,
    /// The highest term seen from the connected coordinator.
    pub term: u64,
    /// The number of the newest deployment here, if it failed or was returned and nothing has succeeded since: the gate's
    /// `rearm` holds.
    pub failed: Option<OrderingNumber>,
    /// The highest sequence of an accepted config; 0: none yet.
    pub config_sequence: u64,
    /// The digest of the values that `good` last ran with.
    pub config: Option<Sha256>,
    pub good: Option<Installed>,
    pub before: Option<Installed>,
}

/// An artifact that was good here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub manifest: Sha256,
    pub version: Version,
    /// The number of its publication, which the floor is compared with.
    pub published: OrderingNumber,
    /// The directory below `releases/`.
    pub release: String,
}

/// Authorized work. Nothing outside this module can make one, and the executor takes nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub fn get(&self) -> &T {
        &self.0
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

/// What may run.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    pub digest: Sha256,
    pub manifest: Manifest,
    pub plan: Plan,
    /// The publication's number.
    pub published: OrderingNumber,
    /// What the deployment is ordered by in time: the approval's number where the gate has one, else the publication's.
    pub number: OrderingNumber,
}

/// Decides on a deployment or a return. Cancel, confirm and decide carry no artifact: [`authorize_control`].
///
/// A deployment needs all rules. A return goes to what was accepted and good here before, so it needs nobody's key and
/// no time: not the gate, not the publisher, not a live trust root; but it never goes below a floor or to what is
/// revoked. A resumption is held to the rules that do not depend on time, and not to who is connected.
pub fn authorize(
    intent: Intent<'_>,
    documents: Documents<'_>,
    root: &TrustRoot,
    host: Host<'_>,
    memory: &Memory,
    now: UnixMs,
) -> Result<Verified<Work>, Refusal> {
    match intent {
        Intent::Order { order, connected } => {
            check_order(order, connected, root, host.word, memory)?;
            check_kind(order, documents, root, host, memory, Time::Now(now))
        }
        Intent::Resume { order } => {
            check_addressee(order, host.word)?;
            check_kind(order, documents, root, host, memory, Time::Passed)
        }
        Intent::AutomaticReturn => {
            let app = read_manifest(documents.manifest, Sha256::of(documents.manifest))?.app;
            let pointer = memory.good.as_ref().ok_or(Refusal::NothingToReturnTo { app, pointer: "good" })?;
            check_return(pointer, documents, root, host)
        }
    }
    .map(Verified)
}

/// Decides on an order that carries no artifact: right server, environment, coordinator and term.
pub fn authorize_control(
    order: &Order,
    connected: &str,
    root: &TrustRoot,
    word: &ServersWord,
    memory: &Memory,
) -> Result<(), Refusal> {
    check_order(order, connected, root, word, memory)?;
    match &order.order {
        OrderKind::Cancel { .. } | OrderKind::Confirm {} | OrderKind::Once { .. } => Ok(()),
        // Where people must sign, what changes which steps run must be signed too.
        OrderKind::Decide { .. } => check_gate(root, &order.environment),
        OrderKind::Deploy { .. } | OrderKind::Return { .. } => Err(malformed_order("it carries an artifact")),
    }
}

/// The rules that the order alone decides: held to before anything is fetched for it, or kept of it.
pub fn authorize_approach(
    order: &Order,
    connected: &str,
    root: &TrustRoot,
    word: &ServersWord,
    memory: &Memory,
) -> Result<(), Refusal> {
    check_order(order, connected, root, word, memory)?;
    if word.allowances.iter().any(|allowance| allowance.app == order.app) {
        return Ok(());
    }
    Err(Refusal::AppNotAllowed { app: order.app.clone() })
}

/// Whether rules of time apply.
#[derive(Clone, Copy)]
enum Time {
    Now(UnixMs),
    /// They were met when the deployment began.
    Passed,
}

fn check_order(
    order: &Order,
    connected: &str,
    root: &TrustRoot,
    word: &ServersWord,
    memory: &Memory,
) -> Result<(), Refusal> {
    check_addressee(order, word)?;
    let named = root.coordinators.iter().any(|pin| pin.id == order.coordinator);
    if !named || order.coordinator != connected {
        return Err(Refusal::CoordinatorUnknown { coordinator: order.coordinator.clone() });
    }
    if order.term < memory.term {
        return Err(Refusal::OldTerm { ordered: order.term, known: memory.term });
    }
    Ok(())
}

fn check_addressee(order: &Order, word: &ServersWord) -> Result<(), Refusal> {
    order.check_format()?;
    if order.server != word.server {
        return Err(Refusal::WrongServer { own: word.server.clone(), ordered: order.server.clone() });
    }
    // The environment is root's word on this host, whatever the coordinator calls it.
    if order.environment != word.environment {
        let (own, ordered) = (word.environment.clone(), order.environment.clone());
        return Err(Refusal::WrongEnvironment { own, ordered });
    }
    Ok(())
}

fn check_kind(
    order: &Order,
    documents: Documents<'_>,
    root: &TrustRoot,
    host: Host<'_>,
    memory: &Memory,
    time: Time,
) -> Result<Work, Refusal> {
    match &order.order {
        OrderKind::Deploy { manifest, force, .. } => {
            let manifest = read_manifest(documents.manifest, *manifest)?;
            check_app(order, &manifest)?;
            if let Time::Now(now) = time {
                check_expiry(root, now)?;
            }
            let trust = root.apps.get(&order.app).ok_or(Refusal::AppUnknown { app: order.app.clone() })?;
            check_gate(root, &order.environment)?;
            let digest = Sha256::of(documents.manifest);
            let numbers = publications(documents, root, trust, digest, &manifest)?;
            check_revoked(root, digest)?;
            let repeated = Repeated {
                force: *force,
                runs: memory.good.as_ref().map(|good| good.manifest) == Some(digest),
            };
            let number = choose(&numbers, trust, memory, time, repeated)?;
            let plan = host_rules::check(&manifest, host)?;
            Ok(Work { digest, manifest, plan, published: number, number })
        }
        OrderKind::Return { manifest: ordered, .. } => {
            let app = || order.app.clone();
            let pointer = memory
                .before
                .as_ref()
                .ok_or_else(|| Refusal::NothingToReturnTo { app: app(), pointer: "before" })?;
            if *ordered != pointer.manifest {
                return Err(Refusal::WrongReturn { ordered: *ordered, own: pointer.manifest });
            }
            let work = check_return(pointer, documents, root, host)?;
            check_app(order, &work.manifest)?;
            Ok(work)
        }
        OrderKind::Cancel { .. }
        | OrderKind::Confirm {}
        | OrderKind::Decide { .. }
        | OrderKind::Once { .. } => Err(malformed_order("it carries no artifact")),
    }
}

/// The way back to what was good here. Its number is the one recorded when it came.
fn check_return(
    pointer: &Installed,
    documents: Documents<'_>,
    root: &TrustRoot,
    host: Host<'_>,
) -> Result<Work, Refusal> {
    let manifest = read_manifest(documents.manifest, pointer.manifest)?;
    check_revoked(root, pointer.manifest)?;
    // An app that the trust root does not name any more has no floor; what must not come back is revoked by digest.
    if let Some(trust) = root.apps.get(&manifest.app) {
        check_floor(trust, pointer.published)?;
    }
    let plan = host_rules::check(&manifest, host)?;
    Ok(Work {
        digest: pointer.manifest,
        manifest,
        plan,
        published: pointer.published,
        number: pointer.published,
    })
}

fn read_manifest(bytes: &[u8], expected: Sha256) -> Result<Manifest, Refusal> {
    if Sha256::of(bytes) != expected {
        return Err(Refusal::ManifestDigest { expected });
    }
    let max = ArtifactLimits::default().manifest_bytes;
    json::from_slice(bytes, max)
        .map_err(|error| Refusal::Malformed { what: "manifest", why: error.to_string() })
}

fn check_app(order: &Order, manifest: &Manifest) -> Result<(), Refusal> {
    if order.app != manifest.app {
        return Err(malformed_order(&format!(
            "it is for {}, its artifact is of {}",
            order.app, manifest.app
        )));
    }
    Ok(())
}

fn check_expiry(root: &TrustRoot, now: UnixMs) -> Result<(), Refusal> {
    if now >= root.expires { Err(Refusal::TrustRootExpired { expired: root.expires }) } else { Ok(()) }
}

fn check_gate(root: &TrustRoot, environment: &Environment) -> Result<(), Refusal> {
    let environment = environment.clone();
    match root.environments.get(&environment) {
        None => Err(Refusal::EnvironmentUnknown { environment }),
        Some(Gate::PublisherOnly {}) => Ok(()),
        Some(Gate::Statements { require, .. }) => {
            let predicates: Vec<_> = require.iter().map(|rule| rule.predicate.as_str()).collect();
            Err(Refusal::GateUnsupported { environment, predicate: predicates.join(", ") })
        }
    }
}

/// The numbers under which the app's publishers have published exactly this manifest, highest first; at least one.
fn publications(
    documents: Documents<'_>,
    root: &TrustRoot,
    trust: &AppTrust,
    digest: Sha256,
    manifest: &Manifest,
) -> Result<Vec<OrderingNumber>, Refusal> {
    if documents.statements.len() > STATEMENTS {
        let why = format!("{} of them, at most {STATEMENTS} are allowed", documents.statements.len());
        return Err(Refusal::Malformed { what: "statements", why });
    }
    let mut numbers = Vec::new();
    let mut last = Refusal::StatementMissing { manifest: digest };
    for bytes in documents.statements {
        let envelope = Envelope::parse(bytes, ENVELOPE_BYTES)?;
        if envelope.payload_type() != STATEMENT_TYPE {
            continue;
        }
        // Verified first, then parsed. Statements by others are not this rule's business, unless none is left.
        let payload = match envelope.verified_by("the publication", &trust.publishers, &root.keys) {
            Ok(payload) => payload,
            Err(refusal) => {
                last = refusal;
                continue;
            }
        };
        let statement = Statement::parse(payload)?;
        match &statement.predicate {
            Predicate::Published(published) if is_about(&statement, published, digest, manifest) => {
                numbers.push(published.number);
            }
            Predicate::Published(_) => last = Refusal::WrongSubject { manifest: digest },
            Predicate::Approval(_)
            | Predicate::Config(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. } => {}
        }
    }
    if numbers.is_empty() {
        return Err(last);
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// The subject decides; what the statement repeats of the manifest must agree with it.
fn is_about(statement: &Statement, published: &Published, digest: Sha256, manifest: &Manifest) -> bool {
    statement.subject.sha256 == digest
        && published.app == manifest.app
        && published.version == manifest.version
        && published.platform == manifest.platform
}

/// What a used-up statement is measured by.
#[derive(Clone, Copy)]
struct Repeated {
    force: bool,
    /// The artifact is this server's good one.
    runs: bool,
}

/// The number to deploy under: of several publications of the same bytes the highest that may be used, else the refusal
/// of the highest. A resumption goes on under the number that it was accepted with.
fn choose(
    numbers: &[OrderingNumber],
    trust: &AppTrust,
    memory: &Memory,
    time: Time,
    repeated: Repeated,
) -> Result<OrderingNumber, Refusal> {
    let mut first = None;
    let accepted = numbers.iter().find(|number| Some(**number) == memory.highest);
    let order = match time {
        Time::Now(_) => None,
        Time::Passed => accepted,
    };
    for number in order.into_iter().chain(numbers) {
        match check_number(*number, trust, memory, time, repeated) {
            Ok(()) => return Ok(*number),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    Err(first.unwrap_or(Refusal::SignatureMissing { what: "the publication" }))
}

fn check_number(
    number: OrderingNumber,
    trust: &AppTrust,
    memory: &Memory,
    time: Time,
    repeated: Repeated,
) -> Result<(), Refusal> {
    check_floor(trust, number)?;
    if number.epoch != trust.epoch {
        return Err(Refusal::WrongEpoch { given: number.epoch, current: trust.epoch });
    }
    let Time::Now(now) = time else { return Ok(()) };
    if number.ms.0 > now.0.saturating_add(FUTURE_MS) {
        return Err(Refusal::FarFuture { number, now });
    }
    if let Some(known) = memory.highest.filter(|known| number < *known) {
        return Err(Refusal::Older { ordered: number, known });
    }
    // Ordering what runs already is no second success: it ends as a no-op. `force` asks for one, and needs a new statement.
    let no_op = repeated.runs && !repeated.force;
    if memory.succeeded == Some(number) && !no_op {
        return Err(Refusal::UsedUp { number });
    }
    Ok(())
}

fn check_revoked(root: &TrustRoot, manifest: Sha256) -> Result<(), Refusal> {
    if root.revoked.contains(&manifest) { Err(Refusal::Revoked { manifest }) } else { Ok(()) }
}

fn check_floor(trust: &AppTrust, number: OrderingNumber) -> Result<(), Refusal> {
    if number < trust.floor { Err(Refusal::BelowFloor { number, floor: trust.floor }) } else { Ok(()) }
}

fn malformed_order(why: &str) -> Refusal {
    Refusal::Malformed { what: "order", why: why.to_owned() }
}

#[cfg(test)]
#[path = "authorize_tests/mod.rs"]
mod tests;
