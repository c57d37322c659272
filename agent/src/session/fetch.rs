//! Brings manifests and packs, each on a connection of its own, so that bulk never stands in an order's way.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use consign_common::{
    crash,
    digest::Sha256,
    limits::{ArtifactLimits, CHUNK_BYTES, MESSAGE_BYTES},
    terminal,
    tls::Identity,
};
use consign_proto::v1::{Chunk, FetchRequest, PackPair, agents_client::AgentsClient, fetch_request::What};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
    sync::{Semaphore, watch},
    time::timeout,
};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{backoff::Backoff, dial::Dialer};
use crate::{
    identity::TrustRoots,
    ports::{Fetch, FetchError},
};

/// Transfers of a kind at a time; more only share the same line.
const TRANSFERS: usize = 2;
/// Tries in a row that brought not one byte.
const FRUITLESS_TRIES: u32 = 5;
/// A transfer that stands still for so long is begun again.
const STALLED: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Fetcher {
    dialer: Dialer,
    identity: watch::Receiver<Arc<Identity>>,
    roots: Arc<TrustRoots>,
    packs: Semaphore,
    /// Of their own: orders are not judged only after the packs of other apps.
    manifests: Semaphore,
    limits: ArtifactLimits,
}

/// One message of a transfer, checked: it goes on exactly where the one before ended.
struct Piece {
    data: Vec<u8>,
    total: u64,
}

impl Fetcher {
    pub fn new(
        dialer: Dialer,
        identity: watch::Receiver<Arc<Identity>>,
        roots: Arc<TrustRoots>,
        limits: ArtifactLimits,
    ) -> Self {
        let (packs, manifests) = (Semaphore::new(TRANSFERS), Semaphore::new(TRANSFERS));
        Self { dialer, identity, roots, packs, manifests, limits }
    }

    async fn connect(&self) -> Result<AgentsClient<Channel>, FetchError> {
        let identity = self.identity.borrow().clone();
        let connection = self.dialer.dial(Some(&identity)).await.map_err(unreachable)?;
        self.dialer.check_named(&connection, &self.roots.current()).map_err(unreachable)?;
        Ok(AgentsClient::new(connection.channel).max_decoding_message_size(MESSAGE_BYTES))
    }

    async fn begin(&self, what: What, offset: u64) -> Result<Transfer, FetchError> {
        let mut client = self.connect().await?;
        let request = FetchRequest { what: Some(what), offset };
        let answer = timeout(STALLED, client.fetch(request)).await.map_err(|_| stalled())?;
        Ok(Transfer { stream: answer.map_err(refused)?.into_inner(), offset, total: None })
    }

    /// One try, from the file's present length on. `Ok` when the file is whole.
    async fn pack_once(
        &self,
        what: What,
        limit: u64,
        into: &Path,
        progress: &(impl Fn(u64, u64) + Send + Sync),
    ) -> Result<(), FetchError> {
        let io = |source| FetchError::Io { path: into.into(), source };
        let mut file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(into).await.map_err(io)?;
        let have = file.metadata().await.map_err(io)?.len();
        let mut transfer = match self.begin(what, have).await {
            Err(FetchError::OutOfRange(_)) if have > 0 => {
                // What lies there is not the beginning of this pack.
                file.set_len(0).await.map_err(io)?;
                return Err(FetchError::Unreachable("the transfer begins again from its start".into()));
            }
            other => other?,
        };
        while let Some(piece) = transfer.next(limit).await? {
            file.write_all(&piece.data).await.map_err(io)?;
            progress(transfer.offset, piece.total);
        }
        transfer.check_whole()?;
        finish(file).await.map_err(io)
    }
}

impl Fetch for Fetcher {
    async fn manifest(&self, digest: Sha256) -> Result<Vec<u8>, FetchError> {
        let _permit = self.manifests.acquire().await.map_err(unreachable)?;
        crash::point("manifest-fetch-before");
        let limit = self.limits.manifest_bytes as u64;
        let mut transfer = self.begin(What::Manifest(digest.to_string()), 0).await?;
        let mut manifest = Vec::new();
        while let Some(piece) = transfer.next(limit).await? {
            manifest.extend_from_slice(&piece.data);
        }
        transfer.check_whole()?;
        Ok(manifest)
    }

    async fn pack(
        &self,
        from: Option<Sha256>,
        to: Sha256,
        limit: u64,
        into: PathBuf,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<(), FetchError> {
        let _permit = self.packs.acquire().await.map_err(unreachable)?;
        let from = from.map(|digest| digest.to_string()).unwrap_or_default();
        let what = What::Pack(PackPair { from, to: to.to_string() });
        let mut backoff = Backoff::default();
        let mut fruitless = 0;
        loop {
            let before = length(&into).await;
            let error = match self.pack_once(what.clone(), limit, &into, &progress).await {
                Ok(()) => return Ok(()),
                Err(error @ FetchError::Unreachable(_)) => error,
                Err(error) => return Err(error),
            };
            if length(&into).await > before {
                fruitless = 0;
                backoff.reset();
            } else {
                fruitless += 1;
            }
            if fruitless == FRUITLESS_TRIES {
                return Err(error);
            }
            tracing::info!(%error, artifact = %to.short(), "transfer interrupted, going on where it ended");
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// What has been received of one answer.
struct Transfer {
    stream: Streaming<Chunk>,
    offset: u64,
    total: Option<u64>,
}

impl Transfer {
    async fn next(&mut self, limit: u64) -> Result<Option<Piece>, FetchError> {
        let message = timeout(STALLED, self.stream.message()).await.map_err(|_| stalled())?;
        let Some(Chunk { offset, data, total }) = message.map_err(refused)? else { return Ok(None) };
        let end = self.offset.saturating_add(data.len() as u64);
        // An empty one may tell the length; more of them would go on for ever.
        let is_idle = data.is_empty() && self.total.is_some();
        if offset != self.offset || data.len() > CHUNK_BYTES || end > total || is_idle {
            return Err(FetchError::Malformed(format!("{} bytes at {offset} of {total}", data.len())));
        }
        if self.total.replace(total).is_some_and(|before| before != total) {
            return Err(FetchError::Malformed("its length changed on the way".into()));
        }
        if total > limit {
            return Err(FetchError::TooLong(limit));
        }
        self.offset = end;
        Ok(Some(Piece { data: data.into(), total }))
    }

    fn check_whole(&self) -> Result<(), FetchError> {
        match self.total {
            Some(total) if total == self.offset => Ok(()),
            Some(total) => {
                Err(FetchError::Unreachable(format!("cut off at {} of {total} bytes", self.offset)))
            }
            None => Err(FetchError::Unreachable("the coordinator sent nothing".into())),
        }
    }
}

async fn finish(mut file: File) -> io::Result<()> {
    file.flush().await?;
    crash::point("pack-sync-before");
    file.sync_data().await?;
    crash::point("pack-sync-after");
    Ok(())
}

async fn length(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |metadata| metadata.len())
}

fn unreachable(error: impl std::fmt::Display) -> FetchError {
    FetchError::Unreachable(error.to_string())
}

fn stalled() -> FetchError {
    FetchError::Unreachable(format!("nothing came for {} s", STALLED.as_secs()))
}

fn refused(status: Status) -> FetchError {
    let message = terminal::escape_line(status.message());
    if status.code() == Code::NotFound {
        return FetchError::NotFound(message);
    }
    if status.code() == Code::OutOfRange {
        return FetchError::OutOfRange(message);
    }
    // Everything else may be different at the next try.
    FetchError::Unreachable(format!("{}: {message}", status.code()))
}
