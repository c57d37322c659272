//! Somebody who types `consign` commands.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::binary;
use crate::wait::until;

#[derive(Clone, Debug)]
pub struct Operator {
    home: PathBuf,
    address: Option<String>,
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Operator {
    /// `consign init`
    pub fn init(home: &Path, apps: &[&str], environments: &[&str]) -> Self {
        let operator = Self { home: home.into(), address: None };
        let mut arguments = vec!["init", "--advertise", "127.0.0.1"];
        arguments.extend(apps.iter().flat_map(|app| ["--app", app]));
        arguments.extend(environments.iter().flat_map(|environment| ["--env", environment]));
        operator.ok(&arguments);
        operator
    }

    /// Somebody with a home, or the place for one, and nothing in it yet.
    pub fn of_home(home: &Path) -> Self {
        Self { home: home.into(), address: None }
    }

    /// From now on against the coordinator at this address.
    pub fn at(&mut self, address: &str) {
        self.address = Some(address.into());
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("consign"));
        command.args(arguments).env("CONSIGN_HOME", &self.home).env("NO_COLOR", "1").stdin(Stdio::null());
        if let Some(address) = &self.address {
            command.env("CONSIGN_ADDRESS", address);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "consign {arguments:?}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs a command that must succeed, with `--output json`.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
        let text = self.ok(&arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("consign {arguments:?}: {error}\n{text}"))
    }

    /// Waits until the coordinator calls the server online.
    pub fn wait_online(&self, server: &str) {
        until("the server is online", Duration::from_secs(120), || {
            let shown = self.json(&["server", "show", server]);
            if shown["online"] == true { Ok(()) } else { Err(shown) }
        });
    }

    /// A command in the background, its output to be read by the caller.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}
