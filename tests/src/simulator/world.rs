//! A run: the fleet and its weather from the seed, the loop over what happens, and the end.

use std::collections::BTreeMap;

use consign_common::name::{App, ServerName};

use super::{
    agent::Mode,
    around::{Around, Weather},
    bug::Bug,
    catalog::{self, Catalog},
    check::{Oracle, People},
    coordinator::Coordinator,
    disk::Disk,
    host::Server,
    queue::{Moment, Queue, Side, What},
    random::{Fingerprint, Random},
    report::{Counts, Report},
};

/// Without anything durable for this long a run has come to rest; longer than anything that waits by itself.
const REST: Moment = 45 * 60_000;
/// A run that never rests is stuck in a circle.
const LONGEST: Moment = 100 * 3_600_000;
/// How often people say all that is asked of them, at the end.
const ROUNDS: u32 = 25;
/// As `SILENT` of the agent's session.
const SILENT: Moment = 45_000;
const EVENTS: u64 = 400_000;

/// What a run is to show besides its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    #[default]
    Off,
    On,
}

#[derive(Debug)]
struct World {
    around: Around,
    coordinator: Coordinator,
    servers: Vec<Server>,
}

/// Plays one seed to its end, or to its first violation.
pub fn run(seed: u64, bug: Option<Bug>, trace: Trace) -> Report {
    let mut world = World::new(seed, bug, trace);
    world.play();
    let World { around, .. } = world;
    let mut counts = around.counts;
    counts.seeds = 1;
    counts.simulated_ms = around.now;
    counts.checks = around.oracle.checks;
    counts.effects = around.oracle.effects;
    Report {
        seed,
        bug,
        fingerprint: std::hash::Hasher::finish(&around.fingerprint),
        counts,
        coverage: around.coverage,
        violation: around.oracle.violation,
        trace: around.trace.unwrap_or_default(),
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let apps: Vec<App> =
            ["shop", "blog"].iter().take(1 + random.index(2)).map(|name| name.parse().unwrap()).collect();
        let fleet = random.one_of(&[1, 2, 2, 3, 3, 4, 5, 6]);
        let weather = weather(&mut random);
        let mut around = Around {
            now: 0,
            queue: Queue::default(),
            weather,
            quiet: false,
            catalog: Catalog::default(),
            roots: [catalog::trust_root(&apps), catalog::strangers_root(&apps)],
            apps,
            names: Vec::new(),
            places: Default::default(),
            labels: Vec::new(),
            lines: Vec::new(),
            sessions: 0,
            dead: Default::default(),
            coordinator_up: false,
            oracle: Oracle::default(),
            counts: Counts::default(),
            coverage: BTreeMap::new(),
            fingerprint: Fingerprint::default(),
            trace: (trace == Trace::On).then(Vec::new),
            bug,
            random,
        };
        let mut coordinator = Coordinator::new();
        let servers: Vec<Server> = (0..fleet).map(|place| server(&mut around, place)).collect();
        for (place, server) in servers.iter().enumerate() {
            if place > 0 && around.random.chance(120) {
                let later = around.random.between(60_000, 1_200_000);
                around.after(later, What::Enrolled { server: place });
            } else {
                coordinator.enrols(&around, place);
                around.after(10, What::AgentStarts { server: server.place });
            }
        }
        let mut servers = servers;
        for server in &mut servers {
            server.enrolled = coordinator.store.enrolled.contains(&server.name);
        }
        around.after(1, What::CoordinatorStarts);
        around.after(3_000, What::Operator);
        let troubled = around.random.between(5, 40) * 60_000;
        around.after(troubled, What::Quiet);
        if around.weather.fault_ms > 0 {
            around.after(around.weather.fault_ms, What::Fault);
        }
        Self { around, coordinator, servers }
    }

    fn play(&mut self) {
        self.until_rest();
        self.judge(People::Silent);
        for _ in 0..ROUNDS {
            if self.is_over() || self.around.oracle.violation.is_some() {
                break;
            }
            self.around.say(|| "everybody speaks".to_owned());
            self.coordinator.everybody_speaks(&mut self.around);
            self.until_rest();
        }
        self.judge(People::Spoke);
    }

    fn judge(&mut self, people: People) {
        let mut oracle = std::mem::take(&mut self.around.oracle);
        if oracle.violation.is_none() {
            oracle.settled(&self.around, &self.coordinator, &self.servers, people);
        }
        self.around.oracle = oracle;
    }

    fn is_over(&self) -> bool {
        self.coordinator.store.open().next().is_none() && self.coordinator.store.holds.is_empty()
    }

    /// Until nothing durable has happened for long.
    fn until_rest(&mut self) {
        let mut last = (self.around.oracle.progress, self.around.now);
        while self.around.oracle.violation.is_none() {
            let Some((at, what)) = self.around.queue.pop() else { return };
            self.around.now = self.around.now.max(at);
            self.around.oracle.at(self.around.now);
            self.around.counts.events += 1;
            self.happens(what);
            for order in self.around.oracle.newly_accepted() {
                if self.coordinator.store.order(&order).is_none() {
                    self.around.oracle.not_durable(&order);
                }
            }
            let progress = self.around.oracle.progress;
            if progress != last.0 || !self.around.quiet {
                last = (progress, self.around.now);
            } else if self.around.now - last.1 > REST {
                return;
            }
            if self.around.now > LONGEST || self.around.counts.events > EVENTS {
                self.around.oracle.restless();
            }
        }
    }

    fn happens(&mut self, what: What) {
        let around = &mut self.around;
        around.fingerprint.add(around.now);
        match what {
            What::Up { server, session, message } => self.coordinator.hear(around, server, session, message),
            What::Down { server, session, message } => self.servers[server].hear(around, session, message),
            What::Broken { server, session, end: Side::Agent } => {
                self.servers[server].session_broken(around, session);
            }
            What::Broken { server, session, end: Side::Coordinator } => {
                self.coordinator.session_broken(around, server, session);
            }
            What::Agent { server, life, what } => {
                let server = &mut self.servers[server];
                if server.life == life && server.agent.is_some() {
                    server.inner(around, what);
                }
            }
            What::Host { server, boot, what } => {
                let server = &mut self.servers[server];
                if server.boot == boot && server.is_up {
                    server.outer(around, what);
                }
            }
            What::AgentStarts { server } => {
                let server = &mut self.servers[server];
                if server.is_up && server.enrolled {
                    server.agent_starts(around, Mode::Service);
                }
            }
            What::ServerBoots { server } => self.servers[server].boots(around),
            What::Enrolled { server } => {
                self.coordinator.enrols(around, server);
                self.servers[server].enrolled = true;
                around.after(10, What::AgentStarts { server });
            }
            What::Coordinator { life, what } => {
                if self.coordinator.life == life && around.coordinator_up {
                    self.coordinator.later_has_come(around, what);
                }
            }
            What::CoordinatorStarts => self.coordinator.starts(around),
            What::Operator => {
                if !around.quiet {
                    self.coordinator.operator(around);
                    let pause = self.around.random.span(500, 60_000);
                    self.around.after(pause, What::Operator);
                }
            }
            What::Fault => {
                if !around.quiet {
                    self.fault();
                    let fault_ms = self.around.weather.fault_ms;
                    let pause = self.around.random.span(fault_ms / 8 + 1, fault_ms * 4);
                    self.around.after(pause, What::Fault);
                }
            }
            What::Quiet => self.quiet(),
        }
    }

    /// Something from outside.
    fn fault(&mut self) {
        let around = &mut self.around;
        // Where something goes on, more often than elsewhere.
        let busy: Vec<usize> =
            self.servers.iter().filter(|server| server.is_busy()).map(|server| server.place).collect();
        let anywhere = around.random.index(self.servers.len());
        let place =
            around.random.pick(&busy).copied().filter(|_| around.random.chance(800)).unwrap_or(anywhere);
        let Some(server) = self.servers.get_mut(place) else { return };
        match around.random.below(100) {
            0..=14 if server.agent.is_some() => server.crash(around),
            15..=24 if server.is_up => server.lose_power(around),
            25..=39 => {
                let running: Vec<usize> =
                    self.servers.iter().filter(|it| it.runs_something()).map(|it| it.place).collect();
                let place = around.random.pick(&running).copied().unwrap_or(place);
                self.servers[place].lose_supervisor(around);
            }
            40..=64 => {
                let span = partition(around, place);
                let session = server.agent.as_ref().and_then(|agent| agent.session);
                // Whoever hears nothing for too long hangs up; the other one learns of it in his time.
                if let Some(session) = session.filter(|_| span > SILENT) {
                    let (one, other) = (around.random.below(60_000), around.random.below(60_000));
                    around.break_session(place, session.number, SILENT + one, SILENT + other);
                }
            }
            65..=76 => self.coordinator.crash(around),
            77..=86 => {
                around.counts.full_disks += 1;
                server.disk.full_until = around.now + around.random.span(1_000, 60_000);
                around.say(|| format!("{}: disk full", server.name));
            }
            _ => {
                let session = server.agent.as_ref().and_then(|agent| agent.session);
                if let Some(session) = session {
                    let (one, other) = (around.random.span(1, 20_000), around.random.span(1, 45_000));
                    around.break_session(place, session.number, one, other);
                }
            }
        }
    }

    /// No fault from here on: what is down comes back by itself, what is cut heals.
    fn quiet(&mut self) {
        self.around.say(|| "quiet: no more faults, no more people".to_owned());
        self.around.quiet = true;
        for line in &mut self.around.lines {
            (line.up_blocked, line.down_blocked) = (0, 0);
        }
        let unruly = self.around.weather.unruly_permille > 0;
        for (place, server) in self.servers.iter_mut().enumerate() {
            server.disk.full_until = 0;
            // What a line without order has lost is only found by a new session.
            if let Some(session) = server.agent.as_ref().and_then(|agent| agent.session).filter(|_| unruly) {
                self.around.break_session(place, session.number, 10_000, 10_000);
            }
        }
    }
}

