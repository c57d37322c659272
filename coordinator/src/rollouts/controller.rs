//! Feeds the engine, and does what it says.
//!
//! There is nothing in memory that matters: every event is one writing transaction that reads the rollout, applies the
//! event, and writes the new state, the orders and the feed's rows. What is done after the commit (sending, looking for
//! a server, waking followers) may be lost at any instant; [`Controller::resume`] and the agents' own reconnecting bring
//! it back. Transactions queue at the store's one writer, which is all the ordering that is needed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use consign_common::{
    deployment::Event as AgentEvent,
    json,
    limits::EVENT_BYTES,
    name::{Id, ServerName},
    time::{Clock, UnixMs},
};

use super::{
    after::After,
    feed::Feed,
    orders,
    rows::{Changed, DeploymentRow, OrderRow, OrderTag, RolloutRow},
    store::{self, Write},
    view,
};
use crate::{
    fleet::{Registry, RegistryError, Sessions},
    repository::{Repository, RepositoryError},
    rollout::{self, Command, End, Event, Kind, News, Phase, ServerState},
    store::{Store, StoreError},
    trust_roots::TrustRoots,
};

/// How long the coordinator waits for servers that are not there.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a server whose turn has come.
    pub turn: Duration,
    /// For a server that was told to cancel, before it is `unknown`: longer than an agent's restart.
    pub cancel: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { turn: Duration::from_secs(10), cancel: Duration::from_secs(60) }
    }
}

/// What a controller works with; `serve` makes all of it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub coordinator: String,
    pub store: Arc<Store>,
    pub repository: Arc<Repository>,
    pub trust_roots: Arc<TrustRoots>,
    pub sessions: Arc<Sessions>,
    pub feed: Feed,
    pub clock: Arc<dyn Clock>,
}

#[derive(Debug)]
pub struct Controller {
    pub(super) store: Arc<Store>,
    pub(super) registry: Registry,
    pub(super) repository: Arc<Repository>,
    pub(super) trust_roots: Arc<TrustRoots>,
    /// Who we are to agents: the id in our certificate.
    coordinator: String,
    pub(super) sessions: Arc<Sessions>,
    pub(super) feed: Feed,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) patience: Patience,
}

#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("no randomness for a new id")]
    Random,
}

impl From<sqlx::Error> for ControllerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// An event as an agent sent it.
#[derive(Clone, Debug)]
pub struct Reported {
    pub deployment: Id,
    pub sequence: u64,
    pub at: UnixMs,
    pub body: Vec<u8>,
    /// Of the agent's journal when it was sent.
    pub journal_position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Durable here up to this sequence.
    Up(u64),
    /// Nothing to acknowledge: it was news of the moment.
    Passing,
}

