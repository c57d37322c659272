//! A pack on its way in: resumable by offset, and nothing until all of it has been checked.
//!
//! `uploads/<id>/` has the shape of an artifact's directory from the beginning, so that the last act is one rename.
//! The id is a digest of what is promised (manifest, pack's length and digest), so that whoever begins the same
//! publication again comes back to the same upload.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use consign_common::{
    artifact::{self, Manifest},
    digest::{Hasher, Sha256},
    durable,
    limits::ArtifactLimits,
    name::App,
    time::UnixMs,
    trust::{OrderingNumber, Predicate},
};
use serde::{Deserialize, Serialize};
use tokio::{
    fs,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};

use super::{
    Artifact, Publication, Repository, RepositoryError, Wanted, at, publication::statement_name, statements,
};
use crate::store::column::from_u64;

/// How long an upload waits for its publisher to come back.
const FORGET: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was promised; `uploads/<id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    manifest: Sha256,
    pack_length: u64,
    pack_sha256: Sha256,
    statement: Sha256,
}

/// An upload that one client writes to.
#[derive(Debug)]
pub struct Upload {
    place: Place,
    promise: Promise,
    pack: fs::File,
    length: u64,
}

/// How far an upload came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// To be continued from here.
    Partial(u64),
    Published(Box<Artifact>),
}

/// The one writer's place at an upload; dropped, another may come.
#[derive(Debug)]
struct Place {
    repository: Arc<Repository>,
    id: Sha256,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.repository.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Upload {
    pub fn offset(&self) -> u64 {
        self.length
    }

    /// Appends. More than was promised is refused before it is written.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), RepositoryError> {
        let length = self.length.saturating_add(data.len() as u64);
        if length > self.promise.pack_length {
            return Err(RepositoryError::Pack(format!(
                "more than the {} bytes that were announced",
                self.promise.pack_length
            )));
        }
        let path = self.place.repository.upload_dir(self.place.id);
        self.pack.write_all(data).await.map_err(at(path))?;
        self.length = length;
        Ok(())
    }

    /// The client has no more for now. If that was all, the pack is checked, and the artifact published.
    pub async fn end(mut self) -> Result<Ended, RepositoryError> {
        let Place { repository, id } = &self.place;
        let dir = repository.upload_dir(*id);
        self.pack.flush().await.map_err(at(&dir))?;
        self.pack.sync_all().await.map_err(at(&dir))?;
        if self.length < self.promise.pack_length {
            return Ok(Ended::Partial(self.length));
        }
        let manifest = fs::read(dir.join("manifest.json")).await.map_err(at(&dir))?;
        let (pack, limits, expected) =
            (dir.join("pack.full"), repository.limits.clone(), self.promise.pack_sha256);
        let checked = tokio::task::spawn_blocking(move || check(&manifest, pack, &limits, expected)).await;
        let checked = checked.unwrap_or_else(|_| Err(RepositoryError::Pack("it could not be read".into())));
        match checked {
            Ok(manifest) => {
                let artifact = repository.publish(*id, &self.promise, &manifest).await?;
                Ok(Ended::Published(Box::new(artifact)))
            }
            Err(error) => {
                repository.forget(*id).await?;
                Err(error)
            }
        }
    }
}

/// Reads the whole pack once: its digest, and every file's against the manifest.
fn check(
    manifest: &[u8],
    pack: PathBuf,
    limits: &ArtifactLimits,
    expected: Sha256,
) -> Result<Manifest, RepositoryError> {
    let invalid = |why: String| RepositoryError::Pack(why);
    let manifest = Manifest::parse(manifest, limits).map_err(|error| invalid(error.to_string()))?;
    let file = File::open(&pack).map_err(at(&pack))?;
    let mut reader = Hashing { inner: file, hasher: Hasher::new() };
    artifact::extract(&mut reader, &manifest, limits, &mut artifact::Discard)
        .map_err(|error| invalid(error.to_string()))?;
    let rest = io::copy(&mut reader, &mut io::sink()).map_err(at(&pack))?;
    if rest != 0 {
        return Err(invalid(format!("{rest} bytes after its end")));
    }
    if reader.hasher.finish() != expected {
        return Err(invalid("its digest is not the one that was announced".into()));
    }
    Ok(manifest)
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl Repository {
    pub(super) async fn open_upload(
        &self,
        publication: &Publication,
        pack_length: u64,
        pack_sha256: Sha256,
    ) -> Result<(Sha256, u64), RepositoryError> {
        let mut promised = Hasher::new();
        promised.update(publication.digest.as_bytes());
        promised.update(&pack_length.to_be_bytes());
        promised.update(pack_sha256.as_bytes());
        let id = promised.finish();
        let dir = self.upload_dir(id);
        let statements = dir.join("statements");
        fs::create_dir_all(&statements).await.map_err(at(&statements))?;
        let promise = Promise {
            manifest: publication.digest,
            pack_length,
            pack_sha256,
            statement: Sha256::of(&publication.statement),
        };
        let promise = consign_common::json::to_vec(&promise);
        for (path, bytes) in [
            (dir.join("manifest.json"), &publication.manifest),
            (statements.join(statement_name(&publication.statement)), &publication.statement),
            (self.promise_path(id), &promise),
        ] {
            durable::replace_file(&path, bytes, 0o600).map_err(at(path))?;
        }
        let offset = match fs::metadata(dir.join("pack.full")).await {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(dir)(error)),
        };
        Ok((id, offset))
    }

    /// Takes the upload for one writer.
    pub async fn resume(self: &Arc<Self>, id: &str, offset: u64) -> Result<Upload, RepositoryError> {
        let unknown = || RepositoryError::UploadUnknown { id: id.chars().take(80).collect() };
        let parsed: Sha256 = id.parse().map_err(|_| unknown())?;
        let promise = fs::read(self.promise_path(parsed)).await.map_err(|_| unknown())?;
        let promise: Promise = consign_common::json::from_slice(&promise, 4096).map_err(|_| unknown())?;
        if !self.writing.lock().unwrap_or_else(PoisonError::into_inner).insert(parsed) {
            return Err(RepositoryError::UploadBusy);
        }
        let path = self.upload_dir(parsed).join("pack.full");
        // From here on dropping it lets go of the upload.
        let place = Place { repository: Arc::clone(self), id: parsed };
        let opened = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path).await;
        let mut pack = opened.map_err(at(&path))?;
        let length = pack.metadata().await.map_err(at(&path))?.len();
        if length != offset {
            return Err(RepositoryError::Offset { given: offset, expected: length });
        }
        // Not appended: a write of a client that is gone may still be under way, and then puts the same bytes in the
        // same place.
        pack.seek(io::SeekFrom::Start(length)).await.map_err(at(&path))?;
        Ok(Upload { place, promise, pack, length })
    }

    /// From upload to artifact: everything is synced, then it gets its name, then its row.
    async fn publish(
        &self,
        id: Sha256,
        promise: &Promise,
        manifest: &Manifest,
    ) -> Result<Artifact, RepositoryError> {
        let (from, to) = (self.upload_dir(id), self.dir(promise.manifest));
        let bytes = fs::read(from.join("manifest.json")).await.map_err(at(&from))?;
        let statement = from.join("statements").join(format!("{}.json", promise.statement));
        let statement = fs::read(&statement).await.map_err(at(&statement))?;
        let publication = Publication {
            number: published_number(&statement),
            manifest: bytes,
            digest: promise.manifest,
            parsed: manifest.clone(),
            statement,
        };
        {
            let _changing = self.changing.lock().await;
            // Another client may have been faster, with this content or with other.
            let known = match self.published(&publication).await {
                Err(error @ RepositoryError::VersionExists { .. }) => {
                    self.forget(id).await?;
                    return Err(error);
                }
                other => other?,
            };
            if known.is_none() {
                durable::sync_dir(&from.join("statements")).map_err(at(&from))?;
                durable::sync_dir(&from).map_err(at(&from))?;
                remove(to.clone()).await?;
                fs::rename(&from, &to).await.map_err(at(&to))?;
                let artifacts = self.store.state().artifacts();
                durable::sync_dir(&artifacts).map_err(at(artifacts))?;
                self.insert(&publication, promise).await?;
                self.take_in(promise.manifest, &manifest.app).await?;
            }
        }
        self.forget(id).await?;
        self.add_statement(promise.manifest, &publication.statement, &manifest.app).await?;
        self.find(&Wanted::Digest(publication.digest)).await
    }

    async fn insert(&self, publication: &Publication, promise: &Promise) -> Result<(), RepositoryError> {
        let Manifest { app, version, platform, .. } = publication.manifest();
        let mut write = self.store.write().await?;
        sqlx::query(
            "INSERT INTO artifacts (digest, app, version, platform, entries, bytes, pack_bytes, pack_sha256,
                                    added_ms, epoch, ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(publication.digest.to_string())
        .bind(app.as_str())
        .bind(version.as_str())
        .bind(platform.as_ref().map_or("", |platform| platform.as_str()))
        .bind(from_u64(publication.entries()))
        .bind(from_u64(publication.bytes()))
        .bind(from_u64(promise.pack_length))
        .bind(promise.pack_sha256.to_string())
        .bind(from_u64(self.clock.now().0))
        .bind(from_u64(publication.number.epoch))
        .bind(from_u64(publication.number.ms.0))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(())
    }

    /// The publications that lie with the files that were uploaded: into their rows. Also those of an artifact whose
    /// publication was interrupted just there, and of one from before there were rows.
    async fn take_in(&self, digest: Sha256, app: &App) -> Result<(), RepositoryError> {
        let dir = self.dir(digest).join("statements");
        if !fs::try_exists(&dir).await.map_err(at(&dir))? {
            return Ok(());
        }
        let mut write = self.store.write().await?;
        for name in names(&dir).await? {
            let path = dir.join(name);
            let envelope = fs::read(&path).await.map_err(at(&path))?;
            self.put_publication(&mut write, digest, &envelope, app).await?;
        }
        write.commit().await?;
        remove(dir).await
    }

    async fn forget(&self, id: Sha256) -> Result<(), RepositoryError> {
        remove(self.upload_dir(id)).await?;
        remove(self.promise_path(id)).await
    }

    /// Removes what nobody will come back for: old uploads, and artifacts' directories without a row.
    pub async fn sweep(&self) -> Result<(), RepositoryError> {
        let _changing = self.changing.lock().await;
        let mut known = std::collections::BTreeSet::new();
        for artifact in self.list(None).await? {
            self.take_in(artifact.digest, &artifact.app).await?;
            known.insert(artifact.digest.to_string());
        }
        let artifacts = self.store.state().artifacts();
        for name in names(&artifacts).await? {
            if !known.contains(&name) {
                tracing::warn!(directory = name, "removed: an artifact that was never published to its end");
                remove(artifacts.join(name)).await?;
            }
        }
        let uploads = self.store.state().uploads();
        for name in names(&uploads).await? {
            let path = uploads.join(&name);
            let id: Option<Sha256> = name.trim_end_matches(".json").parse().ok();
            let busy = id.is_some_and(|id| self.is_writing(id));
            if !busy && age(&path, self.clock.now()).await.is_none_or(|age| age > FORGET) {
                remove(path).await?;
            }
        }
        Ok(())
    }

    fn is_writing(&self, id: Sha256) -> bool {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn upload_dir(&self, id: Sha256) -> PathBuf {
        self.store.state().uploads().join(id.to_string())
    }

    fn promise_path(&self, id: Sha256) -> PathBuf {
        self.store.state().uploads().join(format!("{id}.json"))
    }
}

fn published_number(statement: &[u8]) -> OrderingNumber {
    match statements::reread(statement).map(|(_, statement)| statement.predicate) {
        Some(Predicate::Published(published)) => published.number,
        Some(
            Predicate::Approval(_)
            | Predicate::Config(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. },
        )
        | None => OrderingNumber::default(),
    }
}

async fn names(dir: &Path) -> Result<Vec<String>, RepositoryError> {
    let mut names = Vec::new();
    let mut entries = fs::read_dir(dir).await.map_err(at(dir))?;
    while let Some(entry) = entries.next_entry().await.map_err(at(dir))? {
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// File or directory, whichever it is; that it is gone is all that matters.
pub(super) async fn remove(path: PathBuf) -> Result<(), RepositoryError> {
    let removed = match fs::symlink_metadata(&path).await {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path).await,
        Ok(_) => fs::remove_file(&path).await,
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Since it was last written to. `None`: it cannot be told.
async fn age(path: &Path, now: UnixMs) -> Option<Duration> {
    let file = path.join("pack.full");
    let metadata = match fs::metadata(&file).await {
        Ok(metadata) => metadata,
        Err(_) => fs::metadata(path).await.ok()?,
    };
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(now.since(UnixMs(u64::try_from(modified.as_millis()).ok()?)))
}
