//! `consign config show` and `consign config list`.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    name::{App, Environment, StepName},
    plan::{Param, Plan},
    time::UnixMs,
    trust::{Commitment, ConfigValue},
};
use serde::Serialize;

use super::change::{Before, shown};
use crate::cli::text::{pairs, table};

/// The schema of `consign config show`.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) app: String,
    pub(super) environment: String,
    /// 0: nothing was ever set.
    pub(super) sequence: u64,
    /// The version whose plan says which parameters there are.
    pub(super) plan: String,
    /// Whether those signed it who may, by this machine's trust root.
    pub(super) verified: bool,
    pub(super) values: Vec<ShownValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct ShownValue {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Absent for a secret, and where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<serde_json::Value>,
    /// set, default, missing, undeclared
    pub(super) source: &'static str,
    pub(super) secret: bool,
    /// Of a secret: the servers that it is sealed to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sealed_to: Vec<String>,
}

pub(super) fn shown_of(
    app: &App,
    environment: &Environment,
    version: &str,
    plan: &Plan,
    before: &Before,
) -> Shown {
    let empty = BTreeMap::new();
    let values = before.config.as_ref().map_or(&empty, |config| &config.values);
    let names: BTreeSet<&StepName> = plan.params.keys().chain(values.keys()).collect();
    let one = |name: &StepName| value(name, values.get(name), plan.params.get(name), before);
    Shown {
        app: app.to_string(),
        environment: environment.to_string(),
        sequence: before.sequence,
        plan: version.to_owned(),
        verified: before.unverified.is_none(),
        values: names.into_iter().map(one).collect(),
    }
}

fn value(name: &StepName, given: Option<&ConfigValue>, param: Option<&Param>, before: &Before) -> ShownValue {
    let sealed_to = match given {
        Some(ConfigValue::Commitment(Commitment { commitment })) => before
            .sealed
            .iter()
            .filter(|sealed| sealed.name == name.as_str() && sealed.commitment == commitment.to_string())
            .map(|sealed| sealed.server.clone())
            .collect(),
        Some(ConfigValue::Bool(_) | ConfigValue::Int(_) | ConfigValue::String(_)) | None => Vec::new(),
    };
    let default = param.and_then(|param| param.default.clone());
    let (value, source) = match (given, default) {
        (Some(_), _) if param.is_none() => (None, "undeclared"),
        (Some(ConfigValue::Commitment(_)), _) => (None, "set"),
        (Some(value), _) => (serde_json::to_value(value).ok(), "set"),
        (None, Some(default)) => (Some(serde_json::Value::String(default)), "default"),
        (None, None) => (None, "missing"),
    };
    ShownValue {
        name: name.to_string(),
        kind: param.map_or("", |param| param.kind.as_str()),
        value,
        source,
        secret: param.is_some_and(|param| param.secret),
        sealed_to,
    }
}

pub(super) fn show_text(shown: &Shown) -> String {
    let mut text = pairs(&[
        vec!["app".into(), shown.app.clone()],
        vec!["environment".into(), shown.environment.clone()],
        vec![
            "config".into(),
            match (shown.sequence, shown.verified) {
                (0, _) => "nothing was ever set".into(),
                (sequence, true) => format!("{sequence}, signed by who may"),
                (sequence, false) => format!("{sequence}, NOT signed by who may: nothing of it is shown"),
            },
        ],
        vec!["plan".into(), shown.plan.clone()],
    ]);
    let rows: Vec<Vec<String>> = shown
        .values
        .iter()
        .map(|value| {
            let given = match (&value.value, value.secret) {
                (Some(given), _) => {
                    given.as_str().map_or_else(|| given.to_string(), |text| format!("{text:?}"))
                }
                (None, true) if value.source == "set" => "secret".to_owned(),
                (None, _) => "-".to_owned(),
            };
            let sealed = match (value.secret, value.sealed_to.is_empty()) {
                (false, _) => String::new(),
                (true, true) => "nobody".to_owned(),
                (true, false) => value.sealed_to.join(", "),
            };
            vec![value.name.clone(), given, value.source.to_owned(), sealed]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["PARAMETER", "VALUE", "SOURCE", "SEALED TO"], &rows));
    }
    text
}

/// The schema of `consign config list`.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    pub(super) sequence: u64,
    pub(super) at_ms: u64,
    pub(super) by: String,
}

pub(super) fn list_text(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "nothing was ever set\n".to_owned();
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|one| vec![one.sequence.to_string(), UnixMs(one.at_ms).to_string(), one.by.clone()])
        .collect();
    table(&["CONFIG", "SINCE", "SENT BY"], &rows)
}

/// For the result of a change.
pub(super) fn values_text(values: &BTreeMap<StepName, ConfigValue>) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| (name.to_string(), shown(value))).collect()
}
