//! The decision: may this run here, now? One pure function, the same on agent, coordinator and at a desk.
//!
//! [`authorize`] reads from top to bottom: every line is a rule with a refusal of its own, and the first that is broken
//! answers. An order can only choose: which artifact that somebody signed, for which server, when. It may leave out a step
//! only where the gate is publisher-only, or those who approve have signed that, too.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    evidence::{self, Evidence},
    gate::{self, Act, Arrival, Time},
    host_rules,
    review::{Case, Reviewed, check_floor, check_revoked, invalid_config, read_manifest, review},
};
use crate::{
    artifact::Manifest,
    config::{InForce, InvalidConfig, Values, effective},
    digest::Sha256,
    name::{StepName, Version},
    plan::Plan,
    time::UnixMs,
    trust::{Foreseen, Order, OrderKind, OrderingNumber, Privilege, Refusal, ServersWord, TrustRoot},
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
    /// When the newest deployment here ended, if it failed or was returned and nothing has succeeded since: the gate's
    /// `rearm` holds. No approval from before counts for it, whatever it approves.
    pub failed: Option<OrderingNumber>,
    /// The highest sequence of an accepted config; 0: none yet.
    pub config_sequence: u64,
    /// The SHA-256s of the statements by which an accepted order decided something here.
    pub decided: BTreeSet<Sha256>,
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
    /// What it last ran with. Absent where no agent wrote it down yet: its plan's defaults.
    pub config: Option<InForce>,
}

impl Installed {
    /// The config that it last ran with: its way back changes nothing but the artifact.
    fn ran_with(&self, plan: &Plan) -> Result<InForce, InvalidConfig> {
        match &self.config {
            Some(config) => Ok(config.clone()),
            None => Ok(InForce { sequence: 0, values: effective(plan, None)? }),
        }
    }

    /// Whether a deployment of this would change nothing of it.
    pub fn is_as(&self, work: &Work) -> bool {
        self.manifest == work.digest
            && self.ran_with(&work.plan).is_ok_and(|config| config.values == work.config)
    }
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
    /// What the deployment is ordered by in time: the approval's number where the gate asks for one, else the
    /// publication's.
    pub number: OrderingNumber,
    /// The values of the plan's parameters; of secret ones the commitments.
    pub config: Values,
    /// Of the config statement that gives them; 0: there is none.
    pub config_sequence: u64,
    /// What the order, or the plan document that came with it, says of steps' conditions: they must come out so.
    pub pinned: BTreeMap<StepName, Foreseen>,
    /// The SHA-256s of the decisions by which it leaves out steps, each once.
    pub decided: Vec<Sha256>,
}

/// What an order would come to: nothing that an executor takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub work: Work,
    /// Why it would not be let through now, though this is what it would do: the gate, or its number.
    pub held: Option<Refusal>,
}

/// What a word about a deployment is judged by, beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Deciding<'a> {
    /// The artifact that the deployment's order names; `None` where no such deployment is known.
    pub manifest: Option<Sha256>,
    /// As they came with the word.
    pub statements: &'a [Vec<u8>],
    pub now: UnixMs,
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
    let decided = match intent {
        Intent::Order { order, connected } => {
            check_order(order, connected, root, host.word, memory)?;
            check_kind(order, documents, root, host, memory, Time::Now(now))?
        }
        Intent::Resume { order } => {
            check_addressee(order, host.word)?;
            let time = Time::Passed { accepted: memory.highest };
            check_kind(order, documents, root, host, memory, time)?
        }
        Intent::AutomaticReturn => {
            let app = read_manifest(documents.manifest, Sha256::of(documents.manifest))?.app;
            let pointer = memory.good.as_ref().ok_or(Refusal::NothingToReturnTo { app, pointer: "good" })?;
            Preview { work: check_return(pointer, documents, root, host)?, held: None }
        }
    };
    match decided.held {
        None => Ok(Verified(decided.work)),
        Some(refusal) => Err(refusal),
    }
}

/// What an order would come to, also where its gate is not met yet: those who are asked to approve see it first.
pub fn preview(
    order: &Order,
    connected: &str,
    documents: Documents<'_>,
    root: &TrustRoot,
    host: Host<'_>,
    memory: &Memory,
    now: UnixMs,
) -> Result<Preview, Refusal> {
    check_order(order, connected, root, host.word, memory)?;
    check_kind(order, documents, root, host, memory, Time::Now(now))
}

