//! One short text for both keys of a server: printed there, compared by a person, and then signed.

use std::{fmt, str::FromStr};

use super::Recipient;
use crate::digest::Sha256;

/// Digits that are shown, in groups: 128 bits, for which nobody finds a second pair of keys.
const DIGITS: usize = 32;
const GROUP: usize = 4;

/// The first 128 bits of a SHA-256 over the server's public key (SPKI) and its sealing key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is eight groups of four hexadecimal digits, as consign-agent prints it")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// `spki`: the SHA-256 of the server's public key in SPKI.
    pub fn of(spki: Sha256, recipient: &Recipient) -> Self {
        let text = format!("consign-server-keys-v1\n{spki}\n{recipient}\n");
        let mut first = [0; 16];
        for (byte, given) in first.iter_mut().zip(Sha256::of(text.as_bytes()).as_bytes()) {
            *byte = *given;
        }
        Self(u128::from_be_bytes(first))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && index % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As a person types or pastes it: groups apart in any way, in either case.
impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | ':')).collect();
        if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidFingerprint);
        }
        u128::from_str_radix(&digits, 16).map(Self).map_err(|_| InvalidFingerprint)
    }
}
