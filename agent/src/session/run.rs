//! The life of the session: connect, serve, and when it ends for whatever reason, wait a little and connect again.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use consign_common::{
    time::{Clock as _, SystemClock},
    tls::Identity,
};
use consign_proto::v1::agents_client::AgentsClient;
use tokio::sync::{Notify, mpsc, watch};
use tonic::transport::Channel;

use super::{
    backoff::Backoff,
    convert::Host,
    dial::{Connection, DialError, Dialer},
    stream::{News, SessionEnd, Stream},
};
use crate::{
    identity::TrustRoots,
    logs,
    ports::{Inbound, Ledger, Outbound},
    receipts,
    status::{Board, Link},
};

/// A session that was welcomed and lasted this long was a good one: the next try comes at once.
const GOOD: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Session<L> {
    pub dialer: Dialer,
    /// The newest certificate; a change is a reason to connect again.
    pub identity: watch::Receiver<Arc<Identity>>,
    pub roots: Arc<TrustRoots>,
    pub host: Host,
    pub ledger: Arc<L>,
    pub inbound: mpsc::Sender<Inbound>,
    pub outbound: mpsc::Receiver<Outbound>,
    pub board: Board,
    /// Told when an attempt's log may have begun or ended.
    pub logs_changed: Arc<Notify>,
    /// Told of every receipt that was made.
    pub receipts_made: Arc<Notify>,
}

impl<L: Ledger> Session<L> {
    /// Until the future is dropped, or the manager has ended.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        loop {
            let began = Instant::now();
            let end = match self.connect().await {
                Ok(connection) => self.serve(connection).await,
                Err(error) => SessionEnd::Dial(error),
            };
            if matches!(end, SessionEnd::ManagerEnded) {
                return;
            }
            let because = end.to_string();
            // An outage is one line, not one for every try.
            if because == told {
                tracing::debug!(%because, "no session with the coordinator");
            } else {
                tracing::warn!(%because, "no session with the coordinator");
            }
            told.clone_from(&because);
            self.board.set(Link::Disconnected { because, since: SystemClock.now() });
            if end.was_welcomed() && began.elapsed() >= GOOD {
                backoff.reset();
            }
            if !matches!(end, SessionEnd::NewIdentity) {
                discarding(&mut self.outbound, tokio::time::sleep(backoff.next_delay())).await;
            }
        }
    }

    async fn connect(&mut self) -> Result<Connection, DialError> {
        let identity = self.identity.borrow_and_update().clone();
        let dialer = &self.dialer;
        let connection = discarding(&mut self.outbound, dialer.dial(Some(&identity))).await?;
        dialer.check_named(&connection, &self.roots.current())?;
        Ok(connection)
    }

    async fn serve(&mut self, connection: Connection) -> SessionEnd {
        let mut client = AgentsClient::new(connection.channel)
            .max_decoding_message_size(consign_common::limits::MESSAGE_BYTES);
        let (host, ledger) = (&self.host, self.ledger.as_ref());
        // The one that this connection was made with: what is newer makes a new one.
        let endorsement =
            receipts::key::endorsement(&host.word.server, &self.identity.borrow().clone(), &host.receipt_key);
        let opening =
            Stream::open(&mut client, host, &connection.coordinator, ledger, &self.roots, endorsement);
        let (stream, welcome) = match discarding(&mut self.outbound, opening).await {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let now = SystemClock.now();
        let clock_offset_ms =
            i64::try_from(i128::from(now.0) - i128::from(welcome.now_ms)).unwrap_or(i64::MAX);
        tracing::info!(coordinator = %connection.coordinator, clock_offset_ms, "session open");
        self.board.set(Link::Connected {
            coordinator: connection.coordinator.clone(),
            since: now,
            clock_offset_ms,
        });
        let session = stream.serve(
            connection.coordinator,
            ledger,
            &self.roots,
            &self.inbound,
            &mut self.outbound,
            News { logs_changed: &self.logs_changed, receipts_made: &self.receipts_made },
        );
        // Output travels on a stream of its own: a flood of it delays no heartbeat.
        let shipping = keep_shipping(client, self.ledger.as_ref(), &self.logs_changed);
        tokio::select! {
            end = session => end,
            never = shipping => match never {},
            changed = self.identity.changed() => match changed {
                Ok(()) => SessionEnd::NewIdentity,
                // Nobody renews any more: the daemon is on its way out.
                Err(_) => SessionEnd::ManagerEnded,
            },
        }
    }
}

/// A stream of logs that breaks ends no session: orders and events have one of their own.
async fn keep_shipping(client: AgentsClient<Channel>, ledger: &impl Ledger, changed: &Notify) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let error = logs::ship(client.clone(), ledger, changed).await;
        tracing::warn!(%error, "logs wait on this server");
        if began.elapsed() >= GOOD {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Runs `future` while no session is open. What the manager says meanwhile is dropped: it is in the journal, and sent
/// again after `Connected`. Waiting for a reader instead would let the network pace the steps.
async fn discarding<T>(outbound: &mut mpsc::Receiver<Outbound>, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            result = &mut future => return result,
            Some(_) = outbound.recv() => {}
        }
    }
}
