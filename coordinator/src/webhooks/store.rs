//! The queue: one row for each message, written with what it tells of.

use consign_common::{name::Id, time::UnixMs};
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Event, EventKind, Told, Webhook, config::Wanted};
use crate::{
    candidates::PIPELINE,
    store::{
        StoreError, Write,
        column::{from_u64, parse_opt, to_u64},
    },
};

/// Messages that wait for one webhook. Beyond it the oldest are lost, and counted: somebody who is away for so long asks.
const WAITING: i64 = 10_000;
/// Messages that are kept when they are done with, of each webhook.
const KEPT: i64 = 200;
const ERROR: usize = 300;

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub number: i64,
    pub id: String,
    pub event: String,
    pub body: String,
    pub created: UnixMs,
    pub tries: u32,
    /// Not before this.
    pub next: UnixMs,
}

/// How it goes with a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub waiting: u64,
    pub delivered: u64,
    pub given_up: u64,
    /// Ever.
    pub lost: u64,
    /// Of the oldest that waits: what its last try came to.
    pub error: String,
    pub next: UnixMs,
    pub delivered_last: UnixMs,
}

/// Who is told from now on. What waits for somebody who is not among them is given up.
pub async fn begin(write: &mut Write, all: &[Webhook], now: UnixMs) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM webhooks").execute(&mut **write).await?;
    for webhook in all {
        sqlx::query("INSERT INTO webhooks (name, wanted) VALUES (?, ?)")
            .bind(&webhook.name)
            .bind(serde_json::to_string(&webhook.wanted).map_err(StoreError::corrupt)?)
            .execute(&mut **write)
            .await?;
    }
    sqlx::query(
        "UPDATE webhook_messages SET state = 'given-up', error = 'this webhook is not in the file any more', ended_ms = ?
         WHERE state = 'waiting' AND webhook NOT IN (SELECT name FROM webhooks)",
    )
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Something happened: it is told to all who want to know, once what it tells of is durable.
pub async fn emit(write: &mut Write, event: Event) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT name, wanted FROM webhooks ORDER BY name").fetch_all(&mut **write).await?;
    for row in &rows {
        let wanted: &str = row.try_get("wanted")?;
        let wanted: Wanted = serde_json::from_str(wanted).map_err(StoreError::corrupt)?;
        if wants(&wanted, &event) {
            put(write, row.try_get("name")?, &event).await?;
        }
    }
    Ok(())
}

/// To one of them, whether it wants to know or not.
pub async fn emit_to(write: &mut Write, webhook: &str, event: &Event) -> Result<(), StoreError> {
    put(write, webhook, event).await
}

async fn put(write: &mut Write, webhook: &str, event: &Event) -> Result<(), StoreError> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| StoreError::corrupt("no randomness"))?;
    sqlx::query(
        "INSERT INTO webhook_messages (webhook, id, event, body, created_ms, state) VALUES (?, ?, ?, ?, ?, 'waiting')",
    )
    .bind(webhook)
    .bind(format!("msg_{}", Id::from_bytes(bits)))
    .bind(event.kind.as_str())
    .bind(event.body())
    .bind(from_u64(event.at.0))
    .execute(&mut **write)
    .await?;
    let lost = sqlx::query(
        "DELETE FROM webhook_messages WHERE webhook = ?1 AND state = 'waiting' AND number <= (
             SELECT number FROM webhook_messages WHERE webhook = ?1 AND state = 'waiting'
             ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(webhook)
    .bind(WAITING)
    .execute(&mut **write)
    .await?
    .rows_affected();
    if lost > 0 {
        sqlx::query(
            "INSERT INTO webhook_losses (webhook, lost) VALUES (?1, ?2)
             ON CONFLICT (webhook) DO UPDATE SET lost = lost + ?2",
        )
        .bind(webhook)
        .bind(from_u64(lost))
        .execute(&mut **write)
        .await?;
        tracing::warn!(webhook, lost, "too many messages wait: the oldest are lost");
    }
    Ok(())
}

