//! The agent's process: session, orders, places. Mirrors `agent/src/manager` (run, intake, resume, pump) and
//! `agent/src/session`; what it decides with is the product's own `authorize` and `core`.
//!
//! Its rules: an order is durable before anything follows from it; a word about a deployment is judged by that deployment,
//! in its turn; what is not acknowledged goes up again with every session.

use std::collections::{BTreeMap, BTreeSet};

use consign_agent::core::Input;
use consign_common::{
    digest::Sha256,
    name::{App, Id},
    plan::Kind,
    trust::{
        Order, OrderKind, Privilege, Refusal,
        authorize::{
            Deciding, Documents, Host, Intent, Verified, Work, authorize, authorize_approach,
            authorize_control,
        },
    },
};

use super::{
    around::{Around, Crashed},
    bug::Bug,
    catalog::{self, COORDINATOR, PLATFORM},
    check::Stopped,
    deployment::{Control, Live, Message},
    disk::Known,
    host::Server,
    queue::{Down, Inner, Key, Moment, Up, What},
};

/// As `CANCELS` and `WORDS` of the manager.
const CANCELS: u32 = 8;
const WORDS: usize = 8;
const WELCOME_WITHIN: Moment = 10_000;

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) mode: Mode,
    pub(super) session: Option<Session>,
    pub(super) slots: BTreeMap<App, Slot>,
    /// Of the journal, what this session has been sent.
    cursor: usize,
    /// Attempts whose end is waited for.
    pub(super) watched: BTreeSet<Key>,
    /// Of every log, what this session has been sent.
    shipped: BTreeMap<Key, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Service,
    /// `consign-agent confirm-expired`: no network, only what waits to be confirmed.
    Alone,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) welcome: bool,
}

/// One app's place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) deployment: Id,
    pub(super) order: Id,
    pub(super) work: Place,
    /// Came before it ran.
    early: Vec<Control>,
    pub(super) cancels: u32,
    /// Came while it ended, was cancelled, or waited for a decision.
    pub(super) next: Option<Box<Next>>,
}

/// An order that is judged once the place is free, and what was said about it meanwhile.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) incoming: Incoming,
    pub(super) words: Vec<Control>,
}

#[derive(Debug)]
pub(super) enum Place {
    Judged(Box<Incoming>),
    Runs(Box<Live>),
}

#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) order: Order,
    pub(super) document: Vec<u8>,
    pub(super) statements: Vec<Vec<u8>>,
}

/// Why an order is not carried out.
#[derive(Debug)]
pub(super) enum Declined {
    /// A rule: kept, and said again.
    Rule(Refusal),
    /// Only in the way now.
    Now { code: &'static str, message: String },
}

impl Declined {
    pub(super) fn now(code: &'static str, message: impl Into<String>) -> Self {
        Self::Now { code, message: message.into() }
    }
}

impl Server {
    pub(super) fn agent_starts(&mut self, around: &mut Around, mode: Mode) {
        match &self.agent {
            None => {}
            // Whoever is there has the lock until he has nothing more to do.
            Some(agent) if agent.mode == Mode::Alone => {
                if agent.slots.values().all(Slot::is_idle) {
                    self.agent = None;
                    self.life += 1;
                } else {
                    return around.after(1000, What::AgentStarts { server: self.place });
                }
            }
            Some(_) => return,
        }
        around.say(|| format!("{}: agent starts, {mode:?}", self.name));
        around.covers(format!("agent starts: {mode:?}").to_lowercase());
        self.life += 1;
        self.agent = Some(Agent {
            mode,
            session: None,
            slots: BTreeMap::new(),
            cursor: 0,
            watched: BTreeSet::new(),
            shipped: BTreeMap::new(),
        });
        if self.resume_all(around).is_err() {
            return self.crash(around);
        }
        if mode == Mode::Service && self.enrolled {
            self.later(around, 50, Inner::Dial);
        }
    }

    /// The agent's process is killed, and started again by systemd.
    pub(super) fn crash(&mut self, around: &mut Around) {
        around.say(|| format!("{}: agent killed", self.name));
        around.counts.agent_crashes += 1;
        let noticed = around.random.between(1, 2000);
        self.agent_dies(around, noticed);
        let restart = around.random.span(100, 30_000);
        around.after(restart, What::AgentStarts { server: self.place });
    }

