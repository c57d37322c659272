//! Beginning and ending rollouts by an operator's word.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::{
    name::{App, Environment, ServerName, Version},
    time::UnixMs,
};

use super::{
    admission::{self, NotStarted},
    after::After,
    controller::Controller,
    orders::fresh_id,
    rows::{Again, Changed, DeploymentRow, RolloutRow},
    show::Shown,
    store,
    view::View,
};
use crate::{
    fleet::{Selector, Server},
    rollout::{self, Candidate, Event, Kind, Presence, Target},
};

#[derive(Clone, Debug)]
pub struct StartRequest {
    pub app: App,
    pub version: Version,
    pub environment: Environment,
    pub waves: Vec<String>,
    pub selector: Selector,
    pub again: Again,
    pub by: String,
}

#[derive(Clone, Debug)]
pub struct RollbackRequest {
    pub of: RollbackOf,
    pub selector: Selector,
    pub reason: String,
    pub by: String,
}

#[derive(Clone, Debug)]
pub enum RollbackOf {
    /// What this rollout, named by its id or the beginning of it, brought.
    Rollout(String),
    /// What came last and is still there.
    Newest { app: App, environment: Environment },
}

impl Controller {
    pub async fn start(self: &Arc<Self>, request: StartRequest) -> Result<Shown, NotStarted> {
        let StartRequest { app, version, environment, waves, selector, again, by } = request;
        let targets: Vec<Target> = waves.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let now = self.clock.now();
        admission::check_behind(self.store.read(), &app, &environment).await?;
        let root = self.trust_roots.newest();
        admission::check_trust(&root, &app, &environment, now)?;
        let stocked = self.repository.of_version(&app, &version).await?;
        let chosen = admission::select(self.registry.list().await?, &environment, &selector)?;
        let digest = admission::choose(&stocked, &chosen, &app, &version)?;
        admission::check_revoked(&root, digest)?;
        admission::check_manifest(&self.repository.manifest(digest).await?, chosen.len())?;
        let state = rollout::plan(Kind::Deploy, &targets, chosen.iter().map(candidate).collect())?;

        let mut write = self.store.write().await?;
        if let Some(active) = unended_of(&mut write, &app, &environment).await?.into_iter().next() {
            return Err(busy(active));
        }
        let term = store::raise_term(&mut write, &app, &environment).await?;
        let row = RolloutRow {
            id: fresh_id()?,
            app,
            environment,
            version,
            digest,
            waves,
            again,
            term,
            started_by: by,
            reason: String::new(),
            started: now,
            ended: UnixMs(0),
            state,
            changed: 0,
        };
        add(&mut write, &row).await?;
        let mut after = After::default();
        self.drive(&mut write, &row.id, Event::Begin, &mut after).await?;
        write.commit().await?;
        tracing::info!(rollout = %row.id, app = %row.app, version = %row.version,
            environment = %row.environment, by = row.started_by, "rollout started");
        self.perform(after).await?;
        self.show_exactly(&row.id).await
    }

    /// Brings servers back from an artifact. A deployment that is active for the same app and environment is aborted,
    /// and the way back begins when it has ended.
    pub async fn rollback(self: &Arc<Self>, request: RollbackRequest) -> Result<Shown, NotStarted> {
        let RollbackRequest { of, selector, reason, by } = request;
        let (source, chosen) = self.find_left(of, &selector).await?;
        let state = rollout::plan(Kind::Return, &[], chosen.iter().map(candidate).collect())?;

        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let mut preempted = None;
        for row in unended_of(&mut write, &source.app, &source.environment).await? {
            match row.state.kind {
                Kind::Deploy => preempted = Some(row.id),
                Kind::Return => return Err(busy(row)),
            }
        }
        let term = store::raise_term(&mut write, &source.app, &source.environment).await?;
        let row = RolloutRow {
            id: fresh_id()?,
            waves: Vec::new(),
            again: Again::LeaveAlone,
            term,
            started_by: by.clone(),
            reason: if reason.is_empty() { format!("rolled back by {by}") } else { reason },
            started: now,
            ended: UnixMs(0),
            state,
            changed: 0,
            ..source
        };
        add(&mut write, &row).await?;
        let mut after = After::default();
        match preempted {
            Some(active) => {
                let because = format!("pre-empted by a rollback: {}", row.reason);
                self.drive(&mut write, &active, Event::Abort { because }, &mut after).await?;
            }
            None => self.drive(&mut write, &row.id, Event::Begin, &mut after).await?,
        }
        write.commit().await?;
        tracing::info!(rollout = %row.id, app = %row.app, environment = %row.environment, by, "rollback started");
        self.perform(after).await?;
        self.show_exactly(&row.id).await
    }

