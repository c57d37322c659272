//! Somebody has the coordinator: its machine, its online keys and its database, and gives to three servers in production
//! something else than what was approved. No server runs it, and each says why.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use consign_agent::state::StatePaths;
use consign_tests::{
    scene::{Agent, Coordinator, Operator, write_tree},
    wait::until,
};

use crate::scene::{ACTIVATE, Scene};

const LONG: Duration = Duration::from_secs(90);
const SERVERS: [&str; 3] = ["web-1", "web-2", "web-3"];

/// Production takes what pat has approved.
struct Stolen {
    scene: Scene,
    /// A fleet of the thief's own, where they may publish what they like.
    elsewhere: (Coordinator, Operator),
}

/// All of a server that could show that something ran.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    current: PathBuf,
    releases: Vec<String>,
}

impl Stolen {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::of_home(&directory.path().join("operator"));
        let at = |name: &str| directory.path().join(name).display().to_string();
        operator.ok(&["key", "generate", &at("pat.key"), "--owner", "pat"]);
        let approver = format!("production={}", at("pat.pub"));
        operator.ok(&["init", "--app", "app", "--env", "production", "--approver", &approver]);
        let coordinator = Coordinator::start(directory.path(), &mut operator, "127.0.0.1");

        let there = directory.path().join("elsewhere");
        fs::create_dir(&there).unwrap();
        let mut thief = Operator::init(&there.join("operator"), &["app"], &["production"]);
        let elsewhere = (Coordinator::start(&there, &mut thief, "127.0.0.1"), thief);

