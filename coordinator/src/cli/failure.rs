//! How a command ends badly: what happened, where, what to do next, and the exit code that says so to scripts.

use std::{fmt, path::Path};

use consign_common::error::chain;

/// The documented exit codes (docs/cli.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Error,
    Usage,
    Stopped,
    Returned,
    Aborted,
    Refused,
    Partial,
    /// Ctrl-C, as shells count it.
    Interrupted,
    /// Whoever read stdout has gone: nothing is wrong, and nobody is there to be told. As shells count SIGPIPE.
    Unread,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Stopped => 3,
            Self::Returned => 4,
            Self::Aborted => 5,
            Self::Refused => 6,
            Self::Partial => 7,
            Self::Interrupted => 130,
            Self::Unread => 141,
        }
    }

    /// A rollout's own code. One that we do not know is an error, never success.
    pub(crate) fn of_rollout(code: Option<u32>) -> Self {
        match code {
            Some(0) => Self::Done,
            Some(3) => Self::Stopped,
            Some(4) => Self::Returned,
            Some(5) => Self::Aborted,
            Some(6) => Self::Refused,
            Some(7) => Self::Partial,
            _ => Self::Error,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) next: Option<String>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Error, what: what.into(), next: None }
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what) }
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, ..Self::new(what) }
    }

    /// What to do next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n  {next}"),
            None => Ok(()),
        }
    }
}

/// Says what was being done when an error came up.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;

    fn at(self, verb: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.doing(|| format!("failed to {verb} {}", path.display()))
    }
}

impl<T, E: std::error::Error> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{}: {}", what(), chain(&error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_never_success() {
        assert_eq!(Exit::of_rollout(Some(0)), Exit::Done);
        for code in [None, Some(1), Some(2), Some(8), Some(256), Some(u32::MAX)] {
            assert_eq!(Exit::of_rollout(code), Exit::Error, "{code:?}");
        }
        for code in 3..=7 {
            assert_eq!(u32::from(Exit::of_rollout(Some(code)).code()), code);
        }
    }
}
