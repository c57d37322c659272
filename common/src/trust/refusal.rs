//! Why something may not run. Every rule has a name of its own, which users see and tests assert.

use crate::{
    digest::Sha256,
    name::{App, Environment, Id, ServerName, StepName},
    time::UnixMs,
    trust::{
        DecisionAction, OrderingNumber,
        gate::{Undecided, Unmet},
    },
};

/// A refusal. [`Refusal::code`] is its name on the wire, in the journal and in `--output json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{what} cannot be read: {why}")]
    Malformed { what: &'static str, why: String },
    #[error("{what} has no signature")]
    SignatureMissing { what: &'static str },
    #[error("{what} is not signed by enough of the keys that may: {valid} of {threshold} valid signatures")]
    SignatureInvalid { what: &'static str, valid: u32, threshold: u32 },
    #[error("no `published` statement for {manifest} came with the order")]
    StatementMissing { manifest: Sha256 },
    #[error("the statement is about another artifact than {manifest}")]
    WrongSubject { manifest: Sha256 },
    #[error("the manifest's bytes do not have the digest {expected}")]
    ManifestDigest { expected: Sha256 },
    #[error(
        "the trust root does not name the app {app}; `consign trust show` shows those it names, `consign trust update --add-app {app}` adds it"
    )]
    AppUnknown { app: App },
    #[error(
        "the trust root does not name the environment {environment}; `consign trust show` shows those it names, `consign trust update --add-env {environment}` adds it"
    )]
    EnvironmentUnknown { environment: Environment },
    #[error("{} takes what {} of {} have approved, and {} have{}", .0.environment, .0.need, .0.role, .0.have, .0.why)]
    ApprovalMissing(Box<Unmet>),
    #[error("the approval is for {given}, not for {environment}")]
    ApprovalOfOther { environment: Environment, given: Environment },
    #[error("the approval counted until {until}, and it is {now}; approve it again")]
    ApprovalExpired { until: UnixMs, now: UnixMs },
    #[error(
        "{} takes what {} of {} have signed a {} about, and {} have{}",
        .0.environment, .0.need, .0.role, .0.predicate, .0.have, .0.why
    )]
    GateUnmet(Box<Unmet>),
    #[error(
        "the last deployment here failed or was returned: until one succeeds, {} takes what {} of {} have signed for \
         since, and {} have{}",
        .0.environment, .0.need, .0.role, .0.have, .0.why
    )]
    Rearmed(Box<Unmet>),
    #[error("config: {why}")]
    ConfigInvalid { why: String },
    #[error("the order comes with {}, and this server has accepted config {known}", sequence(*.ordered))]
    ConfigOlder { ordered: u64, known: u64 },
    #[error("approved is {}, and {in_force} is in force; approve it with this config", of_config(*.approved))]
    ConfigNotApproved { approved: Option<Sha256>, in_force: Sha256 },
    #[error("approved is the plan {approved}, and the order comes with {}", of_plan(*.given))]
    PlanNotApproved { approved: Sha256, given: Option<Sha256> },
    #[error("plan document: {why}")]
    PlanOther { why: String },
    #[error(
        "in {environment} it takes a signed decision to take step {step} as {}: {} of {}, and {} have signed it{}",
        of_action(*.action), .lacks.need, .lacks.role, .lacks.have, .lacks.why
    )]
    DecisionMissing {
        environment: Environment,
        step: StepName,
        action: DecisionAction,
        lacks: Box<Undecided>,
    },
    #[error(
        "in {environment} it takes a signed decision to leave out step {step}: {} of {}, and {} have signed it{}",
        .lacks.need, .lacks.role, .lacks.have, .lacks.why
    )]
    SkipUnsigned { environment: Environment, step: StepName, lacks: Box<Undecided> },
    #[error("this server belongs to {own}, the order is for {ordered}")]
    WrongEnvironment { own: Environment, ordered: Environment },
    #[error("this server is {own}, the order is for {ordered}")]
    WrongServer { own: ServerName, ordered: ServerName },
    #[error("{} is not a coordinator that the trust root names, or not the one that is connected", shown(.coordinator))]
    CoordinatorUnknown { coordinator: String },
    #[error("the order's term {ordered} is older than {known}")]
    OldTerm { ordered: u64, known: u64 },
    #[error("another order with the id {order} was received before")]
    Equivocation { order: Id },
    #[error("another order has begun the deployment {deployment} before")]
    DeploymentReused { deployment: Id },
    #[error(
        "it was signed for at {ordered}, and this server has accepted what was signed for at {known}; to go back to it, run `consign artifact publish` for it again, or `consign approve` where approvals are asked for"
    )]
    Older { ordered: OrderingNumber, known: OrderingNumber },
    #[error(
        "signed for at {number}, this has been deployed here already, and what is signed once is deployed once; run `consign artifact publish` for it again, or `consign approve` where approvals are asked for"
    )]
    UsedUp { number: OrderingNumber },
    #[error("signed at {number}, more than ten minutes ahead of this server's clock ({now})")]
    FarFuture { number: OrderingNumber, now: UnixMs },
    #[error("signed in epoch {given}, the trust root's epoch of the app is {current}")]
    WrongEpoch { given: u64, current: u64 },
    #[error("published at {number}, below the trust root's floor {floor}")]
    BelowFloor { number: OrderingNumber, floor: OrderingNumber },
    #[error("{manifest} is revoked by the trust root")]
    Revoked { manifest: Sha256 },
    #[error("the trust root expired at {expired}; sign a new one with `consign trust update`")]
    TrustRootExpired { expired: UnixMs },
    #[error("trust root: {why}")]
    TrustRootInvalid { why: String },
    #[error(
        "{app} is not allowed on this server; root allows it there: an [[allow]] with app = \"{app}\" in agent.toml, then restart consign-agent"
    )]
    AppNotAllowed { app: App },
    #[error(
        "step {step}: {app} may not run as user {user} on this server; root allows it there: \"{user}\" in users of its [[allow]] in agent.toml, then restart consign-agent (a step that names no user runs as the agent's)"
    )]
    UserNotAllowed { app: App, step: String, user: String },
    #[error(
        "step {step}: {app} may not act on unit {unit} on this server; root allows it there: \"{unit}\" in units of its [[allow]] in agent.toml, then restart consign-agent"
    )]
    UnitNotAllowed { app: App, step: String, unit: String },
    #[error("step {step}: the agent runs without root, so it cannot {what}")]
    NeedsRoot { step: String, what: &'static str },
    #[error("the artifact is for {platform}, this server is {own}")]
    WrongPlatform { platform: String, own: String },
    #[error("plan: {why}")]
    PlanInvalid { why: String },
    #[error("there is no {pointer} artifact of {app} on this server to go back to")]
    NothingToReturnTo { app: App, pointer: &'static str },
    #[error("the order says to return to {ordered}, this server's artifact before is {own}")]
    WrongReturn { ordered: Sha256, own: Sha256 },
    #[error(
        "the secret {name} did not come with the order, or is not sealed to this server; `consign config reseal` seals it to servers that are new"
    )]
    SecretMissing { name: StepName },
    #[error("what came as the secret {name} cannot be used: {why}")]
    SecretMismatch { name: StepName, why: String },
    #[error("the secret {name} does not fit its declaration: {why}")]
    SecretInvalid { name: StepName, why: String },
}