/// Why an agent's event or order answer is not taken. The session goes on.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("there is no deployment {deployment} on this server")]
    NotYours { deployment: Id },
    #[error("event {sequence} of {deployment} came when {expected} was expected")]
    Gap { deployment: Id, sequence: u64, expected: u64 },
    #[error("event {sequence} of {deployment} cannot be read: {why}")]
    Unreadable { deployment: Id, sequence: u64, why: String },
    #[error(transparent)]
    Failed(#[from] ControllerError),
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<sqlx::Error> for NotTaken {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Controller {
    pub fn new(surroundings: Surroundings, patience: Patience) -> Arc<Self> {
        let Surroundings { coordinator, store, repository, trust_roots, sessions, feed, clock } =
            surroundings;
        let registry = Registry::new(Arc::clone(&store));
        Arc::new(Self {
            store,
            registry,
            repository,
            trust_roots,
            coordinator,
            sessions,
            feed,
            clock,
            patience,
        })
    }

    /// Takes up what a former process left: call once, before the first agent can connect.
    pub async fn resume(self: &Arc<Self>) -> Result<(), ControllerError> {
        let mut after = After::default();
        for row in store::unended(self.store.read()).await? {
            for member in &row.state.members {
                let place = (row.id.clone(), member.server.clone());
                match (&row.state.phase, &member.state) {
                    (_, ServerState::Due) => after.find.push_back(place),
                    (
                        Phase::Aborting { .. },
                        ServerState::Ordered | ServerState::Running | ServerState::Returning,
                    ) => after.cancelled.push(place),
                    (
                        Phase::Queued | Phase::Running | Phase::Stopping | Phase::Ended { .. },
                        ServerState::Ordered | ServerState::Running | ServerState::Returning,
                    )
                    | (_, ServerState::Pending | ServerState::Ended { .. }) => {}
                }
            }
        }
        self.perform(after).await
    }

    /// An agent's session began: it is told what it has not answered, and servers whose turn it is are served.
    pub async fn connected(self: &Arc<Self>, server: &ServerName) -> Result<(), ControllerError> {
        let mut after =
            After { send: store::open_orders(self.store.read(), server).await?, ..After::default() };
        for row in store::unended(self.store.read()).await? {
            if row.state.member(server).is_some_and(|member| member.state == ServerState::Due) {
                after.find.push_back((row.id, server.clone()));
            }
        }
        self.perform(after).await
    }

    /// An agent's session ended. What it executes goes on without us; only who waits for a cancelled server is told.
    pub async fn disconnected(self: &Arc<Self>, server: &ServerName) -> Result<(), ControllerError> {
        for row in store::unended(self.store.read()).await? {
            let ordered = row.state.member(server).is_some_and(|member| member.state.is_ordered());
            if ordered && matches!(row.state.phase, Phase::Aborting { .. }) {
                self.expect_back(row.id, server.clone(), self.patience.cancel);
            }
        }
        Ok(())
    }

    /// An agent told of a deployment. Durable when this returns.
    pub async fn event(
        self: &Arc<Self>,
        server: &ServerName,
        reported: &Reported,
    ) -> Result<Heard, NotTaken> {
        let Reported { deployment, sequence, at, body, journal_position } = reported;
        let mut write = self.store.write().await?;
        let row = store::deployment(&mut *write, deployment).await?.filter(|row| row.server == *server);
        let Some(mut row) = row else {
            return Err(NotTaken::NotYours { deployment: deployment.clone() });
        };
        let event: AgentEvent =
            json::from_slice(body, EVENT_BYTES).map_err(|error| NotTaken::Unreadable {
                deployment: deployment.clone(),
                sequence: *sequence,
                why: error.to_string(),
            })?;
        let passing = matches!(event, AgentEvent::Staging { .. });
        if !passing {
            if *sequence <= row.sequence {
                return Ok(Heard::Up(row.sequence));
            }
            if *sequence != row.sequence + 1 {
                return Err(NotTaken::Gap {
                    deployment: deployment.clone(),
                    sequence: *sequence,
                    expected: row.sequence + 1,
                });
            }
            store::add_event(&mut write, deployment, *sequence, *at, body).await?;
            row.sequence = *sequence;
            store::note_position(&mut write, server, *journal_position).await?;
        }
        let after = self.take(&mut write, row, &event, *at).await?;
        write.commit().await?;
        self.perform(after).await?;
        Ok(if passing { Heard::Passing } else { Heard::Up(*sequence) })
    }

    /// An agent refused an order.
    pub async fn refused(
        self: &Arc<Self>,
        server: &ServerName,
        order: &Id,
        code: &str,
        message: &str,
    ) -> Result<(), NotTaken> {
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let order_row = store::order(&mut *write, order).await?.filter(|row| row.server == *server);
        let Some(order_row) = order_row else {
            return Err(NotTaken::NotYours { deployment: order.clone() });
        };
        let Some(row) = store::deployment(&mut *write, &order_row.deployment).await? else {
            return Err(NotTaken::NotYours { deployment: order_row.deployment });
        };
        let mut after = After::default();
        match order_row.kind {
            OrderTag::Deploy | OrderTag::Return => {
                store::answer_order(&mut write, order, now).await?;
                let end = End::Refused { code: cut(code, 64), message: cut(message, 2000) };
                let event = Event::Server { server: server.clone(), news: News::Ended(end) };
                self.drive(&mut write, &row.rollout, event, &mut after).await?;
            }
            // Most likely it has ended, and its end is on its way. If not, the agent has lost it; the order stays open
            // meanwhile, so that a restart on either side asks again.
            OrderTag::Cancel => {
                let because = format!("the agent could not cancel it: {}", cut(message, 2000));
                self.expect_end(row.rollout, server.clone(), order.clone(), because);
            }
        }
        write.commit().await?;
        self.perform(after).await?;
        Ok(())
    }

    /// Something happened to a rollout.
    pub(super) async fn happened(
        self: &Arc<Self>,
        happened: Vec<(Id, Event)>,
    ) -> Result<After, ControllerError> {
        let mut after = After::default();
        let mut write = self.store.write().await?;
        for (rollout, event) in happened {
            self.drive(&mut write, &rollout, event, &mut after).await?;
        }
        write.commit().await?;
        Ok(after)
    }

    /// Folds one event of an agent into all that follows from it.
    async fn take(
        self: &Arc<Self>,
        write: &mut Write,
        mut row: DeploymentRow,
        event: &AgentEvent,
        at: UnixMs,
    ) -> Result<After, ControllerError> {
        let now = self.clock.now();
        let mut after = After::default();
        let Some(rollout) = store::rollout(&mut **write, &row.rollout).await? else {
            return Ok(after);
        };
        row.view.fold(rollout.state.kind, event, at);
        store::save_deployment(write, &row).await?;
        store::add_change(write, &row.rollout, now, &Changed::Deployment(row.id.clone())).await?;
        let answered: &[OrderTag] = match event {
            AgentEvent::Cancelling { .. } | AgentEvent::Ended { .. } => {
                &[OrderTag::Deploy, OrderTag::Return, OrderTag::Cancel]
            }
            AgentEvent::Accepted { .. }
            | AgentEvent::Staging { .. }
            | AgentEvent::Staged { .. }
            | AgentEvent::Skipped { .. }
            | AgentEvent::Started { .. }
            | AgentEvent::Spawned { .. }
            | AgentEvent::Finished { .. }
            | AgentEvent::Returning { .. }
            | AgentEvent::Awaiting { .. }
            | AgentEvent::Answered { .. }
            | AgentEvent::Undecided { .. }
            | AgentEvent::Decided { .. }
            | AgentEvent::Confirming { .. }
            | AgentEvent::Confirmed { .. }
            | AgentEvent::Unconfirmed { .. } => &[OrderTag::Deploy, OrderTag::Return],
        };
        store::answer_orders(write, &row.id, answered, now).await?;
        let news = view::news(event);
        if let (News::Ended(end), Some(digest)) = (&news, &row.digest) {
            match (rollout.state.kind, end) {
                (Kind::Deploy, End::Succeeded { .. }) => {
                    store::became_good(write, &row.server, &rollout.app, digest, &rollout.version).await?;
                }
                (Kind::Return, End::Succeeded { .. } | End::Returned { .. }) => {
                    store::went_back(write, &row.server, &rollout.app, digest).await?;
                }
                (Kind::Deploy | Kind::Return, _) => {}
            }
        }
        let event = Event::Server { server: row.server, news };
        self.drive(write, &row.rollout, event, &mut after).await?;
        Ok(after)
    }

    /// The engine's step: reads, applies, writes. A rollout that ends begins the one that waited for it.
    pub(super) async fn drive(
        &self,
        write: &mut Write,
        rollout: &Id,
        event: Event,
        after: &mut After,
    ) -> Result<(), ControllerError> {
        let now = self.clock.now();
        let mut happened = VecDeque::from([(rollout.clone(), event)]);
        while let Some((id, event)) = happened.pop_front() {
            let Some(mut row) = store::rollout(&mut **write, &id).await? else { continue };
            let (next, commands) = rollout::apply(row.state.clone(), event);
            if next == row.state && commands.is_empty() {
                continue;
            }
            let before = std::mem::replace(&mut row.state, next);
            if row.is_ended() {
                row.ended = now;
            }
            store::save_rollout(write, &row).await?;
            self.announce(write, &row, &before, now).await?;
            for command in commands {
                match command {
                    Command::Find { server } => after.find.push_back((id.clone(), server)),
                    Command::Order { server } => match self.order(write, &row, &server, now).await? {
                        Ok(order) => after.send.push(order),
                        Err(end) => {
                            happened.push_back((id.clone(), Event::Server { server, news: News::Ended(end) }))
                        }
                    },
                    Command::Cancel { server, because } => {
                        if let Some(order) = self.cancel(write, &row, &server, because, now).await? {
                            after.send.push(order);
                        }
                        after.cancelled.push((id.clone(), server));
                    }
                }
            }
            if row.is_ended() && before.verdict().is_none() {
                tracing::info!(rollout = %id, app = %row.app, environment = %row.environment,
                    state = row.state.verdict().map_or("", |verdict| verdict.state.as_str()), "rollout ended");
                for waiting in store::unended(&mut **write).await? {
                    if waiting.app == row.app && waiting.environment == row.environment {
                        happened.push_back((waiting.id, Event::Begin));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells the feed which servers' lines, and whether the rollout's own, have changed.
    async fn announce(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        before: &rollout::Rollout,
        now: UnixMs,
    ) -> Result<(), ControllerError> {
        for (old, new) in before.members.iter().zip(&row.state.members) {
            if old.state != new.state
                && let Some(deployment) = store::deployment_on(&mut **write, &row.id, &new.server).await?
            {
                store::add_change(write, &row.id, now, &Changed::Deployment(deployment.id)).await?;
            }
        }
        if before.phase != row.state.phase {
            store::add_change(write, &row.id, now, &Changed::Rollout).await?;
        }
        Ok(())
    }

    async fn order(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        server: &ServerName,
        now: UnixMs,
    ) -> Result<Result<OrderRow, End>, ControllerError> {
        let Some(mut deployment) = store::deployment_on(&mut **write, &row.id, server).await? else {
            let code = "not-planned".to_owned();
            return Ok(Err(End::Refused { code, message: "the rollout has no row for it".to_owned() }));
        };
        if row.state.kind == Kind::Return {
            deployment.digest = store::pointers(&mut **write, server, &row.app).await?.before;
            store::save_deployment(write, &deployment).await?;
        }
        let Some(manifest) = deployment.digest else {
            return Ok(Err(nothing_before(row)));
        };
        let coordinator = self.coordinator.clone();
        let order = orders::work(row, &deployment, manifest, coordinator, now)?;
        store::add_order(write, &order, now).await?;
        Ok(Ok(order))
    }

    async fn cancel(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        server: &ServerName,
        because: String,
        now: UnixMs,
    ) -> Result<Option<OrderRow>, ControllerError> {
        let Some(deployment) = store::deployment_on(&mut **write, &row.id, server).await? else {
            return Ok(None);
        };
        let coordinator = self.coordinator.clone();
        let order = orders::cancel(row, &deployment, because, coordinator, now)?;
        store::add_order(write, &order, now).await?;
        Ok(Some(order))
    }
}

pub(super) fn nothing_before(row: &RolloutRow) -> End {
    End::Refused {
        code: "nothing-to-return-to".to_owned(),
        message: format!("there is no artifact of {} before {} on this server", row.app, row.version),
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