fn wants(wanted: &Wanted, event: &Event) -> bool {
    let among = |names: &std::collections::BTreeSet<String>, name: Option<&str>| {
        names.is_empty() || name.is_some_and(|name| names.contains(name))
    };
    among(&wanted.events, Some(event.kind.as_str()))
        && among(&wanted.apps, event.about.app.as_ref().map(|app| app.as_str()))
        && among(&wanted.environments, event.about.environment.as_ref().map(|it| it.as_str()))
}

/// A line of a rollout's history, if it is one that others are told.
pub async fn of_rollout(
    write: &mut Write,
    rollout: &Id,
    what: &str,
    because: &str,
    at: UnixMs,
) -> Result<(), StoreError> {
    let kind = match what {
        "wave 1" => EventKind::RolloutStarted,
        "paused" => EventKind::RolloutPaused,
        "succeeded" | "stopped" | "returned" | "aborted" | "refused" | "unknown" | "partial" => {
            EventKind::RolloutEnded
        }
        _ => return Ok(()),
    };
    let row = sqlx::query(
        "SELECT app, environment, version, digest, started_by, state ->> '$.kind' AS kind FROM rollouts WHERE id = ?",
    )
    .bind(rollout.as_str())
    .fetch_optional(&mut **write)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let by: String = row.try_get("started_by")?;
    let by = Some(by).filter(|by| !by.is_empty() && by != PIPELINE);
    let state = if kind == EventKind::RolloutStarted { "running" } else { what };
    let about = Told {
        app: parse_opt(row.try_get("app")?)?,
        environment: parse_opt(row.try_get("environment")?)?,
        version: parse_opt(row.try_get("version")?)?,
        artifact: parse_opt(row.try_get("digest")?)?,
        rollout: Some(rollout.clone()),
        kind: row.try_get::<Option<String>, _>("kind")?.map(|kind| kind.to_lowercase()),
        state: Some(state.to_owned()),
        by,
        because: Some(because.to_owned()).filter(|because| !because.is_empty()),
        until_ms: None,
    };
    emit(write, Event { kind, at, about }).await
}

/// The oldest that waits: before it has gone, none goes that came later.
pub async fn next<'e>(db: impl SqliteExecutor<'e>, webhook: &str) -> Result<Option<Message>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM webhook_messages WHERE webhook = ? AND state = 'waiting' ORDER BY number LIMIT 1",
    )
    .bind(webhook)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(message).transpose()
}

pub async fn delivered(write: &mut Write, number: i64, now: UnixMs) -> Result<(), StoreError> {
    end(write, number, "delivered", "", now).await
}

pub async fn give_up(write: &mut Write, number: i64, why: &str, now: UnixMs) -> Result<(), StoreError> {
    end(write, number, "given-up", why, now).await
}

async fn end(
    write: &mut Write,
    number: i64,
    state: &str,
    error: &str,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE webhook_messages SET state = ?, error = ?, ended_ms = ?, tries = tries + 1 WHERE number = ?",
    )
    .bind(state)
    .bind(cut(error))
    .bind(from_u64(now.0))
    .bind(number)
    .execute(&mut **write)
    .await?;
    sqlx::query(
        "DELETE FROM webhook_messages WHERE state <> 'waiting' AND webhook = (
             SELECT webhook FROM webhook_messages WHERE number = ?1) AND number NOT IN (
             SELECT number FROM webhook_messages WHERE state <> 'waiting' AND webhook = (
                 SELECT webhook FROM webhook_messages WHERE number = ?1) ORDER BY number DESC LIMIT ?2)",
    )
    .bind(number)
    .bind(KEPT)
    .execute(&mut **write)
    .await?;
    Ok(())
}

pub async fn failed(write: &mut Write, number: i64, error: &str, next: UnixMs) -> Result<(), StoreError> {
    sqlx::query("UPDATE webhook_messages SET tries = tries + 1, error = ?, next_ms = ? WHERE number = ?")
        .bind(cut(error))
        .bind(from_u64(next.0))
        .bind(number)
        .execute(&mut **write)
        .await?;
    Ok(())
}