impl Refusal {
    /// The rules about what is, or is not, signed or allowed. A rollout that ends by one of these exits with 6; the
    /// others (a plan that cannot be executed here, a stale term, nothing to return to) are failures like any other.
    pub const TRUST_CODES: [&str; 35] = [
        "signature-missing",
        "signature-invalid",
        "statement-missing",
        "wrong-subject",
        "manifest-digest",
        "app-unknown",
        "environment-unknown",
        "approval-missing",
        "approval-expired",
        "gate-unmet",
        "rearmed",
        "config-invalid",
        "config-older",
        "config-not-approved",
        "plan-not-approved",
        "plan-other",
        "decision-missing",
        "skip-unsigned",
        "wrong-environment",
        "wrong-server",
        "coordinator-unknown",
        "equivocation",
        "deployment-reused",
        "older",
        "used-up",
        "far-future",
        "wrong-epoch",
        "below-floor",
        "revoked",
        "trust-root-expired",
        "trust-root-invalid",
        "app-not-allowed",
        "user-not-allowed",
        "unit-not-allowed",
        "secret-mismatch",
    ];

    pub fn is_of_trust(&self) -> bool {
        Self::TRUST_CODES.contains(&self.code())
    }

    /// The rule's name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::SignatureMissing { .. } => "signature-missing",
            Self::SignatureInvalid { .. } => "signature-invalid",
            Self::StatementMissing { .. } => "statement-missing",
            Self::WrongSubject { .. } => "wrong-subject",
            Self::ManifestDigest { .. } => "manifest-digest",
            Self::AppUnknown { .. } => "app-unknown",
            Self::EnvironmentUnknown { .. } => "environment-unknown",
            Self::ApprovalMissing(_) => "approval-missing",
            Self::ApprovalExpired { .. } => "approval-expired",
            Self::GateUnmet(_) => "gate-unmet",
            Self::Rearmed(_) => "rearmed",
            Self::ConfigInvalid { .. } => "config-invalid",
            Self::ConfigOlder { .. } => "config-older",
            Self::ConfigNotApproved { .. } => "config-not-approved",
            Self::PlanNotApproved { .. } => "plan-not-approved",
            Self::PlanOther { .. } => "plan-other",
            Self::DecisionMissing { .. } => "decision-missing",
            Self::SkipUnsigned { .. } => "skip-unsigned",
            Self::WrongEnvironment { .. } | Self::ApprovalOfOther { .. } => "wrong-environment",
            Self::WrongServer { .. } => "wrong-server",
            Self::CoordinatorUnknown { .. } => "coordinator-unknown",
            Self::OldTerm { .. } => "old-term",
            Self::Equivocation { .. } => "equivocation",
            Self::DeploymentReused { .. } => "deployment-reused",
            Self::Older { .. } => "older",
            Self::UsedUp { .. } => "used-up",
            Self::FarFuture { .. } => "far-future",
            Self::WrongEpoch { .. } => "wrong-epoch",
            Self::BelowFloor { .. } => "below-floor",
            Self::Revoked { .. } => "revoked",
            Self::TrustRootExpired { .. } => "trust-root-expired",
            Self::TrustRootInvalid { .. } => "trust-root-invalid",
            Self::AppNotAllowed { .. } => "app-not-allowed",
            Self::UserNotAllowed { .. } => "user-not-allowed",
            Self::UnitNotAllowed { .. } => "unit-not-allowed",
            Self::NeedsRoot { .. } => "needs-root",
            Self::WrongPlatform { .. } => "wrong-platform",
            Self::PlanInvalid { .. } => "plan-invalid",
            Self::NothingToReturnTo { .. } => "nothing-to-return-to",
            Self::WrongReturn { .. } => "wrong-return",
            Self::SecretMissing { .. } => "secret-missing",
            Self::SecretMismatch { .. } => "secret-mismatch",
            Self::SecretInvalid { .. } => "secret-invalid",
        }
    }
}

