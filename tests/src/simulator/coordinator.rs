//! The coordinator's process. Mirrors `coordinator/src/rollouts` (controller, drive, after, clock, succession): every event
//! is one transaction that writes the rollout, the orders and the rows; what follows is done when that is durable, may be
//! lost at any instant, and comes back from the store.
//!
//! A transaction is never torn, so it is played as one step; a crash before its commit is a crash before its first line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use consign_common::{
    deployment::Event as AgentEvent,
    json,
    limits::{CLOCK_SKEW_MS, EVENT_BYTES},
    name::{App, Id, ServerName},
    time::UnixMs,
    trust::OrderKind,
};
use consign_coordinator::{
    rollout::{
        Candidate, Command, End, Event, Health, Kind, News, Phase, Place as Wave, Presence, Request, Rollout,
        ServerState, Verb,
    },
    rollouts::{
        Again, DeploymentRow, Hold, RolloutRow, View,
        drive::takes_over,
        orders,
        rows::{OrderRow, OrderTag, Pointers},
        succession::{converges_to, is_active, next_of, owes},
        view,
    },
};

use super::{
    around::{Around, Crashed},
    bug::Bug,
    catalog::{COORDINATOR, EPOCH_MS, environment},
    check::Step,
    engine,
    queue::{Down, Later, Moment, Place, Up, What},
    store::{Outgoing, Store},
};

/// As `Patience`: for a server whose turn has come, and for one that was told to cancel.
const TURN: Moment = 10_000;
const CANCEL: Moment = 60_000;
/// After the process began, for a server that has not come back to it yet.
const RESTART: Moment = 45_000;
/// For a server that is still to end what a rollout began that has stopped.
const STOPPING: Moment = 300_000;
/// As `LONGEST` of the rollouts' clock.
const LONGEST: Moment = 60_000;

#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) store: Store,
    pub(super) life: u64,
    sessions: BTreeMap<Place, Open>,
    /// Sessions before this one were another process's.
    first_session: u64,
    /// Servers that were here since the process began, and that ever were.
    came: BTreeSet<Place>,
    came_before: BTreeSet<Place>,
    began: Moment,
    alarm: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    offset_ms: i64,
}

/// What is left to do when the transaction is durable.
#[derive(Debug, Default)]
pub(super) struct After {
    find: VecDeque<(Id, ServerName)>,
    probe: Vec<(Id, u32)>,
    pub(super) send: Vec<OrderRow>,
    cancelled: Vec<(Id, ServerName)>,
    /// Servers whose end a rollout waits for that has stopped.
    awaited: Vec<(Id, ServerName)>,
    /// A rollout has ended, and none begins: servers that came while it ran may owe it.
    pub(super) idle: bool,
}

pub(super) type Happened = VecDeque<(Id, Event)>;

impl Coordinator {
    pub(super) fn new() -> Self {
        Self {
            store: Store::default(),
            life: 0,
            sessions: BTreeMap::new(),
            first_session: 0,
            came: BTreeSet::new(),
            came_before: BTreeSet::new(),
            began: 0,
            alarm: Moment::MAX,
        }
    }

    pub(super) fn starts(&mut self, around: &mut Around) {
        if around.coordinator_up {
            return;
        }
        around.say(|| "coordinator: starts".to_owned());
        around.coordinator_up = true;
        self.life += 1;
        self.first_session = around.sessions + 1;
        self.began = around.now;
        let came = std::mem::take(&mut self.came);
        self.came_before.extend(came);
        self.alarm = Moment::MAX;
        self.store.reread();
        let done = self.resume(around);
        self.settle_down(around, done);
    }

    pub(super) fn crash(&mut self, around: &mut Around) {
        if !around.coordinator_up {
            return;
        }
        around.say(|| "coordinator: killed".to_owned());
        around.counts.coordinator_crashes += 1;
        around.coordinator_up = false;
        self.life += 1;
        for (server, open) in std::mem::take(&mut self.sessions) {
            let noticed = around.random.between(1, 2000);
            around.break_session(server, open.number, noticed, 0);
        }
        let restart = around.random.span(200, 120_000);
        around.after(restart, What::CoordinatorStarts);
    }

