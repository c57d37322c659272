//! What servers said that they would do: the newest previews.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, ServerName, StepName},
    time::UnixMs,
    trust::Foreseen,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Write, from_text, to_text};
use crate::{
    store::StoreError,
    store::column::{from_u64, parse, to_u64},
};

/// What the preview determined of every server's steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewRow {
    pub digest: Sha256,
    pub app: App,
    pub environment: Environment,
    pub artifact: Sha256,
    pub made: UnixMs,
    pub servers: BTreeMap<ServerName, BTreeMap<StepName, Foreseen>>,
}

/// The highest term that was given there; 0: none.
pub async fn term<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT term FROM terms WHERE app = ? AND environment = ?")
        .bind(app.as_str())
        .bind(environment.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get("term")).transpose()?.map_or(0, to_u64))
}

/// Keeps it with its document, and of all the `keep` newest; documents also as long as a rollout is held to them.
pub async fn put_preview(
    write: &mut Write,
    row: &PreviewRow,
    document: &[u8],
    keep: u32,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR IGNORE INTO plan_documents (digest, document) VALUES (?, ?)")
        .bind(row.digest.to_string())
        .bind(document)
        .execute(&mut **write)
        .await?;
    sqlx::query(
        "INSERT OR REPLACE INTO previews (digest, app, environment, artifact, made_ms, servers)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(row.digest.to_string())
    .bind(row.app.as_str())
    .bind(row.environment.as_str())
    .bind(row.artifact.to_string())
    .bind(from_u64(row.made.0))
    .bind(to_text(&row.servers)?)
    .execute(&mut **write)
    .await?;
    sqlx::query(
        "DELETE FROM previews WHERE number NOT IN (SELECT number FROM previews ORDER BY number DESC LIMIT ?)",
    )
    .bind(i64::from(keep))
    .execute(&mut **write)
    .await?;
    sqlx::query(
        "DELETE FROM plan_documents WHERE digest NOT IN (SELECT digest FROM previews)
         AND digest NOT IN (SELECT json_extract(pinned, '$.digest') FROM rollouts WHERE pinned IS NOT NULL)",
    )
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// What has this digest.
pub async fn plan_document<'e>(
    db: impl SqliteExecutor<'e>,
    digest: Sha256,
) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query_scalar("SELECT document FROM plan_documents WHERE digest = ?");
    Ok(query.bind(digest.to_string()).fetch_optional(db).await?)
}

/// The plan document that the deployment's rollout is held to.
pub async fn plan_document_of<'e>(
    db: impl SqliteExecutor<'e>,
    deployment: &Id,
) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT p.document FROM deployments d JOIN rollouts r ON r.id = d.rollout
         JOIN plan_documents p ON p.digest = json_extract(r.pinned, '$.digest') WHERE d.id = ?",
    );
    Ok(query.bind(deployment.as_str()).fetch_optional(db).await?)
}

/// Those of this digest.
pub async fn previews<'e>(
    db: impl SqliteExecutor<'e>,
    digest: Sha256,
) -> Result<Vec<PreviewRow>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM previews WHERE digest = ?").bind(digest.to_string()).fetch_all(db).await?;
    let preview = |row: &SqliteRow| {
        Ok(PreviewRow {
            digest: parse(row.try_get("digest")?)?,
            app: parse(row.try_get("app")?)?,
            environment: parse(row.try_get("environment")?)?,
            artifact: parse(row.try_get("artifact")?)?,
            made: UnixMs(to_u64(row.try_get("made_ms")?)),
            servers: from_text(row.try_get("servers")?)?,
        })
    };
    rows.iter().map(preview).collect()
}
