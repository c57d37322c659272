//! Following a rollout, and reading its logs.
//!
//! A follower is a cursor and a task that reads the store: first what happened, then, woken by the feed, what happens.
//! Between it and the caller's stream there are a few messages and no queue, so a reader that stops reading stops the
//! task and costs nothing else. States are delivered as they are when they are delivered; every byte of a log is
//! delivered exactly once, because log rows name disjoint bytes and a cursor is handed on with each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use consign_common::{
    deployment::{Attempt, log::CorruptRecord},
    name::{Id, ServerName},
    time::UnixMs,
};
use tokio::sync::mpsc;

use super::{
    admission::NotStarted,
    controller::Controller,
    rows::{Change, Changed, DeploymentRow},
    show::Shown,
    store,
};
use crate::{
    logs::{LOG_MESSAGE_BYTES, LogFileError, LogFiles, whole_records},
    store::StoreError,
};

/// Messages between the task and the caller's stream.
const AHEAD: usize = 2;
/// Changes read at once.
const CHANGES: u32 = 256;
/// How long a rollout that has ended is given to bring the rest of its output in, after the last of it came: logs and
/// events travel apart.
const REST: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    With,
    Without,
}

#[derive(Clone, Debug)]
pub struct Followed {
    /// Follow from here, and this and all before it does not come again.
    pub cursor: u64,
    pub at: UnixMs,
    pub update: Update,
}

#[derive(Clone, Debug)]
pub enum Update {
    Rollout(Box<Shown>),
    /// One server's line, of this rollout.
    Deployment(Box<Shown>, Id),
    Log(LogPart),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    pub server: ServerName,
    pub deployment: Id,
    pub attempt: Attempt,
    pub step: String,
    pub offset: u64,
    /// Whole records.
    pub records: Vec<u8>,
}

/// Which output.
#[derive(Clone, Debug)]
pub struct LogQuery {
    pub rollout: String,
    pub server: Option<ServerName>,
    pub step: Option<String>,
    /// Position in the log of the one attempt that matches.
    pub since: u64,
    pub until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// What is here.
    Now,
    TheEnd,
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] LogFileError),
    #[error("an offset is a position in one log; name the server and the step, here {matching} logs match")]
    SinceAmbiguous { matching: usize },
    #[error("no record begins at offset {since}")]
    SinceInside { since: u64, source: CorruptRecord },
    #[error("the coordinator is stopping")]
    Stopping,
}

type Items<T> = mpsc::Receiver<Result<T, FollowError>>;

impl Controller {
    /// The whole rollout first, then what changed after `cursor`, oldest first, until it has ended.
    pub async fn follow(
        self: &Arc<Self>,
        given: &str,
        cursor: u64,
        output: Output,
    ) -> Result<Items<Followed>, NotStarted> {
        let shown = self.show(given).await?;
        let (sender, items) = mpsc::channel(AHEAD);
        let follower = Follower { controller: Arc::clone(self), id: shown.row.id.clone(), output, sender };
        tokio::spawn(async move {
            // The reader is gone, or was told why it ended.
            if let Err(Stop::Failed(error)) = follower.run(shown, cursor).await {
                drop(follower.sender.send(Err(error)).await);
            }
        });
        Ok(items)
    }

    /// The logs that match, by server, step and attempt; each from its beginning, or from `since`.
    pub async fn read_logs(self: &Arc<Self>, query: LogQuery) -> Result<Items<LogPart>, NotStarted> {
        let id = self.show(&query.rollout).await?.row.id;
        let (sender, items) = mpsc::channel(AHEAD);
        let reader = LogReader { controller: Arc::clone(self), id, query, sender };
        tokio::spawn(async move {
            if let Err(Stop::Failed(error)) = reader.run().await {
                drop(reader.sender.send(Err(error)).await);
            }
        });
        Ok(items)
    }

