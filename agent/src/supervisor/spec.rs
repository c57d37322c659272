//! What an attempt executes, and what identifies it while it does.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use consign_common::{deployment::Attempt, limits::SECRET_BYTES_MIN, name::Id};
use serde::{Deserialize, Serialize};

pub const DEFAULT_GRACE_MS: u64 = 10_000;
/// Bytes of an attempt's log file, when the agent's configuration says nothing.
pub const DEFAULT_LOG_LIMIT: u64 = 256 << 20;

/// Below this no tail, gap or word of ours would fit.
const LOG_LIMIT_MIN: u64 = 4096;
const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// A secret of many lines is masked line by line, too.
const SECRETS_MAX: usize = 4096;
const SECRET_BYTES_MAX: usize = 16 << 10;

/// One try of a `run` or `shell` step, ready to be executed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptSpec {
    pub attempt: Attempt,
    /// Program and arguments; `shell` is `["/bin/sh", "-c", script]`. A program without `/` is looked up in `PATH` of
    /// `env`, one with `/` is relative to `cwd`.
    pub argv: Vec<String>,
    /// The whole environment, but for `CONSIGN_ATTEMPT`, and `HOME`, `USER`, `LOGNAME` and `SHELL` of the user where
    /// they are not given.
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// `None`: the supervisor's own user.
    pub user: Option<String>,
    pub timeout_ms: u64,
    /// Between SIGTERM and SIGKILL, after a timeout or a cancel.
    pub grace_ms: u64,
    /// A terminal instead of two pipes; all output is then stdout.
    pub tty: bool,
    /// What it started may stay. Its pipes are closed, so that what stays must have redirected its output.
    pub leaves: bool,
    /// Never appear in the log; each at least [`SECRET_BYTES_MIN`] bytes.
    pub secrets: Vec<String>,
    /// Secrets that the step reads from files: by the variable that will name the file, its content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Bytes that the log file may have.
    pub log_limit: u64,
}

/// Enough to find an attempt's processes again, also without its supervisor. The agent makes it durable before the
/// attempt executes anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptIdentity {
    pub deployment: Id,
    pub attempt: Attempt,
    /// Nothing survives a reboot: under another boot id there is nothing to find.
    pub boot_id: String,
    /// `None` only for an attempt that was started and never reported its process.
    pub process: Option<Process>,
}

/// The attempt's main process; leader of a session and process group of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub pid: u32,
    /// Start time in clock ticks since boot: with it a pid that was given again is not taken for this one.
    pub start_ticks: u64,
    /// The directory of its cgroup, where it has one.
    pub cgroup: Option<String>,
}

/// Why a specification is refused before anything is created for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSpec {
    #[error("an attempt needs a program to execute")]
    NoProgram,
    #[error("the argument {0:?} cannot be passed to a program")]
    Unpassable(String),
    /// Its value may be a secret.
    #[error("the environment variable {0:?} cannot be passed to a program")]
    UnpassableVariable(String),
    #[error(
        "a secret is shorter than {SECRET_BYTES_MIN} or longer than {SECRET_BYTES_MAX} bytes, or there are more than {SECRETS_MAX}"
    )]
    Secret,
    #[error("{what} is {given}, outside of {least} to {most}")]
    Bounds { what: &'static str, given: u64, least: u64, most: u64 },
    #[error("the working directory {0} is not absolute")]
    RelativeDirectory(PathBuf),
}

impl AttemptSpec {
    pub(super) fn check(&self) -> Result<(), InvalidSpec> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(InvalidSpec::NoProgram);
        }
        if let Some(bad) = self.argv.iter().find(|text| text.contains('\0')) {
            return Err(InvalidSpec::Unpassable(bad.clone()));
        }
        let named = |name: &str| !name.is_empty() && !name.contains(['\0', '=']);
        if let Some((bad, _)) = self.env.iter().find(|(name, value)| !named(name) || value.contains('\0')) {
            return Err(InvalidSpec::UnpassableVariable(bad.clone()));
        }
        if let Some(bad) = self.files.keys().find(|name| !named(name) || name.contains('/')) {
            return Err(InvalidSpec::UnpassableVariable(bad.clone()));
        }
        let fits = |secret: &String| (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len());
        if self.secrets.len() > SECRETS_MAX || !self.secrets.iter().all(fits) {
            return Err(InvalidSpec::Secret);
        }
        if !self.cwd.is_absolute() {
            return Err(InvalidSpec::RelativeDirectory(self.cwd.clone()));
        }
        let bounds = |what, given, least, most| {
            let fits = (least..=most).contains(&given);
            fits.then_some(()).ok_or(InvalidSpec::Bounds { what, given, least, most })
        };
        bounds("timeout in ms", self.timeout_ms, 1, TIMEOUT_MS_MAX)?;
        bounds("grace in ms", self.grace_ms, 0, TIMEOUT_MS_MAX)?;
        bounds("log limit in bytes", self.log_limit, LOG_LIMIT_MIN, u64::MAX)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

impl AttemptIdentity {
    /// The value of `CONSIGN_ATTEMPT` in the environment of every process of the attempt.
    pub(super) fn mark(&self) -> String {
        mark(&self.deployment, self.attempt)
    }
}

pub(super) fn mark(deployment: &Id, attempt: Attempt) -> String {
    format!("{deployment}/{attempt}")
}

/// Says neither the environment's values nor the secrets.
impl fmt::Debug for AttemptSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptSpec")
            .field("attempt", &self.attempt)
            .field("program", &self.argv.first())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}
