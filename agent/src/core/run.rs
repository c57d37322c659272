//! How an input becomes events and commands.

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, Failure, StepOutcome},
    name::Id,
    plan::{Phase, Step},
    trust::{Foreseen, authorize::Installed},
};

use super::{
    control::Misfit,
    model::{Begun, Command, Input, Process, Setting, Verdict, Way},
    next::Next,
    state::{Confirmation, Track},
};

/// One deployment on this server.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub(super) setting: Setting,
    pub(super) accepted: bool,
    pub(super) staged: Option<String>,
    pub(super) deploy: Track,
    pub(super) back: Track,
    /// The way back has begun; why.
    pub(super) returning: Option<String>,
    /// The restored artifact's steps; after a restart unknown until its files were hashed again.
    pub(super) restored: Option<Vec<Step>>,
    /// Events of the way back, replayed before its steps are known.
    pub(super) deferred: Vec<Event>,
    /// Orders about this deployment that were taken: each counts once, however often it is sent.
    pub(super) orders: Vec<Id>,
    pub(super) confirmation: Confirmation,
    pub(super) ended: Option<DeploymentOutcome>,
    /// What the shell was told to do and has not answered. Not journalled: after a restart nothing is.
    pub(super) outstanding: Option<Outstanding>,
    /// The attempt that a restart interrupted.
    interrupted: Option<Attempt>,
    /// The way back cannot go on, but a process of it runs: how it ends once that is gone.
    doomed: Option<DeploymentOutcome>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outstanding {
    Staging,
    Evaluation { phase: Phase, step: u32 },
    Attempt(Attempt),
    Restore(Installed),
    Clocks,
    Confirmation,
}

/// A journal that no run can have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal of this deployment does not begin with the order's acceptance")]
pub struct Inconsistent;

