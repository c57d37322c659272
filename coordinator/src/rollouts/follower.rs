//! The task behind one follower: reads the changes after its cursor, and delivers what they say.
//!
//! Events and logs travel apart, so that a step is often known to have ended before its last lines are here. A person
//! reads them in the order in which they happened: with output, a server's state is held back until every byte that it
//! speaks of has been delivered, and the rollout's own until those of its servers were. Output that does not come holds
//! nothing back for longer than [`LAG`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use consign_common::{deployment::Attempt, name::Id, time::UnixMs};
use tokio::{sync::mpsc, time::Instant};

use super::{
    controller::Controller,
    follow::{FollowError, Followed, Output, Update},
    output::{Rest, Stop, part, woken},
    rows::{Change, Changed, DeploymentRow},
    show::Shown,
    store,
};

/// Changes read at once.
const CHANGES: u32 = 256;
/// How long a state waits for its output after the last of that came.
const LAG: Duration = Duration::from_secs(2);

pub(super) struct Follower {
    controller: Arc<Controller>,
    id: Id,
    output: Output,
    sender: mpsc::Sender<Result<Followed, FollowError>>,
    /// All before and this has been delivered, or is held.
    cursor: u64,
    /// Where the delivered part of each log ends.
    delivered: HashMap<(Id, Attempt), u64>,
    held: BTreeMap<Id, Held>,
    /// Since when the rollout's own state waits for its servers'.
    held_rollout: Option<UnixMs>,
}

/// A server's state that waits for its output.
struct Held {
    at: UnixMs,
    until: Instant,
}

impl Follower {
    pub(super) fn new(
        controller: Arc<Controller>,
        id: Id,
        cursor: u64,
        output: Output,
        sender: mpsc::Sender<Result<Followed, FollowError>>,
    ) -> Self {
        let (delivered, held) = (HashMap::new(), BTreeMap::new());
        Self { controller, id, output, sender, cursor, delivered, held, held_rollout: None }
    }

    /// To the end of the rollout, or of the reader; why it ended otherwise is the reader's last item.
    pub(super) async fn run(mut self, shown: Shown) {
        if let Err(Stop::Failed(error)) = self.deliver_all(shown).await {
            drop(self.sender.send(Err(error)).await);
        }
    }

    async fn deliver_all(&mut self, shown: Shown) -> Result<(), Stop> {
        let mut feed = self.controller.feed.subscribe();
        self.send(self.controller.clock.now(), Update::Rollout(Box::new(shown))).await?;
        if self.output == Output::With {
            let ends = store::log_ends(self.controller.store.read(), &self.id, self.cursor).await?;
            self.delivered.extend(ends);
        }
        let mut rest = Rest::default();
        loop {
            feed.mark_unchanged();
            // Asked before the changes are read: what ends it is among them then.
            let ended = self.controller.show_exactly(&self.id).await?.row.is_ended();
            let changes =
                store::changes(self.controller.store.read(), &self.id, self.cursor, CHANGES).await?;
            if !changes.is_empty() {
                for change in changes {
                    self.cursor = change.cursor;
                    self.deliver(change).await?;
                }
                continue;
            }
            let over = ended && rest.is_over(&self.controller, &self.id, self.output).await?;
            self.release(if over { Release::All } else { Release::Due }).await?;
            if over {
                return Ok(());
            }
            let due = self.held.values().map(|held| held.until).min();
            let due = due.map(|until| until.saturating_duration_since(Instant::now()));
            let patience = due.into_iter().chain(ended.then(Rest::patience)).min();
            woken(&mut feed, &self.sender, patience).await?;
        }
    }

    async fn deliver(&mut self, change: Change) -> Result<(), Stop> {
        match change.what {
            Changed::Rollout => self.deliver_rollout(change.at, change.cursor).await,
            Changed::Deployment(id) => self.deliver_deployment(change.at, &id, change.cursor).await,
            Changed::Log { deployment, attempt, start, length } => match self.output {
                Output::Without => Ok(()),
                Output::With => {
                    self.deliver_log(change.at, &deployment, attempt, start..start.saturating_add(length))
                        .await
                }
            },
        }
    }

    async fn deliver_log(
        &mut self,
        at: UnixMs,
        deployment: &Id,
        attempt: Attempt,
        bytes: std::ops::Range<u64>,
    ) -> Result<(), Stop> {
        let records = self.controller.records(deployment, attempt, bytes.start, bytes.end).await?;
        let row = store::deployment(self.controller.store.read(), deployment).await?;
        let Some(row) = row.filter(|_| !records.is_empty()) else { return Ok(()) };
        self.send(at, Update::Log(part(&row, attempt, bytes.start, records))).await?;
        self.delivered.insert((deployment.clone(), attempt), bytes.end);
        if let Some(held) = self.held.get_mut(deployment) {
            held.until = Instant::now() + LAG;
            if !self.is_owed_output(&row).await? {
                return self.release_one(deployment).await;
            }
        }
        Ok(())
    }

