//! From a publication to production by itself: what begins, what waits and for what, and what a crash or a person does to
//! it.

use std::{fs, path::Path, time::Duration};

use consign_tests::{
    scene::{Operator, Ran},
    wait::until,
};
use serde_json::Value;

use crate::scene::{ACTIVATE, Scene};

const LONG: Duration = Duration::from_secs(60);
const STAGING: &str = "[environment.staging]\ndeploy = \"on-publish\"\n";
/// Long before and long after any test.
const FROZEN: &str =
    "[[environment.production.freeze]]\nfrom = 2000-01-01T00:00:00Z\nto = 2199-01-01T00:00:00Z\n";

/// A server in staging and one in production.
struct Pipeline {
    scene: Scene,
}

impl Pipeline {
    fn start(settings: &str) -> Self {
        let mut scene = Scene::without_agents(&["app"], &["staging", "production"]);
        for (name, environment) in [("stage-1", "staging"), ("web-1", "production")] {
            scene.enrol(name, environment, &["--allow-app", "app", "--allow-user", "root"]);
        }
        let pipeline = Self { scene };
        pipeline.apply(settings);
        pipeline
    }

    fn operator(&self) -> &Operator {
        &self.scene.operator
    }

    fn apply(&self, settings: &str) {
        let file = self.scene.directory.path().join("environments.toml");
        fs::write(&file, settings).unwrap();
        self.operator().ok(&["env", "apply", file.to_str().unwrap()]);
    }

    fn publish(&self, version: &str) {
        self.scene.publish(version, ACTIVATE, &[("app", version)]);
    }

    /// Waits until this server, of those in the order of their enrolment, runs the version.
    fn runs(&self, server: usize, version: &str) {
        let link = self.scene.agents[server].apps().join("app/current");
        until(&format!("server {server} runs {version}"), LONG, || match running(&link) {
            Some(running) if running == version => Ok(()),
            other => Err((other, self.candidates(&["--all"]))),
        });
        // And the coordinator knows that it has ended.
        let environment = if server == 0 { "staging" } else { "production" };
        until("no rollout is under way", LONG, || {
            let shown = self.operator().json(&["env", "show", environment]);
            let busy =
                shown["apps"].as_array().unwrap().iter().any(|app| app["rollouts"] != Value::Array(vec![]));
            if busy { Err(shown) } else { Ok(()) }
        });
    }

    /// The agent of production comes back at once, and not when it has waited longer and longer.
    fn reconnect(&mut self) {
        self.scene.agents[1].kill();
        self.scene.agents[1].launch();
        self.operator().wait_online("web-1");
    }

    /// A coordinator that dies at this point, of those that it passes from now on.
    fn counting(&mut self, counter: &Path, at: u64) {
        self.scene.coordinator.kill();
        fs::write(counter, "").unwrap();
        let count = format!("serve:{}", counter.display());
        self.scene.coordinator.launch_with(|command| {
            command.env("CONSIGN_CRASH_COUNT", &count).env("CONSIGN_CRASH_AT", at.to_string());
        });
        until("it listens", LONG, || {
            let shown = self.operator().run(&["status"]);
            if shown.code == 0 { Ok(()) } else { Err(shown) }
        });
        self.reconnect();
        let passed = fs::read(counter).unwrap().len() / 64;
        assert!(passed < PADDING, "{passed} points were passed before anything was published");
        let more = format!("{:<63}\n", "padding").repeat(PADDING - passed);
        let mut file = fs::OpenOptions::new().append(true).open(counter).unwrap();
        std::io::Write::write_all(&mut file, more.as_bytes()).unwrap();
    }

    fn candidates(&self, more: &[&str]) -> Vec<Value> {
        let found = self.operator().json(&[&["candidate", "list"][..], more].concat());
        found.as_array().unwrap().clone()
    }

    /// Waits until what `env` has of this version is so.
    fn candidate(&self, environment: &str, version: &str, so: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the candidate {version}"), LONG, || {
            let all = self.candidates(&["--all", "--env", environment]);
            match all.iter().find(|candidate| candidate["version"] == version) {
                Some(candidate) if so(candidate) => Ok(candidate.clone()),
                other => Err(other.cloned()),
            }
        })
    }

    fn waits(&self, environment: &str, version: &str, what_for: &str) -> Value {
        self.candidate(environment, version, |it| it["state"] == "waiting" && it["waits_for"] == what_for)
    }

    /// Versions in the order in which rollouts of them were started, without ways back.
    fn rollouts(&self, environment: &str) -> Vec<String> {
        let all = self.operator().json(&["rollout", "list", "--env", environment, "--limit", "100"]);
        let deploys = all.as_array().unwrap().iter().rev().filter(|rollout| rollout["kind"] == "deploy");
        deploys.map(|rollout| rollout["version"].as_str().unwrap().to_owned()).collect()
    }
}

