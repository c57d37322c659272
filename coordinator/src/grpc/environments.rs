//! What operators ask of environments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use consign_common::{
    audit::About,
    digest::Sha256,
    name::{App, Environment},
    time::{Clock, UnixMs},
};
use consign_proto::v1;
use tonic::Status;

use super::{
    Caller,
    answer::{invalid, reason},
    candidates::candidate,
    settings,
};
use crate::{
    audit,
    candidates::Query,
    environments::{self, Applied, Known, frozen_until},
    fleet::{Registry, Server, Sessions},
    rollouts::{self, Controller, Hold, RolloutRow},
    store::Store,
    trust_roots::TrustRoots,
};

#[derive(Clone, Debug)]
pub struct EnvironmentService {
    pub store: Arc<Store>,
    pub registry: Registry,
    pub sessions: Arc<Sessions>,
    pub trust_roots: Arc<TrustRoots>,
    pub controller: Arc<Controller>,
    pub clock: Arc<dyn Clock>,
}

impl EnvironmentService {
    /// The whole file or nothing of it.
    pub(super) async fn apply(
        &self,
        caller: &Caller,
        request: v1::ApplyEnvironmentsRequest,
    ) -> Result<v1::ApplyEnvironmentsResponse, Status> {
        let file: String = request.file_name.chars().filter(|c| !c.is_control()).take(200).collect();
        let root = self.trust_roots.newest();
        let applied = environments::store::list(self.store.read()).await?.into_iter();
        let known = Known {
            environments: root.environments.keys().cloned().collect(),
            applied: applied
                .filter_map(|(name, applied)| Some((name, applied.settings.automation.deploy?)))
                .collect(),
        };
        let all = environments::parse_among(&request.text, &file, &known).map_err(invalid)?;
        if let Some(unknown) = all.keys().find(|name| !root.environments.contains_key(*name)) {
            return Err(unknown_environment(unknown));
        }
        let by = caller.identity.to_string();
        let mut write = self.store.write().await?;
        let changes = environments::store::apply(&mut write, &all, &by, self.clock.now()).await?;
        audit::note(|act| {
            let names: Vec<&str> = all.keys().map(Environment::as_str).collect();
            let changed = changes.iter().map(|change| format!("{} {}", change.environment, change.setting));
            act.about(About::Environment, names.join(" "));
            act.about(About::Settings, changed.collect::<Vec<_>>().join(", "));
            act.by(Sha256::of(request.text.as_bytes()));
        });
        if request.dry_run {
            drop(write);
        } else {
            write.commit().await?;
            self.controller.reconsider();
            tracing::info!(by, environments = all.len(), changes = changes.len(), "environments applied");
        }
        let changes = changes
            .into_iter()
            .map(|change| v1::EnvironmentChange {
                environment: change.environment.into(),
                setting: change.setting.to_owned(),
                before: change.before,
                after: change.after,
            })
            .collect();
        Ok(v1::ApplyEnvironmentsResponse { changes })
    }

    /// Those that the trust root names.
    pub(super) async fn list(&self) -> Result<v1::ListEnvironmentsResponse, Status> {
        let applied = environments::store::list(self.store.read()).await?;
        let mut names: BTreeSet<Environment> =
            self.trust_roots.newest().environments.keys().cloned().collect();
        names.extend(applied.keys().cloned());
        let seen = self.look().await?;
        let environments = names
            .into_iter()
            .map(|name| {
                let applied = applied.get(&name).cloned().unwrap_or_default();
                seen.environment(name, applied, &self.sessions, self.clock.now())
            })
            .collect();
        Ok(v1::ListEnvironmentsResponse { environments })
    }

    pub(super) async fn show(&self, request: v1::ShowEnvironmentRequest) -> Result<v1::Environment, Status> {
        let name: Environment = request.name.parse().map_err(invalid)?;
        let applied = environments::store::find(self.store.read(), &name).await?;
        if !self.trust_roots.newest().environments.contains_key(&name) && applied.at.0 == 0 {
            return Err(unknown_environment(&name));
        }
        let history = environments::store::history(self.store.read(), &name).await?;
        let mut shown =
            self.look().await?.environment(name.clone(), applied, &self.sessions, self.clock.now());
        let query = Query { environment: Some(name), ..Query::default() };
        let waiting = self.controller.candidates(&query).await?;
        shown.candidates = waiting.into_iter().map(candidate).collect();
        shown.history = history
            .into_iter()
            .map(|noted| v1::Happening {
                at_ms: noted.at.0,
                who: noted.who,
                what: noted.what,
                because: noted.because,
            })
            .collect();
        Ok(shown)
    }

