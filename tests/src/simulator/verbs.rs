//! What people ask of the coordinator. Mirrors `coordinator/src/rollouts` (start, verbs): the engine allows, every act is one
//! transaction.

use consign_common::{
    name::{App, ServerName},
    time::UnixMs,
};
use consign_coordinator::{
    rollout::{
        self, Candidate, Event, Kind, Place as Wave, Presence, Request, ServerState, Strategy, Target, Verb,
    },
    rollouts::{Again, Pinned, Queueing, RolloutRow, orders, succession::is_active},
};

use super::{
    around::Around,
    bug::Bug,
    catalog::environment,
    check::Step,
    coordinator::{After, Coordinator, Happened},
    engine,
};

/// A rollout as somebody asks for it.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) app: App,
    /// Of the catalog.
    pub(super) artifact: usize,
    pub(super) waves: Vec<&'static str>,
    pub(super) strategy: Strategy,
    pub(super) queueing: Queueing,
    pub(super) not_before: UnixMs,
    pub(super) again: Again,
    /// As a label's value in `zone`; absent: all servers.
    pub(super) zone: Option<&'static str>,
    pub(super) canary: bool,
    pub(super) pinned: Option<Pinned>,
}

impl Coordinator {
    pub(super) fn start(&mut self, around: &mut Around, wish: Wish, after: &mut After) -> Result<(), String> {
        let Some(artifact) = around.catalog.artifacts.get(wish.artifact) else { return Err("none".into()) };
        let (digest, version) = (artifact.digest, artifact.manifest.version.clone());
        let mut strategy = wish.strategy;
        strategy.confirm_ms =
            artifact.plan.confirm.map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let once =
            artifact.plan.steps.iter().filter(|step| step.once).map(|step| step.name.clone()).collect();
        let targets: Vec<Target> = wish.waves.iter().filter_map(|text| text.parse().ok()).collect();
        let selector = wish.zone.map(|zone| format!("zone={zone}")).unwrap_or_default();
        let label = strategy.group.as_ref().map(|group| group.label.clone());
        let candidates = self.candidates(around, |around, name| {
            wish.zone.is_none_or(|zone| around.labels(name).get("zone").is_some_and(|own| own == zone))
        });
        let canary = wish.canary.then(|| candidates.first().map(|it| it.server.clone())).flatten();
        let candidates: Vec<Candidate> = candidates
            .into_iter()
            .map(|candidate| Candidate {
                group: label
                    .as_ref()
                    .and_then(|l| around.labels(&candidate.server).remove(l))
                    .unwrap_or_default(),
                place: if canary.as_ref() == Some(&candidate.server) { Wave::Canary } else { Wave::Fleet },
                ..candidate
            })
            .collect();
        let state = rollout::plan(Request {
            kind: Kind::Deploy,
            targets,
            canaries: canary.map(|server| server.to_string()),
            strategy,
            candidates,
            once,
            not_before: wish.not_before,
        })
        .map_err(|error| error.to_string())?;
        for other in self.store.open_of(&wish.app) {
            self.make_way(around, other, wish.queueing, after)?;
        }
        let term = self.store.raise_term(&wish.app);
        around.oracle.term(&wish.app, term);
        let now = around.unix();
        let row = RolloutRow {
            id: around.id(),
            app: wish.app.clone(),
            environment: environment(),
            version,
            digest,
            waves: Vec::new(),
            again: wish.again,
            term,
            started_by: "ann".to_owned(),
            reason: String::new(),
            started: now,
            asked: now,
            ended: UnixMs(0),
            state,
            selector,
            rolled_back_by: None,
            pinned: wish.pinned,
            changed: 0,
        };
        self.add(around, row);
        self.begin_next(around, &wish.app, after);
        Ok(())
    }

    fn begin_next(&mut self, around: &mut Around, app: &App, after: &mut After) {
        let begin = self.next_to_begin(around, app).map(|next| (next, Event::Begin));
        self.drive(around, begin.into_iter().collect(), after);
    }

    fn candidates(&self, around: &Around, wanted: impl Fn(&Around, &ServerName) -> bool) -> Vec<Candidate> {
        let enrolled = self.store.enrolled.iter().filter(|name| wanted(around, name));
        enrolled
            .map(|name| Candidate {
                server: name.clone(),
                presence: match self.store.disabled.get(name) {
                    Some(because) => Presence::Disabled { because: because.clone() },
                    None => Presence::Enabled,
                },
                place: Wave::Fleet,
                group: String::new(),
            })
            .collect()
    }

