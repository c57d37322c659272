//! Config and secrets as an operator sets them and steps get them, and what becomes of them in the hands of a coordinator
//! that is not honest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use consign_tests::{scene::Ran, wait::until};

use crate::scene::{ACTIVATE, Scene};

const PARAMS: &str = r#"
[params.workers]
type = "int"
default = 4

[params.mode]
type = "string"
pattern = "fast|slow"

[params.db_password]
type = "string"
secret = true

[params.tls_key]
type = "string"
secret = true
deliver = "file"
"#;

const STAGING: &str = "correct-horse-in-staging";
const PRODUCTION: &str = "battery-staple-in-production";
const ROTATED: &str = "another-horse-altogether";
const KEY: &str = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0BAQEF\n-----END KEY-----";

struct Servers {
    scene: Scene,
}

impl Servers {
    /// One server in each environment, none of them accepted.
    fn start() -> Self {
        let mut scene = Scene::without_agents(&["app"], &["staging", "production"]);
        for (name, environment) in [("web-1", "staging"), ("web-2", "production")] {
            scene.enrol(name, environment, &["--allow-app", "app", "--allow-user", "root"]);
        }
        Self { scene }
    }

    /// With everything accepted and set in staging.
    fn set_up() -> Self {
        let servers = Self::start();
        servers.publish("1.0.0");
        servers.accept("web-1");
        let ran = servers.set("staging", &["mode=fast"], &[("db_password", STAGING), ("tls_key", KEY)]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        servers
    }

    /// Its step writes down what it runs with, and says what it should not.
    fn publish(&self, version: &str) {
        let step = format!(
            "{PARAMS}\n[[step]]\nname = \"say\"\non = [\"deploy\", \"return\"]\nshell = \"\"\"\n\
             echo $CONSIGN_SERVER $CONSIGN_VERSION $WORKERS $MODE $(printf %s \"$DB_PASSWORD\" | sha256sum | cut -c1-12) \
             $(sha256sum < \"$TLS_KEY_FILE\" | cut -c1-12) >> {}\n\
             echo \"the password is $DB_PASSWORD, the key\"; cat \"$TLS_KEY_FILE\"\n\"\"\"\n{ACTIVATE}",
            self.ran().display()
        );
        self.scene.publish(version, &step, &[]);
    }

    fn ran(&self) -> PathBuf {
        self.scene.directory.path().join("ran")
    }

    /// What steps have written down, with names in place of digests.
    fn lines(&self) -> Vec<String> {
        let digest = |text: &str| {
            let digest = consign_common::digest::Sha256::of(text.as_bytes()).to_string();
            digest.get(..12).unwrap().to_owned()
        };
        let mut text = fs::read_to_string(self.ran()).unwrap_or_default();
        for (value, name) in
            [(STAGING, "staging"), (PRODUCTION, "production"), (ROTATED, "rotated"), (KEY, "key")]
        {
            text = text.replace(&digest(value), name);
        }
        text.lines().map(str::to_owned).collect()
    }

    fn fingerprint(&self, name: &str) -> String {
        let agent = self.scene.agents.iter().find(|agent| agent.name == name).unwrap();
        let output = agent.command(&["status", "--output", "json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        status["fingerprint"].as_str().unwrap().to_owned()
    }

    fn accept(&self, name: &str) {
        let fingerprint = self.fingerprint(name);
        self.scene.operator.ok(&["server", "accept", name, "--fingerprint", &fingerprint]);
    }

    fn set(&self, environment: &str, plain: &[&str], secrets: &[(&str, &str)]) -> Ran {
        let mut arguments: Vec<String> =
            ["config", "set", "app", "--env", environment].map(str::to_owned).into();
        arguments.extend(plain.iter().map(|value| (*value).to_owned()));
        arguments.extend(self.secret_arguments(secrets));
        self.scene.operator.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn secret_arguments(&self, secrets: &[(&str, &str)]) -> Vec<String> {
        let given = secrets.iter().flat_map(|(name, value)| {
            let path = self.scene.operator.home().join("given");
            fs::create_dir_all(&path).unwrap();
            let path = path.join(name);
            fs::write(&path, format!("{value}\n")).unwrap();
            ["--secret".to_owned(), format!("{name}=@{}", path.display())]
        });
        given.collect()
    }

    fn roll_out(&self, version: &str, environment: &str) -> Ran {
        let artifact = format!("app@{version}");
        self.scene.operator.run(&["rollout", "start", &artifact, "--env", environment, "--follow"])
    }

    /// A coordinator that does what this says to its database, and goes on.
    fn tamper(&mut self, script: &str) {
        self.scene.coordinator.kill();
        let database = self.scene.coordinator.state().join("consign.db");
        let program = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.executescript(sys.argv[2])\ndb.commit()\n";
        let done = Command::new("python3").args(["-c", program]).arg(database).arg(script).status().unwrap();
        assert!(done.success());
        self.scene.coordinator.launch();
        for agent in &self.scene.agents {
            self.scene.operator.wait_online(&agent.name);
        }
    }
}

fn assert_ok(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}

/// The files below a directory in which a text stands.
fn found_in(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(found_in(&entry.path(), text));
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap_or_default();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn two_environments_have_their_own_and_a_return_has_what_it_ran_with() {
    let servers = Servers::start();
    servers.publish("1.0.0");

    // Without values nothing begins, and it is said what to do.
    let none = servers.roll_out("1.0.0", "staging");
    assert!(
        none.stderr.contains("config-invalid") && none.stderr.contains("consign config set"),
        "{}",
        none.stderr
    );

    // On the command line a secret is refused, and not repeated.
    let typed = servers.set("staging", &[&format!("db_password={STAGING}")], &[]);
    assert_eq!(typed.code, 2);
    assert!(
        typed.stderr.contains("--secret db_password") && !typed.stderr.contains(STAGING),
        "{}",
        typed.stderr
    );

    // Sealed is only to whom somebody vouched for.
    let secrets = [("db_password", STAGING), ("tls_key", KEY)];
    let unaccepted = servers.set("staging", &["mode=fast"], &secrets);
    assert_eq!(unaccepted.code, 6);
    assert!(unaccepted.stderr.contains("consign server accept web-1"), "{}", unaccepted.stderr);
    let (own, other) = (servers.fingerprint("web-1"), servers.fingerprint("web-2"));
    let wrong = servers.scene.operator.run(&["server", "accept", "web-1", "--fingerprint", &other]);
    assert_eq!(wrong.code, 6, "{}", wrong.stderr);
    let shown = servers.scene.operator.json(&["server", "show", "web-1"]);
    assert_eq!((&shown["acceptance"], &shown["fingerprint"]), (&"not-accepted".into(), &own.into()));
    servers.accept("web-1");
    servers.accept("web-2");
    assert_eq!(servers.scene.operator.json(&["server", "show", "web-1"])["acceptance"], "accepted");

    assert_ok(&servers.set("staging", &["mode=fast"], &secrets));
    assert_ok(&servers.set(
        "production",
        &["mode=slow", "workers=8"],
        &[("db_password", PRODUCTION), ("tls_key", KEY)],
    ));
    let (staging, production) =
        (servers.roll_out("1.0.0", "staging"), servers.roll_out("1.0.0", "production"));
    assert_ok(&staging);
    assert_ok(&production);
    assert_eq!(servers.lines(), ["web-1 1.0.0 4 fast staging key", "web-2 1.0.0 8 slow production key"]);
    assert!(staging.stdout.contains("the password is ******, the key"), "{}", staging.stdout);
    assert!(!staging.stdout.contains("MIIBVg") && !production.stdout.contains(PRODUCTION));

    // The same again is nothing to do; with another value for one secret it is, and nobody gives the other one again.
    assert_ok(&servers.roll_out("1.0.0", "staging"));
    assert_eq!(servers.lines().len(), 2);
    let rotated = servers.set("staging", &[], &[("db_password", ROTATED)]);
    assert_ok(&rotated);
    assert!(rotated.stdout.contains("db_password: another secret value"), "{}", rotated.stdout);
    assert_ok(&servers.roll_out("1.0.0", "staging"));
    assert_eq!(servers.lines().last().unwrap(), "web-1 1.0.0 4 fast rotated key");

    // A newer version with newer values; the way back has those that the older one ran with last.
    servers.publish("1.1.0");
    assert_ok(&servers.set("staging", &["workers=2"], &[("db_password", PRODUCTION)]));
    assert_ok(&servers.roll_out("1.1.0", "staging"));
    assert_eq!(servers.lines().last().unwrap(), "web-1 1.1.0 2 fast production key");
    let back = ["rollout", "rollback", "app", "--env", "staging", "--reason", "test", "--follow"];
    assert_ok(&servers.scene.operator.run(&back));
    assert_eq!(servers.lines().last().unwrap(), "web-1 1.0.0 4 fast rotated key");

    // What was set is listed; what is secret is nowhere.
    let listed = servers.scene.operator.json(&["config", "list", "app", "--env", "staging"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let shown = servers.scene.operator.json(&["config", "show", "app", "--env", "staging"]);
    assert_eq!((&shown["sequence"], &shown["verified"]), (&3.into(), &true.into()));
    fs::remove_dir_all(servers.scene.operator.home().join("given")).unwrap();
    for secret in [STAGING, PRODUCTION, ROTATED, "MIIBVgIBADANBgkqhkiG9w0BAQEF"] {
        let found = found_in(servers.scene.directory.path(), secret);
        assert!(found.is_empty(), "{secret} stands in {found:?}");
    }
    let left = fs::read_dir("/run/consign-secrets").map_or(0, |entries| entries.flatten().count());
    assert_eq!(left, 0, "files of secrets are left");
}

#[test]
fn a_server_that_comes_later_gets_what_was_signed_without_signing_anew() {
    let mut servers = Servers::set_up();
    let word = ["--allow-app", "app", "--allow-user", "root"];
    servers.scene.enrol("web-3", "staging", &word);
    let early = servers.roll_out("1.0.0", "staging");
    assert!(early.stderr.contains("secret-missing") && early.stderr.contains("web-3"), "{}", early.stderr);
    let reseal = |given: &[(&str, &str)]| {
        let mut arguments: Vec<String> =
            ["config", "reseal", "app", "--env", "staging"].map(str::to_owned).into();
        arguments.extend(servers.secret_arguments(given));
        servers.scene.operator.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let unaccepted = reseal(&[("db_password", STAGING)]);
    assert!(unaccepted.code == 6 && unaccepted.stderr.contains("web-3"), "{}", unaccepted.stderr);
    servers.accept("web-3");
    let wrong = reseal(&[("db_password", ROTATED), ("tls_key", KEY)]);
    assert!(wrong.code != 0 && wrong.stderr.contains("not the value that was signed"), "{}", wrong.stderr);
    let resealed = reseal(&[("db_password", STAGING), ("tls_key", KEY)]);
    assert_ok(&resealed);
    assert!(
        resealed.stdout.contains("config 1 of app") && resealed.stdout.contains("web-3"),
        "{}",
        resealed.stdout
    );
    assert_ok(&servers.roll_out("1.0.0", "staging"));
    let mut lines = servers.lines();
    lines.sort();
    assert_eq!(lines, ["web-1 1.0.0 4 fast staging key", "web-3 1.0.0 4 fast staging key"]);
}

#[test]
fn of_a_dishonest_coordinator_no_step_gets_another_value() {
    let mut servers = Servers::set_up();
    servers.scene.enrol("web-3", "staging", &["--allow-app", "app", "--allow-user", "root"]);
    servers.accept("web-3");
    let both = [("db_password", STAGING), ("tls_key", KEY)];
    assert_ok(&servers.set("staging", &[], &both));
    assert_ok(&servers.roll_out("1.0.0", "staging"));
    assert_eq!(servers.lines().len(), 2);
    servers.publish("1.1.0");
    assert_ok(&servers.set("staging", &["workers=9"], &[("db_password", ROTATED)]));
    let ran_before = servers.lines();
    let refused = |servers: &Servers, code: &str| {
        let ran = servers.roll_out("1.1.0", "staging");
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(ran.code != 0 && told.contains(code), "{code}: exit {}\n{told}", ran.code);
        assert_eq!(servers.lines(), ran_before, "no step ran");
        for secret in [STAGING, ROTATED] {
            assert!(!told.contains(secret), "{told}");
        }
    };
    let keep = "CREATE TABLE kept AS SELECT * FROM sealed_secrets; CREATE TABLE kept_configs AS SELECT * FROM configs;";
    let put_back = "DELETE FROM sealed_secrets; INSERT INTO sealed_secrets SELECT * FROM kept; \
                    DELETE FROM configs; INSERT INTO configs SELECT * FROM kept_configs;";

    // Another server's.
    servers.tamper(&format!(
        "{keep} UPDATE sealed_secrets SET file = coalesce((SELECT k.file FROM kept k WHERE k.name = sealed_secrets.name \
         AND k.commitment = sealed_secrets.commitment AND k.server <> sealed_secrets.server), file);"
    ));
    refused(&servers, "secret-mismatch");
    // Another secret's, sealed to the same server.
    servers.tamper(&format!(
        "{put_back} UPDATE sealed_secrets SET file = coalesce((SELECT k.file FROM kept k WHERE k.server = sealed_secrets.server \
         AND k.name <> sealed_secrets.name LIMIT 1), file);"
    ));
    refused(&servers, "secret-mismatch");
    // The value before, under the name and the commitment of the newer one.
    servers.tamper(&format!(
        "{put_back} UPDATE sealed_secrets SET file = coalesce((SELECT k.file FROM kept k WHERE k.server = sealed_secrets.server \
         AND k.name = sealed_secrets.name AND k.commitment <> sealed_secrets.commitment LIMIT 1), file) \
         WHERE name = 'db_password';"
    ));
    refused(&servers, "secret-mismatch");
    // The config that was in force before.
    servers.tamper(put_back);
    assert_ok(&servers.roll_out("1.1.0", "staging"));
    assert_eq!(servers.lines().len(), 4);
    servers.publish("1.2.0");
    servers.tamper("DELETE FROM configs WHERE sequence = 3;");
    let older = servers.roll_out("1.2.0", "staging");
    assert!(format!("{}{}", older.stdout, older.stderr).contains("config-older"), "{}", older.stdout);
    assert_eq!(servers.lines().len(), 4);
    // A key of its own in place of the server's.
    servers.tamper(&format!(
        "{put_back} UPDATE sealing_keys SET recipient = \
         'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p' WHERE server = 'web-1';"
    ));
    until("the agent's own word replaces it", std::time::Duration::from_secs(30), || {
        let shown = servers.scene.operator.json(&["server", "show", "web-1"]);
        if shown["acceptance"] == "accepted" { Ok(()) } else { Err(shown) }
    });
    assert_ok(&servers.roll_out("1.2.0", "staging"));
}

/// A server that is added to an environment that runs something waits for its secrets, and then has what the others run.
/// One whose key is lost is another one until somebody vouches for it.
#[test]
fn a_server_without_secrets_waits_for_them() {
    let mut servers = Servers::set_up();
    assert_ok(&servers.roll_out("1.0.0", "staging"));
    servers.scene.enrol("web-3", "staging", &["--allow-app", "app", "--allow-user", "root"]);
    servers.accept("web-3");
    let reseal = |servers: &Servers| {
        let mut arguments: Vec<String> =
            ["config", "reseal", "app", "--env", "staging"].map(str::to_owned).into();
        arguments.extend(servers.secret_arguments(&[("db_password", STAGING), ("tls_key", KEY)]));
        servers.scene.operator.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(servers.lines().len(), 1, "nothing is tried in vain");
    assert_ok(&reseal(&servers));
    until("it gets what its environment runs", std::time::Duration::from_secs(30), || {
        let lines = servers.lines();
        if lines.contains(&"web-3 1.0.0 4 fast staging key".to_owned()) { Ok(()) } else { Err(lines) }
    });

    // As one that was enrolled before there were keys, too: it makes one when it starts.
    let agent = servers.scene.agents.iter_mut().find(|agent| agent.name == "web-3").unwrap();
    agent.kill();
    fs::remove_file(agent.state().join("sealing.key")).unwrap();
    agent.launch();
    until("its new key is known", std::time::Duration::from_secs(30), || {
        let shown = servers.scene.operator.json(&["server", "show", "web-3"]);
        if shown["acceptance"] == "other-key" { Ok(()) } else { Err(shown) }
    });
    servers.publish("1.1.0");
    let early = servers.roll_out("1.1.0", "staging");
    assert!(early.stderr.contains("secret-missing") && early.stderr.contains("web-3"), "{}", early.stderr);
    let refused = reseal(&servers);
    assert!(refused.code == 6 && refused.stderr.contains("another key"), "{}", refused.stderr);
    servers.scene.operator.wait_online("web-3");
    servers.accept("web-3");
    assert_ok(&reseal(&servers));
    assert_ok(&servers.roll_out("1.1.0", "staging"));
    assert_eq!(servers.lines().iter().filter(|line| line.contains("1.1.0 4 fast staging key")).count(), 2);
}
