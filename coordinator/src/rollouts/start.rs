//! Beginning and ending rollouts by an operator's word.

use std::sync::Arc;

use consign_common::{
    audit::About,
    digest::Sha256,
    name::{App, Environment, Id, StepName, Version},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

use super::{
    admission::{self, NotStarted},
    after::After,
    controller::Controller,
    orders::fresh_id,
    rows::{Again, Hold, RolloutRow},
    show::Shown,
    store,
    succession::{add, is_active, open_of},
};
use crate::{
    audit,
    config::{self, InForce},
    environments::{self, Noted},
    fleet::{Selector, Server},
    rollout::{self, Candidate, Event, Kind, Place, Presence, Skip, Strategy, Target, Verb},
    webhooks::{self, EventKind, Told},
};

/// All but the strategy's times is checked here.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// Chosen by who asks, so that something can be signed about the rollout before there is one.
    pub id: Option<Id>,
    pub app: App,
    pub version: Version,
    pub environment: Environment,
    /// The candidate that begins by itself; `None`: a person asks.
    pub candidate: Option<Chosen>,
    pub waves: Vec<String>,
    /// The servers of the first wave.
    pub canary: Option<Canary>,
    pub selector: Selector,
    /// As the operator wrote it.
    pub selector_text: String,
    /// `confirm_ms` and `min_healthy` are filled in from what follows and from the plan.
    pub strategy: Strategy,
    pub min_healthy: Option<Target>,
    /// Shortens the plan's `confirm`.
    pub confirm_ms: Option<Shorter>,
    pub queueing: Queueing,
    pub not_before: UnixMs,
    /// Steps that are left out on every server.
    pub skip: Vec<StepName>,
    /// The preview that servers are held to.
    pub pinned: Option<Sha256>,
    pub again: Again,
    pub by: String,
    pub reason: String,
}

/// What the pipeline begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub number: i64,
    /// Exactly these bytes.
    pub digest: Sha256,
}

#[derive(Clone, Debug)]
pub struct Canary {
    pub selector: Selector,
    /// As the operator wrote it.
    pub text: String,
}

/// Milliseconds that a server waits to be confirmed, instead of the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorter {
    /// For every app of an environment: where a plan wants no confirmation, or waits less, it stays so.
    Everywhere(u64),
    /// For this rollout: a plan that cannot be shortened to it is refused.
    Asked(u64),
}

/// What becomes of a rollout while another one has its app and environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Queueing {
    /// It waits its turn.
    #[default]
    Queue,
    /// It waits, and those that waited before it will not begin.
    Supersede,
    Refuse,
}

impl Queueing {
    pub const ALL: [Self; 3] = [Self::Queue, Self::Supersede, Self::Refuse];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Supersede => "supersede",
            Self::Refuse => "refuse",
        }
    }
}

#[derive(Clone, Debug)]
pub struct RollbackRequest {
    pub of: RollbackOf,
    pub selector: Selector,
    /// None: as many at once as the rollout's `min_healthy` leaves.
    pub waves: Vec<String>,
    pub reason: String,
    pub by: String,
}

#[derive(Clone, Debug)]
pub enum RollbackOf {
    /// What this rollout, named by its id or the beginning of it, brought.
    Rollout(String),
    /// What came last.
    Newest { app: App, environment: Environment },
    /// What the operator names, wherever it is.
    Version { app: App, environment: Environment, version: Version },
}

impl Controller {
    pub async fn start(self: &Arc<Self>, request: StartRequest) -> Result<Shown, NotStarted> {
        let chosen = request.candidate;
        let (row, queueing, in_force) = self.planned(request).await?;
        let by = row.started_by.clone();
        let mut after = After::default();
        let mut write = self.store.write().await?;
        let mut row = row;
        // Also what it takes the place of is ended by this.
        audit::note(|act| {
            act.about(About::Rollout, &row.id).about(About::Artifact, row.digest).by(row.digest);
        });
        for other in open_of(&mut write, &row.app, &row.environment).await? {
            self.make_way(&mut write, other, &row, queueing, in_force.as_ref(), &mut after).await?;
        }
        self.settle_candidates(&mut write, &row, chosen.as_ref()).await?;
        row.term = store::raise_term(&mut write, &row.app, &row.environment).await?;
        add(&mut write, &row).await?;
        if chosen.is_some() {
            audit::own(&mut write, &row.id, "rollout start", &row.reason, row.asked).await?;
        }
        if let Some(in_force) = &in_force {
            in_force.pin(&mut write, &row.id).await?;
        }
        let next = self.next_to_begin(&mut write, &row.app, &row.environment).await?;
        let begin = next.map(|next| (next, Event::Begin)).into_iter().collect();
        self.drive(&mut write, begin, &mut after).await?;
        write.commit().await?;
        tracing::info!(rollout = %row.id, app = %row.app, version = %row.version,
            environment = %row.environment, by, "rollout started");
        self.perform(after).await?;
        self.show_exactly(&row.id).await
    }

