//! The log in the database: written at its end, read from its beginning.

use consign_common::{
    audit::{AUDIT_FORMAT, About, Entry, Head, Who},
    crash,
    digest::Sha256,
    json,
    name::{App, Environment, Id, ServerName},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::act::{Act, taken};
use crate::store::{
    StoreError, Write,
    column::{from_u64, parse, to_u64},
};

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub sequence: u64,
    pub entry: Vec<u8>,
    pub hash: Sha256,
}

/// Which entries are asked for; what is empty or absent asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub app: Option<App>,
    pub environment: Option<Environment>,
    pub who: String,
    pub since: UnixMs,
}

/// Where the log ends.
pub async fn head<'e>(db: impl SqliteExecutor<'e>) -> Result<Head, StoreError> {
    let row = sqlx::query("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(Head::START) };
    Ok(Head { sequence: to_u64(row.try_get("sequence")?), hash: parse(row.try_get("hash")?)? })
}

/// Writes an entry, in the transaction of what it tells of.
pub async fn record(write: &mut Write, act: Act) -> Result<Head, StoreError> {
    // What is being done comes before what follows from it.
    carry(write).await?;
    append(write, act).await
}

/// Writes the entry of what is being done, if none was written yet.
pub async fn carry(write: &mut Write) -> Result<(), StoreError> {
    if let Some(act) = taken() {
        append(write, act).await?;
    }
    Ok(())
}

async fn append(write: &mut Write, act: Act) -> Result<Head, StoreError> {
    let before = head(&mut **write).await?;
    let Act { at, who, from, what, about, reason, documents, outcome } = act;
    let (format, sequence) = (AUDIT_FORMAT.to_owned(), before.sequence + 1);
    let entry = Entry { format, sequence, at, who, from, what, about, reason, documents, outcome };
    let bytes = json::to_vec(&entry);
    let head = before.with(&bytes);
    crash::point("audit-record-before");
    sqlx::query("INSERT INTO audit (sequence, entry, hash) VALUES (?, ?, ?)")
        .bind(from_u64(sequence))
        .bind(String::from_utf8(bytes).map_err(StoreError::corrupt)?)
        .bind(head.hash.to_string())
        .execute(&mut **write)
        .await?;
    Ok(head)
}

/// What the coordinator did by itself to a rollout.
pub async fn own(
    write: &mut Write,
    rollout: &Id,
    what: &str,
    because: &str,
    at: UnixMs,
) -> Result<(), StoreError> {
    let mut act = Act::by_itself(what, at);
    for (about, text) in of_rollout(write, rollout).await? {
        act.about(about, text);
    }
    act.because(because);
    record(write, act).await?;
    Ok(())
}

/// How it stands with the `rearm` rules of an app on a server, against before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearm {
    Begins,
    Ends,
    AsBefore,
}

impl Rearm {
    pub fn between(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::Begins,
            (true, false) => Self::Ends,
            (false, false) | (true, true) => Self::AsBefore,
        }
    }
}

/// A server's gate is re-armed, or is not any more: each change stands in the log once.
pub async fn rearm(
    write: &mut Write,
    server: &ServerName,
    app: &App,
    change: Rearm,
    at: UnixMs,
) -> Result<(), StoreError> {
    let (what, because) = match change {
        Rearm::Begins => ("gate re-arm", "its last deployment failed or was returned"),
        Rearm::Ends => ("gate disarm", "a deployment succeeded since"),
        Rearm::AsBefore => return Ok(()),
    };
    let mut act = Act::by_itself(what, at);
    act.who = Who { identity: format!("server {server}"), role: "agent".to_owned() };
    act.from = "session".to_owned();
    act.about(About::Server, server).about(About::App, app).because(because);
    record(write, act).await?;
    Ok(())
}

