//! Output on its way to a reader: pieces of logs, and how long to wait for the next.

use std::{collections::HashMap, time::Duration};

use consign_common::{deployment::Attempt, name::Id};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    controller::Controller,
    follow::{FollowError, LogPart, Output},
    rows::DeploymentRow,
    store,
};
use crate::logs::{LOG_MESSAGE_BYTES, LogFiles, whole_records};

/// How long a rollout that has ended is given to bring the rest of its output in, after the last of it came: logs and
/// events travel apart.
const REST: Duration = Duration::from_secs(10);

/// Why a task that reads for somebody ends before its time.
pub(super) enum Stop {
    ReaderGone,
    Failed(FollowError),
}

impl<E: Into<FollowError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Waits for news, for the reader to go, and at most this long.
pub(super) async fn woken<T>(
    feed: &mut watch::Receiver<u64>,
    reader: &mpsc::Sender<T>,
    patience: Option<Duration>,
) -> Result<(), Stop> {
    let patience = async {
        match patience {
            Some(patience) => tokio::time::sleep(patience).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = feed.changed() => changed.map_err(|_| FollowError::Stopping.into()),
        () = patience => Ok(()),
        () = reader.closed() => Err(Stop::ReaderGone),
    }
}

/// Waits for the output of a rollout that has ended, as long as some comes.
#[derive(Default)]
pub(super) struct Rest {
    /// Bytes that were missing, since when.
    missing: Option<(u64, Instant)>,
}

impl Rest {
    /// Until it is to be asked again.
    pub(super) fn patience() -> Duration {
        REST
    }

    pub(super) async fn is_over(
        &mut self,
        controller: &Controller,
        id: &Id,
        output: Output,
    ) -> Result<bool, FollowError> {
        if output == Output::Without {
            return Ok(true);
        }
        let missing = controller.missing_output(id).await?;
        let now = Instant::now();
        match self.missing {
            Some((before, since)) if before == missing => Ok(missing == 0 || now >= since + REST),
            Some(_) | None => {
                self.missing = Some((missing, now));
                Ok(missing == 0)
            }
        }
    }
}

pub(super) fn part(row: &DeploymentRow, attempt: Attempt, offset: u64, records: Vec<u8>) -> LogPart {
    LogPart {
        server: row.server.clone(),
        deployment: row.id.clone(),
        attempt,
        step: row.view.step_name(attempt),
        offset,
        records,
    }
}

impl Controller {
    /// Whole records of a log, from `start` to at most `end`, as many as a message holds.
    pub(super) async fn records(
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