    /// The end of whatever was done: dead, or waiting for its clock.
    fn settle_down(&mut self, around: &mut Around, done: Result<(), Crashed>) {
        if done.is_err() {
            return self.crash(around);
        }
        if !around.coordinator_up {
            return;
        }
        let now = around.unix();
        let open = self.store.open().next().is_some();
        let wakes = self.store.open().filter_map(|row| row.state.wake()).filter(|wake| *wake > now);
        let soonest = wakes.min().map(|wake| wake.0.saturating_sub(EPOCH_MS));
        let longest = around.now + LONGEST;
        let next = soonest.map_or(longest, |soonest| soonest.min(longest));
        if open && (self.alarm <= around.now || next < self.alarm) {
            self.alarm = next;
            let life = self.life;
            around.after(next - around.now, What::Coordinator { life, what: Later::Wake });
        }
    }

    fn later(&self, around: &mut Around, delay: Moment, what: Later) {
        around.after(delay, What::Coordinator { life: self.life, what });
    }

    pub(super) fn is_online(&self, around: &Around, server: &ServerName) -> bool {
        around.place(server).is_some_and(|place| self.sessions.contains_key(&place))
    }

    /// Takes up what a former process left.
    fn resume(&mut self, around: &mut Around) -> Result<(), Crashed> {
        let mut after = After::default();
        for row in self.store.open() {
            for command in row.state.unfinished() {
                match command {
                    Command::Find { server } => after.find.push_back((row.id.clone(), server)),
                    Command::Probe { wave } => after.probe.push((row.id.clone(), wave)),
                    // In the outbox.
                    Command::Order { .. }
                    | Command::Cancel { .. }
                    | Command::Confirm { .. }
                    | Command::Once { .. }
                    | Command::Decide { .. }
                    | Command::RollBack { .. } => {}
                }
            }
            if row.state.gives_up() {
                let ordered = row.state.members.iter().filter(|member| member.state.is_ordered());
                let waited = ordered.map(|member| (row.id.clone(), member.server.clone()));
                let list = if row.state.is_aborting() { &mut after.cancelled } else { &mut after.awaited };
                list.extend(waited);
            }
        }
        if around.has(Bug::ForgetUnfinished) {
            after = After::default();
        }
        self.perform(around, after)
    }

    pub(super) fn later_has_come(&mut self, around: &mut Around, what: Later) {
        let done = match what {
            Later::Wake => {
                self.alarm = Moment::MAX;
                self.tick(around)
            }
            Later::Absent { server, .. } if self.is_online(around, &server) => Ok(()),
            Later::Absent { rollout, server } => {
                let event = Event::Server { server, news: News::Absent };
                self.do_all(around, vec![(rollout, event)])
            }
            Later::Lost { rollout, server, order, because } => {
                self.store.answer_order(&order);
                let about =
                    self.store.order(&order).and_then(|it| self.store.deployments.get(&it.deployment));
                // Of one that a retry has replaced nothing is waited for.
                if about.is_none_or(|about| !self.store.is_newest(about)) {
                    return;
                }
                let event = Event::Server { server, news: News::Lost { because } };
                self.do_all(around, vec![(rollout, event)])
            }
            Later::Judged { rollout, wave, health, because } => {
                self.do_all(around, vec![(rollout, Event::Health { wave, health, because })])
            }
        };
        self.settle_down(around, done);
    }

    /// Wakes those whose time has come.
    fn tick(&mut self, around: &mut Around) -> Result<(), Crashed> {
        let now = around.unix();
        let due: Vec<RolloutRow> = self
            .store
            .open()
            .filter(|row| row.state.wake().is_some_and(|wake| wake <= now))
            .cloned()
            .collect();
        for row in due {
            let event = match row.state.phase {
                Phase::Queued { .. } => {
                    if self.next_to_begin(around, &row.app).as_ref() != Some(&row.id) {
                        continue;
                    }
                    Event::Begin
                }
                Phase::Running { .. }
                | Phase::Stopping { .. }
                | Phase::Aborting { .. }
                | Phase::Ended { .. } => Event::Tick,
            };
            self.do_all(around, vec![(row.id, event)])?;
        }
        Ok(())
    }

    // Sessions.

    pub(super) fn hear(&mut self, around: &mut Around, server: Place, number: u64, message: Up) {
        if !around.coordinator_up || number < self.first_session {
            return;
        }
        let current = self.sessions.get(&server).map(|open| open.number);
        let name = around.names[server].clone();
        let done = match message {
            Up::Hello { clock_ms, apps } => {
                // An older session cannot begin after a newer one.
                if current.is_some_and(|current| current >= number) || around.dead.contains(&number) {
                    return;
                }
                self.hello(around, server, number, clock_ms, apps)
            }
            _ if current != Some(number) && !around.arrives(number) => return,
            Up::Event { deployment, sequence, at, body } => {
                self.event(around, (server, number), &name, &deployment, sequence, at, &body)
            }
            Up::Refused { order, code, message } => self.refused(around, &name, &order, &code, message),
            Up::Log { deployment, attempt, offset, length } => {
                self.log(around, (server, number), (deployment, attempt), offset, length)
            }
        };
        self.settle_down(around, done);
    }

