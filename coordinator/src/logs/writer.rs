//! Makes log chunks durable, many at a time.
//!
//! One task takes what has gathered while the last batch was being synced: the bytes go to their files, each file is
//! synced once, one transaction records the positions and tells the feed, and only then is anything acknowledged. So the
//! cost of a sync is shared by all that waited for it, and latency is one or two syncs whatever the load. Followers see
//! bytes after that too: what they were shown is there after a crash.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use consign_common::{
    crash,
    deployment::{Attempt, log::CorruptRecord},
    name::{Id, ServerName},
    time::Clock,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    LOG_MESSAGE_BYTES, LogFiles,
    files::{LogFileError, whole_records},
};
use crate::{
    rollouts::{Changed, Feed, LogLength, store},
    store::{Store, StoreError},
};

/// Chunks that wait for the disk, of all agents; each is at most [`LOG_MESSAGE_BYTES`] long.
const QUEUE: usize = 16;
/// Chunks in one batch.
const BATCH: usize = 64;
/// Files that stay open.
const OPEN_FILES: usize = 256;
/// Attempts of one deployment that may have a log: steps times retries, with room.
const ATTEMPTS: usize = 2000;

#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Bytes that are kept of one attempt. What is beyond is acknowledged and let go: an agent must not be stuck for
    /// ever with output that nobody can take.
    pub attempt_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { attempt_bytes: 4 << 30 }
    }
}

/// Whole records of one attempt, from this position on.
#[derive(Clone, Debug)]
pub struct Append {
    pub server: ServerName,
    pub deployment: Id,
    pub attempt: Attempt,
    pub offset: u64,
    pub records: Vec<u8>,
}

/// Gives the offset before which everything is durable.
pub type Answer = oneshot::Receiver<Result<u64, LogError>>;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("there is no deployment {deployment} on this server")]
    NotYours { deployment: Id },
    #[error("deployment {deployment} has more than {ATTEMPTS} attempts")]
    TooManyAttempts { deployment: Id },
    #[error("a chunk of {bytes} bytes, at most {LOG_MESSAGE_BYTES} are allowed")]
    TooLarge { bytes: usize },
    #[error("a chunk at offset {offset}, and {expected} is where the log ends")]
    Gap { offset: u64, expected: u64 },
    #[error("a chunk that ends in the middle of a record, at offset {offset}")]
    Torn { offset: u64 },
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
    #[error("the log could not be made durable: {why}")]
    NotDurable { why: String },
    #[error("the coordinator is stopping")]
    Stopping,
}

#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<u64, LogError>>,
}

impl LogWriter {
    /// Begins the writing task; it ends when the last clone is dropped.
    pub fn start(store: Arc<Store>, feed: Feed, clock: Arc<dyn Clock>, settings: LogSettings) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let files = LogFiles::new(&store.state().logs());
        let task = Task { store, feed, clock, settings, files, open: HashMap::new() };
        tokio::spawn(task.run(queue));
        Self { queue: sender }
    }

    /// Hands a chunk over; waits while the disk is behind.
    pub async fn append(&self, append: Append) -> Result<Answer, LogError> {
        if append.records.len() > LOG_MESSAGE_BYTES {
            return Err(LogError::TooLarge { bytes: append.records.len() });
        }
        let whole = whole_records(&append.records, append.offset)?;
        if whole != append.records.len() {
            return Err(LogError::Torn { offset: append.offset.saturating_add(length(whole)) });
        }
        let (reply, answer) = oneshot::channel();
        self.queue.send(Waiting { append, reply }).await.map_err(|_| LogError::Stopping)?;
        Ok(answer)
    }
}

struct Task {
    store: Arc<Store>,
    feed: Feed,
    clock: Arc<dyn Clock>,
    settings: LogSettings,
    files: LogFiles,
    /// What is known of attempts that were written lately; the database has the rest.
    open: HashMap<(Id, Attempt), Open>,
}

struct Open {
    rollout: Id,
    server: ServerName,
    log: LogLength,
    file: Arc<File>,
}

/// A chunk's part that is new, and goes into the file.
struct Write {
    file: Arc<File>,
    at: u64,
    bytes: Vec<u8>,
}

