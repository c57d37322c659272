//! `deploy/examples/haproxy`

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use consign_tests::wait::until;

use super::{
    pool::{LONG, Pool, SERVERS, address_of, example, free_port, program, text},
    story::{self, Balancer},
};

#[derive(Debug)]
struct Haproxy {
    socket: PathBuf,
    address: String,
    process: Child,
}

impl Haproxy {
    /// No request is tried again by HAProxy itself: what a restart cuts off, a client sees.
    fn start(directory: &Path, port: u16) -> Self {
        let socket = directory.join("haproxy.sock");
        let address = format!("127.0.0.10:{}", free_port("127.0.0.10"));
        let servers = SERVERS.map(|name| format!("    server {name} {}:{port}\n", address_of(name))).concat();
        let config = format!(
            "global\n    stats socket {} mode 600 level admin\n\
             defaults\n    mode http\n    retries 0\n    timeout connect 2s\n    timeout client 60s\n    timeout server 60s\n\
             frontend in\n    bind {address}\n    default_backend shop\n\
             backend shop\n    balance roundrobin\n    option httpchk GET /healthz\n\
             \x20   default-server check inter 200ms fall 2 rise 2\n{servers}",
            socket.display()
        );
        let file = directory.join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(directory.join("haproxy.log")).unwrap();
        let process = Command::new(program("haproxy"))
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let haproxy = Self { socket, address, process };
        until("haproxy answers", LONG, || {
            let states = haproxy.ask("show servers state shop");
            if states.contains("web-2") { Ok(()) } else { Err(states) }
        });
        haproxy
    }

    fn ask(&self, command: &str) -> String {
        let script = format!("echo '{command}' | socat -t 60 - UNIX-CONNECT:{}", self.socket.display());
        text(&Command::new("sh").args(["-c", &script]).output().unwrap())
    }

    /// `op_state admin_state` of a server.
    fn state(&self, server: &str) -> String {
        let states = self.ask("show servers state shop");
        let line = states.lines().find(|line| line.split(' ').nth(3) == Some(server)).unwrap();
        line.split(' ').skip(5).take(2).collect::<Vec<_>>().join(" ")
    }

    fn wait_state(&self, server: &str, state: &str) {
        until(&format!("{server} is {state}"), LONG, || {
            let seen = self.state(server);
            if seen == state { Ok(()) } else { Err(seen) }
        });
    }

    /// The example's script as its step runs it; exit code and output.
    fn script(&self, server: &str, word: &str, more: &[(&str, &str)]) -> (i32, String) {
        let output = Command::new(example("haproxy").join("bin/balancer.sh"))
            .arg(word)
            .env("CONSIGN_SERVER", server)
            .env("BALANCERS", format!("UNIX-CONNECT:{}", self.socket.display()))
            .envs([("BACKENDS", "shop"), ("DRAIN_SECONDS", "5"), ("DRAIN_OVERDUE", "fail")])
            .envs([("LEAST_OTHERS", "1"), ("OTHERS_SECONDS", "1"), ("READY_SECONDS", "5")])
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let said = text(&output);
        println!("---- {server} {word}: {:?}\n{said}", output.status);
        (output.status.code().unwrap(), said)
    }
}

impl Balancer for Haproxy {
    fn address(&self) -> &str {
        &self.address
    }

    fn in_rotation(&self) -> Vec<String> {
        let serves = |server: &&str| self.state(server) == "2 0";
        SERVERS.into_iter().filter(serves).map(str::to_owned).collect()
    }

    fn adapted(&self) -> Vec<(String, String)> {
        let socket = format!("UNIX-CONNECT:{}", self.socket.display());
        [
            ("app = \"shop\"\n", "app = \"shop\"\nshared = [\"data\"]\n"),
            ("UNIX-CONNECT:/run/haproxy/admin.sock", &socket),
        ]
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .to_vec()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn pool() -> (Pool, Haproxy) {
    let pool = Pool::start("haproxy");
    let haproxy = Haproxy::start(pool.directory(), pool.port);
    (pool, haproxy)
}

#[test]
fn no_request_fails_while_versions_come_and_go() {
    let (pool, haproxy) = pool();
    story::upgrade_fail_and_roll_back(&pool, &haproxy);
}

#[test]
fn without_a_drain_requests_fail() {
    let (pool, haproxy) = pool();
    story::without_a_drain(&pool, &haproxy);
}

#[test]
fn a_drain_that_does_not_end_cuts_nothing_off_unless_told_to() {
    let (pool, haproxy) = pool();
    story::drain_that_does_not_end(&pool, &haproxy);
}

#[test]
fn a_drain_that_is_aborted_puts_the_server_back_and_cuts_nothing_off() {
    let (pool, haproxy) = pool();
    story::first(&pool, &haproxy);
    let held = pool.hold(&haproxy.address);
    story::publish(&pool, &haproxy, "2.0.0", &[], &[]);
    let rollout = pool.roll_out_in_the_background("2.0.0");
    haproxy.wait_state("web-1", "2 8");
    pool.abort(rollout);
    assert_eq!(pool.state("web-1"), "cancelled");
    assert_eq!(haproxy.in_rotation(), SERVERS);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["1.0.0", "1.0.0"]);
    pool.release();
    for request in held {
        assert!(request.join().unwrap().is_ok());
    }
}

#[test]
fn a_drain_whose_agent_and_supervisor_are_killed_runs_again() {
    let (mut pool, haproxy) = pool();
    story::first(&pool, &haproxy);
    let held = pool.hold(&haproxy.address);
    story::publish(&pool, &haproxy, "2.0.0", &[], &[]);
    let rollout = pool.roll_out_in_the_background("2.0.0");
    haproxy.wait_state("web-1", "2 8");
    let agent = &mut pool.scene.agents[0];
    let supervisors = agent.supervisors();
    assert!(!supervisors.is_empty());
    for supervisor in supervisors {
        assert!(Command::new("kill").args(["-KILL", &supervisor.to_string()]).status().unwrap().success());
    }
    agent.kill();
    agent.launch();
    pool.release();
    let output = rollout.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for request in held {
        assert!(request.join().unwrap().is_ok(), "it was open during the drain, and has ended");
    }
    assert_eq!(haproxy.in_rotation(), SERVERS);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["2.0.0", "2.0.0"]);
}