/// What waits goes now, and what was given up waits again, in its old place. How many.
pub async fn retry(write: &mut Write, webhook: &str, now: UnixMs) -> Result<u64, StoreError> {
    let again = sqlx::query(
        "UPDATE webhook_messages SET state = 'waiting', tries = 0, next_ms = 0, ended_ms = 0, created_ms = max(created_ms, ?)
         WHERE webhook = ? AND state = 'given-up'",
    )
    .bind(from_u64(now.0))
    .bind(webhook)
    .execute(&mut **write)
    .await?;
    let at_once =
        sqlx::query("UPDATE webhook_messages SET next_ms = 0 WHERE webhook = ? AND state = 'waiting'")
            .bind(webhook)
            .execute(&mut **write)
            .await?;
    Ok(again.rows_affected().max(at_once.rows_affected()))
}

pub async fn standing<'e>(db: impl SqliteExecutor<'e> + Copy, webhook: &str) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT coalesce(sum(state = 'waiting'), 0) AS waiting, coalesce(sum(state = 'delivered'), 0) AS delivered,
                coalesce(sum(state = 'given-up'), 0) AS given_up,
                coalesce(max(CASE WHEN state = 'delivered' THEN ended_ms END), 0) AS delivered_last
         FROM webhook_messages WHERE webhook = ?",
    )
    .bind(webhook)
    .fetch_one(db)
    .await?;
    let oldest = sqlx::query(
        "SELECT error, next_ms FROM webhook_messages WHERE webhook = ? AND state = 'waiting' ORDER BY number LIMIT 1",
    )
    .bind(webhook)
    .fetch_optional(db)
    .await?;
    let lost = sqlx::query_scalar::<_, i64>("SELECT lost FROM webhook_losses WHERE webhook = ?")
        .bind(webhook)
        .fetch_optional(db)
        .await?;
    let count = |column| -> Result<u64, StoreError> { Ok(to_u64(row.try_get(column)?)) };
    let (error, next) = match &oldest {
        Some(oldest) => (oldest.try_get("error")?, UnixMs(to_u64(oldest.try_get("next_ms")?))),
        None => (String::new(), UnixMs(0)),
    };
    Ok(Standing {
        waiting: count("waiting")?,
        delivered: count("delivered")?,
        given_up: count("given_up")?,
        lost: lost.map_or(0, to_u64),
        delivered_last: UnixMs(count("delivered_last")?),
        error,
        next,
    })
}

fn message(row: &SqliteRow) -> Result<Message, StoreError> {
    Ok(Message {
        number: row.try_get("number")?,
        id: row.try_get("id")?,
        event: row.try_get("event")?,
        body: row.try_get("body")?,
        created: UnixMs(to_u64(row.try_get("created_ms")?)),
        tries: row.try_get("tries")?,
        next: UnixMs(to_u64(row.try_get("next_ms")?)),
    })
}

fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StateDir, Store};

    #[tokio::test]
    async fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StateDir::open(dir.path()).unwrap()).await.unwrap();
        let mut write = store.write().await.unwrap();
        let full = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
                    INSERT INTO webhook_messages (webhook, id, event, body, created_ms, state)
                    SELECT 'chat', 'm' || i, 'test', '{}', 0, 'waiting' FROM n";
        sqlx::query(full).execute(&mut *write).await.unwrap();
        let event = Event { kind: EventKind::Test, at: UnixMs(1), about: Told::default() };
        for _ in 0..3 {
            emit_to(&mut write, "chat", &event).await.unwrap();
        }
        emit_to(&mut write, "other", &event).await.unwrap();
        write.commit().await.unwrap();
        let chat = standing(store.read(), "chat").await.unwrap();
        assert_eq!((chat.waiting, chat.lost), (10_000, 2));
        let oldest = next(store.read(), "chat").await.unwrap().unwrap();
        assert_eq!(oldest.id, "m3", "the oldest went");
        assert_eq!(standing(store.read(), "other").await.unwrap().lost, 0);
    }
}