    fn make_way(
        &mut self,
        around: &mut Around,
        other: RolloutRow,
        queueing: Queueing,
        after: &mut After,
    ) -> Result<(), String> {
        // Servers that still converge to what is not wanted any more keep nobody waiting.
        if other.is_ended() {
            return self.press_on(around, other, Verb::Abort, "superseded", after);
        }
        match queueing {
            Queueing::Queue => Ok(()),
            Queueing::Refuse => Err("busy".to_owned()),
            Queueing::Supersede if is_active(&other) || other.state.kind == Kind::Return => Ok(()),
            Queueing::Supersede => self.press_on(around, other, Verb::Abort, "superseded", after),
        }
    }

    pub(super) fn press_on(
        &mut self,
        around: &mut Around,
        mut row: RolloutRow,
        verb: Verb,
        because: &str,
        after: &mut After,
    ) -> Result<(), String> {
        if let (Verb::SkipStep { step, .. }, Kind::Deploy) = (&verb, row.state.kind) {
            let plan = around.catalog.by_digest(&row.digest).map(|artifact| &artifact.plan);
            if plan.is_none_or(|plan| plan.steps.iter().all(|planned| planned.name != *step)) {
                return Err(format!("the plan has no step {step}"));
            }
        }
        let ended = row.is_ended() && !row.state.is_under_way();
        let reopens = matches!(verb, Verb::Retry | Verb::Decide { .. }) && ended;
        if reopens {
            self.refuse_if_superseded(&row)?;
        }
        let now = around.unix();
        let (next, commands) = engine::press(around.bug, row.state.clone(), verb.clone(), because, now)
            .map_err(|error| error.to_string())?;
        let mut happened = Happened::new();
        if verb == Verb::Retry {
            if !around.has(Bug::RetryKeepsTerm) {
                row.term = self.store.raise_term(&row.app);
            }
            row.asked = now;
            for member in next.members.iter().filter(|member| member.state == ServerState::Pending) {
                if let Some(before) =
                    self.store.deployment_on(&row.id, &member.server).map(|it| it.id.clone())
                {
                    self.store.answer_orders(&before, orders::REPLACED);
                }
                self.add_deployment(around, &row, &member.server);
            }
        }
        let app = row.app.clone();
        self.settle(around, row, next, commands, &Step::Verb(verb.clone()), after, &mut happened);
        if verb == Verb::Retry {
            happened.extend(self.next_to_begin(around, &app).map(|next| (next, Event::Begin)));
        }
        self.drive(around, happened, after);
        Ok(())
    }

    /// What has ended may only be taken up again while nothing newer was meant for the environment.
    fn refuse_if_superseded(&self, row: &RolloutRow) -> Result<(), String> {
        let newer = self.store.newest_of(&row.app).is_some_and(|newest| newest.id != row.id);
        let active = self.store.open_of(&row.app).iter().any(|other| is_active(other) && other.id != row.id);
        if newer || active { Err("superseded".to_owned()) } else { Ok(()) }
    }

    /// Brings servers back from what this rollout brought.
    pub(super) fn rollback(
        &mut self,
        around: &mut Around,
        source: RolloutRow,
        after: &mut After,
    ) -> Result<(), String> {
        let gets_it = |name: &ServerName| source.state.member(name).is_some_and(|it| it.state.is_ordered());
        let pointers = |name: &ServerName| self.store.pointers(name, &source.app);
        let has_it = |name: &ServerName| pointers(name).good == Some(source.digest);
        let possible = self.store.enrolled.iter().any(|name| {
            (has_it(name) && pointers(name).before.is_some())
                || (gets_it(name) && pointers(name).good.is_some())
        });
        if !possible {
            return Err("nothing to return to".to_owned());
        }
        let candidates = self.candidates(around, |_, name| has_it(name) || gets_it(name));
        let back = Request::back(Vec::new(), source.state.strategy.min_healthy, candidates);
        let state = rollout::plan(back).map_err(|error| error.to_string())?;
        let open = self.store.open_of(&source.app);
        if open.iter().any(|row| row.state.kind == Kind::Return && !row.is_ended()) {
            return Err("busy".to_owned());
        }
        // The way back and its hold are there before anything ends: what waited must not begin in between.
        let row = self.way_back(around, &source, state, "rolled back by ann", "ann");
        self.add(around, row);
        for active in open.into_iter().filter(is_active) {
            if !active.state.is_aborting() {
                self.press_on(around, active, Verb::Abort, "pre-empted by a rollback", after)?;
            }
        }
        self.begin_next(around, &source.app, after);
        Ok(())
    }

    pub(super) fn lift_hold(
        &mut self,
        around: &mut Around,
        app: &App,
        after: &mut After,
    ) -> Result<(), String> {
        if self.store.holds.remove(app).is_none() {
            return Err("nothing holds it".to_owned());
        }
        around.oracle.lifted(app);
        self.begin_next(around, app, after);
        after.idle = true;
        Ok(())
    }
}
