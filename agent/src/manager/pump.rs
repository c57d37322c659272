//! Events to the session: in the journal's order, each once per session, from the journal alone. So none overtakes
//! another, and what was lost with a connection comes again, after a word that says so.

use std::sync::Arc;

use consign_common::name::Id;
use tokio::sync::{Notify, mpsc};

use crate::{
    journal::{Journal, JournalError},
    ports::Outbound,
};

const BATCH: u32 = 100;

#[derive(Clone, Debug)]
pub(super) struct Pump {
    notify: Arc<Notify>,
    restart: Arc<std::sync::atomic::AtomicBool>,
}

impl Pump {
    pub(super) fn new(notify: Arc<Notify>) -> Self {
        Self { notify, restart: Arc::default() }
    }

    /// A session began: everything that is not acknowledged once more.
    pub(super) fn restart(&self) {
        self.restart.store(true, std::sync::atomic::Ordering::Release);
        self.notify.notify_one();
    }

    /// Until the session's end of the channel is closed.
    pub(super) async fn run(
        self,
        journal: Journal,
        outbound: mpsc::Sender<Outbound>,
    ) -> Result<(), JournalError> {
        let mut cursor = 0;
        loop {
            if self.restart.swap(false, std::sync::atomic::Ordering::AcqRel) {
                cursor = 0;
                if outbound.send(Outbound::Again).await.is_err() {
                    return Ok(());
                }
            }
            let batch = journal.unacknowledged_after(cursor, BATCH).await?;
            if batch.is_empty() {
                self.notify.notified().await;
                continue;
            }
            for (position, record) in batch {
                cursor = position;
                let (deployment, sequence): (Id, u64) = (record.deployment, record.sequence);
                let event = Outbound::Event { deployment, sequence, at: record.at, body: record.event };
                if outbound.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
