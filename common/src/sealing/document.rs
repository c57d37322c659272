//! The sealed values of a config for one server: one age file for each secret, so that one can be given another value
//! without anybody knowing the others.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{InvalidSealingKey, Recipient, Salt, SealingKey, Secret};
use crate::{
    json::{self, InvalidJson},
    limits::{SEALED_BYTES, SEALED_SECRET_BYTES},
    name::{App, Environment, StepName},
    plan::Plan,
    trust::{Commitment, Refusal},
};

/// What `format` of sealed values says.
pub const SEALED_FORMAT: &str = "consign-sealed-v1";

/// What travels beside an order: by parameter, an age file in base64. Nobody signs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// [`SEALED_FORMAT`].
    pub format: String,
    pub values: BTreeMap<StepName, String>,
}

impl Sealed {
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a StepName, &'a [u8])>) -> Self {
        let values = files.into_iter().map(|(name, file)| (name.clone(), STANDARD.encode(file)));
        Self { format: SEALED_FORMAT.to_owned(), values: values.collect() }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidJson> {
        let sealed: Self = json::from_slice_exact(bytes, SEALED_BYTES)?;
        if sealed.format != SEALED_FORMAT {
            let why = format!("its format is not {SEALED_FORMAT:?}");
            return Err(InvalidJson::Malformed { why });
        }
        Ok(sealed)
    }

    pub fn to_vec(&self) -> Vec<u8> {
        json::to_vec(self)
    }
}

/// Whose secret it is: inside of the age file, so that a mistake of whoever stores them is told from an attack.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    pub app: &'a App,
    pub environment: &'a Environment,
    pub name: &'a StepName,
}

/// What an age file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    app: App,
    environment: Environment,
    name: StepName,
    salt: String,
    value: String,
}

impl Given<'_> {
    /// The age file for one server.
    pub fn seal(&self, secret: &Secret, recipient: &Recipient) -> Result<Vec<u8>, InvalidSealingKey> {
        recipient.seal(&json::to_vec(&Content {
            app: self.app.clone(),
            environment: self.environment.clone(),
            name: self.name.clone(),
            salt: secret.salt().to_base64(),
            value: secret.value().to_owned(),
        }))
    }

    fn open(&self, file: &[u8], key: &SealingKey) -> Result<Secret, String> {
        let plain = key.open(file).map_err(|error| error.to_string())?;
        // What serde would quote is the secret.
        let content: Content = json::from_slice_exact(&plain, SEALED_SECRET_BYTES)
            .map_err(|_| "what is sealed in it is no secret's content".to_owned())?;
        if (&content.app, &content.environment, &content.name) != (self.app, self.environment, self.name) {
            return Err(format!(
                "it is the value of {} of {} in {}",
                content.name, content.app, content.environment
            ));
        }
        let salt = Salt::from_base64(&content.salt).ok_or_else(|| "its salt is none".to_owned())?;
        Ok(Secret::new(salt, content.value))
    }
}

/// Opens what came for this server. Every secret that the values commit to must be there, with exactly the value that was
/// signed, and fit its declaration; what else came is not looked at.
pub fn open(
    sealed: &[u8],
    key: &SealingKey,
    plan: &Plan,
    environment: &Environment,
    commitments: &BTreeMap<StepName, Commitment>,
) -> Result<BTreeMap<StepName, Secret>, Refusal> {
    if commitments.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sealed = match sealed {
        [] => Sealed::new([]),
        bytes => Sealed::parse(bytes)
            .map_err(|error| Refusal::Malformed { what: "sealed values", why: error.to_string() })?,
    };
    let mut secrets = BTreeMap::new();
    for (parameter, commitment) in commitments {
        let name = || parameter.clone();
        let file = sealed.values.get(parameter).ok_or_else(|| Refusal::SecretMissing { name: name() })?;
        let given = Given { app: &plan.app, environment, name: parameter };
        let secret = STANDARD
            .decode(file)
            .map_err(|_| "it is not base64".to_owned())
            .and_then(|file| given.open(&file, key))
            .map_err(|why| Refusal::SecretMismatch { name: name(), why })?;
        if secret.commitment() != *commitment {
            let why = "it is not the value that was signed".to_owned();
            return Err(Refusal::SecretMismatch { name: name(), why });
        }
        let param = plan.params.get(parameter).ok_or_else(|| Refusal::SecretMissing { name: name() })?;
        secret
            .check(param)
            .map_err(|error| Refusal::SecretInvalid { name: name(), why: error.to_string() })?;
        secrets.insert(name(), secret);
    }
    Ok(secrets)
}
