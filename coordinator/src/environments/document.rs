//! The file of environments: `[environment.NAME]` tables to settings, with the place of every mistake.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use consign_common::{
    document::{DocumentError, Fields, Located, Problems, did_you_mean, integer, wrong_type},
    name::Environment,
};
use toml::de::{DeTable, DeValue};

use super::{
    Automation, Deploy, Freeze, Health, Keep, Settings,
    check::{self, InvalidSetting},
    freeze::{Field, InvalidFreeze},
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

/// What a file is read among.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// That the trust root names.
    pub environments: BTreeSet<Environment>,
    /// What was applied before: a file says nothing of the others.
    pub applied: BTreeMap<Environment, Deploy>,
}

/// `file` is its name, for messages.
pub fn parse(text: &str, file: &str) -> Result<BTreeMap<Environment, Settings>, DocumentError> {
    read(text, file, None)
}

/// As [`parse`]; and `after:` must name environments that there are, and lead round in no circle with those before.
pub fn parse_among(
    text: &str,
    file: &str,
    known: &Known,
) -> Result<BTreeMap<Environment, Settings>, DocumentError> {
    read(text, file, Some(known))
}

fn read(
    text: &str,
    file: &str,
    known: Option<&Known>,
) -> Result<BTreeMap<Environment, Settings>, DocumentError> {
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
    let mut places = BTreeMap::new();
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
                            let (settings, place) = settings(fields, &mut problems);
                            places.extend(place.map(|place| (parsed.clone(), place)));
                            all.insert(parsed, settings);
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
    check_ways(&all, &places, known, &mut problems);
    problems.finish(Some(all))
}

/// Where `after:` leads: to an environment that there is, and never back.
fn check_ways(
    all: &BTreeMap<Environment, Settings>,
    places: &BTreeMap<Environment, Range<usize>>,
    known: Option<&Known>,
    problems: &mut Problems,
) {
    let before = |name: &Environment| {
        let given = all.get(name).map(|settings| settings.automation.deploy.as_ref());
        match given.unwrap_or_else(|| known?.applied.get(name)) {
            Some(Deploy::After(before)) => Some(before.clone()),
            Some(Deploy::Manual | Deploy::OnPublish) | None => None,
        }
    };
    for (name, place) in places {
        let Some(first) = before(name) else { continue };
        if let Some(known) = known.filter(|known| !known.environments.contains(&first)) {
            let help = did_you_mean(first.as_str(), known.environments.iter().map(Environment::as_str));
            let message = format!("`deploy`: the trust root names no environment {first}");
            problems.add_with_help(place.clone(), message, help);
            continue;
        }
        let mut way = vec![name.clone()];
        let mut next = Some(first);
        while let Some(at) = next.filter(|at| !way.contains(at)) {
            next = before(&at);
            way.push(at);
        }
        // One that leads into somebody else's circle is told there.
        if way.last().and_then(before).as_ref() == Some(name) {
            let way: Vec<&str> = way.iter().map(Environment::as_str).chain([name.as_str()]).collect();
            problems.add(place.clone(), format!("`deploy` leads round in a circle: {}", way.join(" after ")));
        }
    }
}

/// And where its `deploy` stands.
fn settings(mut fields: Fields<'_, '_>, problems: &mut Problems) -> (Settings, Option<Range<usize>>) {
    let deploy = deploy(&mut fields, problems);
    let place = deploy.as_ref().map(|deploy| deploy.span.clone());
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
        automation: Automation {
            deploy: deploy.map(|deploy| deploy.value),
            candidates: word(&mut fields, "candidates", &Keep::ALL, Keep::as_str, problems),
            veto_ms: milliseconds(&mut fields, "veto", problems),
            freeze: freezes(&mut fields, problems),
        },
    };
    if let (Some(confirm), Err(error)) = (confirm, settings.check_confirm()) {
        problems.add(confirm.span, error.to_string());
    }
    fields.finish(problems);
    (settings, place)
}

