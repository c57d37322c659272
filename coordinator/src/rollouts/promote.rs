//! What begins by itself, carried out: what is known goes to the pure [`pipeline`], and what it decides becomes durable.
//!
//! Everything is looked at anew whenever something has happened that may count (a publication, a statement, the end of a
//! rollout, a hold that was lifted, settings, a trust root) and when a time has come. Looking twice is harmless: a candidate
//! is claimed in the transaction that makes its rollout.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consign_common::{
    audit::About,
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{App, Environment, Id, Version},
    time::UnixMs,
    trust::{
        APPROVAL, OrderingNumber, Refusal, TrustRoot,
        authorize::Memory,
        gate::{Arrival, Time},
        review::{self, Case},
    },
};
use tokio::time;

use super::{
    admission::NotStarted,
    controller::Controller,
    rows::{Hold, RolloutRow},
    start::{Chosen, Queueing, StartRequest},
    store::{self, Write},
    succession::is_active,
};
use crate::{
    audit::{self, Act},
    candidates::{self, CandidateRow, PIPELINE, Query, Settled, Standing, tell},
    config,
    environments::{self, Deploy, Noted, Settings},
    pipeline::{self, Candidate, GateState, OrderedBy, Origin, Rules, Situation, Started, Verdict},
    rollout::Phase,
};

/// Looked at again at the latest then, whatever the clock did meanwhile.
const LONGEST: Duration = Duration::from_secs(60);
/// After the store failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Characters of a refusal that is kept.
const WHY: usize = 500;

/// A candidate, and of one that waits what becomes of it.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub row: CandidateRow,
    pub verdict: Option<Verdict>,
}

/// What one look at an app in an environment gave.
struct Look {
    verdicts: BTreeMap<i64, Verdict>,
    /// The plans that approvals are bound to, and rollouts held to.
    plans: BTreeMap<i64, Sha256>,
}

impl Controller {
    /// For as long as the coordinator runs.
    pub async fn keep_pipelines(self: Arc<Self>) {
        let mut roots = self.trust_roots.subscribe();
        loop {
            let wait = match self.promote().await {
                Ok(next) => next.map_or(LONGEST, |next| {
                    let span = Duration::from_millis(next.0.saturating_sub(self.clock.now().0));
                    span.clamp(Duration::from_millis(1), LONGEST)
                }),
                Err(error) => {
                    tracing::error!(%error, "candidates cannot be looked at");
                    PAUSE
                }
            };
            tokio::select! {
                () = time::sleep(wait) => {}
                () = self.news.notified() => {}
                Ok(()) = roots.changed() => {}
            }
        }
    }

    /// Something has happened that a candidate may have waited for.
    pub fn reconsider(&self) {
        self.news.notify_one();
    }

    /// Begins what may begin; when the next one may by itself.
    pub async fn promote(self: &Arc<Self>) -> Result<Option<UnixMs>, NotStarted> {
        let mut groups: BTreeMap<(App, Environment), Vec<CandidateRow>> = BTreeMap::new();
        for row in candidates::waiting(self.store.read()).await? {
            groups.entry((row.app.clone(), row.environment.clone())).or_default().push(row);
        }
        let mut next: Option<UnixMs> = None;
        for ((app, environment), rows) in groups {
            match self.promote_one(&app, &environment, rows).await {
                Ok(until) => next = next.into_iter().chain(until).min(),
                // It holds up no other.
                Err(error) => {
                    tracing::error!(%app, %environment, %error, "its candidates cannot be looked at");
                    next = next.into_iter().chain([self.clock.now().plus(PAUSE)]).min();
                }
            }
        }
        Ok(next)
    }

