//! Sending files in chunks, from an offset.

use std::{io::SeekFrom, path::Path};

use consign_common::limits::CHUNK_BYTES;
use consign_proto::v1::{Chunk, FetchRequest, fetch_request::What};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::answer::invalid;
use crate::repository::{Repository, Wanted};

pub type Chunks = ReceiverStream<Result<Chunk, Status>>;

/// Chunks on their way to one receiver: this many are in memory, however large the file.
const AHEAD: usize = 4;

/// A manifest, or a full pack.
pub async fn fetch(repository: &Repository, request: FetchRequest) -> Result<Chunks, Status> {
    let digest = |text: &str| text.parse().map_err(invalid);
    let path = match request.what.ok_or_else(|| invalid("what to fetch is not said"))? {
        What::Manifest(text) => {
            let digest = digest(&text)?;
            repository.find(&Wanted::Digest(digest)).await?;
            repository.manifest_path(digest)
        }
        What::Pack(pair) if pair.from.is_empty() => {
            let digest = digest(&pair.to)?;
            repository.find(&Wanted::Digest(digest)).await?;
            repository.pack_path(digest)
        }
        What::Pack(_) => return Err(Status::not_found("there is no delta pack; fetch the full one")),
    };
    send(&path, request.offset).await
}

/// The file's bytes from `offset` on; at its end exactly, one empty chunk that tells its length.
pub async fn send(path: &Path, offset: u64) -> Result<Chunks, Status> {
    let failed = |error: std::io::Error| {
        tracing::error!(path = %path.display(), %error, "a file of the repository cannot be read");
        Status::internal("the coordinator cannot read it; its log says why")
    };
    let mut file = File::open(path).await.map_err(failed)?;
    let total = file.metadata().await.map_err(failed)?.len();
    if offset > total {
        return Err(Status::out_of_range(format!("it has {total} bytes, not {offset}")));
    }
    file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
    let (to, chunks) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut at = offset;
        loop {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data).await;
            let count = data.len() as u64;
            let chunk = match read {
                Ok(_) if count == 0 && at != offset => return,
                Ok(_) => Ok(Chunk { offset: at, data: data.into(), total }),
                Err(error) => Err(Status::internal(error.to_string())),
            };
            let ends = chunk.is_err() || count == 0;
            // Nobody is there any more: so be it.
            if to.send(chunk).await.is_err() || ends {
                return;
            }
            at += count;
        }
    });
    Ok(ReceiverStream::new(chunks))
}
