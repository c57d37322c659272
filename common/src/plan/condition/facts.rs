//! What a condition may ask, and the answers.

use std::collections::BTreeMap;

use globset::GlobMatcher;

use super::expression::Value;
use crate::{
    name::{Environment, ServerName, StepName, Version},
    plan::{Changes, ParamType},
};

/// All that `when` may name, looked up on the server before its steps run.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The artifact that the steps belong to.
    pub artifact: Version,
    /// The last good artifact; on a return, the artifact being left.
    pub previous: Option<Version>,
    /// From `previous` to `artifact`.
    pub changes: Changes,
    pub environment: Environment,
    pub server: ServerName,
    pub labels: BTreeMap<String, String>,
    pub host: HostFacts,
    /// Every parameter of the plan that has a value, as text.
    pub params: BTreeMap<StepName, String>,
    /// How the steps before this one ended: `succeeded`, `skipped`, `failed`, `unknown`, `cancelled`. A step that is not
    /// here did not run in this phase: `none`.
    pub outcomes: BTreeMap<StepName, String>,
    /// For each path of [`Condition::paths`](super::Condition::paths), whether it exists.
    pub exists: BTreeMap<String, bool>,
}

/// `facts.*`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// As `debian`: the ID of /etc/os-release.
    pub os: String,
    /// As `x86_64`.
    pub arch: String,
    /// As `6.1.0-21-amd64`.
    pub kernel: String,
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
}

/// One thing that an expression names.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Changed {
        glob: GlobMatcher,
    },
    Exists(String),
    FirstDeploy,
    PreviousVersion,
    ArtifactVersion,
    Environment,
    ServerName,
    /// An absent label is "".
    Label(String),
    HasLabel(String),
    Host(HostFact),
    Param {
        name: StepName,
        kind: ParamType,
    },
    Outcome(StepName),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum HostFact {
    Os,
    Arch,
    Kernel,
    Cpus,
    Memory,
}

impl Facts {
    pub(super) fn value(&self, input: &Input) -> Result<Value, String> {
        Ok(match input {
            Input::Changed { glob } => Value::Bool(self.changes.any_matches(glob)),
            Input::Exists(path) => match self.exists.get(path) {
                Some(exists) => Value::Bool(*exists),
                None => return Err(format!("nobody looked whether {path:?} exists")),
            },
            Input::FirstDeploy => Value::Bool(self.previous.is_none()),
            Input::PreviousVersion => {
                Value::Text(self.previous.as_ref().map(Version::to_string).unwrap_or_default())
            }
            Input::ArtifactVersion => Value::Text(self.artifact.to_string()),
            Input::Environment => Value::Text(self.environment.to_string()),
            Input::ServerName => Value::Text(self.server.to_string()),
            Input::Label(name) => Value::Text(self.labels.get(name).cloned().unwrap_or_default()),
            Input::HasLabel(name) => Value::Bool(self.labels.contains_key(name)),
            Input::Host(fact) => self.host.value(*fact),
            Input::Param { name, kind } => self.param(name, *kind)?,
            Input::Outcome(step) => {
                Value::Text(self.outcomes.get(step).cloned().unwrap_or_else(|| "none".to_owned()))
            }
        })
    }

    fn param(&self, name: &StepName, kind: ParamType) -> Result<Value, String> {
        let Some(text) = self.params.get(name) else {
            return Err(format!("parameter `{name}` has no value"));
        };
        let wrong = || format!("the value of parameter `{name}` is not of its type");
        match kind {
            ParamType::String => Ok(Value::Text(text.clone())),
            ParamType::Int => text.parse().map(Value::Int).map_err(|_| wrong()),
            ParamType::Bool => text.parse().map(Value::Bool).map_err(|_| wrong()),
        }
    }
}

impl HostFacts {
    fn value(&self, fact: HostFact) -> Value {
        match fact {
            HostFact::Os => Value::Text(self.os.clone()),
            HostFact::Arch => Value::Text(self.arch.clone()),
            HostFact::Kernel => Value::Text(self.kernel.clone()),
            HostFact::Cpus => Value::Int(i64::from(self.cpus)),
            HostFact::Memory => Value::Int(i64::try_from(self.memory).unwrap_or(i64::MAX)),
        }
    }
}