fn running(link: &Path) -> Option<String> {
    let release = fs::read_link(link).ok()?;
    Some(release.file_name()?.to_str()?.split_once('-')?.0.to_owned())
}

fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, code, "{all}");
    for part in parts {
        assert!(all.contains(part), "{part:?} is not in\n{all}");
    }
}

#[test]
fn what_is_published_goes_to_staging_and_when_it_is_green_there_to_production() {
    let all = format!("{STAGING}[environment.production]\ndeploy = \"after:staging\"\n");
    let pipeline = Pipeline::start(&all);
    pipeline.publish("1.0.0");
    pipeline.runs(0, "1.0.0");
    pipeline.runs(1, "1.0.0");
    let artifact = pipeline.operator().json(&["artifact", "show", "app@1.0.0"]);
    let rollouts = pipeline.operator().json(&["rollout", "list"]);
    let [second, first] = &rollouts.as_array().unwrap()[..] else { panic!("{rollouts}") };
    for (rollout, environment) in [(first, "staging"), (second, "production")] {
        assert_eq!(rollout["environment"], environment, "{rollout}");
        assert_eq!(rollout["started_by"], "the pipeline");
        assert_eq!(rollout["digest"], artifact["digest"]);
    }
    let reason = second["reason"].as_str().unwrap();
    assert!(reason.contains(&first["id"].as_str().unwrap()[..8]), "{reason}");

    // What is not green goes nowhere.
    let bad = format!("[[step]]\nname = \"no\"\nshell = \"exit 1\"\n{ACTIVATE}");
    pipeline.scene.publish("1.1.0", &bad, &[("app", "1.1.0")]);
    until("it stopped", LONG, || {
        let newest = pipeline.operator().json(&["rollout", "list", "--env", "staging", "--limit", "1"]);
        if newest[0]["exit_code"] == 3 { Ok(()) } else { Err(newest) }
    });
    assert_eq!(pipeline.rollouts("production"), ["1.0.0"]);

    // A freeze keeps what is green waiting, and says until when; settings without one let it go.
    pipeline.apply(&format!("{all}{FROZEN}"));
    pipeline.publish("1.2.0");
    pipeline.runs(0, "1.2.0");
    let waits = pipeline.waits("production", "1.2.0", "freeze");
    assert!(waits["because"].as_str().unwrap().contains("2199-01-01"), "{waits}");
    let shown = pipeline.operator().ok(&["env", "show", "production"]);
    for part in
        ["frozen until 2199", "deploy = \"after:staging\"", "app@1.2.0", "waits for the end of the freeze"]
    {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    says(&pipeline.operator().run(&["status"]), 0, &["candidates   1 waiting"]);
    says(&pipeline.operator().run(&["candidate", "show", "app@1.2.0"]), 0, &["in production", "in staging"]);
    assert_eq!(pipeline.rollouts("production"), ["1.0.0"]);
    pipeline.apply(&all);
    pipeline.runs(1, "1.2.0");
    assert_eq!(pipeline.rollouts("production"), ["1.0.0", "1.2.0"]);
}

#[test]
fn only_the_newest_waits_where_that_is_asked_and_what_a_person_starts_pins() {
    let mode = |keep: &str| {
        format!("[environment.production]\ndeploy = \"on-publish\"\ncandidates = \"{keep}\"\n{FROZEN}")
    };
    let pipeline = Pipeline::start(&mode("newest"));
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        pipeline.publish(version);
    }
    pipeline.waits("production", "1.2.0", "freeze");
    for version in ["1.0.0", "1.1.0"] {
        let superseded = pipeline.candidate("production", version, |it| it["state"] == "superseded");
        // By whichever was the newest when it was looked at.
        let because = superseded["because"].as_str().unwrap();
        assert!(because.ends_with("is newer, and only the newest waits"), "{superseded}");
    }
    pipeline.apply(mode("newest").strip_suffix(FROZEN).unwrap());
    pipeline.runs(1, "1.2.0");
    assert_eq!(pipeline.rollouts("production"), ["1.2.0"]);

    // All wait; a person takes the older one, which nothing keeps, and then the newer one is not started by itself.
    pipeline.apply(&mode("all"));
    pipeline.publish("1.3.0");
    pipeline.publish("1.4.0");
    pipeline.waits("production", "1.3.0", "freeze");
    let start = ["candidate", "start", "app@1.3.0", "--env", "production", "--follow"];
    says(&pipeline.operator().run(&start), 0, &["succeeded"]);
    let started = pipeline.candidate("production", "1.3.0", |it| it["state"] == "started");
    assert_ne!(started["settled_by"], "the pipeline");
    pipeline.apply(mode("all").strip_suffix(FROZEN).unwrap());
    let held = pipeline.waits("production", "1.4.0", "hold");
    assert!(held["because"].as_str().unwrap().contains("older than the candidate 1.4.0"), "{held}");
    assert_eq!(pipeline.rollouts("production"), ["1.2.0", "1.3.0"]);
    pipeline.operator().ok(&["env", "lift-hold", "app", "--env", "production", "--reason", "seen"]);
    pipeline.runs(1, "1.4.0");
}