        let mut scene = Scene { agents: Vec::new(), coordinator, operator, directory };
        for name in SERVERS {
            scene.enrol(name, "production", &["--allow-app", "app", "--allow-user", "root"]);
        }
        Self { scene, elsewhere }
    }

    fn effects(&self) -> PathBuf {
        self.scene.directory.path().join("effects")
    }

    /// Every run of a step leaves a line.
    fn plan(&self, word: &str) -> String {
        let effects = self.effects();
        format!(
            "[[step]]\nname = \"tell\"\nshell = \"echo $CONSIGN_SERVER {word} >> {}\"\n{ACTIVATE}",
            effects.display()
        )
    }

    /// By CI, and on nobody's word yet; its digest.
    fn publish(&self, version: &str) -> String {
        self.scene.publish(version, &self.plan(version), &[("app", version)]);
        digest(&self.scene.operator, version)
    }

    fn approve(&self, version: &str) {
        let key = self.scene.directory.path().join("pat.key").display().to_string();
        let artifact = format!("app@{version}");
        self.scene.operator.ok(&["approve", &artifact, "--env", "production", "--key", &key, "--yes"]);
    }

    fn approved(&self, version: &str) -> String {
        let digest = self.publish(version);
        self.approve(version);
        digest
    }

    /// A build of the thief's under this version, put where the coordinator keeps artifacts; its digest.
    fn smuggle(&self, version: &str) -> String {
        let (coordinator, thief) = &self.elsewhere;
        let source = self.scene.directory.path().join("elsewhere").join(version);
        fs::create_dir(&source).unwrap();
        let plan = format!("app = \"app\"\n{}", self.plan("thief"));
        write_tree(&source, &[("consign.toml", &plan), ("app", "thief")]);
        thief.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", version]);
        let digest = digest(thief, version);
        let artifacts = |of: &Coordinator| of.state().join("artifacts").join(&digest);
        let (from, to) = (artifacts(coordinator), artifacts(&self.scene.coordinator));
        assert!(Command::new("cp").arg("-a").args([&from, &to]).status().unwrap().success());
        digest
    }

    /// Starts a rollout of what is approved, which no server gets to hear of before the thief has changed what the
    /// coordinator has. Every one refuses, by this name.
    fn refused(&mut self, version: &str, more: &[&str], code: &str, steal: impl FnOnce(&Self, &str)) {
        let (effects, traces) = (self.told(), self.traces());
        self.online();
        self.scene.agents.iter().for_each(hold_still);
        let artifact = format!("app@{version}");
        let start = ["rollout", "start", &artifact, "--env", "production"];
        let started = self.scene.operator.json(&[&start[..], more].concat());
        let id = started["id"].as_str().unwrap();
        let orders = until("every server has its order", LONG, || {
            let orders: Vec<String> = SERVERS.map(|server| self.order(id, server)).into();
            if orders.iter().any(String::is_empty) { Err(orders) } else { Ok(orders) }
        });
        self.scene.coordinator.kill();
        self.scene.agents.iter_mut().for_each(Agent::kill);
        steal(self, id);
        self.scene.coordinator.launch();
        self.scene.agents.iter_mut().for_each(Agent::launch);

        for (agent, order) in self.scene.agents.iter().zip(&orders) {
            let server = agent.config().display().to_string();
            let became = until(&format!("{server} has decided"), LONG, || {
                let became = became(agent, order);
                if became.is_empty() { Err(agent.log()) } else { Ok(became) }
            });
            assert_eq!(became, code, "{version}: {server}, in its journal\n{}", agent.log());
        }
        let shown = until("the rollout has ended", LONG, || {
            let shown = self.scene.operator.json(&["rollout", "show", id]);
            if shown["ended_ms"].is_u64() { Ok(shown) } else { Err(shown) }
        });
        println!("{version}: {}", shown["because"]);
        assert_eq!(shown["exit_code"], 6, "{shown}");
        assert!(shown["because"].as_str().unwrap().contains(code), "{code}: {shown}");
        assert_eq!(self.told(), effects, "{version}: something ran");
        assert_eq!(self.traces(), traces, "{version}");
    }

    /// The order that the coordinator has for this server; empty: none yet.
    fn order(&self, rollout: &str, server: &str) -> String {
        let database = self.scene.coordinator.state().join("consign.db");
        let select = "SELECT orders.id FROM orders JOIN deployments ON deployments.id = orders.deployment";
        let this = format!("{select} WHERE rollout = '{rollout}' AND orders.server = '{server}'");
        python(database.to_str().unwrap(), &this)
    }

    fn online(&self) {
        for name in SERVERS {
            self.scene.operator.wait_online(name);
        }
    }

    /// What goes by the book runs everywhere.
    fn honest(&self, version: &str) {
        let artifact = format!("app@{version}");
        self.online();
        let start = ["rollout", "start", &artifact, "--env", "production", "--follow"];
        let ran = self.scene.operator.run(&start);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        for name in SERVERS {
            let line = format!("{name} {version}");
            assert_eq!(self.told().iter().filter(|told| **told == line).count(), 1, "{:?}", self.told());
        }
    }

    /// In the coordinator's database, in which the thief's own is `thief`.
    fn sql(&self, text: &str) {
        let state = |of: &Coordinator| of.state().join("consign.db").display().to_string();
        let (theirs, ours) = (state(&self.elsewhere.0), state(&self.scene.coordinator));
        python(&ours, &format!("ATTACH '{theirs}' AS thief; BEGIN; {text}; COMMIT"));
    }

    fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.effects()).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn traces(&self) -> Vec<Traces> {
        self.scene.agents.iter().map(|agent| Traces::of(&agent.apps().join("app"))).collect()
    }
}

impl Traces {
    fn of(app: &Path) -> Self {
        let entries = fs::read_dir(app.join("releases")).unwrap();
        let mut releases: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        releases.sort();
        Self { current: fs::read_link(app.join("current")).unwrap(), releases }
    }
}

fn digest(operator: &Operator, version: &str) -> String {
    let shown = operator.json(&["artifact", "show", &format!("app@{version}")]);
    shown["digest"].as_str().unwrap().to_owned()
}

