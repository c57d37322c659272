//! What begins by itself: the rollout that waited, the way back after a stop, and servers that converge. A hold keeps all
//! of it from happening, but for a way back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use consign_common::{
    name::{App, Environment, Id, ServerName},
    time::UnixMs,
};

use super::{
    after::After,
    controller::{Controller, ControllerError},
    drive::add_deployment,
    left::Left,
    orders::fresh_id,
    rows::{Again, Changed, HistoryRow, Hold, RolloutRow},
    store::{self, Write},
};
use crate::{
    config,
    fleet::Selector,
    rollout::{self, Candidate, End, Event, Final, Kind, Phase, Place, Presence, changed_and_not_back},
};

/// Rollouts of an environment that are looked through for what a server owes.
const ROLLOUTS: u32 = 200;

impl Controller {
    /// The queued rollout whose turn it is; none while another one runs. A way back goes first.
    pub(super) async fn next_to_begin(
        &self,
        write: &mut Write,
        app: &App,
        environment: &Environment,
    ) -> Result<Option<Id>, ControllerError> {
        let rows = open_of(write, app, environment).await?;
        if store::behind(&mut **write, app, environment).await?.is_some() {
            return Ok(None);
        }
        let hold = store::hold(&mut **write, app, environment).await?;
        Ok(next_of(&rows, hold.as_ref(), self.clock.now()).map(|row| row.id.clone()))
    }

    /// Brings back what a stopped rollout brought; gives the rollout that does, if there is anything to bring back.
    pub(super) async fn roll_back(
        &self,
        write: &mut Write,
        source: &RolloutRow,
        because: &str,
    ) -> Result<Option<Id>, ControllerError> {
        let candidates: Vec<Candidate> = source
            .state
            .members
            .iter()
            .filter(|member| member.state.end().is_some_and(changed_and_not_back))
            .map(|member| Candidate {
                server: member.server.clone(),
                presence: Presence::Enabled,
                place: Place::Fleet,
                group: String::new(),
            })
            .collect();
        let Ok(state) =
            rollout::plan(rollout::Request::back(Vec::new(), source.state.strategy.min_healthy, candidates))
        else {
            return Ok(None);
        };
        let reason = format!("rollout {} stopped: {because}", source.id.short());
        let row = self.way_back(write, Left::from(source), Vec::new(), state, &reason, "").await?;
        add(write, &row).await?;
        Ok(Some(row.id))
    }

    /// The row of a rollout of returns, which holds the environment.
    pub(super) async fn way_back(
        &self,
        write: &mut Write,
        left: Left,
        waves: Vec<String>,
        state: rollout::Rollout,
        reason: &str,
        by: &str,
    ) -> Result<RolloutRow, ControllerError> {
        let now = self.clock.now();
        let Left { app, environment, version, digest, .. } = left;
        let term = store::raise_term(write, &app, &environment).await?;
        let id = fresh_id()?;
        let hold = Hold {
            app: app.clone(),
            environment: environment.clone(),
            because: format!("rolled back from {version}: {reason}"),
            who: by.to_owned(),
            at: now,
        };
        store::put_hold(write, &hold).await?;
        Ok(RolloutRow {
            id,
            app,
            environment,
            version,
            digest,
            waves,
            again: Again::LeaveAlone,
            term,
            started_by: by.to_owned(),
            reason: reason.to_owned(),
            started: now,
            asked: now,
            ended: UnixMs(0),
            state,
            selector: String::new(),
            rolled_back_by: None,
            pinned: None,
            changed: 0,
        })
    }

    /// The servers of the environment that are connected, each as if it had just come.
    pub(super) async fn converge_all(
        self: &Arc<Self>,
        environment: &Environment,
    ) -> Result<(), ControllerError> {
        for server in self.registry.list().await? {
            if server.environment == *environment && self.sessions.is_online(&server.name) {
                self.converge(&server.name).await?;
            }
        }
        Ok(())
    }

    /// A server connected: it gets what its environment runs, if it owes that, or is new there.
    pub async fn converge(self: &Arc<Self>, server: &ServerName) -> Result<(), ControllerError> {
        let known = match self.registry.get(server).await {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%server, %error, "does not converge");
                return Ok(());
            }
        };
        if known.kept_out().is_some() {
            return Ok(());
        }
        let labels = &known.report.labels;
        let rows = store::list(self.store.read(), None, Some(&known.environment), ROLLOUTS).await?;
        for wanted in converges_to(&rows, server, labels) {
            let mut after = After::default();
            let mut write = self.store.write().await?;
            // Decided on what is true now: another task may have been here meanwhile.
            let row = store::rollout(&mut *write, &wanted).await?;
            let Some(row) = row.filter(|row| owes(row, server, labels)) else { continue };
            let open = open_of(&mut write, &row.app, &row.environment).await?;
            let busy = open.iter().any(|other| other.id != row.id || !other.is_ended());
            let held = store::hold(&mut *write, &row.app, &row.environment).await?.is_some();
            let behind = store::behind(&mut *write, &row.app, &row.environment).await?.is_some();
            // It converges when they are sealed to it.
            let lacks = config::lacks(self.store.read(), &row.id, &row.app, &row.environment, server).await?;
            if !lacks.is_empty() {
                tracing::info!(%server, app = %row.app, ?lacks, "does not converge: secrets are not sealed to it yet");
            }
            if busy || held || behind || !lacks.is_empty() {
                continue;
            }
            if row.state.member(server).is_none() {
                add_deployment(&mut write, &row, server).await?;
            }
            let group = row.state.strategy.group.as_ref();
            let group = group.and_then(|group| labels.get(&group.label)).cloned().unwrap_or_default();
            let because = "it is there, and gets what its environment runs".to_owned();
            let what = format!("converge {server}");
            let line = HistoryRow { at: self.clock.now(), who: String::new(), what, because };
            store::add_history(&mut write, &row.id, &line).await?;
            let event = Event::Converge { server: server.clone(), group };
            self.drive(&mut write, [(row.id, event)].into(), &mut after).await?;
            write.commit().await?;
            Box::pin(self.perform(after)).await?;
        }
        Ok(())
    }
}

