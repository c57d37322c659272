//! Feeds the engine, and does what it says.
//!
//! There is nothing in memory that matters: every event is one writing transaction that reads the rollout, applies the
//! event, and writes the new state, the orders and the feed's rows. What is done after the commit (sending, looking for
//! a server, waking followers) may be lost at any instant; [`Controller::resume`] and the agents' own reconnecting bring
//! it back. Transactions queue at the store's one writer, which is all the ordering that is needed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use consign_common::{
    deployment::Event as AgentEvent,
    json,
    limits::EVENT_BYTES,
    name::{Id, ServerName},
    time::{Clock, UnixMs},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    after::After,
    feed::Feed,
    rows::{HistoryRow, OrderTag},
    store,
};
use crate::{
    fleet::{Registry, RegistryError, Sessions},
    repository::{Repository, RepositoryError},
    rollout::{End, Event, News, ServerState},
    store::{Store, StoreError},
    trust_roots::TrustRoots,
};

/// How long the coordinator waits for servers that are not there.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a server whose turn has come.
    pub turn: Duration,
    /// The same after this process began, for a server that has not come back to it yet: longer than agents wait between
    /// two tries, so that nobody is taken for absent because we were.
    pub restart: Duration,
    /// For a server that was told to cancel, before it is `unknown`: longer than an agent's restart.
    pub cancel: Duration,
    /// For a server that is still to end what a rollout began that has stopped: the way back waits for it.
    pub stopping: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(10),
            restart: Duration::from_secs(45),
            cancel: Duration::from_secs(60),
            stopping: Duration::from_secs(300),
        }
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
    /// Where root installed the programs that say how a wave is.
    pub health_programs: PathBuf,
}

#[derive(Debug)]
pub struct Controller {
    pub(super) store: Arc<Store>,
    pub(super) registry: Registry,
    pub(super) repository: Arc<Repository>,
    pub(super) trust_roots: Arc<TrustRoots>,
    /// Who we are to agents: the id in our certificate.
    pub(super) coordinator: String,
    pub(super) sessions: Arc<Sessions>,
    pub(super) feed: Feed,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) patience: Patience,
    pub(super) began: Instant,
    pub(super) health_programs: PathBuf,
    /// A rollout may want to be woken at another time.
    pub(super) alarm: Notify,
    /// A candidate may have waited for what has happened.
    pub(super) news: Notify,
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
    #[error("event {sequence} of {deployment} came after its end")]
    AfterEnd { deployment: Id, sequence: u64 },
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
        let Surroundings {
            coordinator,
            store,
            repository,
            trust_roots,
            sessions,
            feed,
            clock,
            health_programs,
        } = surroundings;
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
            began: Instant::now(),
            health_programs,
            alarm: Notify::new(),
            news: Notify::new(),
        })
    }

    /// Takes up what a former process left: call once, before the first agent can connect.
    pub async fn resume(self: &Arc<Self>) -> Result<(), ControllerError> {
        let mut after = After::default();
        for row in store::open(self.store.read()).await? {
            for command in row.state.unfinished() {
                after.again(&row.id, command);
            }
            if row.state.gives_up() {
                let ordered = row.state.members.iter().filter(|member| member.state.is_ordered());
                let waited = ordered.map(|member| (row.id.clone(), member.server.clone()));
                let list = if row.state.is_aborting() { &mut after.cancelled } else { &mut after.awaited };
                list.extend(waited);
            }
        }
        self.perform(after).await
    }

    /// An agent's session began: it is told what it has not answered, and servers whose turn it is are served.
    pub async fn connected(self: &Arc<Self>, server: &ServerName) -> Result<(), ControllerError> {
        let mut after =
            After { send: store::open_orders(self.store.read(), server).await?, ..After::default() };
        for row in store::open(self.store.read()).await? {
            let state = row.state.member(server).map(|member| &member.state);
            if let Some(ServerState::Due { .. }) = state {
                after.find.push_back((row.id, server.clone()));
            }
        }
        self.perform(after).await?;
        self.converge(server).await
    }

    /// An agent's session ended. What it executes goes on without us; only who waits for its end is told.
    pub async fn disconnected(self: &Arc<Self>, server: &ServerName) -> Result<(), ControllerError> {
        for row in store::open(self.store.read()).await? {
            let ordered = row.state.member(server).is_some_and(|member| member.state.is_ordered());
            if ordered && row.state.gives_up() {
                let aborting = row.state.is_aborting();
                let patience = if aborting { self.patience.cancel } else { self.patience.stopping };
                self.expect_back(row.id, server.clone(), patience);
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
            // What has ended has ended: no second outcome takes the place of the first.
            if store::has_ended(&mut write, deployment).await? {
                return Err(NotTaken::AfterEnd { deployment: deployment.clone(), sequence: *sequence });
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
        let newest = store::deployment_on(&mut *write, &row.rollout, server).await?;
        let replaced = newest.is_some_and(|newest| newest.id != row.id);
        let mut after = After::default();
        match order_row.kind {
            // It began meanwhile, or a retry has replaced it: what is refused now decides nothing.
            OrderTag::Deploy | OrderTag::Return if replaced || row.sequence > 0 => {
                store::answer_order(&mut write, order, now).await?;
            }
            OrderTag::Deploy | OrderTag::Return => {
                store::answer_order(&mut write, order, now).await?;
                let end = End::Refused { code: cut(code, 64), message: cut(message, 2000) };
                let event = Event::Server { server: server.clone(), news: News::Ended(end) };
                self.drive(&mut write, [(row.rollout.clone(), event)].into(), &mut after).await?;
            }
            // It has ended meanwhile, or went on: what it says of that decides, not this.
            OrderTag::Confirm | OrderTag::Once => store::answer_order(&mut write, order, now).await?,
            OrderTag::Decide => {
                store::answer_order(&mut write, order, now).await?;
                let because = format!("{server} did not take it: {}: {}", cut(code, 64), cut(message, 500));
                let refused = HistoryRow { at: now, who: String::new(), what: "decide".to_owned(), because };
                store::add_history(&mut write, &row.rollout, &refused).await?;
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
}

pub(super) fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
