//! The feed that followers read, and how much of each log is here.

use consign_common::{deployment::Attempt, name::Id, time::UnixMs};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::Write;
use crate::{
    rollouts::rows::{Change, Changed, LogLength},
    store::StoreError,
    store::column::{from_u64, parse, parse_opt, to_u64},
};

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
