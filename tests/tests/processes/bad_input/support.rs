//! What the bad-input tests look at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use consign_tests::scene::{Agent, Ran};

/// What a command said, for a message.
pub(crate) fn words(ran: &Ran) -> String {
    format!("exit code {}\n{}{}", ran.code, ran.stdout, ran.stderr)
}

/// A command ended with this code and said all of these.
#[track_caller]
pub(crate) fn assert_says(ran: &Ran, code: i32, parts: &[&str]) {
    let words = words(ran);
    assert_eq!(ran.code, code, "{words}");
    for part in parts {
        assert!(words.contains(part), "{part:?} is missing\n{words}");
    }
}

pub(crate) fn output_of(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The names in a directory; none where there is no directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// `app` on this server is this version and nothing else: one release, which `current` names, and no pack or staged
/// file beside it. With no version: nothing at all.
#[track_caller]
pub(crate) fn assert_runs(agent: &Agent, version: Option<&str>) {
    let app = agent.apps().join("app");
    let releases = names(&app.join("releases"));
    match version {
        Some(version) => {
            let current = fs::read_link(app.join("current")).unwrap();
            assert!(current.to_string_lossy().contains(version), "{current:?}");
            assert!(releases.len() == 1 && releases[0].starts_with(version), "{releases:?}");
        }
        None => {
            assert!(!app.join("current").exists(), "something was switched to");
            assert!(releases.is_empty(), "{releases:?}");
        }
    }
    let downloads = names(&agent.state().join("downloads"));
    assert!(downloads.is_empty(), "{downloads:?}");
}

pub(crate) fn flip_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    // In its place: the directory may be read by others meanwhile.
    fs::write(path, bytes).unwrap();
}

/// The most memory that a process has had so far, in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A small filesystem of memory, unmounted when dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    pub(super) fn mount(path: &Path, options: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a small filesystem: run it as root");
        fs::create_dir_all(path).unwrap();
        // Root's alone, as the directory is that it stands for.
        let options = format!("mode=755,{options}");
        let mounted =
            output_of(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path));
        assert_eq!(mounted.code, 0, "{}", words(&mounted));
        Self { path: path.to_owned() }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.path).unwrap();
        space.f_bavail * space.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.path).output());
    }
}

/// The environment in which a process believes that it is two hours later (`+2h`) or earlier (`-2h`).
pub(crate) fn shifted(command: &mut Command, shift: &str) {
    let library = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("libfaketime is not installed: run tests/hosts/packages.sh"));
    command.env("LD_PRELOAD", library).env("FAKETIME", shift).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}
