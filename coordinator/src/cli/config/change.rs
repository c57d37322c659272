//! From the config before to the one after.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    config::effective,
    name::{App, Environment, StepName},
    plan::Plan,
    sealing::Secret,
    trust::{Config, ConfigValue, TrustRoot, open_config},
};
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
};

/// What there is, as the coordinator says.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) sequence: u64,
    /// `None`: there is none, or those who signed it may not any more, and nothing of it is taken over.
    pub(super) config: Option<Config>,
    pub(super) envelope: Vec<u8>,
    pub(super) sealed: Vec<v1::SealedTo>,
    /// Why nothing of it is taken over.
    pub(super) unverified: Option<String>,
}

pub(super) async fn before(
    app: &App,
    environment: &Environment,
    sequence: u64,
    root: &TrustRoot,
    client: &Client,
) -> Result<(Before, Vec<v1::ConfigVersion>)> {
    let request =
        unary(v1::ShowConfigRequest { app: app.to_string(), environment: environment.to_string(), sequence });
    let answer = client.operators().show_config(request).await.map_err(|status| client.failure(status))?;
    let v1::ShowConfigResponse { config, sealed, history } = answer.into_inner();
    let Some(version) = config else {
        let none = Before { sequence: 0, config: None, envelope: Vec::new(), sealed, unverified: None };
        return Ok((none, history));
    };
    let envelope = version.envelope.to_vec();
    let (config, unverified) = match open_config(&envelope, root) {
        Ok(config) if config.app == *app && config.environment == *environment => (Some(config), None),
        Ok(config) => (None, Some(format!("it is of {} in {}", config.app, config.environment))),
        Err(refusal) => (None, Some(refusal.to_string())),
    };
    Ok((Before { sequence: version.sequence, config, envelope, sealed, unverified }, history))
}

/// What is wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) plain: BTreeMap<StepName, ConfigValue>,
    pub(super) secrets: BTreeMap<StepName, Secret>,
    pub(super) unset: BTreeSet<StepName>,
}

/// The values after: those before that the plan still declares, with what is wanted. They fit the plan.
pub(super) fn after(
    before: Option<&Config>,
    wanted: &Wanted,
    plan: &Plan,
) -> Result<BTreeMap<StepName, ConfigValue>> {
    let mut values = before.map(|config| config.values.clone()).unwrap_or_default();
    for name in &wanted.unset {
        if values.remove(name).is_none() {
            return Err(Failure::usage(format!("no value of {name} is set")));
        }
    }
    values.retain(|name, value| {
        let committed = matches!(value, ConfigValue::Commitment(_));
        plan.params.get(name).is_some_and(|param| param.secret == committed)
    });
    values.extend(wanted.plain.clone());
    let secrets = wanted.secrets.iter();
    values.extend(secrets.map(|(name, secret)| (name.clone(), ConfigValue::Commitment(secret.commitment()))));
    let missing: Vec<String> = plan
        .params
        .iter()
        .filter(|(name, param)| param.default.is_none() && !values.contains_key(*name))
        .map(|(name, param)| if param.secret { format!("--secret {name}") } else { format!("{name}=VALUE") })
        .collect();
    if !missing.is_empty() {
        return Err(Failure::usage("the plan has parameters without a default and without a value")
            .next(format!("give {}", missing.join(" "))));
    }
    effective(plan, Some(&values)).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(values)
}

/// What changes for the steps, a line each; defaults are told where they take effect.
pub(super) fn difference(
    before: &BTreeMap<StepName, ConfigValue>,
    after: &BTreeMap<StepName, ConfigValue>,
    plan: &Plan,
) -> Vec<String> {
    let names: BTreeSet<&StepName> = before.keys().chain(after.keys()).collect();
    let told = |values: &BTreeMap<StepName, ConfigValue>, name: &StepName| match values.get(name) {
        Some(value) => shown(value),
        None => match plan.params.get(name).and_then(|param| param.default.as_deref()) {
            Some(default) => format!("{default} (default)"),
            None => "not set".to_owned(),
        },
    };
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    changed
        .map(|name| match (before.get(name), after.get(name)) {
            (Some(ConfigValue::Commitment(_)), Some(ConfigValue::Commitment(_))) => {
                format!("{name}: another secret value")
            }
            _ if !plan.params.contains_key(name) => {
                format!("{name}: {} -> not declared any more", told(before, name))
            }
            (_, _) => format!("{name}: {} -> {}", told(before, name), told(after, name)),
        })
        .collect()
}

