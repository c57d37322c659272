//! What begins by itself in an environment, and when it does not.

use std::{fmt, str::FromStr};

use consign_common::name::Environment;
use serde::{Deserialize, Serialize};

use super::{InvalidSetting, freeze::Freeze};

/// Windows of one environment: nobody wrote more by hand.
const WINDOWS: usize = 100;
/// The longest veto period: a week.
const LONGEST_MS: u64 = 168 * 3_600_000;

/// What is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Automation {
    pub deploy: Option<Deploy>,
    pub candidates: Option<Keep>,
    /// How long a candidate can be vetoed before it begins.
    pub veto_ms: Option<u64>,
    /// When nothing begins by itself.
    pub freeze: Vec<Freeze>,
}

/// What makes an artifact a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Deploy {
    /// Nothing does: people start rollouts.
    #[default]
    Manual,
    /// Its publication.
    OnPublish,
    /// A rollout of it there that succeeded.
    After(Environment),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`deploy` is \"manual\", \"on-publish\" or \"after:ENVIRONMENT\"")]
pub struct InvalidDeploy;

/// Which of the candidates that wait go on waiting when there is a newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Each waits for itself.
    #[default]
    All,
    /// Only the newest; those before it are superseded.
    Newest,
}

impl Keep {
    pub const ALL: [Self; 2] = [Self::All, Self::Newest];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Newest => "newest",
        }
    }
}

impl fmt::Display for Deploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("manual"),
            Self::OnPublish => f.write_str("on-publish"),
            Self::After(environment) => write!(f, "after:{environment}"),
        }
    }
}

impl FromStr for Deploy {
    type Err = InvalidDeploy;

    fn from_str(text: &str) -> Result<Self, InvalidDeploy> {
        match (text, text.strip_prefix("after:")) {
            ("manual", _) => Ok(Self::Manual),
            ("on-publish", _) => Ok(Self::OnPublish),
            (_, Some(environment)) => environment.parse().map(Self::After).map_err(|_| InvalidDeploy),
            (_, None) => Err(InvalidDeploy),
        }
    }
}

impl TryFrom<String> for Deploy {
    type Error = InvalidDeploy;

    fn try_from(text: String) -> Result<Self, InvalidDeploy> {
        text.parse()
    }
}

impl From<Deploy> for String {
    fn from(deploy: Deploy) -> Self {
        deploy.to_string()
    }
}

impl Automation {
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        if self.veto_ms.is_some_and(|ms| ms == 0 || ms > LONGEST_MS) {
            return Err(InvalidSetting::Span);
        }
        if self.freeze.len() > WINDOWS {
            return Err(InvalidSetting::TooManyWindows { most: WINDOWS });
        }
        for freeze in &self.freeze {
            freeze.window()?;
        }
        Ok(())
    }
}
