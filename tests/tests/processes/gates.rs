//! Gates as people meet them: what is missing and which command supplies it, what an approval is of, and what a
//! coordinator that lies makes of it.

use std::{fs, path::Path, process::Command, thread::sleep, time::Duration};

use consign_common::{
    name::{Environment, Owner},
    trust::{Envelope, Gate, GateRule, Key, KeyFile, RoleKeys, Scheme, Separation, TrustRoot},
};
use consign_coordinator::bundle::Bundle;
use consign_tests::{
    scene::{Coordinator, Operator, Ran},
    wait::until,
};

use crate::scene::{ACTIVATE, Scene};

const APPROVAL: &str = "consign:approval/v1";

/// Staging takes what is published; pre and production take what one product owner has approved: pat, who is not the one
/// who publishes.
pub(crate) struct Gated {
    pub(crate) scene: Scene,
}

impl Gated {
    pub(crate) fn start(servers: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("operator");
        let mut operator = Operator::init(&home, &["app"], &["staging", "pre", "production"]);
        let pat = directory.path().join("pat.key");
        operator.ok(&["key", "generate", pat.to_str().unwrap(), "--owner", "pat"]);
        set_gates(&operator, &pat, &["pre", "production"]);
        let coordinator = Coordinator::start(directory.path(), &mut operator, "127.0.0.1");
        let mut scene = Scene { agents: Vec::new(), coordinator, operator, directory };
        for (name, environment) in servers {
            scene.enrol(name, environment, &["--allow-app", "app", "--allow-user", "root"]);
        }
        Self { scene }
    }

    fn pat(&self) -> String {
        self.scene.directory.path().join("pat.key").display().to_string()
    }

    pub(crate) fn approve(&self, version: &str, environment: &str, more: &[&str]) -> Ran {
        let (artifact, key) = (format!("app@{version}"), self.pat());
        let mut arguments = vec!["approve", &artifact, "--env", environment, "--key", &key, "--yes"];
        arguments.extend(more);
        self.scene.operator.run(&arguments)
    }

    fn roll_out(&self, version: &str, more: &[&str]) -> Ran {
        let artifact = format!("app@{version}");
        let mut arguments = vec!["rollout", "start", &artifact, "--env", "production", "--follow"];
        arguments.extend(more);
        self.scene.operator.run(&arguments)
    }

    fn check(&self, version: &str) -> Ran {
        self.scene.operator.run(&["rollout", "check", &format!("app@{version}"), "--env", "production"])
    }

    fn current(&self) -> Option<String> {
        let link = fs::read_link(self.scene.agents[0].apps().join("app/current")).ok()?;
        link.file_name()?.to_str()?.split_once('-').map(|(version, _)| version.to_owned())
    }
}

/// As the owner would have made it at the start: the same trust root with gates, signed anew.
fn set_gates(operator: &Operator, approver: &Path, environments: &[&str]) {
    let path = operator.home().join("trust-root.json");
    let envelope = fs::read(&path).unwrap();
    let mut root = TrustRoot::open_pinned(&envelope, TrustRoot::pin(&envelope).unwrap()).unwrap();
    let (_, key) = KeyFile::read(approver).unwrap();
    let public = key.public();
    let owner: Owner = "pat".parse().unwrap();
    root.keys.insert(public.id(), Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner });
    let role: Owner = "product-owners".parse().unwrap();
    root.roles.insert(role.clone(), RoleKeys { keys: vec![public.id()], threshold: 1 });
    for environment in environments {
        let environment: Environment = environment.parse().unwrap();
        let rule = GateRule { predicate: APPROVAL.into(), role: role.clone(), threshold: 1, condition: None };
        let gate =
            Gate::Statements { require: vec![rule], rearm: Vec::new(), separation: Separation::Publisher };
        root.environments.insert(environment, gate);
    }
    let (_, owner) = KeyFile::read(&operator.home().join("keys/owner.key")).unwrap();
    let envelope = Envelope::sign(root.payload_type(), root.to_payload(), &[&owner]).to_vec();
    fs::write(&path, &envelope).unwrap();

    let path = operator.home().join("coordinator.bundle");
    let Bundle { coordinator, ca, operator, advertise, .. } = Bundle::read(&path).unwrap();
    let bundle = Bundle::new(coordinator, ca, &envelope, operator, advertise);
    fs::write(&path, bundle.to_bytes().unwrap()).unwrap();
}

fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, code, "{all}");
    for part in parts {
        assert!(all.contains(part), "{part:?} is not in\n{all}");
    }
}

#[test]
fn production_takes_what_a_second_person_approved() {
    let mut gated = Gated::start(&[("web-1", "production")]);
    gated.scene.publish("1.0.0", ACTIVATE, &[("app", "one")]);

    let hint = "consign rollout check app@1.0.0 --env production";
    says(&gated.roll_out("1.0.0", &[]), 6, &["approval-missing", "product-owners", hint]);
    says(
        &gated.check("1.0.0"),
        6,
        &[
            "missing",
            "approval by 1 of product-owners",
            "consign approve app@1.0.0 --env production",
            "web-1",
        ],
    );
    assert_eq!(gated.current(), None);

    // The owner's key is the default, and is no product owner's.
    let by_owner = ["approve", "app@1.0.0", "--env", "production", "--yes"];
    says(&gated.scene.operator.run(&by_owner), 6, &["does not count", "pat may approve"]);
    says(&gated.approve("1.0.0", "staging", &[]), 6, &["no gate of staging asks for an approval"]);
    // Nobody is there to be asked.
    let key = gated.pat();
    let silent = ["approve", "app@1.0.0", "--env", "production", "--key", &key];
    says(&gated.scene.operator.run(&silent), 2, &["--yes"]);
    assert_eq!(gated.check("1.0.0").code, 6);

    let approved = gated.approve("1.0.0", "production", &["--reason", "release 1"]);
    says(
        &approved,
        0,
        &[
            "proven  published by",
            "told    web-1: nothing yet",
            "run activate",
            "approval of app@1.0.0 for production by pat; it counts in production",
        ],
    );
    says(&gated.check("1.0.0"), 0, &["met", "pat", "web-1: would take it", "allowed"]);
    says(&gated.roll_out("1.0.0", &[]), 0, &[]);
    assert_eq!(gated.current().as_deref(), Some("1.0.0"));

    // The approval is of that artifact, and not of the next one.
    gated.scene.publish("1.1.0", ACTIVATE, &[("app", "two"), ("new", "file")]);
    says(&gated.roll_out("1.1.0", &[]), 6, &["approval-missing"]);
    // Nor of another environment.
    says(&gated.approve("1.1.0", "pre", &[]), 0, &[]);
    says(&gated.roll_out("1.1.0", &[]), 6, &["approval-missing"]);
    // Nor for ever.
    says(
        &gated.approve("1.1.0", "production", &["--start-by", "1s"]),
        0,
        &["+ new", "~ app", "steps: the same"],
    );
    sleep(Duration::from_millis(1500));
    says(&gated.roll_out("1.1.0", &[]), 6, &["approval-expired"]);
    assert_eq!(gated.current().as_deref(), Some("1.0.0"));

    let json = gated.approve("1.1.0", "production", &["--output", "json"]);
    let approved: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(approved["by"], "pat", "{approved}");
    assert_eq!(approved["kept"]["novelty"], "new");
    assert_eq!(approved["evidence"]["running"][0]["version"], "1.0.0");
    assert_eq!(approved["evidence"]["running"][0]["artifact"]["mark"], "proven");
    says(&gated.roll_out("1.1.0", &[]), 0, &[]);
    assert_eq!(gated.current().as_deref(), Some("1.1.0"));

    // Of a server that cannot be asked the coordinator says what it knows.
    gated.scene.publish("1.2.0", ACTIVATE, &[("app", "three")]);
    gated.scene.agents[0].kill();
    until("web-1 is offline", Duration::from_secs(60), || {
        let shown = gated.scene.operator.json(&["server", "show", "web-1"]);
        if shown["online"] == false { Ok(()) } else { Err(shown) }
    });
    says(&gated.check("1.2.0"), 6, &["web-1: not-connected: approval-missing", "by what is known here"]);
    says(&gated.approve("1.2.0", "production", &[]), 0, &[]);
    says(&gated.check("1.2.0"), 0, &["by what is known here it would take it"]);
}