fn server(around: &mut Around, place: usize) -> Server {
    let name: ServerName = format!("web-{}", place + 1).parse().unwrap();
    let zone = around.random.one_of(&["a", "b"]);
    let labels: BTreeMap<String, String> = [("zone".to_owned(), zone.to_owned())].into();
    around.names.push(name.clone());
    around.places.insert(name.clone(), place);
    around.labels.push(labels.clone());
    around.lines.push(Default::default());
    let skew_ms = match around.random.below(20) {
        0 => 400_000,
        1 => -400_000,
        2..=5 => 20_000,
        _ => 0,
    };
    Server {
        place,
        name,
        labels,
        skew_ms,
        enrolled: false,
        is_up: true,
        boot: 1,
        booted: 0,
        disk: Disk::default(),
        processes: BTreeMap::new(),
        life: 0,
        agent: None,
    }
}

fn weather(random: &mut Random) -> Weather {
    Weather {
        crash_permille: random.one_of(&[0, 2, 5, 15]),
        unruly_permille: random.one_of(&[0, 0, 0, 10, 60]),
        fail_permille: random.one_of(&[0, 20, 80, 250]),
        fault_ms: random.one_of(&[0, 5_000, 20_000, 60_000]),
        slowest_message_ms: random.one_of(&[5, 60, 2_000]),
        slowest_write_ms: random.one_of(&[2, 20, 4_000]),
        longest_step_ms: random.one_of(&[500, 8_000, 60_000, 240_000]),
    }
}

/// One server's line, in one direction or both; for how long.
fn partition(around: &mut Around, place: usize) -> Moment {
    around.counts.partitions += 1;
    let longest = around.random.one_of(&[20_000, 60_000, 900_000]);
    let span = around.random.span(500, longest);
    let (up, down) = around.random.one_of(&[(true, true), (true, false), (false, true)]);
    let until = around.now + span;
    around.say(|| format!("web-{}: cut off for {span} ms, up {up}, down {down}", place + 1));
    if let Some(line) = around.lines.get_mut(place) {
        if up {
            line.up_blocked = line.up_blocked.max(until);
        }
        if down {
            line.down_blocked = line.down_blocked.max(until);
        }
    }
    span
}
