//! What is to happen, and when. Of two things at one moment the one that was planned first happens first.

use std::{cmp::Ordering, collections::BinaryHeap};

use consign_agent::core::Input;
use consign_common::{
    deployment::Attempt,
    digest::Sha256,
    name::{App, Id, ServerName},
    time::UnixMs,
};
use consign_coordinator::rollout::Health;

/// Milliseconds since the run began.
pub(super) type Moment = u64;
/// The place of a server in the fleet.
pub(super) type Place = usize;

#[derive(Clone, Debug)]
pub(super) enum What {
    /// From an agent.
    Up {
        server: Place,
        session: u64,
        message: Up,
    },
    /// From the coordinator.
    Down {
        server: Place,
        session: u64,
        message: Down,
    },
    /// This end of a session sees that it is over.
    Broken {
        server: Place,
        session: u64,
        end: Side,
    },
    /// Within an agent's process; it goes with it.
    Agent {
        server: Place,
        life: u64,
        what: Inner,
    },
    /// Outside of it; it goes with the boot.
    Host {
        server: Place,
        boot: u64,
        what: Outer,
    },
    /// The agent's service is started, where it is not.
    AgentStarts {
        server: Place,
    },
    ServerBoots {
        server: Place,
    },
    Enrolled {
        server: Place,
    },
    /// Within the coordinator's process; it goes with it.
    Coordinator {
        life: u64,
        what: Later,
    },
    CoordinatorStarts,
    Operator,
    Fault,
    /// Faults and operators are over.
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Agent,
    Coordinator,
}

#[derive(Clone, Debug)]
pub(super) enum Up {
    Hello { clock_ms: u64, apps: Vec<(App, Option<Sha256>, Option<Sha256>)> },
    Event { deployment: Id, sequence: u64, at: UnixMs, body: Vec<u8> },
    Refused { order: Id, code: String, message: String },
    Log { deployment: Id, attempt: Attempt, offset: u64, length: u64 },
}

#[derive(Clone, Debug)]
pub(super) enum Down {
    Welcome,
    Order { document: Vec<u8>, statements: Vec<Vec<u8>> },
    EventAck { deployment: Id, sequence: u64 },
    LogAck { deployment: Id, attempt: Attempt, offset: u64 },
}

#[derive(Clone, Debug)]
pub(super) enum Inner {
    Dial,
    /// The session was not answered in time.
    Unwelcome {
        session: u64,
    },
    Judged {
        app: App,
        order: Id,
    },
    /// A write of the deployment's journal is durable.
    Synced {
        app: App,
        deployment: Id,
    },
    /// The disk was full.
    TryAgain {
        app: App,
        deployment: Id,
    },
    /// The same, of a word about the deployment.
    Unstalled {
        app: App,
        deployment: Id,
    },
    /// What a deployment asked for is there. `task`: of the staging or the attempt in the agent that it answers.
    Answer {
        app: App,
        deployment: Id,
        task: u64,
        input: Input,
    },
    /// The deployment has ended and tidied up.
    Tidied {
        app: App,
        deployment: Id,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Outer {
    /// `life`: of the agent that asked for it.
    Created {
        attempt: Key,
        life: u64,
    },
    Ends {
        attempt: Key,
    },
    /// Its exit status is safely on disk.
    Recorded {
        attempt: Key,
    },
    Killed {
        attempt: Key,
    },
    /// The timer that needs no agent.
    ConfirmExpired,
}

/// An attempt, on its server.
pub(super) type Key = (Id, Attempt);

#[derive(Clone, Debug)]
pub(super) enum Later {
    /// The rollouts' clock.
    Wake,
    /// A server that is away had this long.
    Absent {
        rollout: Id,
        server: ServerName,
    },
    /// The end of a deployment that could not be cancelled had this long.
    Lost {
        rollout: Id,
        server: ServerName,
        order: Id,
        because: String,
    },
    Judged {
        rollout: Id,
        wave: u32,
        health: Health,
        because: String,
    },
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    planned: u64,
}

#[derive(Debug)]
struct Entry {
    at: Moment,
    number: u64,
    what: What,
}

impl Queue {
    pub(super) fn push(&mut self, at: Moment, what: What) {
        self.planned += 1;
        self.heap.push(Entry { at, number: self.planned, what });
    }

    pub(super) fn pop(&mut self) -> Option<(Moment, What)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