/// What an act on a rollout is about.
pub async fn of_rollout(write: &mut Write, rollout: &Id) -> Result<Vec<(About, String)>, StoreError> {
    let row = sqlx::query("SELECT app, environment, version, digest FROM rollouts WHERE id = ?")
        .bind(rollout.as_str())
        .fetch_optional(&mut **write)
        .await?;
    let mut about = vec![(About::Rollout, rollout.to_string())];
    if let Some(row) = row {
        for (kind, column) in [
            (About::App, "app"),
            (About::Environment, "environment"),
            (About::Version, "version"),
            (About::Artifact, "digest"),
        ] {
            about.push((kind, row.try_get(column)?));
        }
    }
    Ok(about)
}

/// Entries after this one, oldest first.
pub async fn after<'e>(
    db: impl SqliteExecutor<'e>,
    sequence: u64,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Kept>, StoreError> {
    let rows = sqlx::query(
        "SELECT sequence, entry, hash FROM audit
         WHERE sequence > ?1 AND (?2 IS NULL OR entry ->> '$.about.app' = ?2)
           AND (?3 IS NULL OR entry ->> '$.about.environment' = ?3)
           AND (?4 = '' OR entry ->> '$.who.identity' = ?4)
           AND (?5 = 0 OR entry ->> '$.at' >= ?5)
         ORDER BY sequence LIMIT ?6",
    )
    .bind(from_u64(sequence))
    .bind(filter.app.as_ref().map(App::as_str))
    .bind(filter.environment.as_ref().map(Environment::as_str))
    .bind(&filter.who)
    .bind(from_u64(filter.since.0))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(kept).collect()
}

/// The hash that this entry has here.
pub async fn hash_at<'e>(db: impl SqliteExecutor<'e>, sequence: u64) -> Result<Option<Sha256>, StoreError> {
    let row = sqlx::query("SELECT hash FROM audit WHERE sequence = ?")
        .bind(from_u64(sequence))
        .fetch_optional(db)
        .await?;
    row.map(|row| parse(row.try_get("hash")?)).transpose()
}

fn kept(row: &SqliteRow) -> Result<Kept, StoreError> {
    Ok(Kept {
        sequence: to_u64(row.try_get("sequence")?),
        entry: row.try_get::<String, _>("entry")?.into_bytes(),
        hash: parse(row.try_get("hash")?)?,
    })
}

#[cfg(test)]
mod tests {
    use consign_common::{
        audit::{Outcome, Verifier},
        limits::AUDIT_ENTRY_BYTES,
    };

    use super::*;
    use crate::store::{StateDir, Store};

    /// Whatever somebody sends, the log stays one that can be read, and verified, and printed on a terminal.
    #[tokio::test]
    async fn an_entry_of_giant_and_hostile_texts_is_one_that_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StateDir::open(dir.path()).unwrap()).await.unwrap();
        let giant = "\u{1F4A3}\"\\\u{1b}[2J\n".repeat(1 << 20);
        let mut act = Act::by_itself("rollout start", UnixMs(1));
        for about in [
            About::App,
            About::Artifact,
            About::Deployment,
            About::Environment,
            About::Key,
            About::Operator,
            About::Predicate,
            About::Role,
            About::Rollout,
            About::Server,
            About::Settings,
            About::Step,
            About::Token,
            About::TrustRoot,
            About::Version,
            About::Webhook,
        ] {
            act.about(about, &giant);
        }
        act.because(&giant);
        for number in 0..1000_u64 {
            act.by(Sha256::of(&number.to_be_bytes()));
        }
        act.refused(&giant, &giant);
        let mut write = store.write().await.unwrap();
        let head = record(&mut write, act).await.unwrap();
        write.commit().await.unwrap();
        let kept = after(store.read(), 0, &Filter::default(), 10).await.unwrap().remove(0);
        assert!(kept.entry.len() <= AUDIT_ENTRY_BYTES, "{}", kept.entry.len());
        let mut verifier = Verifier::new(Vec::new());
        let entry = verifier.take(&kept.entry, kept.hash).unwrap();
        assert_eq!(verifier.end(), Ok((head, 0)));
        assert!(entry.about.values().chain([&entry.reason]).all(|text| !text.chars().any(char::is_control)));
        let Outcome::Refused { code, .. } = entry.outcome else { panic!("{entry:?}") };
        assert_eq!(code.chars().count(), 64);
    }
}