    fn hello(
        &mut self,
        around: &mut Around,
        server: Place,
        number: u64,
        clock_ms: u64,
        apps: Vec<(App, Option<consign_common::digest::Sha256>, Option<consign_common::digest::Sha256>)>,
    ) -> Result<(), Crashed> {
        let name = around.names[server].clone();
        if !self.store.enrolled.contains(&name) {
            return Ok(());
        }
        around.survives()?;
        self.store.pointers.retain(|(of, _), _| *of != name);
        for (app, good, before) in apps {
            self.store.pointers.insert((name.clone(), app), Pointers { good, before });
        }
        let ours = around.unix().0;
        let offset_ms = i64::try_from(clock_ms).unwrap_or(0) - i64::try_from(ours).unwrap_or(0);
        self.came.insert(server);
        if let Some(older) = self.sessions.insert(server, Open { number, offset_ms }) {
            around.break_session(server, older.number, 10, 0);
        }
        around.send_down(server, number, Down::Welcome);
        self.connected(around, &name)
    }

    fn connected(&mut self, around: &mut Around, server: &ServerName) -> Result<(), Crashed> {
        let mut after = After { send: self.store.open_orders(server), ..After::default() };
        if around.has(Bug::SendOnce) {
            after.send.clear();
        }
        for row in self.store.open() {
            let state = row.state.member(server).map(|member| &member.state);
            if let Some(ServerState::Due { .. }) = state {
                after.find.push_back((row.id.clone(), server.clone()));
            }
        }
        self.perform(around, after)?;
        self.converge(around, server)
    }

    pub(super) fn session_broken(&mut self, around: &mut Around, server: Place, number: u64) {
        if self.sessions.get(&server).is_none_or(|open| open.number != number) {
            return;
        }
        self.sessions.remove(&server);
        let name = around.names[server].clone();
        let waiting: Vec<(Id, Moment)> = self
            .store
            .open()
            .filter(|row| row.state.gives_up())
            .filter(|row| row.state.member(&name).is_some_and(|member| member.state.is_ordered()))
            .map(|row| (row.id.clone(), if row.state.is_aborting() { CANCEL } else { STOPPING }))
            .collect();
        for (rollout, patience) in waiting {
            self.later(around, patience, Later::Absent { rollout, server: name.clone() });
        }
    }

    /// An agent told of a deployment.
    #[expect(clippy::too_many_arguments, reason = "a message and where it came from")]
    fn event(
        &mut self,
        around: &mut Around,
        (place, number): (Place, u64),
        server: &ServerName,
        deployment: &Id,
        sequence: u64,
        at: UnixMs,
        body: &[u8],
    ) -> Result<(), Crashed> {
        let Some(mut row) =
            self.store.deployments.get(deployment).filter(|row| row.server == *server).cloned()
        else {
            around.oracle.disowned(deployment);
            return Ok(());
        };
        let ack = |sequence| Down::EventAck { deployment: deployment.clone(), sequence };
        let Ok(event) = json::from_slice::<AgentEvent>(body, EVENT_BYTES) else { return Ok(()) };
        if !around.has(Bug::EventsUnordered) {
            if sequence <= row.sequence {
                around.send_down(place, number, ack(row.sequence));
                return Ok(());
            }
            if sequence != row.sequence + 1 {
                around.break_session(place, number, 10, 0);
                return Ok(());
            }
        }
        if around.has(Bug::AckBeforeCommit) {
            around.send_down(place, number, ack(sequence));
        }
        around.survives()?;
        row.sequence = row.sequence.max(sequence);
        around.oracle.stored(deployment, sequence, body);
        let after = self.take(around, row, &event, at);
        around.survives()?;
        self.perform(around, after)?;
        around.send_down(place, number, ack(sequence));
        Ok(())
    }

