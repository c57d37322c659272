//! What both shells stand on: time, chance, the network, faults, and whoever looks on.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    name::{App, Id, ServerName},
    time::UnixMs,
    trust::TrustRoot,
};

use super::{
    bug::Bug,
    catalog::{Catalog, EPOCH_MS},
    check::Oracle,
    queue::{Down, Moment, Place, Queue, Side, Up, What},
    random::{Fingerprint, Random},
    report::{Counts, Coverage},
};

/// The process is gone in the middle of what it did.
#[derive(Debug)]
pub(super) struct Crashed;

/// How bad a world the seed is.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// Of a thousand places where a process can die, it dies at so many.
    pub(super) crash_permille: u64,
    /// Of a thousand messages within a session so many are lost, come twice, or late.
    pub(super) unruly_permille: u64,
    /// Of a thousand attempts so many fail.
    pub(super) fail_permille: u64,
    /// Between two faults from outside, in milliseconds, on average; 0: there are none.
    pub(super) fault_ms: u64,
    pub(super) slowest_message_ms: u64,
    pub(super) slowest_write_ms: u64,
    pub(super) longest_step_ms: u64,
}

#[derive(Debug)]
pub(super) struct Around {
    pub(super) now: Moment,
    pub(super) random: Random,
    pub(super) queue: Queue,
    pub(super) weather: Weather,
    /// No fault from here on, and no operator.
    pub(super) quiet: bool,
    pub(super) catalog: Catalog,
    pub(super) apps: Vec<App>,
    /// Whom servers trust; and whom they would have to trust to take what a stranger signed.
    pub(super) roots: [TrustRoot; 2],
    pub(super) names: Vec<ServerName>,
    pub(super) places: BTreeMap<ServerName, Place>,
    pub(super) labels: Vec<BTreeMap<String, String>>,
    pub(super) lines: Vec<Line>,
    pub(super) sessions: u64,
    pub(super) dead: BTreeSet<u64>,
    pub(super) coordinator_up: bool,
    pub(super) oracle: Oracle,
    pub(super) counts: Counts,
    pub(super) coverage: Coverage,
    pub(super) fingerprint: Fingerprint,
    pub(super) trace: Option<Vec<String>>,
    pub(super) bug: Option<Bug>,
}

/// One server's way to the coordinator.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Nothing passes before this moment.
    pub(super) up_blocked: Moment,
    pub(super) down_blocked: Moment,
    last_up: Moment,
    last_down: Moment,
}

impl Line {
    pub(super) fn is_blocked(&self, now: Moment) -> bool {
        now < self.up_blocked.max(self.down_blocked)
    }
}

impl Around {
    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// By a clock that is right.
    pub(super) fn unix(&self) -> UnixMs {
        UnixMs(EPOCH_MS + self.now)
    }

    pub(super) fn id(&mut self) -> Id {
        let (high, low) = (self.random.bits().to_be_bytes(), self.random.bits().to_be_bytes());
        let mut bits = [0; 16];
        bits[..8].copy_from_slice(&high);
        bits[8..].copy_from_slice(&low);
        Id::from_bytes(bits)
    }

    pub(super) fn after(&mut self, delay: Moment, what: What) {
        self.queue.push(self.now + delay, what);
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let (seconds, ms) = (self.now / 1000, self.now % 1000);
            trace.push(format!("{seconds:>6}.{ms:03}  {}", line()));
        }
    }

    pub(super) fn covers(&mut self, what: impl Into<String>) {
        *self.coverage.entry(what.into()).or_default() += 1;
    }

    /// A place where a process may die.
    pub(super) fn survives(&mut self) -> Result<(), Crashed> {
        if !self.quiet && self.random.chance(self.weather.crash_permille) { Err(Crashed) } else { Ok(()) }
    }

    pub(super) fn place(&self, server: &ServerName) -> Option<Place> {
        self.places.get(server).copied()
    }

    pub(super) fn labels(&self, server: &ServerName) -> BTreeMap<String, String> {
        self.place(server).and_then(|place| self.labels.get(place)).cloned().unwrap_or_default()
    }

    pub(super) fn send_up(&mut self, server: Place, session: u64, message: Up) {
        let Some(line) = self.lines.get(server) else { return };
        let (blocked, last) = (line.up_blocked, line.last_up);
        let (at, copies) = self.passage(blocked, last);
        if let Some(line) = self.lines.get_mut(server) {
            line.last_up = line.last_up.max(at);
        }
        for copy in 0..copies {
            let at = at + copy * 40;
            self.queue.push(at, What::Up { server, session, message: message.clone() });
        }
    }

    pub(super) fn send_down(&mut self, server: Place, session: u64, message: Down) {
        let Some(line) = self.lines.get(server) else { return };
        let (blocked, last) = (line.down_blocked, line.last_down);
        let (at, copies) = self.passage(blocked, last);
        if let Some(line) = self.lines.get_mut(server) {
            line.last_down = line.last_down.max(at);
        }
        for copy in 0..copies {
            let at = at + copy * 40;
            self.queue.push(at, What::Down { server, session, message: message.clone() });
        }
    }

    /// When a message arrives, and how often. A session keeps its order, as a stream does; in bad weather it does not.
    fn passage(&mut self, blocked: Moment, last: Moment) -> (Moment, u64) {
        self.counts.messages += 1;
        let slowest = self.weather.slowest_message_ms;
        let at = self.now.max(blocked) + self.random.span(1, slowest);
        if self.quiet || !self.random.chance(self.weather.unruly_permille) {
            return (at.max(last), 1);
        }
        self.counts.unruly += 1;
        match self.random.below(3) {
            0 => (at, 0),
            1 => (at.max(last), 2),
            _ => (at + self.random.span(1, 5000), 1),
        }
    }

    /// The session is over; each end sees that in its time.
    pub(super) fn break_session(
        &mut self,
        server: Place,
        session: u64,
        agent_in: Moment,
        coordinator_in: Moment,
    ) {
        self.dead.insert(session);
        self.after(agent_in, What::Broken { server, session, end: Side::Agent });
        self.after(coordinator_in, What::Broken { server, session, end: Side::Coordinator });
    }

    /// Whether what is under way in a session that is over still arrives.
    pub(super) fn arrives(&mut self, session: u64) -> bool {
        !self.dead.contains(&session) || self.random.chance(250)
    }
}
