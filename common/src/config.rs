//! The values that a plan's parameters have in an environment (docs/formats.md, "Values").
//!
//! The plan declares each parameter; a `config` statement gives values, and a default stands where it gives none. What
//! comes out has one canonical form, so that an approval can name it by its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    json::{self, InvalidJson},
    limits::VALUES_BYTES,
    name::StepName,
    plan::{InvalidParameter, Param, ParamType, Plan},
    trust::{Commitment, ConfigValue},
};

/// Exactly the parameters that a plan declares, each with its value. Made by [`effective`] only, or read back from what
/// it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<StepName, ConfigValue>);

/// The values that an order brings, and the config statement that gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Of the statement; 0: there is none, and every value is a default.
    pub sequence: u64,
    pub values: Values,
}

impl InForce {
    pub fn digest(&self) -> Sha256 {
        self.values.digest()
    }
}

/// Values that do not fit the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("the plan declares no parameter {name}")]
    Undeclared { name: StepName },
    #[error("the parameter {name} has no default, and no config gives it a value")]
    Missing { name: StepName },
    #[error("the parameter {name} is of type {declared}, its value is of type {given}")]
    WrongType { name: StepName, declared: &'static str, given: &'static str },
    #[error("the value of the parameter {name}: {error}")]
    Value { name: StepName, error: InvalidParameter },
    /// The value itself is not repeated: it may be the secret.
    #[error("the parameter {name} is secret, and its value stands in clear where its commitment belongs")]
    NotCommitted { name: StepName },
    #[error("the parameter {name} is not secret, and a commitment stands in place of its value")]
    NotSecret { name: StepName },
}

/// What the steps run with: of each parameter of the plan the value that is given, else its default.
pub fn effective(
    plan: &Plan,
    given: Option<&BTreeMap<StepName, ConfigValue>>,
) -> Result<Values, InvalidConfig> {
    let undeclared = given.into_iter().flat_map(BTreeMap::keys).find(|name| !plan.params.contains_key(*name));
    if let Some(name) = undeclared {
        return Err(InvalidConfig::Undeclared { name: name.clone() });
    }
    let mut values = BTreeMap::new();
    for (name, param) in &plan.params {
        let value = match given.and_then(|given| given.get(name)) {
            Some(value) => {
                check(name, param, value)?;
                value.clone()
            }
            None => default(name, param)?,
        };
        values.insert(name.clone(), value);
    }
    Ok(Values(values))
}

fn check(name: &StepName, param: &Param, value: &ConfigValue) -> Result<(), InvalidConfig> {
    let name = || name.clone();
    match (param.secret, value) {
        // What is behind it is held to type, pattern and length where it is opened.
        (true, ConfigValue::Commitment(_)) => Ok(()),
        (true, ConfigValue::Bool(_) | ConfigValue::Int(_) | ConfigValue::String(_)) => {
            Err(InvalidConfig::NotCommitted { name: name() })
        }
        (false, ConfigValue::Commitment(_)) => Err(InvalidConfig::NotSecret { name: name() }),
        (false, ConfigValue::Bool(_) | ConfigValue::Int(_) | ConfigValue::String(_)) => {
            let (declared, given) = (param.kind.as_str(), type_of(value));
            if declared != given {
                return Err(InvalidConfig::WrongType { name: name(), declared, given });
            }
            let text = text_of(value).unwrap_or_default();
            param.check(&text).map_err(|error| InvalidConfig::Value { name: name(), error })
        }
    }
}

/// A default was held to its declaration when the plan was read. A secret has none.
fn default(name: &StepName, param: &Param) -> Result<ConfigValue, InvalidConfig> {
    let text = param.default.as_deref().filter(|_| !param.secret);
    let text = text.ok_or_else(|| InvalidConfig::Missing { name: name.clone() })?;
    let value = match param.kind {
        ParamType::String => Some(ConfigValue::String(text.to_owned())),
        ParamType::Int => text.parse().ok().map(ConfigValue::Int),
        ParamType::Bool => text.parse().ok().map(ConfigValue::Bool),
    };
    value.ok_or_else(|| InvalidConfig::WrongType {
        name: name.clone(),
        declared: param.kind.as_str(),
        given: ParamType::String.as_str(),
    })
}

fn type_of(value: &ConfigValue) -> &'static str {
    match value {
        ConfigValue::Bool(_) => ParamType::Bool.as_str(),
        ConfigValue::Int(_) => ParamType::Int.as_str(),
        ConfigValue::String(_) => ParamType::String.as_str(),
        ConfigValue::Commitment(_) => "commitment",
    }
}

/// As a step receives it; a commitment has no such form.
fn text_of(value: &ConfigValue) -> Option<String> {
    match value {
        ConfigValue::Bool(value) => Some(value.to_string()),
        ConfigValue::Int(value) => Some(value.to_string()),
        ConfigValue::String(value) => Some(value.clone()),
        ConfigValue::Commitment(_) => None,
    }
}

impl Values {
    /// Canonical bytes, as [`Self::to_vec`] wrote them.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidJson> {
        json::from_slice_exact(bytes, VALUES_BYTES)
    }

    /// The canonical form: compact JSON, in the order of the names, each value of its parameter's type.
    pub fn to_vec(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// What an approval names as `config_sha256`.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.to_vec())
    }

    pub fn get(&self, name: &str) -> Option<&ConfigValue> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&StepName, &ConfigValue)> {
        self.0.iter()
    }

    /// All that are not secret, as text: what conditions see, and steps in their environment.
    pub fn plain(&self) -> BTreeMap<StepName, String> {
        self.0.iter().filter_map(|(name, value)| Some((name.clone(), text_of(value)?))).collect()
    }

    /// What is known here of the secret ones.
    pub fn commitments(&self) -> BTreeMap<StepName, Commitment> {
        let commitments = self.0.iter().filter_map(|(name, value)| match value {
            ConfigValue::Commitment(commitment) => Some((name.clone(), *commitment)),
            ConfigValue::Bool(_) | ConfigValue::Int(_) | ConfigValue::String(_) => None,
        });
        commitments.collect()
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
