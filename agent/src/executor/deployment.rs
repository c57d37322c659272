//! One deployment, driven to its end: inputs go into the pure run, its commands are carried out here, in their order.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, Failure, StepOutcome},
    durable,
    name::Id,
    plan::{Phase, Plan},
    trust::{
        Order, OrderKind, Privilege,
        authorize::{Documents as Evidence, Installed, Intent, Memory, Verified, Work, authorize},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};

use super::{
    Exit, Processes, Roots, Site,
    attempts::{self, InAgent},
    clocks::{boot_ms, sleep_until},
    conditions::brief,
    control::{Control, Inbox, Message, Rejected, Standing},
    environment::Surroundings,
    secrets::{SealedValues, deliver, open_secrets},
    setting::{current, setting},
    staging,
};
use crate::{
    core::{Begun, Command, Input, Pointers, Run, Waiting},
    journal::{Accepted, JournalError, Record, Waits},
    ports::Fetch,
    stage::{AppDirectory, is_whole, verify},
    supervisor::AttemptSpec,
};

const INPUTS: usize = 16;
/// Bytes of a text in an event. What an artifact or a file's name says may be long, and an event that does not fit into
/// the journal would end the agent, again after every restart.
pub(super) const MESSAGE: usize = 4096;
pub(super) const NO_STEP: &str = "the plan has no such step";
/// Until a full disk is tried again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(5);

/// Work that `authorize` let through, and what the agent remembered then.
#[derive(Debug)]
pub struct Assignment {
    pub deployment: Id,
    pub order: Order,
    pub work: Verified<Work>,
    pub memory: Memory,
    pub origin: Origin,
}

#[derive(Debug)]
pub enum Origin {
    /// Not journalled yet.
    Order(Box<Accepted>),
    /// Begun by an agent before this one.
    Journal(Vec<Record>),
}

/// The agent cannot go on: what happens can no longer be made durable.
#[derive(Debug, thiserror::Error)]
#[error("deployment {deployment}: {source}")]
pub struct Halt {
    pub deployment: Id,
    #[source]
    pub source: JournalError,
}

#[derive(Debug)]
pub struct Deployment<F, P, R> {
    pub(super) site: Arc<Site<F, P, R>>,
    id: Id,
    pub(super) order: Order,
    /// What the order names: brought in, or returned to.
    pub(super) work: Arc<Work>,
    /// What is returned to, once its files were found whole.
    restored: Option<Arc<Work>>,
    pub(super) memory: Memory,
    pub(super) run: Run,
    queue: VecDeque<Command>,
    inputs: mpsc::Receiver<Message>,
    inbox: mpsc::Sender<Message>,
    /// Words that came before the steps that they are about were known again.
    early: Vec<Control>,
    tasks: JoinSet<()>,
    /// Ends the staging or the attempt that runs in the agent.
    stop: Option<oneshot::Sender<()>>,
    pub(super) outcomes: BTreeMap<Attempt, &'static str>,
    standing: Arc<Standing>,
    sealed: SealedValues,
    /// The timer outside of this process may be there.
    timer: Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    None,
    Armed,
}

/// How far a deployment is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Ended,
    /// Or until it waits for somebody who is not there.
    Waiting,
}

