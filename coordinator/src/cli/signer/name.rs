//! How the command line names keys.

use std::{fmt, path::PathBuf, str::FromStr};

use consign_common::name::Owner;

const AGENT: &str = "ssh-agent:";

/// A key that signs: `keys/owner.key`, `~/.ssh/id_ed25519`, `ssh-agent:SHA256:...`, `ssh-agent:ada@laptop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyName {
    File(PathBuf),
    /// The fingerprint or the comment of a key that the agent at `$SSH_AUTH_SOCK` holds.
    Agent(String),
}

impl FromStr for KeyName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(AGENT) {
            Some("") => {
                Err("give ssh-agent:FINGERPRINT or ssh-agent:COMMENT, as `ssh-add -l` shows them".into())
            }
            Some(key) => Ok(Self::Agent(key.to_owned())),
            None if text.is_empty() => Err("give a file, or ssh-agent:FINGERPRINT".into()),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Agent(key) => write!(f, "{AGENT}{key}"),
        }
    }
}

impl From<PathBuf> for KeyName {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// Somebody's public key: `[OWNER=]KEY`. Our own files say whose they are; OpenSSH's do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKeyName {
    pub(crate) owner: Option<Owner>,
    pub(crate) key: KeyName,
}

impl FromStr for PublicKeyName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((owner, key)) = text.split_once('=')
            && let Ok(owner) = owner.parse()
        {
            return Ok(Self { owner: Some(owner), key: key.parse()? });
        }
        Ok(Self { owner: None, key: text.parse()? })
    }
}

impl fmt::Display for PublicKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{owner}={}", self.key),
            None => write!(f, "{}", self.key),
        }
    }
}