/// Decides on an order that carries no artifact: right server, environment, coordinator and term; and where people must
/// sign, what changes which steps run must be signed too. The SHA-256s of the statements that decided it: remembered, they
/// decide nothing more.
pub fn authorize_control(
    order: &Order,
    connected: &str,
    root: &TrustRoot,
    word: &ServersWord,
    memory: &Memory,
    deciding: Deciding<'_>,
) -> Result<Vec<Sha256>, Refusal> {
    check_order(order, connected, root, word, memory)?;
    match &order.order {
        OrderKind::Cancel { .. } | OrderKind::Confirm {} | OrderKind::Once { .. } => Ok(Vec::new()),
        OrderKind::Decide { step, action, reason: _ } => {
            let evidence = evidence::read(deciding.statements, root, &order.app, &order.environment)?;
            let (rollout, server, used) = (&order.rollout, &order.server, &memory.decided);
            let act = Act { rollout, server, step, action: *action, used };
            let (environment, time) = (&order.environment, Time::Now(deciding.now));
            gate::decide(root, environment, deciding.manifest, time, act, &evidence)?.map_err(|lacks| {
                let (environment, step, action) = (environment.clone(), step.clone(), *action);
                Refusal::DecisionMissing { environment, step, action, lacks: Box::new(lacks) }
            })
        }
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
) -> Result<Preview, Refusal> {
    match &order.order {
        OrderKind::Deploy { manifest, force, skip, plan, confirm_ms: _, converge } => {
            let ordered = Ordered {
                manifest: *manifest,
                again: if *force { Again::Forced } else { Again::IfOther },
                skip,
                foreseen: plan,
                arrival: if *converge { Arrival::Later } else { Arrival::WithTheOthers },
            };
            check_deploy(order, ordered, documents, root, host, memory, time)
        }
        OrderKind::Return { manifest: ordered, skip, .. } => {
            let app = || order.app.clone();
            let pointer = memory
                .before
                .as_ref()
                .ok_or_else(|| Refusal::NothingToReturnTo { app: app(), pointer: "before" })?;
            if *ordered != pointer.manifest {
                return Err(Refusal::WrongReturn { ordered: *ordered, own: pointer.manifest });
            }
            let mut work = check_return(pointer, documents, root, host)?;
            check_app(order, &work.manifest)?;
            if skip.is_empty() {
                return Ok(Preview { work, held: None });
            }
            let evidence = evidence::read(documents.statements, root, &order.app, &order.environment)?;
            let used = used(memory, time, None);
            let skips = check_skips(order, skip, work.digest, root, time, &evidence, &used);
            let (decided, held) = split(skips);
            work.decided = decided;
            Ok(Preview { work, held })
        }
        OrderKind::Cancel { .. }
        | OrderKind::Confirm {}
        | OrderKind::Decide { .. }
        | OrderKind::Once { .. } => Err(malformed_order("it carries no artifact")),
    }
}

/// What a deploy order asks for.
struct Ordered<'a> {
    manifest: Sha256,
    again: Again,
    skip: &'a [StepName],
    foreseen: &'a BTreeMap<StepName, Foreseen>,
    arrival: Arrival,
}

/// What of an artifact that runs already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    IfOther,
    Forced,
}

fn check_deploy(
    order: &Order,
    ordered: Ordered<'_>,
    documents: Documents<'_>,
    root: &TrustRoot,
    host: Host<'_>,
    memory: &Memory,
    time: Time,
) -> Result<Preview, Refusal> {
    let manifest = read_manifest(documents.manifest, ordered.manifest)?;
    let digest = Sha256::of(documents.manifest);
    check_app(order, &manifest)?;
    let case = Case {
        root,
        environment: &order.environment,
        digest,
        manifest: &manifest,
        statements: documents.statements,
        plan: documents.plan,
        server: Some(&order.server),
        arrival: ordered.arrival,
        memory,
        time,
    };
    let Reviewed { evidence, published, plan, config, pinned, assessed } = review(case)?;
    host_rules::check(&manifest, &plan, host)?;
    let repeated = Repeated::of(memory, digest, &config, &plan, ordered.again);
    let (published, number, in_order) = choose(&published, assessed.number, memory, time, repeated);
    let unmet = assessed.refusal(&order.environment).map_or(Ok(()), Err);
    let used = used(memory, time, Some(number));
    let skips = unmet
        .and_then(|()| check_skips(order, ordered.skip, digest, root, time, &evidence, &used))
        .and_then(|decided| in_order.map(|()| decided));
    let (decided, held) = split(skips);
    let InForce { sequence: config_sequence, values: config } = config;
    let pinned = merge(pinned, ordered.foreseen)?;
    let work = Work { digest, manifest, plan, published, number, config, config_sequence, pinned, decided };
    Ok(Preview { work, held })
}

/// Where order and plan document both speak of a step they say the same.
fn merge(
    mut pinned: BTreeMap<StepName, Foreseen>,
    ordered: &BTreeMap<StepName, Foreseen>,
) -> Result<BTreeMap<StepName, Foreseen>, Refusal> {
    for (step, foreseen) in ordered {
        if pinned.insert(step.clone(), *foreseen).is_some_and(|other| other != *foreseen) {
            return Err(malformed_order(&format!("it foresees {step} otherwise than its plan document")));
        }
    }
    Ok(pinned)
}

