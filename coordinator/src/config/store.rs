//! Queries over configs, sealed secrets, and servers' keys.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, ServerName, StepName},
    time::UnixMs,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::SealedSecret;
use crate::store::{
    StoreError, Write,
    column::{from_u64, parse, parse_opt, to_u64},
};

/// One config of an app in an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub sequence: u64,
    pub envelope: Vec<u8>,
    pub at: UnixMs,
    pub by: String,
}

/// That a secret is sealed for a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedTo {
    pub server: ServerName,
    pub name: StepName,
    pub commitment: Sha256,
    pub recipient: String,
}

/// What is known of a server's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKeys {
    pub server: ServerName,
    pub environment: Environment,
    /// An age recipient; `None`: its agent has said none yet.
    pub recipient: Option<String>,
    /// Of its newest public key; `None`: it has none.
    pub spki: Option<Sha256>,
    /// The `enrolled` statement, and when it came.
    pub acceptance: Option<(Vec<u8>, UnixMs)>,
}

/// What the server's agent says its key for secrets is. Another one than before is what the agent has now, and nobody has
/// vouched for it.
pub async fn note_sealing_key(
    write: &mut Write,
    server: &ServerName,
    recipient: &str,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sealing_keys (server, recipient, added_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (server) DO UPDATE SET recipient = excluded.recipient, added_ms = excluded.added_ms
         WHERE recipient <> excluded.recipient",
    )
    .bind(server.as_str())
    .bind(recipient)
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Of all servers, by name.
pub(super) async fn keys<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<ServerKeys>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.name, s.environment, k.recipient, a.envelope, a.added_ms,
                (SELECT spki_sha256 FROM keys WHERE server = s.name ORDER BY added_ms DESC, rowid DESC LIMIT 1) AS spki
         FROM servers s LEFT JOIN sealing_keys k ON k.server = s.name LEFT JOIN acceptances a ON a.server = s.name
         ORDER BY s.name",
    )
    .fetch_all(db)
    .await?;
    let keys = |row: &SqliteRow| {
        let envelope: Option<Vec<u8>> = row.try_get("envelope")?;
        let at: Option<i64> = row.try_get("added_ms")?;
        Ok(ServerKeys {
            server: parse(row.try_get("name")?)?,
            environment: parse(row.try_get("environment")?)?,
            recipient: row.try_get("recipient")?,
            spki: parse_opt(row.try_get("spki")?)?,
            acceptance: envelope.zip(at.map(|at| UnixMs(to_u64(at)))),
        })
    };
    rows.iter().map(keys).collect()
}

pub(super) async fn accept(
    write: &mut Write,
    server: &ServerName,
    envelope: &[u8],
    by: &str,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO acceptances (server, envelope, added_by, added_ms) VALUES (?, ?, ?, ?)",
    )
    .bind(server.as_str())
    .bind(envelope)
    .bind(by)
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// The newest, or the one of this sequence.
pub(super) async fn version<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
    sequence: Option<u64>,
) -> Result<Option<Version>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM configs WHERE app = ?1 AND environment = ?2 AND (?3 IS NULL OR sequence = ?3)
         ORDER BY sequence DESC LIMIT 1",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .bind(sequence.map(from_u64))
    .fetch_optional(db)
    .await?;
    row.as_ref().map(version_row).transpose()
}

/// Newest first, at most `limit`.
pub(super) async fn history<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
    limit: u32,
) -> Result<Vec<Version>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM configs WHERE app = ? AND environment = ? ORDER BY sequence DESC LIMIT ?")
            .bind(app.as_str())
            .bind(environment.as_str())
            .bind(limit)
            .fetch_all(db)
            .await?;
    rows.iter().map(version_row).collect()
}

fn version_row(row: &SqliteRow) -> Result<Version, StoreError> {
    Ok(Version {
        sequence: to_u64(row.try_get("sequence")?),
        envelope: row.try_get("envelope")?,
        at: UnixMs(to_u64(row.try_get("added_ms")?)),
        by: row.try_get("added_by")?,
    })
}

pub(super) async fn add_version(
    write: &mut Write,
    app: &App,
    environment: &Environment,
    version: &Version,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO configs (app, environment, sequence, envelope, added_by, added_ms) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .bind(from_u64(version.sequence))
    .bind(&version.envelope)
    .bind(&version.by)
    .bind(from_u64(version.at.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// The same value again for a server takes the place of the one before: it was enrolled anew, or sealed twice.
pub(super) async fn add_sealed(
    write: &mut Write,
    app: &App,
    environment: &Environment,
    sealed: &SealedSecret,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO sealed_secrets
           (app, environment, name, commitment, server, recipient, file, added_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .bind(sealed.name.as_str())
    .bind(sealed.commitment.to_string())
    .bind(sealed.server.as_str())
    .bind(&sealed.recipient)
    .bind(&sealed.file)
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// For whom there is what, and can be opened there: what was sealed to a key that a server no longer has does not count.
pub(super) async fn sealed_to<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<Vec<SealedTo>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.server, s.name, s.commitment, s.recipient FROM sealed_secrets s
         JOIN sealing_keys k ON k.server = s.server AND k.recipient = s.recipient
         WHERE s.app = ? AND s.environment = ? ORDER BY s.server, s.name",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .fetch_all(db)
    .await?;
    let sealed = |row: &SqliteRow| {
        Ok(SealedTo {
            server: parse(row.try_get("server")?)?,
            name: parse(row.try_get("name")?)?,
            commitment: parse(row.try_get("commitment")?)?,
            recipient: row.try_get("recipient")?,
        })
    };
    rows.iter().map(sealed).collect()
}

/// The age files of one server, by name and commitment.
pub(super) async fn files<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
    server: &ServerName,
) -> Result<BTreeMap<(StepName, Sha256), Vec<u8>>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.name, s.commitment, s.file FROM sealed_secrets s
         JOIN sealing_keys k ON k.server = s.server AND k.recipient = s.recipient
         WHERE s.app = ? AND s.environment = ? AND s.server = ?",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .bind(server.as_str())
    .fetch_all(db)
    .await?;
    let file = |row: &SqliteRow| {
        let name = parse(row.try_get("name")?)?;
        Ok(((name, parse(row.try_get("commitment")?)?), row.try_get("file")?))
    };
    rows.iter().map(file).collect()
}

pub(super) async fn pin(write: &mut Write, rollout: &Id, sequence: u64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO rollout_configs (rollout, sequence) VALUES (?, ?)")
        .bind(rollout.as_str())
        .bind(from_u64(sequence))
        .execute(&mut **write)
        .await?;
    Ok(())
}

pub(super) async fn pinned<'e>(db: impl SqliteExecutor<'e>, rollout: &Id) -> Result<Option<u64>, StoreError> {
    let sequence: Option<i64> = sqlx::query_scalar("SELECT sequence FROM rollout_configs WHERE rollout = ?")
        .bind(rollout.as_str())
        .fetch_optional(db)
        .await?;
    Ok(sequence.map(to_u64))
}
