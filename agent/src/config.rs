//! `/etc/consign/agent.toml`: where the coordinator is, what was pinned at enrolment, and the server's own word.
//!
//! Root's file, written by `consign-agent enroll` and edited by hand afterwards. Read strictly: a misspelt key that is
//! silently ignored would be a permission that silently does not hold.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use consign_common::{
    digest::Sha256,
    limits::LABELS,
    name::{Environment, ServerName},
    trust::{Allowance, ServersWord, TrustRootPin, is_address},
    wire::check_label,
};
use serde::{Deserialize, Serialize};

pub const DEFAULT_CONFIG: &str = "/etc/consign/agent.toml";
pub const DEFAULT_STATE: &str = "/var/lib/consign-agent";
pub const DEFAULT_APPS: &str = "/srv";
pub const DEFAULT_LOG_LIMIT: u64 = 256 << 20;
/// Less would not hold the agent's own words.
const LOG_LIMIT_MIN: u64 = 64 << 10;
const CONFIG_BYTES: u64 = 1 << 20;

/// As read and checked; paths are absolute or as root wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub agent: AgentSection,
    pub word: ServersWord,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSection {
    /// `host:port`, tried in this order.
    pub coordinator: Vec<String>,
    /// SHA-256 of the SPKI of the CA that the coordinator's certificate must be issued by.
    pub ca: Sha256,
    /// The trust root that every later one must descend from.
    pub trust_root: TrustRootPin,
    #[serde(default = "default_state")]
    pub state: PathBuf,
    #[serde(default = "default_apps")]
    pub apps: PathBuf,
    /// Bytes of one attempt's log; what a step prints beyond is counted and not kept.
    #[serde(default = "default_log_limit")]
    pub log_limit: u64,
}

/// The file's form. The word's fields stand at the top, because they are what a person comes here for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: ServerName,
    environment: Environment,
    agent: AgentSection,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<Allowance>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path} does not exist: enrol this server first with `consign-agent enroll TOKEN`")]
    Missing { path: PathBuf },
    #[error("{path} cannot be read")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is larger than {CONFIG_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path}:{line}:{column}: {message}")]
    Syntax { path: PathBuf, line: usize, column: usize, message: String },
    #[error("{path}: {message}")]
    Rule { path: PathBuf, message: String },
    #[error("the configuration cannot be written as TOML: {0}")]
    Write(#[from] toml::ser::Error),
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let io = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                return ConfigError::Missing { path: path.into() };
            }
            ConfigError::Io { path: path.into(), source }
        };
        if fs::metadata(path).map_err(io)?.len() > CONFIG_BYTES {
            return Err(ConfigError::TooLarge { path: path.into() });
        }
        Self::parse(&fs::read_to_string(path).map_err(io)?, path)
    }

    /// `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            ConfigError::Syntax { path: path.into(), line, column, message: error.message().into() }
        })?;
        let File { server, environment, agent, labels, allow } = file;
        let config = Self { agent, word: ServersWord { server, environment, labels, allowances: allow } };
        config.check().map_err(|message| ConfigError::Rule { path: path.into(), message })?;
        Ok(config)
    }

    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let Self { agent, word } = self.clone();
        let file = File {
            server: word.server,
            environment: word.environment,
            agent,
            labels: word.labels,
            allow: word.allowances,
        };
        let body = toml::to_string_pretty(&file)?;
        Ok(format!(
            "# Written by `consign-agent enroll`. What root allows here, whatever anybody signed: apps not listed\n\
             # under [[allow]] cannot be deployed. Restart consign-agent after a change.\n\n{body}"
        ))
    }

    pub fn check(&self) -> Result<(), String> {
        if self.agent.coordinator.is_empty() {
            return Err("agent.coordinator names no address".into());
        }
        if let Some(bad) = self.agent.coordinator.iter().find(|address| !is_address(address)) {
            return Err(format!("agent.coordinator: {bad:?} is not host:port"));
        }
        if self.agent.log_limit < LOG_LIMIT_MIN {
            return Err(format!("agent.log_limit is below {LOG_LIMIT_MIN} bytes"));
        }
        if self.word.labels.len() > LABELS {
            return Err(format!("more than {LABELS} labels"));
        }
        self.word.labels.iter().try_for_each(|(name, value)| check_label(name, value))?;
        let mut apps: Vec<_> = self.word.allowances.iter().map(|allowance| &allowance.app).collect();
        apps.sort();
        match apps.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(twice) => Err(format!(
                "[[allow]] lists {} twice",
                twice.iter().map(|app| app.as_str()).next().unwrap_or_default()
            )),
            None => Ok(()),
        }
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn default_state() -> PathBuf {
    DEFAULT_STATE.into()
}

fn default_log_limit() -> u64 {
    DEFAULT_LOG_LIMIT
}

fn default_apps() -> PathBuf {
    DEFAULT_APPS.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let digest = Sha256::of(b"x");
        format!(
            "server = \"web-1\"\nenvironment = \"staging\"\n\n[agent]\ncoordinator = [\"deploy.example:7443\"]\n\
             ca = \"{digest}\"\ntrust_root = {{ version = 1, sha256 = \"{digest}\" }}\n\n[labels]\nrole = \"web\"\n\n\
             [[allow]]\napp = \"shop\"\nusers = [\"shop\"]\nunits = [\"shop.service\"]\n"
        )
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn has_defaults_and_comes_back_as_it_was() {
        let config = parse(&text()).unwrap();
        assert_eq!(config.agent.state, Path::new(DEFAULT_STATE));
        assert_eq!(config.agent.apps, Path::new(DEFAULT_APPS));
        assert_eq!(config.word.allowances.len(), 1);
        assert_eq!(parse(&config.to_toml().unwrap()), Ok(config));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let error = parse(&text().replace("users", "user")).unwrap_err();
        assert!(error.starts_with("agent.toml:14:1: unknown field `user`"), "{error}");
        let error = parse(&text().replace("[labels]", "[lables]")).unwrap_err();
        assert!(error.starts_with("agent.toml:9:") && error.contains("lables"), "{error}");
        let error = parse(&text().replace("\"staging\"", "\"Staging\"")).unwrap_err();
        assert!(error.starts_with("agent.toml:2:15: invalid environment name"), "{error}");
    }

    #[test]
    fn rules_between_values_are_checked() {
        let twice = format!("{}\n[[allow]]\napp = \"shop\"\n", text());
        assert!(parse(&twice).unwrap_err().contains("lists shop twice"));
        assert!(parse(&text().replace("example:7443", "example")).unwrap_err().contains("is not host:port"));
        assert!(parse(&text().replace("\"web\"", "\"a b\"")).unwrap_err().contains("label role"));
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        let error = Config::read(Path::new("/nonexistent/agent.toml")).unwrap_err().to_string();
        assert!(error.contains("consign-agent enroll"), "{error}");
    }
}
