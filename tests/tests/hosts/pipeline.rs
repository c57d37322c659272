//! The story that consign exists for, on seven hosts: CI publishes once, staging follows by itself, QA works on a frozen
//! pre-release, the product owner says go and production gets those bytes; then a veto in the gate's place, then nothing;
//! then a version that fails brings the gate back.

use std::{fs, path::PathBuf};

use consign_tests::{
    hosts::Host,
    scene::{LONG, Operator, Ran, serves},
    wait::until,
};
use serde_json::Value;

use super::team::Team;

const SERVERS: [(&str, &str); 6] = [
    ("stage-1", "staging"),
    ("stage-2", "staging"),
    ("pre-1", "pre-release"),
    ("web-1", "production"),
    ("web-2", "production"),
    ("web-3", "production"),
];
/// Fails in production only, after the new version runs there.
const CHECKOUT: &str = "[[step]]\nname = \"checkout\"\nshell = \"exit 1\"\nuser = \"notes\"\nwhen = \"environment == 'production'\"\n";

struct Story {
    team: Team,
    owner: Operator,
    /// CI has a certificate for its app and the publisher's key, QA's robot a key of its own.
    ci: Operator,
    pat: Operator,
    pats_key: PathBuf,
}

impl Story {
    fn begin() -> Self {
        let servers: Vec<&str> = SERVERS.iter().map(|(name, _)| *name).collect();
        let team = Team::boot("deploy-1", &servers);
        let pats_key = team.ssh_key("pat", "you");
        let address = team.coordinator().address();
        team.type_at(
            "you",
            &format!(
                "consign init --app notes --env staging --env pre-release --env production --advertise {address} \
                 --approver production=pat=pat.pub"
            ),
        );
        let owner = team.operator("you");
        team.coordinator().copy(&owner.home().join("coordinator.bundle"), "/root/coordinator.bundle");
        team.coordinator().exec(
            "/root/deploy/install-coordinator.sh --bundle /root/coordinator.bundle /root/deploy/consign",
        );
        let story = Self { ci: team.operator("ci"), pat: team.operator("pat"), team, owner, pats_key };
        for (name, environment) in SERVERS {
            let token = story.owner.ok(&["server", "token", "--name", name, "--env", environment]);
            let enrolled = story.host(name).exec(&format!(
                "/root/deploy/install-agent.sh --enroll {} --allow-app notes --allow-user notes \
                 --allow-unit notes.service --yes",
                token.trim()
            ));
            assert!(enrolled.contains(name), "{enrolled}");
        }
        for (operator, arguments) in [
            (&story.ci, vec!["ci", "--role", "ci", "--app", "notes"]),
            (&story.pat, vec!["pat", "--role", "viewer"]),
        ] {
            let token = story.owner.ok(&[&["operator", "add"][..], &arguments].concat());
            operator.ok(&["operator", "join", token.trim()]);
        }
        story.team.type_at("ci", "consign key generate qa.key --owner qa");
        let key = story.owner.home().join("keys/publisher.key");
        fs::rename(key, story.team.desk("ci").join("publisher.key")).unwrap();
        let qa = story.team.desk("ci").join("qa.pub");
        story.owner.ok(&["trust", "add-key", &format!("qa={}", qa.display()), "--threshold", "1"]);
        story
    }

    fn host(&self, name: &str) -> &Host {
        self.team.host(name)
    }

    fn hosts(&self, environment: &str) -> Vec<&Host> {
        let of = SERVERS.iter().filter(|(_, of)| *of == environment);
        of.map(|(name, _)| self.host(name)).collect()
    }

    fn settings(&self, production: &str) {
        let text = format!(
            "[environment.staging]\ndeploy = \"on-publish\"\n[environment.production]\ndeploy = \"after:staging\"\n{production}"
        );
        let file = self.team.desk("you").join("environments.toml");
        fs::write(&file, text).unwrap();
        self.owner.ok(&["env", "apply", file.to_str().unwrap()]);
    }

    /// What CI does with a green build. It ends when staging has it.
    fn publish(&self, version: &str, bottle: &str, end: &str) {
        let source = self.team.desk("ci").join(version);
        self.team.source(&source, bottle, end, &[("VERSION", version)]);
        let printed = self.team.type_at(
            "ci",
            &format!(
                "consign artifact publish {version} --version {version} --key publisher.key --wait-for staging"
            ),
        );
        assert!(printed.contains("succeeded"), "{printed}");
        self.runs("staging", version);
    }

