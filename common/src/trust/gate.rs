//! Gates: whose statements let an artifact into an environment. Pure; the decision itself asks here, and so does whoever
//! shows beforehand what it will be, so that the two cannot disagree.
//!
//! A rule counts distinct owners who have signed a statement of its predicate type about exactly this manifest, with a key
//! of its role. Several envelopes add up. What does not count is told with the reason.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    APPROVAL, Approval, DECISION, Decision, DecisionAction, Gate, GateRule, OrderKind, OrderingNumber,
    Predicate, Refusal, RoleKeys, Separation, Statement, TrustRoot,
    condition::Where,
    evidence::{Content, Evidence, publishers},
    matching::{Need, assign},
};
use crate::{
    config::InForce,
    deployment::DeploymentOutcome,
    digest::Sha256,
    limits::FUTURE_MS,
    name::{App, Environment, Id, Owner, ServerName, StepName},
    time::UnixMs,
};

/// What a gate is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub root: &'a TrustRoot,
    pub app: &'a App,
    pub environment: &'a Environment,
    pub manifest: Sha256,
    pub config: &'a InForce,
    /// The digest of the plan document, if one came that has this server.
    pub plan: Option<Sha256>,
    pub arrival: Arrival,
    /// The last deployment of the app here did not succeed: `rearm` holds.
    pub failed: Option<OrderingNumber>,
    pub time: Time,
}

/// Until when an approval counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Until its `start_by`.
    WithTheOthers,
    /// Until its `converge_until`: the server comes later to what the others run.
    Later,
}

/// Whether rules of time apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    Now(UnixMs),
    /// They were met when the deployment began, under this number.
    Passed {
        accepted: Option<OrderingNumber>,
    },
}

/// What the gate comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessed {
    /// In their order: those of `require`, then those of `rearm` where they hold. Empty where the publisher is enough.
    pub rules: Vec<RuleState>,
    /// What the deployment is ordered by, where the gate is met and asks for approvals: the lowest number of those that
    /// count. Of approvals that could count in several ways, it is the highest that can be had.
    pub number: Option<OrderingNumber>,
}

/// How far one rule is met.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleState {
    pub rule: GateRule,
    pub part: Part,
    /// One entry for each owner.
    pub counted: Vec<Vote>,
    /// How many more owners it takes.
    pub missing: u32,
    /// Statements of the rule's predicate type that came and do not count.
    pub uncounted: Vec<Uncounted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Require,
    Rearm,
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    pub owner: Owner,
    pub key: Sha256,
    /// The SHA-256 of the statement's bytes.
    pub statement: Sha256,
    /// Of an approval.
    pub number: Option<OrderingNumber>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Uncounted {
    pub statement: Sha256,
    pub owners: Vec<Owner>,
    pub why: Why,
}

/// Why a statement does not count for a rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Why {
    #[error("nobody who signed it has the role")]
    NotOfRole,
    #[error("{0}")]
    Unreadable(Refusal),
    #[error("it is about another artifact, {0}")]
    OtherArtifact(Sha256),
    #[error("it is for the app {0}")]
    OtherApp(App),
    #[error("it is for {0}")]
    OtherEnvironment(Environment),
    #[error("it was signed in epoch {given}, the app's is {current}")]
    Epoch { given: u64, current: u64 },
    #[error("it was signed at {number}, more than ten minutes ahead of the clock")]
    FarFuture { number: OrderingNumber, now: UnixMs },
    #[error("it approves {}, and {in_force} is in force", or_none(*.approved, "no config"))]
    Config { approved: Option<Sha256>, in_force: Sha256 },
    #[error("it approves the plan {approved}, and the order comes with {}", or_none(*.given, "none that has this server"))]
    Plan { approved: Sha256, given: Option<Sha256> },
    #[error("it counted until {until}")]
    Expired { until: UnixMs, now: UnixMs },
    #[error(
        "it was signed at {number}, and since then, at {failed}, a deployment here failed or was returned"
    )]
    BeforeFailure { number: OrderingNumber, failed: OrderingNumber },
    #[error("{0}")]
    OtherDecision(&'static str),
    #[error("something was decided by it here already, and what is signed once decides once")]
    Used,
    #[error("`where` is false over it")]
    Condition,
    #[error("`where`: {0}")]
    ConditionFailed(String),
    #[error("its owner has also signed the publication")]
    Publisher,
    #[error("its owner counts for another rule already")]
    CountsElsewhere,
}

