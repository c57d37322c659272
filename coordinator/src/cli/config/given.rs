//! Values as people give them: `NAME=VALUE`, a TOML file, and for secrets what no other user of the machine can read.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use age::secrecy::ExposeSecret as _;
use consign_common::{
    limits::{SECRET_BYTES, VALUES_BYTES},
    name::StepName,
    plan::{Param, ParamType, Plan},
    sealing::{Salt, Secret},
    trust::ConfigValue,
};

use crate::cli::{
    failure::{Doing, Failure, Result},
    profile::read,
    signer::ask,
};

/// `NAME=VALUE`. Neither `Debug` nor an error shows the value: it may be a secret that somebody gave this way.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    name: StepName,
    value: String,
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=...", self.name)
    }
}

impl FromStr for Assignment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
        let name = name.parse::<StepName>().map_err(|error| error.to_string())?;
        Ok(Self { name, value: value.to_owned() })
    }
}

/// `NAME`, or `NAME=@FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretSource {
    pub(super) name: StepName,
    file: Option<PathBuf>,
}

impl SecretSource {
    /// From the terminal or stdin.
    pub(super) fn asked(name: StepName) -> Self {
        Self { name, file: None }
    }
}

impl FromStr for SecretSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "give NAME, which is then asked for or read from stdin, or NAME=@FILE; never the value itself, \
                            which every user of this machine could read";
        let name = |name: &str| name.parse::<StepName>().map_err(|error| error.to_string());
        match text.split_once('=') {
            None => Ok(Self { name: name(text)?, file: None }),
            Some((given, file)) => match file.strip_prefix('@') {
                Some(file) if !file.is_empty() => Ok(Self { name: name(given)?, file: Some(file.into()) }),
                Some(_) | None => Err(RULE.to_owned()),
            },
        }
    }
}

/// Plain values of the command line and of a file, each of its parameter's type.
pub(super) fn plain(
    assignments: &[Assignment],
    file: Option<&Path>,
    plan: &Plan,
) -> Result<BTreeMap<StepName, ConfigValue>> {
    let mut values = match file {
        Some(file) => from_file(file, plan)?,
        None => BTreeMap::new(),
    };
    for Assignment { name, value } in assignments {
        let param = plain_param(plan, name)?;
        let parsed = match param.kind {
            ParamType::String => Some(ConfigValue::String(value.clone())),
            ParamType::Int => value.parse().ok().map(ConfigValue::Int),
            ParamType::Bool => value.parse().ok().map(ConfigValue::Bool),
        };
        let parsed = parsed.ok_or_else(|| {
            Failure::usage(format!("{name} is of type {}, and {value:?} is not", param.kind.as_str()))
        })?;
        values.insert(name.clone(), parsed);
    }
    Ok(values)
}

fn from_file(path: &Path, plan: &Plan) -> Result<BTreeMap<StepName, ConfigValue>> {
    let text = String::from_utf8(read(path, VALUES_BYTES as u64)?)
        .map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        // What it quotes may be a secret that stands where none belongs.
        let line =
            error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").matches('\n').count() + 1);
        Failure::usage(format!("{}, line {line}: not TOML: {}", path.display(), error.message()))
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let name: StepName = name.parse().at("read", path)?;
        let param = plain_param(plan, &name)?;
        let value = match value {
            toml::Value::String(text) => ConfigValue::String(text),
            toml::Value::Integer(number) => ConfigValue::Int(number),
            toml::Value::Boolean(flag) => ConfigValue::Bool(flag),
            toml::Value::Float(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => {
                let kind = param.kind.as_str();
                return Err(Failure::usage(format!("{}: {name} is of type {kind}", path.display())));
            }
        };
        values.insert(name, value);
    }
    Ok(values)
}

pub(super) fn param<'a>(plan: &'a Plan, name: &StepName) -> Result<&'a Param> {
    plan.params.get(name).ok_or_else(|| {
        let known: Vec<&str> = plan.params.keys().map(StepName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Failure::usage(format!("the plan of {} declares no parameter {name}", plan.app))
            .next(format!("it declares {known}; another version's plan is read with --for VERSION"))
    })
}

fn plain_param<'a>(plan: &'a Plan, name: &StepName) -> Result<&'a Param> {
    let param = param(plan, name)?;
    if param.secret {
        return Err(Failure::usage(format!(
            "{name} is secret: a value in an argument list can be read by every user of this machine and stays in the \
             shell's history; take it for known, and choose another one"
        ))
        .next(format!(
            "--secret {name} asks for it, or reads it from stdin; --secret {name}=@FILE reads a file"
        )));
    }
    Ok(param)
}

