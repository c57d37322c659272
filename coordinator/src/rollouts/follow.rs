//! Following a rollout, and reading its logs.
//!
//! A follower is a cursor and a task that reads the store: first what happened, then, woken by the feed, what happens.
//! Between it and the caller's stream there are a few messages and no queue, so a reader that stops reading stops the
//! task and costs nothing else. States are delivered as they are when they are delivered, after the output that they
//! speak of; every byte of a log is delivered exactly once, because log rows name disjoint bytes and a cursor is handed
//! on with each.

use std::sync::Arc;

use consign_common::{
    deployment::{Attempt, log::CorruptRecord},
    name::{Id, ServerName},
    time::UnixMs,
};
use tokio::sync::mpsc;

use super::{
    admission::NotStarted, controller::Controller, follower::Follower, output::Stop, read_logs::LogReader,
    show::Shown,
};
use crate::{logs::LogFileError, store::StoreError};

/// Messages between the task and the caller's stream.
const AHEAD: usize = 2;

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
        let follower = Follower::new(Arc::clone(self), shown.row.id.clone(), cursor, output, sender);
        tokio::spawn(follower.run(shown));
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
}
