//! Rollouts and their terms.

use consign_common::{
    name::{App, Environment, Id},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Write, from_text, to_text};
use crate::{
    rollouts::rows::{Again, RolloutRow},
    store::StoreError,
    store::column::{from_u64, parse, parse_opt, to_u64},
};

/// A term higher than every one before for this app and environment.
pub async fn raise_term(write: &mut Write, app: &App, environment: &Environment) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "INSERT INTO terms (app, environment, term) VALUES (?, ?, 1)
         ON CONFLICT (app, environment) DO UPDATE SET term = term + 1 RETURNING term",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .fetch_one(&mut **write)
    .await?;
    Ok(to_u64(row.try_get("term")?))
}

pub async fn add_rollout(write: &mut Write, row: &RolloutRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rollouts (id, app, environment, version, digest, waves, force, term, started_by, reason,
                               started_ms, asked_ms, ended_ms, standing, under_way, selector, pinned, state)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.id.as_str())
    .bind(row.app.as_str())
    .bind(row.environment.as_str())
    .bind(row.version.as_str())
    .bind(row.digest.to_string())
    .bind(to_text(&row.waves)?)
    .bind(row.again == Again::Force)
    .bind(from_u64(row.term))
    .bind(&row.started_by)
    .bind(&row.reason)
    .bind(from_u64(row.started.0))
    .bind(from_u64(row.asked.0))
    .bind(from_u64(row.ended.0))
    .bind(row.standing())
    .bind(row.state.is_under_way())
    .bind(&row.selector)
    .bind(row.pinned.as_ref().map(to_text).transpose()?)
    .bind(to_text(&row.state)?)
    .execute(&mut **write)
    .await?;
    Ok(())
}

pub async fn save_rollout(write: &mut Write, row: &RolloutRow) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rollouts SET state = ?, standing = ?, under_way = ?, term = ?, asked_ms = ?, ended_ms = ?, rolled_back_by = ?
         WHERE id = ?",
    )
        .bind(to_text(&row.state)?)
        .bind(row.standing())
        .bind(row.state.is_under_way())
        .bind(from_u64(row.term))
        .bind(from_u64(row.asked.0))
        .bind(from_u64(row.ended.0))
        .bind(row.rolled_back_by.as_ref().map(Id::as_str))
        .bind(row.id.as_str())
        .execute(&mut **write)
        .await?;
    Ok(())
}

pub async fn rollout<'e>(db: impl SqliteExecutor<'e>, id: &Id) -> Result<Option<RolloutRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM rollouts WHERE id = ?").bind(id.as_str()).fetch_optional(db).await?;
    row.as_ref().map(rollout_row).transpose()
}

/// The rollouts whose id begins with this.
pub async fn rollouts_like<'e>(
    db: impl SqliteExecutor<'e>,
    prefix: &str,
) -> Result<Vec<RolloutRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM rollouts WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2")
        .bind(prefix)
        .fetch_all(db)
        .await?;
    rows.iter().map(rollout_row).collect()
}

/// Queued and active ones, and ended ones that servers still converge to; oldest first.
pub async fn open<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<RolloutRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM rollouts WHERE standing <> 'ended' OR under_way ORDER BY rowid")
        .fetch_all(db)
        .await?;
    rows.iter().map(rollout_row).collect()
}

/// Newest first; no app or environment means any.
pub async fn list<'e>(
    db: impl SqliteExecutor<'e>,
    app: Option<&App>,
    environment: Option<&Environment>,
    limit: u32,
) -> Result<Vec<RolloutRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM rollouts WHERE (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR environment = ?2)
         ORDER BY rowid DESC LIMIT ?3",
    )
    .bind(app.map(App::as_str))
    .bind(environment.map(Environment::as_str))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(rollout_row).collect()
}

/// Ended ones beyond the `keep` newest of their app and environment, oldest first.
pub async fn ended_beyond<'e>(db: impl SqliteExecutor<'e>, keep: u32) -> Result<Vec<Id>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM (
             SELECT rowid AS place, id,
                    row_number() OVER (PARTITION BY app, environment ORDER BY rowid DESC) AS newest
             FROM rollouts WHERE standing = 'ended' AND NOT under_way)
         WHERE newest > ? ORDER BY place",
    )
    .bind(i64::from(keep))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| parse(row.try_get("id")?)).collect()
}

/// With all that belongs to it.
pub async fn delete_rollout(write: &mut Write, id: &Id) -> Result<(), StoreError> {
    for delete in [
        "DELETE FROM changes WHERE rollout = ?",
        "DELETE FROM logs WHERE deployment IN (SELECT id FROM deployments WHERE rollout = ?)",
        "DELETE FROM orders WHERE deployment IN (SELECT id FROM deployments WHERE rollout = ?)",
        "DELETE FROM deployment_events WHERE deployment IN (SELECT id FROM deployments WHERE rollout = ?)",
        "DELETE FROM deployments WHERE rollout = ?",
        "DELETE FROM rollout_history WHERE rollout = ?",
        "DELETE FROM rollouts WHERE id = ?",
    ] {
        sqlx::query(delete).bind(id.as_str()).execute(&mut **write).await?;
    }
    Ok(())
}

fn rollout_row(row: &SqliteRow) -> Result<RolloutRow, StoreError> {
    Ok(RolloutRow {
        id: parse(row.try_get("id")?)?,
        app: parse(row.try_get("app")?)?,
        environment: parse(row.try_get("environment")?)?,
        version: parse(row.try_get("version")?)?,
        digest: parse(row.try_get("digest")?)?,
        waves: from_text(row.try_get("waves")?)?,
        again: if row.try_get("force")? { Again::Force } else { Again::LeaveAlone },
        term: to_u64(row.try_get("term")?),
        started_by: row.try_get("started_by")?,
        reason: row.try_get("reason")?,
        started: UnixMs(to_u64(row.try_get("started_ms")?)),
        asked: UnixMs(to_u64(row.try_get("asked_ms")?)),
        ended: UnixMs(to_u64(row.try_get("ended_ms")?)),
        state: from_text(row.try_get("state")?)?,
        selector: row.try_get("selector")?,
        rolled_back_by: parse_opt(row.try_get("rolled_back_by")?)?,
        pinned: row.try_get::<Option<&str>, _>("pinned")?.map(from_text).transpose()?,
        changed: to_u64(row.try_get("changed")?),
    })
}