    /// What was being written is durable or not; what ran in the agent has ended with it.
    pub(super) fn agent_dies(&mut self, around: &mut Around, noticed: Moment) {
        let Some(mut agent) = self.agent.take() else { return };
        self.life += 1;
        for slot in agent.slots.values_mut() {
            let Place::Runs(live) = &mut slot.work else { continue };
            if let Some((attempt, _)) = live.inside {
                let key = (slot.deployment.clone(), attempt);
                around.oracle.stopped(self.place, &key, Stopped::Killed, around.now);
            }
            while let Some((event, pointers)) = live.writes.pop_front() {
                if around.random.chance(500) {
                    break;
                }
                self.commit(around, &slot.deployment, &event, pointers.as_deref());
            }
        }
        if let Some(session) = agent.session {
            around.break_session(self.place, session.number, 0, noticed);
        }
    }

    pub(super) fn later(&self, around: &mut Around, delay: Moment, what: Inner) {
        around.after(delay, What::Agent { server: self.place, life: self.life, what });
    }

    pub(super) fn inner(&mut self, around: &mut Around, what: Inner) {
        let done = match what {
            Inner::Dial => {
                self.dial(around);
                Ok(())
            }
            Inner::Unwelcome { session } => {
                self.unwelcome(around, session);
                Ok(())
            }
            Inner::Judged { app, order } => self.judged(around, &app, &order),
            Inner::Synced { app, deployment } => self.synced(around, &app, &deployment),
            Inner::TryAgain { app, deployment } => {
                self.write_soon(around, &app, &deployment);
                Ok(())
            }
            Inner::Answer { app, deployment, task, input } => {
                self.answered(around, &app, &deployment, task, input)
            }
            Inner::Tidied { app, deployment } => self.tidied(around, &app, &deployment),
            Inner::Unstalled { app, deployment } => {
                if let Some(live) = self.live(&app).filter(|live| live.is_of(&deployment)) {
                    live.stalled = false;
                }
                self.go_on(around, &app)
            }
        };
        if done.is_err() {
            self.crash(around);
        }
    }

    // The session.

    fn dial(&mut self, around: &mut Around) {
        let place = self.place;
        if self.agent.as_ref().is_none_or(|agent| agent.session.is_some()) {
            return;
        }
        let blocked = around.lines.get(place).is_none_or(|line| line.is_blocked(around.now));
        if blocked || !around.coordinator_up {
            let backoff = around.random.span(200, 20_000);
            return self.later(around, backoff, Inner::Dial);
        }
        around.sessions += 1;
        let number = around.sessions;
        around.counts.sessions += 1;
        let apps = self.disk.memories.iter().map(|(app, memory)| {
            let digest = |it: &Option<consign_common::trust::authorize::Installed>| {
                it.as_ref().map(|installed| installed.manifest)
            };
            (app.clone(), digest(&memory.good), digest(&memory.before))
        });
        let hello = Up::Hello { clock_ms: self.clock_ms(around), apps: apps.collect() };
        around.send_up(place, number, hello);
        if let Some(agent) = &mut self.agent {
            agent.session = Some(Session { number, welcome: false });
        }
        self.later(around, WELCOME_WITHIN, Inner::Unwelcome { session: number });
    }

    fn unwelcome(&self, around: &mut Around, number: u64) {
        let session = self.agent.as_ref().and_then(|agent| agent.session);
        if session.is_some_and(|session| session.number == number && !session.welcome) {
            around.break_session(self.place, number, 0, 500);
        }
    }

    pub(super) fn session_broken(&mut self, around: &mut Around, number: u64) {
        let Some(agent) = &mut self.agent else { return };
        if agent.session.is_none_or(|session| session.number != number) {
            return;
        }
        agent.session = None;
        let backoff = around.random.span(200, 5_000);
        self.later(around, backoff, Inner::Dial);
    }

    pub(super) fn is_connected(&self) -> bool {
        let session = self.agent.as_ref().and_then(|agent| agent.session);
        session.is_some_and(|session| session.welcome)
    }