/// Two people, each with a home of their own: whoever approves needs no more than a viewer's certificate.
#[test]
fn a_viewer_with_the_right_key_approves() {
    let gated = Gated::start(&[("web-1", "production")]);
    gated.scene.publish("1.0.0", ACTIVATE, &[]);
    let token = gated.scene.operator.ok(&["operator", "add", "pat", "--role", "viewer"]);
    let home = gated.scene.directory.path().join("pat");
    let home = home.to_str().unwrap();
    let as_pat = |arguments: &[&str]| gated.scene.operator.run(&[&["--home", home], arguments].concat());
    says(&as_pat(&["operator", "join", token.trim()]), 0, &[]);
    let key = gated.pat();
    let approve = ["approve", "app@1.0.0", "--env", "production", "--key", &key, "--yes"];
    says(&as_pat(&approve), 0, &["run activate", "approval of app@1.0.0 for production by pat"]);
    // But not start it, nor say anything else of it.
    says(&as_pat(&["rollout", "start", "app@1.0.0", "--env", "production"]), 1, &["the role viewer"]);
    says(&as_pat(&["attest", "app@1.0.0", "--result", "PASSED", "--key", &key]), 1, &["approvals only"]);
    says(&gated.roll_out("1.0.0", &[]), 0, &[]);
}

#[test]
fn an_approved_plan_is_what_runs() {
    let gated = Gated::start(&[("web-1", "production")]);
    let warm = format!("[[step]]\nname = \"warm\"\nshell = \"echo warm\"\n{ACTIVATE}");
    gated.scene.publish("1.0.0", &warm, &[]);
    let approved = gated.approve("1.0.0", "production", &["--with-plan", "--output", "json"]);
    assert_eq!(approved.code, 0, "{}", approved.stderr);
    let approved: serde_json::Value = serde_json::from_str(&approved.stdout).unwrap();
    let plan = approved["plan_sha256"].as_str().unwrap();
    assert_eq!(approved["evidence"]["plan"]["digest"], plan);

    says(&gated.roll_out("1.0.0", &[]), 6, &["plan-not-approved"]);
    assert_eq!(gated.current(), None);
    says(&gated.roll_out("1.0.0", &["--plan", plan]), 0, &["warm"]);
    assert_eq!(gated.current().as_deref(), Some("1.0.0"));

    // A plan that was looked at before, and one that servers would not follow any more.
    gated.scene.publish("1.1.0", &warm, &[("new", "file")]);
    let shown = gated.scene.operator.json(&["rollout", "plan", "app@1.1.0", "--env", "production"]);
    let looked_at = shown["digest"].as_str().unwrap();
    says(&gated.approve("1.1.0", "production", &["--plan", plan]), 6, &["would not do any more"]);
    says(&gated.approve("1.1.0", "production", &["--plan", looked_at]), 0, &["it holds for this plan only"]);
    says(&gated.roll_out("1.1.0", &["--plan", looked_at]), 0, &[]);
}

#[test]
fn to_leave_a_step_out_takes_the_signature_of_who_approves() {
    let gated = Gated::start(&[("web-1", "production")]);
    let warm = format!("[[step]]\nname = \"warm\"\nshell = \"echo is warm\"\n{ACTIVATE}");
    gated.scene.publish("1.0.0", &warm, &[]);
    says(&gated.approve("1.0.0", "production", &[]), 0, &[]);
    let skip = ["--skip-step", "warm", "--reason", "the cache is down"];
    // By default the owner signs, whose word does not count for this.
    says(&gated.roll_out("1.0.0", &skip), 6, &["signer-unknown"]);
    let key = gated.pat();
    let signed = gated.roll_out("1.0.0", &[&skip[..], &["--key", &key]].concat());
    says(&signed, 0, &["warm: skipped"]);
    assert!(!signed.stdout.contains("is warm"), "{}", signed.stdout);
    assert_eq!(gated.current().as_deref(), Some("1.0.0"));

    // And in a rollout that has begun.
    gated.scene.publish("1.1.0", &warm, &[("new", "file")]);
    says(&gated.approve("1.1.0", "production", &[]), 0, &[]);
    let start = ["rollout", "start", "app@1.1.0", "--env", "production", "--at", "+3s"];
    let begun = gated.scene.operator.json(&start);
    let id = begun["id"].as_str().unwrap();
    let skip = ["rollout", "skip", id, "--step", "warm", "--reason", "the cache is down"];
    says(&gated.scene.operator.run(&skip), 6, &["signer-unknown"]);
    says(&gated.scene.operator.run(&[&skip[..], &["--key", &key]].concat()), 0, &[]);
    let followed = gated.scene.operator.run(&["rollout", "follow", id]);
    says(&followed, 0, &["warm: skipped"]);
    assert!(!followed.stdout.contains("is warm"), "{}", followed.stdout);
}

