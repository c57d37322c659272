//! `deploy/examples/target-group`, against `tests/payload/aws`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use consign_tests::scene::write_tree;
use serde_json::{Value, json};

use super::pool::{Pool, SERVERS, example, text};

const PUBLIC: &str =
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/public/73e2d6bc24d8a067";
const INTERNAL: &str =
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/internal/943f017f100becff";

/// A directory with the fake `aws` and its state.
#[derive(Debug)]
struct Cloud {
    directory: PathBuf,
}

impl Cloud {
    /// Both servers healthy in both groups; draining takes three looks, becoming healthy two.
    fn new(directory: &Path) -> Self {
        let cloud = Self { directory: directory.to_owned() };
        write_tree(directory, &[("bin/aws", include_str!("../../../payload/aws"))]);
        let group = json!(SERVERS.map(|name| json!([instance(name), 8080, "healthy", null, null])));
        cloud.write(&json!({
            "groups": { PUBLIC: group, INTERNAL: group }, "draining": 3, "initial": 2, "becomes": ["healthy", null],
            "errors": [], "calls": [],
        }));
        cloud
    }

    fn write(&self, state: &Value) {
        fs::write(self.directory.join("state.json"), state.to_string()).unwrap();
    }

    fn read(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.directory.join("state.json")).unwrap()).unwrap()
    }

    fn set(&self, key: &str, value: Value) {
        let mut state = self.read();
        state[key] = value;
        self.write(&state);
    }

    /// What was changed since the last time, as `deregister-targets public i-web-1`.
    fn calls(&self) -> Vec<String> {
        let calls = self.read()["calls"].take();
        self.set("calls", json!([]));
        let words = |call: &Value| {
            let words: Vec<&str> = call.as_array().unwrap().iter().filter_map(Value::as_str).collect();
            words.join(" ")
        };
        calls.as_array().unwrap().iter().map(words).collect()
    }

    /// The state of a server in the public group; `None` where it is not listed.
    fn health(&self, server: &str) -> Option<String> {
        let state = self.read();
        let targets = state["groups"][PUBLIC].as_array().unwrap();
        let target = targets.iter().find(|target| target[0] == instance(server))?;
        Some(target[2].as_str().unwrap().to_owned())
    }

    fn environment(&self, server: &str) -> String {
        format!(
            "TARGET_ID={}\nTARGET_PORT=8080\nTARGET_GROUPS='{PUBLIC} {INTERNAL}'\nAWS_REGION=eu-central-1\n\
             PATH={}/bin:/usr/local/bin:/usr/bin:/bin\nFAKE_AWS={}/state.json\n",
            instance(server),
            self.directory.display(),
            self.directory.display()
        )
    }

    /// The example's script as its step runs it, in a directory with its `config/target.env`; exit code and output.
    fn script(&self, server: &str, word: &str, more: &[(&str, &str)]) -> (i32, String) {
        write_tree(&self.directory, &[("config/target.env", &self.environment(server))]);
        let output = Command::new(example("target-group").join("bin/balancer.sh"))
            .arg(word)
            .current_dir(&self.directory)
            .envs([("AWS", "aws"), ("DRAIN_SECONDS", "30"), ("DRAIN_OVERDUE", "fail"), ("LEAST_OTHERS", "1")])
            .envs([("OTHERS_SECONDS", "1"), ("READY_SECONDS", "30"), ("POLL_SECONDS", "0.1")])
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let said = text(&output);
        println!("---- {server} {word}: {:?}\n{said}", output.status);
        (output.status.code().unwrap(), said)
    }
}

fn instance(server: &str) -> String {
    format!("i-{server}")
}

/// What a script changes at both groups.
fn at_both(operation: &str, server: &str) -> [String; 2] {
    ["public", "internal"].map(|group| format!("{operation} {group} {}", instance(server)))
}