    fn tell(&self, around: &mut Around, message: Up) {
        let session = self.agent.as_ref().and_then(|agent| agent.session);
        if let Some(session) = session.filter(|session| session.welcome) {
            around.send_up(self.place, session.number, message);
        }
    }

    pub(super) fn hear(&mut self, around: &mut Around, number: u64, message: Down) {
        let current = self.agent.as_ref().and_then(|agent| agent.session).map(|session| session.number);
        // What comes late comes to nobody: the line it came on is closed.
        if current != Some(number) || !around.arrives(number) {
            return;
        }
        match message {
            Down::Welcome => {
                if let Some(agent) = &mut self.agent {
                    agent.session = Some(Session { number, welcome: true });
                    agent.cursor = 0;
                    agent.shipped.clear();
                }
                around.say(|| format!("{}: connected", self.name));
                self.pump(around);
                self.ship(around);
            }
            Down::Order { document, statements } => {
                let Ok(order) = Order::parse(&document) else { return };
                if self.order(around, Incoming { order, document, statements }).is_err() {
                    self.crash(around);
                }
            }
            Down::EventAck { deployment, sequence } => {
                if !self.disk.is_full(around.now) {
                    self.disk.acknowledge(&deployment, sequence);
                    let up_to = self.disk.deployments.get(&deployment).map_or(0, |it| it.acknowledged);
                    around.oracle.acknowledged(&deployment, up_to);
                }
            }
            Down::LogAck { deployment, attempt, offset } => {
                if let Some(log) = self.disk.logs.get_mut(&(deployment.clone(), attempt)) {
                    log.acknowledged = log.acknowledged.max(offset.min(log.length));
                    around.oracle.log_acknowledged(&(deployment, attempt), log.acknowledged);
                }
            }
        }
    }

    /// `pump`: in the journal's order, each once per session, from the journal alone.
    pub(super) fn pump(&mut self, around: &mut Around) {
        let Some(agent) = &mut self.agent else { return };
        let Some(session) = agent.session.filter(|session| session.welcome) else { return };
        let from = std::mem::replace(&mut agent.cursor, self.disk.records.len());
        for record in self.disk.records.iter().skip(from) {
            let known = self.disk.deployments.get(&record.deployment).map_or(0, |it| it.acknowledged);
            if record.sequence > known {
                let (deployment, sequence) = (record.deployment.clone(), record.sequence);
                let event = Up::Event { deployment, sequence, at: record.at, body: record.body.clone() };
                around.send_up(self.place, session.number, event);
            }
        }
    }

    /// `agent/src/logs/ship.rs`: what is in a log's file and was not sent in this session, from what is acknowledged on.
    pub(super) fn ship(&mut self, around: &mut Around) {
        let Some(agent) = &mut self.agent else { return };
        let Some(session) = agent.session.filter(|session| session.welcome) else { return };
        for (key, log) in &self.disk.logs {
            let sent = agent.shipped.entry(key.clone()).or_insert(log.acknowledged);
            *sent = (*sent).max(log.acknowledged);
            while *sent < log.length {
                let length = (log.length - *sent).min(400);
                let (deployment, attempt) = key.clone();
                let chunk = Up::Log { deployment, attempt, offset: *sent, length };
                around.send_up(self.place, session.number, chunk);
                *sent += length;
            }
        }
    }

    // Orders.

    fn order(&mut self, around: &mut Around, incoming: Incoming) -> Result<(), Crashed> {
        let known = self.disk.known(&incoming.order.id, &incoming.document);
        let begins = matches!(incoming.order.order, OrderKind::Deploy { .. } | OrderKind::Return { .. });
        match known {
            Err(refusal) => self.decline(around, &incoming, &Declined::Rule(refusal)),
            Ok(Known::Refused { code, message }) => {
                self.tell(around, Up::Refused { order: incoming.order.id, code, message });
                Ok(())
            }
            // A word may have been kept by an agent that died before the deployment heard of it.
            Ok(Known::Accepted) if begins => Ok(()),
            Ok(Known::Accepted) => self.word(around, incoming),
            Ok(Known::New) if begins => self.approach(around, incoming),
            Ok(Known::New) => self.control(around, incoming),
        }
    }

