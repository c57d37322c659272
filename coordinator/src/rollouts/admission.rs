//! Whether a rollout may begin at all: what the coordinator refuses by name before any server hears of it. Agents decide
//! again, for themselves.

use std::collections::BTreeSet;

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{App, Environment, Id, ServerName, StepName, Version},
    plan::{Kind, Plan},
    time::UnixMs,
    trust::{
        Gate, Refusal, TrustRoot,
        authorize::Memory,
        gate::{Arrival, Time},
        review::{self, Case, Reviewed},
    },
};

use sqlx::SqliteExecutor;

use super::{
    controller::ControllerError,
    rows::{Behind, Hold},
    start::Shorter,
    store,
};
use crate::{
    environments,
    fleet::{InvalidSelector, RegistryError, Selector, Server},
    repository::{Artifact, RepositoryError},
    rollout::{Illegal, InvalidStrategy, InvalidWaves},
    store::StoreError,
};

/// Why a rollout does not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("rollout {active} of {app} {version} is active in {environment}; follow it, or abort it first")]
    Busy { active: Id, app: App, version: Version, environment: Environment },
    #[error("there is no artifact {app}@{version}; `consign artifact list {app}` shows those there are")]
    ArtifactUnknown { app: App, version: Version },
    #[error(
        "secret-missing: not every secret is sealed to every server: {missing}; `consign config reseal {app} --env {environment}` seals them"
    )]
    SecretMissing { app: App, environment: Environment, missing: String },
    #[error("{app}@{version} has other artifacts for {one} than for {other}; choose servers of one platform")]
    PlatformsMixed { app: App, version: Version, one: ServerName, other: ServerName },
    #[error("{app}@{version} has no artifact for {server}, which is {platform}")]
    PlatformMissing { app: App, version: Version, server: ServerName, platform: String },
    #[error("there is no server {names}; `consign server list` shows those there are")]
    ServerUnknown { names: String },
    #[error("no server of {environment} matches")]
    NoServer { environment: Environment },
    #[error("no server of {environment} runs {app}@{version} and can go back from it")]
    NothingToReturn { app: App, version: Version, environment: Environment },
    #[error(
        "the newest rollout, {} of {app} {version}, is {state}, and no server has anything of it to go back from; name what is to be left, as `consign rollout rollback {app}@VERSION`",
        rollout.short()
    )]
    NothingOfTheNewest { rollout: Id, app: App, version: Version, state: &'static str },
    #[error("there has been no rollout of {app} in {environment}")]
    NoRollout { app: App, environment: Environment },
    #[error("there is no rollout {given}; `consign rollout list` shows those there are")]
    RolloutUnknown { given: String },
    #[error("more than one rollout begins with {given}")]
    RolloutAmbiguous { given: String },
    #[error(
        "rollout {rollout} is not the newest of its app and environment any more: {newer} is; start a new one"
    )]
    Superseded { rollout: Id, newer: Id },
    #[error("there is a rollout {id} already")]
    IdTaken { id: Id },
    #[error("{app}@{version} does not wait in {environment}: {state}")]
    NotWaiting { app: App, version: Version, environment: Environment, state: String },
    #[error(
        "{app} is on hold in {environment} since {at}: {because}; `consign env lift-hold {app} --env {environment}`",
        app = .hold.app, environment = .hold.environment, at = .hold.at, because = .hold.because
    )]
    OnHold { hold: Hold },
    #[error("{app}@{version} that waits is for another platform than the servers of {environment}")]
    OtherPlatform { app: App, version: Version, environment: Environment },
    #[error("nothing holds {app} in {environment}")]
    NoHold { app: App, environment: Environment },
    #[error("the plan has no step {step}")]
    StepUnknown { step: StepName },
    #[error("step {step} is what the rollout is about: without `activate` nothing becomes current")]
    NotSkippable { step: StepName },
    #[error("the plan has no `confirm`, so there is nothing to shorten")]
    NoConfirm,
    #[error(
        "`confirm` of the plan is {}, and may only be shortened, not set to {}",
        environments::span(*own),
        environments::span(*given)
    )]
    ConfirmLonger { given: u64, own: u64 },
    #[error(
        "this coordinator gave term {given} of {app} in {environment}, and {server} has seen term {term}: it was restored \
         from a backup and does not know what was deployed since; see what runs with `consign server list --env \
         {environment}`, then go on with `consign env take-over {app} --env {environment} --reason WHY`",
        given = .0.given, app = .0.app, environment = .0.environment, server = .0.server, term = .0.term
    )]
    Behind(Behind),
    #[error("no server of {environment} has seen a term of {app} that this coordinator did not give")]
    NotBehind { app: App, environment: Environment },
    #[error("it is {now}, and {at} has passed; give a time to come, or none")]
    TimePast { at: UnixMs, now: UnixMs },
    #[error("there is no plan {digest}, or it is too old; make one with `consign rollout plan`")]
    PlanUnknown { digest: Sha256 },
    #[error("plan {digest} is for {foreseen}, not for {given}; make a new one with `consign rollout plan`")]
    PlanOfOther { digest: Sha256, foreseen: String, given: String },
    #[error(
        "plan {digest} does not have {servers}; make a new one, or leave them out with --only or `consign server disable`"
    )]
    PlanWithout { digest: Sha256, servers: String },
    #[error(transparent)]
    Waves(#[from] InvalidWaves),
    #[error(transparent)]
    Strategy(InvalidStrategy),
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error(transparent)]
    Selector(#[from] InvalidSelector),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Failed(#[from] ControllerError),
}

