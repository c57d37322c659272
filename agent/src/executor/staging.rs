//! From a manifest to a release on disk: the pack is fetched, extracted and checked; a pack that does not hold what the
//! manifest says is fetched once more, and a second one is a refusal.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use consign_common::{
    artifact::{Entry, PackError, Sink, extract},
    deployment::Event,
    limits::ArtifactLimits,
    name::Id,
    trust::authorize::Work,
};
use tokio::{sync::oneshot, time::sleep};

use super::Site;
use crate::{
    core::Input,
    ports::{Fetch, FetchError, Outbound},
    stage::{AppDirectory, Form, StageError, Staging},
};

/// Between two words about how far the transfer is.
const PROGRESS_MS: u64 = 250;
/// How long a coordinator that cannot be reached is waited for; the order stays the agent's meanwhile.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const PAUSE: Duration = Duration::from_secs(2);

/// What is to be staged, and for whom.
#[derive(Debug)]
pub(super) struct Task<F, P, R> {
    pub(super) site: Arc<Site<F, P, R>>,
    pub(super) deployment: Id,
    pub(super) work: Arc<Work>,
    /// Releases that must not be touched, whatever is wrong with them.
    pub(super) in_use: Vec<String>,
}

enum Failed {
    Cancelled,
    Refused { code: String, message: String },
}

impl From<StageError> for Failed {
    fn from(error: StageError) -> Self {
        Self::Refused { code: error.code().to_owned(), message: error.to_string() }
    }
}

