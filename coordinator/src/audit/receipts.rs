//! What agents say they ran: receipts, signed with keys that the coordinator does not have.

use consign_common::{
    audit::{About, Who},
    deployment::DeploymentOutcome,
    digest::Sha256,
    name::{Environment, Id, ServerName, StepName},
    time::UnixMs,
    trust::{Endorsed, Receipt, ReceiptKey, Refusal},
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Act, store};
use crate::{
    rollouts::store as rollouts,
    store::{
        Store, StoreError, Write,
        column::{from_u64, parse, to_u64},
    },
};

/// Endorsements of one server that are kept, the newest: it has a new certificate every month.
const KEYS: i64 = 64;

/// Receipts of one server about deployments that are not known here. After the coordinator was restored from a backup there
/// are some; a stolen server could make as many as a disk holds.
const UNKNOWN: i64 = 1000;

/// A receipt that was verified when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub server: ServerName,
    pub envelope: Vec<u8>,
    pub received: UnixMs,
}

#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("it is of {claimed}, not of {server}")]
    OfOther { server: ServerName, claimed: ServerName },
    #[error("{spki} is not the key that the agent has shown")]
    OtherKey { spki: Sha256 },
    #[error("no key that {server} has endorsed signed it")]
    Stranger { server: ServerName },
    #[error("the deployment {deployment} is not one of this artifact in that rollout on {server}")]
    OtherDeployment { server: ServerName, deployment: Id },
    #[error("the deployment {deployment} has no step {step}")]
    UnknownStep { deployment: Id, step: StepName },
    #[error("{server} has told of {UNKNOWN} deployments that are not known here, and no more are taken")]
    TooManyUnknown { server: ServerName },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for NotTaken {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// An agent told which key its receipts are signed with; endorsed by the key that its session stands on.
pub async fn put_key(
    db: &Store,
    server: &ServerName,
    spki: Sha256,
    envelope: &[u8],
    now: UnixMs,
) -> Result<(), NotTaken> {
    let endorsed = open(server, envelope)?;
    if endorsed.spki != spki {
        return Err(NotTaken::OtherKey { spki: endorsed.spki });
    }
    let digest = Sha256::of(envelope).to_string();
    let known = sqlx::query("SELECT 1 FROM receipt_keys WHERE server = ? AND digest = ?")
        .bind(server.as_str())
        .bind(&digest)
        .fetch_optional(db.read())
        .await?;
    if known.is_some() {
        return Ok(());
    }
    let mut write = db.write().await?;
    sqlx::query(
        "INSERT OR IGNORE INTO receipt_keys (server, envelope, digest, spki, added_ms) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(server.as_str())
    .bind(envelope)
    .bind(&digest)
    .bind(spki.to_string())
    .bind(from_u64(now.0))
    .execute(&mut *write)
    .await?;
    sqlx::query(
        "DELETE FROM receipt_keys WHERE server = ?1 AND rowid NOT IN
           (SELECT rowid FROM receipt_keys WHERE server = ?1 ORDER BY rowid DESC LIMIT ?2)",
    )
    .bind(server.as_str())
    .bind(KEYS)
    .execute(&mut *write)
    .await?;
    Ok(write.commit().await?)
}

fn open(server: &ServerName, envelope: &[u8]) -> Result<Endorsed, NotTaken> {
    let endorsed = ReceiptKey::open(envelope)?;
    if endorsed.server != *server {
        return Err(NotTaken::OfOther { server: server.clone(), claimed: endorsed.server });
    }
    Ok(endorsed)
}

/// The endorsements of a server's keys, newest first.
pub async fn keys<'e>(db: impl SqliteExecutor<'e>, server: &ServerName) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = sqlx::query_scalar("SELECT envelope FROM receipt_keys WHERE server = ? ORDER BY rowid DESC")
        .bind(server.as_str())
        .fetch_all(db)
        .await?;
    Ok(rows)
}

/// The statements by which somebody vouched for the server.
pub async fn accepted<'e>(
    db: impl SqliteExecutor<'e>,
    server: &ServerName,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = sqlx::query_scalar("SELECT envelope FROM acceptances WHERE server = ?")
        .bind(server.as_str())
        .fetch_all(db)
        .await?;
    Ok(rows)
}

/// Keeps a receipt; the log names it, so that it cannot disappear unseen. Durable when this returns.
pub async fn put(
    db: &Store,
    server: &ServerName,
    from: &str,
    envelope: &[u8],
    now: UnixMs,
) -> Result<Receipt, NotTaken> {
    let keys = keys(db.read(), server).await?;
    let keys = keys.iter().filter_map(|envelope| open(server, envelope).ok());
    let mut receipt = keys.map(|endorsed| Receipt::open(envelope, &endorsed.key));
    let Some(receipt) = receipt.find_map(Result::ok) else {
        // Its own fault first, if it has one.
        Receipt::claimed(envelope)?;
        return Err(NotTaken::Stranger { server: server.clone() });
    };
    if receipt.server != *server {
        return Err(NotTaken::OfOther { server: server.clone(), claimed: receipt.server });
    }
    let mut write = db.write().await?;
    check(&mut write, &receipt).await?;
    if insert(&mut write, &receipt, envelope, now).await? {
        let mut act = Act::by_itself("receipt", now);
        act.who = Who { identity: format!("server {server}"), role: "agent".to_owned() };
        act.from = from.to_owned();
        act.about(About::Server, server)
            .about(About::App, &receipt.app)
            .about(About::Environment, &receipt.environment)
            .about(About::Artifact, receipt.manifest)
            .about(About::Rollout, &receipt.rollout)
            .about(About::Deployment, &receipt.deployment)
            .because(&ending(&receipt.result))
            .by(Sha256::of(envelope));
        store::record(&mut write, act).await?;
        write.commit().await?;
    }
    Ok(receipt)
}

