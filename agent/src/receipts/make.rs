//! Makes a receipt for every deployment that has ended, also those that ended while no agent was there to do it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use consign_common::trust::{ServersWord, SigningKey};
use tokio::sync::Notify;

use super::build;
use crate::journal::{Journal, JournalError, Unreceipted};

const BATCH: u32 = 20;
/// Looked at so often without a word, after something failed.
const LOOK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Maker {
    pub journal: Journal,
    pub key: SigningKey,
    pub word: ServersWord,
    pub boot_id: String,
    /// Where the logs of attempts lie.
    pub deployments: PathBuf,
    /// Told of each one that was made.
    pub made: Arc<Notify>,
}

impl Maker {
    /// Until the future is dropped.
    pub async fn run(self) {
        let ended = self.journal.ended();
        loop {
            if let Err(error) = self.make_all().await {
                tracing::warn!(%error, "receipts wait");
            }
            tokio::select! {
                () = ended.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn make_all(&self) -> Result<(), JournalError> {
        loop {
            let batch = self.journal.without_receipt(BATCH).await?;
            if batch.is_empty() {
                return Ok(());
            }
            for of in batch {
                self.make(of).await?;
            }
        }
    }

    async fn make(&self, of: Unreceipted) -> Result<(), JournalError> {
        let records = self.journal.events(&of.deployment).await?;
        let (word, boot_id) = (self.word.clone(), self.boot_id.clone());
        let (deployment, logs) = (of.deployment.clone(), self.deployments.join(of.deployment.as_str()));
        // A log may be large, and nothing else is to wait for it.
        let built = tokio::task::spawn_blocking(move || {
            build::receipt(&of, &records, &word, &boot_id, |attempt| {
                build::hash(&logs.join(format!("{attempt}.log")))
            })
        });
        match built.await.ok().flatten() {
            Some(receipt) => {
                self.journal.put_receipt(&deployment, &receipt.sign(&self.key).to_vec()).await?;
                self.made.notify_one();
                Ok(())
            }
            None => {
                tracing::error!(%deployment, "no receipt can be made of it: its events do not say how it ended");
                self.journal.without_word(&deployment).await
            }
        }
    }
}
