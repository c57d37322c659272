//! Who did what to a rollout; and what nobody may begin.

use consign_common::{
    name::{App, Environment, Id},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::Write;
use crate::{
    audit,
    rollouts::rows::{HistoryRow, Hold},
    store::StoreError,
    store::column::{from_u64, parse, to_u64},
    webhooks::{self, Event, EventKind, Told},
};

pub async fn add_history(write: &mut Write, rollout: &Id, row: &HistoryRow) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO rollout_history (rollout, at_ms, who, what, because) VALUES (?, ?, ?, ?, ?)")
        .bind(rollout.as_str())
        .bind(from_u64(row.at.0))
        .bind(&row.who)
        .bind(&row.what)
        .bind(&row.because)
        .execute(&mut **write)
        .await?;
    if row.who.is_empty() {
        if !is_progress(&row.what) {
            audit::own(write, rollout, &format!("rollout: {}", row.what), &row.because, row.at).await?;
        }
        webhooks::store::of_rollout(write, rollout, &row.what, &row.because, row.at).await?;
        return Ok(());
    }
    let about = audit::store::of_rollout(write, rollout).await?;
    audit::note(|act| act.fill(about));
    Ok(())
}

/// What only goes on as it was decided: later waves, and the stages of each.
fn is_progress(what: &str) -> bool {
    what.starts_with("wave ") && what != "wave 1"
}

/// Oldest first.
pub async fn history<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
    limit: u32,
) -> Result<Vec<HistoryRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM rollout_history WHERE rollout = ? ORDER BY number LIMIT ?")
        .bind(rollout.as_str())
        .bind(limit)
        .fetch_all(db)
        .await?;
    let row = |row: &SqliteRow| {
        Ok(HistoryRow {
            at: UnixMs(to_u64(row.try_get("at_ms")?)),
            who: row.try_get("who")?,
            what: row.try_get("what")?,
            because: row.try_get("because")?,
        })
    };
    rows.iter().map(row).collect()
}

/// The newest hold stands.
pub async fn put_hold(write: &mut Write, hold: &Hold) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO holds (app, environment, because, who, at_ms) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(hold.app.as_str())
    .bind(hold.environment.as_str())
    .bind(&hold.because)
    .bind(&hold.who)
    .bind(from_u64(hold.at.0))
    .execute(&mut **write)
    .await?;
    let (app, environment) = (Some(hold.app.clone()), Some(hold.environment.clone()));
    let by = Some(hold.who.clone()).filter(|who| !who.is_empty());
    let about = Told { app, environment, by, because: Some(hold.because.clone()), ..Told::default() };
    webhooks::emit(write, Event { kind: EventKind::HoldPlaced, at: hold.at, about }).await
}

pub async fn hold<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<Option<Hold>, StoreError> {
    let row = sqlx::query("SELECT * FROM holds WHERE app = ? AND environment = ?")
        .bind(app.as_str())
        .bind(environment.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(hold_row).transpose()
}

pub async fn holds<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<Hold>, StoreError> {
    let rows = sqlx::query("SELECT * FROM holds ORDER BY environment, app").fetch_all(db).await?;
    rows.iter().map(hold_row).collect()
}

pub async fn lift_hold(write: &mut Write, app: &App, environment: &Environment) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM holds WHERE app = ? AND environment = ?")
        .bind(app.as_str())
        .bind(environment.as_str())
        .execute(&mut **write)
        .await?;
    Ok(())
}

fn hold_row(row: &SqliteRow) -> Result<Hold, StoreError> {
    Ok(Hold {
        app: parse(row.try_get("app")?)?,
        environment: parse(row.try_get("environment")?)?,
        because: row.try_get("because")?,
        who: row.try_get("who")?,
        at: UnixMs(to_u64(row.try_get("at_ms")?)),
    })
}
