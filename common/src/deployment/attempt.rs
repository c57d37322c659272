//! One try of one step; its text form names its log file.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::plan::Phase;

/// Text form: `deploy-3-1`: phase, index of the step from 0, number of the attempt from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Attempt {
    pub phase: Phase,
    pub step: u32,
    pub number: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an attempt is named like deploy-3-1: phase, step, attempt")]
pub struct InvalidAttempt;

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.phase.as_str(), self.step, self.number)
    }
}

impl FromStr for Attempt {
    type Err = InvalidAttempt;
    fn from_str(text: &str) -> Result<Self, InvalidAttempt> {
        let mut parts = text.split('-');
        let phase = match parts.next() {
            Some("deploy") => Phase::Deploy,
            Some("return") => Phase::Return,
            _ => return Err(InvalidAttempt),
        };
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(InvalidAttempt);
        let attempt = Self { phase, step: number()?, number: number()? };
        // One text form only: no sign, no leading zero, nothing after the end.
        if attempt.to_string() == text { Ok(attempt) } else { Err(InvalidAttempt) }
    }
}

impl TryFrom<String> for Attempt {
    type Error = InvalidAttempt;
    fn try_from(text: String) -> Result<Self, InvalidAttempt> {
        text.parse()
    }
}

impl From<Attempt> for String {
    fn from(attempt: Attempt) -> String {
        attempt.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_one_form() {
        let attempt = Attempt { phase: Phase::Return, step: 12, number: 3 };
        assert_eq!("return-12-3".parse(), Ok(attempt));
        for bad in [
            "return-12",
            "return-012-3",
            "return-+1-3",
            "return-1-3-",
            "x-1-1",
            "../x",
            "deploy-1-99999999999",
        ] {
            assert!(bad.parse::<Attempt>().is_err(), "{bad}");
        }
    }
}