    fn approach(&mut self, around: &mut Around, incoming: Incoming) -> Result<(), Crashed> {
        let order = &incoming.order;
        let memory = self.disk.memory(&order.app);
        let word = catalog::word(&self.name, &self.labels, &around.apps);
        match authorize_approach(order, COORDINATOR, &around.roots[0], &word, &memory) {
            Ok(()) => self.judge(around, incoming),
            Err(refusal) => self.decline(around, &incoming, &Declined::Rule(refusal)),
        }
    }

    /// Takes the app's place, and judges beside everything else: the manifest may have to be fetched.
    pub(super) fn judge(&mut self, around: &mut Around, incoming: Incoming) -> Result<(), Crashed> {
        let app = incoming.order.app.clone();
        let two = around.has(Bug::TwoAtOnce);
        let Some(agent) = &mut self.agent else { return Ok(()) };
        if let Some(slot) = agent.slots.get_mut(&app).filter(|_| !two) {
            let known = |next: &Next| next.incoming.order.id == incoming.order.id;
            if slot.order == incoming.order.id || slot.next.as_deref().is_some_and(known) {
                return Ok(());
            }
            let (ending, undecided) = match &slot.work {
                Place::Runs(live) => (live.ending, live.is_undecided()),
                Place::Judged(_) => (false, false),
            };
            if (ending || undecided || slot.cancels > 0) && slot.next.is_none() {
                slot.next = Some(Box::new(Next { incoming, words: Vec::new() }));
                return self.go_on(around, &app);
            }
            let busy = format!("{app} is being deployed already (deployment {})", slot.deployment);
            return self.decline(around, &incoming, &Declined::now("busy", busy));
        }
        self.occupy(around, Next { incoming, words: Vec::new() });
        Ok(())
    }

    /// Takes the app's place, which is free, and judges the order beside everything else.
    pub(super) fn occupy(&mut self, around: &mut Around, next: Next) {
        let Next { incoming, words } = next;
        let app = incoming.order.app.clone();
        let (deployment, order) = (incoming.order.deployment.clone(), incoming.order.id.clone());
        let work = Place::Judged(Box::new(incoming));
        let cancels = words.iter().filter(|word| matches!(word.input, Input::Cancel { .. })).count();
        let cancels = u32::try_from(cancels).unwrap_or(0);
        let slot = Slot { deployment, order: order.clone(), work, early: words, cancels, next: None };
        let Some(agent) = &mut self.agent else { return };
        agent.slots.insert(app.clone(), slot);
        let delay = around.random.span(1, 3000);
        self.later(around, delay, Inner::Judged { app, order });
    }

