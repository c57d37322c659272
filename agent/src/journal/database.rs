//! Opening the journal, and what may be wrong with it.

use std::{
    fs, io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use consign_common::crash;
use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::sync::Notify;

use super::{column::to_u64, events::Appended};
use crate::ports::JournalMark;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

const BUSY: Duration = Duration::from_secs(10);
/// SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: no space for the index of the write-ahead log.
const FULL: [&str; 2] = ["13", "4874"];

/// One connection behind all clones: whoever writes waits for the one before.
#[derive(Clone, Debug)]
pub struct Journal {
    pool: SqlitePool,
    deployments: PathBuf,
    appended: Arc<Notify>,
    ended: Arc<Notify>,
    id: Arc<str>,
    /// Of the newest durable event.
    position: Arc<AtomicU64>,
}

/// A writing transaction: durable when [`commit`](Self::commit) has returned, rolled back when dropped.
#[derive(Debug)]
pub(super) struct Write(Transaction<'static, Sqlite>);

impl Write {
    pub(super) async fn commit(self) -> Result<(), JournalError> {
        crash::point("journal-commit-before");
        self.0.commit().await?;
        crash::point("journal-commit-after");
        Ok(())
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(
        "{path} was written by a newer version of consign-agent (schema step {step}); install that version again"
    )]
    Newer { path: PathBuf, step: i64 },
    #[error("{path}: schema step {step} is not the one that this version was built with")]
    Foreign { path: PathBuf, step: i64 },
    #[error(
        "the journal {path} is damaged ({why}); restore it, or move the whole state directory away and enrol again: an \
         agent without its memory would run what has run"
    )]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the journal {path} is missing, and {deployments} holds deployments that it must know of; restore it, or move \
         the whole state directory away and enrol again"
    )]
    Missing { path: PathBuf, deployments: PathBuf },
    #[error("cannot read {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the journal {path} cannot be opened: {source}")]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("the journal {path} cannot be brought to this version's schema: {source}")]
    Migrate { path: PathBuf, source: MigrateError },
    #[error("the journal cannot be written or read: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the journal holds a value that cannot be: {why}")]
    Value { why: String },
    #[error("the event has {bytes} bytes, at most {max} are allowed")]
    EventTooLong { bytes: usize, max: usize },
}

impl JournalError {
    pub(crate) fn value(why: impl std::fmt::Display) -> Self {
        Self::Value { why: why.to_string() }
    }

    /// The disk is full: nothing was written, and it can be written once there is space.
    pub fn is_full(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| FULL.contains(&&*code))
    }
}

impl Journal {
    /// Opens `<state>/journal.db`. A new one is made only where nothing speaks of an old one.
    pub async fn open(state: &Path) -> Result<Self, JournalError> {
        let path = state.join("journal.db");
        let deployments = state.join("deployments");
        let is_new = fs::metadata(&path).map_or(true, |file| file.len() == 0);
        if is_new && holds_anything(&deployments)? {
            return Err(JournalError::Missing { path, deployments });
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|error| open_error(&path, error))?;
        let check = sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(&pool).await;
        let check = check.map_err(|error| open_error(&path, error))?;
        if check != "ok" {
            return Err(JournalError::Damaged { path, why: check });
        }
        MIGRATIONS.run(&pool).await.map_err(|error| migrate_error(path, error))?;
        let (id, position): (String, i64) =
            sqlx::query_as("SELECT id, position FROM journal").fetch_one(&pool).await?;
        let position = Arc::new(AtomicU64::new(to_u64(position)?));
        Ok(Self {
            pool,
            deployments,
            appended: Arc::default(),
            ended: Arc::default(),
            id: id.into(),
            position,
        })
    }

    /// Which journal this is, and how far it has been written.
    pub fn mark(&self) -> JournalMark {
        JournalMark { id: self.id.to_string(), position: self.position.load(Ordering::Acquire) }
    }

    /// Told of every event that was written.
    pub fn appended(&self) -> Arc<Notify> {
        self.appended.clone()
    }

    /// Told of every deployment that has ended.
    pub fn ended(&self) -> Arc<Notify> {
        self.ended.clone()
    }

    /// An event is durable now.
    pub(super) fn has_appended(&self, appended: &Appended) {
        self.position.fetch_max(appended.position, Ordering::AcqRel);
        self.appended.notify_one();
        if appended.ends {
            self.ended.notify_one();
        }
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Where attempts' logs lie.
    pub(super) fn deployments(&self) -> &Path {
        &self.deployments
    }

    pub(super) async fn write(&self) -> Result<Write, JournalError> {
        match self.pool.begin_with("BEGIN IMMEDIATE").await {
            // SQLite rolled a transaction back by itself, as it does on a full disk. This connection still counts it as
            // open and would refuse every other one: another takes its place.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.pool.acquire().await?.close().await?;
                Ok(Write(self.pool.begin_with("BEGIN IMMEDIATE").await?))
            }
            begun => Ok(Write(begun?)),
        }
    }

    /// Ends the connection; the write-ahead log is folded into the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn holds_anything(directory: &Path) -> Result<bool, JournalError> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(JournalError::Directory { path: directory.to_owned(), source }),
    }
}

fn open_error(path: &Path, error: sqlx::Error) -> JournalError {
    // SQLITE_CORRUPT and SQLITE_NOTADB.
    let damaged = error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code == "11" || code == "26");
    if damaged {
        return JournalError::Damaged { path: path.to_owned(), why: error.to_string() };
    }
    JournalError::Open { path: path.to_owned(), source: error }
}

fn migrate_error(path: PathBuf, error: MigrateError) -> JournalError {
    if let MigrateError::VersionMissing(step) = error {
        return JournalError::Newer { path, step };
    }
    if let MigrateError::VersionMismatch(step) = error {
        return JournalError::Foreign { path, step };
    }
    JournalError::Migrate { path, source: error }
}