#[test]
fn a_candidate_begins_after_its_veto_period_unless_somebody_says_no() {
    let veto = |span: &str| format!("[environment.production]\ndeploy = \"on-publish\"\nveto = \"{span}\"\n");
    let pipeline = Pipeline::start(&veto("100h"));
    pipeline.publish("1.0.0");
    let waits = pipeline.waits("production", "1.0.0", "veto");
    let (since, until_ms) = (waits["since_ms"].as_u64().unwrap(), waits["until_ms"].as_u64().unwrap());
    assert_eq!(until_ms - since, 100 * 3_600_000);
    let no = ["candidate", "veto", "app@1.0.0", "--env", "production", "--reason", "checkout is slow"];
    says(&pipeline.operator().run(&no), 0, &["does not begin by itself"]);
    let vetoed = pipeline.candidate("production", "1.0.0", |it| it["state"] == "vetoed");
    assert_eq!(vetoed["because"], "checkout is slow");
    says(&pipeline.operator().run(&no), 1, &["it is vetoed"]);
    let unknown = ["candidate", "veto", "app@9.0.0", "--env", "production", "--reason", "no"];
    says(&pipeline.operator().run(&unknown), 1, &["no candidate there"]);

    // The span is looked at anew: the next one begins when it is over, and not before.
    pipeline.apply(&veto("2s"));
    pipeline.publish("1.1.0");
    pipeline.runs(1, "1.1.0");
    assert_eq!(pipeline.rollouts("production"), ["1.1.0"], "what was vetoed stays so");
    let begun = pipeline.candidate("production", "1.1.0", |it| it["state"] == "started");
    let waited = begun["settled_ms"].as_u64().unwrap() - begun["since_ms"].as_u64().unwrap();
    assert!(waited >= 2000, "{begun}");
    says(
        &pipeline.operator().run(&["env", "show", "production"]),
        0,
        &["veto app@1.0.0", "checkout is slow"],
    );
}

