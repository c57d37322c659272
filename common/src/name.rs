//! Names that people give. Each has one alphabet, so that it is safe as a path component, in a URL, in a terminal and
//! in a certificate; a name that does not fit never becomes a value of these types.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name outside its alphabet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {given:?}: {rule}")]
pub struct InvalidName {
    pub what: &'static str,
    /// The first characters of what was given, for the message.
    pub given: String,
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(given: String) -> Result<Self, InvalidName> {
                if $check(&given) {
                    return Ok(Self(given));
                }
                Err(InvalidName { what: $what, given: given.chars().take(80).collect(), rule: $rule })
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(given: &str) -> Result<Self, InvalidName> {
                given.to_owned().try_into()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// An app, as in `app = "shop"`.
    App, "app name", is_label,
    "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
);
name!(
    /// An environment, as in `production`.
    Environment, "environment name", is_label,
    "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
);
name!(
    /// An owner of keys, or a role of the trust root.
    Owner, "owner or role name", is_host,
    "1 to 63 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit, no '..'"
);
name!(
    /// A server, by the name that its operator gave it.
    ServerName, "server name", is_host,
    "1 to 63 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit, no '..'"
);
name!(
    /// A step or a parameter of a plan.
    StepName, "step or parameter name", is_identifier,
    "1 to 63 of a-z, 0-9 and '_', beginning with a letter"
);
name!(
    /// A version, as its publisher calls it.
    Version, "version", is_version,
    "1 to 100 of A-Z, a-z, 0-9 and . + - _, beginning with a letter or digit"
);
name!(
    /// A platform that an artifact is for, as `linux-x86_64`.
    Platform, "platform", is_platform,
    "1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit"
);
name!(
    /// An identifier that consign made: 128 random bits in lower-case hex. Rollouts, deployments and orders have one.
    Id, "id", is_id,
    "32 hexadecimal digits in lower case"
);

impl Id {
    /// The id of these random bits.
    pub fn from_bytes(bits: [u8; 16]) -> Self {
        Self(bits.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The first eight digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

fn is_label(name: &str) -> bool {
    bounded(name, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && alphanumeric(name.as_bytes().first())
        && alphanumeric(name.as_bytes().last())
}

fn is_host(name: &str) -> bool {
    bounded(name, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.')
        && alphanumeric(name.as_bytes().first())
        && alphanumeric(name.as_bytes().last())
        && !name.contains("..")
}

fn is_platform(name: &str) -> bool {
    bounded(name, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_')
        && alphanumeric(name.as_bytes().first())
        && alphanumeric(name.as_bytes().last())
}

fn is_identifier(name: &str) -> bool {
    bounded(name, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
}

fn is_version(name: &str) -> bool {
    bounded(name, 100, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'+' | b'-' | b'_'))
        && alphanumeric(name.as_bytes().first())
}

fn is_id(name: &str) -> bool {
    name.len() == 32 && bounded(name, 32, |c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

fn bounded(name: &str, longest: usize, allowed: impl Fn(u8) -> bool) -> bool {
    !name.is_empty() && name.len() <= longest && name.bytes().all(allowed)
}

fn alphanumeric(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_path_component() {
        for bad in ["", "..", ".", "a/b", "../etc", "a\0b", "a\nb", "A", "-a", "a-", "é", "\u{1b}[31m", "a b"]
        {
            assert!(App::from_str(bad).is_err(), "{bad:?}");
            assert!(ServerName::from_str(bad).is_err(), "{bad:?}");
            assert!(StepName::from_str(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "..", ".", "1/2", "1 2", "-1", "1\u{7}", "1~2"] {
            assert!(Version::from_str(bad).is_err(), "{bad:?}");
        }
        assert!(App::from_str(&"a".repeat(64)).is_err());
        assert!(ServerName::from_str("web-1.example").is_ok());
        assert!(ServerName::from_str("web..1").is_err());
        assert!(Version::from_str("1.2.0-rc.1+build_7").is_ok());
    }

    #[test]
    fn json_refuses_what_the_constructor_refuses() {
        assert!(serde_json::from_str::<App>("\"shop\"").is_ok());
        assert!(serde_json::from_str::<App>("\"Shop\"").is_err());
    }
}