    /// An agent refused an order.
    fn refused(
        &mut self,
        around: &mut Around,
        server: &ServerName,
        order: &Id,
        code: &str,
        message: String,
    ) -> Result<(), Crashed> {
        let Some(sent) = self.store.order(order).filter(|row| row.server == *server).cloned() else {
            return Ok(());
        };
        let Some(row) = self.store.deployments.get(&sent.deployment).cloned() else { return Ok(()) };
        around.survives()?;
        let mut after = After::default();
        match sent.kind {
            OrderTag::Deploy | OrderTag::Return if row.sequence > 0 || !self.store.is_newest(&row) => {
                self.store.answer_order(order);
            }
            OrderTag::Deploy | OrderTag::Return => {
                self.store.answer_order(order);
                let end = End::Refused { code: code.to_owned(), message };
                let event = Event::Server { server: server.clone(), news: News::Ended(end) };
                self.drive(around, [(row.rollout, event)].into(), &mut after);
            }
            OrderTag::Confirm | OrderTag::Once | OrderTag::Decide => self.store.answer_order(order),
            OrderTag::Cancel => {
                let (rollout, server, order) = (row.rollout, server.clone(), order.clone());
                let because = format!("the agent could not cancel it: {message}");
                self.later(around, CANCEL, Later::Lost { rollout, server, order, because });
            }
        }
        around.survives()?;
        self.perform(around, after)
    }

    /// `coordinator/src/logs`: what is known is passed over, what follows is kept and acknowledged, a gap ends the stream.
    fn log(
        &mut self,
        around: &mut Around,
        (place, number): (Place, u64),
        key: super::queue::Key,
        offset: u64,
        length: u64,
    ) -> Result<(), Crashed> {
        let stored = self.store.logs.get(&key).copied().unwrap_or(0);
        if offset > stored {
            around.break_session(place, number, 10, 0);
            return Ok(());
        }
        let (deployment, attempt) = key.clone();
        let stored = stored.max(offset + length);
        let ack = Down::LogAck { deployment, attempt, offset: stored };
        if around.has(Bug::LogAckBeforeCommit) {
            around.send_down(place, number, ack.clone());
        }
        around.survives()?;
        self.store.logs.insert(key.clone(), stored);
        around.oracle.log_stored(&key, stored);
        around.survives()?;
        around.send_down(place, number, ack);
        Ok(())
    }

    // The engine's step.

    pub(super) fn do_all(&mut self, around: &mut Around, happened: Vec<(Id, Event)>) -> Result<(), Crashed> {
        if happened.is_empty() {
            return Ok(());
        }
        let mut after = After::default();
        around.survives()?;
        self.transact(around, happened.into(), &mut after)?;
        self.perform(around, after)
    }

    /// One transaction of the engine's own. With the bug what follows from it is done before it is durable, and the process
    /// may die between the two.
    fn transact(
        &mut self,
        around: &mut Around,
        happened: Happened,
        after: &mut After,
    ) -> Result<(), Crashed> {
        let kept = around.has(Bug::SendBeforePersist).then(|| self.store.clone());
        self.drive(around, happened, after);
        if let Some(kept) = kept {
            for order in std::mem::take(&mut after.send) {
                self.send(around, order);
            }
            if let Err(crashed) = around.survives() {
                self.store = kept;
                return Err(crashed);
            }
        }
        around.survives()
    }

    /// Folds one event of an agent into all that follows from it.
    fn take(&mut self, around: &mut Around, mut row: DeploymentRow, event: &AgentEvent, at: UnixMs) -> After {
        let mut after = After::default();
        let Some(rollout) = self.store.rollout(&row.rollout).cloned() else { return after };
        row.view.fold(rollout.state.kind, event, at);
        self.store.deployments.insert(row.id.clone(), row.clone());
        self.store.answer(&row.id, event);
        if let (AgentEvent::Ended { result }, Some(digest)) = (event, row.digest) {
            match (rollout.state.kind, view::end(result)) {
                (Kind::Deploy, End::Succeeded { .. }) => {
                    self.store.became_good(&row.server, &rollout.app, digest);
                }
                (Kind::Return, End::Succeeded { .. } | End::Returned { .. }) => {
                    self.store.went_back(&row.server, &rollout.app, digest);
                }
                (Kind::Deploy | Kind::Return, _) => {}
            }
        }
        // A deployment that a retry has replaced is heard to its end, and decides nothing any more.
        if self.store.is_newest(&row) || around.has(Bug::LateDeploymentDrives) {
            let news = row.view.news(&rollout.state, event);
            let server = &row.server;
            let happened = news
                .into_iter()
                .map(|news| (row.rollout.clone(), Event::Server { server: server.clone(), news }))
                .collect();
            self.drive(around, happened, &mut after);
        } else if orders::asks(event) {
            let reason = "a retry has replaced this deployment".to_owned();
            let (order, id) = (OrderKind::Cancel { reason }, around.id());
            let order = orders::control(&rollout, &row, order, COORDINATOR.to_owned(), id, around.unix());
            self.post(around, order.clone());
            after.send.push(order);
        }
        after
    }

