//! The trust roots that the coordinator keeps and hands on. It cannot make one: each is signed by the thresholds of the
//! one before, and every agent checks that for itself.

use std::sync::Arc;

use consign_common::{
    limits::TRUST_ROOT_BYTES,
    time::{Clock, UnixMs},
    trust::{Refusal, TrustRoot},
};
use tokio::sync::watch;

use crate::store::{Store, StoreError, Write, column::from_u64};

#[derive(Debug)]
pub struct TrustRoots {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    newest: watch::Sender<Arc<TrustRoot>>,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustRootError {
    #[error("{code}: {0}", code = .0.code())]
    Refused(#[from] Refusal),
    #[error("there is no trust root yet; start `consign serve` with the --bundle that `consign init` wrote")]
    None,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TrustRootError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl TrustRoots {
    /// The stored ones. What is on disk was checked when it came, and is checked again by everyone it is sent to.
    pub async fn load(store: Arc<Store>, clock: Arc<dyn Clock>) -> Result<Self, TrustRootError> {
        let newest: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT envelope FROM trust_roots ORDER BY version DESC LIMIT 1")
                .fetch_optional(store.read())
                .await?;
        let (envelope,) = newest.ok_or(TrustRootError::None)?;
        let newest = TrustRoot::open_pinned(&envelope, TrustRoot::pin(&envelope)?)?;
        Ok(Self { store, clock, newest: watch::Sender::new(Arc::new(newest)) })
    }

    pub fn newest(&self) -> Arc<TrustRoot> {
        Arc::clone(&self.newest.borrow())
    }

    /// Wakes at every newer one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<TrustRoot>> {
        self.newest.subscribe()
    }

    /// The envelopes above this version, ascending, without gaps, as many as fit into `budget` bytes.
    pub async fn after(&self, version: u64, budget: usize) -> Result<Vec<Vec<u8>>, TrustRootError> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("SELECT envelope FROM trust_roots WHERE version > ? ORDER BY version")
                .bind(from_u64(version))
                .fetch_all(self.store.read())
                .await?;
        let mut left = budget;
        let fits = |envelope: &Vec<u8>| {
            let fits = envelope.len() <= left;
            left = left.saturating_sub(envelope.len());
            fits
        };
        Ok(rows.into_iter().map(|(envelope,)| envelope).take_while(fits).collect())
    }

    /// Takes the next one, if the one in force allows it; its version.
    pub async fn put(&self, envelope: &[u8]) -> Result<u64, TrustRootError> {
        let mut write = self.store.write().await?;
        // Read under the writer's lock, which keeps two of them apart.
        let (newest,): (Vec<u8>,) =
            sqlx::query_as("SELECT envelope FROM trust_roots ORDER BY version DESC LIMIT 1")
                .fetch_one(&mut *write)
                .await?;
        let next = TrustRoot::open_pinned(&newest, TrustRoot::pin(&newest)?)?.open_next(envelope)?;
        insert(&mut write, next.version, envelope, self.clock.now()).await?;
        let version = next.version;
        let next = Arc::new(next);
        write.commit().await?;
        self.newest.send_if_modified(|newest| {
            let newer = newest.version < version;
            if newer {
                *newest = next;
            }
            newer
        });
        Ok(version)
    }
}

/// The first one, from the bundle: the machine's owner vouches for it by handing over the bundle.
pub async fn import_first(
    write: &mut Write,
    envelope: &[u8],
    now: UnixMs,
) -> Result<TrustRoot, TrustRootError> {
    let first = TrustRoot::open_pinned(envelope, TrustRoot::pin(envelope)?)?;
    insert(write, first.version, envelope, now).await?;
    Ok(first)
}

async fn insert(write: &mut Write, version: u64, envelope: &[u8], now: UnixMs) -> Result<(), TrustRootError> {
    sqlx::query("INSERT INTO trust_roots (version, envelope, added_ms) VALUES (?, ?, ?)")
        .bind(from_u64(version))
        .bind(envelope)
        .bind(from_u64(now.0))
        .execute(&mut **write)
        .await?;
    Ok(())
}

/// Bytes of envelopes in one message: a message's limit, less some for its frame.
pub const MESSAGE_BUDGET: usize = consign_common::limits::MESSAGE_BYTES - TRUST_ROOT_BYTES;