    fn judged(&mut self, around: &mut Around, app: &App, order: &Id) -> Result<(), Crashed> {
        around.survives()?;
        let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(app));
        let Some(slot) = slot.filter(|slot| slot.order == *order) else { return Ok(()) };
        let Place::Judged(incoming) = &slot.work else { return Ok(()) };
        let incoming = incoming.clone();
        let declined = match self.decide(around, &incoming) {
            Ok(work) => match self.begin(around, app, &incoming, work)? {
                None => {
                    let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(app));
                    let early = slot.map(|slot| std::mem::take(&mut slot.early)).unwrap_or_default();
                    for control in early {
                        self.enqueue(around, app, Message::Control(Box::new(control)))?;
                    }
                    return self.go_on(around, app);
                }
                Some(declined) => declined,
            },
            Err(declined) => declined,
        };
        self.decline(around, &incoming, &declined)?;
        self.vacate(around, app)
    }

    /// The place is free: of what waited for it, the words have nobody to go to, and the order is judged.
    pub(super) fn vacate(&mut self, around: &mut Around, app: &App) -> Result<(), Crashed> {
        let Some(slot) = self.agent.as_mut().and_then(|agent| agent.slots.remove(app)) else { return Ok(()) };
        let mut words = slot.early;
        if let Place::Runs(live) = slot.work {
            words.extend(live.into_words());
        }
        self.forget(around, words)?;
        if let Some(next) = slot.next {
            self.occupy(around, *next);
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, around: &mut Around, words: Vec<Control>) -> Result<(), Crashed> {
        for Control { incoming, .. } in words {
            let message = format!("no deployment {} goes on here", incoming.order.deployment);
            self.decline(around, &incoming, &Declined::now("not-running", message))?;
        }
        Ok(())
    }

    /// `judge` of intake: nothing is journalled yet.
    fn decide(&mut self, around: &Around, incoming: &Incoming) -> Result<Verified<Work>, Declined> {
        let order = &incoming.order;
        let digest = match &order.order {
            OrderKind::Deploy { manifest, .. } | OrderKind::Return { manifest, .. } => *manifest,
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => return Err(Declined::now("malformed", "it carries no artifact")),
        };
        if !self.disk.manifests.contains(&digest) && !self.is_connected() {
            return Err(Declined::now("fetch-failed", "the manifest could not be fetched"));
        }
        let intent = Intent::Order { order, connected: COORDINATOR };
        let work = self.authorized(around, intent, digest, &incoming.statements).map_err(Declined::Rule)?;
        check_skips(work.get(), &order.order)?;
        self.disk.manifests.insert(digest);
        Ok(work)
    }

    pub(super) fn authorized(
        &self,
        around: &Around,
        intent: Intent<'_>,
        digest: Sha256,
        statements: &[Vec<u8>],
    ) -> Result<Verified<Work>, Refusal> {
        let bytes = around.catalog.by_digest(&digest).map(|it| it.bytes.as_slice()).unwrap_or_default();
        let app = match intent {
            Intent::Order { order, .. } | Intent::Resume { order } => Some(order.app.clone()),
            Intent::AutomaticReturn => around.catalog.by_digest(&digest).map(|it| it.manifest.app.clone()),
        };
        let memory = app.map(|app| self.disk.memory(&app)).unwrap_or_default();
        let word = catalog::word(&self.name, &self.labels, &around.apps);
        let privilege = Privilege::User("app".to_owned());
        let host = Host { word: &word, privilege: &privilege, platform: PLATFORM };
        let documents = Documents { manifest: bytes, statements, plan: None };
        let now = consign_common::time::UnixMs(self.clock_ms(around));
        let [root, strangers] = &around.roots;
        let decided = authorize(intent, documents, root, host, &memory, now);
        if decided.is_err() && around.has(Bug::TrustAnybody) {
            return authorize(intent, documents, strangers, host, &memory, now);
        }
        decided
    }

    /// Cancel, once, decide, confirm: for the deployment to judge, in its turn.
    fn control(&mut self, around: &mut Around, incoming: Incoming) -> Result<(), Crashed> {
        let order = &incoming.order;
        let memory = self.disk.memory(&order.app);
        let word = catalog::word(&self.name, &self.labels, &around.apps);
        let began = self.disk.deployments.get(&order.deployment).map(|it| &it.order.order);
        let manifest = began.and_then(|kind| match kind {
            OrderKind::Deploy { manifest, .. } | OrderKind::Return { manifest, .. } => Some(*manifest),
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => None,
        });
        let now = consign_common::time::UnixMs(self.clock_ms(around));
        let deciding = Deciding { manifest, statements: &incoming.statements, now };
        let root = &around.roots[0];
        if let Err(refusal) = authorize_control(order, COORDINATOR, root, &word, &memory, deciding) {
            return self.decline(around, &incoming, &Declined::Rule(refusal));
        }
        let deployment = order.deployment.clone();
        let is_cancel = matches!(order.order, OrderKind::Cancel { .. });
        let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(&order.app));
        let Some(ear) = slot.and_then(|slot| slot.ear(&deployment)) else {
            let message = format!("no deployment {deployment} goes on here");
            return self.decline(around, &incoming, &Declined::now("not-running", message));
        };
        match ear {
            Ear::Running { cancels } if is_cancel && *cancels >= CANCELS => {
                let message = format!("the deployment {deployment} has been cancelled often enough");
                self.decline(around, &incoming, &Declined::now("cancelling", message))
            }
            Ear::Running { .. } => self.word(around, incoming),
            Ear::Judged { words, .. } if words.len() >= WORDS => {
                let message = format!("too many words wait for the deployment {deployment}");
                self.decline(around, &incoming, &Declined::now("crowded", message))
            }
            Ear::Judged { .. } if self.disk.is_full(around.now) => {
                self.decline(around, &incoming, &Declined::now("disk-full", "the disk is full"))
            }
            Ear::Judged { .. } => {
                around.survives()?;
                let Incoming { order, document, statements } = incoming.clone();
                self.disk.keep(&order, document, statements);
                around.survives()?;
                self.word(around, incoming)
            }
        }
    }

    /// To the deployment that it is about; kept for one that does not run yet, each order's once.
    fn word(&mut self, around: &mut Around, incoming: Incoming) -> Result<(), Crashed> {
        let (app, deployment) = (incoming.order.app.clone(), incoming.order.deployment.clone());
        let is_cancel = matches!(incoming.order.order, OrderKind::Cancel { .. });
        let Some(control) = Control::of(incoming) else { return Ok(()) };
        let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(&app));
        match slot.and_then(|slot| slot.ear(&deployment)) {
            None => Ok(()),
            Some(Ear::Running { cancels }) => {
                *cancels += u32::from(is_cancel);
                self.enqueue(around, &app, Message::Control(Box::new(control)))
            }
            Some(Ear::Judged { words, cancels }) => {
                let known = |word: &Control| word.incoming.order.id == control.incoming.order.id;
                if words.len() < WORDS && !words.iter().any(known) {
                    if let Some(cancels) = cancels {
                        *cancels += u32::from(is_cancel);
                    }
                    words.push(control);
                }
                Ok(())
            }
        }
    }

    pub(super) fn decline(
        &mut self,
        around: &mut Around,
        incoming: &Incoming,
        declined: &Declined,
    ) -> Result<(), Crashed> {
        around.survives()?;
        let order = incoming.order.id.clone();
        let (code, message) = match declined {
            Declined::Rule(refusal) => (refusal.code(), refusal.to_string()),
            Declined::Now { code, message } => (*code, message.clone()),
        };
        around.say(|| format!("{}: order {} refused: {code}: {message}", self.name, order.short()));
        around.oracle.refused(&order, code);
        around.covers(format!("agent refuses: {code}"));
        if matches!(declined, Declined::Rule(_)) && code != "equivocation" && !self.disk.is_full(around.now) {
            self.disk.refuse(&incoming.order, incoming.document.clone(), code, &message);
        }
        around.survives()?;
        self.tell(around, Up::Refused { order, code: code.to_owned(), message });
        Ok(())
    }
}