    /// Whether the state speaks of the end of an attempt whose output has not all been delivered. What lies beyond a
    /// log's quota is not here and will not be.
    async fn is_owed_output(&self, row: &DeploymentRow) -> Result<bool, Stop> {
        let delivered = |attempt| self.delivered.get(&(row.id.clone(), attempt)).copied().unwrap_or_default();
        let behind: Vec<(Attempt, u64)> = row
            .view
            .attempts()
            .filter_map(|(attempt, announced)| Some((attempt, announced?)))
            .filter(|(attempt, announced)| delivered(*attempt) < *announced)
            .collect();
        if self.output == Output::Without || behind.is_empty() {
            return Ok(false);
        }
        let here: HashMap<_, _> =
            store::logs(self.controller.store.read(), &row.id).await?.into_iter().collect();
        Ok(behind.into_iter().any(|(attempt, announced)| {
            let here = here.get(&attempt).copied().unwrap_or_default();
            here.length < announced || delivered(attempt) < announced.min(here.kept)
        }))
    }

    fn hold(&mut self, id: Id, at: UnixMs) {
        self.held.entry(id).or_insert(Held { at, until: Instant::now() + LAG });
    }

    /// Delivers what was held, if its output is here now or has been waited for long enough.
    async fn release(&mut self, release: Release) -> Result<(), Stop> {
        let held: Vec<(Id, Instant)> = self.held.iter().map(|(id, held)| (id.clone(), held.until)).collect();
        for (id, until) in held {
            let due = match release {
                Release::All => true,
                Release::Due if Instant::now() >= until => true,
                Release::Due => match store::deployment(self.controller.store.read(), &id).await? {
                    Some(row) => !self.is_owed_output(&row).await?,
                    None => true,
                },
            };
            if due {
                self.release_one(&id).await?;
            }
        }
        Ok(())
    }

    async fn release_one(&mut self, id: &Id) -> Result<(), Stop> {
        if let Some(held) = self.held.remove(id) {
            let shown = self.controller.show_exactly(&self.id).await?;
            self.send(held.at, Update::Deployment(Box::new(shown), id.clone())).await?;
        }
        self.release_rollout().await
    }

    async fn release_rollout(&mut self) -> Result<(), Stop> {
        if let Some(at) = self.held_rollout.take_if(|_| self.held.is_empty()) {
            let shown = self.controller.show_exactly(&self.id).await?;
            self.send(at, Update::Rollout(Box::new(shown))).await?;
        }
        Ok(())
    }

    /// What is looked at is what is delivered: the state may be a newer one than that of the change.
    async fn deliver_deployment(&mut self, at: UnixMs, id: &Id, cursor: u64) -> Result<(), Stop> {
        // A newer row comes later and carries the newest state; this one is skipped.
        let row = store::deployment(self.controller.store.read(), id).await?;
        if row.is_none_or(|row| row.changed != cursor) {
            return Ok(());
        }
        let shown = self.controller.show_exactly(&self.id).await?;
        let Some(row) = shown.deployments.iter().find(|row| row.id == *id) else { return Ok(()) };
        if self.is_owed_output(row).await? {
            self.hold(id.clone(), at);
            return Ok(());
        }
        self.held.remove(id);
        self.send(at, Update::Deployment(Box::new(shown), id.clone())).await?;
        self.release_rollout().await
    }

    /// Its servers' states are told with it, and may be ahead of what was told of themselves.
    async fn deliver_rollout(&mut self, at: UnixMs, cursor: u64) -> Result<(), Stop> {
        let shown = self.controller.show_exactly(&self.id).await?;
        for row in &shown.deployments {
            if self.is_owed_output(row).await? {
                self.hold(row.id.clone(), at);
            }
        }
        if !self.held.is_empty() {
            self.held_rollout = Some(at);
        } else if shown.row.changed == cursor {
            self.send(at, Update::Rollout(Box::new(shown))).await?;
        }
        Ok(())
    }

    async fn send(&self, at: UnixMs, update: Update) -> Result<(), Stop> {
        let item = Followed { cursor: self.cursor, at, update };
        self.sender.send(Ok(item)).await.map_err(|_| Stop::ReaderGone)
    }
}

#[derive(Clone, Copy)]
enum Release {
    Due,
    All,
}
