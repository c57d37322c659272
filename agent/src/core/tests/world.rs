//! Everything outside the machine, in memory: the journal, the supervisor, what steps did, `current`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use consign_common::{
    config::InForce,
    deployment::{Attempt, DeploymentOutcome, Event, Failure, StepOutcome},
    digest::Sha256,
    name::Id,
    plan::{Condition, FailurePolicy, Kind, Phase, Retry, Step, condition::Names},
    time::UnixMs,
    trust::{DecisionAction, OnceWord, OrderingNumber, authorize::Installed},
};

use crate::core::{Begun, Command, Input, Pointers, Process, Run, Setting, Verdict, Waiting, Way};

pub(super) fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 16])
}

pub(super) fn number(ms: u64) -> OrderingNumber {
    OrderingNumber { epoch: 0, ms: UnixMs(ms) }
}

pub(super) fn installed(version: &str) -> Installed {
    Installed {
        manifest: Sha256::of(version.as_bytes()),
        version: version.parse().unwrap(),
        published: number(1),
        release: format!("{version}-x"),
        config: None,
    }
}

pub(super) fn step(name: &str, kind: Kind) -> Step {
    let in_agent = !kind.is_process();
    Step {
        name: name.parse().unwrap(),
        kind,
        when: None,
        once: false,
        user: None,
        env: BTreeMap::new(),
        timeout: Duration::from_secs(600),
        retry: Retry::Never,
        if_fails: FailurePolicy::Return,
        always: false,
        on: if in_agent { vec![Phase::Deploy, Phase::Return] } else { vec![Phase::Deploy] },
        leaves: false,
        tty: false,
    }
}

pub(super) fn when(condition: &str) -> Condition {
    let params = BTreeMap::new();
    Condition::compile(condition, &Names { params: &params, steps: &[] }).unwrap()
}

pub(super) fn run(name: &str) -> Step {
    step(name, Kind::Run(vec!["true".into()]))
}

pub(super) fn activate() -> Step {
    step("activate", Kind::Activate)
}

pub(super) fn check(name: &str) -> Step {
    step(name, Kind::Sleep(Duration::ZERO))
}

pub(super) fn failed() -> StepOutcome {
    StepOutcome::Failed { failure: Failure::Exit { code: 1 } }
}

/// `2.0.0` over a good `1.0.0`, with `0.9.0` before.
pub(super) fn deploy(steps: Vec<Step>) -> Setting {
    Setting {
        order: id(1),
        app: "shop".parse().unwrap(),
        digest: Sha256::of(b"2.0.0"),
        version: "2.0.0".parse().unwrap(),
        way: Way::Deploy {
            steps,
            force: false,
            published: number(2),
            number: number(3),
            config: InForce::default(),
            pinned: BTreeMap::new(),
            confirm: None,
        },
        good: Some(installed("1.0.0")),
        before: Some(installed("0.9.0")),
        current: Some(Sha256::of(b"1.0.0")),
        skips: Vec::new(),
        boot_id: "boot".into(),
    }
}

/// What is said to a run that waits: the one that fits what it waits for.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) once: OnceWord,
    pub(super) decision: DecisionAction,
    pub(super) confirmed: bool,
}

impl Word {
    pub(super) fn decide(decision: DecisionAction) -> Self {
        Self { once: OnceWord::Run {}, decision, confirmed: true }
    }

    pub(super) fn once(once: OnceWord) -> Self {
        Self { once, decision: DecisionAction::Failed, confirmed: true }
    }
}

/// CLOCK_BOOTTIME whenever it is asked for.
pub(super) const BOOT_MS: u64 = 1000;

pub(super) struct World {
    pub(super) setting: Setting,
    /// The plan of the artifact that a return restores; `Err`: its files are damaged.
    pub(super) restored: Result<Vec<Step>, String>,
    /// What attempts of a step come to, in turn; then they succeed.
    pub(super) script: BTreeMap<(Phase, u32), VecDeque<StepOutcome>>,
    pub(super) verdicts: BTreeMap<(Phase, u32), Verdict>,
    pub(super) staging: Option<Input>,
    pub(super) journal: Vec<Event>,
    pub(super) pointers: Option<Box<Pointers>>,
    /// Every execution of every attempt, in order.
    pub(super) effects: Vec<Attempt>,
    /// What the supervisor knows.
    pub(super) exits: BTreeMap<Attempt, StepOutcome>,
    pub(super) lost: bool,
    pub(super) current: Option<Sha256>,
    pub(super) removed: bool,
    pub(super) pruned: bool,
    pub(super) cancelled: BTreeSet<Attempt>,
    /// What operators and the coordinator say whenever the run waits, in turn; each is said twice, as on a bad line.
    pub(super) words: VecDeque<Word>,
    /// The deadline of the timer that runs.
    pub(super) armed: Option<u64>,
    machine: Run,
    queue: VecDeque<Command>,
    inbox: VecDeque<Input>,
}

