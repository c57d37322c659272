//! A config comes: signed by who may, the one after the last, and its secrets for servers that there are.

use std::collections::BTreeMap;

use consign_common::{
    audit::About,
    digest::Sha256,
    limits::{ENVELOPE_BYTES, SEALED_BYTES, SEALED_SECRET_BYTES},
    name::{App, Environment, ServerName, StepName},
    trust::{CONFIG, Config, ConfigValue, Refusal, open_config},
};

use super::{Configs, SealedTo, Version, store};
use crate::{audit, store::StoreError};

/// Secrets in one message; more come in another one with the same config.
const SEALED: usize = 20_000;
const HISTORY: u32 = 50;

/// A secret's value for one server, as an operator sealed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    pub server: ServerName,
    pub name: StepName,
    pub commitment: Sha256,
    pub recipient: String,
    pub file: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    New {
        sequence: u64,
    },
    /// It was here already: what was sealed has been added.
    Again {
        sequence: u64,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "config {given} of {app} in {environment} does not follow {last}: somebody was faster; look at it with `consign config show`, then set it again"
    )]
    Sequence { app: App, environment: Environment, given: u64, last: u64 },
    #[error("{0}")]
    Invalid(String),
    #[error("there is no server {server} in {environment}")]
    ServerUnknown { server: ServerName, environment: Environment },
    #[error(
        "what was sealed for {server} is not sealed to the key that its agent has now; look at it with `consign server show {server}`"
    )]
    OtherKey { server: ServerName },
    #[error("there is no config of {app} in {environment}")]
    None { app: App, environment: Environment },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ConfigError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Configs {
    /// Takes a config, or more of what is sealed for one that is here.
    pub async fn put(
        &self,
        envelope: Vec<u8>,
        sealed: Vec<SealedSecret>,
        by: &str,
    ) -> Result<Put, ConfigError> {
        if envelope.len() > ENVELOPE_BYTES {
            return Err(ConfigError::Invalid(format!(
                "a config's envelope has at most {ENVELOPE_BYTES} bytes"
            )));
        }
        let root = self.trust_roots.newest();
        audit::note_signers(&envelope, &root);
        let config = open_config(&envelope, &root)?;
        audit::note(|act| {
            act.about(About::App, &config.app).about(About::Environment, &config.environment);
            act.about(About::Predicate, CONFIG).about(About::Settings, format!("config {}", config.sequence));
        });
        if !root.environments.contains_key(&config.environment) {
            return Err(Refusal::EnvironmentUnknown { environment: config.environment }.into());
        }
        check_sealed(&config, &sealed)?;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        self.check_servers(&mut write, &config, &sealed).await?;
        let (app, environment) = (&config.app, &config.environment);
        let known = store::version(&mut *write, app, environment, Some(config.sequence)).await?;
        let put = if known.is_some_and(|known| known.envelope == envelope) {
            Put::Again { sequence: config.sequence }
        } else {
            let last = store::version(&mut *write, app, environment, None).await?;
            let last = last.map_or(0, |last| last.sequence);
            if last.checked_add(1) != Some(config.sequence) {
                let (app, environment) = (app.clone(), environment.clone());
                return Err(ConfigError::Sequence { app, environment, given: config.sequence, last });
            }
            let version = Version { sequence: config.sequence, envelope, at: now, by: by.to_owned() };
            store::add_version(&mut write, app, environment, &version).await?;
            Put::New { sequence: config.sequence }
        };
        for secret in &sealed {
            store::add_sealed(&mut write, app, environment, secret, now).await?;
        }
        write.commit().await?;
        Ok(put)
    }

    async fn check_servers(
        &self,
        write: &mut crate::store::Write,
        config: &Config,
        sealed: &[SealedSecret],
    ) -> Result<(), ConfigError> {
        let keys = store::keys(&mut **write).await?;
        let keys: BTreeMap<_, _> = keys
            .into_iter()
            .filter(|keys| keys.environment == config.environment)
            .map(|keys| (keys.server, keys.recipient))
            .collect();
        for SealedSecret { server, recipient, .. } in sealed {
            match keys.get(server) {
                None => {
                    let (server, environment) = (server.clone(), config.environment.clone());
                    return Err(ConfigError::ServerUnknown { server, environment });
                }
                Some(known) if known.as_ref() == Some(recipient) => {}
                Some(_) => return Err(ConfigError::OtherKey { server: server.clone() }),
            }
        }
        Ok(())
    }

    /// The newest, or the one of this sequence; for whom its secrets are sealed; and those before it.
    pub async fn show(
        &self,
        app: &App,
        environment: &Environment,
        sequence: Option<u64>,
    ) -> Result<(Option<Version>, Vec<SealedTo>, Vec<Version>), ConfigError> {
        let db = self.store.read();
        let version = store::version(db, app, environment, sequence).await?;
        if let (None, Some(_)) = (&version, sequence) {
            return Err(ConfigError::None { app: app.clone(), environment: environment.clone() });
        }
        let mut sealed = store::sealed_to(db, app, environment).await?;
        let committed = match &version {
            Some(version) => commitments(&open_config(&version.envelope, &self.trust_roots.newest())?),
            None => BTreeMap::new(),
        };
        sealed.retain(|sealed| committed.get(&sealed.name) == Some(&sealed.commitment));
        Ok((version, sealed, store::history(db, app, environment, HISTORY).await?))
    }
}

/// Only what the config commits to, and not more for one server than an order can carry.
fn check_sealed(config: &Config, sealed: &[SealedSecret]) -> Result<(), ConfigError> {
    if sealed.len() > SEALED {
        return Err(ConfigError::Invalid(format!("more than {SEALED} sealed secrets in one message")));
    }
    let committed = commitments(config);
    let mut bytes: BTreeMap<&ServerName, usize> = BTreeMap::new();
    for secret in sealed {
        if committed.get(&secret.name) != Some(&secret.commitment) {
            let name = &secret.name;
            return Err(ConfigError::Invalid(format!("the config commits to no such value of {name}")));
        }
        if secret.file.len() > SEALED_SECRET_BYTES {
            return Err(ConfigError::Invalid(format!(
                "a sealed secret has at most {SEALED_SECRET_BYTES} bytes"
            )));
        }
        let sum = bytes.entry(&secret.server).or_default();
        // As base64 in an order.
        *sum += secret.file.len().div_ceil(3) * 4 + 100;
        if *sum > SEALED_BYTES {
            let server = &secret.server;
            return Err(ConfigError::Invalid(format!(
                "the secrets for {server} have more than {SEALED_BYTES} bytes"
            )));
        }
    }
    Ok(())
}

pub(super) fn commitments(config: &Config) -> BTreeMap<StepName, Sha256> {
    let committed = config.values.iter().filter_map(|(name, value)| match value {
        ConfigValue::Commitment(commitment) => Some((name.clone(), commitment.commitment)),
        ConfigValue::Bool(_) | ConfigValue::Int(_) | ConfigValue::String(_) => None,
    });
    committed.collect()
}
