//! The file of environments: `[environment.NAME]` tables to settings, with the place of every mistake.

use std::collections::BTreeMap;

use consign_common::{
    document::{DocumentError, Fields, Problems, did_you_mean, integer, wrong_type},
    name::Environment,
};
use toml::de::{DeTable, DeValue};

use super::{
    Health, Settings,
    check::{self, InvalidSetting},
};
use crate::{
    fleet::Selector,
    rollout::{GroupBudget, HealthCheck, Offline, OnStop, Probe},
    rollouts::Queueing,
};

const FILE_BYTES: usize = 256 << 10;
const ENVIRONMENTS: usize = 200;
/// Of a health check that does not say.
const STATUS: u16 = 200;
const WITHIN_MS: u64 = 60_000;

/// `file` is its name, for messages.
pub fn parse(text: &str, file: &str) -> Result<BTreeMap<Environment, Settings>, DocumentError> {
    let mut problems = Problems::new(file, text);
    if text.len() > FILE_BYTES {
        problems.add(0..0, format!("the file is longer than {FILE_BYTES} bytes"));
        return problems.finish(None);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors.iter().take(10) {
            problems.add(error.span().unwrap_or(0..0), format!("not TOML: {}", error.message()));
        }
        return problems.finish(None);
    }
    let mut fields = Fields::new("the file of environments", 0..0, document.get_ref());
    let mut all = BTreeMap::new();
    match fields.take("environment") {
        None => problems.add(0..0, "there is no `[environment.NAME]`"),
        Some(value) => match value.get_ref().as_table() {
            None => {
                wrong_type::<()>(
                    &mut problems,
                    value.span(),
                    "environment",
                    "tables by name",
                    value.get_ref(),
                );
            }
            Some(table) => {
                let tables = Fields::new("environment", value.span(), table);
                if table.len() > ENVIRONMENTS {
                    problems.add(value.span(), format!("more than {ENVIRONMENTS} environments"));
                }
                for (name, value) in tables.entries() {
                    let parsed = match name.value.parse::<Environment>() {
                        Ok(parsed) => parsed,
                        Err(error) => {
                            problems.add(name.span, error.to_string());
                            continue;
                        }
                    };
                    match value.get_ref().as_table() {
                        Some(table) => {
                            let fields = Fields::new("an environment", name.span, table);
                            all.insert(parsed, settings(fields, &mut problems));
                        }
                        None => {
                            wrong_type::<()>(
                                &mut problems,
                                value.span(),
                                "an environment",
                                "a table",
                                value.get_ref(),
                            );
                        }
                    }
                }
            }
        },
    }
    fields.finish(&mut problems);
    problems.finish(Some(all))
}