    /// Applies until nothing is left.
    pub(super) fn drive(&mut self, around: &mut Around, mut happened: Happened, after: &mut After) {
        while let Some((id, event)) = happened.pop_front() {
            let Some(row) = self.store.rollout(&id).cloned() else { continue };
            let cause = Step::Event(event.clone());
            let (next, commands) = engine::apply(around.bug, row.state.clone(), event, around.unix());
            around.counts.engine += 1;
            if next == row.state && commands.is_empty() {
                continue;
            }
            self.settle(around, row, next, commands, &cause, after, &mut happened);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "as the transaction that it mirrors")]
    pub(super) fn settle(
        &mut self,
        around: &mut Around,
        mut row: RolloutRow,
        mut next: Rollout,
        mut commands: Vec<Command>,
        cause: &Step,
        after: &mut After,
        happened: &mut Happened,
    ) {
        let now = around.unix();
        // One that goes on by a server's word has no place beside one that began meanwhile.
        if row.state.verdict().is_some() && !row.state.is_under_way() && next.is_under_way() {
            let because = "another rollout has begun since";
            if self.store.open_of(&row.app).iter().any(is_active)
                && let Ok((ending, more)) = engine::press(around.bug, next.clone(), Verb::Abort, because, now)
            {
                next = ending;
                commands.extend(more);
            }
        }
        let newest = self.store.terms.get(&row.app).copied().unwrap_or(0);
        if takes_over(&row.state, &next, &commands) && row.term < newest && !around.has(Bug::TermOfTheAsking)
        {
            row.term = self.store.raise_term(&row.app);
            around.oracle.term(&row.app, row.term);
        }
        let before = std::mem::replace(&mut row.state, next);
        let ends = row.is_ended() && before.verdict().is_none();
        row.ended = if !row.is_ended() {
            UnixMs(0)
        } else if ends {
            now
        } else {
            row.ended
        };
        around.say(|| {
            let states: Vec<String> = row
                .state
                .members
                .iter()
                .map(|member| format!("{}:{}", member.server, member.state.as_str()))
                .collect();
            let why = consign_coordinator::rollout::explain(&row.state, now);
            format!(
                "coordinator: {} {} [{}] {cause:?} -> {} ({}) {commands:?}; {why}",
                row.app,
                row.id.short(),
                row.term,
                row.state.milestone(),
                states.join(" ")
            )
        });
        around.fingerprint.add(&row.state);
        cover(around, &row, &before, cause);
        around.oracle.transition(&row, &before, &commands, cause, now);
        let others = self.store.open_of(&row.app).into_iter();
        let driving = others.filter(|other| other.id != row.id && !other.is_ended() && is_active(other));
        around.oracle.beside(&row, &commands, driving.map(|other| other.id).next());
        for command in commands {
            match command {
                Command::Find { server } => after.find.push_back((row.id.clone(), server)),
                Command::Probe { wave } => after.probe.push((row.id.clone(), wave)),
                Command::Order { server } => match self.order(around, &row, &server) {
                    Ok(order) => after.send.push(order),
                    Err(end) => {
                        let event = Event::Server { server, news: News::Ended(end) };
                        happened.push_back((row.id.clone(), event));
                    }
                },
                Command::Cancel { server, because } => {
                    self.control(around, &row, &server, OrderKind::Cancel { reason: because }, after);
                    after.cancelled.push((row.id.clone(), server));
                }
                Command::Confirm { server } => {
                    self.control(around, &row, &server, OrderKind::Confirm {}, after);
                }
                Command::Once { server, step, word } => {
                    self.control(around, &row, &server, OrderKind::Once { step, word }, after);
                }
                Command::Decide { server, step, action, because } => {
                    let order = OrderKind::Decide { step, action, reason: because };
                    self.control(around, &row, &server, order, after);
                }
                Command::RollBack { because } => {
                    row.rolled_back_by = self.roll_back(around, &row, &because);
                }
            }
        }
        if !before.gives_up() && row.state.gives_up() {
            let ordered = row.state.members.iter().filter(|member| member.state.is_ordered());
            after.awaited.extend(ordered.map(|member| (row.id.clone(), member.server.clone())));
        }
        let (app, id) = (row.app.clone(), row.id.clone());
        let idles = before.is_under_way() && !row.state.is_under_way();
        self.store.save(row);
        self.check_members(around, &id);
        if ends || idles {
            match self.next_to_begin(around, &app) {
                Some(next) => happened.push_back((next, Event::Begin)),
                None => after.idle = true,
            }
        }
    }

