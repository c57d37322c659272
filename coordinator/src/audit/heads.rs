//! What agents remember of the log. A log that lacks what one of them has seen was rewritten, or comes from a backup:
//! that is said until a person has said why.

use consign_common::{
    audit::{About, Head},
    digest::Sha256,
    name::ServerName,
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Act, store};
use crate::store::{
    Store, StoreError, Write,
    column::{from_u64, parse, to_u64},
};

/// The newest entry that an agent has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub server: ServerName,
    pub head: Head,
    pub at: UnixMs,
}

/// An agent has seen an entry that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    pub server: ServerName,
    pub seen: Head,
    /// What stands there instead.
    pub found: Option<Sha256>,
    pub since: UnixMs,
}

/// An agent said what it has seen. The dispute, if it is news.
pub async fn compare(
    db: &Store,
    server: &ServerName,
    seen: Head,
    now: UnixMs,
) -> Result<Option<Dispute>, StoreError> {
    if seen.sequence == 0 {
        return Ok(None);
    }
    let mut write = db.write().await?;
    let found = store::hash_at(&mut *write, seen.sequence).await?;
    sqlx::query(
        "INSERT OR REPLACE INTO audit_heads (server, sequence, hash, seen_ms)
         SELECT name, ?2, ?3, ?4 FROM servers WHERE name = ?1",
    )
    .bind(server.as_str())
    .bind(from_u64(seen.sequence))
    .bind(seen.hash.to_string())
    .bind(from_u64(now.0))
    .execute(&mut *write)
    .await?;
    let dispute = if found == Some(seen.hash) {
        None
    } else {
        let dispute = Dispute { server: server.clone(), seen, found, since: now };
        put(&mut write, &dispute).await?.then_some(dispute)
    };
    if let Some(dispute) = &dispute {
        let mut act = Act::by_itself("audit rewritten", now);
        act.about(About::Server, server).because(&words(dispute));
        store::record(&mut write, act).await?;
    }
    write.commit().await?;
    Ok(dispute)
}

/// What is the matter, in words.
pub fn words(dispute: &Dispute) -> String {
    let Dispute { server, seen, found, .. } = dispute;
    let instead = match found {
        Some(hash) => format!("another one ({}) stands here", hash.short()),
        None => "there is none here".to_owned(),
    };
    format!("{server} has seen entry {seen} of the audit log, and {instead}")
}

async fn put(write: &mut Write, dispute: &Dispute) -> Result<bool, StoreError> {
    // The first one stands: what came later is a consequence.
    let put = sqlx::query(
        "INSERT OR IGNORE INTO audit_disputes (server, sequence, hash, found, seen_ms)
         SELECT name, ?2, ?3, ?4, ?5 FROM servers WHERE name = ?1",
    )
    .bind(dispute.server.as_str())
    .bind(from_u64(dispute.seen.sequence))
    .bind(dispute.seen.hash.to_string())
    .bind(dispute.found.map(|hash| hash.to_string()).unwrap_or_default())
    .bind(from_u64(dispute.since.0))
    .execute(&mut **write)
    .await?;
    Ok(put.rows_affected() > 0)
}

/// By server.
pub async fn all<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<Seen>, StoreError> {
    let rows = sqlx::query("SELECT * FROM audit_heads ORDER BY server").fetch_all(db).await?;
    let seen = |row: &SqliteRow| {
        Ok(Seen {
            server: parse(row.try_get("server")?)?,
            head: head(row)?,
            at: UnixMs(to_u64(row.try_get("seen_ms")?)),
        })
    };
    rows.iter().map(seen).collect()
}

/// By server.
pub async fn disputes<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<Dispute>, StoreError> {
    let rows = sqlx::query("SELECT * FROM audit_disputes ORDER BY server").fetch_all(db).await?;
    let dispute = |row: &SqliteRow| {
        let found: &str = row.try_get("found")?;
        Ok(Dispute {
            server: parse(row.try_get("server")?)?,
            seen: head(row)?,
            found: if found.is_empty() { None } else { Some(parse(found)?) },
            since: UnixMs(to_u64(row.try_get("seen_ms")?)),
        })
    };
    rows.iter().map(dispute).collect()
}

/// A person has said why the log is another one. What was disputed, and is not any more.
pub async fn accept(db: &Store) -> Result<Vec<Dispute>, StoreError> {
    let mut write = db.write().await?;
    let all = disputes(&mut *write).await?;
    if !all.is_empty() {
        sqlx::query("DELETE FROM audit_disputes").execute(&mut *write).await?;
        sqlx::query("DELETE FROM audit_heads").execute(&mut *write).await?;
        write.commit().await?;
    }
    Ok(all)
}

fn head(row: &SqliteRow) -> Result<Head, StoreError> {
    Ok(Head { sequence: to_u64(row.try_get("sequence")?), hash: parse(row.try_get("hash")?)? })
}