/// T10: with automatic promotion on, an operator rolls back.
#[test]
fn t10_what_was_rolled_back_is_not_promoted_again_until_the_hold_is_lifted() {
    let mut pipeline = Pipeline::start("[environment.production]\ndeploy = \"on-publish\"\n");
    for version in ["1.0.0", "1.1.0"] {
        pipeline.publish(version);
        pipeline.runs(1, version);
    }
    let back =
        ["rollout", "rollback", "app", "--env", "production", "--reason", "checkout is slow", "--follow"];
    assert_eq!(pipeline.operator().run(&back).code, 0);
    pipeline.runs(1, "1.0.0");
    // Neither what was left nor anything newer, whatever happens.
    pipeline.publish("1.2.0");
    pipeline.waits("production", "1.2.0", "hold");
    pipeline.apply("[environment.production]\ndeploy = \"on-publish\"\nbake = \"1s\"\n");
    pipeline.scene.coordinator.kill();
    pipeline.scene.coordinator.launch();
    pipeline.operator().wait_online("web-1");
    pipeline.publish("1.3.0");
    pipeline.waits("production", "1.3.0", "hold");
    let held = pipeline.waits("production", "1.2.0", "hold");
    assert!(held["because"].as_str().unwrap().contains("rolled back from 1.1.0"), "{held}");
    assert_eq!(pipeline.rollouts("production"), ["1.0.0", "1.1.0"]);
    pipeline.runs(1, "1.0.0");
    let status = ["HOLD", "app in production: rolled back from 1.1.0: checkout is slow", "env lift-hold app"];
    says(&pipeline.operator().run(&["status"]), 0, &status);
    // One that waits for it in CI hears it at once.
    let source = pipeline.scene.source("app", "1.4.0", ACTIVATE, &[("app", "1.4.0")]);
    let publish =
        ["artifact", "publish", source.to_str().unwrap(), "--version", "1.4.0", "--wait-for", "production"];
    says(&pipeline.operator().run(&publish), 6, &["held in production", "checkout is slow"]);

    pipeline.operator().ok(&[
        "env",
        "lift-hold",
        "app",
        "--env",
        "production",
        "--reason",
        "1.2.0 has the fix",
    ]);
    pipeline.runs(1, "1.4.0");
    assert_eq!(pipeline.rollouts("production"), ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"]);

    // And by hand.
    let hold = ["env", "hold", "app", "--env", "production", "--reason", "the warehouse moves"];
    says(&pipeline.operator().run(&hold), 0, &["on hold since", "the warehouse moves"]);
    says(&pipeline.operator().run(&hold), 1, &["on-hold"]);
    pipeline.publish("1.5.0");
    pipeline.waits("production", "1.5.0", "hold");
    // What a person starts begins all the same.
    let start = ["rollout", "start", "app@1.5.0", "--env", "production", "--follow"];
    assert_eq!(pipeline.operator().run(&start).code, 0);
    pipeline.runs(1, "1.5.0");
}

/// The gate without a person; its first mistake brings the person back.
#[test]
fn a_robot_opens_the_gate_until_something_fails() {
    let mut pipeline = Pipeline::start("[environment.production]\ndeploy = \"on-publish\"\n");
    let keys = pipeline.scene.directory.path().to_owned();
    let key = |name: &str| keys.join(format!("{name}.key")).display().to_string();
    let operator = pipeline.operator().clone();
    for (name, role) in [("qa", "qa"), ("pat", "product-owners")] {
        operator.ok(&["key", "generate", &key(name), "--owner", name]);
        let public = format!("{role}={}", keys.join(format!("{name}.pub")).display());
        operator.ok(&["trust", "add-key", &public, "--threshold", "1"]);
    }
    let gate = ["trust", "set-gate", "production", "--require", "test-result by qa", "--rearm"];
    operator.ok(&[&gate[..], &["approval by product-owners"]].concat());
    let attest = |version: &str| {
        let artifact = format!("app@{version}");
        operator.ok(&["attest", &artifact, "--result", "PASSED", "--key", &key("qa")]);
    };

    pipeline.publish("1.0.0");
    let waits = pipeline.waits("production", "1.0.0", "gate");
    assert!(waits["because"].as_str().unwrap().contains("qa"), "{waits}");
    attest("1.0.0");
    pipeline.runs(1, "1.0.0");

    let bad = format!("{ACTIVATE}[[step]]\nname = \"healthy\"\nshell = \"exit 1\"\n");
    pipeline.scene.publish("1.1.0", &bad, &[("app", "1.1.0")]);
    attest("1.1.0");
    until("it failed", LONG, || {
        let newest = operator.json(&["rollout", "list", "--env", "production", "--limit", "1"]);
        let ended = newest[0]["version"] == "1.1.0" && newest[0]["ended_ms"].is_u64();
        if ended { Ok(()) } else { Err(newest) }
    });
    pipeline.runs(1, "1.0.0");

    // The robot's word is not enough any more, for us as for the servers, also after a restart of both.
    pipeline.publish("1.2.0");
    attest("1.2.0");
    let rearmed = pipeline.waits("production", "1.2.0", "gate");
    assert!(rearmed["because"].as_str().unwrap().contains("product-owners"), "{rearmed}");
    pipeline.scene.agents[1].kill();
    pipeline.scene.coordinator.kill();
    pipeline.scene.coordinator.launch();
    pipeline.scene.agents[1].launch();
    operator.wait_online("web-1");
    pipeline.waits("production", "1.2.0", "gate");
    assert_eq!(pipeline.rollouts("production"), ["1.0.0", "1.1.0"]);
    operator.ok(&["approve", "app@1.2.0", "--env", "production", "--key", &key("pat"), "--yes"]);
    pipeline.runs(1, "1.2.0");
    // It went well: nobody is asked any more.
    pipeline.publish("1.3.0");
    attest("1.3.0");
    pipeline.runs(1, "1.3.0");
    assert_eq!(pipeline.rollouts("production"), ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]);
}

