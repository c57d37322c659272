//! Every command of the guide's sections on several owners and on lost and stolen keys, as it is printed there.

use std::{fs, path::Path, process::Command};

use consign_tests::scene::{Coordinator, Operator, binary};

use super::people::{Person, pin_of};
use crate::{
    bad_input::support::{assert_runs, assert_says, output_of},
    scene::{ACTIVATE, Scene},
};

/// The blocks of shell in the guide's section of this name: their commands, each with its remark.
fn blocks(section: &str) -> Vec<Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide.md");
    let guide = fs::read_to_string(path).unwrap();
    let body = guide.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let body = body.split("\n## ").next().unwrap();
    let command = |line: &str| {
        let (command, remark) = line.split_once(" # ").unwrap_or((line, ""));
        (command.trim().to_owned(), remark.trim().to_owned())
    };
    let block = |text: &str| {
        text.split("```").next().unwrap().lines().filter(|line| !line.is_empty()).map(command).collect()
    };
    body.split("```sh\n").skip(1).map(block).collect()
}

struct Desk {
    scene: Scene,
    bob: Person,
    carol: Person,
}

impl Desk {
    /// Everybody's files lie in one directory, as if they had been sent; everybody's home is their own.
    fn set_up() -> Self {
        let scene = Scene::start(&["web-1"]);
        let (bob, carol) = (Person::new(&scene, "bob"), Person::new(&scene, "carol"));
        scene.source("shop", "1.4.0", ACTIVATE, &[]);
        let here = scene.directory.path();
        fs::rename(here.join("sources/shop/1.4.0"), here.join("shop")).unwrap();
        fs::create_dir(here.join("keys")).unwrap();
        fs::copy(scene.operator.home().join("keys/owner.key"), here.join("keys/owner.key")).unwrap();
        scene.operator.ok(&["trust", "update", "--add-app", "shop"]);
        Self { scene, bob, carol }
    }

    fn here(&self) -> &Path {
        self.scene.directory.path()
    }

    /// As it stands in the guide, by whom the remark says, with what stands in capitals filled in.
    fn run(&self, (line, remark): &(String, String), digest: &str) {
        let who = match remark.split([',', ':', ' ']).next() {
            Some("bob") => &self.bob.operator,
            Some("carol") => &self.carol.operator,
            Some(_) | None => &self.scene.operator,
        };
        fs::copy(self.scene.operator.home().join("trust-root.json"), self.here().join("trust-root.json"))
            .unwrap();
        let mut line = line.replace("DIGEST", digest);
        // There is no terminal here.
        if line.starts_with("consign trust sign ") {
            line.push_str(" --yes");
        }
        let command = who.command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(self.here());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let path =
            format!("{}:{}", binary("consign").parent().unwrap().display(), std::env::var("PATH").unwrap());
        let ran = output_of(shell.env("PATH", path).env("CONSIGN_PASSPHRASE", "correct horse"));
        println!("$ {line}\n{}{}", ran.stdout, ran.stderr);
        assert_says(&ran, 0, &[]);
    }

    fn version(&self) -> u64 {
        self.scene.operator.json(&["trust", "show"])["version"].as_u64().unwrap()
    }
}

#[test]
fn every_command_of_the_guide_on_owners_and_lost_keys_works() {
    let desk = Desk::set_up();
    let pin = || pin_of(&desk.scene.operator);
    for command in blocks("Several owners").concat() {
        desk.run(&command, &pin());
    }
    assert_eq!(desk.version(), 3);
    let shown = desk.scene.operator.ok(&["trust", "show"]);
    assert!(shown.contains("root          2 of owner ("), "{shown}");

    let lost = blocks("When a key is lost or stolen");
    let [publisher, stolen, of_several, leaves, only] = lost.as_slice() else { panic!("{lost:?}") };
    // The changes of one publisher's key are two owners' matter as well, here; in the guide there is one.
    let alone = Desk::set_up();
    for command in publisher {
        alone.run(command, "");
    }
    let shown = alone.scene.operator.json(&["artifact", "show", "shop@1.4.0"]);
    let digest = shown["digest"].as_str().unwrap().to_owned();
    for command in stolen {
        alone.run(command, &digest);
    }
    let refused =
        alone.scene.operator.run(&["rollout", "start", "shop@1.4.0", "--env", "staging", "--follow"]);
    assert_says(&refused, 6, &[]);
    // The old key publishes nothing any more, for any app.
    let old = alone.scene.operator.home().join("keys/publisher.key");
    let source = alone.scene.source("app", "2.0.0", ACTIVATE, &[]);
    let publish = [
        "artifact",
        "publish",
        source.to_str().unwrap(),
        "--version",
        "2.0.0",
        "--key",
        old.to_str().unwrap(),
    ];
    assert_says(&alone.scene.operator.run(&publish), 6, &["may not publish app"]);

    for command in of_several.iter().chain(leaves) {
        desk.run(command, &pin());
    }
    let shown = desk.scene.operator.ok(&["trust", "show"]);
    assert!(shown.contains("root          2 of owner (") && !shown.contains("bob"), "{shown}");

    for command in only {
        alone.run(command, "");
    }
    // Whoever has the old one, has nothing.
    let old = alone.here().join("keys/owner.key");
    let thief = ["trust", "update", "--add-env", "x", "--key", old.to_str().unwrap()];
    assert_says(&alone.scene.operator.run(&thief), 1, &["is not a key of the root role"]);
}

/// The only owner's key is lost: the guide's way out.
#[test]
fn a_fleet_whose_only_owners_key_is_lost_begins_anew() {
    let mut scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    fs::remove_dir_all(scene.operator.home().join("keys")).unwrap();
    assert_says(&scene.operator.run(&["trust", "update", "--add-env", "x"]), 1, &["there is no key at"]);

    let directory = scene.directory.path().join("anew");
    fs::create_dir(&directory).unwrap();
    let mut operator = Operator::init(&directory.join("operator"), &["app"], &["staging"]);
    let coordinator = Coordinator::start(&directory, &mut operator, "127.0.0.1");
    let token = operator.ok(&["server", "token", "--name", "web-1", "--env", "staging"]);
    scene.agents[0].kill();
    scene.agents[0].enroll(&token, &["--replace", "--allow-app", "app", "--allow-user", "root"]);
    assert_runs(&scene.agents[0], Some("1.0.0"));
    scene.agents[0].launch();
    operator.wait_online("web-1");
    let shown = operator.json(&["server", "show", "web-1"]);
    assert_eq!(shown["apps"][0]["good_version"], "1.0.0", "{shown}");

    let (old, _old_coordinator) = (
        std::mem::replace(&mut scene.operator, operator),
        std::mem::replace(&mut scene.coordinator, coordinator),
    );
    scene.publish("1.1.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
    let current = fs::read_link(scene.agents[0].apps().join("app/current")).unwrap();
    assert!(current.to_string_lossy().contains("1.1.0"), "{current:?}");
    let back = ["rollout", "rollback", "app", "--env", "staging", "--reason", "slow", "--follow"];
    assert_says(&scene.operator.run(&back), 0, &[]);
    // The old one has no server any more.
    let shown = old.json(&["server", "show", "web-1"]);
    assert_eq!(shown["online"], false);
}