#[test]
fn a_balancer_that_is_away_stops_a_deployment_before_anything_changes() {
    let (pool, mut haproxy) = pool();
    story::first(&pool, &haproxy);
    story::publish(&pool, &haproxy, "2.0.0", &[], &[]);
    haproxy.process.kill().unwrap();
    haproxy.process.wait().unwrap();
    let ran = pool.roll_out("2.0.0");
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("does not answer to: show servers state shop"), "{}", ran.stdout);
    assert_eq!(SERVERS.map(|server| pool.state(server)), ["failed", "not-reached"]);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["1.0.0", "1.0.0"]);
}

#[test]
fn the_script_may_run_again_and_never_takes_the_last_server_or_one_in_maintenance() {
    let (pool, haproxy) = pool();
    story::first(&pool, &haproxy);

    for expected in ["gets no new requests", "drained at"] {
        let (code, said) = haproxy.script("web-1", "drain", &[]);
        assert!(code == 0 && said.contains(expected), "{said}");
        assert_eq!(haproxy.state("web-1"), "2 8");
    }
    let (code, said) = haproxy.script("web-2", "drain", &[]);
    assert!(code == 1 && said.contains("0 others in rotation") && said.contains("not drained"), "{said}");
    assert_eq!(haproxy.state("web-2"), "2 0");
    for _ in 0..2 {
        assert_eq!(haproxy.script("web-1", "ready", &[]).0, 0);
        assert_eq!(haproxy.state("web-1"), "2 0");
    }

    // Somebody's maintenance is neither taken for a drain nor ended.
    haproxy.ask("set server shop/web-1 state maint");
    for word in ["drain", "ready"] {
        let (code, said) = haproxy.script("web-1", word, &[]);
        assert!(code == 0 && said.contains("in maintenance"), "{said}");
        assert_eq!(haproxy.state("web-1"), "0 1");
    }
    haproxy.ask("set server shop/web-1 state ready");
    haproxy.wait_state("web-1", "2 0");

    // A server that does not come up is not in rotation, whatever was asked for.
    assert_eq!(haproxy.script("web-1", "drain", &[]).0, 0);
    let pid = fs::read_to_string(pool.data("web-1").join("pid")).unwrap();
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    haproxy.wait_state("web-1", "0 8");
    let (code, said) = haproxy.script("web-1", "ready", &[("READY_SECONDS", "1")]);
    assert!(code == 1 && said.contains("does not see shop/web-1 up after 1 s: DOWN"), "{said}");

    for (server, more, expected) in [
        ("web-9", [("BACKENDS", "shop")], "has no server web-9 in backend shop"),
        ("web-2", [("BACKENDS", "shop nothing")], "has no servers in backend nothing"),
    ] {
        let (code, said) = haproxy.script(server, "ready", &more);
        assert!(code == 1 && said.contains(expected), "{said}");
    }
}

#[test]
fn a_balancer_that_never_answers_does_not_hold_the_step() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let begun = std::time::Instant::now();
    let output = Command::new(example("haproxy").join("bin/balancer.sh"))
        .arg("drain")
        .env("CONSIGN_SERVER", "web-1")
        .env("BALANCERS", format!("UNIX-CONNECT:{}", socket.display()))
        .envs([("BACKENDS", "shop"), ("DRAIN_SECONDS", "5"), ("DRAIN_OVERDUE", "fail")])
        .envs([("LEAST_OTHERS", "1"), ("OTHERS_SECONDS", "1"), ("READY_SECONDS", "5")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("does not answer"), "{}", text(&output));
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
}
