//! Keys that people have: an artifact that an ssh-agent signed is deployed, passphrases are typed.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use consign_tests::wait::until;

use super::people::{Person, at_terminal, public};
use crate::{
    bad_input::support::{assert_runs, assert_says, output_of},
    scene::{ACTIVATE, Scene},
};

struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn with(scene: &Scene, key: &str) -> Self {
        let socket = scene.directory.path().join("ssh-agent.sock");
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        until(
            "ssh-agent listens",
            Duration::from_secs(10),
            || if socket.exists() { Ok(()) } else { Err(()) },
        );
        let added = Command::new("ssh-add").args(["-q", key]).env("SSH_AUTH_SOCK", &socket).status().unwrap();
        assert!(added.success());
        Self { child, socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_an_ssh_agent_signed_is_published_and_deployed() {
    let scene = Scene::start(&["web-1"]);
    let grace = Person::new(&scene, "grace");
    let key = grace.ssh_keygen("id", "");
    let agent = Agent::with(&scene, &key);
    let source = scene.source("app", "1.0.0", ACTIVATE, &[]);
    let publish = |key: &str| {
        let arguments = ["artifact", "publish", source.to_str().unwrap(), "--version", "1.0.0", "--key", key];
        output_of(scene.operator.command(&arguments).env("SSH_AUTH_SOCK", &agent.socket))
    };
    assert_says(&publish("ssh-agent:id@laptop"), 6, &["may not publish app"]);
    assert_says(&publish("ssh-agent:nobody"), 1, &["no ed25519 key nobody", "id@laptop"]);
    let role = format!("publisher of app={}", public(&key));
    assert_says(&scene.operator.run(&["trust", "add-key", &role]), 2, &["whose key it is"]);
    let shown = scene.operator.ok(&["trust", "add-key", &role, "--owner", "grace"]);
    assert!(shown.contains("of grace, an SSH key"), "{shown}");
    assert_says(&publish("ssh-agent:id@laptop"), 0, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    assert_runs(&scene.agents[0], Some("1.0.0"));
    // The same key by its file, and by its public half.
    assert_says(&publish(&public(&key)), 0, &[]);
    assert_says(&publish(&key), 0, &[]);
    // And as CI has it: the file's content in a variable.
    let arguments = ["artifact", "publish", source.to_str().unwrap(), "--version", "1.0.0"];
    let content = std::fs::read_to_string(&key).unwrap();
    let ran = output_of(scene.operator.command(&arguments).env("CONSIGN_PUBLISHER_KEY", content));
    assert_says(&ran, 0, &[]);
}

#[test]
fn a_passphrase_is_typed_unseen() {
    let scene = Scene::without_agents(&["app"], &["staging"]);
    let ada = Person::new(&scene, "ada");
    let file = ada.file("ada.key");
    let differ = at_terminal(
        &ada.operator,
        &["key", "generate", &file, "--owner", "ada", "--passphrase"],
        "correct horse\nother horse\n",
    );
    assert_says(&differ, 1, &["differ"]);
    let made = at_terminal(
        &ada.operator,
        &["key", "generate", &file, "--owner", "ada", "--passphrase"],
        "correct horse\ncorrect horse\n",
    );
    assert_says(&made, 0, &["new passphrase for", "the same again", "owner   ada"]);
    assert!(!made.stdout.contains("horse"), "{}", made.stdout);
    let opened = at_terminal(&ada.operator, &["key", "decrypt", &file], "correct horse\n");
    assert_says(&opened, 0, &["is not protected any more"]);

    // Nobody is there to type; and from the environment.
    let encrypt = ["key", "encrypt", &file];
    let alone = output_of(
        Command::new("setsid")
            .arg("-w")
            .arg(consign_tests::scene::binary("consign"))
            .args(encrypt)
            .stdin(Stdio::null()),
    );
    assert_says(&alone, 1, &["no terminal", "CONSIGN_PASSPHRASE"]);
    let given = output_of(ada.operator.command(&encrypt).env("CONSIGN_PASSPHRASE", "battery staple"));
    assert_says(&given, 0, &["needs its passphrase now"]);
}

/// A home whose owner has an SSH key, and one whose owner's key has a passphrase.
#[test]
fn init_takes_a_key_that_there_is_or_protects_a_new_one() {
    let scene = Scene::without_agents(&["app"], &["staging"]);
    let grace = Person::new(&scene, "grace");
    let key = grace.ssh_keygen("id", "");
    let init = ["init", "--app", "shop", "--env", "staging", "--owner", "grace", "--owner-key", &key];
    let said = grace.operator.ok(&init);
    assert!(said.contains("Yours already"), "{said}");
    let shown = grace.operator.ok(&["trust", "show"]);
    assert!(shown.contains("of grace, an SSH key: root, approvers"), "{shown}");
    assert!(!grace.operator.home().join("keys/owner.key").exists());
    assert!(grace.operator.home().join("keys/owner.pub").exists());

    let heidi = Person::new(&scene, "heidi");
    let mut init = heidi.operator.command(&["init", "--app", "shop", "--env", "staging", "--passphrase"]);
    assert_says(&output_of(init.env("CONSIGN_PASSPHRASE", "correct horse")), 0, &["owner.key"]);
    let kept = std::fs::read_to_string(heidi.operator.home().join("keys/owner.key")).unwrap();
    assert!(kept.contains("consign-key-v2"), "{kept}");
}