fn deploy(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Located<Deploy>> {
    let Located { span, value } = fields.string("deploy", problems)?;
    match value.parse::<Deploy>() {
        Ok(value) => Some(Located { span, value }),
        Err(error) => {
            let help = did_you_mean(&value, ["manual", "on-publish"]);
            problems.add_with_help(span, error.to_string(), help);
            None
        }
    }
}

/// `[[environment.NAME.freeze]]`
fn freezes(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Vec<Freeze> {
    const RULE: &str = "tables with `from` and `to`, as [[environment.production.freeze]]";
    let Some(value) = fields.take("freeze") else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        wrong_type::<()>(problems, value.span(), "freeze", RULE, value.get_ref());
        return Vec::new();
    };
    let mut all = Vec::new();
    for item in items.iter() {
        match item.get_ref().as_table() {
            Some(table) => all.extend(freeze(Fields::new("a freeze", item.span(), table), problems)),
            None => {
                wrong_type::<()>(problems, item.span(), "freeze", RULE, item.get_ref());
            }
        }
    }
    all
}

fn freeze(mut table: Fields<'_, '_>, problems: &mut Problems) -> Option<Freeze> {
    let days = table.strings("days", problems);
    let from = moment(&mut table, "from", problems);
    let to = moment(&mut table, "to", problems);
    let timezone = table.string("timezone", problems);
    let place = table.span();
    for key in ["from", "to"] {
        if table.take(key).is_none() {
            table.missing(key, problems);
        }
    }
    table.finish(problems);
    let (from, to) = (from?, to?);
    if days.as_ref().is_some_and(|days| days.value.is_empty()) {
        problems.add(place, "`days` names the days of the week on which the window begins");
        return None;
    }
    let days = days.map(|days| days.value).unwrap_or_default();
    let freeze = Freeze {
        days: days.iter().map(|day| day.value.clone()).collect(),
        from: from.value,
        to: to.value,
        timezone: timezone.as_ref().map(|timezone| timezone.value.clone()),
    };
    if let Err(error) = freeze.window() {
        let at = match error.field {
            Field::Days(index) => days.get(index).map(|day| day.span.clone()),
            Field::From => Some(from.span),
            Field::To => Some(to.span),
            Field::Timezone => timezone.map(|timezone| timezone.span),
        };
        let help = match &error.why {
            InvalidFreeze::Day { given } => {
                did_you_mean(given, ["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
            }
            InvalidFreeze::TimeOfDay { .. }
            | InvalidFreeze::Moment { .. }
            | InvalidFreeze::Zone { .. }
            | InvalidFreeze::NoZone { .. }
            | InvalidFreeze::ZoneUnused { .. }
            | InvalidFreeze::Empty { .. } => None,
        };
        problems.add_with_help(at.unwrap_or(place), format!("`freeze`: {error}"), help);
    }
    Some(freeze)
}

/// A moment or a time of day: in quotes, or as TOML writes moments.
fn moment(table: &mut Fields<'_, '_>, key: &'static str, problems: &mut Problems) -> Option<Located<String>> {
    let value = table.take(key)?;
    let text = match value.get_ref() {
        DeValue::Datetime(at) => at.to_string(),
        DeValue::String(text) => text.to_string(),
        other @ (DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Array(_)
        | DeValue::Table(_)) => {
            return wrong_type(problems, value.span(), key, "a moment or a time of day", other);
        }
    };
    Some(Located { span: value.span(), value: text })
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
deploy = "after:pre"
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
candidates = "newest"
veto = "2h"

[[environment.production.freeze]]
from = 2026-12-23T18:00:00Z
to = "2027-01-02T07:00:00+01:00"

[[environment.production.freeze]]
days = ["fri"]
from = "16:00"
to = "24:00"
timezone = "Europe/Berlin"

[environment.pre]
deploy = "after:staging"
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
deploy = "on-publsh"
candidates = "latest"
veto = "2 hours"
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
deploy = "after:pre"
[[environment.production.freeze]]
from = 2026-12-24T00:00:00
too = 2026-12-27T00:00:00
[[environment.production.freeze]]
days = ["fri", "sa"]
from = "16:00"
to = "24:00"
timezone = "UTC"
[[environment.production.freeze]]
days = ["fri"]
from = 1600
to = "24:00"
[[environment.production.freeze]]
days = []
from = "16:00"
to = "24:00"
[environment.pre]
deploy = "after:qa"
freeze = [{ from = 2026-12-24T00:00:00Z, to = 2026-12-23T00:00:00Z }, 7]
[environment.qa]
deploy = "after:production"
freeze = { from = 1 }
[environment.other]
deploy = "after:pre"
[environment.self]
deploy = "after:self"
"#;
        insta::assert_snapshot!(parse(text, "environments.toml").unwrap_err().to_string());
        for (text, word) in [("x = ", "not TOML"), ("", "[environment.NAME]"), ("environment = 1", "tables")]
        {
            let error = parse(text, "e.toml").unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn after_leads_to_an_environment_that_there_is_and_never_back() {
        let text = "[environment.production]\ndeploy = \"after:staging\"\n";
        let known = |applied: &[(&str, Deploy)]| Known {
            environments: [name("staging"), name("production")].into(),
            applied: applied.iter().map(|(of, deploy)| (name(of), deploy.clone())).collect(),
        };
        assert!(parse_among(text, "e.toml", &known(&[])).is_ok());
        let unknown = Known { environments: [name("stagin")].into(), ..Known::default() };
        let error = parse_among(text, "e.toml", &unknown).unwrap_err().to_string();
        assert!(error.contains("e.toml:2:10") && error.contains("did you mean `stagin`?"), "{error}");
        // A circle with what was applied before, which the file does not have.
        let before = known(&[("staging", Deploy::After(name("production")))]);
        let error = parse_among(text, "e.toml", &before).unwrap_err().to_string();
        assert!(error.contains("production after staging after production"), "{error}");
        // And which the file takes away.
        let both = format!("{text}[environment.staging]\ndeploy = \"on-publish\"\n");
        assert!(parse_among(&both, "e.toml", &before).is_ok());
        let both = format!("{text}[environment.staging]\n");
        assert!(parse_among(&both, "e.toml", &before).is_ok());
    }
}