impl World {
    pub(super) fn new(setting: Setting) -> Self {
        Self {
            machine: Run::new(setting.clone()),
            current: setting.current,
            setting,
            restored: Ok(vec![activate(), check("restart")]),
            script: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            staging: None,
            journal: Vec::new(),
            pointers: None,
            effects: Vec::new(),
            exits: BTreeMap::new(),
            lost: false,
            removed: false,
            pruned: false,
            cancelled: BTreeSet::new(),
            words: VecDeque::new(),
            armed: None,
            queue: VecDeque::new(),
            inbox: VecDeque::from([Input::Go]),
        }
    }

    pub(super) fn script(mut self, phase: Phase, step: u32, outcomes: &[StepOutcome]) -> Self {
        self.script.insert((phase, step), outcomes.iter().cloned().collect());
        self
    }

    /// To the end, without any crash.
    pub(super) fn finish(&mut self) -> DeploymentOutcome {
        for _ in 0..10_000 {
            if !self.tick() {
                return self.outcome().unwrap_or_else(|| panic!("stuck: {:?}", self.journal));
            }
        }
        panic!("never ends: {:?}", self.journal)
    }

    pub(super) fn outcome(&self) -> Option<DeploymentOutcome> {
        match self.journal.last() {
            Some(Event::Ended { result }) => Some(result.clone()),
            Some(_) | None => None,
        }
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.inbox.push_back(input);
    }

    pub(super) fn cancel(&mut self) {
        self.tell(Input::Cancel { order: id(9), because: "told so".into() });
    }

    /// The word is heard while the attempt's process is being made, before what became of that.
    pub(super) fn cancel_while_created(&mut self, attempt: &str) {
        let attempt = attempt.parse().unwrap();
        while !self.is_being_created(attempt) {
            assert!(self.tick(), "{attempt} is never started: {:?}", self.journal);
        }
        self.inbox.push_front(Input::Cancel { order: id(9), because: "told so".into() });
    }

    /// Until it waits for somebody, or has ended.
    pub(super) fn settle(&mut self) -> Option<Waiting> {
        for _ in 0..10_000 {
            if !self.tick() {
                return self.machine.waiting();
            }
        }
        panic!("never settles: {:?}", self.journal)
    }

    pub(super) fn machine(&self) -> &Run {
        &self.machine
    }

    /// Says the next word to a run that waits. Its order has the same id however often it is said about the same thing.
    fn attend(&mut self) -> bool {
        let spoken = self.journal.iter().filter(|event| is_spoken(event)).count();
        let order = id(100 + u8::try_from(spoken).unwrap());
        let (Some(waiting), Some(word)) = (self.machine.waiting(), self.words.front().cloned()) else {
            return false;
        };
        let name = |world: &Self, phase, step: u32| world.steps(phase)[step as usize].name.clone();
        let input = match waiting {
            Waiting::Once { step } => {
                Input::Once { order, step: name(self, Phase::Deploy, step), word: word.once }
            }
            Waiting::Decision { phase, step } => {
                let (step, reason) = (name(self, phase, step), "looked".to_owned());
                Input::Decide { order, step, action: word.decision, reason }
            }
            Waiting::Confirmation { deadline_boot_ms } => {
                assert_eq!(self.armed, Some(deadline_boot_ms), "it waits without a timer");
                if word.confirmed { Input::Confirm { order } } else { Input::ConfirmExpired }
            }
        };
        self.tell(input.clone());
        self.tell(input);
        true
    }

    /// Runs until the attempt's first act is next, and does not let it happen.
    pub(super) fn until_started(&mut self, attempt: &str) {
        let attempt = attempt.parse().unwrap();
        let first = |world: &Self| {
            let act = if world.step(attempt).kind.is_process() { Command::Release } else { Command::Start };
            act(attempt)
        };
        while self.queue.front() != Some(&first(self)) {
            assert!(self.tick(), "{attempt} is never started: {:?}", self.journal);
        }
    }

    /// The agent is gone, with all that it has not written; then it is back.
    pub(super) fn crash(&mut self) {
        self.queue.clear();
        self.inbox = VecDeque::from([Input::Go]);
        self.armed = None;
        let mut setting = self.setting.clone();
        setting.current = self.current;
        self.machine = if self.journal.is_empty() {
            Run::new(setting)
        } else {
            Run::replay(setting, self.journal.iter().cloned()).unwrap()
        };
    }

    /// The same, and the whole server with it.
    pub(super) fn reboot(&mut self) {
        self.setting.boot_id.push('+');
        self.lost = true;
        self.crash();
    }

