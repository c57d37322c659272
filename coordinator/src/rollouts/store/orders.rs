//! The outbox.

use consign_common::{
    digest::Sha256,
    name::{Id, ServerName},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::Write;
use crate::{
    rollouts::rows::{OrderRow, OrderTag},
    store::StoreError,
    store::column::{from_u64, parse, parse_opt},
};

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
                 WHERE o.server = ?1 AND o.manifest = ?2 AND (r.standing <> 'ended' OR r.under_way))
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