#[test]
fn how_an_unknown_step_ended_is_said_by_who_approves() {
    let gated = Gated::start(&[("web-1", "production")]);
    let slow =
        format!("[[step]]\nname = \"slow\"\nshell = \"echo begun > ../../begun; sleep 300\"\n{ACTIVATE}");
    gated.scene.publish("1.0.0", &slow, &[]);
    says(&gated.approve("1.0.0", "production", &[]), 0, &[]);
    let begun = gated.scene.operator.json(&["rollout", "start", "app@1.0.0", "--env", "production"]);
    let id = begun["id"].as_str().unwrap();
    let step = || gated.scene.operator.json(&["rollout", "show", id])["deployments"][0]["steps"][0].clone();
    let wait = |state: &str| {
        until(state, Duration::from_secs(60), || {
            let step = step();
            if step["state"] == state { Ok(()) } else { Err(step) }
        });
    };
    // Before it has begun a lost supervisor costs nothing: another one runs it.
    let begun = gated.scene.agents[0].apps().join("app/begun");
    until("the step has begun", Duration::from_secs(60), || {
        if begun.exists() { Ok(()) } else { Err("not yet") }
    });
    for supervisor in gated.scene.agents[0].supervisors() {
        Command::new("kill").args(["-KILL", &supervisor.to_string()]).status().unwrap();
    }
    wait("unknown");
    let decide = ["rollout", "decide", id, "--server", "web-1", "--step", "slow", "done", "--reason", "seen"];
    says(&gated.scene.operator.run(&decide), 6, &["signer-unknown"]);
    let key = gated.pat();
    says(&gated.scene.operator.run(&[&decide[..], &["--key", &key]].concat()), 0, &[]);
    until("web-1 has it", Duration::from_secs(60), || {
        let shown = gated.scene.operator.json(&["rollout", "show", id]);
        if shown["deployments"][0]["state"] == "succeeded" { Ok(()) } else { Err(shown) }
    });
    assert_eq!(gated.current().as_deref(), Some("1.0.0"));
}

#[test]
fn a_test_result_counts_until_the_next_one() {
    let gated = Gated::start(&[]);
    gated.scene.publish("1.0.0", ACTIVATE, &[]);
    let key = gated.pat();
    let attest = |more: &[&str]| gated.scene.operator.run(&[&["attest", "app@1.0.0"][..], more].concat());
    says(
        &attest(&["--result", "passed", "--key", &key]),
        0,
        &["test-result of app@1.0.0 by pat", "counts for no gate"],
    );
    // The publisher's key is the default.
    says(
        &attest(&["--result", "FAILED", "--url", "https://ci.example/1"]),
        0,
        &["test-result of app@1.0.0 by"],
    );
    says(&attest(&[]), 2, &["--result"]);
    says(&attest(&["--type", APPROVAL, "--result", "PASSED"]), 2, &["commands of their own"]);
    let stranger = gated.scene.directory.path().join("eve.key");
    let stranger = stranger.to_str().unwrap();
    gated.scene.operator.ok(&["key", "generate", stranger, "--owner", "eve"]);
    says(&attest(&["--result", "PASSED", "--key", stranger]), 6, &["does not name the key"]);
    let shown = gated.approve("1.0.0", "production", &[]);
    says(&shown, 0, &["proven  test-result PASSED by pat", "proven  test-result FAILED by"]);
}