    /// Tells what servers are said to have come to now that it is durable.
    fn check_members(&self, around: &mut Around, id: &Id) {
        let Some(row) = self.store.rollout(id) else { return };
        for member in &row.state.members {
            let deployment = self.store.deployment_on(id, &member.server);
            around.oracle.member(row, member, deployment);
        }
    }

    fn order(&mut self, around: &mut Around, row: &RolloutRow, server: &ServerName) -> Result<OrderRow, End> {
        let Some(mut deployment) = self.store.deployment_on(&row.id, server).cloned() else {
            let code = "not-planned".to_owned();
            return Err(End::Refused { code, message: "the rollout has no row for it".to_owned() });
        };
        if row.state.kind == Kind::Return {
            deployment.digest = self.store.pointers(server, &row.app).before;
            self.store.deployments.insert(deployment.id.clone(), deployment.clone());
        }
        let Some(manifest) = deployment.digest else { return Err(orders::nothing_before(row)) };
        let id = around.id();
        let order = orders::work(row, &deployment, manifest, COORDINATOR.to_owned(), id, around.unix());
        self.post(around, order.clone());
        Ok(order)
    }

    fn control(
        &mut self,
        around: &mut Around,
        row: &RolloutRow,
        server: &ServerName,
        order: OrderKind,
        after: &mut After,
    ) {
        let Some(deployment) = self.store.deployment_on(&row.id, server).cloned() else { return };
        if let OrderKind::Cancel { .. } = order {
            // It takes the place of what the server was told and has not heard.
            self.store.answer_orders(&deployment.id, orders::WITHDRAWN);
        }
        let id = around.id();
        let order = orders::control(row, &deployment, order, COORDINATOR.to_owned(), id, around.unix());
        self.post(around, order.clone());
        after.send.push(order);
    }

    fn post(&mut self, around: &mut Around, row: OrderRow) {
        around.counts.orders += 1;
        self.store.orders.push(Outgoing { row, answered: false });
    }

    // What is done when the transaction is durable.

    pub(super) fn perform(&mut self, around: &mut Around, mut after: After) -> Result<(), Crashed> {
        loop {
            for (rollout, wave) in std::mem::take(&mut after.probe) {
                self.judge(around, rollout, wave);
            }
            for order in std::mem::take(&mut after.send) {
                around.survives()?;
                self.send(around, order);
            }
            for (rollout, server) in std::mem::take(&mut after.cancelled) {
                if !self.is_online(around, &server) {
                    self.later(around, CANCEL, Later::Absent { rollout, server });
                }
            }
            for (rollout, server) in std::mem::take(&mut after.awaited) {
                if !self.is_online(around, &server) {
                    self.later(around, STOPPING, Later::Absent { rollout, server });
                }
            }
            let mut found = Vec::new();
            for (rollout, server) in std::mem::take(&mut after.find) {
                match self.look_for(around, &rollout, &server) {
                    Some(news) => found.push((rollout, Event::Server { server, news })),
                    None => {
                        let patience = self.patience_with(around, &server);
                        self.later(around, patience, Later::Absent { rollout, server });
                    }
                }
            }
            if found.is_empty() {
                break;
            }
            around.survives()?;
            self.transact(around, found.into(), &mut after)?;
        }
        if after.idle { self.converge_all(around) } else { Ok(()) }
    }

    pub(super) fn converge_all(&mut self, around: &mut Around) -> Result<(), Crashed> {
        for server in around.names.clone() {
            if self.is_online(around, &server) {
                self.converge(around, &server)?;
            }
        }
        Ok(())
    }

    /// How long a server is waited for whose turn has come.
    fn patience_with(&self, around: &Around, server: &ServerName) -> Moment {
        let place = around.place(server).unwrap_or(0);
        if self.came.contains(&place) || !self.came_before.contains(&place) {
            return TURN;
        }
        TURN.max(RESTART.saturating_sub(around.now - self.began))
    }

