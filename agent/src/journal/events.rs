//! Events of deployments: written ahead of every act, kept until the coordinator has them, replayed after a crash.

use super::{
    Journal, JournalError, apps,
    column::{from_u64, parse, to_u64},
    database::Write,
};
use crate::core::Pointers;
use consign_common::{
    crash,
    deployment::Event,
    json,
    limits::EVENT_BYTES,
    name::{Environment, Id},
    time::UnixMs,
};

/// One event of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub deployment: Id,
    pub sequence: u64,
    pub at: UnixMs,
    pub event: Event,
}

impl Journal {
    /// Appends an event; the app's pointers, if they change, in the same transaction. Returns its sequence.
    pub async fn append(
        &self,
        deployment: &Id,
        at: UnixMs,
        event: &Event,
        pointers: Option<(&Environment, &Pointers)>,
    ) -> Result<u64, JournalError> {
        let mut write = self.write().await?;
        let appended = append(&mut write, deployment, at, event).await?;
        if let Some((environment, pointers)) = pointers {
            apps::settle(&mut write, deployment, environment, pointers).await?;
        }
        write.commit().await?;
        self.has_appended(&appended);
        Ok(appended.sequence)
    }

    /// All events of a deployment, in order.
    pub async fn events(&self, deployment: &Id) -> Result<Vec<Record>, JournalError> {
        let rows: Vec<(String, i64, i64, String)> = sqlx::query_as(
            "SELECT deployment, sequence, at_ms, body FROM events WHERE deployment = ? ORDER BY sequence",
        )
        .bind(deployment.as_str())
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(record).collect()
    }

    /// What the coordinator does not have yet, in the order in which it was written: what lies after `position`, at most
    /// `limit` events, each with its own position.
    pub async fn unacknowledged_after(
        &self,
        position: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Record)>, JournalError> {
        let rows: Vec<(i64, String, i64, i64, String)> = sqlx::query_as(
            "SELECT events.rowid, deployment, sequence, at_ms, body FROM events
             JOIN deployments ON deployments.id = events.deployment
             WHERE events.rowid > ? AND sequence > acknowledged ORDER BY events.rowid LIMIT ?",
        )
        .bind(position)
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|(position, deployment, sequence, at, body)| {
                Ok((position, record((deployment, sequence, at, body))?))
            })
            .collect()
    }

    /// The coordinator has everything up to `sequence`. May come twice and out of order: the highest stands. What has not
    /// happened yet cannot be acknowledged.
    pub async fn acknowledge(&self, deployment: &Id, sequence: u64) -> Result<(), JournalError> {
        crash::point("event-ack-record-before");
        sqlx::query(
            "UPDATE deployments SET acknowledged = max(acknowledged,
               min(?, (SELECT coalesce(max(sequence), 0) FROM events WHERE deployment = deployments.id)))
             WHERE id = ?",
        )
        .bind(from_u64(sequence))
        .bind(deployment.as_str())
        .execute(self.pool())
        .await?;
        crash::point("event-ack-record-after");
        Ok(())
    }

    /// Deployments that have begun and not ended, in the order in which they began.
    pub async fn open_deployments(&self) -> Result<Vec<Id>, JournalError> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT id FROM deployments WHERE ended = 0 ORDER BY rowid")
                .fetch_all(self.pool())
                .await?;
        rows.iter().map(|id| parse(id)).collect()
    }
}

/// Where an event came to stand.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) sequence: u64,
    /// Of the whole journal.
    pub(super) position: u64,
}

pub(super) async fn append(
    write: &mut Write,
    deployment: &Id,
    at: UnixMs,
    event: &Event,
) -> Result<Appended, JournalError> {
    let body = String::from_utf8(json::to_vec(event)).map_err(JournalError::value)?;
    if body.len() > EVENT_BYTES {
        return Err(JournalError::EventTooLong { bytes: body.len(), max: EVENT_BYTES });
    }
    let sequence: i64 =
        sqlx::query_scalar("SELECT coalesce(max(sequence), 0) + 1 FROM events WHERE deployment = ?")
            .bind(deployment.as_str())
            .fetch_one(&mut **write)
            .await?;
    sqlx::query("INSERT INTO events (deployment, sequence, at_ms, body) VALUES (?, ?, ?, ?)")
        .bind(deployment.as_str())
        .bind(sequence)
        .bind(from_u64(at.0))
        .bind(body)
        .execute(&mut **write)
        .await?;
    let position: i64 = sqlx::query_scalar("UPDATE journal SET position = position + 1 RETURNING position")
        .fetch_one(&mut **write)
        .await?;
    let id = deployment.as_str();
    match event {
        Event::Staged { release, .. } => {
            let query = sqlx::query("UPDATE deployments SET release = ? WHERE id = ?");
            query.bind(release).bind(id).execute(&mut **write).await?;
        }
        Event::Started { attempt, .. } => {
            let query = sqlx::query("INSERT INTO logs (deployment, attempt) VALUES (?, ?)");
            query.bind(id).bind(attempt.to_string()).execute(&mut **write).await?;
        }
        Event::Finished { attempt, log_length, .. } => {
            let query = sqlx::query("UPDATE logs SET length = ? WHERE deployment = ? AND attempt = ?");
            query
                .bind(from_u64(*log_length))
                .bind(id)
                .bind(attempt.to_string())
                .execute(&mut **write)
                .await?;
        }
        Event::Ended { result } => {
            sqlx::query("UPDATE deployments SET ended = 1 WHERE id = ?")
                .bind(id)
                .execute(&mut **write)
                .await?;
            apps::remember_end(write, deployment, at, result).await?;
        }
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Skipped { .. }
        | Event::Spawned { .. }
        | Event::Returning { .. }
        | Event::Cancelling { .. }
        | Event::Awaiting { .. }
        | Event::Answered { .. }
        | Event::Undecided { .. }
        | Event::Decided { .. }
        | Event::Confirming { .. }
        | Event::Confirmed { .. }
        | Event::Unconfirmed { .. } => {}
    }
    Ok(Appended { sequence: to_u64(sequence)?, position: to_u64(position)? })
}

fn record((deployment, sequence, at, body): (String, i64, i64, String)) -> Result<Record, JournalError> {
    Ok(Record {
        deployment: parse(&deployment)?,
        sequence: to_u64(sequence)?,
        at: UnixMs(to_u64(at)?),
        event: json::from_slice(body.as_bytes(), EVENT_BYTES).map_err(JournalError::value)?,
    })
}
