//! What goes into the machine and what comes out.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    config::InForce,
    deployment::{Attempt, Event, Leftover, StepOutcome},
    digest::Sha256,
    name::{App, Id, StepName, Version},
    plan::{Phase, Step},
    time::UnixMs,
    trust::{DecisionAction, Foreseen, OnceWord, OrderingNumber, authorize::Installed},
};

/// What a run is about. Given once; after a restart the same is read from the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub order: Id,
    pub app: App,
    pub digest: Sha256,
    pub version: Version,
    pub way: Way,
    pub good: Option<Installed>,
    pub before: Option<Installed>,
    /// What `current` points at.
    pub current: Option<Sha256>,
    /// Steps that the order leaves out, of the phase that it begins.
    pub skips: Vec<StepName>,
    /// Of this boot, recorded with every attempt.
    pub boot_id: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// Bring the artifact in.
    Deploy {
        steps: Vec<Step>,
        /// Also when it is what runs.
        force: bool,
        published: OrderingNumber,
        number: OrderingNumber,
        /// What it runs with.
        config: InForce,
        /// How conditions must come out, where the operator pinned what the preview said.
        pinned: BTreeMap<StepName, Foreseen>,
        /// How long a success waits to be confirmed; absent: it is good at once.
        confirm: Option<Duration>,
    },
    /// Go back to `before`, on an order.
    Return { because: String },
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Begin, or go on from where the journal ends.
    Go,
    Staged {
        release: String,
        reused_bytes: u64,
        fetched_bytes: u64,
    },
    /// Nothing was left on disk. The code is a refusal's name (`disk-full`, ...).
    StagingFailed {
        code: String,
        message: String,
    },
    /// Staging stopped because it was told to.
    StagingCancelled,
    Evaluated {
        phase: Phase,
        step: u32,
        verdict: Verdict,
    },
    /// Its process exists and waits for [`Command::Release`].
    Spawned {
        attempt: Attempt,
        process: Process,
    },
    /// Also the answer to [`Command::Rejoin`]: with `unknown` when nobody knows.
    Finished {
        attempt: Attempt,
        result: StepOutcome,
        log_length: u64,
        duration_ms: u64,
        leftovers: Vec<Leftover>,
    },
    /// The answer to [`Command::Rejoin`]: it is certain that the attempt never executed anything.
    NeverBegan {
        attempt: Attempt,
    },
    /// The answer to [`Command::Restore`]: the files are whole, and this is the artifact's own plan.
    Restorable {
        steps: Vec<Step>,
    },
    NotRestorable {
        because: String,
    },
    Cancel {
        order: Id,
        because: String,
    },
    /// The answer to a run that waits before a `once` step.
    Once {
        order: Id,
        step: StepName,
        word: OnceWord,
    },
    /// An operator's word about a step of the phase that runs now.
    Decide {
        order: Id,
        step: StepName,
        action: DecisionAction,
        reason: String,
    },
    Confirm {
        order: Id,
    },
    /// Another order came for the app: a run that waits for a decision ends, any other goes on.
    GiveUp,
    /// The answer to [`Command::ReadClocks`]: CLOCK_BOOTTIME, and the time of day.
    Clocks {
        boot_ms: u64,
        now: UnixMs,
    },
    /// The deadline of [`Command::AwaitConfirm`] has passed.
    ConfirmExpired,
}

impl Input {
    pub fn is_cancel(&self) -> bool {
        matches!(self, Self::Cancel { .. })
    }
}

/// What a run waits for that nobody on this server can give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Whether it is the one that runs this `once` step.
    Once { step: u32 },
    /// How the step of unknown outcome is to be taken.
    Decision { phase: Phase, step: u32 },
    /// To be confirmed, until this moment by CLOCK_BOOTTIME.
    Confirmation { deadline_boot_ms: u64 },
}

/// How a condition came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Run,
    Skip { expression: String, inputs: BTreeMap<String, String> },
    Invalid { message: String },
}

/// What to do. Commands are carried out in their order, and each only after the one before is done; nothing after a
/// `Journal` happens unless that is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Append to the journal; `pointers`, if any, change in the same transaction.
    Journal {
        event: Event,
        pointers: Option<Box<Pointers>>,
    },
    /// Bring the release in. Answered by `Staged`, `StagingFailed` or `StagingCancelled`.
    Stage,
    CancelStaging,
    /// Evaluate the step's condition. Answered by `Evaluated`.
    Evaluate {
        phase: Phase,
        step: u32,
    },
    /// Execute. Answered by `Spawned` (processes only) and `Finished`.
    Start(Attempt),
    /// Its process is journalled: let it execute.
    Release(Attempt),
    /// The agent was away: find out what became of it, and wait for its end. Answered by `Finished` or `NeverBegan`.
    Rejoin(Begun),
    /// End it, with all that it started. Answered by its `Finished`.
    Cancel(Attempt),
    /// Tell what time it is. Answered by `Clocks`.
    ReadClocks,
    /// Wait until this moment by CLOCK_BOOTTIME. Answered by `ConfirmExpired`, at once where it has passed.
    AwaitConfirm {
        deadline_boot_ms: u64,
    },
    /// Hash this release against its manifest, and read its plan. Answered by `Restorable` or `NotRestorable`.
    Restore(Installed),
    /// Remove the release that never became active.
    RemoveStaged {
        release: String,
    },
    /// The deployment succeeded: remove releases beyond what the plan keeps.
    Prune,
}

/// An attempt, and how to find what it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub attempt: Attempt,
    /// Nothing survives the end of a boot.
    pub boot_id: String,
    /// Absent: it was never released, so that it has executed nothing.
    pub process: Option<Process>,
}

/// An attempt's main process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// With it a pid that was given again is not taken for this one.
    pub start_ticks: u64,
    pub cgroup: Option<String>,
}

/// The app's pointers from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointers {
    pub good: Option<Installed>,
    pub before: Option<Installed>,
    /// The ordering number that is used up now; absent: the one before stays.
    pub succeeded: Option<OrderingNumber>,
}
