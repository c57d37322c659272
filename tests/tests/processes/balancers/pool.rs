//! Two servers that share this machine: an agent each, and an app on a loopback address of its own.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::Duration,
};

use consign_tests::{
    scene::{Ran, write_tree},
    wait::until,
};

use crate::scene::Scene;

pub(super) const SERVERS: [&str; 2] = ["web-1", "web-2"];
pub(super) const LONG: Duration = Duration::from_secs(60);

const ONE_BY_ONE: [&str; 7] = ["--env", "staging", "--follow", "--wave", "1", "--wave", "100%"];

/// What every example needs changed for servers without systemd that share a machine.
const APP: [(&str, &str); 3] = [
    ("user = \"deploy\"\n", ""),
    (
        "systemd = { restart = \"shop.service\" }\n",
        "run = [\"bin/restart.sh\"]\nleaves = true\non = [\"deploy\", \"return\"]\n",
    ),
    (
        "http = { url = \"http://127.0.0.1:8080/healthz\", status = 200, within = \"30s\" }\n",
        "run = [\"bin/healthy.sh\"]\non = [\"deploy\", \"return\"]\n",
    ),
];

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) scene: Scene,
    /// The port of the app on every server's address.
    pub(super) port: u16,
    example: &'static str,
}

impl Pool {
    /// `example` is the name of a directory of `deploy/examples`.
    pub(super) fn start(example: &'static str) -> Self {
        let scene = Scene::without_agents(&["shop"], &["staging"]);
        let mut pool = Self { scene, port: free_port(&address_of(SERVERS[0])), example };
        let user = text(&Command::new("id").arg("-un").output().unwrap()).trim().to_owned();
        for name in SERVERS {
            pool.scene.enrol(name, "staging", &["--allow-app", "shop", "--allow-user", &user]);
            let address = format!("{} {}\n", address_of(name), pool.port);
            write_tree(&pool.data(name), &[("address", &address)]);
        }
        pool
    }

    pub(super) fn directory(&self) -> &Path {
        self.scene.directory.path()
    }

    pub(super) fn shared(&self, server: &str) -> PathBuf {
        let agent = self.scene.agents.iter().find(|agent| agent.name == server).unwrap();
        agent.apps().join("shop/shared")
    }

    pub(super) fn data(&self, server: &str) -> PathBuf {
        self.shared(server).join("data")
    }

    /// Publishes the example with these changes of its plan, each of which must find its place, and these files.
    pub(super) fn publish(&self, version: &str, changes: &[(&str, &str)], files: &[(&str, &str)]) {
        let source = self.directory().join("sources").join(version);
        fs::create_dir_all(&source).unwrap();
        let mut plan = fs::read_to_string(example(self.example).join("consign.toml")).unwrap();
        for (from, to) in APP.iter().chain(changes) {
            assert!(plan.contains(from), "{from:?} is not in the plan of {}\n{plan}", self.example);
            plan = plan.replace(from, to);
        }
        let payload = Path::new(env!("CARGO_MANIFEST_DIR")).join("payload/shop");
        for from in [example(self.example), payload] {
            let copied = Command::new("cp").arg("-R").arg(from.join(".")).arg(&source).output().unwrap();
            assert!(copied.status.success(), "{}", text(&copied));
        }
        write_tree(&source, &[("consign.toml", &plan)]);
        write_tree(&source, files);
        self.scene.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", version]);
    }

    /// A rollout to one server after the other, followed to its end.
    pub(super) fn roll_out(&self, version: &str) -> Ran {
        let version = format!("shop@{version}");
        self.say(&[&["rollout", "start", &version], &ONE_BY_ONE[..]].concat())
    }

    /// The same, to be followed by the caller.
    pub(super) fn roll_out_in_the_background(&self, version: &str) -> Child {
        let version = format!("shop@{version}");
        self.scene.operator.spawn(&[&["rollout", "start", &version], &ONE_BY_ONE[..]].concat())
    }

    /// Aborts the newest rollout, and waits for its end.
    pub(super) fn abort(&self, rollout: Child) {
        let list = self.scene.operator.json(&["rollout", "list"]);
        self.scene.operator.ok(&["rollout", "abort", list[0]["id"].as_str().unwrap(), "--reason", "test"]);
        let output = rollout.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    }

    /// Back to the version before, ordered to all servers at once.
    pub(super) fn roll_back(&self) -> Ran {
        self.say(&["rollout", "rollback", "shop@2.0.0", "--env", "staging", "--reason", "test", "--follow"])
    }

    fn say(&self, arguments: &[&str]) -> Ran {
        let ran = self.scene.operator.run(arguments);
        println!("---- consign {}: exit {}\n{}{}", arguments.join(" "), ran.code, ran.stdout, ran.stderr);
        ran
    }

    /// What the server's deployment of the newest rollout ended as.
    pub(super) fn state(&self, server: &str) -> String {
        let list = self.scene.operator.json(&["rollout", "list"]);
        let shown = self.scene.operator.json(&["rollout", "show", list[0]["id"].as_str().unwrap()]);
        let deployments = shown["deployments"].as_array().unwrap();
        let deployment = deployments.iter().find(|deployment| deployment["server"] == server);
        deployment.unwrap_or_else(|| panic!("{shown}"))["state"].as_str().unwrap().to_owned()
    }

    /// What `current` names on the server.
    pub(super) fn version(&self, server: &str) -> String {
        let current = fs::read_link(self.shared(server).join("../current")).unwrap();
        current.file_name().unwrap().to_string_lossy().split_once('-').unwrap().0.to_owned()
    }

    /// A request that the app of every server holds open, on threads that end with it.
    pub(super) fn hold(&self, address: &str) -> Vec<std::thread::JoinHandle<Result<String, String>>> {
        let mut held = Vec::new();
        // The balancer gives them out in turn.
        for count in 1..=SERVERS.len() {
            let address = address.to_owned();
            held.push(std::thread::spawn(move || super::client::get(&address, "/hold")));
            until("the request is held", LONG, || {
                let holding = SERVERS.iter().filter(|name| self.data(name).join("holding").exists()).count();
                if holding >= count { Ok(()) } else { Err(holding) }
            });
        }
        held
    }

    pub(super) fn release(&self) {
        for server in SERVERS {
            drop(fs::remove_file(self.data(server).join("holding")));
            fs::write(self.data(server).join("release"), "").unwrap();
        }
    }

    pub(super) fn hold_again(&self) {
        for server in SERVERS {
            fs::remove_file(self.data(server).join("release")).unwrap();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for server in SERVERS {
            if let Ok(pid) = fs::read_to_string(self.data(server).join("pid")) {
                drop(Command::new("kill").args(["-KILL", pid.trim()]).output());
            }
        }
    }
}

/// Servers have addresses of their own, so that nobody's outgoing connection sits on the port of an app that restarts.
pub(super) fn address_of(server: &str) -> String {
    format!("127.0.0.1{}", server.strip_prefix("web-").unwrap())
}

pub(super) fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

pub(super) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(name)
}

/// A daemon of this machine, wherever Debian put it.
pub(super) fn program(name: &str) -> PathBuf {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .map(|directory| Path::new(directory).join(name))
        .into_iter()
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: run tests/hosts/packages.sh"))
}

/// Both outputs.
pub(super) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
