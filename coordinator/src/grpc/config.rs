//! What operators ask of config and of servers' keys.

use consign_common::name::{App, Environment};
use consign_proto::v1;
use tonic::Status;

use super::{
    Caller,
    answer::{internal, invalid, refused},
};
use crate::config::{ConfigError, Configs, Put, SealedSecret, SealedTo, ServerKeys, Version};

#[derive(Clone, Debug)]
pub struct ConfigService {
    pub configs: Configs,
}

impl ConfigService {
    pub(super) async fn put(
        &self,
        caller: &Caller,
        request: v1::PutConfigRequest,
    ) -> Result<v1::PutConfigResponse, Status> {
        let sealed = request.sealed.into_iter().map(sealed).collect::<Result<Vec<_>, Status>>()?;
        let by = caller.identity.to_string();
        let secrets = sealed.len();
        let put = self.configs.put(request.envelope.into(), sealed, &by).await?;
        let (sequence, again) = match put {
            Put::New { sequence } => (sequence, false),
            Put::Again { sequence } => (sequence, true),
        };
        tracing::info!(sequence, again, secrets, by, "config");
        Ok(v1::PutConfigResponse { sequence, again })
    }

    pub(super) async fn show(
        &self,
        request: v1::ShowConfigRequest,
    ) -> Result<v1::ShowConfigResponse, Status> {
        let app: App = request.app.parse().map_err(invalid)?;
        let environment: Environment = request.environment.parse().map_err(invalid)?;
        let sequence = Some(request.sequence).filter(|sequence| *sequence > 0);
        let (config, sealed, history) = self.configs.show(&app, &environment, sequence).await?;
        let without = |version: Version| v1::ConfigVersion { envelope: Vec::new().into(), ..told(version) };
        Ok(v1::ShowConfigResponse {
            config: config.map(told),
            sealed: sealed.into_iter().map(sealed_to).collect(),
            history: history.into_iter().map(without).collect(),
        })
    }

    pub(super) async fn keys(
        &self,
        request: v1::ListSealingKeysRequest,
    ) -> Result<v1::ListSealingKeysResponse, Status> {
        let environment: Option<Environment> = match request.environment.as_str() {
            "" => None,
            given => Some(given.parse().map_err(invalid)?),
        };
        let keys = self.configs.keys(environment.as_ref()).await?;
        Ok(v1::ListSealingKeysResponse { servers: keys.into_iter().map(server_keys).collect() })
    }

    pub(super) async fn accept(
        &self,
        caller: &Caller,
        request: v1::AcceptServerRequest,
    ) -> Result<v1::AcceptServerResponse, Status> {
        let keys = self.configs.accept(&request.envelope, &caller.identity.to_string()).await?;
        tracing::info!(server = %keys.server, by = %caller.identity, "server accepted");
        Ok(v1::AcceptServerResponse { keys: Some(server_keys(keys)) })
    }
}

fn sealed(sealed: v1::SealedSecret) -> Result<SealedSecret, Status> {
    Ok(SealedSecret {
        server: sealed.server.parse().map_err(invalid)?,
        name: sealed.name.parse().map_err(invalid)?,
        commitment: sealed.commitment.parse().map_err(invalid)?,
        recipient: sealed.recipient,
        file: sealed.file.into(),
    })
}

fn told(version: Version) -> v1::ConfigVersion {
    let Version { sequence, envelope, at, by } = version;
    v1::ConfigVersion { sequence, envelope: envelope.into(), at_ms: at.0, by }
}

fn sealed_to(sealed: SealedTo) -> v1::SealedTo {
    let SealedTo { server, name, commitment, recipient } = sealed;
    v1::SealedTo { server: server.into(), name: name.into(), commitment: commitment.to_string(), recipient }
}

pub(super) fn server_keys(keys: ServerKeys) -> v1::ServerKeys {
    let ServerKeys { server, environment, recipient, spki, acceptance } = keys;
    let (enrolled, at) = acceptance.unwrap_or_default();
    v1::ServerKeys {
        server: server.into(),
        environment: environment.into(),
        sealing_key: recipient.unwrap_or_default(),
        spki_sha256: spki.map(String::from).unwrap_or_default(),
        enrolled: enrolled.into(),
        enrolled_ms: at.0,
    }
}

impl From<ConfigError> for Status {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Refused(refusal) => refused(refusal),
            ConfigError::Invalid(_) => invalid(error),
            ConfigError::Sequence { .. } | ConfigError::OtherKey { .. } => {
                Self::failed_precondition(error.to_string())
            }
            ConfigError::ServerUnknown { .. } | ConfigError::None { .. } => {
                Self::not_found(error.to_string())
            }
            ConfigError::Store(error) => internal(error),
        }
    }
}
