//! Bugs that can be switched on, one at a time: what a simulator that finds nothing is worth is known only from what it
//! finds when there is something. None of them is in the product; each is planted in the simulated shell, or around a call
//! of the engine or the core.

use std::fmt;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal within $seeds:literal,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Bug {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            pub fn about(self) -> String {
                match self { $(Self::$name => concat!($($doc),+).trim().to_owned()),+ }
            }

            /// Seeds within which it must be found.
            pub fn within(self) -> u64 {
                match self { $(Self::$name => $seeds),+ }
            }
        }
    };
}

bugs! {
    /// The agent acts before what it is about to do is durable.
    ActBeforeJournal = "act-before-journal" within 200,
    /// The coordinator sends an order that is not durable yet.
    SendBeforePersist = "send-before-persist" within 1000,
    /// The coordinator acknowledges an event before it is durable.
    AckBeforeCommit = "ack-before-commit" within 200,
    /// The coordinator acknowledges output before it is durable.
    LogAckBeforeCommit = "log-ack-before-commit" within 1000,
    /// After a restart the agent runs a step again that it had started.
    RerunStarted = "rerun-started" within 200,
    /// The agent tells of a cancelled step before its process is gone.
    CancelBeforeEnd = "cancel-before-end" within 200,
    /// After a reboot the agent goes on waiting for a confirmation.
    ConfirmSurvivesReboot = "confirm-survives-reboot" within 1000,
    /// `good` moves when the steps are done, and not when they are confirmed.
    GoodBeforeConfirm = "good-before-confirm" within 200,
    /// The agent takes an order while another deployment of the app is open.
    TwoAtOnce = "two-at-once" within 200,
    /// The agent takes what a stranger signed.
    TrustAnybody = "trust-anybody" within 200,
    /// The release that a server would return to is pruned.
    PruneBefore = "prune-before" within 200,
    /// The coordinator takes events in whatever order they come, and also twice.
    EventsUnordered = "events-unordered" within 200,
    /// A late event of a deployment that a retry replaced drives the rollout.
    LateDeploymentDrives = "late-deployment-drives" within 3000,
    /// A retry goes on under the old term.
    RetryKeepsTerm = "retry-keeps-term" within 200,
    /// A rollout that begins out of its turn orders under the term of when it was asked for.
    TermOfTheAsking = "term-of-the-asking" within 400,
    /// Queued rollouts begin in spite of a hold.
    HoldIgnored = "hold-ignored" within 200,
    /// A rollout begins while another one of its app and environment runs.
    TwoActive = "two-active" within 200,
    /// The failure budget is counted from anew in every wave.
    BudgetPerWave = "budget-per-wave" within 1000,
    /// The minimum of healthy servers does not count those that are being deployed to.
    MinHealthyForgetsFlight = "min-healthy-forgets-flight" within 200,
    /// A paused rollout orders nevertheless.
    OrderWhilePaused = "order-while-paused" within 200,
    /// A rollout with a server that is owed or unknown is called succeeded.
    GreenTooEarly = "green-too-early" within 200,
    /// A server that is gone is taken for one that failed.
    GoneIsFailed = "gone-is-failed" within 400,
    /// Two servers are told to run a `once` step.
    TwoGrants = "two-grants" within 200,
    /// A `once` step of unknown outcome is given to the next server.
    GrantAfterUnknown = "grant-after-unknown" within 2000,
    /// A retry forgets that a `once` step has run.
    RetryForgetsOnce = "retry-forgets-once" within 200,
    /// The outbox forgets what was sent: an order that was lost on the way is never sent again.
    SendOnce = "send-once" within 200,
    /// The coordinator forgets at its start which servers it was looking for.
    ForgetUnfinished = "forget-unfinished" within 2000,
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|bug| bug.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|bug| bug.name()).collect();
            format!("no bug is called {text:?}; there are {}", names.join(", "))
        })
    }
}
