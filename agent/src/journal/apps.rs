//! What is remembered of every app, beyond its deployments.

use std::collections::BTreeSet;

use super::{
    Journal, JournalError,
    column::{from_u64, number, parse, to_u64},
    database::Write,
};
use crate::core::Pointers;
use consign_common::{
    config::{InForce, Values},
    deployment::DeploymentOutcome,
    digest::Sha256,
    name::{App, Environment, Id},
    time::UnixMs,
    trust::{
        Order,
        authorize::{Installed, Memory},
        gate::Rearming,
    },
};

type Remembered = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, i64);
type Pointed = (String, String, i64, i64, String, Option<i64>, Option<String>);

impl Journal {
    /// What `authorize` is to know of an app; the term is that of this coordinator.
    pub async fn memory(
        &self,
        app: &App,
        environment: &Environment,
        coordinator: &str,
    ) -> Result<Memory, JournalError> {
        let remembered: Option<Remembered> = sqlx::query_as(
            "SELECT highest_epoch, highest_ms, succeeded_epoch, succeeded_ms, failed_epoch, failed_ms,
               config_sequence FROM apps WHERE app = ? AND environment = ?",
        )
        .bind(app.as_str())
        .bind(environment.as_str())
        .fetch_optional(self.pool())
        .await?;
        let (highest, succeeded, failed, config_sequence) = match remembered {
            Some((a, b, c, d, e, f, sequence)) => (a.zip(b), c.zip(d), e.zip(f), sequence),
            None => (None, None, None, 0),
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
            failed: failed.map(|(epoch, ms)| number(epoch, ms)).transpose()?,
            config_sequence: to_u64(config_sequence)?,
            decided: self.decided(app, environment).await?,
            good: self.pointer(app, environment, "good").await?,
            before: self.pointer(app, environment, "before").await?,
        })
    }

    async fn decided(&self, app: &App, environment: &Environment) -> Result<BTreeSet<Sha256>, JournalError> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT statement FROM decided WHERE app = ? AND environment = ?")
                .bind(app.as_str())
                .bind(environment.as_str())
                .fetch_all(self.pool())
                .await?;
        rows.iter().map(|digest| parse(digest)).collect()
    }

    async fn pointer(
        &self,
        app: &App,
        environment: &Environment,
        pointer: &str,
    ) -> Result<Option<Installed>, JournalError> {
        let row: Option<Pointed> = sqlx::query_as(
            "SELECT manifest, version, published_epoch, published_ms, release, config_sequence, config
             FROM pointers WHERE app = ? AND environment = ? AND pointer = ?",
        )
        .bind(app.as_str())
        .bind(environment.as_str())
        .bind(pointer)
        .fetch_optional(self.pool())
        .await?;
        let Some((manifest, version, epoch, ms, release, sequence, values)) = row else { return Ok(None) };
        let config = sequence.zip(values).map(|(sequence, values)| {
            let values = Values::parse(values.as_bytes()).map_err(JournalError::value)?;
            Ok::<_, JournalError>(InForce { sequence: to_u64(sequence)?, values })
        });
        Ok(Some(Installed {
            manifest: parse(&manifest)?,
            version: parse(&version)?,
            published: number(epoch, ms)?,
            release,
            config: config.transpose()?,
        }))
    }

    /// What is sealed to this server of the config that a pointer's artifact last ran with.
    pub async fn sealed(
        &self,
        app: &App,
        environment: &Environment,
        pointer: Pointer,
    ) -> Result<Option<Vec<u8>>, JournalError> {
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "SELECT sealed FROM pointers WHERE app = ? AND environment = ? AND pointer = ?",
        )
        .bind(app.as_str())
        .bind(environment.as_str())
        .bind(pointer.as_str())
        .fetch_optional(self.pool())
        .await?;
        Ok(sealed.flatten())
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

/// One of an app's two artifacts on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {
    Good,
    Before,
}