impl<F, P, R> Deployment<F, P, R>
where
    F: Fetch + 'static,
    P: Processes,
    R: Roots,
{
    /// Journals the acceptance of a new one; with an error nothing has begun.
    pub async fn begin(site: Arc<Site<F, P, R>>, assignment: Assignment) -> Result<Self, JournalError> {
        let Assignment { deployment, order, work, memory, origin } = assignment;
        let work = Arc::new(work.into_inner());
        let sealed = SealedValues::read(&site, &order, &origin).await?;
        let current = current(&site, &memory, &work).await?;
        let setting = setting(&order, &work, &memory, current, &site.boot_id);
        let (inbox, inputs) = mpsc::channel(INPUTS);
        let (run, commands, events) = match origin {
            Origin::Order(accepted) => {
                let (run, mut commands) = Run::new(setting).apply(Input::Go);
                if let Some(Command::Journal { event, .. }) = commands.first() {
                    site.journal.accept(&accepted, event).await?;
                    commands.remove(0);
                }
                (run, commands, Vec::new())
            }
            Origin::Journal(records) => {
                let events: Vec<Event> = records.into_iter().map(|record| record.event).collect();
                let run = Run::replay(setting, events.clone()).map_err(JournalError::value)?;
                let (run, commands) = run.apply(Input::Go);
                (run, commands, events)
            }
        };
        let mut this = Self {
            site,
            id: deployment,
            order,
            work,
            restored: None,
            memory,
            run,
            queue: commands.into(),
            inputs,
            inbox,
            early: Vec::new(),
            tasks: JoinSet::new(),
            stop: None,
            outcomes: BTreeMap::new(),
            standing: Arc::default(),
            sealed,
            timer: Timer::None,
        };
        if events.iter().any(|event| matches!(event, Event::Confirming { .. })) {
            this.timer = Timer::Armed;
        }
        events.iter().for_each(|event| this.remember(event));
        // Also where the run itself must first read a plan again to know it.
        if matches!(Waits::of(&events), Some(Waits::Decision { .. })) {
            this.standing.is_undecided();
        }
        this.make_directory();
        Ok(this)
    }

    /// For logs and the supervisor. If it cannot be made, the first attempt says so.
    fn make_directory(&self) {
        let directory = self.directory();
        for directory in directory.parent().into_iter().chain([directory.as_path()]) {
            match durable::create_dir(directory, 0o700) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    tracing::warn!(%error, path = %directory.display(), "a directory cannot be created");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Where words about it go.
    pub fn inbox(&self) -> Inbox {
        Inbox::new(self.inbox.clone())
    }

    pub fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// To the end. Dropped before, it leaves the supervisor and its attempt running.
    pub async fn drive(self) -> Result<DeploymentOutcome, Halt> {
        // Driven to the end it has one.
        let unended = || DeploymentOutcome::Stopped { because: "it was left before its end".to_owned() };
        Ok(self.drive_until(Until::Ended).await?.unwrap_or_else(unended))
    }

    /// As far as it goes without a word from outside; `None` where it waits for one.
    pub async fn drive_alone(self) -> Result<Option<DeploymentOutcome>, Halt> {
        self.drive_until(Until::Waiting).await
    }

    async fn drive_until(mut self, until: Until) -> Result<Option<DeploymentOutcome>, Halt> {
        let id = self.id.clone();
        let halt = |source| Halt { deployment: id.clone(), source };
        loop {
            while let Some(command) = self.queue.pop_front() {
                self.execute(command).await.map_err(halt)?;
            }
            if let Some(outcome) = self.run.ended() {
                let outcome = outcome.clone();
                self.tasks.shutdown().await;
                self.site.processes.shut_down(&self.directory()).await;
                return Ok(Some(outcome));
            }
            let waiting = self.run.waiting();
            match waiting {
                Some(Waiting::Decision { .. }) => self.standing.is_undecided(),
                Some(Waiting::Once { .. } | Waiting::Confirmation { .. }) => self.standing.is_busy(),
                // What it waits for is known again once its plan is.
                None if self.run.is_catching_up() => {}
                None => self.standing.is_busy(),
            }
            match waiting {
                Some(Waiting::Decision { .. } | Waiting::Once { .. }) if until == Until::Waiting => {
                    return Ok(None);
                }
                // Its deadline is told by the timer.
                Some(Waiting::Decision { .. } | Waiting::Once { .. } | Waiting::Confirmation { .. })
                | None => {}
            }
            if !self.early.is_empty() && !self.run.is_catching_up() {
                let control = self.early.remove(0);
                self.heed(control).await.map_err(halt)?;
                continue;
            }
            match self.inputs.recv().await {
                Some(Message::Input(input)) => self.answer(input),
                Some(Message::Control(control)) => self.heed(*control).await.map_err(halt)?,
                // Never: one sender is our own.
                None => {}
            }
        }
    }

    /// Takes a word if it fits: first it is durable, then it counts, and then it is answered. A full disk is waited for,
    /// as it is for the journal: a word that was declined because of it would not be said again.
    async fn heed(&mut self, control: Control) -> Result<(), JournalError> {
        if self.run.is_catching_up() && !control.input.is_cancel() {
            self.early.push(control);
            return Ok(());
        }
        let Control { input, order, reply } = control;
        let taken = match (self.run.fits(&input), order) {
            (Err(misfit), _) => Err(Rejected::Misfit(misfit)),
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(order)) => loop {
                match self.site.journal.accept_control(&order).await {
                    Ok(accepted) => break accepted.map_err(Rejected::Rule),
                    Err(error) if error.is_full() => {
                        tracing::error!(deployment = %self.id, "the disk is full: a word waits for space");
                        sleep(FULL_DISK_PAUSE).await;
                    }
                    Err(error) => return Err(error),
                }
            },
        };
        if taken.is_ok() {
            self.answer(input);
        }
        // Nobody may wait for it any more.
        drop(reply.send(taken));
        Ok(())
    }

    async fn execute(&mut self, command: Command) -> Result<(), JournalError> {
        match command {
            Command::Journal { event, pointers } => return self.journal(event, pointers.as_deref()).await,
            Command::Stage => self.stage(),
            Command::CancelStaging => drop(self.stop.take()),
            Command::Evaluate { phase, step } => {
                let verdict = self.evaluate(phase, step);
                self.answer(Input::Evaluated { phase, step, verdict });
            }
            Command::Start(attempt) => {
                if let Err(message) = self.start(attempt) {
                    self.refuse(attempt, message);
                }
            }
            Command::Release(attempt) => self.release(attempt),
            Command::Rejoin(begun) => {
                let attempt = begun.attempt;
                if let Err(because) = self.rejoin(begun) {
                    self.abandon(attempt, because);
                }
            }
            Command::Cancel(attempt) => self.cancel(attempt),
            Command::Restore(installed) => {
                let input = match self.restore(&installed).await {
                    Ok(work) => {
                        let steps = work.plan.steps.clone();
                        self.restored = Some(Arc::new(work));
                        Input::Restorable { steps }
                    }
                    Err(because) => Input::NotRestorable { because: brief(&because, MESSAGE) },
                };
                self.answer(input);
            }
            Command::ReadClocks => {
                let (boot_ms, now) = (boot_ms(), self.site.now());
                self.answer(Input::Clocks { boot_ms, now });
            }
            Command::AwaitConfirm { deadline_boot_ms } => {
                self.spawn(async move {
                    sleep_until(deadline_boot_ms).await;
                    Input::ConfirmExpired
                });
                self.timer = Timer::Armed;
                let left = Duration::from_millis(deadline_boot_ms.saturating_sub(boot_ms()));
                self.site.confirm_timer.arm(&self.id, left).await;
            }
            Command::RemoveStaged { release } => {
                self.on_disk("a staged release could not be removed", move |app| app.remove(&release)).await;
            }
            Command::Prune => self.prune().await,
        }
        Ok(())
    }

    /// Write-ahead: whatever comes after waits for this. A full disk is waited for; any other failure ends the agent,
    /// because what it did next would not be known after a restart.
    async fn journal(&mut self, mut event: Event, pointers: Option<&Pointers>) -> Result<(), JournalError> {
        if let Event::Finished { attempt, log_length, .. } = &mut event
            && *log_length == 0
        {
            *log_length = std::fs::metadata(self.log_path(*attempt)).map_or(0, |file| file.len());
        }
        self.remember(&event);
        // Before anybody can hear of it: the next order may come at once.
        if matches!(event, Event::Ended { .. }) {
            self.standing.is_ending();
        } else if matches!(event, Event::Undecided { .. }) {
            self.standing.is_undecided();
        }
        let site = self.site.clone();
        let pointers = pointers.map(|pointers| (&site.word.environment, pointers));
        loop {
            match site.journal.append(&self.id, site.now(), &event, pointers).await {
                Ok(_) => break,
                Err(error) if error.is_full() => {
                    tracing::error!(deployment = %self.id, "the disk is full: the journal waits for space");
                    sleep(FULL_DISK_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        // Until then it is also for a way back that nobody is there to go any more.
        let is_over = matches!(event, Event::Confirmed { .. } | Event::Ended { .. });
        if self.timer == Timer::Armed && is_over {
            self.timer = Timer::None;
            self.site.confirm_timer.disarm(&self.id).await;
        }
        Ok(())
    }

    fn stage(&mut self) {
        let in_use = [&self.memory.good, &self.memory.before];
        let in_use = in_use.into_iter().flatten().map(|installed| installed.release.clone());
        let task = staging::Task {
            site: self.site.clone(),
            deployment: self.id.clone(),
            work: self.work.clone(),
            in_use: in_use.chain(self.current_release()).collect(),
        };
        let (stop, stopped) = oneshot::channel();
        self.stop = Some(stop);
        self.spawn(task.run(stopped));
    }

    fn start(&mut self, attempt: Attempt) -> Result<(), String> {
        let (plan, release) = self.place(attempt.phase)?;
        let step = plan.steps.get(attempt.step as usize).cloned().ok_or(NO_STEP)?;
        if !step.kind.is_process() {
            let app = AppDirectory::open(self.site.apps(), &self.order.app);
            let (stop, stopped) = oneshot::channel();
            let clock = self.site.clock.clone();
            let work = InAgent { attempt, step, log: self.log_path(attempt), clock, app, release };
            self.stop = Some(stop);
            self.spawn(work.run(stopped));
            return Ok(());
        }
        let spec = self.specification(attempt)?;
        let (site, directory) = (self.site.clone(), self.directory());
        self.spawn(async move { attempts::create(&site.processes, directory, spec).await });
        Ok(())
    }

    /// Nothing was executed.
    fn refuse(&mut self, attempt: Attempt, message: String) {
        let failure = Failure::Exec { message: brief(&message, MESSAGE) };
        self.answer(attempts::finished(attempt, Exit::of(StepOutcome::Failed { failure })));
    }

    /// It may run, and cannot be asked about: it is ended, and nobody knows how far it came.
    fn abandon(&mut self, attempt: Attempt, because: String) {
        let (site, directory) = (self.site.clone(), self.directory());
        self.spawn(async move {
            site.processes.cancel(&directory, attempt).await;
            let because = brief(&because, MESSAGE);
            attempts::finished(attempt, Exit::of(StepOutcome::Unknown { because }))
        });
    }

    fn release(&mut self, attempt: Attempt) {
        let Some(begun) = self.run.begun().filter(|begun| begun.attempt == attempt).cloned() else { return };
        let (site, directory) = (self.site.clone(), self.directory());
        self.spawn(async move { attempts::run(&site.processes, directory, begun).await });
    }

    fn rejoin(&mut self, begun: Begun) -> Result<(), String> {
        let spec = self.specification(begun.attempt)?;
        let (site, directory) = (self.site.clone(), self.directory());
        self.spawn(async move { attempts::rejoin(&site.processes, directory, begun, spec).await });
        Ok(())
    }

    fn cancel(&mut self, attempt: Attempt) {
        drop(self.stop.take());
        let (site, directory) = (self.site.clone(), self.directory());
        self.tasks.spawn(async move { site.processes.cancel(&directory, attempt).await });
    }

    fn specification(&self, attempt: Attempt) -> Result<AttemptSpec, String> {
        let (plan, release) = self.place(attempt.phase)?;
        let artifact = self.artifact(attempt.phase)?;
        let step = plan.steps.get(attempt.step as usize).ok_or(NO_STEP)?;
        let app = AppDirectory::open(self.site.apps(), &self.order.app).map_err(|error| error.to_string())?;
        let release = app.release_path(&release);
        let previous = self.left(attempt.phase).map(|(name, _)| app.release_path(&name));
        let around = Surroundings {
            app: &self.order.app,
            version: &artifact.manifest.version,
            release: &release,
            previous: previous.as_deref(),
            environment: &self.site.word.environment,
            server: &self.site.word.server,
            rollout: &self.order.rollout,
        };
        // Without root a step runs as the agent does, and `authorize` saw to it that the plan asks for nothing else.
        let user = match &self.site.privilege {
            Privilege::Root => step.user.clone(),
            Privilege::User(_) => None,
        };
        let secrets = open_secrets(&self.site, artifact, self.sealed.of(attempt.phase))
            .map_err(|refusal| format!("{}: {refusal}", refusal.code()))?;
        let mut spec =
            attempts::specification(attempt, around, &artifact.config, step, user, self.site.log_limit);
        deliver(&mut spec, plan, &secrets);
        Ok(spec)
    }

    /// The artifact whose steps a phase runs.
    pub(super) fn artifact(&self, phase: Phase) -> Result<&Arc<Work>, &'static str> {
        match phase {
            Phase::Deploy => Ok(&self.work),
            Phase::Return => self.restored.as_ref().ok_or("what is returned to is not known"),
        }
    }

    /// Its plan, and the release that its steps run in.
    pub(super) fn place(&self, phase: Phase) -> Result<(&Plan, String), &'static str> {
        let of = |installed: &Option<Installed>| installed.as_ref().map(|it| it.release.clone());
        let release = match (phase, &self.order.order) {
            (Phase::Deploy, _) => self.run.staged().map(str::to_owned),
            (Phase::Return, OrderKind::Return { .. }) => of(&self.memory.before),
            (Phase::Return, _) => of(&self.memory.good),
        };
        Ok((&self.artifact(phase)?.plan, release.ok_or("the release is not known")?))
    }

    /// Hashes the release that is to run again, and reads its own plan; nothing of it is believed unseen.
    async fn restore(&self, installed: &Installed) -> Result<Work, String> {
        let work = match &self.order.order {
            OrderKind::Return { .. } => (*self.work).clone(),
            OrderKind::Deploy { .. }
            | OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => self.authorize_return(installed)?,
        };
        let (apps, name) = (self.site.apps().to_owned(), self.order.app.clone());
        let release = installed.release.clone();
        let (manifest, plan) = (work.manifest.clone(), work.plan.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let app = AppDirectory::open(&apps, &name).map_err(|error| error.to_string())?;
            let path = app.release_path(&release);
            let told = |error: std::io::Error| format!("{}: {error}", path.display());
            let tree = app.open_release(&release).map_err(told)?;
            let drift = verify(&tree, &manifest, &plan).map_err(told)?;
            if is_whole(&drift) {
                return Ok(());
            }
            let listed: Vec<String> = drift.iter().take(5).map(ToString::to_string).collect();
            Err(format!("{} is damaged: {}", path.display(), listed.join(", ")))
        });
        verified.await.unwrap_or_else(|error| Err(error.to_string()))?;
        Ok(work)
    }

    fn authorize_return(&self, installed: &Installed) -> Result<Work, String> {
        let bytes = self.site.documents().manifest(installed.manifest).map_err(|error| error.to_string())?;
        let bytes =
            bytes.ok_or_else(|| format!("the manifest of {} is not on this server", installed.version))?;
        let evidence = Evidence { manifest: &bytes, statements: &[], plan: None };
        let (root, host, now) = (self.site.roots.current(), self.site.host(), self.site.now());
        let verified = authorize(Intent::AutomaticReturn, evidence, &root, host, &self.memory, now);
        verified.map(Verified::into_inner).map_err(|refusal| refusal.to_string())
    }

    async fn prune(&self) {
        let keep = self.work.plan.keep;
        // After a success: what was good is `before` now, unless it is the same artifact again.
        let again = self.memory.good.as_ref().is_some_and(|good| good.manifest == self.work.digest);
        let before = if again { &self.memory.before } else { &self.memory.good };
        let installed = [&self.memory.good, before];
        let mut protected: Vec<String> =
            installed.into_iter().flatten().map(|installed| installed.release.clone()).collect();
        protected.extend(self.run.staged().map(str::to_owned));
        protected.extend(self.current_release());
        self.on_disk("old releases could not be removed", move |app| {
            let protected: Vec<&str> = protected.iter().map(String::as_str).collect();
            app.prune(keep, &protected).map(|removed| {
                if !removed.is_empty() {
                    tracing::info!(?removed, "pruned");
                }
            })
        })
        .await;
    }

    /// Housekeeping: what fails here changes no outcome.
    async fn on_disk(
        &self,
        failure: &'static str,
        act: impl FnOnce(&AppDirectory) -> std::io::Result<()> + Send + 'static,
    ) {
        let (apps, name) = (self.site.apps().to_owned(), self.order.app.clone());
        let done = tokio::task::spawn_blocking(move || {
            let app = AppDirectory::open(&apps, &name).map_err(|error| error.to_string())?;
            act(&app).map_err(|error| error.to_string())
        });
        if let Err(error) = done.await.unwrap_or_else(|error| Err(error.to_string())) {
            tracing::warn!(deployment = %self.id, error, failure);
        }
    }

    fn current_release(&self) -> Option<String> {
        AppDirectory::open(self.site.apps(), &self.order.app).ok()?.current().ok()?
    }

    fn remember(&mut self, event: &Event) {
        match event {
            Event::Finished { attempt, result, .. } => {
                self.outcomes.insert(*attempt, name_of(result));
            }
            Event::Skipped { phase, step, .. } => {
                let attempt = Attempt { phase: *phase, step: *step, number: 1 };
                self.outcomes.insert(attempt, "skipped");
            }
            Event::Accepted { .. }
            | Event::Staging { .. }
            | Event::Staged { .. }
            | Event::Started { .. }
            | Event::Spawned { .. }
            | Event::Returning { .. }
            | Event::Cancelling { .. }
            | Event::Awaiting { .. }
            | Event::Answered { .. }
            | Event::Undecided { .. }
            | Event::Decided { .. }
            | Event::Confirming { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Ended { .. } => {}
        }
    }

    fn spawn(&mut self, work: impl Future<Output = Input> + Send + 'static) {
        // Those that have ended are forgotten, so that the set stays small.
        while self.tasks.try_join_next().is_some() {}
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            let input = work.await;
            // Closed only when the deployment is dropped, and then nobody asks.
            drop(inbox.send(Message::Input(input)).await);
        });
    }

    fn answer(&mut self, input: Input) {
        let (run, commands) = self.run.clone().apply(input);
        self.run = run;
        self.queue.extend(commands);
    }

    fn directory(&self) -> PathBuf {
        self.site.deployment_directory(&self.id)
    }

    fn log_path(&self, attempt: Attempt) -> PathBuf {
        self.directory().join(format!("{attempt}.log"))
    }
}

fn name_of(result: &StepOutcome) -> &'static str {
    match result {
        StepOutcome::Succeeded => "succeeded",
        StepOutcome::Skipped { .. } => "skipped",
        StepOutcome::Failed { .. } => "failed",
        StepOutcome::Unknown { .. } => "unknown",
        StepOutcome::Cancelled => "cancelled",
    }
}