/// The decisions that count no more. What was decided for a deployment counts for its repetition under the same ordering
/// statement, as a retry is one; where people have signed again, they decide again.
fn used(memory: &Memory, time: Time, number: Option<OrderingNumber>) -> Cow<'_, BTreeSet<Sha256>> {
    match time {
        Time::Now(_) if number.is_none() || number != memory.highest => Cow::Borrowed(&memory.decided),
        Time::Now(_) | Time::Passed { .. } => Cow::default(),
    }
}

fn split<T: Default, E>(result: Result<T, E>) -> (T, Option<E>) {
    match result {
        Ok(value) => (value, None),
        Err(error) => (T::default(), Some(error)),
    }
}

/// Where people must sign, each step that is left out needs their decision.
fn check_skips(
    order: &Order,
    skip: &[StepName],
    manifest: Sha256,
    root: &TrustRoot,
    time: Time,
    evidence: &[Evidence],
    used: &BTreeSet<Sha256>,
) -> Result<Vec<Sha256>, Refusal> {
    let mut decided = BTreeSet::new();
    for step in skip {
        let action = super::DecisionAction::Skip;
        let act = Act { rollout: &order.rollout, server: &order.server, step, action, used };
        let environment = &order.environment;
        decided.extend(gate::decide(root, environment, Some(manifest), time, act, evidence)?.map_err(
            |lacks| {
                let (environment, step) = (environment.clone(), step.clone());
                Refusal::SkipUnsigned { environment, step, lacks: Box::new(lacks) }
            },
        )?);
    }
    Ok(decided.into_iter().collect())
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
    let plan = host_rules::read_plan(&manifest)?;
    host_rules::check(&manifest, &plan, host)?;
    let InForce { sequence, values } = pointer.ran_with(&plan).map_err(|error| invalid_config(&error))?;
    Ok(Work {
        digest: pointer.manifest,
        manifest,
        plan,
        published: pointer.published,
        number: pointer.published,
        config: values,
        config_sequence: sequence,
        pinned: BTreeMap::new(),
        decided: Vec::new(),
    })
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

/// What a used-up statement is measured by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeated {
    /// Ordering what runs already, as it runs, is no second success: it ends as a no-op.
    NoOp,
    /// It runs already, and a config that was signed since is what is new.
    NewConfig,
    /// It takes a new statement. `force` asks for one, too.
    Anew,
}

impl Repeated {
    fn of(memory: &Memory, digest: Sha256, config: &InForce, plan: &Plan, again: Again) -> Self {
        let Some(good) = memory.good.as_ref().filter(|good| good.manifest == digest) else {
            return Self::Anew;
        };
        // It runs this very plan: where nothing was written down, it ran with what is written in it.
        let Ok(known) = good.ran_with(plan) else { return Self::Anew };
        if known.values != config.values && config.sequence > known.sequence {
            return Self::NewConfig;
        }
        match again {
            Again::IfOther if known.values == config.values => Self::NoOp,
            Again::IfOther | Again::Forced => Self::Anew,
        }
    }
}

/// The publication that counts, the number to deploy under, and whether that may be. Where approvals order it, theirs;
/// else of several publications of the same bytes the highest that may be used, or the highest. A resumption goes on
/// under the number that it was accepted with.
fn choose(
    published: &[OrderingNumber],
    approved: Option<OrderingNumber>,
    memory: &Memory,
    time: Time,
    repeated: Repeated,
) -> (OrderingNumber, OrderingNumber, Result<(), Refusal>) {
    let highest = published.first().copied().unwrap_or_default();
    if let Some(number) = approved {
        // None is known to have counted when it began: the lowest is the one that a floor would stop first.
        let published = match time {
            Time::Now(_) => highest,
            Time::Passed { .. } => published.last().copied().unwrap_or_default(),
        };
        return (published, number, check_order_in_time(number, memory, time, repeated));
    }
    let accepted = match time {
        Time::Now(_) => None,
        Time::Passed { accepted } => accepted.filter(|accepted| published.contains(accepted)),
    };
    let usable = |number: &OrderingNumber| check_order_in_time(*number, memory, time, repeated).is_ok();
    let number = accepted.or_else(|| published.iter().copied().find(usable)).unwrap_or(highest);
    (number, number, check_order_in_time(number, memory, time, repeated))
}

fn check_order_in_time(
    number: OrderingNumber,
    memory: &Memory,
    time: Time,
    repeated: Repeated,
) -> Result<(), Refusal> {
    match time {
        Time::Now(_) => {}
        Time::Passed { .. } => return Ok(()),
    }
    if let Some(known) = memory.highest.filter(|known| number < *known) {
        return Err(Refusal::Older { ordered: number, known });
    }
    if memory.succeeded == Some(number) && repeated == Repeated::Anew {
        return Err(Refusal::UsedUp { number });
    }
    Ok(())
}

fn malformed_order(why: &str) -> Refusal {
    Refusal::Malformed { what: "order", why: why.to_owned() }
}

#[cfg(test)]
#[path = "authorize_tests/mod.rs"]
mod tests;