    /// Everything that can be refused before anything is written.
    async fn planned(
        &self,
        request: StartRequest,
    ) -> Result<(RolloutRow, Queueing, Option<InForce>), NotStarted> {
        let StartRequest { app, version, environment, waves, canary, selector, mut strategy, .. } = request;
        let targets: Vec<Target> = waves.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let now = self.clock.now();
        admission::check_behind(self.store.read(), &app, &environment).await?;
        if request.not_before.0 > 0 && request.not_before < now {
            return Err(NotStarted::TimePast { at: request.not_before, now });
        }
        let root = self.trust_roots.newest();
        admission::check_trust(&root, &app, &environment, now)?;
        let stocked = self.repository.of_version(&app, &version).await?;
        let chosen = admission::select(self.registry.list().await?, &environment, &selector)?;
        let digest = admission::choose(&stocked, &chosen, &app, &version)?;
        if request.candidate.is_some_and(|chosen| chosen.digest != digest) {
            return Err(NotStarted::OtherPlatform { app, version, environment });
        }
        admission::check_revoked(&root, digest)?;
        let (pinned, document) = match request.pinned {
            Some(plan) => {
                let pinned = self.pin(plan, &app, &environment, digest, &chosen).await?;
                let document = store::plan_document(self.store.read(), plan).await?;
                (Some(pinned), document)
            }
            None => (None, None),
        };
        let id = match request.id {
            None => fresh_id()?,
            Some(id) if store::rollout(self.store.read(), &id).await?.is_some() => {
                return Err(NotStarted::IdTaken { id });
            }
            Some(id) => id,
        };
        let bytes = self.repository.manifest(digest).await?;
        let own = admission::read_plan(&bytes)?;
        let in_force = self.configured(&app, &environment, &own, &chosen).await?;
        let statements = config::among(in_force.as_ref(), self.evidence(&environment, digest, &id).await?);
        let reviewed = admission::review(&root, &environment, &bytes, &statements, document.as_deref(), now)?;
        let plan = reviewed.plan;
        admission::check_skips(&plan, &request.skip)?;
        strategy.confirm_ms = admission::confirm(&plan, request.confirm_ms)?;
        if let Some(refusal) = reviewed.assessed.refusal(&environment) {
            return Err(refusal.into());
        }
        let enabled = chosen.iter().filter(|server| server.kept_out().is_none()).count();
        let enabled = u32::try_from(enabled).unwrap_or(u32::MAX);
        strategy.min_healthy = request.min_healthy.map_or(0, |target| target.of(enabled));
        let group = strategy.group.as_ref().map(|group| group.label.clone());
        let place = |server: &Server| match &canary {
            Some(canary) if canary.selector.matches(&server.name, &server.report.labels) => Place::Canary,
            Some(_) | None => Place::Fleet,
        };
        let candidates =
            chosen.iter().map(|server| candidate(server, place(server), group.as_deref())).collect();
        let mut state = rollout::plan(rollout::Request {
            kind: Kind::Deploy,
            targets,
            canaries: canary.as_ref().map(|canary| canary.text.clone()),
            strategy,
            candidates,
            once: plan.steps.iter().filter(|step| step.once).map(|step| step.name.clone()).collect(),
            not_before: request.not_before,
        })?;
        state.skips = request.skip.into_iter().map(|step| Skip { step, server: None }).collect();
        let row = RolloutRow {
            id,
            app,
            environment,
            version,
            digest,
            waves,
            again: request.again,
            term: 0,
            started_by: request.by,
            reason: request.reason,
            started: now,
            asked: now,
            ended: UnixMs(0),
            state,
            selector: request.selector_text,
            rolled_back_by: None,
            pinned,
            changed: 0,
        };
        Ok((row, request.queueing, in_force))
    }

