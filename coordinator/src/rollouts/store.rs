//! Queries over rollouts, deployments, orders and the feed. Writing ones take the one writing transaction, so that what
//! the engine decided, the orders that follow and the changes that followers see become durable together or not at all.

use consign_common::{
    deployment::Attempt,
    digest::Sha256,
    json,
    name::{App, Environment, Id, ServerName, Version},
    time::UnixMs,
};
use serde::de::DeserializeOwned;
use sqlx::{Row as _, Sqlite, SqliteExecutor, Transaction, sqlite::SqliteRow};

use super::rows::{
    Again, Change, Changed, DeploymentRow, LogLength, OrderRow, OrderTag, Pointers, RolloutRow,
};
use crate::store::{
    StoreError,
    column::{from_u64, parse, parse_opt, to_u64},
};

pub type Write = Transaction<'static, Sqlite>;

/// Bytes of a state or view that we wrote ourselves; a fleet of ten thousand stays far below.
const OWN_JSON_BYTES: usize = 64 << 20;

// Rollouts.

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
                               started_ms, ended_ms, standing, state)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    .bind(from_u64(row.ended.0))
    .bind(row.standing())
    .bind(to_text(&row.state)?)
    .execute(&mut **write)
    .await?;
    Ok(())
}

pub async fn save_rollout(write: &mut Write, row: &RolloutRow) -> Result<(), StoreError> {
    sqlx::query("UPDATE rollouts SET state = ?, standing = ?, ended_ms = ? WHERE id = ?")
        .bind(to_text(&row.state)?)
        .bind(row.standing())
        .bind(from_u64(row.ended.0))
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

/// Queued and active ones, oldest first.
pub async fn unended<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<RolloutRow>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM rollouts WHERE standing <> 'ended' ORDER BY rowid").fetch_all(db).await?;
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
             FROM rollouts WHERE standing = 'ended')
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
        ended: UnixMs(to_u64(row.try_get("ended_ms")?)),
        state: from_text(row.try_get("state")?)?,
        changed: to_u64(row.try_get("changed")?),
    })
}

// Deployments.

pub async fn add_deployment(write: &mut Write, row: &DeploymentRow) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO deployments (id, rollout, server, digest, view) VALUES (?, ?, ?, ?, ?)")
        .bind(row.id.as_str())
        .bind(row.rollout.as_str())
        .bind(row.server.as_str())
        .bind(row.digest.map(|digest| digest.to_string()))
        .bind(to_text(&row.view)?)
        .execute(&mut **write)
        .await?;
    Ok(())
}

pub async fn save_deployment(write: &mut Write, row: &DeploymentRow) -> Result<(), StoreError> {
    sqlx::query("UPDATE deployments SET digest = ?, sequence = ?, view = ? WHERE id = ?")
        .bind(row.digest.map(|digest| digest.to_string()))
        .bind(from_u64(row.sequence))
        .bind(to_text(&row.view)?)
        .bind(row.id.as_str())
        .execute(&mut **write)
        .await?;
    Ok(())
}

pub async fn deployment<'e>(
    db: impl SqliteExecutor<'e>,
    id: &Id,
) -> Result<Option<DeploymentRow>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM deployments WHERE id = ?").bind(id.as_str()).fetch_optional(db).await?;
    row.as_ref().map(deployment_row).transpose()
}

/// By server.
pub async fn deployments<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
) -> Result<Vec<DeploymentRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM deployments WHERE rollout = ? ORDER BY server")
        .bind(rollout.as_str())
        .fetch_all(db)
        .await?;
    rows.iter().map(deployment_row).collect()
}

/// The rollout's deployment on one server.
pub async fn deployment_on<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
    server: &ServerName,
) -> Result<Option<DeploymentRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM deployments WHERE rollout = ? AND server = ?")
        .bind(rollout.as_str())
        .bind(server.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(deployment_row).transpose()
}

fn deployment_row(row: &SqliteRow) -> Result<DeploymentRow, StoreError> {
    Ok(DeploymentRow {
        id: parse(row.try_get("id")?)?,
        rollout: parse(row.try_get("rollout")?)?,
        server: parse(row.try_get("server")?)?,
        digest: parse_opt(row.try_get("digest")?)?,
        sequence: to_u64(row.try_get("sequence")?),
        view: from_text(row.try_get("view")?)?,
        changed: to_u64(row.try_get("changed")?),
    })
}

