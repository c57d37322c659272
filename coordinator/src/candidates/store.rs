//! Queries. Writing ones take the one writing transaction of what they belong to.

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, Platform, Version},
    time::UnixMs,
    trust::OrderingNumber,
};
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{CandidateRow, Settled, Standing, tell};
use crate::{
    environments::{self, Deploy},
    store::{
        StoreError, Write,
        column::{from_u64, parse, parse_opt, to_u64},
    },
};

/// Candidates in one listing.
const LIST: u32 = 1000;
/// Of those that have begun, the ones that a new one is compared with.
const STARTED: u32 = 50;

/// Which candidates; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub app: Option<App>,
    pub environment: Option<Environment>,
    pub digest: Option<Sha256>,
    pub which: Which,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    #[default]
    Waiting,
    /// Also those that are settled.
    All,
}

/// An artifact was published, or signed anew: a candidate wherever that is enough.
pub async fn published(write: &mut Write, digest: Sha256, now: UnixMs) -> Result<(), StoreError> {
    for (environment, applied) in environments::store::list(&mut **write).await? {
        match applied.settings.automation.deploy {
            Some(Deploy::OnPublish) => put(write, &environment, digest, None, now).await?,
            Some(Deploy::Manual | Deploy::After(_)) | None => {}
        }
    }
    Ok(())
}

/// A rollout of it to all of an environment succeeded: a candidate wherever that is asked for.
pub async fn succeeded(
    write: &mut Write,
    green: &Environment,
    digest: Sha256,
    rollout: &Id,
    now: UnixMs,
) -> Result<(), StoreError> {
    for (environment, applied) in environments::store::list(&mut **write).await? {
        match applied.settings.automation.deploy {
            Some(Deploy::After(asked)) if asked == *green => {
                put(write, &environment, digest, Some((green, rollout)), now).await?;
            }
            Some(Deploy::After(_) | Deploy::Manual | Deploy::OnPublish) | None => {}
        }
    }
    Ok(())
}

/// One that waits already goes on waiting, under what made it one last. Of one publication there is only ever one.
async fn put(
    write: &mut Write,
    environment: &Environment,
    digest: Sha256,
    green: Option<(&Environment, &Id)>,
    now: UnixMs,
) -> Result<(), StoreError> {
    let (green_in, source) = green.map_or(("", ""), |(green, rollout)| (green.as_str(), rollout.as_str()));
    let waits = sqlx::query(
        "UPDATE candidates SET green_in = ?3, source = ?4,
             epoch = (SELECT epoch FROM artifacts WHERE digest = ?1),
             ms = (SELECT ms FROM artifacts WHERE digest = ?1)
         WHERE digest = ?1 AND environment = ?2 AND standing = 'waiting'
           AND EXISTS (SELECT 1 FROM artifacts WHERE digest = ?1)",
    )
    .bind(digest.to_string())
    .bind(environment.as_str())
    .bind(green_in)
    .bind(source)
    .execute(&mut **write)
    .await?;
    if waits.rows_affected() > 0 {
        return Ok(());
    }
    let made = sqlx::query(
        "INSERT OR IGNORE INTO candidates (app, environment, version, platform, digest, epoch, ms, since_ms,
                                           green_in, source, standing)
         SELECT app, ?2, version, platform, digest, epoch, ms, ?3, ?4, ?5, 'waiting'
         FROM artifacts WHERE digest = ?1",
    )
    .bind(digest.to_string())
    .bind(environment.as_str())
    .bind(from_u64(now.0))
    .bind(green_in)
    .bind(source)
    .execute(&mut **write)
    .await?;
    if made.rows_affected() > 0 {
        tracing::info!(%digest, %environment, green_in, "a candidate");
    }
    Ok(())
}

/// Newest publication first.
pub async fn list<'e>(db: impl SqliteExecutor<'e>, query: &Query) -> Result<Vec<CandidateRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM candidates
         WHERE (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR environment = ?2) AND (?3 IS NULL OR digest = ?3)
           AND (?4 OR standing = 'waiting')
         ORDER BY ms DESC, number DESC LIMIT ?5",
    )
    .bind(query.app.as_ref().map(App::as_str))
    .bind(query.environment.as_ref().map(Environment::as_str))
    .bind(query.digest.map(|digest| digest.to_string()))
    .bind(query.which == Which::All)
    .bind(i64::from(LIST))
    .fetch_all(db)
    .await?;
    rows.iter().map(row).collect()
}

/// All that wait.
pub async fn waiting<'e>(db: impl SqliteExecutor<'e>) -> Result<Vec<CandidateRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM candidates WHERE standing = 'waiting' ORDER BY number")
        .fetch_all(db)
        .await?;
    rows.iter().map(row).collect()
}

pub async fn waiting_count<'e>(db: impl SqliteExecutor<'e>) -> Result<u32, StoreError> {
    let row = sqlx::query("SELECT count(*) AS waiting FROM candidates WHERE standing = 'waiting'")
        .fetch_one(db)
        .await?;
    Ok(u32::try_from(to_u64(row.try_get("waiting")?)).unwrap_or(u32::MAX))
}

/// Those that have begun there, newest publication first.
pub async fn started<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<Vec<CandidateRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM candidates WHERE app = ? AND environment = ? AND standing = 'started'
         ORDER BY epoch DESC, ms DESC LIMIT ?",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .bind(i64::from(STARTED))
    .fetch_all(db)
    .await?;
    rows.iter().map(row).collect()
}

