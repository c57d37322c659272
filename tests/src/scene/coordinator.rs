//! `consign serve` as a process that can be killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Operator, binary};
use crate::wait::until;

#[derive(Debug)]
pub struct Coordinator {
    state: PathBuf,
    bundle: PathBuf,
    advertise: String,
    /// `HOST:PORT`; the port is chosen at the first start and kept.
    pub address: String,
    pub enrolment: String,
    process: Option<Child>,
}

impl Coordinator {
    /// Starts `consign serve` on the address `ip`, with the operator's bundle.
    pub fn start(directory: &Path, operator: &mut Operator, ip: &str) -> Self {
        let mut coordinator = Self {
            state: directory.join("coordinator"),
            bundle: operator.home().join("coordinator.bundle"),
            advertise: ip.into(),
            address: format!("{ip}:0"),
            enrolment: format!("{ip}:0"),
            process: None,
        };
        coordinator.launch();
        operator.at(&coordinator.address);
        coordinator
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// kill -9
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Copies its state, as a person does who backs it up: it must not run.
    pub fn back_up(&self, to: &Path) {
        assert!(self.process.is_none(), "the files belong together only while nothing writes to them");
        copy(&self.state, to);
    }

    /// Puts a copy in its place: it must not run.
    pub fn restore(&self, from: &Path) {
        assert!(self.process.is_none(), "it would go on with what it has open");
        fs::remove_dir_all(&self.state).unwrap();
        copy(from, &self.state);
    }

    /// Whether it was killed, or ended by itself.
    pub fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| matches!(process.try_wait(), Ok(Some(_))))
    }

    /// Starts it again where it was, with something changed, its environment mostly; does not wait until it listens.
    pub fn launch_with(&mut self, change: impl FnOnce(&mut Command)) {
        drop(fs::remove_file(self.state.join("addresses.json")));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.state.with_file_name("coordinator.log"))
            .unwrap();
        let mut command = Command::new(binary("consign"));
        command
            .args(["serve", "--listen", &self.address, "--enrolment-listen", &self.enrolment])
            .args(["--advertise", &self.advertise])
            .arg("--state")
            .arg(&self.state)
            .arg("--bundle")
            .arg(&self.bundle)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        change(&mut command);
        // From here on it is ended with the scene, whatever fails.
        self.process = Some(command.spawn().unwrap());
    }

    /// Starts it again where it was.
    pub fn launch(&mut self) {
        self.launch_with(|_| {});
        let addresses = self.state.join("addresses.json");
        let process = self.process.as_mut().unwrap();
        let found = until("the coordinator listens", Duration::from_secs(30), || {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("consign serve ended: {status}");
            }
            let text = fs::read_to_string(&addresses).map_err(|error| error.to_string())?;
            serde_json::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string())
        });
        self.address = found["address"].as_str().unwrap().into();
        self.enrolment = found["enrolment_address"].as_str().unwrap().into();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.state.with_file_name("coordinator.log")).unwrap_or_default()
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(6000);
            eprintln!("---- the coordinator's log\n{}", log.get(start..).unwrap_or(&log));
        }
    }
}