/// Secrets, with the salt that each is to have. What is not a value of its parameter is refused without being repeated.
pub(super) fn secrets(
    sources: &[SecretSource],
    plan: &Plan,
    salt: impl Fn(&StepName) -> Result<Salt>,
) -> Result<BTreeMap<StepName, Secret>> {
    let mut secrets = BTreeMap::new();
    let from_stdin = sources.iter().filter(|source| source.file.is_none()).count();
    if from_stdin > 1 && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("only one secret can be read from stdin")
            .next("give the others as --secret NAME=@FILE"));
    }
    for source in sources {
        let name = &source.name;
        let param = param(plan, name)?;
        if !param.secret {
            return Err(
                Failure::usage(format!("{name} is not secret")).next(format!("give it as {name}=VALUE"))
            );
        }
        let value = match &source.file {
            Some(path) => text(read(path, SECRET_BYTES as u64 + 2)?, &path.display().to_string())?,
            None if std::io::stdin().is_terminal() => typed(name)?,
            None => {
                let mut bytes = Vec::new();
                let most = SECRET_BYTES as u64 + 3;
                std::io::stdin()
                    .take(most)
                    .read_to_end(&mut bytes)
                    .doing(|| "failed to read stdin".into())?;
                text(bytes, "stdin")?
            }
        };
        let secret = Secret::new(salt(name)?, value);
        secret.check(param).map_err(|error| Failure::usage(format!("the value of {name}: {error}")))?;
        if secrets.insert(name.clone(), secret).is_some() {
            return Err(Failure::usage(format!("{name} is given twice")));
        }
    }
    Ok(secrets)
}

/// Without the newline that editors and `echo` put at the end: no password has one, and steps would stumble over it.
fn text(bytes: Vec<u8>, from: &str) -> Result<String> {
    let mut text =
        String::from_utf8(bytes).map_err(|_| Failure::usage(format!("what {from} has is not UTF-8")))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Twice, since nobody sees what was typed.
fn typed(name: &StepName) -> Result<String> {
    let without = || {
        Failure::usage(format!("there is no terminal to ask for {name}"))
            .next(format!("give --secret {name}=@FILE, or the value on stdin"))
    };
    let first = ask(&format!("{name}: "), without)?;
    let second = ask("the same again: ", without)?;
    if first.expose_secret() != second.expose_secret() {
        return Err(Failure::new("the two values differ").next("nothing was sent; try again"));
    }
    Ok(first.expose_secret().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = "app = \"shop\"\n[params.workers]\ntype = \"int\"\ndefault = 4\n[params.debug]\ntype = \"bool\"\n\
                    default = false\n[params.mode]\ntype = \"string\"\n[params.token]\ntype = \"string\"\nsecret = true\n\
                    [[step]]\nname = \"a\"\nactivate = true\n";
        Plan::parse(text, "consign.toml").unwrap()
    }

    fn assign(text: &str) -> Result<BTreeMap<StepName, ConfigValue>> {
        plain(&[text.parse().unwrap()], None, &plan())
    }

    #[test]
    fn a_value_gets_its_parameters_type() {
        let one = |text: &str| assign(text).unwrap().into_values().next().unwrap();
        assert_eq!(one("workers=8"), ConfigValue::Int(8));
        assert_eq!(one("debug=true"), ConfigValue::Bool(true));
        assert_eq!(one("mode=8=9"), ConfigValue::String("8=9".into()));
        for bad in ["workers=x", "debug=yes", "colour=red"] {
            assert_eq!(assign(bad).unwrap_err().exit.code(), 2, "{bad}");
        }
        assert!(assign("colour=red").unwrap_err().next.unwrap().contains("workers"));
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
        let failure = assign("token=hunter2hunter2").unwrap_err();
        let told = failure.to_string();
        assert!(told.contains("--secret token=@FILE") && !told.contains("hunter2"), "{told}");
        let failure = "token=hunter2hunter2".parse::<SecretSource>().unwrap_err();
        assert!(failure.contains("NAME=@FILE") && !failure.contains("hunter2"), "{failure}");
        assert!(!format!("{:?}", "token=hunter2".parse::<Assignment>()).contains("hunter2"));
    }

    #[test]
    fn a_file_has_plain_values_and_no_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("values.toml");
        std::fs::write(&path, "workers = 8\nmode = \"fast\"\n").unwrap();
        let values = plain(&["workers=9".parse().unwrap()], Some(&path), &plan()).unwrap();
        assert_eq!(values.len(), 2);
        assert_eq!(values.get("workers"), Some(&ConfigValue::Int(9)), "what is typed counts more");
        for (text, why) in
            [("token = \"hunter2hunter2\"", "secret"), ("workers = 1.5", "type int"), ("x", "line 1")]
        {
            std::fs::write(&path, text).unwrap();
            let told = plain(&[], Some(&path), &plan()).unwrap_err().to_string();
            assert!(told.contains(why) && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_secret_is_read_from_a_file_without_its_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source: SecretSource = format!("token=@{}", path.display()).parse().unwrap();
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            secrets(std::slice::from_ref(&source), &plan(), |_| Ok(Salt::random().unwrap()))
        };
        for content in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert_eq!(read(content).unwrap().get("token").unwrap().value(), "correct horse");
        }
        assert_eq!(read("two\nlines\n\n").unwrap().get("token").unwrap().value(), "two\nlines\n");
        let told = read("12345").unwrap_err().to_string();
        assert!(told.contains("fewer than 6") && !told.contains("12345"), "{told}");
        let workers = SecretSource { name: "workers".parse().unwrap(), file: Some(path) };
        assert!(secrets(&[workers], &plan(), |_| Ok(Salt::random().unwrap())).is_err());
    }
}