    async fn promote_one(
        self: &Arc<Self>,
        app: &App,
        environment: &Environment,
        mut rows: Vec<CandidateRow>,
    ) -> Result<Option<UnixMs>, NotStarted> {
        // What was refused before is tried once more, each time that there is a reason to look.
        let mut refused: BTreeMap<i64, String> = BTreeMap::new();
        loop {
            for row in &mut rows {
                row.refused = refused.get(&row.number).cloned();
            }
            let settings = environments::store::find(self.store.read(), environment).await?.settings;
            let look = self.look_at(app, environment, &settings, &rows).await?;
            self.settle_superseded(&look).await?;
            self.tell(&look, &mut rows).await?;
            let begins = look.verdicts.iter().find(|(_, verdict)| **verdict == Verdict::Start);
            let begins = begins.and_then(|(number, _)| rows.iter().find(|row| row.number == *number));
            let Some(row) = begins else {
                let until = look.verdicts.values().filter_map(|verdict| match verdict {
                    Verdict::Waits(wait) => wait.until(),
                    Verdict::Start | Verdict::Superseded(_) => None,
                });
                return Ok(until.min());
            };
            let plan = look.plans.get(&row.number).copied();
            match self.begin(row, settings, plan).await {
                // The others wait for it, and are looked at again when it has ended.
                Ok(()) => return Ok(None),
                // Somebody was faster.
                Err(NotStarted::NotWaiting { .. } | NotStarted::OnHold { .. }) => {
                    self.reconsider();
                    return Ok(None);
                }
                Err(error @ NotStarted::Failed(_)) => return Err(error),
                Err(error) => {
                    let why: String = format!("{}: {error}", error.code()).chars().take(WHY).collect();
                    tracing::info!(%app, version = %row.version, %environment, why, "a candidate does not begin");
                    let mut write = self.store.write().await?;
                    candidates::refused(&mut write, row.number, &why).await?;
                    write.commit().await?;
                    refused.insert(row.number, why);
                }
            }
        }
    }

    /// By the way that people start rollouts, with exactly the candidate's bytes.
    async fn begin(
        self: &Arc<Self>,
        row: &CandidateRow,
        settings: Settings,
        plan: Option<Sha256>,
    ) -> Result<(), NotStarted> {
        let about = (row.app.clone(), row.version.clone(), row.environment.clone());
        let reason = match &row.green {
            None => format!("{} was published", row.version),
            Some((green, rollout)) => format!("rollout {} in {green} succeeded", rollout.short()),
        };
        let request = StartRequest {
            candidate: Some(Chosen { number: row.number, digest: row.digest }),
            queueing: Queueing::Queue,
            pinned: plan,
            by: PIPELINE.to_owned(),
            reason,
            ..StartRequest::by_settings(about, Settings::default(), settings)?
        };
        self.start(request).await.map(|_| ())
    }

    async fn settle_superseded(&self, look: &Look) -> Result<(), NotStarted> {
        let superseded: Vec<(i64, String)> = look
            .verdicts
            .iter()
            .filter_map(|(number, verdict)| match verdict {
                Verdict::Superseded(by) => Some((*number, by.to_string())),
                Verdict::Start | Verdict::Waits(_) => None,
            })
            .collect();
        if superseded.is_empty() {
            return Ok(());
        }
        let mut write = self.store.write().await?;
        for (number, because) in superseded {
            let settled = Settled { at: self.clock.now(), by: String::new(), because };
            candidates::supersede(&mut write, number, &settled).await?;
        }
        Ok(write.commit().await?)
    }