/// Where a word about a deployment goes.
enum Ear<'a> {
    Running { cancels: &'a mut u32 },
    Judged { words: &'a mut Vec<Control>, cancels: Option<&'a mut u32> },
}

impl Slot {
    fn ear(&mut self, deployment: &Id) -> Option<Ear<'_>> {
        if self.deployment == *deployment {
            return Some(match self.work {
                Place::Runs(_) => Ear::Running { cancels: &mut self.cancels },
                Place::Judged(_) => Ear::Judged { words: &mut self.early, cancels: Some(&mut self.cancels) },
            });
        }
        let next = self.next.as_deref_mut().filter(|next| next.incoming.order.deployment == *deployment)?;
        Some(Ear::Judged { words: &mut next.words, cancels: None })
    }

    pub(super) fn running(deployment: Id, order: Id, live: Live) -> Self {
        let work = Place::Runs(Box::new(live));
        Self { deployment, order, work, early: Vec::new(), cancels: 0, next: None }
    }

    /// Nothing happens there without a word from outside.
    fn is_idle(&self) -> bool {
        match &self.work {
            Place::Judged(_) => false,
            Place::Runs(live) => live.waits_for_a_word(),
        }
    }
}

/// As `look_ahead`: an order leaves out only what there is, and never the switch.
fn check_skips(work: &Work, order: &OrderKind) -> Result<(), Declined> {
    let (OrderKind::Deploy { skip, .. } | OrderKind::Return { skip, .. }) = order else { return Ok(()) };
    for name in skip {
        match work.plan.steps.iter().find(|step| step.name == *name) {
            None => return Err(Declined::now("step-unknown", format!("there is no step {name}"))),
            Some(step) if step.kind == Kind::Activate => {
                return Err(Declined::now("not-skippable", format!("step {name} cannot be left out")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
