//! What agents have seen and this coordinator does not know of: terms that it never gave, deployments that are not here.

use consign_common::{
    audit::About,
    name::{App, Environment, Id, ServerName},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::Write;
use crate::{
    audit::{self, Act},
    rollouts::rows::{Behind, OrderRow},
    store::StoreError,
    store::column::{from_u64, parse, to_u64},
};

/// Of one server: whoever makes up more does not fill the disk with them.
const UNKNOWN_KEPT: i64 = 1000;

/// Why an order stays in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    CoordinatorBehind,
    Quarantined,
}

/// Whether this was known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    News,
    Known,
}

/// A server has seen this term; the highest one stands.
pub async fn mark_behind(
    write: &mut Write,
    app: &App,
    environment: &Environment,
    server: &ServerName,
    term: u64,
    now: UnixMs,
) -> Result<Noted, StoreError> {
    let marked = sqlx::query(
        "INSERT INTO behind (app, environment, term, server, seen_ms) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (app, environment) DO UPDATE SET term = excluded.term, server = excluded.server
         WHERE excluded.term > term",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .bind(from_u64(term))
    .bind(server.as_str())
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    if marked.rows_affected() == 0 {
        return Ok(Noted::Known);
    }
    let mut act = Act::by_itself("coordinator behind", now);
    act.about(About::App, app)
        .about(About::Environment, environment)
        .about(About::Server, server)
        .because(&format!("{server} has seen term {term}, which was never given here"));
    audit::record(write, act).await?;
    Ok(Noted::News)
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT b.*, coalesce(t.term, 0) AS given FROM behind b
             LEFT JOIN terms t ON t.app = b.app AND t.environment = b.environment ",
            $tail
        )
    };
}

pub async fn behind<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<Option<Behind>, StoreError> {
    let row = sqlx::query(select!("WHERE b.app = ? AND b.environment = ?"))
        .bind(app.as_str())
        .bind(environment.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(behind_row).transpose()
}

/// By app and environment.
pub async fn all_behind<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<Behind>, StoreError> {
    let rows = sqlx::query(select!("ORDER BY b.app, b.environment")).fetch_all(db).await?;
    rows.iter().map(behind_row).collect()
}

fn behind_row(row: &SqliteRow) -> Result<Behind, StoreError> {
    Ok(Behind {
        app: parse(row.try_get("app")?)?,
        environment: parse(row.try_get("environment")?)?,
        term: to_u64(row.try_get("term")?),
        given: to_u64(row.try_get("given")?),
        server: parse(row.try_get("server")?)?,
        since: UnixMs(to_u64(row.try_get("seen_ms")?)),
    })
}

/// Goes on above the highest term seen: the mark is cleared, and who took over, and why, is kept. Gives the new term.
pub async fn take_over(
    write: &mut Write,
    behind: &Behind,
    by: &str,
    reason: &str,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let term = behind.term.max(behind.given).saturating_add(1);
    sqlx::query("INSERT OR REPLACE INTO terms (app, environment, term) VALUES (?, ?, ?)")
        .bind(behind.app.as_str())
        .bind(behind.environment.as_str())
        .bind(from_u64(term))
        .execute(&mut **write)
        .await?;
    sqlx::query("DELETE FROM behind WHERE app = ? AND environment = ?")
        .bind(behind.app.as_str())
        .bind(behind.environment.as_str())
        .execute(&mut **write)
        .await?;
    sqlx::query(
        "INSERT INTO take_overs (app, environment, seen, server, term, taken_by, reason, taken_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(behind.app.as_str())
    .bind(behind.environment.as_str())
    .bind(from_u64(behind.term))
    .bind(behind.server.as_str())
    .bind(from_u64(term))
    .bind(by)
    .bind(reason)
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(term)
}

/// Why this order must not be sent now; `None`: it may.
pub async fn held<'e>(db: impl SqliteExecutor<'e>, order: &OrderRow) -> Result<Option<Held>, StoreError> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM deployments d JOIN rollouts r ON r.id = d.rollout
                        JOIN behind b ON b.app = r.app AND b.environment = r.environment WHERE d.id = ?) AS behind,
                EXISTS (SELECT 1 FROM servers WHERE name = ? AND quarantined <> '') AS quarantined",
    )
    .bind(order.deployment.as_str())
    .bind(order.server.as_str())
    .fetch_one(db)
    .await?;
    Ok(match (row.try_get("quarantined")?, row.try_get("behind")?) {
        (true, _) => Some(Held::Quarantined),
        (false, true) => Some(Held::CoordinatorBehind),
        (false, false) => None,
    })
}

/// An agent told of a deployment that is not here.
pub async fn note_unknown(
    write: &mut Write,
    server: &ServerName,
    deployment: &Id,
    now: UnixMs,
) -> Result<Noted, StoreError> {
    let noted = sqlx::query(
        "INSERT OR IGNORE INTO unknown_deployments (server, deployment, seen_ms)
         SELECT name, ?2, ?3 FROM servers
         WHERE name = ?1 AND (SELECT count(*) FROM unknown_deployments WHERE server = ?1) < ?4",
    )
    .bind(server.as_str())
    .bind(deployment.as_str())
    .bind(from_u64(now.0))
    .bind(UNKNOWN_KEPT)
    .execute(&mut **write)
    .await?;
    Ok(if noted.rows_affected() > 0 { Noted::News } else { Noted::Known })
}

pub async fn is_noted<'e>(
    db: impl SqliteExecutor<'e>,
    server: &ServerName,
    deployment: &Id,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM unknown_deployments WHERE server = ? AND deployment = ?")
        .bind(server.as_str())
        .bind(deployment.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}
