//! Two people and the machines that they install from nothing, with the commands that they type.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use consign_tests::{
    hosts::{Fleet, Host},
    scene::{Notes, Operator, binary, prepare_server, write_tree},
};

/// Fresh machines with the files on them that somebody brings there, and desks for those who type.
pub(crate) struct Team {
    pub(crate) fleet: Fleet,
    pub(crate) notes: Notes,
    directory: tempfile::TempDir,
}

impl Team {
    /// The first machine becomes the coordinator's.
    pub(crate) fn boot(coordinator: &str, servers: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<&str> = [coordinator].iter().chain(servers).copied().collect();
        let team = Self { fleet: Fleet::boot(&names), notes: Notes::fetch(), directory };
        let (coordinator, servers) = team.fleet.hosts.split_first().unwrap();
        coordinator.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy"), "/root/deploy");
        coordinator.copy(&binary("consign"), "/root/deploy/consign");
        servers.iter().for_each(prepare_server);
        team
    }

    pub(crate) fn coordinator(&self) -> &Host {
        &self.fleet.hosts[0]
    }

    pub(crate) fn host(&self, name: &str) -> &Host {
        self.fleet.hosts.iter().find(|host| host.name() == name).unwrap()
    }

    /// Where somebody works: their home directory.
    pub(crate) fn desk(&self, who: &str) -> PathBuf {
        let desk = self.directory.path().join(who);
        fs::create_dir_all(&desk).unwrap();
        desk
    }

    pub(crate) fn operator(&self, who: &str) -> Operator {
        Operator::of_home(&self.desk(who).join(".config/consign"))
    }

    /// Somebody's ssh key, as most people have one; its public half lies on the other's desk as well.
    pub(crate) fn ssh_key(&self, who: &str, beside: &str) -> PathBuf {
        let directory = self.desk(who).join(".ssh");
        fs::create_dir_all(&directory).unwrap();
        let key = directory.join("id_ed25519");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        fs::copy(key.with_extension("pub"), self.desk(beside).join(format!("{who}.pub"))).unwrap();
        key
    }

    /// A command as it is typed at somebody's desk; what it printed.
    pub(crate) fn type_at(&self, who: &str, line: &str) -> String {
        let desk = self.desk(who);
        let programs = binary("consign").parent().unwrap().to_owned();
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(&desk)
            .env_remove("CONSIGN_HOME")
            .env("HOME", &desk)
            .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{who}$ {line}\n{stdout}{stderr}");
        assert!(output.status.success(), "{who}$ {line}\n{}\n{stdout}{stderr}", output.status);
        stdout.into_owned()
    }

    /// A source directory of the app, with what comes at the end of its plan.
    pub(crate) fn source(&self, directory: &Path, bottle: &str, end: &str, more: &[(&str, &str)]) {
        self.notes.source(directory, bottle, &["001-notes.sql"], ("", ""));
        write_tree(directory, more);
        let plan = directory.join("consign.toml");
        let text = fs::read_to_string(&plan).unwrap();
        fs::write(&plan, format!("{text}{end}")).unwrap();
    }
}
