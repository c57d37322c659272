//! One `[[step]]`.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use toml::de::DeValue;

use super::{
    condition::{Condition, Names},
    model::{
        Deliver, FailurePolicy, HttpCheck, Kind, Param, Phase, Retry, Step, SystemdAction, SystemdVerb,
        TcpCheck,
    },
    rules,
};
use crate::{
    document::{Fields, Located, Problems, did_you_mean, integer, wrong_type},
    name::StepName,
};

const TIMEOUT: Duration = Duration::from_secs(600);
const WITHIN: Duration = Duration::from_secs(30);
const KINDS: [&str; 7] = ["run", "shell", "activate", "systemd", "http", "tcp", "sleep"];
const ATTEMPTS_MOST: u32 = 10;
const ARGUMENTS_MOST: usize = 1000;
const ARGUMENT_BYTES: usize = 64 << 10;
const ENV_MOST: usize = 200;

/// What a step is read in: the file, and what its condition may name.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) text: &'a str,
    pub(super) params: &'a BTreeMap<StepName, Param>,
    pub(super) earlier: &'a [StepName],
}

pub(super) fn step(mut fields: Fields<'_, '_>, scope: &Scope<'_>, problems: &mut Problems) -> Option<Step> {
    let name = name(&mut fields, problems);
    let kind = kind(&mut fields, problems);
    let when = condition(&mut fields, scope, problems);
    let once = flag(&mut fields, "once", problems);
    let user = user(&mut fields, problems);
    let env = env(&mut fields, scope.params, problems);
    let timeout = span_of_time(&mut fields, "timeout", problems).unwrap_or(TIMEOUT);
    let retry = retry(&mut fields, problems);
    let if_fails = if_fails(&mut fields, problems);
    let always = flag(&mut fields, "always", problems);
    let on = phases(&mut fields, problems);
    let leaves = flag(&mut fields, "leaves", problems);
    let tty = flag(&mut fields, "tty", problems);
    let span = fields.span();
    fields.finish(problems);

    let (name, kind) = (name?, kind?);
    let process = kind.is_process();
    for (given, key) in [
        (user.is_some(), "user"),
        (!env.is_empty(), "env"),
        (leaves.is_some(), "leaves"),
        (tty.is_some(), "tty"),
    ] {
        if given && !process {
            let message = format!("`{key}` is for `run` and `shell`, not for `{}`", kind.as_str());
            problems.add(span.clone(), message);
        }
    }
    let on = on.unwrap_or(if process { vec![Phase::Deploy] } else { vec![Phase::Deploy, Phase::Return] });
    let (once, always) = (once.unwrap_or_default(), always.unwrap_or_default());
    if once {
        for (wrong, why) in [
            (!process, "`once` is for `run` and `shell`: every server needs the others for itself"),
            (
                process && on.contains(&Phase::Return),
                "a `once` step is for `on = [\"deploy\"]`: a return asks nobody",
            ),
            (always, "a `once` step is not `always`: what cleans up waits for nobody"),
        ] {
            if wrong {
                problems.add(span.clone(), why);
            }
        }
    }
    Some(Step {
        name,
        kind,
        when,
        once,
        user,
        env,
        timeout,
        retry,
        if_fails,
        always,
        on,
        leaves: leaves.unwrap_or_default(),
        tty: tty.unwrap_or_default(),
    })
}

/// A span of time under `key`.
pub(super) fn span_of_time(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    problems: &mut Problems,
) -> Option<Duration> {
    fields.span_of_time(key, problems).map(|given| given.value)
}

fn name(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<StepName> {
    if fields.take("name").is_none() {
        fields.missing("name", problems);
    }
    let given = fields.string("name", problems)?;
    match given.value.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            problems.add(given.span, format!("{error}"));
            None
        }
    }
}

