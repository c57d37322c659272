//! `consign.toml` to [`Plan`]: the top level, the parameters, and what holds between steps.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::{
    PlanError,
    model::{Deliver, Kind, Param, ParamType, Phase, Plan},
    rules, step,
};
use crate::{
    artifact::{EntryKind, Manifest},
    document::{Fields, Located, Problems, integer, wrong_type},
    limits,
    name::{App, StepName},
};

const KEEP: u32 = 5;
const KEEP_MOST: u32 = 100;
const PARAMS_MOST: usize = 100;
const PATHS_MOST: usize = 100;
const PARAM_BYTES: u32 = 4096;
const SECRET_BYTES: u32 = 16 << 10;

impl Plan {
    /// Reads a plan and checks all that can be checked without a server. `file_name` is for messages.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, PlanError> {
        let mut problems = Problems::new(file_name, text);
        if text.len() > limits::PLAN_BYTES {
            problems.add(0..0, format!("the plan is longer than {} bytes", limits::PLAN_BYTES));
            return problems.finish(None);
        }
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors.iter().take(10) {
                problems.add(error.span().unwrap_or(0..0), format!("not TOML: {}", error.message()));
            }
            return problems.finish(None);
        }
        let plan = plan(Fields::new("the plan", 0..0, document.get_ref()), text, &mut problems);
        problems.finish(plan)
    }

    /// Refuses a manifest that has an entry where `shared/` will be linked in, or something other than a directory on
    /// the way to a `shared` or `writable` path: the agent would follow it.
    pub fn check_entries(&self, manifest: &Manifest) -> Result<(), SharedEntry> {
        for entry in &manifest.entries {
            let path = entry.path.as_str();
            let directory = entry.kind == EntryKind::Dir;
            let link = matches!(entry.kind, EntryKind::Link { .. });
            let at_shared = |shared: &&String| {
                is_at_or_under(path, shared) || (!directory && is_at_or_under(shared, path))
            };
            let at_writable = |writable: &&String| {
                !directory && is_at_or_under(writable, path) && (link || path != writable.as_str())
            };
            if let Some(shared) = self.shared.iter().find(at_shared) {
                return Err(SharedEntry::Shared { entry: path.to_owned(), shared: shared.clone() });
            }
            if let Some(writable) = self.writable.iter().find(at_writable) {
                return Err(SharedEntry::Writable { entry: path.to_owned(), writable: writable.clone() });
            }
        }
        Ok(())
    }
}

/// An entry of the artifact that stands in the way of a `shared` or `writable` path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedEntry {
    #[error(
        "{entry:?} stands where the shared path {shared:?} is linked in on the server: leave it out of the artifact, or \
         out of `shared`"
    )]
    Shared { entry: String, shared: String },
    #[error("{entry:?} stands on the way to the writable path {writable:?} and is no directory")]
    Writable { entry: String, writable: String },
}

