//! The server's own word: what root on the host allows, whatever anybody signed (`/etc/consign/agent.toml`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{App, Environment, ServerName};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServersWord {
    pub server: ServerName,
    pub environment: Environment,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Nothing listed means nothing allowed.
    #[serde(default, rename = "allow")]
    pub allowances: Vec<Allowance>,
}

/// What one app may do here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    pub app: App,
    /// Users that its `run` and `shell` steps may run as. A step without `user` runs as the agent: as root, if that is
    /// who the agent is, and then `root` must stand here.
    #[serde(default)]
    pub users: Vec<String>,
    /// systemd units that its steps may act on, by full name (`shop.service`).
    #[serde(default)]
    pub units: Vec<String>,
}

/// As whom the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    Root,
    /// Without root every step runs as this user, and `systemd` steps are refused.
    User(String),
}
