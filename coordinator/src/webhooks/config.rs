//! The file that `consign serve --webhooks` takes.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use consign_common::{
    document::{DocumentError, Fields, Located, Problems, wrong_type},
    name::{App, Environment, ServerName},
};
use http::Uri;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use ureq::tls::{PemItem, parse_pem};

use super::{EventKind, Secret};

const FILE_BYTES: usize = 64 << 10;
const SECRET_BYTES: u64 = 4 << 10;
const CA_BYTES: u64 = 1 << 20;
const WEBHOOKS: usize = 50;
const URL_BYTES: usize = 2000;

/// Somebody who is told.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// As in a command: `consign webhook test NAME`.
    pub name: String,
    pub url: String,
    /// One, or while it is exchanged the new one and the old one: each message is signed with all.
    pub secrets: Vec<Secret>,
    /// PEM: whose certificates are believed, instead of those whom the machine believes.
    pub authorities: Option<Vec<u8>>,
    pub wanted: Wanted,
}

/// What it is told of. What is empty keeps nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    pub events: BTreeSet<String>,
    pub apps: BTreeSet<String>,
    pub environments: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {why}")]
    Secret { path: PathBuf, why: String },
}

impl Webhook {
    /// For people: an address may itself be a secret beyond its host.
    pub fn place(&self) -> String {
        self.url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
    }
}

/// With the secrets that it names.
pub fn read(path: &Path) -> Result<Vec<Webhook>, WebhookError> {
    let io = |source| WebhookError::Io { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(io)?;
    let written = parse(&text, &path.display().to_string())?;
    let base = path.parent().unwrap_or(Path::new("."));
    let webhook = |written: Written| {
        let mut secrets = vec![secret(&base.join(&written.secret_file))?];
        if let Some(old) = &written.old_secret_file {
            secrets.push(secret(&base.join(old))?);
        }
        let authorities = written.ca_file.as_ref().map(|file| authorities(&base.join(file))).transpose()?;
        Ok(Webhook { name: written.name, url: written.url, secrets, authorities, wanted: written.wanted })
    };
    written.into_iter().map(webhook).collect()
}

/// At least one certificate, and nothing that is none.
fn authorities(path: &Path) -> Result<Vec<u8>, WebhookError> {
    let file = fs::File::open(path).map_err(|source| WebhookError::Io { path: path.to_owned(), source })?;
    let mut pem = Vec::new();
    file.take(CA_BYTES)
        .read_to_end(&mut pem)
        .map_err(|source| WebhookError::Io { path: path.to_owned(), source })?;
    let (mut certificates, mut others) = (0, 0);
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(_)) => certificates += 1,
            Ok(_) | Err(_) => others += 1,
        }
    }
    if certificates == 0 || others > 0 {
        let why = "it does not hold certificates in PEM, and nothing else".to_owned();
        return Err(WebhookError::Secret { path: path.to_owned(), why });
    }
    Ok(pem)
}

/// Nobody but its owner, and his group perhaps, may read it.
fn secret(path: &Path) -> Result<Secret, WebhookError> {
    let io = |source| WebhookError::Io { path: path.to_owned(), source };
    let refused = |why: String| WebhookError::Secret { path: path.to_owned(), why };
    let mut file = fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(refused("everybody may read it: chmod o= it, and make another secret".to_owned()));
    }
    let mut text = Vec::new();
    file.by_ref().take(SECRET_BYTES).read_to_end(&mut text).map_err(io)?;
    Secret::parse(&text).map_err(refused)
}

/// A webhook as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub name: String,
    pub url: String,
    pub secret_file: PathBuf,
    /// Of the secret before, while receivers change to the new one.
    pub old_secret_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub wanted: Wanted,
}

/// `file` is its name, for messages.
pub fn parse(text: &str, file: &str) -> Result<Vec<Written>, DocumentError> {
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
    let mut fields = Fields::new("the file of webhooks", 0..0, document.get_ref());
    let mut all: Vec<Written> = Vec::new();
    match fields.take("webhook").map(|value| (value.span(), value.get_ref())) {
        None => problems.add(0..0, "there is no `[[webhook]]`"),
        Some((span, DeValue::Array(tables))) => {
            if tables.len() > WEBHOOKS {
                problems.add(span, format!("more than {WEBHOOKS} webhooks"));
            }
            for table in tables.iter() {
                let Some(own) = table.get_ref().as_table() else {
                    wrong_type::<()>(&mut problems, table.span(), "webhook", "[[webhook]]", table.get_ref());
                    continue;
                };
                let place = table.span();
                let Some(webhook) = webhook(Fields::new("a webhook", place.clone(), own), &mut problems)
                else {
                    continue;
                };
                if all.iter().any(|other| other.name == webhook.name) {
                    problems.add(place, format!("there are two webhooks {:?}", webhook.name));
                }
                all.push(webhook);
            }
        }
        Some((span, other)) => {
            wrong_type::<()>(&mut problems, span, "webhook", "[[webhook]]", other);
        }
    }
    fields.finish(&mut problems);
    problems.finish(Some(all))
}