    /// What each waits for, where that is another thing than was told before.
    async fn tell(&self, look: &Look, rows: &mut [CandidateRow]) -> Result<(), NotStarted> {
        let mut news = Vec::new();
        for row in rows {
            if let Some(Verdict::Waits(wait)) = look.verdicts.get(&row.number) {
                let subject = tell::subject(wait);
                if row.told != subject {
                    row.told = subject;
                    news.push((&*row, wait));
                }
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let mut write = self.store.write().await?;
        for (row, wait) in news {
            tell::waits(&mut write, row, wait, self.clock.now()).await?;
        }
        Ok(write.commit().await?)
    }

    /// Candidates with what those that wait do wait for.
    pub async fn candidates(&self, query: &Query) -> Result<Vec<Waiting>, NotStarted> {
        let rows = candidates::list(self.store.read(), query).await?;
        let mut groups: BTreeMap<(&App, &Environment), BTreeMap<i64, Verdict>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.standing == Standing::Waiting) {
            groups.entry((&row.app, &row.environment)).or_default();
        }
        for ((app, environment), verdicts) in &mut groups {
            // All that wait there: they wait for each other, too.
            let whole = Query {
                app: Some((*app).clone()),
                environment: Some((*environment).clone()),
                ..Query::default()
            };
            let waiting = candidates::list(self.store.read(), &whole).await?;
            let settings = environments::store::find(self.store.read(), environment).await?.settings;
            *verdicts = self.look_at(app, environment, &settings, &waiting).await?.verdicts;
        }
        let verdict =
            |row: &CandidateRow| groups.get(&(&row.app, &row.environment))?.get(&row.number).cloned();
        let verdicts: Vec<Option<Verdict>> = rows.iter().map(verdict).collect();
        Ok(rows.into_iter().zip(verdicts).map(|(row, verdict)| Waiting { row, verdict }).collect())
    }

    /// All that is known, and what follows from it.
    async fn look_at(
        &self,
        app: &App,
        environment: &Environment,
        settings: &Settings,
        rows: &[CandidateRow],
    ) -> Result<Look, NotStarted> {
        let (root, now) = (self.trust_roots.newest(), self.clock.now());
        let automation = &settings.automation;
        let rules = Rules {
            deploy: automation.deploy.clone().unwrap_or_default(),
            keep: automation.candidates.unwrap_or_default(),
            // They were read when they were applied.
            windows: automation.freeze.iter().filter_map(|freeze| freeze.window().ok()).collect(),
            veto_ms: automation.veto_ms.unwrap_or(0),
        };
        let servers = self.registry.list().await?;
        let reports = servers.iter().filter(|server| server.environment == *environment);
        let reports: Vec<_> = reports.filter_map(|server| server.apps.get(app)).collect();
        let failed = reports.iter().filter_map(|report| report.failed).max();
        let mut plans = BTreeMap::new();
        let mut waiting = Vec::new();
        for row in rows {
            let word = self.gate_of(&root, row, failed, now).await?;
            plans.extend(word.plan.map(|plan| (row.number, plan)));
            waiting.push(Candidate {
                number: row.number,
                version: row.version.clone(),
                platform: row.platform.clone(),
                published: row.published,
                since: row.since,
                origin: row
                    .green
                    .as_ref()
                    .map_or(Origin::Published, |(green, _)| Origin::Green(green.clone())),
                gate: word.gate,
                ordered_by: word.ordered_by,
                refused: row.refused.clone(),
            });
        }
        let behind = store::behind(self.store.read(), app, environment).await?;
        let hold = store::hold(self.store.read(), app, environment).await?;
        let open = store::open(self.store.read()).await?;
        let busy = open
            .into_iter()
            .find(|row| row.app == *app && row.environment == *environment && keeps_busy(row, now));
        let started = candidates::started(self.store.read(), app, environment).await?;
        let situation = Situation {
            now,
            root_expires: root.expires,
            behind: behind.map(|behind| NotStarted::Behind(behind).to_string()),
            hold: hold.map(|hold| hold.because),
            busy: busy.map(|row| (row.id, row.version)),
            taken: reports.iter().map(|report| report.highest).max().unwrap_or_default(),
            started: started
                .into_iter()
                .map(|row| Started { published: row.published, version: row.version, platform: row.platform })
                .collect(),
            waiting,
        };
        Ok(Look { verdicts: pipeline::judge(&rules, &situation).into_iter().collect(), plans })
    }

    /// What the gate says of it now, by the function that agents decide with; `failed`: since when `rearm` holds on a
    /// server there.
    async fn gate_of(
        &self,
        root: &TrustRoot,
        row: &CandidateRow,
        failed: Option<OrderingNumber>,
        now: UnixMs,
    ) -> Result<Word, NotStarted> {
        let missing =
            |why: String| Word { gate: GateState::Missing(why), ordered_by: OrderedBy::Approval, plan: None };
        let bytes = match self.repository.manifest(row.digest).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(missing(format!("the artifact is not here any more: {error}"))),
        };
        let manifest = match json::from_slice(&bytes, ArtifactLimits::default().manifest_bytes) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(missing(format!("its manifest cannot be read: {error}"))),
        };
        // Decisions are about a rollout, and there is none yet.
        let in_force = match self.in_force(&row.app, &row.environment).await {
            Ok(in_force) => in_force,
            Err(error @ NotStarted::Failed(_)) => return Err(error),
            Err(error) => return Ok(missing(error.to_string())),
        };
        let statements = self.evidence(&row.environment, row.digest, &Id::from_bytes([0; 16])).await?;
        let statements = config::among(in_force.as_ref(), statements);
        let memory = Memory { failed, ..Memory::default() };
        let review = |plan: Option<&[u8]>| {
            review::review(Case {
                root,
                environment: &row.environment,
                digest: row.digest,
                manifest: &manifest,
                statements: &statements,
                plan,
                server: None,
                arrival: Arrival::WithTheOthers,
                memory: &memory,
                time: Time::Now(now),
            })
        };
        let assessed = match review(None) {
            Ok(reviewed) => reviewed.assessed,
            Err(refusal) => return Ok(missing(refusal.to_string())),
        };
        let ordered_by = match assessed.rules.iter().any(|state| state.rule.predicate == APPROVAL) {
            true => OrderedBy::Approval,
            false => OrderedBy::Publication,
        };
        let word = |gate, plan| Word { gate, ordered_by, plan };
        match assessed.refusal(&row.environment) {
            None => Ok(word(GateState::Met, None)),
            Some(refusal) => {
                // Approved was one plan: that is what servers are held to.
                if let Refusal::PlanNotApproved { approved: plan, .. } = refusal
                    && let Some(document) = store::plan_document(self.store.read(), plan).await?
                    && review(Some(&document)).is_ok_and(|reviewed| reviewed.assessed.is_met())
                {
                    return Ok(word(GateState::Met, Some(plan)));
                }
                Ok(word(GateState::Missing(refusal.to_string()), None))
            }
        }
    }

    /// Somebody says no, before it begins.
    pub async fn veto(
        &self,
        about: (&App, &Environment, &Version),
        reason: &str,
        by: &str,
    ) -> Result<CandidateRow, NotStarted> {
        let (app, environment, version) = about;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let settled = Settled { at: now, by: by.to_owned(), because: reason.to_owned() };
        let Some(vetoed) = candidates::veto(&mut write, about, &settled).await? else {
            let query = Query {
                app: Some(app.clone()),
                environment: Some(environment.clone()),
                which: candidates::Which::All,
                ..Query::default()
            };
            let all = candidates::list(&mut *write, &query).await?;
            let known = all.into_iter().find(|row| row.version == *version);
            return Err(not_waiting(app, version, environment, known));
        };
        let what = format!("veto {app}@{version}");
        let noted = Noted { at: now, who: by.to_owned(), what, because: reason.to_owned() };
        environments::store::note(&mut write, environment, &noted).await?;
        write.commit().await?;
        tracing::info!(%app, %version, %environment, by, reason, "a candidate was vetoed");
        Ok(vetoed)
    }

    /// From now on nothing begins by itself there.
    pub async fn hold(
        &self,
        app: &App,
        environment: &Environment,
        reason: &str,
        by: &str,
    ) -> Result<Hold, NotStarted> {
        let mut write = self.store.write().await?;
        if let Some(hold) = store::hold(&mut *write, app, environment).await? {
            return Err(NotStarted::OnHold { hold });
        }
        let hold = Hold {
            app: app.clone(),
            environment: environment.clone(),
            because: reason.to_owned(),
            who: by.to_owned(),
            at: self.clock.now(),
        };
        store::put_hold(&mut write, &hold).await?;
        let what = format!("hold {app}");
        let noted = Noted { at: hold.at, who: by.to_owned(), what, because: reason.to_owned() };
        environments::store::note(&mut write, environment, &noted).await?;
        write.commit().await?;
        tracing::info!(%app, %environment, by, reason, "on hold");
        Ok(hold)
    }

    /// What a rollout that is about to be added means for candidates; in its transaction.
    pub(super) async fn settle_candidates(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        chosen: Option<&Chosen>,
    ) -> Result<(), NotStarted> {
        let settled = Settled { at: row.started, by: row.started_by.clone(), because: row.reason.clone() };
        let Some(chosen) = chosen else {
            if row.selector.is_empty() {
                let about = (&row.app, &row.environment, row.digest);
                candidates::settle_by_hand(write, about, &row.id, &settled).await?;
            }
            return self.pin_by_hand(write, row).await;
        };
        // It was looked at outside of this transaction: what a person did meanwhile counts.
        if let Some(hold) = store::hold(&mut **write, &row.app, &row.environment).await? {
            return Err(NotStarted::OnHold { hold });
        }
        if candidates::claim(write, chosen.number, &row.id, &settled).await? {
            return Ok(());
        }
        Err(not_waiting(&row.app, &row.version, &row.environment, None))
    }

    /// A person who starts what is older than the newest candidate wants that, and not what would begin by itself next.
    async fn pin_by_hand(&self, write: &mut Write, row: &RolloutRow) -> Result<(), NotStarted> {
        let settings = environments::store::find(&mut **write, &row.environment).await?.settings;
        match settings.automation.deploy {
            Some(Deploy::OnPublish | Deploy::After(_)) => {}
            Some(Deploy::Manual) | None => return Ok(()),
        }
        let own = self.repository.number(write, row.digest).await?;
        let newest = candidates::newest(&mut **write, &row.app, &row.environment).await?;
        let Some(newer) = newest.filter(|newest| own.is_some_and(|own| newest.published > own)) else {
            return Ok(());
        };
        if store::hold(&mut **write, &row.app, &row.environment).await?.is_some() {
            return Ok(());
        }
        let (by, version) = (&row.started_by, &row.version);
        let hold = Hold {
            app: row.app.clone(),
            environment: row.environment.clone(),
            because: format!("{by} started {version}, which is older than the candidate {}", newer.version),
            who: row.started_by.clone(),
            // What is asked for after a hold begins all the same; so it comes a moment before.
            at: UnixMs(row.asked.0.saturating_sub(1)),
        };
        store::put_hold(write, &hold).await?;
        let mut act = Act::by_itself("env hold", row.asked);
        act.about(About::App, &hold.app).about(About::Environment, &hold.environment).because(&hold.because);
        audit::record(write, act).await?;
        Ok(())
    }
}

/// The gate's word on one candidate.
struct Word {
    gate: GateState,
    ordered_by: OrderedBy,
    /// The plan that the approvals are bound to.
    plan: Option<Sha256>,
}

/// Whether a candidate waits for it: one that is planned for later does not keep it from beginning.
fn keeps_busy(row: &RolloutRow, now: UnixMs) -> bool {
    match row.state.phase {
        Phase::Queued { not_before } => not_before <= now,
        Phase::Running { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } => is_active(row),
        Phase::Ended { .. } => false,
    }
}

fn not_waiting(
    app: &App,
    version: &Version,
    environment: &Environment,
    known: Option<CandidateRow>,
) -> NotStarted {
    let state = match known {
        None => "it is no candidate there".to_owned(),
        Some(CandidateRow { standing, rollout: Some(rollout), .. }) => {
            format!("it is {}, with rollout {}", standing.as_str(), rollout.short())
        }
        Some(CandidateRow { standing, .. }) => format!("it is {}", standing.as_str()),
    };
    let (app, version, environment) = (app.clone(), version.clone(), environment.clone());
    NotStarted::NotWaiting { app, version, environment, state }
}
