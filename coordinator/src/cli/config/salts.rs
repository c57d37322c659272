//! The salts of secrets that were set on this machine. With one, a value that is given again is known for the one that
//! was signed, and can be sealed to a server that came later; without it, only a new config could.

use std::{collections::BTreeMap, path::PathBuf};

use consign_common::{
    digest::Sha256,
    durable, json,
    name::{App, Environment, StepName},
    sealing::{Salt, Secret},
};
use serde::{Deserialize, Serialize};

use crate::cli::{
    failure::{Doing, Failure, Result},
    profile::{Home, read},
};

const FORMAT: &str = "consign-salts-v1";
const FILE_BYTES: usize = 1 << 20;
/// Of the newest commitments that were made here.
const KEPT: usize = 500;

/// By app and environment one file of mode 0600: whoever has a salt can try values against its commitment.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    /// Oldest first.
    salts: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: StepName,
    commitment: Sha256,
    salt: String,
}

pub(super) fn find(
    home: &Home,
    app: &App,
    environment: &Environment,
    commitment: Sha256,
) -> Result<Option<Salt>> {
    let file = load(home, app, environment)?;
    let entry = file.salts.iter().rev().find(|entry| entry.commitment == commitment);
    Ok(entry.and_then(|entry| Salt::from_base64(&entry.salt)))
}

pub(super) fn remember(
    home: &Home,
    app: &App,
    environment: &Environment,
    secrets: &BTreeMap<StepName, Secret>,
) -> Result<()> {
    if secrets.is_empty() {
        return Ok(());
    }
    let mut file = load(home, app, environment)?;
    file.salts.extend(secrets.iter().map(|(name, secret)| Entry {
        name: name.clone(),
        commitment: secret.commitment().commitment,
        salt: secret.salt().to_base64(),
    }));
    let over = file.salts.len().saturating_sub(KEPT);
    file.salts.drain(..over);
    let (path, directory) = (path(home, app, environment), directory(home));
    if !directory.exists() {
        durable::create_dir(&directory, 0o700).at("make", &directory)?;
    }
    durable::replace_file(&path, &json::to_vec(&file), 0o600).at("write", &path)
}

fn load(home: &Home, app: &App, environment: &Environment) -> Result<File> {
    let path = path(home, app, environment);
    if !path.exists() {
        return Ok(File { format: FORMAT.to_owned(), salts: Vec::new() });
    }
    let file: File = json::from_slice(&read(&path, FILE_BYTES as u64)?, FILE_BYTES).at("read", &path)?;
    if file.format != FORMAT {
        return Err(Failure::new(format!("{} is no {FORMAT}", path.display())));
    }
    Ok(file)
}

fn directory(home: &Home) -> PathBuf {
    home.root().join("salts")
}

fn path(home: &Home, app: &App, environment: &Environment) -> PathBuf {
    directory(home).join(format!("{app}@{environment}.json"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_salt_is_found_by_its_commitment_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned());
        let (app, environment): (App, Environment) = ("shop".parse().unwrap(), "staging".parse().unwrap());
        let secret = Secret::new(Salt::random().unwrap(), "correct horse".into());
        let commitment = secret.commitment().commitment;
        assert_eq!(find(&home, &app, &environment, commitment).unwrap(), None);
        remember(&home, &app, &environment, &BTreeMap::from([("token".parse().unwrap(), secret.clone())]))
            .unwrap();
        assert_eq!(find(&home, &app, &environment, commitment).unwrap(), Some(secret.salt()));
        let path = path(&home, &app, &environment);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(path).unwrap().contains("horse"));
        let many = (0..KEPT).map(|number| {
            let other = Secret::new(Salt::random().unwrap(), "another value".into());
            (format!("t{number}").parse().unwrap(), other)
        });
        remember(&home, &app, &environment, &many.collect()).unwrap();
        assert_eq!(find(&home, &app, &environment, commitment).unwrap(), None, "the oldest goes");
    }
}
