//! Finding and reading what is published.

use consign_common::{
    digest::Sha256,
    name::{App, Platform, Version},
    time::UnixMs,
    trust::OrderingNumber,
};
use sqlx::{Row as _, sqlite::SqliteRow};
use tokio::fs;

use super::{Repository, RepositoryError, at};
use crate::store::{
    StoreError, Write,
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

    /// The highest number of its publications.
    pub async fn number(
        &self,
        write: &mut Write,
        digest: Sha256,
    ) -> Result<Option<OrderingNumber>, RepositoryError> {
        let row = sqlx::query("SELECT * FROM artifacts WHERE digest = ?")
            .bind(digest.to_string())
            .fetch_optional(&mut **write)
            .await?;
        Ok(row.as_ref().map(artifact).transpose()?.map(|artifact| artifact.number))
    }

    /// The manifest's bytes, as they were signed.
    pub async fn manifest(&self, digest: Sha256) -> Result<Vec<u8>, RepositoryError> {
        let path = self.manifest_path(digest);
        fs::read(&path).await.map_err(at(path))
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
