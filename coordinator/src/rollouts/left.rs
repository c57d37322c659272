//! What a rollback leaves: an artifact, and the servers that have it or are getting it.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    name::{App, Environment, ServerName, Version},
};

use super::{
    admission::{self, NotStarted},
    controller::Controller,
    rows::RolloutRow,
    start::RollbackOf,
    store,
};
use crate::{
    fleet::{Selector, Server},
    rollout::{Kind, Phase},
};

/// Rollouts that are looked at before the servers are asked instead.
const ROLLOUTS: u32 = 100;

#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) app: App,
    pub(super) environment: Environment,
    pub(super) version: Version,
    pub(super) digest: Sha256,
    /// Servers that must stay up meanwhile, as for the rollout that brought it.
    pub(super) min_healthy: u32,
}

impl From<&RolloutRow> for Left {
    fn from(row: &RolloutRow) -> Self {
        Self {
            app: row.app.clone(),
            environment: row.environment.clone(),
            version: row.version.clone(),
            digest: row.digest,
            min_healthy: row.state.strategy.min_healthy,
        }
    }
}

impl Controller {
    pub(super) async fn find_left(
        &self,
        of: RollbackOf,
        selector: &Selector,
    ) -> Result<(Left, Vec<Server>), NotStarted> {
        let fleet = self.registry.list().await?;
        let (app, environment) = match of {
            RollbackOf::Rollout(given) => {
                let row = self.show(&given).await?.row;
                admission::check_behind(self.store.read(), &row.app, &row.environment).await?;
                let left = Left::from(&row);
                let servers = leaving(&left, Some(&row), &fleet, selector)?;
                return if servers.is_empty() { Err(nothing(left)) } else { Ok((left, servers)) };
            }
            RollbackOf::Version { app, environment, version } => {
                admission::check_behind(self.store.read(), &app, &environment).await?;
                return self.find_version(&app, &environment, &version, &fleet, selector).await;
            }
            RollbackOf::Newest { app, environment } => (app, environment),
        };
        admission::check_behind(self.store.read(), &app, &environment).await?;
        let rows = store::list(self.store.read(), Some(&app), Some(&environment), ROLLOUTS).await?;
        let begun = |row: &&RolloutRow| {
            row.state.kind == Kind::Deploy && !matches!(row.state.phase, Phase::Queued { .. })
        };
        if let Some(row) = rows.iter().find(begun) {
            let left = Left::from(row);
            let servers = leaving(&left, Some(row), &fleet, selector)?;
            // Whoever rolls back means what came last. To go on to what was good before would be one too far.
            if servers.is_empty() {
                let (rollout, state) = (row.id.clone(), row.state.as_str());
                return Err(NotStarted::NothingOfTheNewest { rollout, app, version: left.version, state });
            }
            return Ok((left, servers));
        }
        // Rollouts are kept for a while; what servers have is told by the servers.
        let Some(left) = newest_on(&fleet, &app, &environment) else {
            return Err(NotStarted::NoRollout { app, environment });
        };
        let servers = leaving(&left, None, &fleet, selector)?;
        if servers.is_empty() { Err(nothing(left)) } else { Ok((left, servers)) }
    }

    /// What an operator names is what is left, whatever is kept of the rollout that brought it.
    async fn find_version(
        &self,
        app: &App,
        environment: &Environment,
        version: &Version,
        fleet: &[Server],
        selector: &Selector,
    ) -> Result<(Left, Vec<Server>), NotStarted> {
        let rows = store::list(self.store.read(), Some(app), Some(environment), ROLLOUTS).await?;
        let mut digests: Vec<Sha256> = self
            .repository
            .of_version(app, version)
            .await?
            .into_iter()
            .map(|stocked| stocked.digest)
            .collect();
        let of_version = fleet.iter().filter_map(|server| server.apps.get(app));
        let of_version = of_version.filter(|state| state.good_version == version.as_str());
        digests.extend(of_version.filter_map(|state| state.good));
        for digest in digests {
            let row = rows.iter().find(|row| row.state.kind == Kind::Deploy && row.digest == digest);
            let left = Left {
                app: app.clone(),
                environment: environment.clone(),
                version: version.clone(),
                digest,
                min_healthy: row.map_or(0, |row| row.state.strategy.min_healthy),
            };
            let servers = leaving(&left, row, fleet, selector)?;
            if !servers.is_empty() {
                return Ok((left, servers));
            }
        }
        let (app, version, environment) = (app.clone(), version.clone(), environment.clone());
        Err(NotStarted::NothingToReturn { app, version, environment })
    }
}

fn nothing(left: Left) -> NotStarted {
    let Left { app, version, environment, .. } = left;
    NotStarted::NothingToReturn { app, version, environment }
}

/// The newest artifact that is good on a server that can go back from it.
fn newest_on(fleet: &[Server], app: &App, environment: &Environment) -> Option<Left> {
    let states = fleet.iter().filter(|server| server.environment == *environment);
    let states = states.filter_map(|server| server.apps.get(app)).filter(|app| app.before.is_some());
    let newest = states.max_by_key(|app| app.highest)?;
    Some(Left {
        app: app.clone(),
        environment: environment.clone(),
        version: newest.good_version.parse().ok()?,
        digest: newest.good?,
        min_healthy: 0,
    })
}

/// Servers whose good artifact is the one that is left, or that are on the way to it. None, if none of them could go
/// back.
fn leaving(
    left: &Left,
    row: Option<&RolloutRow>,
    fleet: &[Server],
    selector: &Selector,
) -> Result<Vec<Server>, NotStarted> {
    let members = row.into_iter().flat_map(|row| &row.state.members);
    let on_the_way: BTreeMap<&ServerName, bool> =
        members.map(|member| (&member.server, member.state.is_ordered())).collect();
    let selected = admission::select(fleet.to_vec(), &left.environment, selector)?;
    let mut possible = 0;
    let mut chosen = Vec::new();
    for server in selected {
        let app = server.apps.get(&left.app);
        let has_it = app.is_some_and(|app| app.good == Some(left.digest));
        let gets_it = on_the_way.get(&server.name).copied().unwrap_or(false);
        let can_return = (has_it && app.is_some_and(|app| app.before.is_some()))
            || (gets_it && app.is_some_and(|app| app.good.is_some()));
        possible += usize::from(can_return);
        if has_it || gets_it {
            chosen.push(server);
        }
    }
    Ok(if possible == 0 { Vec::new() } else { chosen })
}
