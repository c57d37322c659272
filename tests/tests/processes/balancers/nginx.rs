//! `deploy/examples/nginx`

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use consign_tests::{scene::write_tree, wait::until};

use super::{
    client::get,
    pool::{LONG, Pool, SERVERS, address_of, example, free_port, program, text},
    story::{self, Balancer},
};

#[derive(Debug)]
struct Nginx {
    directory: PathBuf,
    address: String,
    process: Child,
}

impl Nginx {
    /// No request is tried again by nginx itself: what a restart cuts off, a client sees.
    fn start(directory: &Path, port: u16) -> Self {
        let directory = directory.join("nginx");
        let address = format!("127.0.0.10:{}", free_port("127.0.0.10"));
        let servers =
            SERVERS.map(|name| format!("    server {}:{port};    # {name}\n", address_of(name))).concat();
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {name};\n"))
            .concat();
        let config = format!(
            "{user}daemon off;\nworker_processes 2;\npid nginx.pid;\nerror_log error.log notice;\n\
             events {{}}\n\
             http {{\n    access_log off;\n{places}    include upstreams/*.conf;\n    include more/*.conf;\n\
             \x20   server {{\n        listen {address};\n        location / {{\n            proxy_pass http://shop;\n\
             \x20           proxy_next_upstream off;\n        }}\n    }}\n}}\n"
        );
        // What `nginx -t` is asked through, so that a test can make it refuse one change.
        let tester = format!(
            "#!/bin/sh\nif [ \"$3\" = -t ] && [ -e {0}/refuse ] && grep -q ' down;' {0}/upstreams/shop.conf; then\n\
             \x20   echo 'nginx: [emerg] invalid parameter \"down\"' >&2; exit 1\nfi\nexec {1} -p {0} \"$@\"\n",
            directory.display(),
            program("nginx").display()
        );
        let settings = format!(
            "file={0}/upstreams/shop.conf\nnginx='{0}/nginx.sh -c nginx.conf'\npid_file={0}/nginx.pid\n",
            directory.display()
        );
        write_tree(
            &directory,
            &[
                ("nginx.conf", &config),
                ("nginx.sh", &tester),
                ("upstream.env", &settings),
                ("upstreams/shop.conf", &format!("upstream shop {{\n    zone shop 64k;\n{servers}}}\n")),
                ("more/none.conf", ""),
            ],
        );
        let process = Command::new(program("nginx"))
            .arg("-p")
            .arg(&directory)
            .args(["-e", "error.log", "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(directory.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let nginx = Self { directory, address, process };
        until("nginx runs", LONG, || {
            let workers = nginx.workers();
            if workers.len() == 2 { Ok(()) } else { Err(workers) }
        });
        nginx
    }

    fn workers(&self) -> Vec<String> {
        let output = Command::new("pgrep").args(["-P", &self.process.id().to_string()]).output().unwrap();
        text(&output).lines().map(str::to_owned).collect()
    }

    fn upstream(&self) -> String {
        fs::read_to_string(self.directory.join("upstreams/shop.conf")).unwrap()
    }

    fn beside_upstream(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.directory.join("upstreams"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The command that the example's parameter names, on a balancer.
    fn command(&self) -> String {
        format!(
            "env CONSIGN_UPSTREAM_CONF={} {}",
            self.directory.join("upstream.env").display(),
            example("nginx").join("on-the-balancer/consign-upstream.sh").display()
        )
    }

    /// `consign-upstream` with these arguments; exit code and output.
    fn script(&self, arguments: &str, forced: Option<&str>) -> (i32, String) {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} {arguments}", self.command())]);
        if let Some(words) = forced {
            command.env("SSH_ORIGINAL_COMMAND", words);
        }
        let output = command.output().unwrap();
        let said = text(&output);
        println!("---- {arguments}{forced:?}: {:?}\n{said}", output.status);
        (output.status.code().unwrap(), said)
    }
}

impl Balancer for Nginx {
    fn address(&self) -> &str {
        &self.address
    }

    fn in_rotation(&self) -> Vec<String> {
        let (code, said) = self.script("show", None);
        assert_eq!(code, 0, "{said}");
        said.lines().filter_map(|line| line.strip_prefix("in ")).map(str::to_owned).collect()
    }

    fn adapted(&self) -> Vec<(String, String)> {
        let over_ssh = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 \
                        -o ServerAliveCountMax=6 consign@lb-1.example.org";
        [("app = \"shop\"\n", "app = \"shop\"\nshared = [\"data\"]\n"), (over_ssh, &self.command())]
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .to_vec()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked.
        drop(Command::new("kill").args(["-TERM", &self.process.id().to_string()]).output());
        drop(self.process.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.join("error.log")).unwrap_or_default();
            eprintln!("---- nginx\n{log}");
        }
    }
}

fn pool() -> (Pool, Nginx) {
    let pool = Pool::start("nginx");
    let nginx = Nginx::start(pool.directory(), pool.port);
    (pool, nginx)
}

#[test]
fn no_request_fails_while_versions_come_and_go() {
    let (pool, nginx) = pool();
    story::upgrade_fail_and_roll_back(&pool, &nginx);
    assert_eq!(nginx.beside_upstream(), ["shop.conf", "shop.conf.lock"]);
}

#[test]
fn without_a_drain_requests_fail() {
    let (pool, nginx) = pool();
    story::without_a_drain(&pool, &nginx);
}

#[test]
fn a_drain_that_does_not_end_cuts_nothing_off_unless_told_to() {
    let (pool, nginx) = pool();
    story::drain_that_does_not_end(&pool, &nginx);
}

#[test]
fn a_change_that_nginx_refuses_leaves_everything_as_it_was() {
    let (pool, nginx) = pool();
    story::first(&pool, &nginx);
    let (before, workers) = (nginx.upstream(), nginx.workers());
    let unchanged = |what: &str| {
        assert_eq!(nginx.upstream(), before, "{what}");
        assert_eq!(nginx.workers(), workers, "{what}: nothing was reloaded");
        assert_eq!(nginx.beside_upstream(), ["shop.conf", "shop.conf.lock"], "{what}");
        assert_eq!(SERVERS.map(|server| pool.version(server)), ["1.0.0", "1.0.0"], "{what}");
        assert!(get(&nginx.address, "/").is_ok(), "{what}");
    };

    // Somebody else's mistake, found before anything is touched.
    write_tree(&nginx.directory, &[("more/none.conf", "no_such_directive;\n")]);
    story::publish(&pool, &nginx, "2.0.0", &[], &[]);
    let ran = pool.roll_out("2.0.0");
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("nginx -t fails before any change"), "{}", ran.stdout);
    assert!(ran.stdout.contains("unknown directive"), "{}", ran.stdout);
    assert_eq!(SERVERS.map(|server| pool.state(server)), ["failed", "not-reached"]);
    unchanged("a mistake elsewhere");
    write_tree(&nginx.directory, &[("more/none.conf", "")]);

    // A file that is refused with the change, and only with it. The server is put back with a file that is not.
    write_tree(&nginx.directory, &[("refuse", "")]);
    let (code, said) = nginx.script("drain web-1 5 1", None);
    assert!(code == 1 && said.contains("the file is as it was, nothing was reloaded"), "{said}");
    unchanged("the change itself");
    fs::remove_file(nginx.directory.join("refuse")).unwrap();

    // A run that was killed in the middle of a change that nginx would have refused.
    write_tree(
        &nginx.directory,
        &[("upstreams/shop.conf", "upstream shop {\n    serv"), ("upstreams/shop.conf.before", &before)],
    );
    let (code, said) = nginx.script("ready web-1", None);
    assert!(code == 0 && said.contains("putting back what stood before"), "{said}");
    assert_eq!(nginx.upstream(), before);
    assert_eq!(nginx.beside_upstream(), ["shop.conf", "shop.conf.lock"]);
}

#[test]
fn the_script_may_run_again_and_never_takes_the_last_server() {
    let (pool, nginx) = pool();
    let both = nginx.upstream();
    for _ in 0..2 {
        assert_eq!(nginx.script("drain web-1 5 1", None).0, 0);
        assert_eq!(nginx.upstream(), both.replace(";    # web-1", " down;    # web-1"));
    }
    let (code, said) = nginx.script("drain web-2 5 1", None);
    assert!(code == 1 && said.contains("0 others in rotation after 1 s"), "{said}");
    for _ in 0..2 {
        assert_eq!(nginx.script("ready web-1", None).0, 0);
        assert_eq!(nginx.upstream(), both);
    }

    // As the forced command of an ssh key it takes its arguments from there, and nothing but its own words.
    assert_eq!(nginx.script("", Some("drain web-2 5 1")).0, 0);
    assert_eq!(nginx.in_rotation(), ["web-1"]);
    assert_eq!(nginx.script("", Some("ready web-2")).0, 0);
    for words in [
        "ready web-1;id",
        "ready $(id)",
        "ready web-9",
        "drain web-1 5",
        "drain web-1 x 1",
        "sh",
        "ready ../web-1",
    ] {
        let (code, said) = nginx.script("", Some(words));
        assert!(code == 1 && !said.contains("uid="), "{words}: {said}");
        assert_eq!(nginx.upstream(), both, "{words}");
    }
    drop(pool);
}
