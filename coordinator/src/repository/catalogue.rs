//! Finding and reading what is published.

use std::path::Path;

use consign_common::{
    digest::Sha256,
    limits::STATEMENTS,
    name::{App, Platform, Version},
    time::UnixMs,
    trust::{Envelope, OrderingNumber, Predicate, Statement},
};
use sqlx::{Row as _, sqlite::SqliteRow};
use tokio::fs;

use super::{Repository, RepositoryError, at};
use crate::store::{
    StoreError,
    column::{parse, to_u64},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub digest: Sha256,
    pub app: App,
    pub version: Version,
    pub platform: Option<Platform>,
    pub entries: u64,
    /// Sum of file sizes.
    pub bytes: u64,
    pub pack_bytes: u64,
    pub added: UnixMs,
    /// The highest of its publications.
    pub number: OrderingNumber,
}

/// Which artifact is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Digest(Sha256),
    Version { app: App, version: Version, platform: Option<Platform> },
}

impl Repository {
    /// Newest publication first; of one app, or of all.
    pub async fn list(&self, app: Option<&App>) -> Result<Vec<Artifact>, RepositoryError> {
        let rows =
            sqlx::query("SELECT * FROM artifacts WHERE ?1 IS NULL OR app = ?1 ORDER BY ms DESC, digest")
                .bind(app.map(App::as_str))
                .fetch_all(self.store.read())
                .await?;
        Ok(rows.iter().map(artifact).collect::<Result<_, _>>()?)
    }

    pub async fn find(&self, wanted: &Wanted) -> Result<Artifact, RepositoryError> {
        let rows = match wanted {
            Wanted::Digest(digest) => {
                sqlx::query("SELECT * FROM artifacts WHERE digest = ?").bind(digest.to_string())
            }
            Wanted::Version { app, version, platform } => sqlx::query(
                "SELECT * FROM artifacts WHERE app = ?1 AND version = ?2 AND (?3 IS NULL OR platform = ?3)",
            )
            .bind(app.as_str())
            .bind(version.as_str())
            .bind(platform.as_ref().map(Platform::as_str)),
        }
        .fetch_all(self.store.read())
        .await?;
        let mut found = rows.iter().map(artifact).collect::<Result<Vec<_>, _>>()?;
        let name = || match wanted {
            Wanted::Digest(digest) => digest.to_string(),
            Wanted::Version { app, version, platform: None } => format!("{app}@{version}"),
            Wanted::Version { app, version, platform: Some(platform) } => {
                format!("{app}@{version} for {platform}")
            }
        };
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => Err(RepositoryError::Unknown { wanted: name() }),
            (Some(last), false) => {
                found.push(last);
                let platforms: Vec<_> = found
                    .iter()
                    .map(|artifact| artifact.platform.as_ref().map_or("(none)", Platform::as_str))
                    .collect();
                Err(RepositoryError::Ambiguous { wanted: name(), platforms: platforms.join(", ") })
            }
        }
    }

    /// The artifacts of this version, one per platform.
    pub async fn of_version(&self, app: &App, version: &Version) -> Result<Vec<Artifact>, RepositoryError> {
        let rows = sqlx::query("SELECT * FROM artifacts WHERE app = ? AND version = ? ORDER BY platform")
            .bind(app.as_str())
            .bind(version.as_str())
            .fetch_all(self.store.read())
            .await?;
        Ok(rows.iter().map(artifact).collect::<Result<_, _>>()?)
    }

    /// The manifest's bytes, as they were signed.
    pub async fn manifest(&self, digest: Sha256) -> Result<Vec<u8>, RepositoryError> {
        let path = self.manifest_path(digest);
        fs::read(&path).await.map_err(at(path))
    }

    /// The envelopes about it, newest publication first, as many as go with one order.
    pub async fn statements(&self, digest: Sha256) -> Result<Vec<Vec<u8>>, RepositoryError> {
        let dir = self.dir(digest).join("statements");
        // Servers may go back to what another coordinator gave them, which needs no statement.
        if !fs::try_exists(&dir).await.map_err(at(&dir))? {
            return Ok(Vec::new());
        }
        let found = statements_in(&dir).await?;
        Ok(found.into_iter().map(|(_, envelope)| envelope).collect())
    }
}

/// All statements of a directory with their numbers, newest first. What does not read as one is not among them.
pub(super) async fn statements_in(dir: &Path) -> Result<Vec<(OrderingNumber, Vec<u8>)>, RepositoryError> {
    let mut found = Vec::new();
    let mut entries = fs::read_dir(dir).await.map_err(at(dir))?;
    while let Some(entry) = entries.next_entry().await.map_err(at(dir))? {
        let bytes = fs::read(entry.path()).await.map_err(at(entry.path()))?;
        match number(&bytes) {
            Some(number) => found.push((number, bytes)),
            None => tracing::warn!(path = %entry.path().display(), "this is no statement"),
        }
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.truncate(STATEMENTS);
    Ok(found)
}

/// The number of a publication that was verified when it came.
pub(super) fn number(envelope: &[u8]) -> Option<OrderingNumber> {
    let envelope = Envelope::parse(envelope, consign_common::limits::ENVELOPE_BYTES).ok()?;
    match Statement::parse(envelope.payload()).ok()?.predicate {
        Predicate::Published(published) => Some(published.number),
        Predicate::Approval(approval) => Some(approval.number),
        Predicate::Config(_)
        | Predicate::Enrolled(_)
        | Predicate::Decision(_)
        | Predicate::Foreign { .. } => None,
    }
}

fn artifact(row: &SqliteRow) -> Result<Artifact, StoreError> {
    let number = |column| -> Result<u64, StoreError> { Ok(to_u64(row.try_get(column)?)) };
    let platform: &str = row.try_get("platform")?;
    Ok(Artifact {
        digest: parse(row.try_get("digest")?)?,
        app: parse(row.try_get("app")?)?,
        version: parse(row.try_get("version")?)?,
        platform: if platform.is_empty() { None } else { Some(parse(platform)?) },
        entries: number("entries")?,
        bytes: number("bytes")?,
        pack_bytes: number("pack_bytes")?,
        added: UnixMs(number("added_ms")?),
        number: OrderingNumber { epoch: number("epoch")?, ms: UnixMs(number("ms")?) },
    })
}
