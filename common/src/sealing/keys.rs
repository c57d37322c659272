//! A server's key pair for secrets: X25519, as age has it. The text forms are age's own, so that `age -d -i` opens with
//! the file on the server what was sealed here.

use std::{fmt, str::FromStr};

use age::secrecy::ExposeSecret as _;

/// Longer texts are no key of either kind.
const KEY_TEXT: usize = 128;

/// Text that is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSealingKey {
    #[error("it is no age recipient (age1...)")]
    Recipient,
    #[error("it is no age identity")]
    Identity,
    #[error("the age file cannot be made")]
    Seal,
    /// Also a file that was sealed to another key: age does not tell them apart.
    #[error("it is no age file that was sealed to this server's key")]
    Open,
}

/// What secrets are sealed to.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

impl Recipient {
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, InvalidSealingKey> {
        age::encrypt(&self.0, plain).map_err(|_| InvalidSealingKey::Seal)
    }
}

impl FromStr for Recipient {
    type Err = InvalidSealingKey;
    fn from_str(text: &str) -> Result<Self, InvalidSealingKey> {
        if text.len() > KEY_TEXT {
            return Err(InvalidSealingKey::Recipient);
        }
        let parsed: age::x25519::Recipient = text.parse().map_err(|_| InvalidSealingKey::Recipient)?;
        // One key has one text: what is signed and what is compared is text.
        if parsed.to_string() != text {
            return Err(InvalidSealingKey::Recipient);
        }
        Ok(Self(parsed))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What opens them; it never leaves its server. `Debug` shows the public half.
#[derive(Clone)]
pub struct SealingKey(age::x25519::Identity);

impl SealingKey {
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// The content of a key file: one line.
    pub fn parse(text: &str) -> Result<Self, InvalidSealingKey> {
        let line = text.trim_end();
        if line.len() > KEY_TEXT {
            return Err(InvalidSealingKey::Identity);
        }
        line.parse().map(Self).map_err(|_| InvalidSealingKey::Identity)
    }

    /// For the key file, and for nothing else.
    pub fn to_file(&self) -> String {
        format!("{}\n", self.0.to_string().expose_secret())
    }

    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, InvalidSealingKey> {
        age::decrypt(&self.0, sealed).map_err(|_| InvalidSealingKey::Open)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.recipient())
    }
}