/// How the deployment ended, in one line: also that the server went back by itself.
fn ending(result: &DeploymentOutcome) -> String {
    match result {
        DeploymentOutcome::Succeeded { tolerated } if tolerated.is_empty() => "succeeded".to_owned(),
        DeploymentOutcome::Succeeded { tolerated } => {
            format!("succeeded; failed and tolerated: {}", tolerated.join(", "))
        }
        DeploymentOutcome::NoOp => "nothing to do".to_owned(),
        DeploymentOutcome::Failed { because } => format!("failed: {because}"),
        DeploymentOutcome::Returned { because } => format!("returned by itself: {because}"),
        DeploymentOutcome::Stopped { because } => format!("stopped: {because}"),
        DeploymentOutcome::Unknown { step, because } => format!("step {step} is unknown: {because}"),
        DeploymentOutcome::Cancelled { because } => format!("cancelled: {because}"),
        DeploymentOutcome::Refused { code, message } => format!("refused: {code}: {message}"),
    }
}

/// A receipt speaks of what its server was told to do, and of steps that it has told of before. Of a deployment that is not
/// known here nothing is known against it: the coordinator may have been restored from a backup.
async fn check(write: &mut Write, receipt: &Receipt) -> Result<(), NotTaken> {
    let Receipt { deployment, server, .. } = receipt;
    let Some(row) = rollouts::deployment(&mut **write, deployment).await? else {
        return check_room(write, receipt).await;
    };
    let is_of_another = row.digest.is_some_and(|digest| digest != receipt.manifest);
    if row.server != *server || row.rollout != receipt.rollout || is_of_another {
        let (server, deployment) = (server.clone(), deployment.clone());
        return Err(NotTaken::OtherDeployment { server, deployment });
    }
    for step in &receipt.steps {
        let mut told = row.view.steps.iter().filter(|known| known.phase == step.phase).peekable();
        if told.peek().is_some() && told.all(|known| known.name != step.name) {
            let (deployment, step) = (deployment.clone(), step.name.clone());
            return Err(NotTaken::UnknownStep { deployment, step });
        }
    }
    Ok(())
}

async fn check_room(write: &mut Write, Receipt { server, deployment, .. }: &Receipt) -> Result<(), NotTaken> {
    // One that is here already takes no room, and is acknowledged again.
    let others: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM receipts WHERE server = ?1 AND deployment <> ?2
           AND deployment NOT IN (SELECT id FROM deployments)",
    )
    .bind(server.as_str())
    .bind(deployment.as_str())
    .fetch_one(&mut **write)
    .await?;
    if others >= UNKNOWN { Err(NotTaken::TooManyUnknown { server: server.clone() }) } else { Ok(()) }
}

async fn insert(
    write: &mut Write,
    receipt: &Receipt,
    envelope: &[u8],
    now: UnixMs,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT OR IGNORE INTO receipts (deployment, server, rollout, app, environment, artifact, envelope, digest,
           received_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(receipt.deployment.as_str())
    .bind(receipt.server.as_str())
    .bind(receipt.rollout.as_str())
    .bind(receipt.app.as_str())
    .bind(receipt.environment.as_str())
    .bind(receipt.manifest.to_string())
    .bind(envelope)
    .bind(Sha256::of(envelope).to_string())
    .bind(from_u64(now.0))
    .execute(&mut **write)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// Oldest first, those after this one; no artifact or environment means any. Each with its place.
pub async fn list<'e>(
    db: impl SqliteExecutor<'e>,
    artifact: Option<Sha256>,
    environment: Option<&Environment>,
    rollout: Option<&Id>,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Stored)>, StoreError> {
    let rows = sqlx::query(
        "SELECT rowid, * FROM receipts WHERE rowid > ?1 AND (?2 IS NULL OR artifact = ?2)
           AND (?3 IS NULL OR environment = ?3) AND (?5 IS NULL OR rollout = ?5) ORDER BY rowid LIMIT ?4",
    )
    .bind(after)
    .bind(artifact.map(|digest| digest.to_string()))
    .bind(environment.map(Environment::as_str))
    .bind(limit)
    .bind(rollout.map(Id::as_str))
    .fetch_all(db)
    .await?;
    let stored = |row: &SqliteRow| {
        let stored = Stored {
            server: parse(row.try_get("server")?)?,
            envelope: row.try_get("envelope")?,
            received: UnixMs(to_u64(row.try_get("received_ms")?)),
        };
        Ok((row.try_get("rowid")?, stored))
    };
    rows.iter().map(stored).collect()
}