    fn judge(&self, around: &mut Around, rollout: Id, wave: u32) {
        let check = self.store.rollout(&rollout).and_then(|row| row.state.strategy.health.clone());
        let Some(check) = check else { return };
        let health = match around.random.below(10) {
            0 if !around.quiet => Health::Fail,
            1 if !around.quiet => Health::Inconclusive,
            _ => Health::Pass,
        };
        let delay = around.random.span(10, check.within_ms.max(11));
        let because = format!("{health:?}");
        self.later(around, delay, Later::Judged { rollout, wave, health, because });
    }

    fn look_for(&self, around: &Around, rollout: &Id, server: &ServerName) -> Option<News> {
        if let Some(because) = self.store.disabled.get(server) {
            return Some(News::Disabled { because: because.clone() });
        }
        if let Some(row) = self.store.rollout(rollout).filter(|row| row.state.kind == Kind::Return) {
            let pointers = self.store.pointers(server, &row.app);
            if pointers.good != Some(row.digest) {
                return Some(match self.left_between(row, server) {
                    Some(because) => News::Impossible(End::Stopped { because }),
                    None => News::NothingToDo,
                });
            }
            if pointers.before.is_none() {
                return Some(News::Impossible(orders::nothing_before(row)));
            }
        }
        let open = around.place(server).and_then(|place| self.sessions.get(&place))?;
        if open.offset_ms.unsigned_abs() > CLOCK_SKEW_MS {
            return Some(News::ClockSkew { message: format!("its clock is {} ms off", open.offset_ms) });
        }
        Some(News::Ready)
    }

    /// Why a server may run what is left although it was never good there.
    fn left_between(&self, back: &RolloutRow, server: &ServerName) -> Option<String> {
        let brought =
            self.store.rollouts.iter().rev().filter(|row| {
                row.app == back.app && row.state.kind == Kind::Deploy && row.digest == back.digest
            });
        let end = brought.filter_map(|row| row.state.member(server)?.state.end()).next()?;
        matches!(end, End::Stopped { .. } | End::Unknown { .. }).then(|| format!("never good there ({end})"))
    }

    fn send(&self, around: &mut Around, order: OrderRow) {
        let statements = order.manifest.and_then(|digest| around.catalog.by_digest(&digest));
        let statements = statements.map(|artifact| artifact.statements.clone()).unwrap_or_default();
        let Some(place) = around.place(&order.server) else { return };
        if let Some(open) = self.sessions.get(&place) {
            around.send_down(place, open.number, Down::Order { document: order.document, statements });
        }
    }

    // Succession.

    pub(super) fn next_to_begin(&self, around: &Around, app: &App) -> Option<Id> {
        let mut rows = self.store.open_of(app);
        if around.has(Bug::TwoActive) {
            rows.retain(|row| !is_active(row));
        }
        let hold = self.store.holds.get(app).filter(|_| !around.has(Bug::HoldIgnored));
        next_of(&rows, hold, around.unix()).map(|row| row.id.clone())
    }

    fn roll_back(&mut self, around: &mut Around, source: &RolloutRow, because: &str) -> Option<Id> {
        let candidates = source
            .state
            .members
            .iter()
            .filter(|member| {
                member.state.end().is_some_and(consign_coordinator::rollout::changed_and_not_back)
            })
            .map(|member| Candidate {
                server: member.server.clone(),
                presence: Presence::Enabled,
                place: Wave::Fleet,
                group: String::new(),
            });
        let back = Request::back(Vec::new(), source.state.strategy.min_healthy, candidates.collect());
        let state = consign_coordinator::rollout::plan(back).ok()?;
        let reason = format!("rollout {} stopped: {because}", source.id.short());
        let row = self.way_back(around, source, state, &reason, "");
        let id = row.id.clone();
        self.add(around, row);
        Some(id)
    }

    /// The row of a rollout of returns, which holds the environment.
    pub(super) fn way_back(
        &mut self,
        around: &mut Around,
        source: &RolloutRow,
        state: Rollout,
        reason: &str,
        by: &str,
    ) -> RolloutRow {
        let now = around.unix();
        let term = self.store.raise_term(&source.app);
        around.oracle.term(&source.app, term);
        let hold = Hold {
            app: source.app.clone(),
            environment: environment(),
            because: format!("rolled back from {}: {reason}", source.version),
            who: by.to_owned(),
            at: now,
        };
        around.oracle.held(&source.app, now);
        self.store.holds.insert(source.app.clone(), hold);
        RolloutRow {
            id: around.id(),
            app: source.app.clone(),
            environment: environment(),
            version: source.version.clone(),
            digest: source.digest,
            waves: Vec::new(),
            again: Again::LeaveAlone,
            term,
            started_by: by.to_owned(),
            reason: reason.to_owned(),
            started: now,
            asked: now,
            ended: UnixMs(0),
            state,
            selector: String::new(),
            rolled_back_by: None,
            pinned: None,
            changed: 0,
        }
    }

