//! Join tokens: one string that takes a server or an operator from nothing to an identity of its own.
//!
//! The CLI assembles it from its *own* pinned trust root and CA; the coordinator contributes only an id and a secret.
//! So what the other machine believes from then on does not rest on the coordinator's word.
//!
//! Text form: `consign1.` and the unpadded base64url of strict JSON followed by the first four bytes of its SHA-256.
//! The checksum is against a string cut short in copying; it protects nothing else.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    json,
    name::{Environment, ServerName},
};

const PREFIX: &str = "consign1.";
const CHECKSUM_BYTES: usize = 4;
/// Bytes of a token's text: it is pasted into terminals, whose lines end at 4096.
const TEXT_BYTES: usize = 4000;
const SECRET_BYTES: usize = 32;
const ADDRESSES: usize = 8;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// `host:port` of the coordinator's enrolment listener, in the order to try.
    pub enrolment: Vec<String>,
    /// `host:port` of its main listener, for all that comes after.
    pub addresses: Vec<String>,
    /// The coordinator's id, as the trust root names it.
    pub coordinator: String,
    /// SHA-256 of the SPKI of its CA.
    pub ca_sha256: Sha256,
    pub trust_root: TrustRootPin,
    /// What is sent: names the token at the coordinator.
    pub id: String,
    /// 32 bytes, base64; what proves it.
    pub secret: String,
    pub name: ServerName,
    pub role: JoinRole,
}

/// What the other machine becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum JoinRole {
    Agent {
        environment: Environment,
    },
    /// `role` as the coordinator knows it: viewer, deployer, ci, admin.
    Operator {
        role: String,
    },
}

/// The trust root that the holder of the token begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRootPin {
    pub version: u64,
    /// Of the payload.
    pub sha256: Sha256,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("this is no consign token: it does not begin with {PREFIX}")]
    Prefix,
    #[error("the token was damaged or cut short on its way: copy the whole string again")]
    Damaged,
    #[error("the token is longer than {TEXT_BYTES} characters")]
    TooLong,
    #[error("the token cannot be read: {0}")]
    Content(String),
}

impl JoinToken {
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.len() > TEXT_BYTES {
            return Err(InvalidToken::TooLong);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidToken::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidToken::Damaged)?;
        let length = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(InvalidToken::Damaged)?;
        let (document, checksum) = bytes.split_at(length);
        if Sha256::of(document).as_bytes().get(..CHECKSUM_BYTES) != Some(checksum) {
            return Err(InvalidToken::Damaged);
        }
        let token: Self = json::from_slice(document, TEXT_BYTES)
            .map_err(|error| InvalidToken::Content(error.to_string()))?;
        token.check()?;
        Ok(token)
    }

    pub fn to_text(&self) -> Result<String, InvalidToken> {
        self.check()?;
        let mut bytes = json::to_vec(self);
        let digest = Sha256::of(&bytes);
        bytes.extend(digest.as_bytes().iter().take(CHECKSUM_BYTES));
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        if text.len() > TEXT_BYTES {
            return Err(InvalidToken::TooLong);
        }
        Ok(text)
    }

    /// The secret's bytes.
    pub fn secret_bytes(&self) -> Result<Vec<u8>, InvalidToken> {
        let bytes =
            STANDARD.decode(&self.secret).map_err(|error| InvalidToken::Content(error.to_string()))?;
        if bytes.len() == SECRET_BYTES {
            return Ok(bytes);
        }
        Err(InvalidToken::Content(format!("the secret has {} bytes, not {SECRET_BYTES}", bytes.len())))
    }

    fn check(&self) -> Result<(), InvalidToken> {
        self.secret_bytes()?;
        for (what, addresses) in [("enrolment", &self.enrolment), ("addresses", &self.addresses)] {
            if addresses.is_empty() || addresses.len() > ADDRESSES {
                return Err(InvalidToken::Content(format!("{what}: 1 to {ADDRESSES} addresses are allowed")));
            }
            if let Some(bad) = addresses.iter().find(|address| !is_address(address)) {
                return Err(InvalidToken::Content(format!("{what}: {bad:?} is not host:port")));
            }
        }
        Ok(())
    }
}

/// Whether `text` is `host:port`, in characters that are safe in a terminal and in a file.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(host_byte)
        && (host.starts_with('[') || !host.contains(':'))
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Without the secret: tokens end up in traces.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            enrolment: vec!["deploy.example:7444".into()],
            addresses: vec!["deploy.example:7443".into()],
            coordinator: "0123456789abcdef0123456789abcdef".into(),
            ca_sha256: Sha256::of(b"ca"),
            trust_root: TrustRootPin { version: 3, sha256: Sha256::of(b"root") },
            id: "t1".into(),
            secret: STANDARD.encode([7; 32]),
            name: "web-1".parse().unwrap(),
            role: JoinRole::Agent { environment: "staging".parse().unwrap() },
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let text = token().to_text().unwrap();
        assert!(text.starts_with("consign1."));
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "one word in a shell: {text}");
        assert_eq!(JoinToken::parse(&format!("  {text}\n")), Ok(token()));
    }

    #[test]
    fn every_damage_is_noticed() {
        let text = token().to_text().unwrap();
        for length in 0..text.len() {
            assert!(JoinToken::parse(&text[..length]).is_err(), "cut to {length}");
        }
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(JoinToken::parse(std::str::from_utf8(&damaged).unwrap()).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn what_it_says_is_checked() {
        for (field, bad) in [
            ("secret", r#""secret":"AAAA""#),
            ("address", r#""addresses":["x y:1"]"#),
            ("no port", r#""addresses":["deploy.example"]"#),
            ("unknown field", r#""more":1,"id":"t1""#),
        ] {
            let json = serde_json::to_string(&token()).unwrap();
            let good = match field {
                "secret" => format!(r#""secret":"{}""#, STANDARD.encode([7; 32])),
                "unknown field" => r#""id":"t1""#.into(),
                _ => r#""addresses":["deploy.example:7443"]"#.into(),
            };
            assert!(json.contains(&good), "{field}");
            let json = json.replace(&good, bad);
            let mut bytes = json.into_bytes();
            let digest = Sha256::of(&bytes);
            bytes.extend(&digest.as_bytes()[..CHECKSUM_BYTES]);
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            assert!(matches!(JoinToken::parse(&text), Err(InvalidToken::Content(_))), "{field}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", token()).contains(&STANDARD.encode([7; 32])));
    }
}
