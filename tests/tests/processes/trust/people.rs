//! People with keys, each on a machine of their own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use consign_tests::scene::{Operator, Ran, binary};

use crate::scene::Scene;

/// Somebody who signs, and is no operator: a home without a profile.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) operator: Operator,
    pub(super) directory: PathBuf,
}

impl Person {
    pub(super) fn new(scene: &Scene, name: &str) -> Self {
        let directory = scene.directory.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        Self { operator: Operator::of_home(&directory.join("home")), directory }
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Makes a key of consign's; the path of its private half.
    pub(super) fn generate(&self, owner: &str) -> String {
        let file = self.file(&format!("{owner}.key"));
        self.operator.ok(&["key", "generate", &file, "--owner", owner]);
        file
    }

    /// Makes an OpenSSH key; the path of its private half.
    pub(super) fn ssh_keygen(&self, name: &str, passphrase: &str) -> String {
        let file = self.file(name);
        let comment = format!("{name}@laptop");
        let arguments = ["-q", "-t", "ed25519", "-a", "2", "-N", passphrase, "-C", &comment, "-f", &file];
        assert!(Command::new("ssh-keygen").args(arguments).status().unwrap().success());
        file
    }

    /// Pins what the operator has, after comparing the digest.
    pub(super) fn pin(&self, scene: &Scene) {
        let root = scene.operator.home().join("trust-root.json");
        self.operator.ok(&["trust", "init", root.to_str().unwrap(), "--pin", &pin_of(&scene.operator)]);
    }
}

/// What `trust show` calls the pin.
pub(super) fn pin_of(operator: &Operator) -> String {
    let shown = operator.ok(&["trust", "show"]);
    let line = shown.lines().find_map(|line| line.strip_prefix("pin ")).unwrap();
    line.trim().to_owned()
}

pub(super) fn public(key: &str) -> String {
    Path::new(key).with_extension("pub").to_str().unwrap().to_owned()
}

/// Runs a command on a terminal of its own, at which this is typed.
pub(super) fn at_terminal(operator: &Operator, arguments: &[&str], typed: &str) -> Ran {
    let line = arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>().join(" ");
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &format!("{} {line}", binary("consign").display()), "/dev/null"])
        .env("CONSIGN_HOME", operator.home())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in typed.split_inclusive('\n') {
        // As a person does: what is typed before the question is thrown away with it.
        std::thread::sleep(std::time::Duration::from_millis(500));
        stdin.write_all(line.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
