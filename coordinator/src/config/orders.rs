//! The config that goes with orders: one for a whole rollout, and each server's own secrets.

use std::collections::BTreeSet;

use consign_common::{
    limits::STATEMENTS,
    name::{App, Environment, Id, ServerName, StepName},
    sealing::Sealed,
    trust::{Config, Envelope, Predicate, Refusal, Statement, open_config},
};
use sqlx::SqlitePool;

use super::{ConfigError, put::commitments, store};
use crate::{
    store::{StoreError, Write},
    trust_roots::TrustRoots,
};

/// What goes with an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForServer {
    /// The `config` statement.
    pub statement: Option<Vec<u8>>,
    /// Sealed values; empty where there are none.
    pub sealed: Vec<u8>,
}

impl ForServer {
    /// The order's other statements, and the config.
    pub fn among(&self, statements: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        put_first(self.statement.as_ref(), statements)
    }
}

/// What is signed of an artifact, and the config that it would run with.
pub fn among(in_force: Option<&InForce>, statements: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    put_first(in_force.map(|in_force| &in_force.envelope), statements)
}

/// Of more statements than an order may carry, the config is not the one that stays behind.
fn put_first(config: Option<&Vec<u8>>, mut statements: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    if let Some(config) = config {
        statements.insert(0, config.clone());
        statements.truncate(STATEMENTS);
    }
    statements
}

/// A config that a rollout begins with.
#[derive(Clone, Debug)]
pub struct InForce {
    pub config: Config,
    pub envelope: Vec<u8>,
}

impl InForce {
    /// The newest of an app in an environment, as far as those signed it who may now.
    pub async fn newest(
        db: &SqlitePool,
        trust_roots: &TrustRoots,
        app: &App,
        environment: &Environment,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(version) = store::version(db, app, environment, None).await? else { return Ok(None) };
        let config = open_config(&version.envelope, &trust_roots.newest())?;
        Ok(Some(Self { config, envelope: version.envelope }))
    }

    /// By server, its secrets that are not sealed to the key that it has.
    pub async fn missing(
        &self,
        db: &SqlitePool,
        servers: impl Iterator<Item = &ServerName>,
    ) -> Result<Vec<(ServerName, Vec<StepName>)>, StoreError> {
        let committed = commitments(&self.config);
        if committed.is_empty() {
            return Ok(Vec::new());
        }
        let sealed = store::sealed_to(db, &self.config.app, &self.config.environment).await?;
        let sealed: BTreeSet<_> =
            sealed.into_iter().map(|sealed| (sealed.server, sealed.name, sealed.commitment)).collect();
        let missing = servers.filter_map(|server| {
            let names: Vec<StepName> = committed
                .iter()
                .filter(|(name, commitment)| {
                    !sealed.contains(&(server.clone(), (*name).clone(), **commitment))
                })
                .map(|(name, _)| name.clone())
                .collect();
            (!names.is_empty()).then(|| (server.clone(), names))
        });
        Ok(missing.collect())
    }

    /// The rollout is of this config, whatever comes after.
    pub async fn pin(&self, write: &mut Write, rollout: &Id) -> Result<(), StoreError> {
        store::pin(write, rollout, self.config.sequence).await
    }

    /// With what is sealed for one server.
    pub async fn for_server(&self, db: &SqlitePool, server: &ServerName) -> Result<ForServer, StoreError> {
        let mut files = store::files(db, &self.config.app, &self.config.environment, server).await?;
        let committed = commitments(&self.config);
        let own: Vec<(StepName, Vec<u8>)> = committed
            .into_iter()
            .filter_map(|(name, commitment)| Some((name.clone(), files.remove(&(name, commitment))?)))
            .collect();
        let sealed = match own.as_slice() {
            [] => Vec::new(),
            own => Sealed::new(own.iter().map(|(name, file)| (name, file.as_slice()))).to_vec(),
        };
        Ok(ForServer { statement: Some(self.envelope.clone()), sealed })
    }
}

/// The sequence of the config that a rollout is of.
pub async fn pinned<'e>(db: impl sqlx::SqliteExecutor<'e>, rollout: &Id) -> Result<Option<u64>, StoreError> {
    store::pinned(db, rollout).await
}

/// What goes with the orders of a rollout for one server. Agents decide whether it still counts.
pub async fn for_rollout(
    db: &SqlitePool,
    rollout: &Id,
    app: &App,
    environment: &Environment,
    server: &ServerName,
) -> Result<ForServer, StoreError> {
    let Some(sequence) = store::pinned(db, rollout).await? else { return Ok(ForServer::default()) };
    let Some(version) = store::version(db, app, environment, Some(sequence)).await? else {
        return Ok(ForServer::default());
    };
    let config = read(&version.envelope).map_err(StoreError::corrupt)?;
    InForce { config, envelope: version.envelope }.for_server(db, server).await
}

/// The secrets of a rollout's config that a server cannot be given: it would refuse the order.
pub async fn lacks(
    db: &SqlitePool,
    rollout: &Id,
    app: &App,
    environment: &Environment,
    server: &ServerName,
) -> Result<Vec<StepName>, StoreError> {
    let Some(sequence) = store::pinned(db, rollout).await? else { return Ok(Vec::new()) };
    let Some(version) = store::version(db, app, environment, Some(sequence)).await? else {
        return Ok(Vec::new());
    };
    let config = read(&version.envelope).map_err(StoreError::corrupt)?;
    let in_force = InForce { config, envelope: version.envelope };
    let missing = in_force.missing(db, std::iter::once(server)).await?;
    Ok(missing.into_iter().flat_map(|(_, names)| names).collect())
}

/// It was verified when it came; whether those may still sign it, agents say.
fn read(envelope: &[u8]) -> Result<Config, Refusal> {
    let envelope = Envelope::parse(envelope, consign_common::limits::ENVELOPE_BYTES)?;
    match Statement::parse(envelope.payload())?.predicate {
        Predicate::Config(config) => Ok(config),
        Predicate::Published(_)
        | Predicate::Approval(_)
        | Predicate::Enrolled(_)
        | Predicate::Decision(_)
        | Predicate::Foreign { .. } => {
            Err(Refusal::Malformed { what: "config", why: "it is another statement".to_owned() })
        }
    }
}