    /// What another open rollout of the app and environment means for a new one.
    async fn make_way(
        self: &Arc<Self>,
        write: &mut store::Write,
        other: RolloutRow,
        new: &RolloutRow,
        queueing: Queueing,
        in_force: Option<&InForce>,
        after: &mut After,
    ) -> Result<(), NotStarted> {
        let reason = format!("superseded by {} {}", new.app, new.version);
        // Servers that still converge to what is not wanted any more keep nobody waiting.
        if other.is_ended() {
            return self.press_on(write, other, Verb::Abort, &reason, &new.started_by, after).await;
        }
        // Asked twice, by a client that did not hear the answer perhaps: it is there.
        let same = other.state.kind == Kind::Deploy && other.digest == new.digest;
        let same = same && (is_active(&other) || other.state.phase == new.state.phase);
        // With other values it is not what was asked for before.
        let sequence = in_force.map(|in_force| in_force.config.sequence);
        let same = same && config::pinned(&mut **write, &other.id).await? == sequence;
        if same && other.selector == new.selector && new.again == Again::LeaveAlone {
            return Err(busy(other));
        }
        match queueing {
            Queueing::Queue => Ok(()),
            Queueing::Refuse => Err(busy(other)),
            Queueing::Supersede if is_active(&other) || other.state.kind == Kind::Return => Ok(()),
            Queueing::Supersede => {
                self.press_on(write, other, Verb::Abort, &reason, &new.started_by, after).await
            }
        }
    }

    /// Brings servers back from an artifact. A deployment that is active for the same app and environment is aborted,
    /// and the way back begins when it has ended.
    pub async fn rollback(self: &Arc<Self>, request: RollbackRequest) -> Result<Shown, NotStarted> {
        let RollbackRequest { of, selector, waves, reason, by } = request;
        let targets: Vec<Target> = waves.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let (left, chosen) = self.find_left(of, &selector).await?;
        let candidates = chosen.iter().map(|server| candidate(server, Place::Fleet, None)).collect();
        let state = rollout::plan(rollout::Request::back(targets, left.min_healthy, candidates))?;
        let reason = if reason.is_empty() { format!("rolled back by {by}") } else { reason };

        let mut write = self.store.write().await?;
        let mut after = After::default();
        let open = open_of(&mut write, &left.app, &left.environment).await?;
        if let Some(back) = open.iter().find(|row| row.state.kind == Kind::Return && !row.is_ended()) {
            return Err(busy(back.clone()));
        }
        // The way back and its hold are there before anything ends: what waited must not begin in between.
        let row = self.way_back(&mut write, left, waves, state, &reason, &by).await?;
        add(&mut write, &row).await?;
        for active in open.into_iter().filter(is_active) {
            if !active.state.is_aborting() {
                let because = format!("pre-empted by a rollback: {reason}");
                self.press_on(&mut write, active, Verb::Abort, &because, &by, &mut after).await?;
            }
        }
        let next = self.next_to_begin(&mut write, &row.app, &row.environment).await?;
        let begin = next.map(|next| (next, Event::Begin)).into_iter().collect();
        self.drive(&mut write, begin, &mut after).await?;
        write.commit().await?;
        tracing::info!(rollout = %row.id, app = %row.app, environment = %row.environment, by, "rollback started");
        self.perform(after).await?;
        self.show_exactly(&row.id).await
    }

    /// Lets things begin by themselves again.
    pub async fn lift_hold(
        self: &Arc<Self>,
        app: &App,
        environment: &Environment,
        reason: &str,
        by: &str,
    ) -> Result<Hold, NotStarted> {
        let mut after = After::default();
        let mut write = self.store.write().await?;
        let Some(hold) = store::hold(&mut *write, app, environment).await? else {
            return Err(NotStarted::NoHold { app: app.clone(), environment: environment.clone() });
        };
        store::lift_hold(&mut write, app, environment).await?;
        let noted = Noted {
            at: self.clock.now(),
            who: by.to_owned(),
            what: format!("lift hold on {app}"),
            because: reason.to_owned(),
        };
        let told = Told {
            app: Some(app.clone()),
            environment: Some(environment.clone()),
            by: Some(by.to_owned()),
            because: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            ..Told::default()
        };
        let event = webhooks::Event { kind: EventKind::HoldLifted, at: noted.at, about: told };
        webhooks::emit(&mut write, event).await?;
        environments::store::note(&mut write, environment, &noted).await?;
        let next = self.next_to_begin(&mut write, app, environment).await?;
        let begin = next.map(|next| (next, Event::Begin)).into_iter().collect();
        self.drive(&mut write, begin, &mut after).await?;
        write.commit().await?;
        tracing::info!(%app, %environment, by, "hold lifted");
        self.reconsider();
        self.perform(after).await?;
        self.converge_all(environment).await?;
        Ok(hold)
    }
}

pub(super) fn candidate(server: &Server, place: Place, group: Option<&str>) -> Candidate {
    let presence = match server.kept_out() {
        None => Presence::Enabled,
        Some(because) => Presence::Disabled { because },
    };
    let group = group.and_then(|label| server.report.labels.get(label)).cloned().unwrap_or_default();
    Candidate { server: server.name.clone(), presence, place, group }
}

fn busy(active: RolloutRow) -> NotStarted {
    NotStarted::Busy {
        active: active.id,
        app: active.app,
        version: active.version,
        environment: active.environment,
    }
}