/// Its line stays up, and it reads nothing any more.
fn hold_still(agent: &Agent) {
    assert!(Command::new("kill").args(["-STOP", &agent.pid().to_string()]).status().unwrap().success());
}

/// Why the agent refused this order, as its journal has it; empty: it has not got it.
fn became(agent: &Agent, order: &str) -> String {
    let journal = StatePaths::new(&agent.state()).journal();
    let select = format!("SELECT coalesce(refused_code, 'accepted') FROM orders WHERE id = '{order}'");
    python(journal.to_str().unwrap(), &select)
}

/// The script's last value.
fn python(database: &str, script: &str) -> String {
    let program = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        for text in sys.argv[2].split(';'):\n    row = db.execute(text).fetchone()\nprint(row[0] if row else '', end='')";
    let ran = Command::new("python3").args(["-c", program, database, script]).output().unwrap();
    assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// In every order of the rollout stands B in place of A.
fn order(rollout: &str, a: &str, b: &str) -> String {
    format!(
        "UPDATE rollouts SET digest = '{b}' WHERE id = '{rollout}';
         UPDATE deployments SET digest = '{b}' WHERE rollout = '{rollout}';
         UPDATE orders SET manifest = '{b}', document = CAST(replace(CAST(document AS TEXT), '{a}', '{b}') AS BLOB)
         WHERE deployment IN (SELECT id FROM deployments WHERE rollout = '{rollout}')"
    )
}

/// Under the version of A goes B, with all that was signed of A; `row`: how B gets one of its own.
fn swap(rollout: &str, version: &str, a: &str, b: &str, row: &str) -> String {
    format!(
        "UPDATE artifacts SET version = 'gone-{version}' WHERE digest = '{a}'; {row};
         UPDATE artifacts SET version = '{version}' WHERE digest = '{b}';
         UPDATE statements SET artifact = '{b}' WHERE artifact = '{a}';
         {}",
        order(rollout, a, b)
    )
}

#[test]
fn t9_what_was_not_approved_runs_on_no_server_whatever_the_coordinators_database_says() {
    let mut stolen = Stolen::start();
    let replayed = stolen.approved("1.0.0");
    stolen.honest("1.0.0");
    let running = stolen.approved("1.0.1");
    stolen.honest("1.0.1");

    // A build of the thief's own, in place of what was approved.
    let a = stolen.approved("1.1.0");
    stolen.refused("1.1.0", &[], "wrong-subject", |stolen, id| {
        let b = stolen.smuggle("1.1.0");
        let insert = format!("INSERT INTO artifacts SELECT * FROM thief.artifacts WHERE digest = '{b}'");
        stolen.sql(&swap(id, "1.1.0", &a, &b, &insert));
    });

    // Only its bytes, under the digest that was approved.
    let a = stolen.approved("1.2.0");
    stolen.refused("1.2.0", &[], "manifest-digest", |stolen, _| {
        let b = stolen.smuggle("1.2.0");
        let artifacts = stolen.scene.coordinator.state().join("artifacts");
        for file in fs::read_dir(artifacts.join(b)).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), artifacts.join(&a).join(file.file_name())).unwrap();
        }
    });

    // What CI has published and nobody has approved, with the approval of another.
    let b = stolen.publish("1.3.0");
    let a = stolen.approved("1.4.0");
    stolen.refused("1.4.0", &[], "approval-missing", |stolen, id| {
        stolen.sql(&swap(id, "1.4.0", &a, &b, "SELECT 1"));
    });

    // Old approvals once more: of what ran before, and of what runs.
    let replays = [("1.5.0", &replayed, &[][..], "older"), ("1.6.0", &running, &["--force"], "used-up")];
    for (version, again, more, code) in replays {
        let a = stolen.approved(version);
        stolen.refused(version, more, code, |stolen, id| stolen.sql(&order(id, &a, again)));
    }

    // Nothing but that was wrong.
    stolen.approved("1.7.0");
    stolen.honest("1.7.0");
}