impl NotStarted {
    /// The refusal's name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::ArtifactUnknown { .. } => "artifact-unknown",
            Self::SecretMissing { .. } => "secret-missing",
            Self::PlatformsMixed { .. } => "platforms-mixed",
            Self::PlatformMissing { .. } => "platform-missing",
            Self::ServerUnknown { .. } => "server-unknown",
            Self::NoServer { .. } | Self::Waves(InvalidWaves::NoServer) => "no-server",
            Self::NothingToReturn { .. } | Self::NothingOfTheNewest { .. } => "nothing-to-return-to",
            Self::NoRollout { .. } | Self::RolloutUnknown { .. } => "rollout-unknown",
            Self::RolloutAmbiguous { .. } => "rollout-ambiguous",
            Self::Superseded { .. } => "superseded",
            Self::IdTaken { .. } => "id-taken",
            Self::NotWaiting { .. } => "not-waiting",
            Self::OnHold { .. } => "on-hold",
            Self::OtherPlatform { .. } => "platform-missing",
            Self::NoHold { .. } => "no-hold",
            Self::StepUnknown { .. } => "step-unknown",
            Self::NotSkippable { .. } => "not-skippable",
            Self::NoConfirm | Self::ConfirmLonger { .. } => "confirm",
            Self::Behind(_) => "coordinator-behind",
            Self::NotBehind { .. } => "not-behind",
            Self::TimePast { .. } => "time-past",
            Self::PlanUnknown { .. } => "plan-unknown",
            Self::PlanOfOther { .. } | Self::PlanWithout { .. } => "plan-other",
            Self::Waves(_) => "waves",
            Self::Strategy(_) => "strategy",
            Self::Illegal(_) => "not-now",
            Self::Selector(_) => "selector",
            Self::Refused(refusal) => refusal.code(),
            Self::Failed(_) => "internal",
        }
    }
}

impl From<InvalidStrategy> for NotStarted {
    fn from(error: InvalidStrategy) -> Self {
        match error {
            InvalidStrategy::Waves(waves) => Self::Waves(waves),
            other @ (InvalidStrategy::Budget { .. }
            | InvalidStrategy::GroupUnknown { .. }
            | InvalidStrategy::MinHealthy { .. }
            | InvalidStrategy::NoCanary { .. }
            | InvalidStrategy::ConfirmTooShort { .. }) => Self::Strategy(other),
        }
    }
}