fn or_none(digest: Option<Sha256>, none: &'static str) -> String {
    digest.map_or_else(|| none.to_owned(), |digest| digest.to_string())
}

/// What an operator decides, and the statement must say.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    pub rollout: &'a Id,
    pub server: &'a ServerName,
    pub step: &'a StepName,
    pub action: DecisionAction,
    /// Statements by which something was decided on this server already, and which decide nothing more.
    pub used: &'a BTreeSet<Sha256>,
}

/// What is missing of a decision's signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{need} of {role}, and {have} have signed it{why}")]
pub struct Undecided {
    pub role: String,
    pub have: u32,
    pub need: u32,
    pub why: Because,
}

/// A rule with all that could count for it; those of `require` stand before those of `rearm`.
struct Standing<'a> {
    rule: &'a GateRule,
    part: Part,
    votes: Vec<Vote>,
    uncounted: Vec<Uncounted>,
}

/// Every rule that holds, who counts for it, and what is missing. An environment that the trust root does not name has no
/// gate that could be met.
pub fn assess(question: &Question<'_>, evidence: &[Evidence]) -> Result<Assessed, Refusal> {
    let Some((require, rearm, separation)) = rules(question.root, question.environment)? else {
        return Ok(Assessed::default());
    };
    let rearm = if question.failed.is_some() { rearm } else { &[] };
    let parts =
        require.iter().map(|rule| (Part::Require, rule)).chain(rearm.iter().map(|rule| (Part::Rearm, rule)));
    let apart = kept_apart(separation, evidence, question.manifest);
    let standings: Vec<Standing<'_>> = parts
        .map(|(part, rule)| {
            let condition = rule.condition.as_deref().map(Where::compile).transpose();
            stand(question.root, rule, part, evidence, &apart, |_, statement| {
                counts(question, part, statement)?;
                match &condition {
                    Ok(None) => Ok(()),
                    Ok(Some(condition)) => holds(condition, statement),
                    Err(error) => Err(Why::ConditionFailed(error.to_string())),
                }
            })
        })
        .collect();

    let mut numbers: BTreeSet<OrderingNumber> =
        standings.iter().flat_map(|standing| &standing.votes).filter_map(|vote| vote.number).collect();
    // A resumption goes on under the number that it was accepted with, whatever else counts by now.
    let accepted = match question.time {
        Time::Now(_) => None,
        Time::Passed { accepted } => accepted.filter(|number| numbers.remove(number)),
    };
    // From the highest down, the first with which all rules are met is the lowest of those that count.
    for from in accepted.into_iter().chain(numbers.into_iter().rev()) {
        let rules = fill(&standings, Some(from), separation);
        if rules.iter().all(|state| state.missing == 0) {
            return Ok(Assessed { rules, number: Some(from) });
        }
    }
    // No approval is asked for, or not all that is asked for is there.
    Ok(Assessed { rules: fill(&standings, None, separation), number: None })
}

