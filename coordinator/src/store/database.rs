//! The database: where it is, how it is opened, and who may write to it.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    time::Duration,
};

use consign_common::crash;
use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{StateDir, StateError};
use crate::audit;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Readers beside the one writer; WAL lets them go on while it commits.
const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(10);

/// The seam behind which another store can come: every query lives in a `store` module or in [`crate::fleet::Registry`],
/// takes its connection from here, and returns domain types.
#[derive(Debug)]
pub struct Store {
    readers: SqlitePool,
    /// One connection: writers queue here in order, and never meet SQLITE_BUSY in the middle of a transaction.
    writer: SqlitePool,
    state: StateDir,
}

/// The one writing transaction: durable when [`commit`](Self::commit) has returned, rolled back when dropped.
#[derive(Debug)]
pub struct Write(Transaction<'static, Sqlite>);

impl Write {
    /// With it, the audit log has what is being done.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        audit::carry(&mut self).await?;
        crash::point("store-commit-before");
        self.0.commit().await?;
        crash::point("store-commit-after");
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
pub enum StoreError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "{path} was written by a newer version of consign (its schema has step {step}, which this version does not know); start that version, or restore a backup"
    )]
    Newer { path: PathBuf, step: i64 },
    #[error("{path}: schema step {step} is not the one that this version was built with; restore a backup")]
    Foreign { path: PathBuf, step: i64 },
    #[error("{path} cannot be brought to this version's schema")]
    Migrate { path: PathBuf, source: MigrateError },
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database holds a value that cannot be: {what}")]
    Corrupt { what: String },
}

impl StoreError {
    /// For a column that does not parse as what was written into it.
    pub fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.to_string() }
    }
}

impl Store {
    /// Takes the state directory's lock, opens the database and brings it to this version's schema.
    pub async fn open(state: StateDir) -> Result<Self, StoreError> {
        let path = state.database();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await.map_err(|error| migrate_error(path, error))?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { readers, writer, state })
    }

    /// For queries; a write through it fails.
    pub fn read(&self) -> &SqlitePool {
        &self.readers
    }

    /// Begins the one writing transaction. Do not ask for a second one while you hold it: you would wait for yourself.
    pub async fn write(&self) -> Result<Write, StoreError> {
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            // SQLite rolled a transaction back by itself, as it does on a full disk. This connection still counts it as
            // open and would refuse every other one: another takes its place.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await?.close().await?;
                Ok(Write(self.writer.begin_with("BEGIN IMMEDIATE").await?))
            }
            begun => Ok(Write(begun?)),
        }
    }

    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Ends all connections; the WAL is folded into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The coordinator is ending: what still asks gets no answer.
    pub fn is_closed(&self) -> bool {
        self.readers.is_closed()
    }
}

fn migrate_error(path: PathBuf, error: MigrateError) -> StoreError {
    if let MigrateError::VersionMissing(step) = error {
        return StoreError::Newer { path, step };
    }
    if let MigrateError::VersionMismatch(step) = error {
        return StoreError::Foreign { path, step };
    }
    StoreError::Migrate { path, source: error }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(dir: &tempfile::TempDir) -> Result<Store, StoreError> {
        Store::open(StateDir::open(dir.path())?).await
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await.unwrap();
        let mut write = store.write().await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9000, 'from the future', 1, x'00', 0)",
        )
        .execute(&mut *write)
        .await
        .unwrap();
        write.commit().await.unwrap();
        store.close().await;
        drop(store);
        let error = open(&dir).await.unwrap_err();
        assert!(matches!(error, StoreError::Newer { step: 9000, .. }), "{error}");
        assert!(error.to_string().contains("newer version of consign"), "{error}");
    }

    /// Steps came out of the order of their numbers: there are databases with 8, 10 and 11 and without 7 and 9.
    #[tokio::test]
    async fn a_database_with_later_steps_gets_the_earlier_ones_that_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let path = StateDir::open(dir.path()).unwrap().database();
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let migrations =
            MIGRATIONS.migrations.iter().filter(|step| !matches!(step.version, 7 | 9)).cloned().collect();
        let before = Migrator::with_migrations(migrations);
        before.run(&pool).await.unwrap();
        let candidate = "INSERT INTO candidates (app, environment, version, platform, digest, epoch, ms, since_ms, green_in, \
                         source, standing) VALUES ('shop', 'staging', '1', '', 'd', 1, 1, 1, '', '', 'waiting')";
        sqlx::query(candidate).execute(&pool).await.unwrap();
        pool.close().await;
        for _ in 0..2 {
            let store = open(&dir).await.unwrap();
            let query = "SELECT (SELECT count(*) FROM audit) + (SELECT count(*) FROM webhooks)";
            let (rows,): (i64,) = sqlx::query_as(query).fetch_one(store.read()).await.unwrap();
            assert_eq!(rows, 0);
            let (told,): (String,) =
                sqlx::query_as("SELECT told FROM candidates").fetch_one(store.read()).await.unwrap();
            assert_eq!(told, "");
            store.close().await;
        }
    }

    #[tokio::test]
    async fn after_a_full_disk_it_writes_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await.unwrap();
        let mut write = store.write().await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *write).await.unwrap();
        // PRAGMA takes no parameter; the text is made of a number only.
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::raw_sql(limit).execute(&mut *write).await.unwrap();
        let large = "CREATE TABLE large AS SELECT zeroblob(1000000) AS it";
        let full = sqlx::query(large).execute(&mut *write).await.unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        drop(write);
        store.write().await.unwrap().commit().await.unwrap();
    }

    #[tokio::test]
    async fn settings_hold_on_every_connection() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await.unwrap();
        let mut write = store.write().await.unwrap();
        for (pragma, expected) in [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1)] {
            let (value,): (i64,) = sqlx::query_as(pragma).fetch_one(&mut *write).await.unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
        let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&mut *write).await.unwrap();
        assert_eq!(mode, "wal");
        drop(write);
        assert!(sqlx::query("DELETE FROM servers").execute(store.read()).await.is_err());
    }
}