impl Run {
    /// A run of which nothing is journalled yet.
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            accepted: false,
            staged: None,
            deploy: Track::default(),
            back: Track::default(),
            returning: None,
            restored: None,
            deferred: Vec::new(),
            orders: Vec::new(),
            confirmation: Confirmation::Open,
            ended: None,
            outstanding: None,
            interrupted: None,
            doomed: None,
        }
    }

    /// The run that wrote these events.
    pub fn replay(setting: Setting, events: impl IntoIterator<Item = Event>) -> Result<Self, Inconsistent> {
        let mut run = Self::new(setting);
        for event in events {
            run.fold(&event);
            if !run.accepted {
                return Err(Inconsistent);
            }
        }
        run.interrupted = run.deploy.attempt();
        Ok(run)
    }

    pub fn ended(&self) -> Option<&DeploymentOutcome> {
        self.ended.as_ref()
    }

    /// The release that was staged for this run.
    pub fn staged(&self) -> Option<&str> {
        self.staged.as_deref()
    }

    /// The attempt that runs, if any.
    pub fn running(&self) -> Option<Attempt> {
        self.back.attempt().or(self.deploy.attempt())
    }

    /// The same, and how to find what it started.
    pub fn begun(&self) -> Option<&Begun> {
        self.back.running.as_ref().or(self.deploy.running.as_ref())
    }

    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// Takes what happened, and says what to do. An input that answers nothing that was asked is ignored: a late word
    /// about what was decided long ago.
    pub fn apply(mut self, input: Input) -> (Self, Vec<Command>) {
        let mut commands = Vec::new();
        if self.ended.is_none() {
            self.take(input, &mut commands);
            self.go_on(&mut commands);
        }
        (self, commands)
    }

    fn take(&mut self, input: Input, commands: &mut Vec<Command>) {
        match input {
            Input::Go => {}
            Input::Staged { release, reused_bytes, fetched_bytes } => {
                if self.answered(&Outstanding::Staging) {
                    self.record(Event::Staged { release, reused_bytes, fetched_bytes }, commands);
                }
            }
            Input::StagingFailed { code, message } => {
                if self.answered(&Outstanding::Staging) {
                    let result = match &self.deploy.trouble {
                        Some(trouble) => {
                            DeploymentOutcome::Cancelled { because: trouble.because().to_owned() }
                        }
                        None => DeploymentOutcome::Refused { code, message },
                    };
                    self.record(Event::Ended { result }, commands);
                }
            }
            Input::StagingCancelled => drop(self.answered(&Outstanding::Staging)),
            Input::Evaluated { phase, step, verdict } => {
                if self.answered(&Outstanding::Evaluation { phase, step }) {
                    self.evaluated(phase, step, verdict, commands);
                }
            }
            Input::Spawned { attempt, process } => {
                if self.outstanding == Some(Outstanding::Attempt(attempt)) && self.doomed.is_none() {
                    self.spawned(attempt, process, commands);
                }
            }
            Input::Finished { attempt, result, log_length, duration_ms, leftovers } => {
                if self.answered(&Outstanding::Attempt(attempt)) {
                    let event = Event::Finished { attempt, result, log_length, duration_ms, leftovers };
                    self.record(event, commands);
                    self.end_doomed(commands);
                }
            }
            Input::NeverBegan { attempt } => {
                if self.answered(&Outstanding::Attempt(attempt)) {
                    self.interrupted = None;
                    self.end_doomed(commands);
                    if self.track(attempt.phase).cancelling {
                        self.record(finished(attempt, StepOutcome::Cancelled), commands);
                    }
                }
            }
            Input::Restorable { steps } => self.restorable(steps, commands),
            Input::NotRestorable { because } => {
                if let Some(Outstanding::Restore(artifact)) = self.outstanding.clone() {
                    self.outstanding = None;
                    self.doomed = Some(self.not_restorable(&artifact, &because));
                    self.end_what_runs(commands);
                }
            }
            Input::Cancel { .. }
            | Input::Once { .. }
            | Input::Decide { .. }
            | Input::Confirm { .. }
            | Input::GiveUp => drop(self.control(input, commands)),
            Input::Clocks { boot_ms, now } => {
                if self.answered(&Outstanding::Clocks) {
                    self.begin_confirmation(boot_ms, now, commands);
                }
            }
            Input::ConfirmExpired => {
                if self.answered(&Outstanding::Confirmation) {
                    let because = "it was not confirmed in time".to_owned();
                    self.record(Event::Unconfirmed { because }, commands);
                }
            }
        }
    }

    /// Decides until there is something to wait for.
    fn go_on(&mut self, commands: &mut Vec<Command>) {
        while self.outstanding.is_none() {
            match self.next() {
                Next::Record(event) => self.record(event, commands),
                Next::Stage => self.act(Outstanding::Staging, Command::Stage, commands),
                Next::Evaluate { phase, step } => {
                    self.act(
                        Outstanding::Evaluation { phase, step },
                        Command::Evaluate { phase, step },
                        commands,
                    );
                }
                Next::Attempt(attempt, step) => self.attempt(attempt, &step, commands),
                Next::Restore(artifact) => {
                    self.act(Outstanding::Restore(artifact.clone()), Command::Restore(artifact), commands);
                }
                Next::ReadClocks => self.act(Outstanding::Clocks, Command::ReadClocks, commands),
                Next::AwaitConfirm { deadline_boot_ms } => {
                    let command = Command::AwaitConfirm { deadline_boot_ms };
                    self.act(Outstanding::Confirmation, command, commands);
                }
                Next::End { result, remove, pointers } => {
                    commands.extend(remove.map(|release| Command::RemoveStaged { release }));
                    let event = Event::Ended { result };
                    self.fold(&event);
                    let prune = pointers.is_some();
                    commands.push(Command::Journal { event, pointers });
                    commands.extend(prune.then_some(Command::Prune));
                }
                Next::Nothing => return,
            }
        }
    }

    /// An attempt that is journalled as started: this machine has just done so, or one before the restart had.
    fn attempt(&mut self, attempt: Attempt, step: &Step, commands: &mut Vec<Command>) {
        if self.interrupted != Some(attempt) {
            self.act(Outstanding::Attempt(attempt), Command::Start(attempt), commands);
        } else if step.kind.is_process() {
            let begun = self.track(attempt.phase).running.clone();
            commands.extend(begun.map(Command::Rejoin));
            self.outstanding = Some(Outstanding::Attempt(attempt));
            if self.track(attempt.phase).cancelling {
                commands.push(Command::Cancel(attempt));
            }
        } else {
            let because = "the agent was stopped while it ran".to_owned();
            self.record(finished(attempt, StepOutcome::Unknown { because }), commands);
        }
    }

    /// The journal knows what to look for before anything executes.
    fn spawned(&mut self, attempt: Attempt, process: Process, commands: &mut Vec<Command>) {
        let known = self.track(attempt.phase).running.as_ref().and_then(|begun| begun.process.as_ref());
        if known != Some(&process) {
            let Process { pid, start_ticks, cgroup } = process;
            self.record(Event::Spawned { attempt, pid, start_ticks, cgroup }, commands);
        }
        // The word to cancel it may have come when there was no process yet that could hear it.
        if self.track(attempt.phase).cancelling {
            commands.push(Command::Cancel(attempt));
        }
        commands.push(Command::Release(attempt));
    }

    fn evaluated(&mut self, phase: Phase, step: u32, verdict: Verdict, commands: &mut Vec<Command>) {
        let Some(plan) = self.steps(phase).get(step as usize).cloned() else { return };
        // Cancelled or left out meanwhile: the next decision does not ask for this step, unless it is an `always` one.
        let wanted = self.track(phase).trouble.is_none() || plan.always;
        if !wanted || self.left_out(phase, step, &plan).is_some() {
            return;
        }
        let attempt = Attempt { phase, step, number: 1 };
        // Nothing was started by a failure, so nothing says so: only how it ended.
        let failed = |failure| finished(attempt, StepOutcome::Failed { failure });
        let drift = self.drift(phase, &plan, &verdict);
        let event = match (verdict, drift) {
            (Verdict::Invalid { message }, _) => failed(Failure::Condition { message }),
            (Verdict::Run | Verdict::Skip { .. }, Some(message)) => failed(Failure::PlanDrift { message }),
            (Verdict::Run, None) if asks(phase, &plan) => Event::Awaiting { step },
            (Verdict::Run, None) => self.started(attempt),
            (Verdict::Skip { expression, inputs }, None) => {
                Event::Skipped { phase, step, expression, inputs }
            }
        };
        self.record(event, commands);
    }

    /// How a condition came out, where it should have come out otherwise.
    fn drift(&self, phase: Phase, step: &Step, verdict: &Verdict) -> Option<String> {
        let (Phase::Deploy, Way::Deploy { pinned, .. }) = (phase, &self.setting.way) else { return None };
        let when = step.when.as_ref().map(|when| when.text()).unwrap_or_default();
        match (pinned.get(&step.name)?, verdict) {
            (Foreseen::Run, Verdict::Skip { inputs, .. }) => {
                let values: Vec<_> = inputs.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                Some(format!("step {} was to run, and {when} is false now: {}", step.name, values.join(", ")))
            }
            (Foreseen::Skip, Verdict::Run) => {
                Some(format!("step {} was to be skipped, and {when} is true now", step.name))
            }
            (Foreseen::Run, Verdict::Run)
            | (Foreseen::Skip, Verdict::Skip { .. })
            | (Foreseen::Run | Foreseen::Skip, Verdict::Invalid { .. }) => None,
        }
    }

    /// Why a step without a condition must not run: it was foreseen to do nothing, as every step is where the server was
    /// to have nothing to do.
    pub(super) fn unforeseen(&self, phase: Phase, step: &Step) -> Option<String> {
        let (Phase::Deploy, Way::Deploy { pinned, .. }) = (phase, &self.setting.way) else { return None };
        match pinned.get(&step.name)? {
            Foreseen::Skip => Some(format!("step {} was to be skipped, and would run now", step.name)),
            Foreseen::Run => None,
        }
    }

    fn restorable(&mut self, steps: Vec<Step>, commands: &mut Vec<Command>) {
        let Some(Outstanding::Restore(artifact)) = self.outstanding.clone() else { return };
        self.outstanding = None;
        if self.returning.is_some() {
            self.restored = Some(steps);
            for event in std::mem::take(&mut self.deferred) {
                self.fold(&event);
            }
            self.interrupted = self.back.attempt();
        } else if self.back.trouble.is_none() {
            let event = self.begin_return(&artifact, &steps);
            self.restored = Some(steps);
            self.record(event, commands);
        }
    }

    /// Takes a word from outside that fits what runs now; of an order that was taken before nothing changes.
    pub(super) fn control(&mut self, input: Input, commands: &mut Vec<Command>) -> Result<(), Misfit> {
        let Some(event) = self.said(input)? else { return Ok(()) };
        self.record(event, commands);
        match &self.outstanding {
            Some(Outstanding::Staging) if self.deploy.trouble.is_some() => {
                commands.push(Command::CancelStaging);
            }
            Some(Outstanding::Attempt(attempt)) if self.track(attempt.phase).cancelling => {
                commands.push(Command::Cancel(*attempt));
            }
            // Nothing is waited for any more: the answer to the deadline comes too late.
            Some(Outstanding::Confirmation) if !self.is_confirming() => self.outstanding = None,
            Some(
                Outstanding::Staging
                | Outstanding::Attempt(_)
                | Outstanding::Evaluation { .. }
                | Outstanding::Restore(_)
                | Outstanding::Clocks
                | Outstanding::Confirmation,
            )
            | None => {}
        }
        Ok(())
    }

    /// A process that a restart in the middle of the way back left running is ended first, though its plan is not known
    /// any more: nothing of a deployment that has ended may still run.
    fn end_what_runs(&mut self, commands: &mut Vec<Command>) {
        let mut running: Option<Begun> = None;
        for event in &self.deferred {
            match event {
                Event::Started { attempt, boot_id } => {
                    running = Some(Begun { attempt: *attempt, boot_id: boot_id.clone(), process: None });
                }
                Event::Spawned { pid, start_ticks, cgroup, .. } => {
                    if let Some(begun) = &mut running {
                        let (pid, start_ticks, cgroup) = (*pid, *start_ticks, cgroup.clone());
                        begun.process = Some(Process { pid, start_ticks, cgroup });
                    }
                }
                Event::Finished { .. } => running = None,
                Event::Accepted { .. }
                | Event::Staging { .. }
                | Event::Staged { .. }
                | Event::Skipped { .. }
                | Event::Returning { .. }
                | Event::Awaiting { .. }
                | Event::Answered { .. }
                | Event::Undecided { .. }
                | Event::Decided { .. }
                | Event::Confirming { .. }
                | Event::Confirmed { .. }
                | Event::Unconfirmed { .. }
                | Event::Cancelling { .. }
                | Event::Ended { .. } => {}
            }
        }
        match running.filter(|begun| begun.process.is_some()) {
            Some(begun) => {
                let attempt = begun.attempt;
                self.act(Outstanding::Attempt(attempt), Command::Rejoin(begun), commands);
                commands.push(Command::Cancel(attempt));
            }
            None => self.end_doomed(commands),
        }
    }

    fn end_doomed(&mut self, commands: &mut Vec<Command>) {
        if let Some(result) = self.doomed.take() {
            self.record(Event::Ended { result }, commands);
        }
    }

    pub(super) fn started(&self, attempt: Attempt) -> Event {
        Event::Started { attempt, boot_id: self.setting.boot_id.clone() }
    }

    pub(super) fn track(&self, phase: Phase) -> &Track {
        match phase {
            Phase::Deploy => &self.deploy,
            Phase::Return => &self.back,
        }
    }

    pub(super) fn steps(&self, phase: Phase) -> &[Step] {
        match (phase, &self.setting.way) {
            (Phase::Deploy, Way::Deploy { steps, .. }) => steps,
            (Phase::Deploy, Way::Return { .. }) => &[],
            (Phase::Return, _) => self.restored.as_deref().unwrap_or_default(),
        }
    }

    fn answered(&mut self, to: &Outstanding) -> bool {
        let asked = self.outstanding.as_ref() == Some(to);
        if asked {
            self.outstanding = None;
        }
        asked
    }

    fn act(&mut self, outstanding: Outstanding, command: Command, commands: &mut Vec<Command>) {
        self.outstanding = Some(outstanding);
        commands.push(command);
    }

    pub(super) fn record(&mut self, event: Event, commands: &mut Vec<Command>) {
        self.fold(&event);
        commands.push(Command::Journal { event, pointers: None });
    }
}

/// Whether the server asks before it runs this step.
pub(super) fn asks(phase: Phase, step: &Step) -> bool {
    step.once && phase == Phase::Deploy
}

pub(super) fn finished(attempt: Attempt, result: StepOutcome) -> Event {
    Event::Finished { attempt, result, log_length: 0, duration_ms: 0, leftovers: Vec::new() }
}