/// Whether those who approve have signed what an operator decides, and by which statements. In an environment whose gate
/// is the publisher alone nobody has to.
pub fn decide(
    root: &TrustRoot,
    environment: &Environment,
    manifest: Option<Sha256>,
    time: Time,
    act: Act<'_>,
    evidence: &[Evidence],
) -> Result<Result<Vec<Sha256>, Undecided>, Refusal> {
    let Some((require, rearm, separation)) = rules(root, environment)? else {
        return Ok(Ok(Vec::new()));
    };
    let asks = |rules: &[GateRule]| rules.iter().any(|rule| rule.predicate == APPROVAL);
    let deciding = if asks(require) { require } else { rearm };
    let deciding: Vec<GateRule> = deciding
        .iter()
        .filter(|rule| rule.predicate == APPROVAL)
        // Its `where` is about approvals; nothing asks for it here.
        .map(|rule| GateRule { predicate: DECISION.to_owned(), ..rule.clone() })
        .collect();
    let Some(first) = deciding.first() else {
        let role = "nobody: no rule asks for approvals".to_owned();
        return Ok(Err(Undecided { role, have: 0, need: 1, why: Because::default() }));
    };
    let Some(manifest) = manifest else {
        let (role, need) = (first.role.to_string(), need(first));
        return Ok(Err(Undecided { role, have: 0, need, why: Because::default() }));
    };
    if separation != Separation::None && publishers(evidence, manifest).is_empty() {
        return Err(Refusal::StatementMissing { manifest });
    }
    let apart = kept_apart(separation, evidence, manifest);
    let standings: Vec<Standing<'_>> = deciding
        .iter()
        .map(|rule| {
            stand(root, rule, Part::Require, evidence, &apart, |digest, statement| {
                decides(environment, manifest, time, act, statement)?;
                if act.used.contains(&digest) { Err(Why::Used) } else { Ok(()) }
            })
        })
        .collect();
    let states = fill(&standings, None, separation);
    if let Some(unmet) = states.iter().find(|state| !state.is_met()) {
        let (role, have, need) = (unmet.rule.role.to_string(), unmet.have(), unmet.need());
        return Ok(Err(Undecided { role, have, need, why: Because::of(unmet.closest()) }));
    }
    // All that could have counted is used up, lest what is left over decides once more.
    let statements: BTreeSet<Sha256> =
        standings.iter().flat_map(|standing| &standing.votes).map(|vote| vote.statement).collect();
    Ok(Ok(statements.into_iter().collect()))
}

type Rules<'a> = Option<(&'a [GateRule], &'a [GateRule], Separation)>;

/// `None`: the publisher is enough.
fn rules<'a>(root: &'a TrustRoot, environment: &Environment) -> Result<Rules<'a>, Refusal> {
    match root.environments.get(environment) {
        None => Err(Refusal::EnvironmentUnknown { environment: environment.clone() }),
        Some(Gate::PublisherOnly {}) => Ok(None),
        // Said as nothing to require, which no trust root may: closed.
        Some(Gate::Statements { require, .. }) if require.is_empty() => {
            Err(Refusal::TrustRootInvalid { why: format!("gate of {environment}: it requires nothing") })
        }
        Some(Gate::Statements { require, rearm, separation }) => Ok(Some((require, rearm, *separation))),
    }
}

/// Whose signatures count for no rule.
fn kept_apart(separation: Separation, evidence: &[Evidence], manifest: Sha256) -> BTreeSet<&Owner> {
    match separation {
        Separation::None => BTreeSet::new(),
        Separation::Publisher | Separation::All => publishers(evidence, manifest),
    }
}

/// All that came for one rule, judged by `check`.
fn stand<'a>(
    root: &TrustRoot,
    rule: &'a GateRule,
    part: Part,
    evidence: &[Evidence],
    apart: &BTreeSet<&Owner>,
    check: impl Fn(Sha256, &Statement) -> Result<(), Why>,
) -> Standing<'a> {
    let nobody = RoleKeys { keys: Vec::new(), threshold: 1 };
    let role = root.roles.get(&rule.role).unwrap_or(&nobody);
    let mut standing = Standing { rule, part, votes: Vec::new(), uncounted: Vec::new() };
    for one in evidence {
        let signers: Vec<(&Sha256, &Owner)> = one.signers_of(role).collect();
        let mut leave = |owners: Vec<Owner>, why| {
            standing.uncounted.push(Uncounted { statement: one.statement, owners, why });
        };
        let owners = || signers.iter().map(|(_, owner)| (*owner).clone()).collect();
        let statement = match &one.content {
            Content::Statement(statement) if statement.predicate.type_name() == rule.predicate => statement,
            Content::Unreadable(refusal) if !signers.is_empty() => {
                leave(owners(), Why::Unreadable(refusal.clone()));
                continue;
            }
            Content::Statement(_) | Content::Unreadable(_) | Content::Unsigned | Content::OfStrangers => {
                continue;
            }
        };
        if signers.is_empty() {
            leave(one.signers.values().cloned().collect(), Why::NotOfRole);
            continue;
        }
        if let Err(why) = check(one.statement, statement) {
            leave(owners(), why);
            continue;
        }
        let number = match &statement.predicate {
            Predicate::Approval(approval) => Some(approval.number),
            Predicate::Published(_)
            | Predicate::Config(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. } => None,
        };
        for (key, owner) in signers {
            if apart.contains(owner) {
                let owners = vec![owner.clone()];
                standing.uncounted.push(Uncounted { statement: one.statement, owners, why: Why::Publisher });
            } else {
                let (owner, key, statement) = (owner.clone(), *key, one.statement);
                standing.votes.push(Vote { owner, key, statement, number });
            }
        }
    }
    standing
}