/// For a person. A secret is only ever said to be there.
pub(crate) fn shown(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Bool(flag) => flag.to_string(),
        ConfigValue::Int(number) => number.to_string(),
        ConfigValue::String(text) => format!("{text:?}"),
        ConfigValue::Commitment(_) => "secret".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use consign_common::sealing::Salt;

    use super::*;

    fn plan() -> Plan {
        let text = "app = \"shop\"\n[params.workers]\ntype = \"int\"\ndefault = 4\n[params.mode]\ntype = \"string\"\n\
                    pattern = \"fast|slow\"\n[params.token]\ntype = \"string\"\nsecret = true\n\
                    [[step]]\nname = \"a\"\nactivate = true\n";
        Plan::parse(text, "consign.toml").unwrap()
    }

    fn wanted(mode: Option<&str>, token: Option<&str>) -> Wanted {
        let mode = mode.map(|mode| ("mode".parse().unwrap(), ConfigValue::String(mode.into())));
        let token =
            token.map(|token| ("token".parse().unwrap(), Secret::new(Salt::random().unwrap(), token.into())));
        Wanted {
            plain: mode.into_iter().collect(),
            secrets: token.into_iter().collect(),
            unset: BTreeSet::new(),
        }
    }

    fn config(values: BTreeMap<StepName, ConfigValue>) -> Config {
        let (app, environment) = ("shop".parse().unwrap(), "staging".parse().unwrap());
        Config { app, environment, sequence: 1, values }
    }

    #[test]
    fn one_value_changes_and_the_others_stay_as_they_were() {
        let failure = after(None, &wanted(Some("fast"), None), &plan()).unwrap_err();
        assert_eq!(failure.next.as_deref(), Some("give --secret token"));
        let first = after(None, &wanted(Some("fast"), Some("correct horse")), &plan()).unwrap();
        let second = after(Some(&config(first.clone())), &wanted(Some("slow"), None), &plan()).unwrap();
        assert_eq!(first.get("token"), second.get("token"), "its commitment is kept, unopened");
        assert_eq!(difference(&first, &second, &plan()), ["mode: \"fast\" -> \"slow\""]);
        let third = after(Some(&config(first.clone())), &wanted(None, Some("other horse")), &plan()).unwrap();
        assert_eq!(difference(&first, &third, &plan()), ["token: another secret value"]);
        assert!(difference(&first, &first, &plan()).is_empty());
        assert!(after(Some(&config(first)), &wanted(Some("lame"), None), &plan()).is_err(), "the pattern");
    }

    #[test]
    fn what_is_unset_has_its_default_again() {
        let mut values = after(None, &wanted(Some("fast"), Some("correct horse")), &plan()).unwrap();
        values.insert("workers".parse().unwrap(), ConfigValue::Int(8));
        values.insert("gone".parse().unwrap(), ConfigValue::Int(8));
        let before = config(values.clone());
        let unset = Wanted { unset: ["workers".parse().unwrap()].into(), ..Wanted::default() };
        let next = after(Some(&before), &unset, &plan()).unwrap();
        assert_eq!(
            difference(&values, &next, &plan()),
            ["gone: 8 -> not declared any more", "workers: 8 -> 4 (default)"]
        );
        let mode = Wanted { unset: ["mode".parse().unwrap()].into(), ..Wanted::default() };
        assert!(after(Some(&before), &mode, &plan()).unwrap_err().next.unwrap().contains("mode=VALUE"));
    }
}