    /// Whole records of a log, from `start` to at most `end`, as many as a message holds.
    async fn records(
        &self,
        deployment: &Id,
        attempt: Attempt,
        start: u64,
        end: u64,
    ) -> Result<Vec<u8>, FollowError> {
        let files = LogFiles::new(&self.store.state().logs());
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX).min(LOG_MESSAGE_BYTES);
        let deployment = deployment.clone();
        let read = move || files.read(&deployment, attempt, start, length);
        let mut bytes = tokio::task::spawn_blocking(read).await.map_err(|_| FollowError::Stopping)??;
        let whole = whole_records(&bytes, start)
            .map_err(|source| FollowError::SinceInside { since: source.offset, source })?;
        bytes.truncate(whole);
        Ok(bytes)
    }

    /// Bytes of output that agents have announced and that are not here yet.
    async fn missing_output(&self, id: &Id) -> Result<u64, FollowError> {
        let mut missing = 0_u64;
        for row in store::deployments(self.store.read(), id).await? {
            let here: HashMap<Attempt, u64> = store::logs(self.store.read(), &row.id)
                .await?
                .into_iter()
                .map(|(attempt, log)| (attempt, log.length))
                .collect();
            for (attempt, announced) in row.view.attempts() {
                let here = here.get(&attempt).copied().unwrap_or(0);
                missing = missing.saturating_add(announced.unwrap_or(0).saturating_sub(here));
            }
        }
        Ok(missing)
    }
}

enum Stop {
    ReaderGone,
    Failed(FollowError),
}

impl<E: Into<FollowError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Follower {
    controller: Arc<Controller>,
    id: Id,
    output: Output,
    sender: mpsc::Sender<Result<Followed, FollowError>>,
}

impl Follower {
    async fn run(&self, shown: Shown, mut cursor: u64) -> Result<(), Stop> {
        let mut feed = self.controller.feed.subscribe();
        let at = self.controller.clock.now();
        self.send(cursor, at, Update::Rollout(Box::new(shown))).await?;
        let mut rest = Rest::default();
        loop {
            feed.mark_unchanged();
            // Asked before the changes are read: what ends it is among them then.
            let ended = self.controller.show_exactly(&self.id).await?.row.is_ended();
            let changes = store::changes(self.controller.store.read(), &self.id, cursor, CHANGES).await?;
            if changes.is_empty() {
                if ended && rest.is_over(&self.controller, &self.id, self.output).await? {
                    return Ok(());
                }
                let patience = if ended { REST } else { Duration::MAX };
                tokio::select! {
                    changed = feed.changed() => changed.map_err(|_| FollowError::Stopping)?,
                    () = sleep(patience) => {}
                    () = self.sender.closed() => return Err(Stop::ReaderGone),
                }
                continue;
            }
            for change in changes {
                cursor = change.cursor;
                self.deliver(change).await?;
            }
        }
    }

    async fn deliver(&self, change: Change) -> Result<(), Stop> {
        let update = match change.what {
            Changed::Rollout => {
                let shown = self.controller.show_exactly(&self.id).await?;
                if shown.row.changed != change.cursor {
                    return Ok(());
                }
                Update::Rollout(Box::new(shown))
            }
            Changed::Deployment(id) => {
                let row = store::deployment(self.controller.store.read(), &id).await?;
                // A newer row comes later and carries the newest state; this one is skipped.
                if row.is_none_or(|row| row.changed != change.cursor) {
                    return Ok(());
                }
                Update::Deployment(Box::new(self.controller.show_exactly(&self.id).await?), id)
            }
            Changed::Log { deployment, attempt, start, length } => match self.output {
                Output::Without => return Ok(()),
                Output::With => {
                    let end = start.saturating_add(length);
                    let records = self.controller.records(&deployment, attempt, start, end).await?;
                    if records.is_empty() {
                        return Ok(());
                    }
                    let row = store::deployment(self.controller.store.read(), &deployment).await?;
                    let Some(row) = row else { return Ok(()) };
                    Update::Log(part(&row, attempt, start, records))
                }
            },
        };
        self.send(change.cursor, change.at, update).await
    }