fn sequence(ordered: u64) -> String {
    match ordered {
        0 => "no config".to_owned(),
        ordered => format!("config {ordered}"),
    }
}

fn of_config(approved: Option<Sha256>) -> String {
    approved.map_or_else(|| "no config".to_owned(), |digest| format!("the config {digest}"))
}

fn of_plan(given: Option<Sha256>) -> String {
    given.map_or_else(|| "none that has this server".to_owned(), |digest| digest.to_string())
}

fn of_action(action: DecisionAction) -> &'static str {
    match action {
        DecisionAction::Skip => "left out",
        DecisionAction::Done => "done",
        DecisionAction::Failed => "failed",
        DecisionAction::Again => "to be run again",
    }
}

/// Text of a document that nobody vouches for yet, as a refusal repeats it: its beginning, in one line.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS: usize = 200;
    let start = text.chars().take(CHARACTERS).flat_map(char::escape_debug);
    let cut = if text.chars().nth(CHARACTERS).is_some() { "..." } else { "" };
    start.chain(cut.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_trust_are_rules_that_there_are() {
        let all = include_str!("refusal.rs").split("pub fn code(").nth(1).unwrap();
        for code in Refusal::TRUST_CODES {
            assert!(all.contains(&format!("=> \"{code}\",")), "{code}");
            let twice = Refusal::TRUST_CODES.iter().filter(|other| **other == code).count();
            assert_eq!(twice, 1, "{code}");
        }
        assert!(Refusal::Revoked { manifest: Sha256::of(b"x") }.is_of_trust());
        assert!(!Refusal::PlanInvalid { why: String::new() }.is_of_trust());
    }
}