fn settings(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Settings {
    deploy(&mut fields, problems);
    let confirm = fields.span_of_time("confirm", problems);
    let settings = Settings {
        waves: waves(&mut fields, problems),
        canary: canary(&mut fields, problems),
        bake_ms: milliseconds(&mut fields, "bake", problems),
        failures: count(&mut fields, "failures", problems),
        group: group(&mut fields, problems),
        min_healthy: min_healthy(&mut fields, problems),
        offline: offline(&mut fields, problems),
        health: health(&mut fields, problems),
        confirm_ms: confirm.as_ref().map(|confirm| to_ms(confirm.value)),
        on_stop: word(&mut fields, "on_stop", &OnStop::ALL, OnStop::as_str, problems),
        queue: word(&mut fields, "queue", &Queueing::ALL, Queueing::as_str, problems),
    };
    if let (Some(confirm), Err(error)) = (confirm, settings.check_confirm()) {
        problems.add(confirm.span, error.to_string());
    }
    fields.finish(problems);
    settings
}

/// When something begins by itself: only `manual` so far, and not kept.
fn deploy(fields: &mut Fields<'_, '_>, problems: &mut Problems) {
    let Some(given) = fields.string("deploy", problems) else { return };
    let later = given.value == "on-publish" || given.value.starts_with("after:");
    if later {
        let message = format!("`deploy = {:?}` is not built yet", given.value);
        let help = "leave it out, or write `deploy = \"manual\"`".to_owned();
        problems.add_with_help(given.span, message, Some(help));
    } else if given.value != "manual" {
        let help = did_you_mean(&given.value, ["manual", "on-publish"]);
        let message = "`deploy` is \"manual\", \"on-publish\" or \"after:ENVIRONMENT\"";
        problems.add_with_help(given.span, message, help);
    }
}

fn waves(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Vec<String>> {
    let given = fields.strings("waves", problems)?;
    let waves: Vec<String> = given.value.into_iter().map(|wave| wave.value).collect();
    if let Err(error) = check::check_waves(&waves) {
        problems.add(given.span, error.to_string());
    }
    Some(waves)
}

fn canary(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<String> {
    let given = fields.string("canary", problems)?;
    if let Err(error) = given.value.parse::<Selector>() {
        problems.add(given.span, error.to_string());
    }
    Some(given.value)
}

fn milliseconds(fields: &mut Fields<'_, '_>, key: &'static str, problems: &mut Problems) -> Option<u64> {
    fields.span_of_time(key, problems).map(|given| to_ms(given.value))
}

fn count(fields: &mut Fields<'_, '_>, key: &'static str, problems: &mut Problems) -> Option<u32> {
    let given = fields.integer(key, problems)?;
    let count = u32::try_from(given.value).ok().filter(|count| *count <= 1_000_000);
    if count.is_none() {
        problems.add(given.span, format!("`{key}` is a number of servers, from 0 to 1000000"));
    }
    count
}

fn group(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<GroupBudget> {
    let mut table = fields.table("group", problems)?;
    for key in ["label", "failures"] {
        if table.take(key).is_none() {
            table.missing(key, problems);
        }
    }
    let label = table.string("label", problems);
    let failures = count(&mut table, "failures", problems);
    table.finish(problems);
    let label = label?;
    if let Err(error) = check::check_label(&label.value) {
        problems.add(label.span, error.to_string());
    }
    Some(GroupBudget { label: label.value, failures: failures? })
}

/// A number of servers, or a percentage in quotes.
fn min_healthy(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<String> {
    let value = fields.take("min_healthy")?;
    let text = match value.get_ref() {
        DeValue::Integer(_) => integer(value.get_ref()).map(|number| number.to_string()),
        DeValue::String(text) => Some(text.to_string()),
        other @ (DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_)) => {
            let expected = "a number of servers, or a percentage as \"75%\"";
            return wrong_type(problems, value.span(), "min_healthy", expected, other);
        }
    };
    let checked = text.filter(|text| check::min_healthy(text).is_ok());
    if checked.is_none() {
        problems.add(value.span(), format!("`min_healthy`: {}", InvalidSetting::MinHealthy));
    }
    checked
}

fn offline(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Offline> {
    const RULE: &str = "\"fail\", \"owe\" or { wait = \"10m\" }";
    let value = fields.take("offline")?;
    match value.get_ref() {
        DeValue::String(text) => match text.as_ref() {
            "fail" => Some(Offline::Fail),
            "owe" => Some(Offline::Owe),
            other => {
                let help = did_you_mean(other, ["fail", "owe"]);
                problems.add_with_help(value.span(), format!("`offline` is {RULE}"), help);
                None
            }
        },
        DeValue::Table(table) => {
            let mut table = Fields::new("offline", value.span(), table);
            if table.take("wait").is_none() {
                table.missing("wait", problems);
            }
            let ms = milliseconds(&mut table, "wait", problems);
            table.finish(problems);
            Some(Offline::Wait { ms: ms? })
        }
        other @ (DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)) => wrong_type(problems, value.span(), "offline", RULE, other),
    }
}

fn health(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Health> {
    let mut table = fields.table("health", problems)?;
    let url = table.string("http", problems);
    let command = table.string("command", problems);
    let status = table.integer("status", problems);
    let within_ms = milliseconds(&mut table, "within", problems).unwrap_or(WITHIN_MS);
    let place = table.span();
    table.finish(problems);
    let probe = match (url, command) {
        (Some(url), None) => {
            if let Err(error) = check::check_url(&url.value) {
                problems.add(url.span, error.to_string());
            }
            let given = status.as_ref().map_or(i64::from(STATUS), |status| status.value);
            let number = u16::try_from(given).ok().filter(|number| (100..600).contains(number));
            if let (None, Some(status)) = (number, status) {
                problems.add(status.span, InvalidSetting::Status.to_string());
            }
            Probe::Http { url: url.value, status: number.unwrap_or(STATUS) }
        }
        (None, Some(command)) => {
            if let Err(error) = check::check_command(&command.value) {
                problems.add(command.span, error.to_string());
            }
            if let Some(status) = status {
                problems.add(status.span, "`status` is for `http`");
            }
            Probe::Command { name: command.value }
        }
        (None, None) | (Some(_), Some(_)) => {
            problems.add(place, "`health` has one of `http` and `command`");
            return None;
        }
    };
    Some(Health::Check(HealthCheck { probe, within_ms }))
}

/// One of these words.
fn word<T: Copy>(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    all: &[T],
    name: fn(T) -> &'static str,
    problems: &mut Problems,
) -> Option<T> {
    let given = fields.string(key, problems)?;
    let found = all.iter().copied().find(|one| name(*one) == given.value);
    if found.is_none() {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let help = did_you_mean(&given.value, names);
        problems.add_with_help(given.span, format!("`{key}` is one of {}", quoted.join(", ")), help);
    }
    found
}

fn to_ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// As the file has it: `90s`, `5m`, `2h`, `500ms`.
pub fn span(ms: u64) -> String {
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= unit && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
[environment.staging]

[environment.production]
deploy = "manual"
waves = ["1", "10%", "100%"]
canary = "role=canary"
bake = "5m"
failures = 1
group = { label = "zone", failures = 0 }
min_healthy = "75%"
offline = { wait = "10m" }
health = { http = "http://shop.internal/healthz", status = 204, within = "2m" }
confirm = "30m"
on_stop = "rollback"
queue = "supersede"
"#;

    fn name(text: &str) -> Environment {
        text.parse().unwrap()
    }

    #[test]
    fn a_whole_file_is_read() {
        let all = parse(WHOLE, "environments.toml").unwrap();
        assert_eq!(all[&name("staging")], Settings::default());
        let production = &all[&name("production")];
        assert_eq!(production.check(), Ok(()));
        let texts: Vec<String> =
            production.texts().into_iter().map(|(name, text)| format!("{name} = {text}")).collect();
        insta::assert_snapshot!(texts.join("\n"));
        // What is shown can be written back.
        let again = format!("[environment.production]\n{}", texts.join("\n"));
        assert_eq!(parse(&again, "again.toml").unwrap()[&name("production")], *production);
    }

    #[test]
    fn the_example_that_explains_every_setting_is_one() {
        let text = include_str!("../../../deploy/examples/environments.toml");
        let all = parse(text, "environments.toml").unwrap();
        let set = all[&name("production")].texts().iter().filter(|(_, value)| !value.is_empty()).count();
        assert_eq!(set, all[&name("production")].texts().len(), "every setting");
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = r#"
titel = 1
[environment.Staging]
[environment.staging]
deploy = "on-publish"
wave = ["1"]
waves = ["50%", "25%", "100%"]
canary = "role=web,web-1"
bake = "5 minutes"
failures = -1
group = { label = "zo ne" }
min_healthy = 1.5
offline = "fial"
health = { http = "https://shop/", comand = "x", status = 999 }
confirm = "5m"
on_stop = "roll-back"
queue = 7
[environment.production]
bake = "10m"
confirm = "5m"
waves = ["1", "50%"]
health = { command = "../sh" }
offline = { wait = "0s" }
"#;
        insta::assert_snapshot!(parse(text, "environments.toml").unwrap_err().to_string());
        for (text, word) in [("x = ", "not TOML"), ("", "[environment.NAME]"), ("environment = 1", "tables")]
        {
            let error = parse(text, "e.toml").unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
