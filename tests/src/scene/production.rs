//! Hosts with the agent installed as a person installs it, and a coordinator on this machine that they reach over the bridge.

use std::{fs, path::Path, time::Duration};

use super::{Coordinator, Notes, Operator, Ran, binary, write_tree};
use crate::{
    hosts::{Fleet, Host},
    wait::until,
};

/// Long enough for two busy cores.
pub const LONG: Duration = Duration::from_secs(120);

/// A step that takes ten seconds, tells what it does, and leaves a trace of having begun and ended.
pub const SLOW: &str = r#"
[[step]]
name = "slow"
shell = """
echo "begin $CONSIGN_VERSION" >> data/effects
for i in $(seq 1 40); do echo "tick $i"; sleep 0.25; done
echo "end $CONSIGN_VERSION" >> data/effects
"""
user = "notes"
"#;

#[derive(Debug)]
pub struct Production {
    pub operator: Operator,
    pub coordinator: Coordinator,
    pub fleet: Fleet,
    notes: Notes,
    directory: tempfile::TempDir,
}

/// What the app needs on a fresh server, and the files that an administrator brings there.
pub fn prepare_server(host: &Host) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    host.copy(&deploy, "/root/deploy");
    host.copy(&binary("consign-agent"), "/root/deploy/consign-agent");
    host.exec("useradd --system notes && install -d -o notes -g notes /srv/notes/shared/data");
    fs::write(host.path("/etc/systemd/system/notes.service"), include_str!("../../payload/notes.service"))
        .unwrap();
    // As a service is on a server that may lose its power: it comes back with what is current.
    host.exec("systemctl enable notes.service");
}

/// What answers on the server's own port.
pub fn serves(host: &Host) -> String {
    until("the app answers", LONG, || {
        let output = host.try_exec("curl -s -f http://127.0.0.1:8080/healthz");
        if output.code == 0 { Ok(output.stdout) } else { Err(output) }
    })
}

impl Production {
    pub fn boot(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::fetch();
        let fleet = Fleet::boot(names);
        let mut operator = Operator::init(&directory.path().join("operator"), &["notes"], &["production"]);
        let coordinator = Coordinator::start(directory.path(), &mut operator, &fleet.gateway().to_string());
        let scene = Self { operator, coordinator, fleet, notes, directory };
        for host in &scene.fleet.hosts {
            scene.install(host);
        }
        for name in names {
            scene.operator.wait_online(name);
        }
        scene
    }

    /// What an administrator does on a fresh server.
    fn install(&self, host: &Host) {
        prepare_server(host);
        let first = host.exec("/root/deploy/install-agent.sh");
        assert!(first.contains("--enroll TOKEN"), "{first}");

        let token = self.operator.ok(&["server", "token", "--name", host.name(), "--env", "production"]);
        host.exec(&format!(
            "consign-agent enroll {} --allow-app notes --allow-user notes --allow-unit notes.service \
             --label role=web --yes",
            token.trim()
        ));
        host.exec("systemctl start consign-agent");
        // The sandbox is not weaker than when it was measured: 3.1 of 10.
        host.exec("systemd-analyze security --no-pager --threshold=35 consign-agent.service");
        let again = host.exec("/root/deploy/install-agent.sh");
        assert!(again.contains("nothing changed"), "{again}");
    }

    /// Packs and publishes a version of `notes`.
    pub fn publish(&self, version: &str, bottle: &str, migrations: &[&str], between: &str) {
        self.publish_with(version, bottle, migrations, between, &[]);
    }

    pub fn publish_with(
        &self,
        version: &str,
        bottle: &str,
        migrations: &[&str],
        between: &str,
        more: &[(&str, &str)],
    ) {
        let source =
            self.notes.source(&self.directory.path().join(version), bottle, migrations, ("", between));
        write_tree(&source, more);
        self.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", version]);
    }

    /// A version that is good on a server only once it is confirmed there, within this time.
    pub fn publish_to_confirm(&self, version: &str, bottle: &str, within: &str) {
        let head = format!("confirm = \"{within}\"\n");
        let directory = self.directory.path().join(version);
        let source = self.notes.source(&directory, bottle, &["001-notes.sql"], (&head, ""));
        self.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", version]);
    }

    /// A rollout to all of production, followed to its end.
    pub fn roll_out(&self, version: &str) -> Ran {
        let ran = self.operator.run(&[
            "rollout",
            "start",
            &format!("notes@{version}"),
            "--env",
            "production",
            "--follow",
        ]);
        println!("---- {version}: exit {}\n{}{}", ran.code, ran.stdout, ran.stderr);
        ran
    }

    /// The newest rollout, as `consign rollout show --output json` tells it.
    pub fn newest(&self) -> serde_json::Value {
        let list = self.operator.json(&["rollout", "list"]);
        let id = list[0]["id"].as_str().unwrap().to_owned();
        self.operator.json(&["rollout", "show", &id])
    }

    /// Waits until the newest rollout is as `is` wants it.
    pub fn until_newest(&self, what: &str, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        until(what, LONG, || {
            let shown = self.newest();
            if is(&shown) { Ok(shown) } else { Err(shown) }
        })
    }

    /// What the server's step printed, as the coordinator keeps it.
    pub fn log_of(&self, server: &str, step: &str) -> Vec<String> {
        let id = self.newest()["id"].as_str().unwrap().to_owned();
        let text = self.operator.ok(&["rollout", "logs", &id, "--server", server, "--step", step]);
        text.lines().map(str::to_owned).collect()
    }

    pub fn serves(&self, host: &Host) -> String {
        serves(host)
    }

    /// Waits until the slow step of this version has begun.
    pub fn wait_mid_step(&self, host: &Host, version: &str) {
        until("the slow step has begun", LONG, || {
            let effects = fs::read_to_string(host.path("/srv/notes/shared/data/effects")).unwrap_or_default();
            if effects.contains(&format!("begin {version}\n")) { Ok(()) } else { Err(effects) }
        });
    }

    /// The slow step ran exactly once, whole, and every line of its output is there once and in order.
    pub fn assert_slow_once(&self, host: &Host, version: &str) {
        let effects = fs::read_to_string(host.path("/srv/notes/shared/data/effects")).unwrap();
        assert_eq!(effects.matches(&format!("begin {version}\n")).count(), 1, "{effects}");
        assert_eq!(effects.matches(&format!("end {version}\n")).count(), 1, "{effects}");
        let ticks: Vec<String> = self
            .log_of(host.name(), "slow")
            .iter()
            .filter_map(|line| line.find("tick ").and_then(|at| line.get(at..)).map(str::to_owned))
            .collect();
        let expected: Vec<String> = (1..=40).map(|tick| format!("tick {tick}")).collect();
        assert_eq!(ticks, expected);
    }
}