#[test]
fn what_a_coordinator_that_lies_says_is_not_signed() {
    let gated = Gated::start(&[]);
    gated.scene.publish("1.0.0", ACTIVATE, &[("app", "one")]);
    gated.scene.publish("1.1.0", ACTIVATE, &[("app", "two")]);
    let shown = gated.scene.operator.json(&["artifact", "show", "app@1.0.0"]);
    let digest = shown["digest"].as_str().unwrap().to_owned();
    let state = gated.scene.coordinator.state();
    let manifest = state.join("artifacts").join(&digest).join("manifest.json");
    let honest = fs::read_to_string(&manifest).unwrap();

    // Other bytes than those that were published.
    fs::write(&manifest, honest.replace("activate = true", "activate = true\\n# and more")).unwrap();
    let parts = ["the coordinator is not to be believed", "nothing was signed"];
    says(&gated.approve("1.0.0", "production", &[]), 6, &parts);
    fs::write(&manifest, &honest).unwrap();

    // Another version under this one's name: published by the publisher, as what it is.
    let swap = "update artifacts set version = '9' where version = '1.0.0';\
                update artifacts set version = '1.0.0' where version = '1.1.0'";
    sql(&state.join("consign.db"), swap);
    says(&gated.approve("1.0.0", "production", &[]), 6, &["is app@1.1.0", parts[0]]);
    sql(&state.join("consign.db"), "update artifacts set version = '1.1.0' where version = '1.0.0'");
    sql(&state.join("consign.db"), "update artifacts set version = '1.0.0' where version = '9'");

    // A publication that is kept back, or of somebody else.
    sql(&state.join("consign.db"), "create table aside as select * from statements; delete from statements");
    says(
        &gated.approve("1.0.0", "production", &[]),
        6,
        &["nobody whom the trust root lets publish", parts[0]],
    );
    sql(&state.join("consign.db"), "insert into statements select * from aside; drop table aside");
    says(&gated.approve("1.0.0", "production", &[]), 0, &[]);
}

#[test]
fn an_approval_signed_elsewhere_is_handed_over() {
    let gated = Gated::start(&[]);
    gated.scene.publish("1.0.0", ACTIVATE, &[]);
    let file = gated.scene.directory.path().join("approval.json");
    let file = file.to_str().unwrap();
    says(&gated.approve("1.0.0", "production", &["--export", file]), 0, &["--from"]);
    assert_eq!(gated.check("1.0.0").code, 6, "nothing is there yet");
    let handed = ["approve", "--from", file];
    says(&gated.scene.operator.run(&handed), 0, &["approval", "by pat"]);
    says(&gated.scene.operator.run(&handed), 0, &["was here already"]);
}

fn sql(database: &Path, text: &str) {
    let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.executescript(sys.argv[2])";
    let status = Command::new("python3").args(["-c", script]).arg(database).arg(text).status().unwrap();
    assert!(status.success(), "{text}");
}

/// An approval is of an artifact with its values: with others it is another thing, and somebody looks at it again.
#[test]
fn an_approval_covers_the_config_that_is_in_force() {
    let gated = Gated::start(&[("web-1", "production")]);
    let plan = "[params.workers]\ntype = \"int\"\ndefault = 4\n[[step]]\nname = \"say\"\nshell = \"echo $WORKERS workers\"\n\
                [[step]]\nname = \"activate\"\nactivate = true\n";
    gated.scene.publish("1.0.0", plan, &[]);
    let set = |workers: &str| {
        gated.scene.operator.ok(&["config", "set", "app", "--env", "production", workers]);
    };
    says(&gated.approve("1.0.0", "production", &[]), 0, &[]);
    set("workers=8");
    says(&gated.roll_out("1.0.0", &[]), 6, &["config-not-approved"]);
    says(&gated.check("1.0.0"), 6, &["config-not-approved"]);
    assert_eq!(gated.current(), None);
    says(&gated.approve("1.0.0", "production", &[]), 0, &["proven  config 1 by", "workers = 8"]);
    says(&gated.check("1.0.0"), 0, &[]);
    says(&gated.roll_out("1.0.0", &[]), 0, &["8 workers"]);
    set("workers=2");
    says(&gated.roll_out("1.0.0", &[]), 6, &["config-not-approved"]);
    says(&gated.approve("1.0.0", "production", &[]), 0, &[]);
    says(&gated.roll_out("1.0.0", &[]), 0, &["2 workers"]);
}