/// Exactly one of the kinds.
fn kind(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    let given: Vec<&str> = KINDS.into_iter().filter(|key| fields.take(key).is_some()).collect();
    match given.as_slice() {
        [] => {
            let message = format!("a step has one of {}", KINDS.map(|kind| format!("`{kind}`")).join(", "));
            problems.add(fields.span(), message);
            None
        }
        ["run"] => run(fields, problems),
        ["shell"] => shell(fields, problems),
        ["activate"] => activate(fields, problems),
        ["systemd"] => fields.table("systemd", problems).and_then(|table| systemd(table, problems)),
        ["http"] => fields.table("http", problems).and_then(|table| http(table, problems)),
        ["tcp"] => fields.table("tcp", problems).and_then(|table| tcp(table, problems)),
        ["sleep"] => span_of_time(fields, "sleep", problems).map(Kind::Sleep),
        [first, second, ..] => {
            problems.add(fields.span(), format!("a step has one kind, not `{first}` and `{second}`"));
            None
        }
        [one] => {
            problems.add(fields.span(), format!("unknown kind `{one}`"));
            None
        }
    }
}

fn run(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    let given = fields.strings("run", problems)?;
    let bytes: usize = given.value.iter().map(|argument| argument.value.len() + 1).sum();
    if given.value.is_empty() || given.value.first().is_some_and(|program| program.value.is_empty()) {
        problems.add(given.span, "`run` names a program: [\"bin/migrate\", \"--to\", \"latest\"]");
        return None;
    }
    if given.value.len() > ARGUMENTS_MOST || bytes > ARGUMENT_BYTES {
        let message = format!("`run` has at most {ARGUMENTS_MOST} arguments and {ARGUMENT_BYTES} bytes");
        problems.add(given.span, message);
        return None;
    }
    for argument in &given.value {
        no_nul(argument, "run", problems);
    }
    Some(Kind::Run(given.value.into_iter().map(|argument| argument.value).collect()))
}

fn shell(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    let given = fields.string("shell", problems)?;
    no_nul(&given, "shell", problems);
    if given.value.trim().is_empty() || given.value.len() > ARGUMENT_BYTES {
        problems.add(given.span, format!("`shell` is a command of 1 to {ARGUMENT_BYTES} bytes"));
        return None;
    }
    Some(Kind::Shell(given.value))
}

fn activate(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    let given = fields.boolean("activate", problems)?;
    if !given.value {
        problems.add(given.span, "`activate` is true, or is left out");
        return None;
    }
    Some(Kind::Activate)
}

fn systemd(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    let verbs = [
        ("start", SystemdVerb::Start),
        ("stop", SystemdVerb::Stop),
        ("restart", SystemdVerb::Restart),
        ("reload", SystemdVerb::Reload),
        ("reload_or_restart", SystemdVerb::ReloadOrRestart),
    ];
    let mut actions = Vec::new();
    for (key, verb) in verbs {
        if let Some(unit) = fields.string(key, problems) {
            if let Err(why) = unit_name(&unit.value) {
                problems.add(unit.span, why);
            }
            actions.push(SystemdAction { verb, unit: unit.value });
        }
    }
    if actions.len() != 1 {
        let message = "`systemd` does one thing to one unit: { restart = \"shop.service\" }";
        problems.add(fields.span(), message);
    }
    fields.finish(problems);
    actions.pop().map(Kind::Systemd)
}

fn unit_name(unit: &str) -> Result<(), &'static str> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@' | b':' | b'\\');
    let named = unit.rsplit_once('.').is_some_and(|(name, suffix)| {
        !name.is_empty() && matches!(suffix, "service" | "socket" | "timer" | "target" | "path")
    });
    match named && unit.len() <= 255 && !unit.starts_with('-') && unit.bytes().all(allowed) {
        true => Ok(()),
        false => Err(
            "a unit is written with its suffix: \"shop.service\" (service, socket, timer, target or path)",
        ),
    }
}

