//! Deployments, and what agents said of them.

use consign_common::{
    deployment::Event,
    json,
    limits::EVENT_BYTES,
    name::{Id, ServerName},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Write, from_text, to_text};
use crate::{
    rollouts::rows::DeploymentRow,
    store::StoreError,
    store::column::{from_u64, parse, parse_opt, to_u64},
};

pub async fn add_deployment(write: &mut Write, row: &DeploymentRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO deployments (id, rollout, server, attempt, digest, view) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(row.id.as_str())
    .bind(row.rollout.as_str())
    .bind(row.server.as_str())
    .bind(row.attempt)
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

/// By server, and of each the oldest attempt first.
pub async fn deployments<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
) -> Result<Vec<DeploymentRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM deployments WHERE rollout = ? ORDER BY server, attempt")
        .bind(rollout.as_str())
        .fetch_all(db)
        .await?;
    rows.iter().map(deployment_row).collect()
}

/// The rollout's newest deployment on one server.
pub async fn deployment_on<'e>(
    db: impl SqliteExecutor<'e>,
    rollout: &Id,
    server: &ServerName,
) -> Result<Option<DeploymentRow>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM deployments WHERE rollout = ? AND server = ? ORDER BY attempt DESC LIMIT 1",
    )
    .bind(rollout.as_str())
    .bind(server.as_str())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(deployment_row).transpose()
}

/// Whether it is the rollout's newest on its server: only that one says how the server goes.
pub async fn is_newest<'e>(db: impl SqliteExecutor<'e>, row: &DeploymentRow) -> Result<bool, StoreError> {
    let newest = deployment_on(db, &row.rollout, &row.server).await?;
    Ok(newest.is_some_and(|newest| newest.id == row.id))
}

fn deployment_row(row: &SqliteRow) -> Result<DeploymentRow, StoreError> {
    Ok(DeploymentRow {
        id: parse(row.try_get("id")?)?,
        rollout: parse(row.try_get("rollout")?)?,
        server: parse(row.try_get("server")?)?,
        attempt: row.try_get("attempt")?,
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

/// Whether the agent has told of the deployment's end.
pub async fn has_ended(write: &mut Write, deployment: &Id) -> Result<bool, StoreError> {
    let last: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT body FROM deployment_events WHERE deployment = ? ORDER BY sequence DESC LIMIT 1",
    )
    .bind(deployment.as_str())
    .fetch_optional(&mut **write)
    .await?;
    let Some(body) = last else { return Ok(false) };
    let event: Event = json::from_slice(&body, EVENT_BYTES).map_err(StoreError::corrupt)?;
    Ok(matches!(event, Event::Ended { .. }))
}

/// What the agent said of the deployment, oldest first: the agent's time, and the event's bytes.
pub async fn events<'e>(
    db: impl SqliteExecutor<'e>,
    deployment: &Id,
) -> Result<Vec<(UnixMs, Vec<u8>)>, StoreError> {
    let rows =
        sqlx::query("SELECT at_ms, body FROM deployment_events WHERE deployment = ? ORDER BY sequence")
            .bind(deployment.as_str())
            .fetch_all(db)
            .await?;
    rows.iter().map(|row| Ok((UnixMs(to_u64(row.try_get("at_ms")?)), row.try_get("body")?))).collect()
}
