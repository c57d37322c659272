//! A secret in the clear: on the operator's machine while it is set, and on the server while a step has it.

use std::{collections::BTreeSet, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::{
    digest::{Hasher, Sha256},
    limits::{SECRET_BYTES, SECRET_BYTES_MIN},
    plan::{InvalidParameter, Param},
    trust::Commitment,
};

pub const SALT_BYTES: usize = 32;
/// Lines of a secret that are masked for themselves, so that a key in PEM does not come out line by line.
const MASKED_LINES: usize = 200;

/// Random bytes that are hashed with a value, so that nobody can try values against its commitment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; SALT_BYTES]);

impl Salt {
    /// `None`: the system gives no random bytes.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

/// Neither `Debug` nor any error here shows the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    salt: Salt,
    value: String,
}

/// A value that a secret parameter does not take, in words that do not repeat it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error(
        "it has fewer than {SECRET_BYTES_MIN} bytes: output could not be masked without masking half of every log"
    )]
    Short,
    #[error("it has more than {SECRET_BYTES} bytes")]
    Long,
    #[error("{0}")]
    Param(InvalidParameter),
}

impl Secret {
    pub fn new(salt: Salt, value: String) -> Self {
        Self { salt, value }
    }

    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// In the clear: for a step, and for what masks its output.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is signed in its place.
    pub fn commitment(&self) -> Commitment {
        Commitment { commitment: commitment(self.salt, &self.value) }
    }

    /// The rules of its declaration.
    pub fn check(&self, param: &Param) -> Result<(), InvalidSecret> {
        if self.value.trim().len() < SECRET_BYTES_MIN {
            return Err(InvalidSecret::Short);
        }
        if self.value.len() > SECRET_BYTES {
            return Err(InvalidSecret::Long);
        }
        param.check(&self.value).map_err(|error| match error {
            InvalidParameter::NotAnInt { .. } => {
                InvalidSecret::Param(InvalidParameter::NotAnInt { given: "******".to_owned() })
            }
            InvalidParameter::NotABool { .. } => {
                InvalidSecret::Param(InvalidParameter::NotABool { given: "******".to_owned() })
            }
            other @ (InvalidParameter::TooLong { .. }
            | InvalidParameter::Pattern { .. }
            | InvalidParameter::Nul) => InvalidSecret::Param(other),
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn commitment(salt: Salt, value: &str) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.0);
    hasher.update(value.as_bytes());
    hasher.finish()
}

/// What must not come out of a step that has these values: each as it is, without the space around it, and line by line.
pub fn masks<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut masks = BTreeSet::new();
    for value in values {
        masks.extend([value, value.trim()]);
        masks.extend(value.lines().map(str::trim).take(MASKED_LINES));
    }
    masks.retain(|mask| mask.len() >= SECRET_BYTES_MIN);
    masks.into_iter().map(str::to_owned).collect()
}