    pub async fn abort(self: &Arc<Self>, given: &str, reason: &str, by: &str) -> Result<Shown, NotStarted> {
        let shown = self.show(given).await?;
        admission::check_behind(self.store.read(), &shown.row.app, &shown.row.environment).await?;
        let id = shown.row.id.clone();
        if shown.row.is_ended() {
            return Err(NotStarted::Ended { rollout: id });
        }
        let because =
            if reason.is_empty() { format!("aborted by {by}") } else { format!("aborted by {by}: {reason}") };
        let after = self.happened(vec![(id.clone(), Event::Abort { because })]).await?;
        self.perform(after).await?;
        self.show_exactly(&id).await
    }

    /// The rollout whose artifact is left, and the servers that have it or may be getting it.
    async fn find_left(
        &self,
        of: RollbackOf,
        selector: &Selector,
    ) -> Result<(RolloutRow, Vec<Server>), NotStarted> {
        let sources = match of {
            RollbackOf::Rollout(given) => {
                let row = self.show(&given).await?.row;
                admission::check_behind(self.store.read(), &row.app, &row.environment).await?;
                vec![row]
            }
            RollbackOf::Newest { app, environment } => {
                admission::check_behind(self.store.read(), &app, &environment).await?;
                let rows = store::list(self.store.read(), Some(&app), Some(&environment), 100).await?;
                if rows.is_empty() {
                    return Err(NotStarted::NoRollout { app, environment });
                }
                rows
            }
        };
        let fleet = self.registry.list().await?;
        let mut newest = None;
        for source in sources.into_iter().filter(|row| row.state.kind == Kind::Deploy) {
            let left = chosen_for_return(&source, &fleet, selector)?;
            if !left.is_empty() {
                return Ok((source, left));
            }
            newest.get_or_insert(source);
        }
        match newest {
            Some(RolloutRow { app, version, environment, .. }) => {
                Err(NotStarted::NothingToReturn { app, version, environment })
            }
            None => Err(NotStarted::RolloutUnknown { given: "that brought anything".to_owned() }),
        }
    }
}

/// Servers whose good artifact is the one that is left, or that are on the way to it. None, if none of them could go
/// back.
fn chosen_for_return(
    source: &RolloutRow,
    fleet: &[Server],
    selector: &Selector,
) -> Result<Vec<Server>, NotStarted> {
    let on_the_way: BTreeMap<&ServerName, bool> =
        source.state.members.iter().map(|member| (&member.server, member.state.is_ordered())).collect();
    let selected = admission::select(fleet.to_vec(), &source.environment, selector)?;
    let mut possible = 0;
    let mut chosen = Vec::new();
    for server in selected {
        let app = server.apps.get(&source.app);
        let has_it = app.is_some_and(|app| app.good == Some(source.digest));
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

fn candidate(server: &Server) -> Candidate {
    let presence = match server.kept_out() {
        None => Presence::Enabled,
        Some(because) => Presence::Disabled { because },
    };
    Candidate { server: server.name.clone(), presence }
}

async fn unended_of(
    write: &mut store::Write,
    app: &App,
    environment: &Environment,
) -> Result<Vec<RolloutRow>, NotStarted> {
    let all = store::unended(&mut **write).await?;
    Ok(all.into_iter().filter(|row| row.app == *app && row.environment == *environment).collect())
}

fn busy(active: RolloutRow) -> NotStarted {
    NotStarted::Busy {
        active: active.id,
        app: active.app,
        version: active.version,
        environment: active.environment,
    }
}

/// The rollout and its servers' rows.
async fn add(write: &mut store::Write, row: &RolloutRow) -> Result<(), NotStarted> {
    store::add_rollout(write, row).await?;
    for member in &row.state.members {
        let digest = match row.state.kind {
            Kind::Deploy => Some(row.digest),
            Kind::Return => None,
        };
        let deployment = DeploymentRow {
            id: fresh_id()?,
            rollout: row.id.clone(),
            server: member.server.clone(),
            digest,
            sequence: 0,
            view: View::default(),
            changed: 0,
        };
        store::add_deployment(write, &deployment).await?;
    }
    store::add_change(write, &row.id, row.started, &Changed::Rollout).await?;
    Ok(())
}