/// Whether a statement of the right type, by somebody of the role, counts in this place and at this time.
fn counts(question: &Question<'_>, part: Part, statement: &Statement) -> Result<(), Why> {
    if statement.subject.sha256 != question.manifest {
        return Err(Why::OtherArtifact(statement.subject.sha256));
    }
    match &statement.predicate {
        Predicate::Approval(approval) => approves(question, part, approval),
        Predicate::Published(_)
        | Predicate::Config(_)
        | Predicate::Enrolled(_)
        | Predicate::Decision(_)
        | Predicate::Foreign { .. } => Ok(()),
    }
}

fn approves(question: &Question<'_>, part: Part, approval: &Approval) -> Result<(), Why> {
    if approval.app != *question.app {
        return Err(Why::OtherApp(approval.app.clone()));
    }
    if approval.environment != *question.environment {
        return Err(Why::OtherEnvironment(approval.environment.clone()));
    }
    let number = approval.number;
    let current = question.root.apps.get(question.app).map(|trust| trust.epoch);
    if let Some(current) = current.filter(|current| *current != number.epoch) {
        return Err(Why::Epoch { given: number.epoch, current });
    }
    if let Time::Now(now) = question.time
        && is_far_future(number.ms, now)
    {
        return Err(Why::FarFuture { number, now });
    }
    let in_force = question.config.digest();
    match approval.config_sha256 {
        Some(approved) if approved == in_force => {}
        // What no config statement gives, the artifact itself says.
        None if question.config.sequence == 0 => {}
        approved => return Err(Why::Config { approved, in_force }),
    }
    if let Some(approved) = approval.plan_sha256
        && question.plan != Some(approved)
    {
        return Err(Why::Plan { approved, given: question.plan });
    }
    let until = match question.arrival {
        Arrival::WithTheOthers => approval.start_by,
        Arrival::Later => approval.converge_until,
    };
    if let Time::Now(now) = question.time
        && now >= until
    {
        return Err(Why::Expired { until, now });
    }
    match (part, question.failed) {
        (Part::Rearm, Some(failed)) if number <= failed => Err(Why::BeforeFailure { number, failed }),
        (Part::Require | Part::Rearm, _) => Ok(()),
    }
}

fn decides(
    own: &Environment,
    manifest: Sha256,
    time: Time,
    act: Act<'_>,
    statement: &Statement,
) -> Result<(), Why> {
    if statement.subject.sha256 != manifest {
        return Err(Why::OtherArtifact(statement.subject.sha256));
    }
    let Predicate::Decision(decision) = &statement.predicate else {
        return Err(Why::OtherDecision("it decides nothing"));
    };
    let Decision { environment, rollout, server, step, action, at, reason: _ } = decision;
    if environment != own {
        return Err(Why::OtherEnvironment(environment.clone()));
    }
    if rollout != act.rollout {
        return Err(Why::OtherDecision("it is about another rollout"));
    }
    if server.as_ref().is_some_and(|server| server != act.server) {
        return Err(Why::OtherDecision("it is about another server"));
    }
    if step != act.step || *action != act.action {
        return Err(Why::OtherDecision("it decides something else"));
    }
    match time {
        Time::Now(now) if is_far_future(*at, now) => {
            Err(Why::FarFuture { number: OrderingNumber { epoch: 0, ms: *at }, now })
        }
        Time::Now(_) | Time::Passed { .. } => Ok(()),
    }
}

fn holds(condition: &Where, statement: &Statement) -> Result<(), Why> {
    match condition.holds(&statement.predicate.to_value()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Why::Condition),
        Err(failed) => Err(Why::ConditionFailed(failed.to_string())),
    }
}