    /// QA's robot, when its tests have passed where the version is frozen.
    fn tested(&self, version: &str) {
        self.team.type_at("ci", &format!("consign attest notes@{version} --result PASSED --key qa.key"));
    }

    fn freeze(&self, version: &str) {
        let start = format!("consign rollout start notes@{version} --env pre-release --follow");
        self.team.type_at("you", &start);
        self.runs("pre-release", version);
    }

    /// She sees what would happen, and signs with her ssh key.
    fn approve(&self, version: &str) -> String {
        let key = self.pats_key.display();
        self.team
            .type_at("pat", &format!("consign approve notes@{version} --env production --key {key} --yes"))
    }

    fn gate(&self, arguments: &[&str]) {
        self.owner.ok(&[&["trust", "set-gate", "production"][..], arguments].concat());
    }

    /// Waits until every server of the environment runs this version, answers, and nothing is under way any more.
    fn runs(&self, environment: &str, version: &str) {
        for host in self.hosts(environment) {
            until(&format!("{} runs {version}", host.name()), LONG, || {
                let running = host.try_exec("cat /srv/notes/current/VERSION");
                if running.stdout == version { Ok(()) } else { Err((running, self.candidates())) }
            });
            serves(host);
        }
        until("no rollout is under way", LONG, || {
            let shown = self.owner.json(&["env", "show", environment]);
            let busy =
                shown["apps"].as_array().unwrap().iter().any(|app| app["rollouts"] != Value::Array(vec![]));
            if busy { Err(shown) } else { Ok(()) }
        });
    }

    fn candidates(&self) -> Value {
        self.owner.json(&["candidate", "list", "--all", "--env", "production"])
    }

    /// Waits until production's candidate of this version waits for this.
    fn waits(&self, version: &str, what_for: &str) -> Value {
        until(&format!("{version} waits for {what_for}"), LONG, || {
            let all = self.candidates();
            let found = all.as_array().unwrap().iter().find(|it| it["version"] == version);
            match found {
                Some(it) if it["state"] == "waiting" && it["waits_for"] == what_for => Ok(it.clone()),
                other => Err(other.cloned()),
            }
        })
    }

    /// Versions whose rollouts were started in production, oldest first.
    fn deployed(&self) -> Vec<String> {
        let all = self.owner.json(&["rollout", "list", "--env", "production", "--limit", "100"]);
        let deploys = all.as_array().unwrap().iter().rev().filter(|rollout| rollout["kind"] == "deploy");
        deploys.map(|rollout| rollout["version"].as_str().unwrap().to_owned()).collect()
    }

    /// Digests of all files of what runs there, and of what they were built from.
    fn files(&self, host: &Host) -> String {
        host.exec("cd /srv/notes/current/ && find . -type f | LC_ALL=C sort | xargs sha256sum")
    }
}

#[test]
fn from_a_button_to_none_and_back() {
    let story = Story::begin();
    story.gate(&[
        "--require",
        "test-result by qa where predicate.result == \"PASSED\"",
        "--require",
        "approval by production-approvers",
        "--separation",
        "publisher",
    ]);
    story.settings("");
    a_button(&story);
    a_hotfix_overtakes_what_is_frozen(&story);
    a_veto(&story);
    none(&story);
    and_back(&story);
}

fn a_button(story: &Story) {
    story.publish("1.0.0", "0.13.3", "");
    let waits = story.waits("1.0.0", "gate");
    assert!(waits["because"].as_str().unwrap().contains("qa"), "{waits}");
    story.freeze("1.0.0");
    let check = story.owner.run(&["rollout", "check", "notes@1.0.0", "--env", "production"]);
    says(&check, 6, &["web-1", "web-3", "production-approvers", "qa"]);
    story.tested("1.0.0");
    let waits = story.waits("1.0.0", "gate");
    assert!(waits["because"].as_str().unwrap().contains("production-approvers"), "{waits}");
    // Neither CI nor whoever owns the trust root is who the gate asks for.
    let forged = story.ci.run(&[
        "approve",
        "notes@1.0.0",
        "--env",
        "production",
        "--yes",
        "--key",
        story.team.desk("ci").join("publisher.key").to_str().unwrap(),
    ]);
    assert_ne!(forged.code, 0, "{forged:?}");
    for host in story.hosts("production") {
        assert_ne!(host.try_exec("ls /srv/notes/current").code, 0, "nothing was staged there");
    }

    let evidence = story.approve("1.0.0");
    for part in ["proven", "web-1", "web-2", "web-3", "qa"] {
        assert!(evidence.contains(part), "{part:?} is not in\n{evidence}");
    }
    story.runs("production", "1.0.0");
    // The very bytes that were tested.
    let tested = story.files(story.host("pre-1"));
    assert!(tested.contains("./vendor/bottle.py"), "{tested}");
    for host in story.hosts("production").into_iter().chain(story.hosts("staging")) {
        assert_eq!(story.files(host), tested, "{}", host.name());
    }
}