fn http(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    if fields.take("url").is_none() {
        fields.missing("url", problems);
    }
    let url = fields.string("url", problems).filter(|url| {
        let rest = url.value.strip_prefix("http://").or_else(|| url.value.strip_prefix("https://"));
        let valid = rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.starts_with('/') && !rest.contains(|c: char| c.is_control() || c == ' ')
        });
        if !valid || url.value.len() > 2048 {
            problems.add(url.span.clone(), "`url` begins with http:// or https:// and names a host");
        }
        valid
    });
    let status = match fields.integer("status", problems) {
        None => 200,
        Some(given) => match u16::try_from(given.value) {
            Ok(status @ 100..=599) => status,
            Ok(_) | Err(_) => {
                problems.add(given.span, "`status` lies between 100 and 599");
                200
            }
        },
    };
    let contains = fields.string("contains", problems).map(|given| given.value);
    let within = span_of_time(&mut fields, "within", problems).unwrap_or(WITHIN);
    fields.finish(problems);
    Some(Kind::Http(HttpCheck { url: url?.value, status, contains, within }))
}

fn tcp(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    if fields.take("address").is_none() {
        fields.missing("address", problems);
    }
    let address = fields.string("address", problems).filter(|address| {
        let valid = address.value.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && host.len() <= 255
                && !host.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/')
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !valid {
            problems.add(address.span.clone(), "`address` is \"host:port\", as in \"127.0.0.1:8080\"");
        }
        valid
    });
    let within = span_of_time(&mut fields, "within", problems).unwrap_or(WITHIN);
    fields.finish(problems);
    Some(Kind::Tcp(TcpCheck { address: address?.value, within }))
}

fn condition(fields: &mut Fields<'_, '_>, scope: &Scope<'_>, problems: &mut Problems) -> Option<Condition> {
    let given = fields.string("when", problems)?;
    let names = Names { params: scope.params, steps: scope.earlier };
    match Condition::compile(&given.value, &names) {
        Ok(condition) => Some(condition),
        Err(errors) => {
            for error in errors {
                let span = inside(scope.text, &given, error.span.clone());
                problems.add_with_help(span, format!("`when`: {}", error.message), error.help);
            }
            None
        }
    }
}

/// Where in the file a span of a string's value stands. A string without escapes stands in the file as it is; in one
/// with escapes every value's character is looked for behind the escapes before it.
fn inside(text: &str, value: &Located<String>, span: Range<usize>) -> Range<usize> {
    let Some(raw) = text.get(value.span.clone()) else { return value.span.clone() };
    if let Some(offset) = raw.find(&value.value) {
        let start = value.span.start + offset;
        return start + span.start..start + span.end;
    }
    let Some(body) = raw.strip_prefix('"').filter(|body| !body.starts_with("\"\"")) else {
        return value.span.clone();
    };
    let mut places = Vec::new();
    let mut rest = body;
    let mut decoded = value.value.chars();
    while let (Some(character), Some(first)) = (decoded.next(), rest.chars().next()) {
        let place = value.span.start + 1 + (body.len() - rest.len());
        places.extend(std::iter::repeat_n(place, character.len_utf8()));
        let width = match (first, rest.chars().nth(1)) {
            ('\\', Some('u')) => 6,
            ('\\', Some('U')) => 10,
            ('\\', Some('x')) => 4,
            ('\\', _) => 2,
            (other, _) => other.len_utf8(),
        };
        rest = rest.get(width..).unwrap_or_default();
    }
    let at = |offset: usize| places.get(offset).copied().unwrap_or(value.span.end.saturating_sub(1));
    at(span.start)..at(span.end).max(at(span.start))
}

fn flag(fields: &mut Fields<'_, '_>, key: &'static str, problems: &mut Problems) -> Option<bool> {
    fields.boolean(key, problems).map(|given| given.value)
}