/// More than ten minutes ahead of the clock.
pub(super) fn is_far_future(at: UnixMs, now: UnixMs) -> bool {
    at.0 > now.0.saturating_add(FUTURE_MS)
}

/// Who counts for which rule, with approvals from this number on.
fn fill(standings: &[Standing<'_>], from: Option<OrderingNumber>, separation: Separation) -> Vec<RuleState> {
    // Of each owner, the newest.
    let eligible: Vec<BTreeMap<&Owner, &Vote>> = standings
        .iter()
        .map(|standing| {
            let mut newest: BTreeMap<&Owner, &Vote> = BTreeMap::new();
            let early = |vote: &Vote| vote.number.zip(from).is_some_and(|(number, from)| number < from);
            for vote in standing.votes.iter().filter(|vote| !early(vote)) {
                let known = newest.entry(&vote.owner).or_insert(vote);
                match known.number.cmp(&vote.number) {
                    Ordering::Less => *known = vote,
                    Ordering::Equal | Ordering::Greater => {}
                }
            }
            newest
        })
        .collect();
    let chosen: Vec<BTreeSet<&Owner>> = match separation {
        Separation::None | Separation::Publisher => {
            eligible.iter().map(|votes| votes.keys().copied().collect()).collect()
        }
        // Whoever signs again after a failure may be who signed before: each part is met by itself.
        Separation::All => [Part::Require, Part::Rearm]
            .into_iter()
            .flat_map(|part| {
                let of_part = standings.iter().zip(&eligible).filter(|(standing, _)| standing.part == part);
                let needs: Vec<Need<'_>> = of_part
                    .map(|(standing, votes)| Need {
                        count: usize::try_from(need(standing.rule)).unwrap_or(usize::MAX),
                        willing: votes.keys().copied().collect(),
                    })
                    .collect();
                assign(&needs)
            })
            .collect(),
    };
    let states = standings.iter().zip(&eligible).zip(&chosen);
    states.map(|((standing, votes), chosen)| state(standing, votes, chosen)).collect()
}

fn state(standing: &Standing<'_>, votes: &BTreeMap<&Owner, &Vote>, chosen: &BTreeSet<&Owner>) -> RuleState {
    let is_chosen = |vote: &&&Vote| chosen.contains(&vote.owner);
    let counted: Vec<Vote> = votes.values().filter(is_chosen).map(|vote| (*vote).clone()).collect();
    let have = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    let missing = need(standing.rule).saturating_sub(have);
    let mut uncounted = standing.uncounted.clone();
    if missing > 0 {
        let elsewhere = votes.values().filter(|vote| !chosen.contains(&vote.owner));
        uncounted.extend(elsewhere.map(|vote| Uncounted {
            statement: vote.statement,
            owners: vec![vote.owner.clone()],
            why: Why::CountsElsewhere,
        }));
    }
    RuleState { rule: standing.rule.clone(), part: standing.part, counted, missing, uncounted }
}

/// A threshold of 0 never passes TrustRoot::check; here it must not mean "anybody" either.
fn need(rule: &GateRule) -> u32 {
    rule.threshold.max(1)
}

impl RuleState {
    pub fn is_met(&self) -> bool {
        self.missing == 0
    }

    pub fn need(&self) -> u32 {
        need(&self.rule)
    }

    pub fn have(&self) -> u32 {
        u32::try_from(self.counted.len()).unwrap_or(u32::MAX)
    }

    /// Of what does not count, what came closest.
    fn closest(&self) -> Option<&Uncounted> {
        self.uncounted.iter().max_by_key(|uncounted| uncounted.why.rank())
    }
}

impl Why {
    /// How far a statement came before it fell out.
    fn rank(&self) -> u8 {
        match self {
            Self::Unreadable(_) => 0,
            Self::NotOfRole => 1,
            Self::OtherArtifact(_) => 2,
            Self::OtherApp(_) => 3,
            Self::OtherEnvironment(_) => 4,
            Self::OtherDecision(_) => 5,
            Self::Epoch { .. } => 6,
            Self::FarFuture { .. } => 7,
            Self::Config { .. } => 8,
            Self::Plan { .. } => 9,
            Self::Expired { .. } => 10,
            Self::BeforeFailure { .. } => 11,
            Self::Condition => 12,
            Self::ConditionFailed(_) => 13,
            Self::Publisher => 14,
            Self::CountsElsewhere => 15,
            Self::Used => 16,
        }
    }
}

impl Assessed {
    pub fn is_met(&self) -> bool {
        self.rules.iter().all(RuleState::is_met)
    }

    /// The refusal by the first rule that is not met.
    pub fn refusal(&self, environment: &Environment) -> Option<Refusal> {
        let unmet = self.rules.iter().find(|state| !state.is_met())?;
        let closest = unmet.closest();
        let (predicate, role) = (unmet.rule.predicate.clone(), unmet.rule.role.clone());
        let (have, need, why) = (unmet.have(), unmet.need(), Because::of(closest));
        let details = Box::new(Unmet { environment: environment.clone(), predicate, role, have, need, why });
        if unmet.part == Part::Rearm {
            return Some(Refusal::Rearmed(details));
        }
        let named = match closest.map(|uncounted| &uncounted.why) {
            Some(Why::OtherEnvironment(given)) => {
                Some(Refusal::ApprovalOfOther { environment: environment.clone(), given: given.clone() })
            }
            Some(Why::Epoch { given, current }) => {
                Some(Refusal::WrongEpoch { given: *given, current: *current })
            }
            Some(Why::FarFuture { number, now }) => Some(Refusal::FarFuture { number: *number, now: *now }),
            Some(Why::Config { approved, in_force }) => {
                Some(Refusal::ConfigNotApproved { approved: *approved, in_force: *in_force })
            }
            Some(Why::Plan { approved, given }) => {
                Some(Refusal::PlanNotApproved { approved: *approved, given: *given })
            }
            Some(Why::Expired { until, now }) => Some(Refusal::ApprovalExpired { until: *until, now: *now }),
            Some(
                Why::NotOfRole
                | Why::Unreadable(_)
                | Why::OtherArtifact(_)
                | Why::OtherApp(_)
                | Why::BeforeFailure { .. }
                | Why::OtherDecision(_)
                | Why::Used
                | Why::Condition
                | Why::ConditionFailed(_)
                | Why::Publisher
                | Why::CountsElsewhere,
            )
            | None => None,
        };
        Some(named.unwrap_or(match details.predicate.as_str() {
            APPROVAL => Refusal::ApprovalMissing(details),
            _ => Refusal::GateUnmet(details),
        }))
    }
}

/// A rule that is not met, as a refusal tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    pub environment: Environment,
    pub predicate: String,
    pub role: Owner,
    pub have: u32,
    pub need: u32,
    pub why: Because,
}