fn a_hotfix_overtakes_what_is_frozen(story: &Story) {
    story.publish("1.1.0", "0.13.4", "");
    story.freeze("1.1.0");
    story.publish("1.0.1", "0.13.3", "");
    story.tested("1.0.1");
    story.approve("1.0.1");
    story.runs("production", "1.0.1");
    // What is frozen was not touched, and goes to production after all.
    story.runs("pre-release", "1.1.0");
    story.tested("1.1.0");
    story.waits("1.1.0", "gate");
    story.approve("1.1.0");
    story.runs("production", "1.1.0");
    assert_eq!(story.deployed(), ["1.0.0", "1.0.1", "1.1.0"]);
}

fn a_veto(story: &Story) {
    story.gate(&[
        "--require",
        "test-result by qa where predicate.result == \"PASSED\"",
        "--rearm",
        "approval by production-approvers",
    ]);
    story.settings("veto = \"100h\"\n");
    story.publish("1.2.0", "0.13.4", "");
    story.tested("1.2.0");
    story.waits("1.2.0", "veto");
    let veto = ["candidate", "veto", "notes@1.2.0", "--env", "production", "--reason", "the warehouse moves"];
    // Who only looks may not say it.
    says(&story.pat.run(&veto), 1, &["viewer"]);
    story.owner.ok(&veto);
    story.settings("veto = \"3s\"\n");
    story.publish("1.3.0", "0.13.4", "");
    story.tested("1.3.0");
    story.runs("production", "1.3.0");
}

fn none(story: &Story) {
    story.settings("");
    story.publish("1.4.0", "0.13.3", "");
    // QA's robot is all that is asked.
    let waits = story.waits("1.4.0", "gate");
    assert!(!waits["because"].as_str().unwrap().contains("production-approvers"), "{waits}");
    story.tested("1.4.0");
    story.runs("production", "1.4.0");
    assert_eq!(story.deployed(), ["1.0.0", "1.0.1", "1.1.0", "1.3.0", "1.4.0"], "1.2.0 was vetoed");
}

fn and_back(story: &Story) {
    story.publish("1.5.0", "0.13.4", CHECKOUT);
    story.tested("1.5.0");
    until("every changed server is back on what was good", LONG, || {
        let newest = story.owner.json(&["rollout", "list", "--env", "production", "--limit", "1"]);
        let ended = newest[0]["version"] == "1.5.0" && newest[0]["exit_code"] == 4;
        if ended { Ok(()) } else { Err(newest) }
    });
    // By itself; and the robot's word is not enough any more.
    story.runs("production", "1.4.0");
    story.publish("1.6.0", "0.13.4", "");
    story.tested("1.6.0");
    let waits = story.waits("1.6.0", "gate");
    assert!(waits["because"].as_str().unwrap().contains("production-approvers"), "{waits}");
    let check = story.owner.run(&["rollout", "check", "notes@1.6.0", "--env", "production"]);
    says(&check, 6, &["production-approvers"]);
    story.runs("production", "1.4.0");
    story.approve("1.6.0");
    story.runs("production", "1.6.0");
    // It went well: nobody is asked any more.
    story.publish("1.7.0", "0.13.3", "");
    story.tested("1.7.0");
    story.runs("production", "1.7.0");
    assert_eq!(story.deployed().last().unwrap(), "1.7.0");
}

fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, code, "{all}");
    for part in parts {
        assert!(all.contains(part), "{part:?} is not in\n{all}");
    }
}