impl From<StoreError> for NotStarted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<sqlx::Error> for NotStarted {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<RepositoryError> for NotStarted {
    fn from(error: RepositoryError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<RegistryError> for NotStarted {
    fn from(error: RegistryError) -> Self {
        Self::Failed(error.into())
    }
}

/// Nothing is begun or ended where agents are ahead of this coordinator.
pub(super) async fn check_behind<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<(), NotStarted> {
    match store::behind(db, app, environment).await? {
        Some(behind) => Err(NotStarted::Behind(behind)),
        None => Ok(()),
    }
}

/// The trust root's word on an app in an environment.
pub(super) fn check_trust(
    root: &TrustRoot,
    app: &App,
    environment: &Environment,
    now: UnixMs,
) -> Result<(), Refusal> {
    if now >= root.expires {
        return Err(Refusal::TrustRootExpired { expired: root.expires });
    }
    if !root.apps.contains_key(app) {
        return Err(Refusal::AppUnknown { app: app.clone() });
    }
    match root.environments.get(environment) {
        None => Err(Refusal::EnvironmentUnknown { environment: environment.clone() }),
        Some(Gate::PublisherOnly {} | Gate::Statements { .. }) => Ok(()),
    }
}

/// What the documents say of an artifact in an environment, by the function that agents decide with. Whether the gate is
/// met is in the answer: those who are asked to sign see what it would do before.
pub(super) fn review(
    root: &TrustRoot,
    environment: &Environment,
    bytes: &[u8],
    statements: &[Vec<u8>],
    plan: Option<&[u8]>,
    now: UnixMs,
) -> Result<Reviewed, Refusal> {
    let manifest = read_manifest(bytes)?;
    review::review(Case {
        root,
        environment,
        digest: Sha256::of(bytes),
        manifest: &manifest,
        statements,
        plan,
        server: None,
        arrival: Arrival::WithTheOthers,
        // Each server has its own, and says so.
        memory: &Memory::default(),
        time: Time::Now(now),
    })
}

/// The one artifact of the version that all these servers can run. A server that has never said what it is takes the
/// only one there is; its agent checks.
pub(super) fn choose(
    stocked: &[Artifact],
    servers: &[Server],
    app: &App,
    version: &Version,
) -> Result<Sha256, NotStarted> {
    if stocked.is_empty() {
        return Err(NotStarted::ArtifactUnknown { app: app.clone(), version: version.clone() });
    }
    if let [only] = stocked {
        return Ok(only.digest);
    }
    let mut chosen: Option<(&ServerName, Sha256)> = None;
    for server in servers {
        let platform = format!("{}-{}", server.report.os, server.report.arch);
        let fits =
            |stocked: &&Artifact| stocked.platform.as_ref().is_some_and(|own| own.as_str() == platform);
        let fitting = stocked.iter().find(fits).or_else(|| stocked.iter().find(|own| own.platform.is_none()));
        let (app, version) = (app.clone(), version.clone());
        let Some(fitting) = fitting else {
            return Err(NotStarted::PlatformMissing { app, version, server: server.name.clone(), platform });
        };
        match chosen {
            Some((one, digest)) if digest != fitting.digest => {
                let (one, other) = (one.clone(), server.name.clone());
                return Err(NotStarted::PlatformsMixed { app, version, one, other });
            }
            Some(_) => {}
            None => chosen = Some((&server.name, fitting.digest)),
        }
    }
    let unknown = || NotStarted::ArtifactUnknown { app: app.clone(), version: version.clone() };
    chosen.map(|(_, digest)| digest).ok_or_else(unknown)
}

pub(super) fn check_revoked(root: &TrustRoot, manifest: Sha256) -> Result<(), Refusal> {
    if root.revoked.contains(&manifest) { Err(Refusal::Revoked { manifest }) } else { Ok(()) }
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, Refusal> {
    json::from_slice(bytes, ArtifactLimits::default().manifest_bytes)
        .map_err(|error| Refusal::Malformed { what: "manifest", why: error.to_string() })
}

pub(super) fn read_plan(bytes: &[u8]) -> Result<Plan, Refusal> {
    Plan::parse(&read_manifest(bytes)?.plan, "consign.toml")
        .map_err(|error| Refusal::PlanInvalid { why: error.to_string() })
}

/// An operator can only leave out what is there.
pub(super) fn check_skips(plan: &Plan, skip: &[StepName]) -> Result<(), NotStarted> {
    for step in skip {
        match plan.steps.iter().find(|planned| planned.name == *step) {
            None => return Err(NotStarted::StepUnknown { step: step.clone() }),
            Some(planned) if planned.kind == Kind::Activate => {
                return Err(NotStarted::NotSkippable { step: step.clone() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// How long a server waits to be confirmed, in milliseconds; 0 where the plan wants no confirmation. Others may only
/// shorten what the plan says.
pub(super) fn confirm(plan: &Plan, shorter: Option<Shorter>) -> Result<u64, NotStarted> {
    let own = plan.confirm.map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    match shorter {
        None => Ok(own),
        Some(Shorter::Everywhere(given)) => Ok(own.min(given)),
        Some(Shorter::Asked(_)) if own == 0 => Err(NotStarted::NoConfirm),
        Some(Shorter::Asked(given)) if given == 0 || given > own => {
            Err(NotStarted::ConfirmLonger { given, own })
        }
        Some(Shorter::Asked(given)) => Ok(given),
    }
}

/// The environment's servers that the selector chooses, by name.
pub(super) fn select(
    fleet: Vec<Server>,
    environment: &Environment,
    selector: &Selector,
) -> Result<Vec<Server>, NotStarted> {
    let all: Vec<Server> = fleet.into_iter().filter(|server| server.environment == *environment).collect();
    let names: BTreeSet<&ServerName> = all.iter().map(|server| &server.name).collect();
    let unknown = selector.unknown(&names);
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.into_iter().map(ServerName::as_str).collect();
        return Err(NotStarted::ServerUnknown { names: format!("{} in {environment}", names.join(", ")) });
    }
    let chosen: Vec<Server> =
        all.into_iter().filter(|server| selector.matches(&server.name, &server.report.labels)).collect();
    if chosen.is_empty() {
        return Err(NotStarted::NoServer { environment: environment.clone() });
    }
    Ok(chosen)
}
