//! The plan as checked: every value here has passed the rules of docs/formats.md, "plan".

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use crate::name::{App, StepName};

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub app: App,
    /// Releases kept on the server, the running one among them; at least 2.
    pub keep: u32,
    /// Paths below the release that are links into `shared/`.
    pub shared: Vec<String>,
    /// Paths below the release that belong to the app's user, or to whom the step runs as.
    pub writable: Vec<String>,
    /// Globs of absolute link targets that are allowed; never followed.
    pub links: Vec<String>,
    pub confirm: Option<Duration>,
    pub params: BTreeMap<StepName, Param>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub kind: ParamType,
    /// As text, in the form in which the step receives it. `None`: a config statement must give it.
    pub default: Option<String>,
    pub secret: bool,
    pub pattern: Option<String>,
    pub max_length: usize,
    /// How a secret reaches the steps; all others arrive in the environment.
    pub deliver: Deliver,
}

/// The way of a secret into a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliver {
    /// As the variable of its name.
    #[default]
    Env,
    /// As a file that only the step's user may read; the variable `NAME_FILE` has its path.
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    String,
    Int,
    Bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: StepName,
    pub kind: Kind,
    /// Absent means always.
    pub when: Option<Condition>,
    pub once: bool,
    /// `None`: the agent's own user.
    pub user: Option<String>,
    pub env: BTreeMap<String, String>,
    pub timeout: Duration,
    pub retry: Retry,
    pub if_fails: FailurePolicy,
    /// Runs also after a failure.
    pub always: bool,
    /// The phases in which it runs.
    pub on: Vec<Phase>,
    /// Processes that it starts may stay.
    pub leaves: bool,
    pub tty: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Run(Vec<String>),
    Shell(String),
    Activate,
    Systemd(SystemdAction),
    Http(HttpCheck),
    Tcp(TcpCheck),
    Sleep(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemdAction {
    pub verb: SystemdVerb,
    pub unit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemdVerb {
    Start,
    Stop,
    Restart,
    Reload,
    ReloadOrRestart,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub url: String,
    pub status: u16,
    /// Text that the body must contain.
    pub contains: Option<String>,
    /// Tried again until this is over.
    pub within: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpCheck {
    /// `host:port`
    pub address: String,
    pub within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// At most this many attempts in all, the first included; at least 2.
    Attempts(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    Return,
    Stop,
    Continue,
}

/// Why a plan's steps run: to bring an artifact in, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Deploy,
    Return,
}

impl ParamType {
    /// As the plan writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Bool => "bool",
        }
    }
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Return => "return",
        }
    }
}

impl Kind {
    /// The kind's key in `consign.toml`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Shell(_) => "shell",
            Self::Activate => "activate",
            Self::Systemd(_) => "systemd",
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Sleep(_) => "sleep",
        }
    }

    /// Whether the step runs as a process of its own, under the supervisor. The others run in the agent, are
    /// idempotent, and run again after a crash.
    pub fn is_process(&self) -> bool {
        match self {
            Self::Run(_) | Self::Shell(_) => true,
            Self::Activate | Self::Systemd(_) | Self::Http(_) | Self::Tcp(_) | Self::Sleep(_) => false,
        }
    }
}
