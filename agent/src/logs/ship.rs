//! Sends what the log files hold beyond what the coordinator has acknowledged.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{crash, deployment::Attempt, name::Id};
use consign_proto::v1::{LogAck, LogChunk, agents_client::AgentsClient};
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::tail::Tail;
use crate::ports::Ledger;

/// How often growing files are looked at; only while an attempt runs.
const LOOK: Duration = Duration::from_millis(50);
/// Looks at growing files after which the journal is asked whether they have ended.
const REFRESH_LOOKS: u32 = 20;
/// Chunks queued for the line.
const QUEUE: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error("the coordinator closed the stream of logs")]
    Closed,
    #[error("the stream of logs broke: {0}")]
    Broken(String),
}

/// Until the stream ends; an idle agent has none open and no timer running.
pub async fn ship(mut client: AgentsClient<Channel>, ledger: &impl Ledger, changed: &Notify) -> ShipError {
    let mut tails = Tails::default();
    tails.refresh(ledger).await;
    while tails.is_empty() {
        changed.notified().await;
        tails.refresh(ledger).await;
    }
    let (chunks, queue) = mpsc::channel(QUEUE);
    let opening = client.logs(ReceiverStream::new(queue));
    // The first chunk must not wait for the answer, nor the answer for the first chunk.
    let (opened, ()) = tokio::join!(opening, tails.fill(&chunks));
    let end = match opened {
        Ok(answer) => tails.serve(answer.into_inner(), chunks, ledger, changed).await,
        Err(status) => broken(&status),
    };
    tails.record_all(ledger).await;
    end
}

/// Every log that the coordinator does not have to its end.
#[derive(Debug, Default)]
struct Tails(BTreeMap<(Id, Attempt), Tail>);

impl Tails {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what has begun and what has ended since; what the journal no longer lists is whole at the coordinator.
    async fn refresh(&mut self, ledger: &impl Ledger) {
        let pending = ledger.pending_logs().await;
        let mut known = std::mem::take(&mut self.0);
        for log in pending {
            let key = (log.deployment.clone(), log.attempt);
            let tail = match known.remove(&key) {
                Some(mut tail) => {
                    tail.log.length = log.length;
                    tail
                }
                None => Tail::new(log),
            };
            self.0.insert(key, tail);
        }
        self.finish(ledger).await;
    }

    /// A log whose end became known after its last byte was acknowledged hears nothing more from the coordinator.
    async fn finish(&mut self, ledger: &impl Ledger) {
        for ((deployment, attempt), tail) in self.0.iter_mut().filter(|(_, tail)| tail.is_done()) {
            if let Some(offset) = tail.unrecorded() {
                ledger.log_acknowledged(deployment, *attempt, offset).await;
            }
        }
        self.0.retain(|_, tail| !tail.is_done());
    }

    async fn serve(
        &mut self,
        mut acks: Streaming<LogAck>,
        chunks: mpsc::Sender<LogChunk>,
        ledger: &impl Ledger,
        changed: &Notify,
    ) -> ShipError {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        loop {
            self.fill(&chunks).await;
            let grows = self.0.values().any(Tail::grows);
            let full = chunks.capacity() == 0;
            tokio::select! {
                ack = acks.message() => match ack {
                    Ok(Some(ack)) => self.acknowledged(&ack, ledger).await,
                    Ok(None) => return ShipError::Closed,
                    Err(status) => return broken(&status),
                },
                () = changed.notified() => self.refresh(ledger).await,
                _ = look.tick(), if grows && !full => {
                    looks += 1;
                    // The hint that an attempt has ended may have been lost with an earlier session.
                    if looks % REFRESH_LOOKS == 0 {
                        self.refresh(ledger).await;
                    }
                }
                permit = chunks.reserve(), if full => match permit {
                    Ok(permit) => drop(permit),
                    Err(_) => return ShipError::Closed,
                },
            }
        }
    }

    /// Fills the queue, one chunk of each log in turn, so that a flood from one does not starve the others.
    async fn fill(&mut self, chunks: &mpsc::Sender<LogChunk>) {
        loop {
            let mut sent = false;
            for ((deployment, attempt), tail) in &mut self.0 {
                // A closed queue is told by the stream of acknowledgements.
                let Ok(permit) = chunks.try_reserve() else { return };
                if let Some((offset, records)) = tail.next_chunk().await {
                    crash::point("log-send-before");
                    permit.send(LogChunk {
                        deployment: deployment.to_string(),
                        attempt: attempt.to_string(),
                        offset,
                        records: records.into(),
                    });
                    crash::point("log-send-after");
                    sent = true;
                }
            }
            if !sent {
                return;
            }
        }
    }

    async fn acknowledged(&mut self, ack: &LogAck, ledger: &impl Ledger) {
        crash::point("log-ack-received");
        let (Ok(deployment), Ok(attempt)) = (ack.deployment.parse::<Id>(), ack.attempt.parse()) else {
            return;
        };
        let key = (deployment, attempt);
        // One that is not listed any more is acknowledged for the second time.
        let Some(tail) = self.0.get_mut(&key) else { return };
        if let Some(offset) = tail.acknowledge(ack.offset) {
            ledger.log_acknowledged(&key.0, key.1, offset).await;
        }
        self.finish(ledger).await;
    }

    /// At the end of a session, so that the next begins where this one ended.
    async fn record_all(&mut self, ledger: &impl Ledger) {
        for ((deployment, attempt), tail) in &mut self.0 {
            if let Some(offset) = tail.unrecorded() {
                ledger.log_acknowledged(deployment, *attempt, offset).await;
            }
        }
    }
}

fn broken(status: &Status) -> ShipError {
    ShipError::Broken(consign_common::terminal::escape_line(status.message()))
}