fn user(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<String> {
    let given = fields.string("user", problems)?;
    let name = given.value.as_bytes();
    let valid = name.len() <= 32
        && name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !valid {
        problems.add(given.span, "`user` is a login name: letters, digits, '-', '_' and '.', no number");
        return None;
    }
    Some(given.value)
}

/// Whether a step finds the parameter, or the path of the file that has it, under this name.
fn is_variable_of(name: &StepName, param: &Param, variable: &str) -> bool {
    let own = name.as_str().to_ascii_uppercase();
    match param.deliver {
        Deliver::Env => own == variable,
        Deliver::File => own == variable || format!("{own}_FILE") == variable,
    }
}

fn env(
    fields: &mut Fields<'_, '_>,
    params: &BTreeMap<StepName, Param>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(table) = fields.table("env", problems) else { return variables };
    for (name, value) in table.entries() {
        if let Err(why) = rules::variable(name.value) {
            let message = format!("`env` may not set {}: {why}", name.value.escape_debug());
            problems.add(name.span.clone(), message);
        } else if params.iter().any(|(param, declared)| is_variable_of(param, declared, name.value)) {
            problems.add(name.span.clone(), format!("{} is a parameter of the plan already", name.value));
        }
        match value.get_ref().as_str() {
            Some(text) => {
                let text = Located { span: value.span(), value: text.to_owned() };
                no_nul(&text, "env", problems);
                variables.insert(name.value.to_owned(), text.value);
            }
            None => {
                wrong_type::<()>(problems, value.span(), name.value, "a string", value.get_ref());
            }
        }
    }
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if variables.len() > ENV_MOST || bytes > ARGUMENT_BYTES {
        let message = format!("`env` has at most {ENV_MOST} variables and {ARGUMENT_BYTES} bytes");
        problems.add(table.span(), message);
    }
    variables
}

/// `"never"`, or `{ attempts = 3 }`.
fn retry(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Retry {
    let form = "`retry` is \"never\" or { attempts = 3 }, where a second run does no harm";
    let Some(value) = fields.take("retry") else { return Retry::Never };
    match value.get_ref() {
        DeValue::String(text) if text == "never" => Retry::Never,
        DeValue::Table(table) => {
            let mut fields = Fields::new("retry", value.span(), table);
            let attempts = fields.take("attempts").and_then(|attempts| integer(attempts.get_ref()));
            fields.finish(problems);
            match attempts.and_then(|attempts| u32::try_from(attempts).ok()) {
                Some(attempts) if (2..=ATTEMPTS_MOST).contains(&attempts) => Retry::Attempts(attempts),
                Some(_) | None => {
                    problems.add(value.span(), format!("`attempts` lies between 2 and {ATTEMPTS_MOST}"));
                    Retry::Never
                }
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {
            problems.add(value.span(), form);
            Retry::Never
        }
    }
}

fn if_fails(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> FailurePolicy {
    let Some(given) = fields.string("if_fails", problems) else { return FailurePolicy::Return };
    match given.value.as_str() {
        "return" => FailurePolicy::Return,
        "stop" => FailurePolicy::Stop,
        "continue" => FailurePolicy::Continue,
        other => {
            let help = did_you_mean(other, ["return", "stop", "continue"]);
            problems.add_with_help(given.span, "`if_fails` is \"return\", \"stop\" or \"continue\"", help);
            FailurePolicy::Return
        }
    }
}

fn phases(fields: &mut Fields<'_, '_>, problems: &mut Problems) -> Option<Vec<Phase>> {
    let given = fields.strings("on", problems)?;
    let mut phases = Vec::new();
    for item in &given.value {
        match item.value.as_str() {
            "deploy" => phases.push(Phase::Deploy),
            "return" => phases.push(Phase::Return),
            other => {
                let help = did_you_mean(other, ["deploy", "return"]);
                problems.add_with_help(item.span.clone(), "`on` lists \"deploy\" and \"return\"", help);
            }
        }
    }
    let listed = phases.len();
    phases.sort_unstable();
    phases.dedup();
    if phases.is_empty() || phases.len() != listed {
        problems.add(given.span, "`on` lists one phase or both, each once");
    }
    Some(phases)
}

fn no_nul(text: &Located<String>, key: &str, problems: &mut Problems) {
    if text.value.contains('\0') {
        problems
            .add(text.span.clone(), format!("`{key}` contains a NUL byte, which no program can be given"));
    }
}
