//! What a rollout needs of the repository and of the trust root in force: read only.

use std::{io, path::PathBuf, sync::Arc};

use consign_common::{
    digest::Sha256,
    json,
    limits::{ArtifactLimits, ENVELOPE_BYTES, STATEMENTS, TRUST_ROOT_BYTES},
    name::{App, Platform, Version},
    trust::{Envelope, TrustRoot},
};
use sqlx::Row as _;

use crate::store::{Store, StoreError, column::parse};

#[derive(Clone, Debug)]
pub struct Library {
    store: Arc<Store>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stocked {
    pub digest: Sha256,
    pub platform: Option<Platform>,
}

#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path} cannot be read")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is longer than the {max} bytes that it may be")]
    TooLong { path: PathBuf, max: u64 },
    #[error("the trust root in the database cannot be read: {why}")]
    TrustRoot { why: String },
}

impl Library {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The artifacts of this version, one per platform.
    pub async fn find(&self, app: &App, version: &Version) -> Result<Vec<Stocked>, LibraryError> {
        let rows = sqlx::query(
            "SELECT digest, platform FROM artifacts WHERE app = ? AND version = ? ORDER BY platform",
        )
        .bind(app.as_str())
        .bind(version.as_str())
        .fetch_all(self.store.read())
        .await
        .map_err(StoreError::from)?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let platform: &str = row.try_get("platform").map_err(StoreError::from)?;
            let platform = if platform.is_empty() { None } else { Some(parse(platform)?) };
            found
                .push(Stocked { digest: parse(row.try_get("digest").map_err(StoreError::from)?)?, platform });
        }
        Ok(found)
    }

    pub fn manifest_path(&self, digest: &Sha256) -> PathBuf {
        self.artifact(digest).join("manifest.json")
    }

    pub fn pack_path(&self, digest: &Sha256) -> PathBuf {
        self.artifact(digest).join("pack.full")
    }

    pub async fn manifest(&self, digest: &Sha256) -> Result<Vec<u8>, LibraryError> {
        read(self.manifest_path(digest), ArtifactLimits::default().manifest_bytes).await
    }

    /// All statements about the artifact, in the order of their file names.
    pub async fn statements(&self, digest: &Sha256) -> Result<Vec<Vec<u8>>, LibraryError> {
        let directory = self.artifact(digest).join("statements");
        let failed = |source| LibraryError::Io { path: directory.clone(), source };
        let mut entries = tokio::fs::read_dir(&directory).await.map_err(failed)?;
        let mut paths = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            paths.push(entry.path());
        }
        paths.sort();
        // The newest are what a new order needs; an agent refuses more than it may take.
        let skipped = paths.len().saturating_sub(STATEMENTS);
        let mut statements = Vec::new();
        for path in paths.into_iter().skip(skipped) {
            statements.push(read(path, ENVELOPE_BYTES).await?);
        }
        Ok(statements)
    }

    /// The trust root in force; it was verified when it was put there.
    pub async fn trust_root(&self) -> Result<TrustRoot, LibraryError> {
        let invalid = |why: String| LibraryError::TrustRoot { why };
        let row = sqlx::query("SELECT envelope FROM trust_roots ORDER BY version DESC LIMIT 1")
            .fetch_optional(self.store.read())
            .await
            .map_err(StoreError::from)?
            .ok_or_else(|| invalid("there is none".to_owned()))?;
        let bytes: &[u8] = row.try_get("envelope").map_err(StoreError::from)?;
        let envelope =
            Envelope::parse(bytes, TRUST_ROOT_BYTES).map_err(|refusal| invalid(refusal.to_string()))?;
        json::from_slice(envelope.payload(), TRUST_ROOT_BYTES).map_err(|error| invalid(error.to_string()))
    }

    /// Envelopes of the versions after this one, ascending.
    pub async fn trust_roots_after(&self, version: u64) -> Result<Vec<Vec<u8>>, LibraryError> {
        let rows = sqlx::query("SELECT envelope FROM trust_roots WHERE version > ? ORDER BY version")
            .bind(crate::store::column::from_u64(version))
            .fetch_all(self.store.read())
            .await
            .map_err(StoreError::from)?;
        let envelope = |row: &sqlx::sqlite::SqliteRow| row.try_get("envelope").map_err(StoreError::from);
        Ok(rows.iter().map(envelope).collect::<Result<_, _>>()?)
    }

    /// Who we are to agents: the id in our certificate.
    pub async fn coordinator(&self) -> Result<String, LibraryError> {
        let row = sqlx::query("SELECT id FROM coordinator")
            .fetch_one(self.store.read())
            .await
            .map_err(StoreError::from)?;
        Ok(row.try_get("id").map_err(StoreError::from)?)
    }

    fn artifact(&self, digest: &Sha256) -> PathBuf {
        self.store.state().artifacts().join(digest.to_string())
    }
}

async fn read(path: PathBuf, max: usize) -> Result<Vec<u8>, LibraryError> {
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    let length = match tokio::fs::metadata(&path).await {
        Ok(metadata) => metadata.len(),
        Err(source) => return Err(LibraryError::Io { path, source }),
    };
    if length > max {
        return Err(LibraryError::TooLong { path, max });
    }
    tokio::fs::read(&path).await.map_err(|source| LibraryError::Io { path, source })
}