    pub(super) fn add(&mut self, around: &mut Around, row: RolloutRow) {
        around.counts.rollouts += 1;
        for member in &row.state.members {
            self.add_deployment(around, &row, &member.server);
        }
        self.store.rollouts.push(row);
    }

    pub(super) fn add_deployment(&mut self, around: &mut Around, row: &RolloutRow, server: &ServerName) {
        let before = self.store.deployment_on(&row.id, server).map(|before| before.attempt);
        let deployment = DeploymentRow {
            id: around.id(),
            rollout: row.id.clone(),
            server: server.clone(),
            attempt: before.map_or(1, |before| before + 1),
            digest: match row.state.kind {
                Kind::Deploy => Some(row.digest),
                Kind::Return => None,
            },
            sequence: 0,
            view: View::default(),
            changed: 0,
        };
        self.store.add_deployment(deployment);
    }

    /// A server connected: it gets what its environment runs, if it owes that, or is new there.
    pub(super) fn converge(&mut self, around: &mut Around, server: &ServerName) -> Result<(), Crashed> {
        if self.store.disabled.contains_key(server) {
            return Ok(());
        }
        let labels = around.labels(server);
        let newest_first: Vec<RolloutRow> = self.store.rollouts.iter().rev().cloned().collect();
        for wanted in converges_to(&newest_first, server, &labels) {
            let Some(row) = self.store.rollout(&wanted).filter(|row| owes(row, server, &labels)).cloned()
            else {
                continue;
            };
            let open = self.store.open_of(&row.app);
            let busy = open.iter().any(|other| other.id != row.id || !other.is_ended());
            if busy || self.store.holds.contains_key(&row.app) {
                continue;
            }
            around.survives()?;
            if row.state.member(server).is_none() {
                self.add_deployment(around, &row, server);
            }
            let group = row.state.strategy.group.as_ref();
            let group = group.and_then(|group| labels.get(&group.label)).cloned().unwrap_or_default();
            let event = Event::Converge { server: server.clone(), group };
            let mut after = After::default();
            self.drive(around, [(row.id, event)].into(), &mut after);
            around.survives()?;
            self.perform(around, after)?;
        }
        Ok(())
    }

    /// A person's act, as one transaction: refused in the middle, nothing of it is kept.
    pub(super) fn acts(
        &mut self,
        around: &mut Around,
        act: impl FnOnce(&mut Self, &mut Around, &mut After) -> Result<(), String>,
    ) {
        let kept = self.store.clone();
        self.acts_at_once(around, act, |this| this.store = kept);
    }

    /// The same, of an act that is refused before it has changed anything.
    pub(super) fn acts_at_once(
        &mut self,
        around: &mut Around,
        act: impl FnOnce(&mut Self, &mut Around, &mut After) -> Result<(), String>,
        undo: impl FnOnce(&mut Self),
    ) {
        let mut after = After::default();
        let done = match act(self, around, &mut after) {
            Ok(()) => around.survives().and_then(|()| self.perform(around, after)),
            Err(why) => {
                around.say(|| format!("operator: refused: {why}"));
                around.counts.refused_verbs += 1;
                undo(self);
                Ok(())
            }
        };
        self.settle_down(around, done);
    }
}

/// What was reached, for the table of what was covered.
fn cover(around: &mut Around, row: &RolloutRow, before: &Rollout, cause: &Step) {
    if let Step::Verb(verb) = cause {
        around.covers(format!("verb: {} of {}", verb.as_str(), before.as_str()));
    }
    for member in &row.state.members {
        let end = member.state.end();
        if let Some(end) =
            end.filter(|_| before.member(&member.server).is_none_or(|old| old.state.end().is_none()))
        {
            around.covers(format!("server: {}", end.as_str()));
        }
    }
    if before.milestone() != row.state.milestone() {
        let milestone: String = row.state.milestone().chars().filter(|c| !c.is_ascii_digit()).collect();
        around.covers(format!("{:?}: {milestone}", row.state.kind).to_lowercase());
    }
    for once in row.state.once.values() {
        if before.once.values().all(|old| old != once) {
            let state: String =
                format!("{:?}", once.state).chars().take_while(|c| c.is_alphanumeric()).collect();
            around.covers(format!("once: {}", state.to_lowercase()));
        }
    }
}
