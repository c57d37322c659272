//! The artifacts that were published: `artifacts/<digest>/{manifest.json, pack.full}`, each with a row that finds it by
//! app and version; and what was signed about them, in rows.
//!
//! The row is what makes it published. Files come first (whole, checked, synced, then renamed into place) and the row
//! last; they go in the opposite order. So a crash leaves at most a directory without a row, which the next start
//! removes.

mod attest;
mod catalogue;
mod publication;
mod relevant;
mod retention;
mod statements;
mod upload;

use std::{io, path::PathBuf, sync::Arc};

pub use attest::{Attested, Bringer, Brings};
pub use catalogue::{Artifact, Wanted};
use consign_common::{
    digest::Sha256,
    limits::ArtifactLimits,
    name::{App, Environment, Platform, Version},
    time::Clock,
    trust::Refusal,
};
pub use publication::{Begun, Publication};
pub use relevant::{Purpose, relevant};
pub use retention::KEEP;
pub use statements::{Kept, Novelty};
pub use upload::{Ended, Upload};

use crate::{
    store::{Store, StoreError},
    trust_roots::TrustRoots,
};

#[derive(Debug)]
pub struct Repository {
    store: Arc<Store>,
    trust_roots: Arc<TrustRoots>,
    limits: ArtifactLimits,
    clock: Arc<dyn Clock>,
    /// Held while a directory becomes an artifact, or is removed: both are a rename and a row.
    changing: tokio::sync::Mutex<()>,
    /// Uploads that somebody is writing to.
    writing: std::sync::Mutex<std::collections::BTreeSet<Sha256>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("manifest: {0}")]
    Manifest(String),
    #[error("{code}: {0}", code = .0.code())]
    Refused(#[from] Refusal),
    #[error("wrong-statement: {0}")]
    Statement(&'static str),
    #[error("signer-unknown: {what} by {by} does not count: {may} may sign it")]
    SignerUnknown { what: &'static str, by: String, may: String },
    #[error(
        "not-asked: no gate of {environment} asks for an approval; `consign trust show` shows what it asks for"
    )]
    NotAsked { environment: Environment },
    #[error(
        "statements-full: {most} statements that no gate asks for are kept about an artifact, and there are as many"
    )]
    StatementsFull { most: usize },
    #[error(
        "statements-too-large: with this one, what goes with an order to {environment} has {bytes} bytes, and at most {most} do; \
         shorten its predicate"
    )]
    StatementsTooLarge { environment: Environment, bytes: usize, most: usize },
    #[error(
        "not-your-app: this identity is not for {app}; an admin gives it more with `consign operator add --replace --app`"
    )]
    NotYourApp { app: App },
    #[error("the role viewer brings approvals only")]
    BringsApprovalsOnly,
    #[error(
        "version-exists: {app} {version}{} is published already with other content ({digest}); a version is one content for ever, so publish this under a new one",
        .platform.as_ref().map(|platform| format!(" for {platform}")).unwrap_or_default()
    )]
    VersionExists { app: App, version: Version, platform: Option<Platform>, digest: Sha256 },
    #[error("pack-invalid: {0}; nothing was stored, publish again")]
    Pack(String),
    #[error("pack-too-long: {given} bytes, an artifact may have {limit}")]
    PackTooLong { given: u64, limit: u64 },
    #[error("there is no upload {id}; begin the publication again")]
    UploadUnknown { id: String },
    #[error("another client is uploading this very artifact; try again when it has ended")]
    UploadBusy,
    #[error("the upload continues at byte {expected}, not at {given}")]
    Offset { given: u64, expected: u64 },
    #[error("there is no artifact {wanted}; `consign artifact list` shows those there are")]
    Unknown { wanted: String },
    #[error("there are artifacts of {wanted} for several platforms; say which: {platforms}")]
    Ambiguous { wanted: String, platforms: String },
    #[error("failed to use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RepositoryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Repository {
    pub fn new(
        store: Arc<Store>,
        trust_roots: Arc<TrustRoots>,
        limits: ArtifactLimits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            trust_roots,
            limits,
            clock,
            changing: tokio::sync::Mutex::default(),
            writing: std::sync::Mutex::default(),
        }
    }

    pub fn manifest_path(&self, digest: Sha256) -> PathBuf {
        self.dir(digest).join("manifest.json")
    }

    pub fn pack_path(&self, digest: Sha256) -> PathBuf {
        self.dir(digest).join("pack.full")
    }

    fn dir(&self, digest: Sha256) -> PathBuf {
        self.store.state().artifacts().join(digest.to_string())
    }
}

/// For `map_err` at a path.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> RepositoryError {
    let path = path.into();
    move |source| RepositoryError::Io { path, source }
}
