//! One deployment on a server, driven by `consign_agent::core`. Mirrors `agent/src/executor/deployment.rs`: commands in
//! their order, nothing after a `Journal` before that is durable, inputs one at a time.

use std::collections::VecDeque;

use consign_agent::core::{Begun, Command, Input, Pointers, Run, Setting, Verdict, Waiting, Way};
use consign_common::{
    config::InForce,
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome},
    digest::Sha256,
    name::{App, Id},
    plan::{Kind, Phase, Step},
    time::UnixMs,
    trust::{
        Order, OrderKind,
        authorize::{Installed, Intent, Memory, Verified, Work},
    },
};

use super::{
    agent::{Declined, Incoming, Mode, Place, Slot},
    around::{Around, Crashed},
    bug::Bug,
    check::Stopped,
    host::{ExitRecord, Server, State, Supervisor, finished, outcome},
    queue::{Inner, Key, Outer, What},
};

const FULL_DISK_PAUSE: u64 = 5_000;
const FETCH_TRIES: u32 = 60;

#[derive(Debug)]
pub(super) struct Live {
    order: Order,
    work: Work,
    /// The plan of what is returned to, once its files were found whole.
    restored: Option<Vec<Step>>,
    memory: Memory,
    run: Run,
    queue: VecDeque<Command>,
    inbox: VecDeque<Message>,
    /// Words that came before the steps that they are about were known again.
    early: VecDeque<Control>,
    /// What is being written. More than one only where the shell does not wait.
    pub(super) writes: VecDeque<(Event, Option<Box<Pointers>>)>,
    /// The attempt that runs in the agent, and its task.
    pub(super) inside: Option<(Attempt, u64)>,
    task: u64,
    tries: u32,
    /// Its last event is being written.
    pub(super) ending: bool,
    tidying: bool,
    /// A word waits for space on the disk.
    pub(super) stalled: bool,
}

#[derive(Debug)]
pub(super) enum Message {
    Input(Input),
    Control(Box<Control>),
}

/// A word about a deployment, and the order that it came with.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) input: Input,
    pub(super) incoming: Incoming,
}

impl Control {
    pub(super) fn of(incoming: Incoming) -> Option<Self> {
        let order = incoming.order.id.clone();
        let input = match incoming.order.order.clone() {
            OrderKind::Cancel { reason } => Input::Cancel { order, because: reason },
            OrderKind::Confirm {} => Input::Confirm { order },
            OrderKind::Once { step, word } => Input::Once { order, step, word },
            OrderKind::Decide { step, action, reason } => Input::Decide { order, step, action, reason },
            OrderKind::Deploy { .. } | OrderKind::Return { .. } => return None,
        };
        Some(Self { input, incoming })
    }
}

impl Live {
    fn new(order: Order, work: Work, memory: Memory, run: Run, commands: Vec<Command>) -> Self {
        Self {
            order,
            work,
            restored: None,
            memory,
            run,
            queue: commands.into(),
            inbox: VecDeque::new(),
            early: VecDeque::new(),
            writes: VecDeque::new(),
            inside: None,
            task: 0,
            tries: 0,
            ending: false,
            tidying: false,
            stalled: false,
        }
    }

    /// What was said to it and not heard.
    pub(super) fn into_words(self) -> Vec<Control> {
        let unheard = self.inbox.into_iter().filter_map(|message| match message {
            Message::Control(control) => Some(*control),
            Message::Input(_) => None,
        });
        self.early.into_iter().chain(unheard).collect()
    }

    pub(super) fn is_of(&self, deployment: &Id) -> bool {
        self.order.deployment == *deployment
    }

    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.run.waiting(), Some(Waiting::Decision { .. }))
    }

    pub(super) fn waits_for_a_word(&self) -> bool {
        let waits = matches!(self.run.waiting(), Some(Waiting::Decision { .. } | Waiting::Once { .. }));
        waits && self.queue.is_empty() && self.writes.is_empty() && self.inbox.is_empty()
    }

    fn steps(&self, phase: Phase) -> &[Step] {
        match phase {
            Phase::Deploy => &self.work.plan.steps,
            Phase::Return => self.restored.as_deref().unwrap_or_default(),
        }
    }

    /// The release that a phase's steps run in.
    fn release(&self, phase: Phase) -> Option<String> {
        let of = |installed: &Option<Installed>| installed.as_ref().map(|it| it.release.clone());
        match (phase, &self.order.order) {
            (Phase::Deploy, _) => self.run.staged().map(str::to_owned),
            (Phase::Return, OrderKind::Return { .. }) => of(&self.memory.before),
            (Phase::Return, _) => of(&self.memory.good),
        }
    }

    fn apply(&mut self, input: Input) {
        let (run, commands) = self.run.clone().apply(input);
        self.run = run;
        self.queue.extend(commands);
    }
}