    /// One command, or if there is none one input, or the next word. False if there is none.
    pub(super) fn tick(&mut self) -> bool {
        if let Some(command) = self.queue.pop_front() {
            self.execute(command);
        } else if let Some(input) = self.inbox.pop_front() {
            let (machine, commands) = self.machine.clone().apply(input);
            self.machine = machine;
            self.queue.extend(commands);
        } else {
            return self.attend();
        }
        true
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Journal { event, pointers } => {
                if is_spoken(&event) {
                    self.words.pop_front();
                }
                self.journal.push(event);
                if pointers.is_some() {
                    self.pointers = pointers;
                }
            }
            Command::Stage => {
                let staged = Input::Staged { release: "2.0.0-x".into(), reused_bytes: 0, fetched_bytes: 1 };
                let answer = self.staging.clone().unwrap_or(staged);
                self.tell(answer);
            }
            Command::CancelStaging => self.inbox = VecDeque::from([Input::StagingCancelled]),
            Command::Evaluate { phase, step } => {
                let verdict = self.verdicts.get(&(phase, step)).cloned().unwrap_or(Verdict::Run);
                self.tell(Input::Evaluated { phase, step, verdict });
            }
            Command::Start(attempt) if self.step(attempt).kind.is_process() => {
                let process = Process { pid: 1, start_ticks: 2, cgroup: None };
                self.tell(Input::Spawned { attempt, process });
            }
            Command::Start(attempt) | Command::Release(attempt) => {
                let result = self.run(attempt);
                self.tell(finished(attempt, result));
            }
            Command::Rejoin(Begun { attempt, process, .. }) => match self.exits.get(&attempt).cloned() {
                _ if process.is_none() => self.tell(Input::NeverBegan { attempt }),
                Some(result) if !self.lost => self.tell(finished(attempt, result)),
                // It waits for its release, if there is still somebody to release it.
                None if !self.lost => self.tell(Input::Spawned { attempt, process: process.unwrap() }),
                Some(_) | None => {
                    self.tell(finished(attempt, StepOutcome::Unknown { because: "nobody knows".into() }));
                }
            },
            // Whose creation has not been answered yet, perhaps is not there yet.
            Command::Cancel(attempt) if self.is_being_created(attempt) => {}
            Command::Cancel(attempt) => {
                self.cancelled.insert(attempt);
            }
            Command::Restore(_) => {
                let answer = match self.restored.clone() {
                    Ok(steps) => Input::Restorable { steps },
                    Err(because) => Input::NotRestorable { because },
                };
                self.tell(answer);
            }
            Command::ReadClocks => self.tell(Input::Clocks { boot_ms: BOOT_MS, now: UnixMs(5) }),
            Command::AwaitConfirm { deadline_boot_ms } => self.armed = Some(deadline_boot_ms),
            Command::RemoveStaged { .. } => self.removed = true,
            Command::Prune => self.pruned = true,
        }
    }

    fn is_being_created(&self, of: Attempt) -> bool {
        let is_known = |event: &Event| matches!(event, Event::Spawned { attempt, .. } if *attempt == of);
        let is_answered = |input: &Input| matches!(input, Input::Spawned { attempt, .. } if *attempt == of);
        self.inbox.iter().any(is_answered) && !self.journal.iter().any(is_known)
    }

    fn run(&mut self, attempt: Attempt) -> StepOutcome {
        self.effects.push(attempt);
        let script = self.script.get_mut(&(attempt.phase, attempt.step));
        let result = script.and_then(VecDeque::pop_front).unwrap_or(StepOutcome::Succeeded);
        let kind = self.step(attempt).kind.clone();
        if kind.is_process() {
            self.exits.insert(attempt, result.clone());
        } else if kind == Kind::Activate && result == StepOutcome::Succeeded {
            self.current = match (attempt.phase, &self.setting.way) {
                (Phase::Deploy, _) => Some(self.setting.digest),
                (Phase::Return, Way::Deploy { .. }) => self.setting.good.as_ref().map(|it| it.manifest),
                (Phase::Return, Way::Return { .. }) => self.setting.before.as_ref().map(|it| it.manifest),
            };
        }
        result
    }

    pub(super) fn step(&self, attempt: Attempt) -> &Step {
        &self.steps(attempt.phase)[attempt.step as usize]
    }

    pub(super) fn steps(&self, phase: Phase) -> &[Step] {
        match (phase, &self.setting.way) {
            (Phase::Deploy, Way::Deploy { steps, .. }) => steps,
            (Phase::Deploy, Way::Return { .. }) => &[],
            (Phase::Return, _) => self.restored.as_deref().unwrap_or_default(),
        }
    }
}

/// What only a word, or its absence, brings about.
fn is_spoken(event: &Event) -> bool {
    matches!(
        event,
        Event::Answered { .. } | Event::Decided { .. } | Event::Confirmed { .. } | Event::Unconfirmed { .. }
    )
}

pub(super) fn finished(attempt: Attempt, result: StepOutcome) -> Input {
    Input::Finished { attempt, result, log_length: 0, duration_ms: 0, leftovers: Vec::new() }
}