/// The newest that waits or has begun.
pub async fn newest<'e>(
    db: impl SqliteExecutor<'e>,
    app: &App,
    environment: &Environment,
) -> Result<Option<CandidateRow>, StoreError> {
    let found = sqlx::query(
        "SELECT * FROM candidates WHERE app = ? AND environment = ? AND standing IN ('waiting', 'started')
         ORDER BY epoch DESC, ms DESC LIMIT 1",
    )
    .bind(app.as_str())
    .bind(environment.as_str())
    .fetch_optional(db)
    .await?;
    found.as_ref().map(row).transpose()
}

/// What became of a settled one.
struct Settling<'a> {
    standing: Standing,
    settled: &'a Settled,
    rollout: Option<&'a Id>,
}

/// Begins with this rollout, if it waits: whoever comes second finds that it does not.
pub async fn claim(
    write: &mut Write,
    number: i64,
    rollout: &Id,
    settled: &Settled,
) -> Result<bool, StoreError> {
    let settling = Settling { standing: Standing::Started, settled, rollout: Some(rollout) };
    Ok(settle(write, number, settling).await? > 0)
}

/// A person started the artifact on all servers: what waited for that has begun.
pub async fn settle_by_hand(
    write: &mut Write,
    (app, environment, digest): (&App, &Environment, Sha256),
    rollout: &Id,
    settled: &Settled,
) -> Result<(), StoreError> {
    let query = Query {
        app: Some(app.clone()),
        environment: Some(environment.clone()),
        digest: Some(digest),
        which: Which::Waiting,
    };
    for waits in list(&mut **write, &query).await? {
        let settling = Settling { standing: Standing::Started, settled, rollout: Some(rollout) };
        settle(write, waits.number, settling).await?;
    }
    Ok(())
}

pub async fn supersede(write: &mut Write, number: i64, settled: &Settled) -> Result<(), StoreError> {
    settle(write, number, Settling { standing: Standing::Superseded, settled, rollout: None }).await?;
    Ok(())
}

/// The one that waited and does not any more; `None`: it did not wait.
pub async fn veto(
    write: &mut Write,
    (app, environment, version): (&App, &Environment, &Version),
    settled: &Settled,
) -> Result<Option<CandidateRow>, StoreError> {
    let query = Query { app: Some(app.clone()), environment: Some(environment.clone()), ..Query::default() };
    let mut vetoed = None;
    // One for each platform.
    for waits in list(&mut **write, &query).await?.into_iter().filter(|waits| waits.version == *version) {
        settle(write, waits.number, Settling { standing: Standing::Vetoed, settled, rollout: None }).await?;
        let (standing, settled) = (Standing::Vetoed, Some(settled.clone()));
        vetoed.get_or_insert(CandidateRow { standing, settled, ..waits });
    }
    Ok(vetoed)
}

async fn settle(write: &mut Write, number: i64, settling: Settling<'_>) -> Result<u64, StoreError> {
    let Settling { standing, settled, rollout } = settling;
    let done = sqlx::query(
        "UPDATE candidates SET standing = ?, settled_ms = ?, settled_by = ?, because = ?, rollout = ?, refused = ''
         WHERE number = ? AND standing = 'waiting'",
    )
    .bind(standing.as_str())
    .bind(from_u64(settled.at.0))
    .bind(&settled.by)
    .bind(&settled.because)
    .bind(rollout.map(Id::as_str))
    .bind(number)
    .execute(&mut **write)
    .await?;
    if done.rows_affected() > 0 {
        let row = sqlx::query("SELECT * FROM candidates WHERE number = ?")
            .bind(number)
            .fetch_one(&mut **write)
            .await?;
        tell::settled(write, &self::row(&row)?, settled).await?;
    }
    Ok(done.rows_affected())
}

/// It was to begin, and was not let through.
pub async fn refused(write: &mut Write, number: i64, why: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE candidates SET refused = ? WHERE number = ? AND standing = 'waiting'")
        .bind(why)
        .bind(number)
        .execute(&mut **write)
        .await?;
    Ok(())
}

/// Of the settled ones of each app and environment only the newest stay.
pub async fn retain(write: &mut Write, keep: u32) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM candidates WHERE number IN (
             SELECT number FROM (
                 SELECT number, row_number() OVER (PARTITION BY app, environment ORDER BY number DESC) AS newest
                 FROM candidates WHERE standing <> 'waiting')
             WHERE newest > ?)",
    )
    .bind(i64::from(keep))
    .execute(&mut **write)
    .await?;
    Ok(())
}

fn row(row: &SqliteRow) -> Result<CandidateRow, StoreError> {
    let platform: &str = row.try_get("platform")?;
    let (green_in, source): (&str, &str) = (row.try_get("green_in")?, row.try_get("source")?);
    let standing: Standing = parse(row.try_get("standing")?)?;
    let refused: String = row.try_get("refused")?;
    let settled = Settled {
        at: UnixMs(to_u64(row.try_get("settled_ms")?)),
        by: row.try_get("settled_by")?,
        because: row.try_get("because")?,
    };
    Ok(CandidateRow {
        number: row.try_get("number")?,
        app: parse(row.try_get("app")?)?,
        environment: parse(row.try_get("environment")?)?,
        version: parse(row.try_get("version")?)?,
        platform: if platform.is_empty() { None } else { Some(parse::<Platform>(platform)?) },
        digest: parse(row.try_get("digest")?)?,
        published: OrderingNumber {
            epoch: to_u64(row.try_get("epoch")?),
            ms: UnixMs(to_u64(row.try_get("ms")?)),
        },
        since: UnixMs(to_u64(row.try_get("since_ms")?)),
        green: if green_in.is_empty() { None } else { Some((parse(green_in)?, parse(source)?)) },
        standing,
        settled: (standing != Standing::Waiting).then_some(settled),
        rollout: parse_opt(row.try_get("rollout")?)?,
        refused: Some(refused).filter(|why| !why.is_empty()),
        told: row.try_get("told")?,
    })
}