    async fn send(&self, cursor: u64, at: UnixMs, update: Update) -> Result<(), Stop> {
        let item = Followed { cursor, at, update };
        self.sender.send(Ok(item)).await.map_err(|_| Stop::ReaderGone)
    }
}

/// Waits for the output of a rollout that has ended, as long as some comes.
#[derive(Default)]
struct Rest {
    /// Bytes that were missing, since when.
    missing: Option<(u64, tokio::time::Instant)>,
}

impl Rest {
    async fn is_over(
        &mut self,
        controller: &Controller,
        id: &Id,
        output: Output,
    ) -> Result<bool, FollowError> {
        if output == Output::Without {
            return Ok(true);
        }
        let missing = controller.missing_output(id).await?;
        let now = tokio::time::Instant::now();
        match self.missing {
            Some((before, since)) if before == missing => Ok(missing == 0 || now >= since + REST),
            Some(_) | None => {
                self.missing = Some((missing, now));
                Ok(missing == 0)
            }
        }
    }
}

struct LogReader {
    controller: Arc<Controller>,
    id: Id,
    query: LogQuery,
    sender: mpsc::Sender<Result<LogPart, FollowError>>,
}

impl LogReader {
    async fn run(&self) -> Result<(), Stop> {
        let mut feed = self.controller.feed.subscribe();
        let mut positions: HashMap<(Id, Attempt), u64> = HashMap::new();
        let mut rest = Rest::default();
        loop {
            feed.mark_unchanged();
            let ended = self.controller.show_exactly(&self.id).await?.row.is_ended();
            let mut delivered = false;
            for (row, attempt, kept) in self.matching().await? {
                let place = (row.id.clone(), attempt);
                let mut position = positions.get(&place).copied().unwrap_or(self.query.since);
                while position < kept {
                    let records = self.controller.records(&row.id, attempt, position, kept).await?;
                    if records.is_empty() {
                        break;
                    }
                    let next = position.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
                    let item = part(&row, attempt, position, records);
                    self.sender.send(Ok(item)).await.map_err(|_| Stop::ReaderGone)?;
                    position = next;
                    delivered = true;
                }
                positions.insert(place, position);
            }
            if self.query.until == Until::Now {
                return Ok(());
            }
            if delivered {
                continue;
            }
            if ended && rest.is_over(&self.controller, &self.id, Output::With).await? {
                return Ok(());
            }
            let patience = if ended { REST } else { Duration::MAX };
            tokio::select! {
                changed = feed.changed() => changed.map_err(|_| FollowError::Stopping)?,
                () = sleep(patience) => {}
                () = self.sender.closed() => return Err(Stop::ReaderGone),
            }
        }
    }

    /// The attempts that are asked for, with the bytes there are of each.
    async fn matching(&self) -> Result<Vec<(DeploymentRow, Attempt, u64)>, FollowError> {
        let mut found = Vec::new();
        for row in store::deployments(self.controller.store.read(), &self.id).await? {
            if self.query.server.as_ref().is_some_and(|server| *server != row.server) {
                continue;
            }
            for (attempt, log) in store::logs(self.controller.store.read(), &row.id).await? {
                let name = row.view.step_name(attempt);
                if self.query.step.as_ref().is_none_or(|step| *step == name) {
                    found.push((row.clone(), attempt, log.kept));
                }
            }
        }
        if self.query.since > 0 && found.len() > 1 {
            return Err(FollowError::SinceAmbiguous { matching: found.len() });
        }
        Ok(found)
    }
}

fn part(row: &DeploymentRow, attempt: Attempt, offset: u64, records: Vec<u8>) -> LogPart {
    LogPart {
        server: row.server.clone(),
        deployment: row.id.clone(),
        attempt,
        step: row.view.step_name(attempt),
        offset,
        records,
    }
}

async fn sleep(patience: Duration) {
    if patience == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(patience).await;
}