/// Of an environment's rollouts, newest first: what the server owes or is new to, of each app at most one.
pub fn converges_to(
    newest_first: &[RolloutRow],
    server: &ServerName,
    labels: &BTreeMap<String, String>,
) -> Vec<Id> {
    let mut settled: BTreeSet<&App> = BTreeSet::new();
    let mut wanted = Vec::new();
    for row in newest_first {
        if settled.contains(&row.app) {
            continue;
        }
        if owes(row, server, labels) {
            wanted.push(row.id.clone());
            settled.insert(&row.app);
        } else if !passes_over(row, server) {
            settled.insert(&row.app);
        }
    }
    wanted
}

/// Whether what ran before this rollout is still what the environment runs, as far as the server is concerned: it brought
/// nothing anywhere, or went through without being meant for it.
fn passes_over(row: &RolloutRow, server: &ServerName) -> bool {
    let Some(verdict) = row.state.verdict() else { return false };
    if row.state.kind == Kind::Return {
        return false;
    }
    let green = matches!(verdict.state, Final::Succeeded | Final::Partial);
    let brought = row.state.members.iter().any(|member| member.state.end().is_some_and(End::is_green));
    !brought || (green && row.state.member(server).is_none())
}

/// The rollout and its servers' rows.
pub(super) async fn add(write: &mut Write, row: &RolloutRow) -> Result<(), ControllerError> {
    store::add_rollout(write, row).await?;
    for member in &row.state.members {
        add_deployment(write, row, &member.server).await?;
    }
    let what = match row.state.kind {
        Kind::Deploy => "start",
        Kind::Return => "rollback",
    };
    let (at, who, because) = (row.started, row.started_by.clone(), row.reason.clone());
    store::add_history(write, &row.id, &HistoryRow { at, who, what: what.to_owned(), because }).await?;
    store::add_change(write, &row.id, row.started, &Changed::Rollout).await?;
    Ok(())
}

/// Of these, the open rollouts of one app and environment, the one that begins now.
pub fn next_of<'a>(rows: &'a [RolloutRow], hold: Option<&Hold>, now: UnixMs) -> Option<&'a RolloutRow> {
    if rows.iter().any(is_active) {
        return None;
    }
    let may_begin = |row: &&RolloutRow| match (&row.state.phase, row.state.kind) {
        (Phase::Queued { .. }, Kind::Return) => true,
        (Phase::Queued { not_before }, Kind::Deploy) => {
            *not_before <= now && hold.is_none_or(|hold| row.asked > hold.at)
        }
        (
            Phase::Running { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } | Phase::Ended { .. },
            _,
        ) => false,
    };
    let mut ready: Vec<&RolloutRow> = rows.iter().filter(may_begin).collect();
    ready.sort_by_key(|row| match row.state.kind {
        Kind::Return => 0,
        Kind::Deploy => 1,
    });
    ready.first().copied()
}

/// Whether the server is to get what this rollout, the newest of its app, brought.
pub fn owes(newest: &RolloutRow, server: &ServerName, labels: &BTreeMap<String, String>) -> bool {
    let Some(verdict) = newest.state.verdict() else { return false };
    if newest.state.kind == Kind::Return || !matches!(verdict.state, Final::Succeeded | Final::Partial) {
        return false;
    }
    match newest.state.member(server) {
        Some(member) => member.state.end() == Some(&End::Owed),
        None => newest.selector.parse::<Selector>().is_ok_and(|selector| selector.matches(server, labels)),
    }
}

/// Open rollouts of the app and environment, oldest first.
pub(super) async fn open_of(
    write: &mut Write,
    app: &App,
    environment: &Environment,
) -> Result<Vec<RolloutRow>, ControllerError> {
    let all = store::open(&mut **write).await?;
    Ok(all.into_iter().filter(|row| row.app == *app && row.environment == *environment).collect())
}

/// Whether it has the environment: it runs, or servers still converge to it.
pub fn is_active(row: &RolloutRow) -> bool {
    match row.state.phase {
        Phase::Queued { .. } => false,
        Phase::Running { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } => true,
        Phase::Ended { .. } => row.state.is_under_way(),
    }
}
