//! What is remembered of every app, beyond its deployments.

use super::{
    Journal, JournalError,
    column::{from_u64, number, parse, to_u64},
    database::Write,
};
use crate::core::Pointers;
use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id},
    trust::authorize::{Installed, Memory},
};

type Numbers = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

impl Journal {
    /// What `authorize` is to know of an app; the term is that of this coordinator.
    pub async fn memory(
        &self,
        app: &App,
        environment: &Environment,
        coordinator: &str,
    ) -> Result<Memory, JournalError> {
        let numbers: Option<Numbers> = sqlx::query_as(
            "SELECT highest_epoch, highest_ms, succeeded_epoch, succeeded_ms FROM apps
             WHERE app = ? AND environment = ?",
        )
        .bind(app.as_str())
        .bind(environment.as_str())
        .fetch_optional(self.pool())
        .await?;
        let (highest, succeeded) = match numbers {
            Some((a, b, c, d)) => (a.zip(b), c.zip(d)),
            None => (None, None),
        };
        let term: Option<i64> = sqlx::query_scalar(
            "SELECT term FROM terms WHERE app = ? AND environment = ? AND coordinator = ?",
        )
        .bind(app.as_str())
        .bind(environment.as_str())
        .bind(coordinator)
        .fetch_optional(self.pool())
        .await?;
        Ok(Memory {
            highest: highest.map(|(epoch, ms)| number(epoch, ms)).transpose()?,
            succeeded: succeeded.map(|(epoch, ms)| number(epoch, ms)).transpose()?,
            term: to_u64(term.unwrap_or_default())?,
            failed: None,
            config_sequence: 0,
            config: None,
            good: self.pointer(app, environment, "good").await?,
            before: self.pointer(app, environment, "before").await?,
        })
    }

    async fn pointer(
        &self,
        app: &App,
        environment: &Environment,
        pointer: &str,
    ) -> Result<Option<Installed>, JournalError> {
        let row: Option<(String, String, i64, i64, String)> = sqlx::query_as(
            "SELECT manifest, version, published_epoch, published_ms, release FROM pointers
             WHERE app = ? AND environment = ? AND pointer = ?",
        )
        .bind(app.as_str())
        .bind(environment.as_str())
        .bind(pointer)
        .fetch_optional(self.pool())
        .await?;
        let Some((manifest, version, epoch, ms, release)) = row else { return Ok(None) };
        Ok(Some(Installed {
            manifest: parse(&manifest)?,
            version: parse(&version)?,
            published: number(epoch, ms)?,
            release,
        }))
    }

    /// The artifact that was staged into this release, by the newest deployment that did.
    pub async fn artifact_in(&self, app: &App, release: &str) -> Result<Option<Sha256>, JournalError> {
        let query = sqlx::query_scalar::<_, String>(
            "SELECT manifest FROM deployments WHERE app = ? AND release = ? ORDER BY rowid DESC LIMIT 1",
        );
        let manifest = query.bind(app.as_str()).bind(release).fetch_optional(self.pool()).await?;
        manifest.map(|manifest| parse(&manifest)).transpose()
    }

    pub(super) async fn known_apps(&self) -> Result<Vec<(App, Environment)>, JournalError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT app, environment FROM apps ORDER BY app, environment")
                .fetch_all(self.pool())
                .await?;
        rows.iter().map(|(app, environment)| Ok((parse(app)?, parse(environment)?))).collect()
    }
}

pub(super) async fn settle(
    write: &mut Write,
    deployment: &Id,
    environment: &Environment,
    pointers: &Pointers,
) -> Result<(), JournalError> {
    let app: String = sqlx::query_scalar("SELECT app FROM deployments WHERE id = ?")
        .bind(deployment.as_str())
        .fetch_one(&mut **write)
        .await?;
    sqlx::query("DELETE FROM pointers WHERE app = ? AND environment = ?")
        .bind(&app)
        .bind(environment.as_str())
        .execute(&mut **write)
        .await?;
    for (pointer, installed) in [("good", &pointers.good), ("before", &pointers.before)] {
        let Some(installed) = installed else { continue };
        sqlx::query(
            "INSERT INTO pointers
               (app, environment, pointer, manifest, version, published_epoch, published_ms, release)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&app)
        .bind(environment.as_str())
        .bind(pointer)
        .bind(installed.manifest.to_string())
        .bind(installed.version.as_str())
        .bind(from_u64(installed.published.epoch))
        .bind(from_u64(installed.published.ms.0))
        .bind(&installed.release)
        .execute(&mut **write)
        .await?;
    }
    if let Some(number) = pointers.succeeded {
        sqlx::query(
            "UPDATE apps SET succeeded_epoch = ?, succeeded_ms = ? WHERE app = ? AND environment = ?",
        )
        .bind(from_u64(number.epoch))
        .bind(from_u64(number.ms.0))
        .bind(&app)
        .bind(environment.as_str())
        .execute(&mut **write)
        .await?;
    }
    Ok(())
}