    pub(super) async fn lift_hold(
        &self,
        caller: &Caller,
        request: v1::LiftHoldRequest,
    ) -> Result<v1::Hold, Status> {
        let app: App = request.app.parse().map_err(invalid)?;
        let environment: Environment = request.environment.parse().map_err(invalid)?;
        let why = reason(&request.reason)?;
        let by = caller.identity.to_string();
        Ok(hold(&self.controller.lift_hold(&app, &environment, &why, &by).await?))
    }

    pub(super) async fn holds(&self) -> Result<Vec<v1::Hold>, Status> {
        Ok(rollouts::store::holds(self.store.read()).await?.iter().map(hold).collect())
    }

    async fn look(&self) -> Result<Seen, Status> {
        Ok(Seen {
            servers: self.registry.list().await?,
            holds: rollouts::store::holds(self.store.read()).await?,
            open: rollouts::store::open(self.store.read()).await?,
        })
    }
}

/// All that is known of all environments at one moment.
struct Seen {
    servers: Vec<Server>,
    holds: Vec<Hold>,
    open: Vec<RolloutRow>,
}

impl Seen {
    fn environment(
        &self,
        name: Environment,
        applied: Applied,
        sessions: &Sessions,
        now: UnixMs,
    ) -> v1::Environment {
        let windows = applied.settings.automation.freeze.iter().filter_map(|freeze| freeze.window().ok());
        let frozen = frozen_until(&windows.collect::<Vec<_>>(), now);
        let servers: Vec<&Server> = self.servers.iter().filter(|server| server.environment == name).collect();
        let online = servers.iter().filter(|server| sessions.is_online(&server.name)).count();
        v1::Environment {
            settings: Some(settings::to_wire(applied.settings)),
            applied_ms: applied.at.0,
            applied_by: applied.by,
            servers: u32::try_from(servers.len()).unwrap_or(u32::MAX),
            servers_online: u32::try_from(online).unwrap_or(u32::MAX),
            holds: self.holds.iter().filter(|hold| hold.environment == name).map(hold).collect(),
            apps: self.apps(&name, &servers),
            history: Vec::new(),
            candidates: Vec::new(),
            frozen_until_ms: frozen.map_or(0, |until| until.0),
            name: name.into(),
        }
    }

    /// What servers run, and what is on its way there.
    fn apps(&self, name: &Environment, servers: &[&Server]) -> Vec<v1::EnvironmentApp> {
        let mut apps: BTreeMap<&App, Versions<'_>> = BTreeMap::new();
        let mut open: BTreeMap<&App, Vec<String>> = BTreeMap::new();
        for server in servers {
            for (app, report) in server.apps.iter().filter(|(_, report)| report.good.is_some()) {
                let versions = apps.entry(app).or_default();
                versions.entry(&report.good_version).or_default().push(server.name.to_string());
            }
        }
        for row in self.open.iter().filter(|row| row.environment == *name) {
            apps.entry(&row.app).or_default();
            open.entry(&row.app).or_default().push(row.id.to_string());
        }
        let app = |(app, versions): (&App, Versions<'_>)| v1::EnvironmentApp {
            app: app.to_string(),
            versions: versions
                .into_iter()
                .map(|(version, servers)| v1::RunningVersion { version: version.to_owned(), servers })
                .collect(),
            rollouts: open.remove(app).unwrap_or_default(),
        };
        apps.into_iter().map(app).collect()
    }
}

/// By version, the servers that run it.
type Versions<'a> = BTreeMap<&'a str, Vec<String>>;

pub(super) fn hold(hold: &Hold) -> v1::Hold {
    v1::Hold {
        app: hold.app.to_string(),
        environment: hold.environment.to_string(),
        because: hold.because.clone(),
        who: hold.who.clone(),
        at_ms: hold.at.0,
    }
}

pub(super) fn unknown_environment(name: &Environment) -> Status {
    Status::failed_precondition(format!(
        "environment-unknown: the trust root does not name {name}; add it with `consign trust update --add-env {name}`"
    ))
}
