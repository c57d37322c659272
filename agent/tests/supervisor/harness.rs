//! A deployment's directory with a supervisor, and what tests ask of it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use consign_agent::supervisor::{
    AttemptIdentity, AttemptSpec, DEFAULT_LOG_LIMIT, ExitRecord, Launcher, Run, Supervisor,
};
use consign_common::deployment::{
    Attempt, StepOutcome,
    log::{Decoder, Record, Stream},
};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Deployment {
    root: tempfile::TempDir,
    pub(crate) directory: PathBuf,
    pub(crate) supervisor: Supervisor,
}

pub(crate) fn launcher() -> Launcher {
    Launcher::Session { program: env!("CARGO_BIN_EXE_consign-agent").into() }
}

impl Deployment {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let parent = root.path().join("a-directory-with-a-long-name".repeat(5));
        Self::start_in(root, &parent).await
    }

    pub(crate) async fn start_in(root: tempfile::TempDir, parent: &Path) -> Self {
        let id: String =
            root.path().to_string_lossy().bytes().rev().map(|byte| format!("{byte:02x}")).collect();
        let directory = parent.join(format!("{:0<32.32}", id));
        fs::create_dir_all(&directory).unwrap();
        let supervisor = Supervisor::start(&directory, &launcher()).await.unwrap();
        Self { root, directory, supervisor }
    }

    /// A place for the files of the test's programs.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn shell(&self, script: &str) -> AttemptSpec {
        self.program(&["/bin/sh", "-c", script])
    }

    pub(crate) fn program(&self, argv: &[&str]) -> AttemptSpec {
        AttemptSpec {
            attempt: "deploy-0-1".parse().unwrap(),
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())]),
            cwd: self.root.path().to_owned(),
            user: None,
            timeout_ms: 60_000,
            grace_ms: 10_000,
            tty: false,
            leaves: false,
            secrets: Vec::new(),
            files: Default::default(),
            log_limit: DEFAULT_LOG_LIMIT,
        }
    }

    /// Creates and releases.
    pub(crate) async fn begin(&self, spec: &AttemptSpec) -> AttemptIdentity {
        let Run::Spawned(identity) = self.supervisor.run(spec).await.unwrap() else {
            panic!("{} has ended already", spec.attempt)
        };
        self.supervisor.release(spec.attempt).await.unwrap();
        identity
    }

    /// From nothing to its end.
    pub(crate) async fn execute(&self, spec: &AttemptSpec) -> ExitRecord {
        self.begin(spec).await;
        let record = self.end(spec.attempt).await;
        let on_disk = ExitRecord::read(&self.directory, spec.attempt).unwrap();
        assert_eq!(on_disk.as_ref(), Some(&record), "the record on disk is the one that was told");
        record
    }

    pub(crate) async fn end(&self, attempt: Attempt) -> ExitRecord {
        tokio::time::timeout(PATIENCE * 4, self.supervisor.wait(attempt))
            .await
            .expect("it never ends")
            .unwrap()
    }

    pub(crate) async fn outcome(&self, script: &str) -> StepOutcome {
        self.execute(&self.shell(script)).await.result
    }

    pub(crate) fn log_bytes(&self, attempt: Attempt) -> Vec<u8> {
        fs::read(self.directory.join(format!("{attempt}.log"))).unwrap()
    }

    pub(crate) fn records(&self, attempt: Attempt) -> Vec<Record> {
        let mut decoder = Decoder::default();
        decoder.push(&self.log_bytes(attempt));
        let mut records = Vec::new();
        while let Some(record) = decoder.next_record().unwrap() {
            records.push(record);
        }
        records
    }

    pub(crate) fn said(&self, attempt: Attempt, stream: Stream) -> String {
        let records = self.records(attempt);
        let bytes =
            records.iter().filter(|record| record.stream == stream).flat_map(|record| record.data.clone());
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }

    /// The supervisor's pid: the parent of an attempt's process.
    pub(crate) fn supervisor_pid(&self, identity: &AttemptIdentity) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", pid(identity))).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        parent.trim().parse().unwrap()
    }
}

impl Drop for Deployment {
    /// Whatever a failed test left is ended by its mark, and the supervisor by its directory.
    fn drop(&mut self) {
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in pids {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("supervise") && line.contains(self.directory.to_str().unwrap()) {
                kill(pid);
            }
        }
        // A process that executes its program just now shows no environment: it is looked for twice.
        for _ in 0..2 {
            for pid in marked(&self.directory) {
                kill(pid);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let name =
                format!("consign-deployment-{}", self.directory.file_name().unwrap().to_str().unwrap());
            remove_cgroup(&Path::new(root).join(name));
        }
    }
}

/// The cgroups that a killed supervisor left, with all in them; what was killed takes a moment to leave them.
fn remove_cgroup(path: &Path) {
    drop(
        fs::OpenOptions::new()
            .write(true)
            .open(path.join("cgroup.kill"))
            .and_then(|mut kill| kill.write_all(b"1")),
    );
    for _ in 0..200 {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                drop(fs::remove_dir(entry.path()));
            }
        }
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The living processes of a deployment, by the mark in their environment.
pub(crate) fn marked(directory: &Path) -> Vec<u32> {
    let mark = format!("CONSIGN_ATTEMPT={}/", directory.file_name().unwrap().to_str().unwrap());
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
    })
    .filter(|pid| is_alive(*pid))
    .collect()
}

pub(crate) fn pid(identity: &AttemptIdentity) -> u32 {
    identity.process.as_ref().unwrap().pid
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

pub(crate) fn kill(pid: u32) {
    let _ = Pid::from_raw(i32::try_from(pid).unwrap()).map(|pid| kill_process(pid, Signal::KILL));
}

/// Waits until it is so; fails after a time that is far too long.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The number that a program wrote into a file, once it has.
pub(crate) async fn number_in(path: &Path) -> u32 {
    let read = || fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'));
    until(&format!("{} is written", path.display()), || read().is_some()).await;
    read().unwrap().trim().parse().unwrap()
}