/// Where an attempt's log will be once the batch is durable.
struct Advance {
    key: (Id, Attempt),
    rollout: Id,
    log: LogLength,
    /// New bytes in the file: start and length.
    kept: Option<(u64, u64)>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            self.write(std::mem::take(&mut batch)).await;
            if self.open.len() > OPEN_FILES {
                self.open.clear();
            }
        }
    }

    async fn write(&mut self, batch: Vec<Waiting>) {
        let mut writes = Vec::new();
        let mut advances = Vec::new();
        let mut placed = Vec::new();
        for Waiting { append, reply } in batch {
            match self.place(append, &mut writes, &mut advances).await {
                Ok(offset) => placed.push((reply, offset)),
                // Whoever asked may be gone; then nobody needs the answer.
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        match self.commit(writes, &advances).await {
            Ok(()) => {
                if !advances.is_empty() {
                    self.feed.wake();
                }
                for (reply, offset) in placed {
                    drop(reply.send(Ok(offset)));
                }
            }
            Err(error) => {
                tracing::error!(%error, "logs could not be made durable");
                // Positions in memory are ahead of the database now.
                self.open.clear();
                for (reply, _) in placed {
                    drop(reply.send(Err(LogError::NotDurable { why: error.to_string() })));
                }
            }
        }
    }

    /// Decides what of a chunk is new, and where it goes. Gives the position to acknowledge.
    async fn place(
        &mut self,
        append: Append,
        writes: &mut Vec<Write>,
        advances: &mut Vec<Advance>,
    ) -> Result<u64, LogError> {
        let key = (append.deployment.clone(), append.attempt);
        let limit = self.settings.attempt_bytes;
        let open = self.open(&append).await?;
        if append.offset > open.log.length {
            return Err(LogError::Gap { offset: append.offset, expected: open.log.length });
        }
        // Sent again after a reconnect: what is here already is left out. Both ends agree on where records end.
        let known = usize::try_from(open.log.length - append.offset).unwrap_or(usize::MAX);
        let Some(new) = append.records.get(known..).filter(|new| !new.is_empty()) else {
            return Ok(open.log.length);
        };
        if known > 0 {
            whole_records(new, open.log.length)?;
        }
        let before = open.log;
        open.log.length += length(new.len());
        let kept = if before.kept == before.length && open.log.length <= limit {
            open.log.kept = open.log.length;
            writes.push(Write { file: Arc::clone(&open.file), at: before.kept, bytes: new.to_vec() });
            Some((before.kept, length(new.len())))
        } else {
            if before.kept == before.length {
                tracing::warn!(deployment = %append.deployment, attempt = %append.attempt, kept = before.kept,
                    "the log is cut here: its quota is reached");
            }
            None
        };
        advances.push(Advance { key, rollout: open.rollout.clone(), log: open.log, kept });
        Ok(open.log.length)
    }

    async fn open(&mut self, append: &Append) -> Result<&mut Open, LogError> {
        let key = (append.deployment.clone(), append.attempt);
        if !self.open.contains_key(&key) {
            let opened = self.look_up(append).await?;
            self.open.insert(key.clone(), opened);
        }
        let not_yours = || LogError::NotYours { deployment: append.deployment.clone() };
        self.open.get_mut(&key).filter(|open| open.server == append.server).ok_or_else(not_yours)
    }

    async fn look_up(&self, append: &Append) -> Result<Open, LogError> {
        let (id, attempt) = (append.deployment.clone(), append.attempt);
        let deployment = store::deployment(self.store.read(), &id).await?;
        let Some(deployment) = deployment.filter(|row| row.server == append.server) else {
            return Err(LogError::NotYours { deployment: id });
        };
        let all = store::logs(self.store.read(), &id).await?;
        let log = all.iter().find(|(other, _)| *other == attempt).map(|(_, log)| *log);
        if log.is_none() && all.len() >= ATTEMPTS {
            return Err(LogError::TooManyAttempts { deployment: id });
        }
        let files = self.files.clone();
        let file = blocking(move || files.open_for_append(&id, attempt)).await??;
        let log = log.unwrap_or_default();
        Ok(Open { rollout: deployment.rollout, server: deployment.server, log, file: Arc::new(file) })
    }

    async fn commit(&self, writes: Vec<Write>, advances: &[Advance]) -> Result<(), LogError> {
        if advances.is_empty() {
            return Ok(());
        }
        blocking(move || write_and_sync(&writes))
            .await?
            .map_err(|error| LogError::NotDurable { why: error.to_string() })?;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        for advance in advances {
            let (deployment, attempt) = &advance.key;
            store::put_log_length(&mut write, deployment, *attempt, advance.log).await?;
            if let Some((start, length)) = advance.kept {
                let what = Changed::Log { deployment: deployment.clone(), attempt: *attempt, start, length };
                store::add_change(&mut write, &advance.rollout, now, &what).await?;
            }
        }
        write.commit().await?;
        Ok(())
    }
}

fn write_and_sync(writes: &[Write]) -> io::Result<()> {
    crash::point("log-write-before");
    for write in writes {
        write.file.write_all_at(&write.bytes, write.at)?;
    }
    crash::point("log-sync-before");
    let mut synced: Vec<&Arc<File>> = Vec::new();
    for write in writes {
        if !synced.iter().any(|file| Arc::ptr_eq(file, &write.file)) {
            write.file.sync_data()?;
            synced.push(&write.file);
        }
    }
    crash::point("log-sync-after");
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LogError::Stopping)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::NotDurable { why: error.to_string() }
    }
}

impl From<LogFileError> for LogError {
    fn from(error: LogFileError) -> Self {
        Self::NotDurable { why: format!("{error}: {}", error.source) }
    }
}
