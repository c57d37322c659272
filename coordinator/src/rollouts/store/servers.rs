//! What servers have of an app, as deployments changed it.

use consign_common::{
    digest::Sha256,
    name::{App, ServerName, Version},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor};

use super::Write;
use crate::{
    audit::{self, Rearm},
    rollouts::rows::Pointers,
    store::StoreError,
    store::column::{from_u64, parse_opt},
};

pub async fn pointers<'e>(
    db: impl SqliteExecutor<'e>,
    server: &ServerName,
    app: &App,
) -> Result<Pointers, StoreError> {
    let row = sqlx::query("SELECT good, before FROM server_apps WHERE server = ? AND app = ?")
        .bind(server.as_str())
        .bind(app.as_str())
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(Pointers::default()) };
    Ok(Pointers { good: parse_opt(row.try_get("good")?)?, before: parse_opt(row.try_get("before")?)? })
}

/// How far the server's journal has come, with the event that shows it: a copy that is behind that is known for one.
pub async fn note_position(write: &mut Write, server: &ServerName, position: u64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE servers SET journal_position = max(journal_position, ?) WHERE name = ? AND journal <> ''",
    )
    .bind(from_u64(position))
    .bind(server.as_str())
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// A deployment succeeded: what was good is before.
pub async fn became_good(
    write: &mut Write,
    server: &ServerName,
    app: &App,
    digest: &Sha256,
    version: &Version,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO server_apps (server, app, good, good_version, current)
         SELECT name, ?2, ?3, ?4, ?3 FROM servers WHERE name = ?1
         ON CONFLICT (server, app) DO UPDATE SET
             before = CASE WHEN good = ?3 THEN before ELSE good END,
             good = ?3, good_version = ?4, current = ?3",
    )
    .bind(server.as_str())
    .bind(app.as_str())
    .bind(digest.to_string())
    .bind(version.as_str())
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// A return succeeded: what was before is good, and there is nothing before it.
pub async fn went_back(
    write: &mut Write,
    server: &ServerName,
    app: &App,
    digest: &Sha256,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE server_apps SET good = ?3, current = ?3, before = NULL,
             good_version = coalesce((SELECT version FROM artifacts WHERE digest = ?3), '')
         WHERE server = ?1 AND app = ?2",
    )
    .bind(server.as_str())
    .bind(app.as_str())
    .bind(digest.to_string())
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// A deployment did not succeed there: `rearm` holds, as its agent has it, and will say itself when it connects.
pub async fn failed(write: &mut Write, server: &ServerName, app: &App, at: UnixMs) -> Result<(), StoreError> {
    let change = Rearm::between(is_armed(write, server, app).await?, true);
    audit::rearm(write, server, app, change, at).await?;
    sqlx::query(
        "INSERT INTO server_apps (server, app, failed_epoch, failed_ms)
         SELECT name, ?2, 0, ?3 FROM servers WHERE name = ?1
         ON CONFLICT (server, app) DO UPDATE SET failed_epoch = epoch, failed_ms = max(ms, ?3)",
    )
    .bind(server.as_str())
    .bind(app.as_str())
    .bind(from_u64(at.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

async fn is_armed(write: &mut Write, server: &ServerName, app: &App) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM server_apps WHERE server = ? AND app = ? AND failed_ms IS NOT NULL")
        .bind(server.as_str())
        .bind(app.as_str())
        .fetch_optional(&mut **write)
        .await?;
    Ok(row.is_some())
}

/// It has accepted an order with this config, and takes none before it any more.
pub async fn config_accepted(
    write: &mut Write,
    server: &ServerName,
    app: &App,
    sequence: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO server_apps (server, app, config_sequence)
         SELECT name, ?2, ?3 FROM servers WHERE name = ?1
         ON CONFLICT (server, app) DO UPDATE SET config_sequence = max(config_sequence, ?3)",
    )
    .bind(server.as_str())
    .bind(app.as_str())
    .bind(from_u64(sequence))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// One succeeded.
pub async fn failed_no_more(
    write: &mut Write,
    server: &ServerName,
    app: &App,
    at: UnixMs,
) -> Result<(), StoreError> {
    let change = Rearm::between(is_armed(write, server, app).await?, false);
    audit::rearm(write, server, app, change, at).await?;
    sqlx::query("UPDATE server_apps SET failed_epoch = NULL, failed_ms = NULL WHERE server = ? AND app = ?")
        .bind(server.as_str())
        .bind(app.as_str())
        .execute(&mut **write)
        .await?;
    Ok(())
}