impl Server {
    pub(super) fn live(&mut self, app: &App) -> Option<&mut Live> {
        match &mut self.agent.as_mut()?.slots.get_mut(app)?.work {
            Place::Runs(live) => Some(live),
            Place::Judged(_) => None,
        }
    }

    /// Journals the acceptance; with a reason nothing has begun.
    pub(super) fn begin(
        &mut self,
        around: &mut Around,
        app: &App,
        incoming: &Incoming,
        work: Verified<Work>,
    ) -> Result<Option<Declined>, Crashed> {
        if self.disk.is_full(around.now) {
            return Ok(Some(Declined::now("disk-full", "the disk is full")));
        }
        let order = &incoming.order;
        let work = work.into_inner();
        let memory = self.disk.memory(app);
        let setting = self.setting(around, order, &work, &memory);
        let (run, mut commands) = Run::new(setting).apply(Input::Go);
        if let Some(Command::Journal { event, .. }) = commands.first().cloned() {
            commands.remove(0);
            let number = matches!(order.order, OrderKind::Deploy { .. }).then_some(work.number);
            let (document, statements) = (incoming.document.clone(), incoming.statements.clone());
            around.oracle.accepted(self.place, order, work.digest, around.now);
            let config_sequence = number.map_or(0, |_| work.config_sequence);
            self.disk.accept(order, document, statements, number, config_sequence);
            self.commit(around, &order.deployment, &event, None);
            around.survives()?;
        }
        let live = Live::new(order.clone(), work, memory, run, commands);
        let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(app));
        if let Some(slot) = slot {
            slot.work = Place::Runs(Box::new(live));
        }
        Ok(None)
    }

    /// `resume`: every open deployment again, under what it was accepted with.
    pub(super) fn resume_all(&mut self, around: &mut Around) -> Result<(), Crashed> {
        for id in self.disk.open_deployments() {
            around.survives()?;
            let mut events = self.disk.events(&id);
            let alone = self.agent.as_ref().is_some_and(|agent| agent.mode == Mode::Alone);
            let confirms = events.iter().any(|event| matches!(event, Event::Confirming { .. }));
            if alone && !confirms {
                continue;
            }
            let Some(order) = self.disk.deployments.get(&id).map(|it| it.order.clone()) else { continue };
            let statements =
                self.disk.orders.get(&order.id).map(|it| it.statements.clone()).unwrap_or_default();
            let digest = match &order.order {
                OrderKind::Deploy { manifest, .. } | OrderKind::Return { manifest, .. } => *manifest,
                OrderKind::Cancel { .. }
                | OrderKind::Confirm {}
                | OrderKind::Decide { .. }
                | OrderKind::Once { .. } => continue,
            };
            let intent = Intent::Resume { order: &order };
            let work = match self.authorized(around, intent, digest, &statements) {
                Ok(work) => work.into_inner(),
                Err(refusal) => {
                    let because = format!("this deployment may not go on: {refusal}");
                    let result = DeploymentOutcome::Stopped { because };
                    self.commit(around, &id, &Event::Ended { result }, None);
                    continue;
                }
            };
            let memory = self.disk.memory(&order.app);
            let setting = self.setting(around, &order, &work, &memory);
            if around.has(Bug::ConfirmSurvivesReboot) {
                own_boot(&mut events, &setting.boot_id);
            }
            let Ok(run) = Run::replay(setting, events) else { continue };
            let (run, commands) = run.apply(Input::Go);
            let live = Live::new(order.clone(), work, memory, run, commands);
            let app = order.app.clone();
            if let Some(agent) = &mut self.agent {
                let mut slot = Slot::running(id.clone(), order.id, live);
                let cancels =
                    self.disk.events(&id).iter().filter(|it| matches!(it, Event::Cancelling { .. })).count();
                slot.cancels = u32::try_from(cancels).unwrap_or(u32::MAX);
                agent.slots.insert(app.clone(), slot);
            }
            self.go_on(around, &app)?;
        }
        Ok(())
    }

    fn setting(&self, around: &Around, order: &Order, work: &Work, memory: &Memory) -> Setting {
        let current = self.disk.current.get(&order.app);
        let current = current.and_then(|name| self.disk.releases.get(&(order.app.clone(), name.clone())));
        let mut setting = setting(order, work, memory, current.map(|it| it.digest), self.boot_id());
        if let (true, Way::Deploy { confirm, .. }) = (around.has(Bug::GoodBeforeConfirm), &mut setting.way) {
            *confirm = None;
        }
        setting
    }

    pub(super) fn enqueue(
        &mut self,
        around: &mut Around,
        app: &App,
        message: Message,
    ) -> Result<(), Crashed> {
        if let Some(live) = self.live(app) {
            live.inbox.push_back(message);
        }
        self.go_on(around, app)
    }

    pub(super) fn answered(
        &mut self,
        around: &mut Around,
        app: &App,
        deployment: &Id,
        task: u64,
        input: Input,
    ) -> Result<(), Crashed> {
        around.survives()?;
        let is_it = |slot: &&Slot| slot.deployment == *deployment;
        if self.agent.as_ref().and_then(|agent| agent.slots.get(app)).filter(is_it).is_none() {
            return Ok(());
        }
        let connected = self.is_connected();
        let Some(live) = self.live(app) else { return Ok(()) };
        if task > 0 && task != live.task {
            return Ok(());
        }
        if let Input::Staged { release, .. } = &input {
            let (release, digest) = (release.clone(), live.work.digest);
            let there = self.disk.releases.contains_key(&(app.clone(), release.clone()));
            let tries = self.live(app).map_or(0, |live| {
                live.tries += 1;
                live.tries
            });
            // It has to be fetched from somewhere.
            if !there && !connected && tries < FETCH_TRIES {
                let (app, deployment) = (app.clone(), deployment.clone());
                self.later(around, 10_000, Inner::Answer { app, deployment, task, input });
                return Ok(());
            }
            let failed =
                |code: &str| Input::StagingFailed { code: code.to_owned(), message: code.to_owned() };
            let input = if self.disk.is_full(around.now) {
                failed("disk-full")
            } else if there || connected {
                if !there {
                    self.disk.stage(app, &release, digest);
                }
                input
            } else {
                failed("fetch-failed")
            };
            return self.enqueue(around, app, Message::Input(input));
        }
        if let Input::Finished { attempt, result, .. } = &input
            && let Some((inside, _)) = live.inside
            && inside == *attempt
        {
            live.inside = None;
            let key = (deployment.clone(), *attempt);
            let how = match result {
                StepOutcome::Succeeded | StepOutcome::Skipped { .. } => Stopped::Well,
                StepOutcome::Failed { .. } => Stopped::Badly,
                StepOutcome::Unknown { .. } | StepOutcome::Cancelled => Stopped::Killed,
            };
            let step = live.steps(attempt.phase).get(attempt.step as usize).map(|step| step.kind.clone());
            let release = live.release(attempt.phase);
            around.oracle.stopped(self.place, &key, how, around.now);
            if let (Some(Kind::Activate), Some(release), Stopped::Well) = (step, release, how) {
                around.say(|| format!("{}: {app}: current -> {release}", self.name));
                self.disk.current.insert(app.clone(), release);
            }
        }
        self.enqueue(around, app, Message::Input(input))
    }

    /// `drive`: until there is something to wait for.
    pub(super) fn go_on(&mut self, around: &mut Around, app: &App) -> Result<(), Crashed> {
        let impatient = around.has(Bug::ActBeforeJournal);
        loop {
            let Some(live) = self.live(app) else { return Ok(()) };
            if live.tidying || live.stalled || (!live.writes.is_empty() && !impatient) {
                return Ok(());
            }
            if let Some(command) = live.queue.pop_front() {
                around.survives()?;
                self.execute(around, app, command)?;
                continue;
            }
            if live.run.ended().is_some() {
                if live.writes.is_empty() {
                    live.tidying = true;
                    let (app, deployment) = (app.clone(), live.order.deployment.clone());
                    let span = around.random.span(1, 500);
                    self.later(around, span, Inner::Tidied { app, deployment });
                }
                return Ok(());
            }
            let early = if live.run.is_catching_up() { None } else { live.early.pop_front() };
            if let Some(control) = early {
                self.heed(around, app, control)?;
                continue;
            }
            match live.inbox.pop_front() {
                Some(Message::Input(input)) => live.apply(input),
                Some(Message::Control(control)) => {
                    let is_cancel = matches!(control.input, Input::Cancel { .. });
                    if live.run.is_catching_up() && !is_cancel {
                        live.early.push_back(*control);
                    } else {
                        self.heed(around, app, *control)?;
                    }
                }
                None => {
                    if !self.makes_way(around, app)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// `make_way`, `next_waits_on`: where an order waits for the deployment's end, one that waits for a decision is given
    /// up, and one that goes on turns the order away. Whether there is more to do.
    fn makes_way(&mut self, around: &mut Around, app: &App) -> Result<bool, Crashed> {
        let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(app));
        let Some(slot) = slot.filter(|slot| slot.next.is_some()) else { return Ok(false) };
        let Place::Runs(live) = &mut slot.work else { return Ok(false) };
        if live.run.fits(&Input::GiveUp).is_ok() && live.is_undecided() {
            live.apply(Input::GiveUp);
            return Ok(true);
        }
        if live.ending || slot.cancels > 0 || live.run.is_catching_up() {
            return Ok(false);
        }
        let Some(next) = slot.next.take() else { return Ok(false) };
        let busy = Declined::now("busy", format!("{app} is being deployed already"));
        self.decline(around, &next.incoming, &busy)?;
        self.forget(around, next.words)?;
        Ok(false)
    }

    /// Takes a word if it fits: first it is durable, then it counts.
    fn heed(&mut self, around: &mut Around, app: &App, control: Control) -> Result<(), Crashed> {
        let full = self.disk.is_full(around.now);
        let Some(live) = self.live(app) else { return Ok(()) };
        let Control { input, incoming } = control;
        if let Err(misfit) = live.run.fits(&input) {
            let cancels = matches!(input, Input::Cancel { .. });
            self.decline(around, &incoming, &Declined::now(misfit.code(), misfit.to_string()))?;
            let slot = self.agent.as_mut().and_then(|agent| agent.slots.get_mut(app));
            slot.into_iter().for_each(|slot| slot.cancels = slot.cancels.saturating_sub(u32::from(cancels)));
            return Ok(());
        }
        // As its journal does, the deployment waits for space: a word that is declined now would not come again.
        if full {
            let (app, deployment) = (app.clone(), live.order.deployment.clone());
            live.inbox.push_front(Message::Control(Box::new(Control { input, incoming })));
            live.stalled = true;
            self.later(around, FULL_DISK_PAUSE, Inner::Unstalled { app, deployment });
            return Ok(());
        }
        let Incoming { order, document, statements } = incoming;
        around.survives()?;
        self.disk.keep(&order, document, statements);
        around.survives()?;
        if let Some(live) = self.live(app) {
            live.apply(input);
        }
        Ok(())
    }

    fn execute(&mut self, around: &mut Around, app: &App, command: Command) -> Result<(), Crashed> {
        let Some(live) = self.live(app) else { return Ok(()) };
        let id = live.order.deployment.clone();
        let answer = |task, input| Inner::Answer { app: app.clone(), deployment: id.clone(), task, input };
        match command {
            Command::Journal { event, pointers } => {
                live.ending |= matches!(event, Event::Ended { .. });
                live.writes.push_back((event, pointers));
                self.write_soon(around, app, &id);
            }
            Command::Stage => {
                live.task += 1;
                live.tries = 0;
                let task = live.task;
                let release = format!("{}-{}", live.work.manifest.version, live.work.digest.short());
                let staged = Input::Staged { release, reused_bytes: 0, fetched_bytes: 1 };
                let span = around.random.span(20, 30_000);
                let what = answer(task, staged);
                self.later(around, span, what);
            }
            Command::CancelStaging => {
                live.task += 1;
                let what = answer(live.task, Input::StagingCancelled);
                self.later(around, 20, what);
            }
            Command::Evaluate { phase, step } => {
                let first = live.memory.good.is_none();
                let expression = live.steps(phase).get(step as usize).and_then(|step| step.when.as_ref());
                let expression = expression.map(|when| when.text().to_owned()).unwrap_or_default();
                let verdict = if around.random.chance(5) {
                    Verdict::Invalid { message: "a fact cannot be read".to_owned() }
                } else if first {
                    Verdict::Run
                } else {
                    Verdict::Skip { expression, inputs: [("first_deploy".into(), "false".into())].into() }
                };
                live.apply(Input::Evaluated { phase, step, verdict });
            }
            Command::Start(attempt) => self.start(around, app, attempt),
            Command::Release(attempt) => {
                let key = (id, attempt);
                if let Some(agent) = &mut self.agent {
                    agent.watched.insert(key.clone());
                }
                self.release(around, &key);
            }
            Command::Rejoin(begun) => self.rejoin(around, &id, begun),
            Command::Cancel(attempt) => self.cancel(around, app, attempt),
            Command::ReadClocks => {
                let (boot_ms, now) = (self.boot_ms(around.now), UnixMs(self.clock_ms(around)));
                if let Some(live) = self.live(app) {
                    live.apply(Input::Clocks { boot_ms, now });
                }
            }
            Command::AwaitConfirm { deadline_boot_ms } => {
                let left = deadline_boot_ms.saturating_sub(self.boot_ms(around.now));
                let what = answer(0, Input::ConfirmExpired);
                self.later(around, left, what);
                let (server, boot) = (self.place, self.boot);
                around.after(left + 500, What::Host { server, boot, what: Outer::ConfirmExpired });
            }
            Command::Restore(installed) => self.restore(around, app, &installed),
            Command::RemoveStaged { release } => {
                self.disk.releases.remove(&(app.clone(), release));
                around.oracle.disk(self);
            }
            Command::Prune => self.prune(around, app),
        }
        Ok(())
    }

    pub(super) fn write_soon(&self, around: &mut Around, app: &App, deployment: &Id) {
        let (app, deployment) = (app.clone(), deployment.clone());
        if self.disk.is_full(around.now) {
            return self.later(around, FULL_DISK_PAUSE, Inner::TryAgain { app, deployment });
        }
        let slowest = around.weather.slowest_write_ms;
        let span = around.random.span(1, slowest);
        self.later(around, span, Inner::Synced { app, deployment });
    }

    /// A write is durable: what comes after it may happen.
    pub(super) fn synced(&mut self, around: &mut Around, app: &App, deployment: &Id) -> Result<(), Crashed> {
        around.survives()?;
        if self.disk.is_full(around.now) {
            self.write_soon(around, app, deployment);
            return Ok(());
        }
        let live = self.live(app).filter(|live| live.order.deployment == *deployment);
        let Some((event, pointers)) = live.and_then(|live| live.writes.pop_front()) else { return Ok(()) };
        self.commit(around, deployment, &event, pointers.as_deref());
        around.survives()?;
        self.go_on(around, app)
    }

    pub(super) fn commit(
        &mut self,
        around: &mut Around,
        id: &Id,
        event: &Event,
        pointers: Option<&Pointers>,
    ) {
        around.say(|| format!("{}: {} {event:?}", self.name, id.short()));
        let at = UnixMs(self.clock_ms(around));
        self.disk.append(id, at, event, pointers);
        if let Some(record) = self.disk.records.last() {
            around.fingerprint.add(&record.body);
        }
        around.counts.journalled += 1;
        around.covers(format!("journal: {}", told(event)));
        let now = around.now;
        around.oracle.journalled(self, id, event, now);
        self.pump(around);
        self.ship(around);
    }

    fn start(&mut self, around: &mut Around, app: &App, attempt: Attempt) {
        let place = self.place;
        let Some(live) = self.live(app) else { return };
        let key: Key = (live.order.deployment.clone(), attempt);
        let Some(step) = live.steps(attempt.phase).get(attempt.step as usize).cloned() else { return };
        if step.kind.is_process() {
            if around.random.chance(3) {
                let failure = consign_common::deployment::Failure::Exec { message: "no such user".into() };
                return self.tell_end(around, &key, StepOutcome::Failed { failure });
            }
            let span = around.random.span(2, 200);
            let (server, boot, life) = (self.place, self.boot, self.life);
            let what = Outer::Created { attempt: key, life };
            return around.after(span, What::Host { server, boot, what });
        }
        live.task += 1;
        let task = live.task;
        live.inside = Some((attempt, task));
        around.oracle.started(place, &key, app, around.now);
        let result = if step.kind == Kind::Activate && around.random.chance(950) {
            StepOutcome::Succeeded
        } else {
            outcome(around)
        };
        let span = around.random.span(1, 5_000);
        let (app, deployment) = (app.clone(), key.0);
        let input = finished(attempt, result, 0);
        self.later(around, span, Inner::Answer { app, deployment, task, input });
    }

    /// What became of an attempt that an agent before this one began.
    fn rejoin(&mut self, around: &mut Around, id: &Id, begun: Begun) {
        let attempt = begun.attempt;
        let key = (id.clone(), attempt);
        if begun.process.is_none() || around.has(Bug::RerunStarted) {
            // Nothing of it was ever released.
            let waits = self.processes.get(&key).is_some_and(|it| it.state == State::Waiting);
            if waits {
                self.processes.remove(&key);
            }
            return self.answer(around, id, 5, Input::NeverBegan { attempt });
        }
        if let Some(agent) = &mut self.agent {
            agent.watched.insert(key.clone());
        }
        let Some(attempted) = self.processes.get(&key) else {
            let because = "nobody knows how it ended".to_owned();
            return self.tell_end(around, &key, StepOutcome::Unknown { because });
        };
        match (&attempted.state, attempted.supervisor) {
            (State::Ended { result, record: ExitRecord::Durable }, _) => {
                let result = result.clone();
                self.tell_end(around, &key, result);
            }
            (State::Waiting | State::Running | State::Ended { .. }, Supervisor::Lost) => {
                self.reap(around, &key)
            }
            (State::Waiting | State::Running, Supervisor::There) => {
                let process = attempted.process.clone();
                self.answer(around, id, 5, Input::Spawned { attempt, process });
            }
            // It is told when it is durable.
            (State::Ended { record: ExitRecord::Fresh, .. }, Supervisor::There) => {}
        }
    }

    fn cancel(&mut self, around: &mut Around, app: &App, attempt: Attempt) {
        let Some(live) = self.live(app) else { return };
        let key: Key = (live.order.deployment.clone(), attempt);
        if let Some((inside, _)) = live.inside {
            let step = live.steps(attempt.phase).get(attempt.step as usize).map(|step| step.kind.clone());
            // No cancel interrupts the switch.
            if inside == attempt && step != Some(Kind::Activate) {
                live.task += 1;
                let (task, app, deployment) = (live.task, app.clone(), key.0);
                live.inside = Some((attempt, task));
                let input = finished(attempt, StepOutcome::Cancelled, 0);
                self.later(around, 20, Inner::Answer { app, deployment, task, input });
            }
            return;
        }
        if around.has(Bug::CancelBeforeEnd) {
            return self.tell_end(around, &key, StepOutcome::Cancelled);
        }
        let grace = around.random.span(5, 10_000);
        let (server, boot) = (self.place, self.boot);
        around.after(grace, What::Host { server, boot, what: Outer::Killed { attempt: key } });
    }

    /// Hashes the release that is to run again, and reads its own plan.
    fn restore(&mut self, around: &mut Around, app: &App, installed: &Installed) {
        let Some(live) = self.live(app) else { return };
        let is_return = matches!(live.order.order, OrderKind::Return { .. });
        let work = if is_return {
            Ok(live.work.clone())
        } else {
            let authorized = self.authorized(around, Intent::AutomaticReturn, installed.manifest, &[]);
            authorized.map(Verified::into_inner).map_err(|refusal| refusal.to_string())
        };
        let there = self.disk.releases.contains_key(&(app.clone(), installed.release.clone()));
        let damaged = !there || around.random.chance(10);
        let Some(live) = self.live(app) else { return };
        match work {
            Ok(work) if !damaged => {
                live.restored = Some(work.plan.steps.clone());
                live.apply(Input::Restorable { steps: work.plan.steps });
            }
            Ok(_) => {
                live.apply(Input::NotRestorable { because: format!("{} is damaged", installed.release) });
            }
            Err(because) => live.apply(Input::NotRestorable { because }),
        }
    }

    /// After the end: what was good may be `before` now.
    fn prune(&mut self, around: &mut Around, app: &App) {
        let Some(live) = self.live(app) else { return };
        let installed = [&live.memory.good, &live.memory.before];
        let mut protected: Vec<String> =
            installed.into_iter().flatten().map(|it| it.release.clone()).collect();
        protected.extend(live.run.staged().map(str::to_owned));
        let mut keep = live.work.plan.keep;
        protected.extend(self.disk.current.get(app).cloned());
        if around.has(Bug::PruneBefore) {
            protected = self.disk.current.get(app).cloned().into_iter().collect();
            keep = 1;
        }
        self.disk.prune(app, keep, &protected);
        around.oracle.disk(self);
    }

    pub(super) fn tidied(&mut self, around: &mut Around, app: &App, deployment: &Id) -> Result<(), Crashed> {
        let slot = self.agent.as_ref().and_then(|agent| agent.slots.get(app));
        if slot.is_none_or(|slot| slot.deployment != *deployment) {
            return Ok(());
        }
        // `shut_down`: nothing more is to be executed for this deployment.
        self.processes.retain(|(of, _), it| of != deployment || it.state == State::Running);
        self.vacate(around, app)
    }
}

/// As `setting` of the executor.
fn setting(order: &Order, work: &Work, memory: &Memory, current: Option<Sha256>, boot_id: String) -> Setting {
    let (way, skips) = match &order.order {
        OrderKind::Return { reason, skip, .. } => (Way::Return { because: reason.clone() }, skip.clone()),
        OrderKind::Deploy { force, confirm_ms, skip, .. } => {
            let confirm = work.plan.confirm.map(|own| {
                confirm_ms.map_or(own, |shorter| own.min(std::time::Duration::from_millis(shorter)))
            });
            let way = Way::Deploy {
                steps: work.plan.steps.clone(),
                force: *force || !memory.good.as_ref().is_some_and(|good| good.is_as(work)),
                published: work.published,
                number: work.number,
                config: InForce { sequence: work.config_sequence, values: work.config.clone() },
                pinned: work.pinned.clone(),
                confirm,
            };
            (way, skip.clone())
        }
        OrderKind::Cancel { .. }
        | OrderKind::Confirm {}
        | OrderKind::Decide { .. }
        | OrderKind::Once { .. } => (Way::Return { because: String::new() }, Vec::new()),
    };
    Setting {
        order: order.id.clone(),
        app: order.app.clone(),
        digest: work.digest,
        version: work.manifest.version.clone(),
        way,
        good: memory.good.clone(),
        before: memory.before.clone(),
        current,
        skips,
        boot_id,
    }
}

/// The bug: what was said in another boot is taken for what was said in this one.
fn own_boot(events: &mut [Event], boot: &str) {
    for event in events {
        if let Event::Confirming { boot_id, .. } = event {
            boot.clone_into(boot_id);
        }
    }
}

/// What an event is, for the table of what was covered.
fn told(event: &Event) -> String {
    match event {
        Event::Finished { result, .. } => format!("step {}", kind(&format!("{result:?}"))),
        Event::Ended { result } => format!("ended {}", result.as_str()),
        Event::Answered { word, .. } => format!("answered {}", kind(&format!("{word:?}"))),
        Event::Decided { action, .. } => format!("decided {}", kind(&format!("{action:?}"))),
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Staged { .. }
        | Event::Skipped { .. }
        | Event::Started { .. }
        | Event::Spawned { .. }
        | Event::Returning { .. }
        | Event::Awaiting { .. }
        | Event::Undecided { .. }
        | Event::Confirming { .. }
        | Event::Confirmed { .. }
        | Event::Unconfirmed { .. }
        | Event::Cancelling { .. } => kind(&format!("{event:?}")),
    }
}

fn kind(debug: &str) -> String {
    debug.chars().take_while(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}