fn is_at_or_under(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn plan(mut fields: Fields<'_, '_>, text: &str, problems: &mut Problems) -> Option<Plan> {
    let app = app(&mut fields, problems);
    let keep = keep(&mut fields, problems);
    let shared = paths(&mut fields, "shared", problems);
    let writable = paths(&mut fields, "writable", problems);
    for (index, path) in shared.iter().enumerate() {
        for other in shared.iter().take(index).chain(&writable) {
            let nested =
                is_at_or_under(&path.value, &other.value) || is_at_or_under(&other.value, &path.value);
            if nested {
                let message = format!("shared path {:?} and {:?} overlap", path.value, other.value);
                problems.add(path.span.clone(), message);
            }
        }
    }
    let links = links(&mut fields, problems);
    let confirm = step::span_of_time(&mut fields, "confirm", problems);
    let params = params(&mut fields, problems);
    let steps = steps(&mut fields, text, &params, problems);
    fields.finish(problems);
    let bare = |paths: Vec<Located<String>>| paths.into_iter().map(|path| path.value).collect();
    Some(Plan {
        app: app?,
        keep,
        shared: bare(shared),
        writable: bare(writable),
        links,
        confirm,
        params,
        steps: steps?,
    })
}

fn app(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<App> {
    if fields.take("app").is_none() {
        fields.missing("app", problems);
    }
    let given = fields.string("app", problems)?;
    match given.value.parse() {
        Ok(app) => Some(app),
        Err(error) => {
            problems.add(given.span, error.to_string());
            None
        }
    }
}

fn keep(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> u32 {
    let Some(given) = fields.integer("keep", problems) else { return KEEP };
    match u32::try_from(given.value) {
        Ok(keep) if (2..=KEEP_MOST).contains(&keep) => keep,
        Ok(_) | Err(_) => {
            problems.add(
                given.span,
                format!(
                    "`keep` lies between 2 and {KEEP_MOST}: the release that runs, and the one to go back to"
                ),
            );
            KEEP
        }
    }
}

fn paths(fields: &mut Fields<'_, '_>, key: &'static str, problems: &mut Problems) -> Vec<Located<String>> {
    let Some(given) = fields.strings(key, problems) else { return Vec::new() };
    if given.value.len() > PATHS_MOST {
        problems.add(given.span, format!("`{key}` has more than {PATHS_MOST} paths"));
        // Each is compared with all others.
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    for path in &given.value {
        if let Err(why) = rules::relative_path(&path.value) {
            problems.add(path.span.clone(), format!("a path in `{key}` {why}"));
        } else if !seen.insert(path.value.clone()) {
            problems.add(path.span.clone(), format!("{:?} stands twice in `{key}`", path.value));
        }
    }
    given.value
}

fn links(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Vec<String> {
    let Some(given) = fields.strings("links", problems) else { return Vec::new() };
    if given.value.len() > PATHS_MOST {
        problems.add(given.span, format!("`links` has more than {PATHS_MOST} globs"));
        return Vec::new();
    }
    for link in &given.value {
        if !link.value.starts_with('/') || link.value.len() > 4096 || link.value.contains("..") {
            let message = "a glob in `links` names absolute targets: it begins with `/` and has no `..`";
            problems.add(link.span.clone(), message);
        } else if let Err(error) = super::changes::glob(&link.value) {
            problems.add(link.span.clone(), format!("not a glob: {}", error.kind()));
        }
    }
    given.value.into_iter().map(|link| link.value).collect()
}

fn params(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> BTreeMap<StepName, Param> {
    let mut params = BTreeMap::new();
    let Some(table) = fields.table("params", problems) else { return params };
    // Before any of them is read: each may have a pattern, which is compiled.
    if table.entries().count() > PARAMS_MOST {
        problems.add(table.span(), format!("the plan has more than {PARAMS_MOST} parameters"));
        return params;
    }
    for (name, value) in table.entries() {
        let parsed: StepName = match name.value.parse() {
            Ok(parsed) => parsed,
            Err(error) => {
                problems.add(name.span, format!("{error}"));
                continue;
            }
        };
        if let Err(why) = rules::variable(&name.value.to_ascii_uppercase()) {
            let message =
                format!("parameter `{parsed}` would arrive as {}: {why}", name.value.to_ascii_uppercase());
            problems.add(name.span, message);
        }
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type::<()>(problems, value.span(), name.value, "a table", value.get_ref());
            continue;
        };
        if let Some(param) = param(Fields::new("a parameter", value.span(), table), problems) {
            params.insert(parsed, param);
        }
    }
    // A secret that is delivered as a file has a variable of another name.
    for (name, _) in params.iter().filter(|(_, param)| param.deliver == Deliver::File) {
        let variable = format!("{name}_file");
        if params.contains_key(variable.as_str()) {
            let message =
                format!("`{name}` arrives as {}, and so does `{variable}`", variable.to_uppercase());
            problems.add(table.span(), message);
        } else if let Err(why) = rules::variable(&variable.to_ascii_uppercase()) {
            problems.add(table.span(), format!("{}: {why}", variable.to_ascii_uppercase()));
        }
    }
    params
}

fn param(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Param> {
    let kind = match fields.string("type", problems) {
        Some(given) => match given.value.as_str() {
            "string" => Some(ParamType::String),
            "int" => Some(ParamType::Int),
            "bool" => Some(ParamType::Bool),
            other => {
                let message = format!("unknown type `{}`", other.escape_debug());
                let help = "a parameter is a \"string\", an \"int\" or a \"bool\"".to_owned();
                problems.add_with_help(given.span, message, Some(help));
                None
            }
        },
        None => {
            if fields.take("type").is_none() {
                fields.missing("type", problems);
            }
            None
        }
    };
    let secret = fields.boolean("secret", problems).is_some_and(|given| given.value);
    let max_length = match fields.integer("max_length", problems) {
        None => PARAM_BYTES,
        Some(given) => match u32::try_from(given.value) {
            Ok(length @ 1..=65_536) => length,
            Ok(_) | Err(_) => {
                problems.add(given.span, "`max_length` lies between 1 and 65536");
                PARAM_BYTES
            }
        },
    };
    let pattern =
        fields.string("pattern", problems).and_then(|given| match rules::pattern_of(&given.value) {
            Ok(_) => Some(given.value),
            Err(_) => {
                problems.add(given.span, "`pattern` is not a regular expression, or a too large one");
                None
            }
        });
    let deliver = deliver(&mut fields, problems);
    let default = default(&mut fields, kind, problems);
    let span = fields.span();
    fields.finish(problems);
    if secret && kind.is_some_and(|kind| kind != ParamType::String) {
        problems.add(span, "a secret is a \"string\": a number could be guessed from what is said of it");
    } else if secret && max_length > SECRET_BYTES {
        problems.add(span, format!("the `max_length` of a secret is at most {SECRET_BYTES}"));
    } else if !secret && deliver.is_some() {
        problems.add(span, "`deliver` is for a secret: all other parameters arrive in the environment");
    }
    let max_length = usize::try_from(max_length).unwrap_or(usize::MAX);
    let param = Param {
        kind: kind?,
        default: default.as_ref().map(|d| d.value.clone()),
        secret,
        pattern,
        max_length,
        deliver: deliver.unwrap_or_default(),
    };
    if let Some(default) = default {
        if secret {
            problems
                .add(default.span, "a secret has no default: everyone who reads the artifact would know it");
        } else if let Err(error) = param.check(&default.value) {
            problems.add(default.span, format!("the default is not a value of the parameter: {error}"));
        }
    }
    Some(param)
}

fn deliver(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Deliver> {
    let given = fields.string("deliver", problems)?;
    match given.value.as_str() {
        "env" => Some(Deliver::Env),
        "file" => Some(Deliver::File),
        other => {
            let message = format!("`deliver` is `{}`", other.escape_debug());
            let help = "a secret is delivered as \"env\" or as \"file\"".to_owned();
            problems.add_with_help(given.span, message, Some(help));
            None
        }
    }
}

/// The default as text, of the declared type.
fn default(
    fields: &mut Fields<'_, '_>,
    kind: Option<ParamType>,
    problems: &mut Problems,
) -> Option<Located<String>> {
    let value = fields.take("default")?;
    let text = match (kind?, value.get_ref()) {
        (ParamType::String, DeValue::String(text)) => Some(text.clone().into_owned()),
        (ParamType::Int, number @ DeValue::Integer(_)) => integer(number).map(|number| number.to_string()),
        (ParamType::Bool, DeValue::Boolean(flag)) => Some(flag.to_string()),
        (ParamType::String | ParamType::Int | ParamType::Bool, _) => None,
    };
    if text.is_none() {
        problems.add(value.span(), "`default` is not of the parameter's `type`");
    }
    text.map(|value_text| Located { span: value.span(), value: value_text })
}

fn steps(
    fields: &mut Fields<'_, '_>,
    text: &str,
    params: &BTreeMap<StepName, Param>,
    problems: &mut Problems,
) -> Option<Vec<super::Step>> {
    let Some(value) = fields.take("step") else {
        problems.add(0..0, "the plan has no steps: it begins each with `[[step]]`");
        return None;
    };
    let DeValue::Array(tables) = value.get_ref() else {
        return wrong_type(problems, value.span(), "step", "an array of tables, `[[step]]`", value.get_ref());
    };
    if tables.len() > limits::STEPS {
        problems.add(value.span(), format!("the plan has more than {} steps", limits::STEPS));
        return None;
    }
    let mut steps: Vec<super::Step> = Vec::new();
    let mut activated = false;
    for item in tables.iter() {
        let DeValue::Table(table) = item.get_ref() else {
            wrong_type::<()>(problems, item.span(), "step", "a table", item.get_ref());
            continue;
        };
        let earlier: Vec<StepName> = steps.iter().map(|step| step.name.clone()).collect();
        let scope = step::Scope { text, params, earlier: &earlier };
        let Some(step) = step::step(Fields::new("a step", item.span(), table), &scope, problems) else {
            // What else is missing would be said because of this one.
            activated |= table.get("activate").is_some();
            continue;
        };
        if steps.iter().any(|earlier| earlier.name == step.name) {
            problems.add(item.span(), format!("two steps are called `{}`", step.name));
        }
        if step.kind == Kind::Activate {
            if activated {
                problems.add(item.span(), "the plan has two `activate` steps: `current` is switched once");
            }
            if step.on != [Phase::Deploy, Phase::Return] {
                problems.add(
                    item.span(),
                    "`activate` runs in both phases: a return that does not switch `current` returns nothing",
                );
            }
            if step.when.is_some() || step.always {
                problems.add(item.span(), "`activate` takes neither `when` nor `always`");
            }
            activated = true;
        }
        steps.push(step);
    }
    if !activated {
        problems.add_with_help(
            0..0,
            "the plan has no `activate` step: the release would never become `current`",
            Some("add `[[step]]`, `name = \"activate\"`, `activate = true`".into()),
        );
    }
    Some(steps)
}