pub async fn add_event(
    write: &mut Write,
    deployment: &Id,
    sequence: u64,
    at: UnixMs,
    body: &[u8],
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO deployment_events (deployment, sequence, at_ms, body) VALUES (?, ?, ?, ?)")
        .bind(deployment.as_str())
        .bind(from_u64(sequence))
        .bind(from_u64(at.0))
        .bind(body)
        .execute(&mut **write)
        .await?;
    Ok(())
}

// Orders.

pub async fn add_order(write: &mut Write, order: &OrderRow, now: UnixMs) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO orders (id, deployment, server, kind, manifest, document, created_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(order.id.as_str())
    .bind(order.deployment.as_str())
    .bind(order.server.as_str())
    .bind(order.kind.as_str())
    .bind(order.manifest.map(|digest| digest.to_string()))
    .bind(&order.document)
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

pub async fn order<'e>(db: impl SqliteExecutor<'e>, id: &Id) -> Result<Option<OrderRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM orders WHERE id = ?").bind(id.as_str()).fetch_optional(db).await?;
    row.as_ref().map(order_row).transpose()
}

/// Orders that the server has not answered, in the order in which they were given.
pub async fn open_orders<'e>(
    db: impl SqliteExecutor<'e>,
    server: &ServerName,
) -> Result<Vec<OrderRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM orders WHERE server = ? AND answered_ms IS NULL ORDER BY number")
        .bind(server.as_str())
        .fetch_all(db)
        .await?;
    rows.iter().map(order_row).collect()
}

pub async fn answer_order(write: &mut Write, id: &Id, now: UnixMs) -> Result<(), StoreError> {
    sqlx::query("UPDATE orders SET answered_ms = ? WHERE id = ? AND answered_ms IS NULL")
        .bind(from_u64(now.0))
        .bind(id.as_str())
        .execute(&mut **write)
        .await?;
    Ok(())
}

/// The agent showed by an event that it has these orders of the deployment.
pub async fn answer_orders(
    write: &mut Write,
    deployment: &Id,
    kinds: &[OrderTag],
    now: UnixMs,
) -> Result<(), StoreError> {
    for kind in kinds {
        sqlx::query(
            "UPDATE orders SET answered_ms = ? WHERE deployment = ? AND kind = ? AND answered_ms IS NULL",
        )
        .bind(from_u64(now.0))
        .bind(deployment.as_str())
        .bind(kind.as_str())
        .execute(&mut **write)
        .await?;
    }
    Ok(())
}

/// Whether an order of a rollout that has not ended names this artifact to this server, or the server has it: a release
/// that is damaged is repaired from here.
pub async fn may_fetch<'e>(
    db: impl SqliteExecutor<'e>,
    server: &ServerName,
    manifest: &Sha256,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM orders o
                   JOIN deployments d ON d.id = o.deployment JOIN rollouts r ON r.id = d.rollout
                 WHERE o.server = ?1 AND o.manifest = ?2 AND r.standing <> 'ended')
              + (SELECT count(*) FROM server_apps
                 WHERE server = ?1 AND (good = ?2 OR before = ?2 OR current = ?2)) AS n",
    )
    .bind(server.as_str())
    .bind(manifest.to_string())
    .fetch_one(db)
    .await?;
    Ok(row.try_get::<i64, _>("n")? > 0)
}

fn order_row(row: &SqliteRow) -> Result<OrderRow, StoreError> {
    Ok(OrderRow {
        id: parse(row.try_get("id")?)?,
        deployment: parse(row.try_get("deployment")?)?,
        server: parse(row.try_get("server")?)?,
        kind: parse(row.try_get("kind")?)?,
        manifest: parse_opt(row.try_get("manifest")?)?,
        document: row.try_get("document")?,
    })
}

// What servers have.

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

// The feed.