fn webhook(mut fields: Fields<'_, '_>, problems: &mut Problems) -> Option<Written> {
    let mut required = |key: &'static str, problems: &mut Problems| {
        let text = fields.string(key, problems);
        if text.is_none() {
            fields.missing(key, problems);
        }
        text
    };
    let name = required("name", problems);
    let url = required("url", problems);
    let secret_file = required("secret_file", problems);
    let old_secret_file = fields.string("old_secret_file", problems).map(|file| file.value.into());
    let ca_file = fields.string("ca_file", problems).map(|file| file.value.into());
    let wanted = Wanted {
        events: names(&mut fields, "events", problems, |text| text.parse::<EventKind>().map(|_| ())),
        apps: names(&mut fields, "apps", problems, check::<App>),
        environments: names(&mut fields, "environments", problems, check::<Environment>),
    };
    fields.finish(problems);
    let (name, url, secret_file) = (name?, url?, secret_file?);
    if let Err(why) = check::<ServerName>(&name.value) {
        problems.add(name.span, format!("a webhook is named like a server: {why}"));
    }
    if let Err(why) = check_url(&url.value) {
        problems.add(url.span, why);
    }
    let (name, url, secret_file) = (name.value, url.value, secret_file.value.into());
    Some(Written { name, url, secret_file, old_secret_file, ca_file, wanted })
}

fn names(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    problems: &mut Problems,
    check: impl Fn(&str) -> Result<(), String>,
) -> BTreeSet<String> {
    let Some(Located { value, .. }) = fields.strings(key, problems) else { return BTreeSet::new() };
    let mut names = BTreeSet::new();
    for Located { span, value } in value {
        match check(&value) {
            Ok(()) => drop(names.insert(value)),
            Err(why) => problems.add(span, why),
        }
    }
    names
}

fn check<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(|_| ()).map_err(|error| error.to_string())
}

fn check_url(url: &str) -> Result<(), String> {
    let rule =
        "an address is written https://hooks.example.com/path, or http:// within your own network".to_owned();
    let uri: Uri = url.parse().map_err(|_| rule.clone())?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.authority().is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'));
    if plain && host && url.len() <= URL_BYTES { Ok(()) } else { Err(rule) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_is_told_of_what() {
        let text = r#"
[[webhook]]
name = "chat"
url = "https://hooks.example.com/consign?token=x"
secret_file = "chat.secret"
events = ["rollout.ended", "gate.waiting"]
environments = ["production"]

[[webhook]]
name = "all"
url = "http://10.0.0.1:8080/"
secret_file = "/etc/consign/all.secret"
"#;
        let all = parse(text, "w.toml").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].wanted.events.len(), 2);
        assert!(all[0].wanted.apps.is_empty());
        assert_eq!(all[1].wanted, Wanted::default());
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let text = r#"
[[webhook]]
name = "two words"
url = "ftp://hooks.example.com"
secret_file = "s"
events = ["rollout.begun"]
apps = ["../x"]
color = "red"

[[webhook]]
url = "https://x/"
"#;
        let error = parse(text, "w.toml").unwrap_err().to_string();
        for word in [
            "named like a server",
            "an address is written",
            "rollout.started",
            "color",
            "no `name`",
            "no `secret_file`",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(parse("", "w.toml").unwrap_err().to_string().contains("[[webhook]]"));
    }

    #[test]
    fn a_secret_that_everybody_may_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("w.toml");
        let secret = dir.path().join("s");
        fs::write(
            &file,
            "[[webhook]]\nname = \"a\"\nurl = \"https://hooks.example.com/x\"\nsecret_file = \"s\"\n",
        )
        .unwrap();
        fs::write(&secret, "correct horse battery staple\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("everybody"));
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        let all = read(&file).unwrap();
        assert_eq!((all[0].name.as_str(), all[0].place().as_str()), ("a", "hooks.example.com"));
    }
}