/// A hotfix that was built later overtakes what waits for its approval, and that goes after it all the same: each by the
/// approval that was signed for it, and the second one by the very plan that was approved.
#[test]
fn a_hotfix_overtakes_what_waits_and_both_go_through() {
    let pipeline = Pipeline::start("[environment.production]\ndeploy = \"on-publish\"\n");
    let operator = pipeline.operator();
    let key = |name: &str| pipeline.scene.directory.path().join(name).display().to_string();
    operator.ok(&["key", "generate", &key("pat.key"), "--owner", "pat"]);
    operator.ok(&["trust", "add-key", &format!("product-owners={}", key("pat.pub")), "--threshold", "1"]);
    operator.ok(&["trust", "set-gate", "production", "--require", "approval by product-owners"]);
    pipeline.publish("1.0.0");
    pipeline.publish("1.0.1");
    pipeline.waits("production", "1.0.0", "gate");
    pipeline.waits("production", "1.0.1", "gate");
    let approve = |version: &str, more: &[&str]| {
        let (artifact, key) = (format!("app@{version}"), key("pat.key"));
        let approve = ["approve", &artifact, "--env", "production", "--key", &key, "--yes"];
        operator.ok(&[&approve[..], more].concat());
    };
    approve("1.0.1", &[]);
    pipeline.runs(1, "1.0.1");
    pipeline.waits("production", "1.0.0", "gate");
    approve("1.0.0", &["--with-plan"]);
    pipeline.runs(1, "1.0.0");
    assert_eq!(pipeline.rollouts("production"), ["1.0.1", "1.0.0"]);
    let newest = operator.json(&["rollout", "list", "--env", "production", "--limit", "1"]);
    assert_eq!(newest[0]["plan"].as_str().unwrap().len(), 64, "{newest}");
}

/// The coordinator dies at every instant between a publication and the start of its rollout: nothing that was published
/// is lost, and nothing begins twice.
#[test]
fn a_coordinator_that_dies_between_publication_and_start_starts_once() {
    let mut pipeline = Pipeline::start("[environment.production]\ndeploy = \"on-publish\"\n");
    let counter = pipeline.scene.directory.path().join("points");
    // Once to its end: what is passed from the first commit on, with the artifact's row, up to the order being sent.
    pipeline.counting(&counter, u64::MAX);
    pipeline.publish("1.0.0");
    pipeline.runs(1, "1.0.0");
    let passed = points(&counter);
    let first = passed.iter().position(|at| at == "store-commit-before").unwrap();
    let order = passed.iter().position(|at| at == "order-send-after").unwrap();
    assert!(first < order, "{passed:?}");
    let mut killed = Vec::new();
    let mut expected = vec!["1.0.0".to_owned()];
    for point in first..=order {
        let version = format!("1.{}.0", point + 1);
        let source = pipeline.scene.source("app", &version, ACTIVATE, &[("app", &version)]);
        pipeline.counting(&counter, u64::try_from(PADDING + point + 1).unwrap());
        let publish = ["artifact", "publish", source.to_str().unwrap(), "--version", &version];
        let publishing = pipeline.operator().spawn(&publish);
        until("it is gone", LONG, || if pipeline.scene.coordinator.is_gone() { Ok(()) } else { Err(()) });
        killed.push(points(&counter).pop().unwrap_or_default());
        pipeline.scene.coordinator.launch();
        pipeline.reconnect();
        // The publisher tries again by itself, with what it signed; unless it had not begun.
        let published = publishing.wait_with_output().unwrap();
        if !published.status.success() {
            let known = pipeline.operator().run(&["artifact", "show", &format!("app@{version}")]);
            assert_eq!(known.code, 1, "{point}: {published:?}");
            pipeline.operator().ok(&publish);
        }
        pipeline.runs(1, &version);
        expected.push(version);
    }
    assert_eq!(pipeline.rollouts("production"), expected, "each once: {killed:?}");
    for point in ["store-commit-before", "store-commit-after", "order-send-before"] {
        assert!(killed.iter().any(|at| at == point), "{point} is not in {killed:?}");
    }
}

/// Points that are taken as passed before anything is published.
const PADDING: usize = 1000;

/// Those that were passed since.
fn points(counter: &Path) -> Vec<String> {
    let text = fs::read_to_string(counter).unwrap();
    text.lines().skip(PADDING).map(|line| line.trim().to_owned()).collect()
}