/// What the end of a deployment does to the `rearm` of the app's gate on its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearming {
    On,
    /// On, if a step of it had begun.
    OnIfBegun,
    Off,
    Unchanged,
}

impl Rearming {
    /// What did not succeed re-arms the gate until something does. So does a way back that was ordered: it is a judgement
    /// on what it left. What was cancelled before its first step did nothing wrong; after that nobody knows whether it
    /// would have failed, and whoever cancels in time must not get round the gate by it.
    pub fn of(order: &OrderKind, outcome: &DeploymentOutcome) -> Self {
        match (outcome, order) {
            (DeploymentOutcome::Succeeded { .. }, OrderKind::Return { .. })
            | (
                DeploymentOutcome::Failed { .. }
                | DeploymentOutcome::Returned { .. }
                | DeploymentOutcome::Stopped { .. }
                | DeploymentOutcome::Unknown { .. },
                _,
            ) => Self::On,
            (DeploymentOutcome::Cancelled { .. }, _) => Self::OnIfBegun,
            (DeploymentOutcome::Succeeded { .. }, _) => Self::Off,
            (DeploymentOutcome::NoOp | DeploymentOutcome::Refused { .. }, _) => Self::Unchanged,
        }
    }
}

/// The end of a refusal's sentence: what came closest, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Because(String);

impl Because {
    fn of(uncounted: Option<&Uncounted>) -> Self {
        let Some(Uncounted { owners, why, .. }) = uncounted else { return Self::default() };
        let owners: Vec<&str> = owners.iter().map(Owner::as_str).collect();
        Self(format!("; that of {} does not count: {why}", owners.join(", ")))
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
