//! Whether a rollout may begin at all: what the coordinator refuses by name before any server hears of it. Agents decide
//! again, for themselves.

use std::collections::BTreeSet;

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{App, Environment, Id, ServerName, Version},
    plan::Plan,
    time::UnixMs,
    trust::{Gate, Refusal, TrustRoot},
};

use sqlx::SqliteExecutor;

use super::{controller::ControllerError, rows::Behind, store};
use crate::{
    fleet::{InvalidSelector, RegistryError, Selector, Server},
    repository::{Artifact, RepositoryError},
    rollout::InvalidWaves,
    store::StoreError,
};

/// Why a rollout does not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("rollout {active} of {app} {version} is active in {environment}; follow it, or abort it first")]
    Busy { active: Id, app: App, version: Version, environment: Environment },
    #[error("there is no artifact {app}@{version}; `consign artifact list {app}` shows those there are")]
    ArtifactUnknown { app: App, version: Version },
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
    #[error("there has been no rollout of {app} in {environment}")]
    NoRollout { app: App, environment: Environment },
    #[error("there is no rollout {given}; `consign rollout list` shows those there are")]
    RolloutUnknown { given: String },
    #[error("more than one rollout begins with {given}")]
    RolloutAmbiguous { given: String },
    #[error("rollout {rollout} has ended already")]
    Ended { rollout: Id },
    #[error(
        "this coordinator gave term {given} of {app} in {environment}, and {server} has seen term {term}: it was restored \
         from a backup and does not know what was deployed since; see what runs with `consign server list --env \
         {environment}`, then go on with `consign env take-over {app} --env {environment} --reason WHY`",
        given = .0.given, app = .0.app, environment = .0.environment, server = .0.server, term = .0.term
    )]
    Behind(Behind),
    #[error("no server of {environment} has seen a term of {app} that this coordinator did not give")]
    NotBehind { app: App, environment: Environment },
    #[error(transparent)]
    Waves(#[from] InvalidWaves),
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
            Self::PlatformsMixed { .. } => "platforms-mixed",
            Self::PlatformMissing { .. } => "platform-missing",
            Self::ServerUnknown { .. } => "server-unknown",
            Self::NoServer { .. } | Self::Waves(InvalidWaves::NoServer) => "no-server",
            Self::NothingToReturn { .. } => "nothing-to-return-to",
            Self::NoRollout { .. } | Self::RolloutUnknown { .. } => "rollout-unknown",
            Self::RolloutAmbiguous { .. } => "rollout-ambiguous",
            Self::Ended { .. } => "ended",
            Self::Behind(_) => "coordinator-behind",
            Self::NotBehind { .. } => "not-behind",
            Self::Waves(_) => "waves",
            Self::Selector(_) => "selector",
            Self::Refused(refusal) => refusal.code(),
            Self::Failed(_) => "internal",
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
        Some(Gate::PublisherOnly {}) => Ok(()),
        Some(Gate::Statements { require, rearm }) => match require.iter().chain(rearm).next() {
            None => Ok(()),
            Some(rule) => Err(Refusal::GateUnsupported {
                environment: environment.clone(),
                predicate: rule.predicate.clone(),
            }),
        },
    }
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

/// What the plan uses that is not executed yet.
pub(super) fn check_manifest(bytes: &[u8], servers: usize) -> Result<(), Refusal> {
    let most = ArtifactLimits::default().manifest_bytes;
    let manifest: Manifest = json::from_slice(bytes, most)
        .map_err(|error| Refusal::Malformed { what: "manifest", why: error.to_string() })?;
    let plan = Plan::parse(&manifest.plan, "consign.toml")
        .map_err(|error| Refusal::PlanInvalid { why: error.to_string() })?;
    check_plan(&plan, servers)
}

fn check_plan(plan: &Plan, servers: usize) -> Result<(), Refusal> {
    let unsupported = |feature: String| Err(Refusal::Unsupported { feature });
    if plan.confirm.is_some() {
        return unsupported("`confirm`".to_owned());
    }
    for (name, param) in &plan.params {
        if param.secret {
            return unsupported(format!("the secret parameter `{name}`"));
        }
        if param.default.is_none() {
            return unsupported(format!("the parameter `{name}` without a default"));
        }
    }
    match plan.steps.iter().find(|step| step.once) {
        Some(step) if servers > 1 => {
            unsupported(format!("`once` (step {}) on more than one server", step.name))
        }
        Some(_) | None => Ok(()),
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
