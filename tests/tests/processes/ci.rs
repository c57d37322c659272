//! The templates for CI: their syntax, and their steps as plain shell against a real coordinator.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use consign_tests::scene::{Ran, binary};
use serde_json::Value;

use crate::scene::{ACTIVATE, Scene};

fn template(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ci").join(name)
}

/// As PyYAML reads it.
fn parse(path: &Path) -> Value {
    let script =
        "import json, sys, yaml\njson.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout, default=str)";
    let output = Command::new("python3").args(["-c", script]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A coordinator with a server in staging, an operator for CI, and what a team gives its CI as secrets.
struct Ci {
    scene: Scene,
}

impl Ci {
    fn start(deploy: &str) -> Self {
        let mut scene = Scene::without_agents(&["app"], &["staging"]);
        scene.enrol("web-1", "staging", &["--allow-app", "app", "--allow-user", "root"]);
        let file = scene.directory.path().join("environments.toml");
        fs::write(&file, format!("[environment.staging]\ndeploy = \"{deploy}\"\n")).unwrap();
        scene.operator.ok(&["env", "apply", file.to_str().unwrap()]);
        Self { scene }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.directory.path().join(name)
    }

    /// What the team's own place gives out, and the secrets.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let operator = &self.scene.operator;
        let home = self.path("ci-home");
        let token = operator.ok(&["operator", "add", "robot", "--role", "ci"]);
        let joined = Command::new(binary("consign"))
            .args(["operator", "join", token.trim(), "--home"])
            .arg(&home)
            .output()
            .unwrap();
        assert!(joined.status.success(), "{joined:?}");
        let profile = shell("tar -C \"$HOME_OF_CI\" -cz . | base64 -w0", &[("HOME_OF_CI", text(&home))]);
        let sum = shell("sha256sum \"$FILE\" | cut -d' ' -f1", &[("FILE", text(&binary("consign")))]);
        let key = fs::read_to_string(operator.home().join("keys/publisher.key")).unwrap();
        vec![
            ("CONSIGN_URL", format!("file://{}", binary("consign").display())),
            ("CONSIGN_SHA256", sum.trim().to_owned()),
            ("CONSIGN_PROFILE", profile.trim().to_owned()),
            ("CONSIGN_PUBLISHER_KEY", key.clone()),
            ("CONSIGN_QA_KEY", key),
            ("APP", "app".to_owned()),
            ("CI", "true".to_owned()),
            ("HOME", text(&self.path("runner"))),
            ("PATH", std::env::var("PATH").unwrap()),
        ]
    }

    /// The steps one after the other, as a runner executes them: each in a shell of its own, in the source's directory,
    /// until one fails.
    fn run(&self, steps: &[String], version: &str) -> (Ran, usize) {
        let source = self.scene.source("app", version, ACTIVATE, &[("app", version)]);
        fs::create_dir_all(self.path("runner")).unwrap();
        let added = self.path("github-path");
        fs::write(&added, "").unwrap();
        let mut environment = self.environment();
        environment.extend([("VERSION", version.to_owned()), ("GITHUB_PATH", text(&added))]);
        let mut all = Ran { code: 0, stdout: String::new(), stderr: String::new() };
        for (index, step) in steps.iter().enumerate() {
            let path = fs::read_to_string(&added).unwrap().lines().collect::<Vec<_>>().join(":");
            let output = Command::new("bash")
                .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", step])
                .env_clear()
                .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
                .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()))
                .current_dir(&source)
                .output()
                .unwrap();
            all.stdout += &String::from_utf8_lossy(&output.stdout);
            all.stderr += &String::from_utf8_lossy(&output.stderr);
            all.code = output.status.code().unwrap_or(-1);
            if all.code != 0 {
                return (all, index);
            }
        }
        (all, steps.len())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn shell(script: &str, environment: &[(&str, String)]) -> String {
    let output = Command::new("bash")
        .args(["-ec", script])
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// GitHub's: every `run` of the one job. The expressions that only a runner knows are in `env`, and nowhere else.
fn github() -> Vec<String> {
    let workflow = parse(&template("github-actions.yml"));
    let job = &workflow["jobs"]["deploy"];
    for secret in ["CONSIGN_PROFILE", "CONSIGN_PUBLISHER_KEY", "CONSIGN_QA_KEY"] {
        let steps = job["steps"].as_array().unwrap().iter();
        let given = steps.filter_map(|step| step["env"][secret].as_str()).collect::<Vec<_>>();
        assert!(!given.is_empty(), "no step has {secret}");
        assert!(given.iter().all(|value| *value == format!("${{{{ secrets.{secret} }}}}")), "{given:?}");
        assert!(job["env"][secret].is_null() && workflow["env"][secret].is_null(), "a secret of every step");
    }
    let steps: Vec<String> = job["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["run"].as_str())
        .map(str::to_owned)
        .collect();
    assert!(steps.iter().all(|step| !step.contains("${{")), "an expression in a script");
    steps
}

/// GitLab's: the one job's `before_script` and `script`, which run in one shell.
fn gitlab() -> Vec<String> {
    let pipeline = parse(&template("gitlab-ci.yml"));
    let job = &pipeline["deploy"];
    let lines = |key: &str| {
        let lines = job[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
        lines.collect::<Vec<String>>()
    };
    vec![[lines("before_script"), lines("script")].concat().join("\n")]
}

#[test]
fn the_templates_steps_publish_wait_and_attest() {
    let ci = Ci::start("on-publish");
    for (version, steps) in [("1.0.0", github()), ("1.1.0", gitlab())] {
        let (ran, done) = ci.run(&steps, version);
        assert_eq!((ran.code, done), (0, steps.len()), "{version}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(&format!("succeeded: app {version} to staging")), "{}", ran.stdout);
        assert!(ran.stdout.contains("test-result"), "{}", ran.stdout);
        let link = fs::read_link(ci.scene.agents[0].apps().join("app/current")).unwrap();
        assert!(text(&link).contains(version), "{link:?}");
        let secrets = ["PRIVATE KEY", "\"private\"", "seed"];
        assert!(secrets.iter().all(|secret| !format!("{}{}", ran.stdout, ran.stderr).contains(secret)));
        fs::remove_dir_all(ci.path("ci-home")).unwrap();
        ci.scene.operator.ok(&["operator", "remove", "robot"]);
    }
    let shown = ci.scene.operator.json(&["candidate", "list", "--all"]);
    assert_eq!(shown.as_array().unwrap().len(), 2);
}

#[test]
fn the_exit_code_is_the_rollouts_and_what_does_not_begin_has_words() {
    let ci = Ci::start("on-publish");
    let operator = &ci.scene.operator;
    let publish = |version: &str, steps: &str, more: &[&str]| {
        let source = ci.scene.source("app", version, steps, &[("app", version)]);
        let source = text(&source);
        let wait = ["artifact", "publish", &source, "--version", version, "--wait-for", "staging"];
        operator.run(&[&wait[..], more].concat())
    };
    let says = |ran: &Ran, code: i32, parts: &[&str]| {
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, code, "{all}");
        for part in parts {
            assert!(all.contains(part), "{part:?} is not in\n{all}");
        }
    };
    says(&publish("1.0.0", ACTIVATE, &[]), 0, &["rollout", "web-1", "succeeded"]);
    let failing = format!("{ACTIVATE}[[step]]\nname = \"healthy\"\nshell = \"echo it is not; exit 1\"\n");
    says(&publish("1.1.0", &failing, &[]), 4, &["it is not"]);
    // JSON, a line for each happening, and the last one has the code.
    let lines = publish("1.2.0", ACTIVATE, &["--output", "json"]);
    assert_eq!(lines.code, 0, "{}", lines.stderr);
    let lines: Vec<Value> = lines.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.first().unwrap()["event"], "published");
    assert_eq!(
        (&lines.last().unwrap()["event"], &lines.last().unwrap()["exit_code"]),
        (&"end".into(), &0.into())
    );

    // Nothing is published where nothing would follow.
    says(&publish("1.3.0", ACTIVATE, &["--wait-for", "nowhere"]), 2, &["--wait-for"]);
    let apply = |text: &str| {
        let file = ci.path("environments.toml");
        fs::write(&file, text).unwrap();
        operator.ok(&["env", "apply", file.to_str().unwrap()]);
    };
    apply("[environment.staging]\n");
    says(&publish("1.3.0", ACTIVATE, &[]), 1, &["nothing follows in staging by itself", "rollout start"]);
    assert_eq!(operator.run(&["artifact", "show", "app@1.3.0"]).code, 1);
    // What waits for longer than one is ready to.
    apply("[environment.staging]\ndeploy = \"on-publish\"\nveto = \"100h\"\ncandidates = \"newest\"\n");
    says(
        &publish("1.3.0", ACTIVATE, &["--timeout", "2s"]),
        7,
        &["staging: waits for the end of the veto period", "not over within"],
    );
    // Somebody says no, or publishes something newer, while it is waited for.
    let waiting = |version: &str, then: &dyn Fn()| {
        let source = text(&ci.scene.source("app", version, ACTIVATE, &[("app", version)]));
        let wait = ["artifact", "publish", &source, "--version", version, "--wait-for", "staging"];
        let mut waits = operator.spawn(&wait);
        consign_tests::wait::until("it waits", std::time::Duration::from_secs(60), || {
            let shown = operator.run(&["candidate", "show", &format!("app@{version}")]);
            if shown.stdout.contains("veto period") { Ok(()) } else { Err(shown) }
        });
        assert!(matches!(waits.try_wait(), Ok(None)), "it does not wait");
        then();
        let output = waits.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let veto = || {
        operator.ok(&["candidate", "veto", "app@1.4.0", "--env", "staging", "--reason", "not today"]);
    };
    says(&waiting("1.4.0", &veto), 6, &["vetoed in staging", "not today"]);
    let newer = || ci.scene.publish("1.6.0", ACTIVATE, &[("app", "1.6.0")]);
    says(&waiting("1.5.0", &newer), 5, &["superseded in staging", "1.6.0 is newer"]);
}