#[test]
fn one_server_after_the_other_leaves_its_groups_and_comes_back_healthy() {
    let pool = Pool::start("target-group");
    let cloud = Cloud::new(&pool.directory().join("cloud"));
    for server in SERVERS {
        write_tree(&pool.shared(server), &[("config/target.env", &cloud.environment(server))]);
    }
    let adapted = [
        ("shared = [\"config/target.env\"]", "shared = [\"config/target.env\", \"data\"]"),
        (
            "[params.poll_seconds]\ntype = \"int\"\ndefault = 5",
            "[params.poll_seconds]\ntype = \"string\"\ndefault = \"0.1\"",
        ),
    ];
    let one_after_the_other = SERVERS
        .map(|server| [at_both("deregister-targets", server), at_both("register-targets", server)].concat());
    for version in ["1.0.0", "2.0.0"] {
        pool.publish(version, &adapted, &[]);
        let ran = pool.roll_out(version);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(cloud.calls(), one_after_the_other.concat());
    }
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["2.0.0", "2.0.0"]);

    // Not healthy: it is registered again only once the version before is back.
    pool.publish("3.0.0", &adapted, &[("BROKEN", "yes")]);
    let broken = pool.roll_out("3.0.0");
    assert_eq!(broken.code, 4, "{}{}", broken.stdout, broken.stderr);
    assert_eq!(SERVERS.map(|server| pool.state(server)), ["returned", "not-reached"]);
    assert_eq!(SERVERS.map(|server| pool.version(server)), ["2.0.0", "2.0.0"]);
    assert_eq!(cloud.calls(), one_after_the_other[0]);
    assert_eq!(
        SERVERS.map(|server| cloud.health(server)),
        ["healthy", "healthy"].map(|state| Some(state.into()))
    );

    // Draining that cannot begin: nothing is restarted, and the server stays where it was.
    cloud.set("errors", json!([["deregister-targets", "AccessDenied", 2]]));
    pool.publish("4.0.0", &adapted, &[]);
    let denied = pool.roll_out("4.0.0");
    assert_eq!(denied.code, 3, "{}{}", denied.stdout, denied.stderr);
    assert!(denied.stdout.contains("An error occurred (AccessDenied)"), "{}", denied.stdout);
    assert!(
        denied.stdout.contains("cannot deregister Id=i-web-1,Port=8080 from arn:aws:"),
        "{}",
        denied.stdout
    );
    assert_eq!(SERVERS.map(|server| pool.state(server)), ["failed", "not-reached"]);
    assert_eq!(
        SERVERS.map(|server| cloud.health(server)),
        ["healthy", "healthy"].map(|state| Some(state.into()))
    );
}

#[test]
fn the_script_follows_the_states_and_says_what_it_sees() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::new(directory.path());
    let drain = at_both("deregister-targets", "web-1");

    let (code, said) = cloud.script("web-1", "drain", &[]);
    assert!(code == 0 && said.contains("draining") && said.contains("is out of rotation"), "{said}");
    assert_eq!((cloud.calls(), cloud.health("web-1")), (drain.to_vec(), None));
    let (code, said) = cloud.script("web-1", "drain", &[]);
    assert!(code == 0 && said.contains("already"), "{said}");
    assert_eq!(cloud.calls(), [""; 0]);

    let (code, said) = cloud.script("web-2", "drain", &[]);
    assert!(code == 1 && said.contains("0 others are healthy") && said.contains("not drained"), "{said}");
    assert_eq!(cloud.calls(), [""; 0]);

    for _ in 0..2 {
        let (code, said) = cloud.script("web-1", "ready", &[]);
        assert!(code == 0 && said.contains(&format!("healthy in {INTERNAL}")), "{said}");
        assert_eq!(cloud.health("web-1").as_deref(), Some("healthy"));
    }

    // Draining that takes longer than it may.
    cloud.set("draining", json!(1000));
    let (code, said) = cloud.script("web-1", "drain", &[("DRAIN_SECONDS", "1")]);
    assert!(code == 1 && said.contains("OVERDUE: still draining in arn:aws:"), "{said}");
    assert!(said.contains("not going on"), "{said}");
    let go_on = [("DRAIN_SECONDS", "1"), ("DRAIN_OVERDUE", "go-on")];
    let (code, said) = cloud.script("web-1", "drain", &go_on);
    assert!(code == 0 && said.contains("WILL BE CUT OFF"), "{said}");

    // Registered while it drains; its checks do not find it healthy.
    cloud.set("becomes", json!(["unhealthy", "Target.FailedHealthChecks"]));
    let (code, said) = cloud.script("web-1", "ready", &[("READY_SECONDS", "4")]);
    assert!(code == 1 && said.contains("is unhealthy (Target.FailedHealthChecks)"), "{said}");
    // It serves nobody, so it may be taken out whatever the others do.
    cloud.set("draining", json!(0));
    assert_eq!(cloud.script("web-1", "drain", &[("LEAST_OTHERS", "5")]).0, 0);

    // A look that fails is repeated, and not for ever.
    cloud.set("becomes", json!(["healthy", null]));
    cloud.set("errors", json!([["describe-target-health", "Throttling", 3]]));
    let (code, said) = cloud.script("web-1", "ready", &[]);
    assert!(code == 0 && said.matches("(Throttling)").count() == 3, "{said}");
    cloud.set("errors", json!([["describe-target-health", "ExpiredToken", 100]]));
    let (code, said) = cloud.script("web-1", "drain", &[]);
    assert!(code == 1 && said.contains("exit code 254 from aws, 5 times in a row"), "{said}");
    assert_eq!(cloud.health("web-1").as_deref(), Some("healthy"));

    cloud.set("errors", json!([]));
    let missing =
        [("TARGET_ID", "i-1"), ("TARGET_GROUPS", "arn:aws:x:targetgroup/no/1"), ("FAKE_AWS", "state.json")];
    let path = format!("{}/bin:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let (code, said) = cloud.script("web-1", "ready", &[&missing[..], &[("PATH", &path)]].concat());
    assert!(code == 1 && said.contains("TargetGroupNotFound") && said.contains("cannot register"), "{said}");
}
