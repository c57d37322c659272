//! What was said about artifacts: envelopes as they were signed, each in a row. Of what one signer says of one thing the
//! newest word stands, so that a test that failed later is not hidden behind the one that passed before.

use consign_common::{
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    name::{Environment, Id},
    time::UnixMs,
    trust::{Envelope, OrderingNumber, PUBLISHED, Predicate, Statement},
};
use serde_json::Value;
use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};

use super::{Repository, RepositoryError};
use crate::store::{
    StoreError, Write,
    column::{from_u64, parse, to_u64},
};

/// Publications of one artifact that are kept, the newest.
pub(super) const PUBLICATIONS: i64 = 32;
/// Of what no gate asks for, this many are kept of one artifact.
pub(super) const OTHERS: usize = 64;
/// Decisions about one artifact that are kept, the newest.
const DECISIONS: i64 = 64;

/// A statement that was verified when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of the envelope.
    pub digest: Sha256,
    /// The manifest that it is about.
    pub artifact: Sha256,
    pub predicate: String,
    pub environment: Option<Environment>,
    /// A decision's rollout, server and step.
    pub about: String,
    /// The keys that signed it and may; sorted.
    pub signers: Vec<Sha256>,
    /// Of a publication or an approval; of somebody else's predicate the time that it says, if it says one.
    pub number: OrderingNumber,
    pub envelope: Vec<u8>,
    /// Empty: it came with the artifact.
    pub added_by: String,
    pub added: UnixMs,
}

impl Kept {
    /// What the envelope says of itself, once its signatures were found to be by `signers`.
    pub(super) fn new(
        envelope: Vec<u8>,
        statement: &Statement,
        mut signers: Vec<Sha256>,
        added_by: &str,
        added: UnixMs,
    ) -> Self {
        let (environment, about, number) = match &statement.predicate {
            Predicate::Published(published) => (None, String::new(), published.number),
            Predicate::Approval(approval) => {
                (Some(approval.environment.clone()), String::new(), approval.number)
            }
            Predicate::Config(config) => {
                (Some(config.environment.clone()), String::new(), OrderingNumber::default())
            }
            Predicate::Enrolled(enrolled) => {
                (Some(enrolled.environment.clone()), String::new(), OrderingNumber::default())
            }
            Predicate::Decision(decision) => {
                let server = decision.server.as_ref().map_or("", |server| server.as_str());
                let about = format!("{}/{server}/{}", decision.rollout, decision.step);
                (Some(decision.environment.clone()), about, OrderingNumber::default())
            }
            Predicate::Foreign { value, .. } => {
                let ms = said_at(value).unwrap_or_default();
                (None, String::new(), OrderingNumber { epoch: 0, ms })
            }
        };
        signers.sort_unstable();
        Self {
            digest: Sha256::of(&envelope),
            artifact: statement.subject.sha256,
            predicate: statement.predicate.type_name().to_owned(),
            environment,
            about,
            signers,
            number,
            envelope,
            added_by: added_by.to_owned(),
            added,
        }
    }

    /// Whether it is a decision about this rollout.
    pub fn is_about(&self, rollout: &Id) -> bool {
        self.about.split('/').next() == Some(rollout.as_str())
    }

    /// Whether the other one says something of the same, and everybody who signed it signed this one too.
    fn speaks_over(&self, other: &Self) -> bool {
        self.predicate != PUBLISHED
            && self.predicate == other.predicate
            && self.environment == other.environment
            && self.about == other.about
            && other.signers.iter().all(|signer| self.signers.contains(signer))
    }
}

impl Repository {
    /// All that is kept about an artifact, newest first.
    pub async fn kept(&self, artifact: Sha256) -> Result<Vec<Kept>, RepositoryError> {
        Ok(select(self.store.read(), artifact).await?)
    }

    /// The envelopes about it: publications first, the newest first.
    pub async fn statements(&self, artifact: Sha256) -> Result<Vec<Vec<u8>>, RepositoryError> {
        let mut kept = self.kept(artifact).await?;
        kept.sort_by_key(|kept| kept.predicate != PUBLISHED);
        Ok(kept.into_iter().map(|kept| kept.envelope).collect())
    }
}

/// When somebody else's predicate says that it was made, by the names that in-toto's predicates have for it. It is signed
/// with the rest.
pub(super) fn said_at(predicate: &Value) -> Option<UnixMs> {
    let text = ["timeCreated", "timeVerified"].iter().find_map(|name| predicate.get(name)?.as_str())?;
    let at = text.parse::<jiff::Timestamp>().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(UnixMs)
}

/// Whether a statement is new here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    New,
    /// This very envelope is here already.
    Known,
    /// The same signers have said something newer of the same.
    Outdated,
}