impl<F, P, R> Task<F, P, R>
where
    F: Fetch + 'static,
    P: Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    pub(super) async fn run(self, cancelled: oneshot::Receiver<()>) -> Input {
        let stop = Arc::new(AtomicBool::new(false));
        // Also when this future is dropped: what waits for the network goes with it, what writes to the disk sees the flag.
        let _stop = StopOnDrop(stop.clone());
        let pack = self.pack_path();
        let result = tokio::select! {
            result = Arc::new(self).stage(stop) => result,
            _ = cancelled => {
                remove(&pack);
                Err(Failed::Cancelled)
            }
        };
        match result {
            Ok(staged) => staged,
            Err(Failed::Cancelled) => Input::StagingCancelled,
            Err(Failed::Refused { code, message }) => Input::StagingFailed { code, message },
        }
    }

    async fn stage(self: Arc<Self>, stop: Arc<AtomicBool>) -> Result<Input, Failed> {
        let prepared = self.clone().blocking(move |task| task.prepare()).await?;
        if let Some(release) = prepared {
            let reused_bytes = self.work.manifest.total_bytes();
            return Ok(Input::Staged { release, reused_bytes, fetched_bytes: 0 });
        }
        let pack = self.pack_path();
        let mut error = None;
        for _ in 0..2 {
            let fetched_bytes = self.fetch(&pack).await?;
            let (path, stop) = (pack.clone(), stop.clone());
            match self.clone().blocking(move |task| task.extract(&path, &stop)).await {
                Ok(release) => {
                    remove(&pack);
                    return Ok(Input::Staged { release, reused_bytes: 0, fetched_bytes });
                }
                Err(Failed::Refused { code, message }) if code == "pack-mismatch" => {
                    tracing::warn!(message, "a pack is fetched again");
                    remove(&pack);
                    error = Some(Failed::Refused { code, message });
                }
                Err(other) => {
                    remove(&pack);
                    return Err(other);
                }
            }
        }
        Err(error.unwrap_or(Failed::Cancelled))
    }

    /// What can be known before anything is fetched; the release, if it is there already.
    fn prepare(&self) -> Result<Option<String>, Failed> {
        let app = self.open_app()?;
        app.clean().map_err(|source| StageError::Io {
            what: "cannot clean",
            path: app.release_path(""),
            source,
        })?;
        let form = self.form();
        form.check_surroundings(&app)?;
        let in_use: Vec<&str> = self.in_use.iter().map(String::as_str).collect();
        if let Some(release) = form.existing(&app, &in_use)? {
            return Ok(Some(release));
        }
        form.check_space(&app)?;
        let downloads = self.site.downloads();
        fs::create_dir_all(&downloads).map_err(|source| StageError::Io {
            what: "cannot create",
            path: downloads,
            source,
        })?;
        Ok(None)
    }

    async fn fetch(&self, pack: &Path) -> Result<u64, Failed> {
        let told = AtomicU64::new(0);
        let progress = |fetched, total| {
            let at = self.site.now();
            let last = told.load(Ordering::Relaxed);
            if at.0.saturating_sub(last) >= PROGRESS_MS || fetched == total {
                told.store(at.0, Ordering::Relaxed);
                let body = Event::Staging { fetched, total };
                self.site.tell(Outbound::Event {
                    deployment: self.deployment.clone(),
                    sequence: 0,
                    at,
                    body,
                });
            }
        };
        let mut waited = Duration::ZERO;
        loop {
            let limit = pack_limit(self.work.manifest.total_bytes());
            let fetched =
                self.site.fetch.pack(None, self.work.digest, limit, pack.to_owned(), &progress).await;
            let error = match fetched {
                Ok(()) => return Ok(fs::metadata(pack).map_or(0, |file| file.len())),
                Err(error) => error,
            };
            match &error {
                FetchError::Unreachable(_) if waited < PATIENCE => {
                    sleep(PAUSE).await;
                    waited += PAUSE;
                }
                FetchError::Io { path, source } if source.kind() == io::ErrorKind::StorageFull => {
                    let path = path.clone();
                    remove(pack);
                    let message = format!("{} is full; the pack could not be stored", path.display());
                    return Err(Failed::Refused { code: "disk-full".to_owned(), message });
                }
                FetchError::Unreachable(_) | FetchError::Io { .. } => return Err(not_fetched(&error)),
                // What is here cannot be continued.
                FetchError::NotFound(_)
                | FetchError::TooLong(_)
                | FetchError::OutOfRange(_)
                | FetchError::Malformed(_) => {
                    remove(pack);
                    return Err(not_fetched(&error));
                }
            }
        }
    }

    fn extract(&self, pack: &Path, stop: &AtomicBool) -> Result<String, Failed> {
        let app = self.open_app()?;
        let form = self.form();
        let staging = Staging::create(&form, &app)?;
        let io = |what, source| StageError::Io { what, path: pack.to_owned(), source };
        let file = File::open(pack).map_err(|source| io("cannot open", source))?;
        let mut sink = Stoppable { staging, stop };
        let limits = ArtifactLimits::default();
        match extract(&mut BufReader::new(file), &self.work.manifest, &limits, &mut sink) {
            Ok(()) => Ok(sink.staging.finish()?),
            Err(PackError::Write(_)) if stop.load(Ordering::Relaxed) => {
                drop(sink);
                // The next staging of this app would do it as well.
                app.clean().map_err(|source| io("cannot clean", source))?;
                Err(Failed::Cancelled)
            }
            Err(error) => {
                if let Err(error) = app.clean() {
                    tracing::warn!(%error, "a half-written release could not be removed");
                }
                let path = app.release_path("");
                let failed = if let PackError::Write(source) = error {
                    StageError::Io { what: "cannot write a release into", path, source }
                } else if let PackError::Read(source) = error {
                    io("cannot read", source)
                } else {
                    StageError::Mismatch { why: error.to_string() }
                };
                Err(failed.into())
            }
        }
    }

    fn open_app(&self) -> Result<AppDirectory, StageError> {
        AppDirectory::open(self.site.apps(), &self.work.manifest.app)
    }

    fn form(&self) -> Form<'_> {
        Form {
            digest: self.work.digest,
            manifest: &self.work.manifest,
            plan: &self.work.plan,
            privilege: &self.site.privilege,
        }
    }

    fn pack_path(&self) -> PathBuf {
        self.site.downloads().join(format!("{}.pack", self.work.digest))
    }

    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        act: impl FnOnce(&Self) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        tokio::task::spawn_blocking(move || act(&self)).await.unwrap_or_else(|error| {
            Err(Failed::Refused { code: "staging-failed".to_owned(), message: error.to_string() })
        })
    }
}

/// The most that a pack of so many bytes of files can be, with what framing and incompressible content add. The signed
/// manifest says how many they are, so that no coordinator fills this server's disk with others.
fn pack_limit(files: u64) -> u64 {
    files.saturating_add(files / 128).saturating_add(1 << 20)
}

fn not_fetched(error: &FetchError) -> Failed {
    Failed::Refused { code: "fetch-failed".to_owned(), message: error.to_string() }
}

fn remove(pack: &Path) {
    match fs::remove_file(pack) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %pack.display(), "a pack could not be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A staging that ends at the next write once it is told to.
struct Stoppable<'a> {
    staging: Staging<'a>,
    stop: &'a AtomicBool,
}

impl Sink for Stoppable<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.staging.begin(entry)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        self.staging.write(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.staging.end()
    }
}
