//! An agent as a process of the test's own user, that can be killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Operator, binary};

#[derive(Debug)]
pub struct Agent {
    pub name: String,
    directory: PathBuf,
    process: Option<Child>,
}

impl Agent {
    /// Enrols a server with a token of this operator's, and starts its agent. `word` is what its root allows, as options of
    /// `consign-agent enroll`.
    pub fn start(
        directory: &Path,
        operator: &Operator,
        name: &str,
        environment: &str,
        word: &[&str],
    ) -> Self {
        let mut agent = Self { name: name.into(), directory: directory.join(name), process: None };
        fs::create_dir_all(agent.directory.join("apps")).unwrap();
        let token = operator.ok(&["server", "token", "--name", name, "--env", environment]);
        agent.enroll(&token, word);
        agent.launch();
        operator.wait_online(name);
        agent
    }

    /// One that is enrolled otherwise, or not at all: its directories, and nothing runs yet.
    pub fn prepared(directory: &Path, name: &str) -> Self {
        let agent = Self { name: name.into(), directory: directory.join(name), process: None };
        fs::create_dir_all(agent.apps()).unwrap();
        agent
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    /// `word`: options of `consign-agent enroll`.
    pub fn enroll(&self, token: &str, word: &[&str]) {
        let output = self.command(&["enroll", token.trim(), "--yes"]).args(word).output().unwrap();
        assert!(
            output.status.success(),
            "enroll: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A copy of this server's whole disk, as far as it is the agent's: nothing runs on it yet.
    pub fn copied(&self, name: &str) -> Self {
        assert!(self.process.is_none(), "a disk is copied while nothing writes to it");
        let directory = self.directory.with_file_name(name);
        let copied = Command::new("cp").arg("-a").args([&self.directory, &directory]).status().unwrap();
        assert!(copied.success());
        Self { name: name.into(), directory, process: None }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("consign-agent"));
        command
            .args(arguments)
            .arg("--state")
            .arg(self.state())
            .arg("--apps")
            .arg(self.apps())
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null());
        command
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub fn apps(&self) -> PathBuf {
        self.directory.join("apps")
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// kill -9. Its supervisors stay.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Whether it was killed, or ended by itself.
    pub fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| matches!(process.try_wait(), Ok(Some(_))))
    }

    pub fn launch(&mut self) {
        self.launch_with(|_| {});
    }

    /// Starts it with something changed: its environment, mostly.
    pub fn launch_with(&mut self, change: impl FnOnce(&mut Command)) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        change(&mut command);
        self.process = Some(command.spawn().unwrap());
    }

    /// The processes of this agent's supervisors.
    pub fn supervisors(&self) -> Vec<u32> {
        let state = self.state().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(" supervise ") && command.contains(&state) {
                found.push(pid);
            }
        }
        found
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        for pid in self.supervisors() {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).output());
        }
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(4000);
            eprintln!("---- the log of {}\n{}", self.name, log.get(start..).unwrap_or(&log));
        }
    }
}