impl Pointer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Before => "before",
        }
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
    let kept = kept(write, &app, environment).await?;
    let ordered: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT sealed FROM orders JOIN deployments ON deployments.order_id = orders.id WHERE deployments.id = ?",
    )
    .bind(deployment.as_str())
    .fetch_optional(&mut **write)
    .await?
    .flatten();
    sqlx::query("DELETE FROM pointers WHERE app = ? AND environment = ?")
        .bind(&app)
        .bind(environment.as_str())
        .execute(&mut **write)
        .await?;
    for (pointer, installed) in [("good", &pointers.good), ("before", &pointers.before)] {
        let Some(installed) = installed else { continue };
        let config = installed.config.as_ref().map(|config| canonical(&config.values)).transpose()?;
        // A success is of the config that its order brought; everything else ran with what it has.
        let sealed = match (pointer, pointers.succeeded) {
            ("good", Some(_)) => ordered.clone(),
            _ => {
                let manifest = installed.manifest.to_string();
                let it = kept.iter().find(|kept| kept.manifest == manifest && kept.config == config);
                it.and_then(|kept| kept.sealed.clone())
            }
        };
        sqlx::query(
            "INSERT INTO pointers
               (app, environment, pointer, manifest, version, published_epoch, published_ms, release,
                config_sequence, config, sealed)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&app)
        .bind(environment.as_str())
        .bind(pointer)
        .bind(installed.manifest.to_string())
        .bind(installed.version.as_str())
        .bind(from_u64(installed.published.epoch))
        .bind(from_u64(installed.published.ms.0))
        .bind(&installed.release)
        .bind(installed.config.as_ref().map(|config| from_u64(config.sequence)))
        .bind(config)
        .bind(sealed)
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

/// What a pointer has of an artifact's secrets.
#[derive(sqlx::FromRow)]
struct KeptSealed {
    manifest: String,
    config: Option<String>,
    sealed: Option<Vec<u8>>,
}

async fn kept(
    write: &mut Write,
    app: &str,
    environment: &Environment,
) -> Result<Vec<KeptSealed>, JournalError> {
    let query =
        sqlx::query_as("SELECT manifest, config, sealed FROM pointers WHERE app = ? AND environment = ?");
    Ok(query.bind(app).bind(environment.as_str()).fetch_all(&mut **write).await?)
}

/// A deployment ended: what that does to the gate's `rearm`. By this server's clock, but never before what was approved.
pub(super) async fn remember_end(
    write: &mut Write,
    deployment: &Id,
    at: UnixMs,
    outcome: &DeploymentOutcome,
) -> Result<(), JournalError> {
    let document: Vec<u8> = sqlx::query_scalar(
        "SELECT document FROM orders JOIN deployments ON deployments.order_id = orders.id
         WHERE deployments.id = ?",
    )
    .bind(deployment.as_str())
    .fetch_one(&mut **write)
    .await?;
    let order = Order::parse(&document).map_err(JournalError::value)?;
    let since = match Rearming::of(&order.order, outcome) {
        Rearming::Unchanged => return Ok(()),
        Rearming::OnIfBegun if !has_begun(write, deployment).await? => return Ok(()),
        Rearming::Off => None,
        Rearming::On | Rearming::OnIfBegun => Some(from_u64(at.0)),
    };
    sqlx::query(
        "UPDATE apps SET failed_epoch = iif(?1 IS NULL, NULL, coalesce(highest_epoch, 0)),
           failed_ms = iif(?1 IS NULL, NULL, max(coalesce(highest_ms, 0), ?1))
         WHERE app = ?2 AND environment = ?3",
    )
    .bind(since)
    .bind(order.app.as_str())
    .bind(order.environment.as_str())
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Whether a step of it was started.
async fn has_begun(write: &mut Write, deployment: &Id) -> Result<bool, JournalError> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM logs WHERE deployment = ?)");
    Ok(query.bind(deployment.as_str()).fetch_one(&mut **write).await?)
}

fn canonical(values: &Values) -> Result<String, JournalError> {
    String::from_utf8(values.to_vec()).map_err(JournalError::value)
}