pub async fn add_change(
    write: &mut Write,
    rollout: &Id,
    at: UnixMs,
    what: &Changed,
) -> Result<u64, StoreError> {
    let (deployment, log) = match what {
        Changed::Rollout => (None, None),
        Changed::Deployment(deployment) => (Some(deployment), None),
        Changed::Log { deployment, attempt, start, length } => {
            (Some(deployment), Some((attempt, *start, *length)))
        }
    };
    let row = sqlx::query(
        "INSERT INTO changes (rollout, at_ms, deployment, attempt, start, length) VALUES (?, ?, ?, ?, ?, ?)
         RETURNING cursor",
    )
    .bind(rollout.as_str())
    .bind(from_u64(at.0))
    .bind(deployment.map(Id::as_str))
    .bind(log.map(|(attempt, _, _)| attempt.to_string()))
    .bind(from_u64(log.map_or(0, |(_, start, _)| start)))
    .bind(from_u64(log.map_or(0, |(_, _, length)| length)))
    .fetch_one(&mut **write)
    .await?;
    let cursor: i64 = row.try_get("cursor")?;
    let newest = match what {
        Changed::Rollout => Some(
            sqlx::query("UPDATE rollouts SET changed = ? WHERE id = ?").bind(cursor).bind(rollout.as_str()),
        ),
        Changed::Deployment(deployment) => Some(
            sqlx::query("UPDATE deployments SET changed = ? WHERE id = ?")
                .bind(cursor)
                .bind(deployment.as_str()),
        ),
        Changed::Log { .. } => None,
    };
    if let Some(newest) = newest {
        newest.execute(&mut **write).await?;
    }
    Ok(to_u64(cursor))
}

/// The rollout's changes after `cursor`, oldest first.
pub async fn changes<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
    cursor: u64,
    limit: u32,
) -> Result<Vec<Change>, StoreError> {
    let rows = sqlx::query("SELECT * FROM changes WHERE rollout = ? AND cursor > ? ORDER BY cursor LIMIT ?")
        .bind(rollout.as_str())
        .bind(from_u64(cursor))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    rows.iter().map(change_row).collect()
}

/// Where each log of the rollout ended at this cursor.
pub async fn log_ends<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
    cursor: u64,
) -> Result<Vec<((Id, Attempt), u64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT deployment, attempt, max(start + length) AS ends FROM changes
         WHERE rollout = ? AND cursor <= ? AND attempt IS NOT NULL GROUP BY deployment, attempt",
    )
    .bind(rollout.as_str())
    .bind(from_u64(cursor))
    .fetch_all(db)
    .await?;
    let end = |row: &SqliteRow| {
        let log = (parse(row.try_get("deployment")?)?, parse(row.try_get("attempt")?)?);
        Ok((log, to_u64(row.try_get("ends")?)))
    };
    rows.iter().map(end).collect()
}

fn change_row(row: &SqliteRow) -> Result<Change, StoreError> {
    let deployment: Option<Id> = parse_opt(row.try_get("deployment")?)?;
    let attempt: Option<Attempt> = parse_opt(row.try_get("attempt")?)?;
    let what = match (deployment, attempt) {
        (None, _) => Changed::Rollout,
        (Some(deployment), None) => Changed::Deployment(deployment),
        (Some(deployment), Some(attempt)) => Changed::Log {
            deployment,
            attempt,
            start: to_u64(row.try_get("start")?),
            length: to_u64(row.try_get("length")?),
        },
    };
    Ok(Change { cursor: to_u64(row.try_get("cursor")?), at: UnixMs(to_u64(row.try_get("at_ms")?)), what })
}

// Logs.

/// The deployment's logs, in the order of phase, step and attempt.
pub async fn logs<'e>(
    db: impl SqliteExecutor<'e>,
    deployment: &Id,
) -> Result<Vec<(Attempt, LogLength)>, StoreError> {
    let rows = sqlx::query("SELECT attempt, length, kept FROM logs WHERE deployment = ?")
        .bind(deployment.as_str())
        .fetch_all(db)
        .await?;
    let mut logs = Vec::with_capacity(rows.len());
    for row in &rows {
        let log = LogLength { length: to_u64(row.try_get("length")?), kept: to_u64(row.try_get("kept")?) };
        logs.push((parse::<Attempt>(row.try_get("attempt")?)?, log));
    }
    logs.sort_by_key(|(attempt, _)| *attempt);
    Ok(logs)
}

pub async fn put_log_length(
    write: &mut Write,
    deployment: &Id,
    attempt: Attempt,
    log: LogLength,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO logs (deployment, attempt, length, kept) VALUES (?, ?, ?, ?)")
        .bind(deployment.as_str())
        .bind(attempt.to_string())
        .bind(from_u64(log.length))
        .bind(from_u64(log.kept))
        .execute(&mut **write)
        .await?;
    Ok(())
}

fn to_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::corrupt)
}

fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    json::from_slice(text.as_bytes(), OWN_JSON_BYTES).map_err(StoreError::corrupt)
}