/// Keeps it, and lets go of what it takes the place of.
pub(super) async fn put(write: &mut Write, new: &Kept) -> Result<Novelty, StoreError> {
    let all = select(&mut **write, new.artifact).await?;
    if all.iter().any(|kept| kept.digest == new.digest) {
        return Ok(Novelty::Known);
    }
    // One that says no time is as new as its coming, unless it was here before. Who keeps back the newer word for good is
    // not found out by this.
    let says_when = new.number != OrderingNumber::default();
    let is_older = |kept: &&Kept| says_when && new.number < kept.number && kept.speaks_over(new);
    let statement = payload_digest(&new.envelope);
    if all.iter().any(|kept| is_older(&kept)) || was_outspoken(write, statement).await? {
        return Ok(Novelty::Outdated);
    }
    for old in all.iter().filter(|kept| new.speaks_over(kept)) {
        let replaced = payload_digest(&old.envelope);
        // With more signatures it is the same word.
        if replaced != statement {
            outspeak(write, replaced, old.artifact).await?;
        }
        sqlx::query("DELETE FROM statements WHERE digest = ?")
            .bind(old.digest.to_string())
            .execute(&mut **write)
            .await?;
    }
    insert(write, new).await?;
    prune(write, new.artifact, "predicate = 'consign:published/v1'", PUBLICATIONS).await?;
    prune(write, new.artifact, "about <> ''", DECISIONS).await?;
    Ok(Novelty::New)
}

fn payload_digest(envelope: &[u8]) -> Sha256 {
    let payload = Envelope::parse(envelope, ENVELOPE_BYTES).map(|envelope| Sha256::of(envelope.payload()));
    payload.unwrap_or_else(|_| Sha256::of(envelope))
}

async fn was_outspoken(write: &mut Write, statement: Sha256) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outspoken WHERE statement = ?)");
    Ok(query.bind(statement.to_string()).fetch_one(&mut **write).await?)
}

async fn outspeak(write: &mut Write, statement: Sha256, artifact: Sha256) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO outspoken (statement, artifact) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(statement.to_string())
        .bind(artifact.to_string())
        .execute(&mut **write)
        .await?;
    Ok(())
}

pub(super) async fn select<'e>(
    db: impl SqliteExecutor<'e>,
    artifact: Sha256,
) -> Result<Vec<Kept>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM statements WHERE artifact = ? ORDER BY epoch DESC, ms DESC, added_ms DESC, rowid DESC",
    )
    .bind(artifact.to_string())
    .fetch_all(db)
    .await?;
    rows.iter().map(row).collect()
}

async fn insert(write: &mut Write, kept: &Kept) -> Result<(), StoreError> {
    let signers: Vec<String> = kept.signers.iter().map(ToString::to_string).collect();
    sqlx::query(
        "INSERT INTO statements (digest, artifact, predicate, environment, about, signers, epoch, ms, envelope,
                                 added_by, added_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(kept.digest.to_string())
    .bind(kept.artifact.to_string())
    .bind(&kept.predicate)
    .bind(kept.environment.as_ref().map_or("", |environment| environment.as_str()))
    .bind(&kept.about)
    .bind(signers.join(" "))
    .bind(from_u64(kept.number.epoch))
    .bind(from_u64(kept.number.ms.0))
    .bind(&kept.envelope)
    .bind(&kept.added_by)
    .bind(from_u64(kept.added.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Keeps the newest of a kind.
async fn prune(write: &mut Write, artifact: Sha256, which: &str, keep: i64) -> Result<(), StoreError> {
    // `which` is one of two constants of this module.
    let text = format!(
        "DELETE FROM statements WHERE artifact = ?1 AND {which} AND digest NOT IN (
             SELECT digest FROM statements WHERE artifact = ?1 AND {which}
             ORDER BY epoch DESC, ms DESC, added_ms DESC, rowid DESC LIMIT ?2)"
    );
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(artifact.to_string())
        .bind(keep)
        .execute(&mut **write)
        .await?;
    Ok(())
}

/// The highest number of its publications.
pub(super) async fn newest_publication(
    write: &mut Write,
    artifact: Sha256,
) -> Result<Option<OrderingNumber>, StoreError> {
    let all = select(&mut **write, artifact).await?;
    Ok(all.iter().find(|kept| kept.predicate == PUBLISHED).map(|kept| kept.number))
}

fn row(row: &SqliteRow) -> Result<Kept, StoreError> {
    let environment: &str = row.try_get("environment")?;
    let signers: &str = row.try_get("signers")?;
    let number = |column| -> Result<u64, StoreError> { Ok(to_u64(row.try_get(column)?)) };
    Ok(Kept {
        digest: parse(row.try_get("digest")?)?,
        artifact: parse(row.try_get("artifact")?)?,
        predicate: row.try_get("predicate")?,
        environment: if environment.is_empty() { None } else { Some(parse(environment)?) },
        about: row.try_get("about")?,
        signers: signers.split_whitespace().map(parse).collect::<Result<_, _>>()?,
        number: OrderingNumber { epoch: number("epoch")?, ms: UnixMs(number("ms")?) },
        envelope: row.try_get("envelope")?,
        added_by: row.try_get("added_by")?,
        added: UnixMs(number("added_ms")?),
    })
}

/// Reads an envelope that was verified when it came.
pub(super) fn reread(envelope: &[u8]) -> Option<(Envelope, Statement)> {
    let envelope = Envelope::parse(envelope, ENVELOPE_BYTES).ok()?;
    let statement = Statement::parse(envelope.payload()).ok()?;
    Some((envelope, statement))
}
