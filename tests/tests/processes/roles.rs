//! What each role may, command by command.

use std::process::Command;

use consign_tests::scene::{Operator, Ran, binary};

use crate::scene::{ACTIVATE, Scene};

const ROLES: [&str; 4] = ["viewer", "deployer", "ci", "admin"];
const ALL: &[&str] = &ROLES;
const PUBLISH: &[&str] = &["deployer", "ci", "admin"];
const DEPLOY: &[&str] = &["deployer", "admin"];
const ADMIN: &[&str] = &["admin"];

/// With the publisher's key, so that only the role decides.
fn run(operator: &Operator, publisher: &str, arguments: &[&str]) -> Ran {
    let mut command: Command = operator.command(arguments);
    let output = command.env("CONSIGN_PUBLISHER_KEY", publisher).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn every_command_does_what_the_role_may_and_refuses_the_rest_by_name() {
    let scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[("app", "one")]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let id = scene.operator.json(&["rollout", "list"])[0]["id"].as_str().unwrap().to_owned();
    let source = scene.source("app", "1.1.0", ACTIVATE, &[("app", "two")]);
    let settings = scene.directory.path().join("environments.toml");
    std::fs::write(&settings, "[environment.staging]\ndeploy = \"on-publish\"\n").unwrap();
    let (source, settings) = (source.to_str().unwrap(), settings.to_str().unwrap());
    let publisher = scene.operator.home().join("keys/publisher.key").display().to_string();
    let why = ["--reason", "x"];
    let with_why = |arguments: &[&'static str]| [arguments, &why].concat();

    let commands: Vec<(&[&str], Vec<&str>)> = vec![
        (ALL, vec!["status"]),
        (ALL, vec!["artifact", "list"]),
        (ALL, vec!["artifact", "show", "app@1.0.0"]),
        (ALL, vec!["server", "list"]),
        (ALL, vec!["server", "show", "web-1"]),
        (ALL, vec!["operator", "list"]),
        (ALL, vec!["rollout", "list"]),
        (ALL, vec!["rollout", "show", &id]),
        (ALL, vec!["rollout", "history", &id]),
        (ALL, vec!["rollout", "timeline", &id]),
        (ALL, vec!["rollout", "logs", &id]),
        (ALL, vec!["rollout", "follow", &id]),
        (ALL, vec!["rollout", "plan", "app@1.0.0", "--env", "staging"]),
        (ALL, vec!["env", "list"]),
        (ALL, vec!["env", "show", "staging"]),
        (ALL, vec!["candidate", "list"]),
        (ALL, vec!["config", "show", "app", "--env", "staging"]),
        (ALL, vec!["audit", "list"]),
        (ALL, vec!["audit", "verify"]),
        (ALL, vec!["audit", "export"]),
        (ALL, vec!["audit", "receipts", "app@1.0.0"]),
        (ALL, vec!["audit", "who-approved", "app@1.0.0"]),
        (ALL, vec!["webhook", "list"]),
        (PUBLISH, vec!["artifact", "publish", source, "--version", "1.1.0"]),
        (PUBLISH, vec!["rollout", "start", "app@1.0.0", "--env", "staging"]),
        (PUBLISH, [&["rollout", "abort", &id][..], &why].concat()),
        (DEPLOY, [&["rollout", "pause", &id][..], &why].concat()),
        (DEPLOY, [&["rollout", "resume", &id][..], &why].concat()),
        (DEPLOY, [&["rollout", "retry", &id][..], &why].concat()),
        (DEPLOY, with_why(&["rollout", "rollback", "app", "--env", "staging"])),
        (DEPLOY, with_why(&["server", "disable", "web-1"])),
        (DEPLOY, with_why(&["server", "enable", "web-1"])),
        (DEPLOY, with_why(&["env", "hold", "app", "--env", "staging"])),
        (DEPLOY, with_why(&["env", "lift-hold", "app", "--env", "staging"])),
        (DEPLOY, with_why(&["env", "take-over", "app", "--env", "staging"])),
        (DEPLOY, with_why(&["candidate", "veto", "app@1.0.0", "--env", "staging"])),
        (DEPLOY, vec!["webhook", "test", "chat"]),
        (DEPLOY, vec!["webhook", "retry", "chat"]),
        (ADMIN, vec!["env", "apply", settings]),
        (ADMIN, vec!["server", "token", "--name", "web-2", "--env", "staging"]),
        (ADMIN, vec!["operator", "add", "eve", "--role", "admin"]),
        (ADMIN, vec!["operator", "remove", "nobody"]),
        (ADMIN, with_why(&["audit", "accept"])),
    ];

    let mut table = String::new();
    for role in ROLES {
        let home = scene.directory.path().join(role);
        let token = scene.operator.ok(&["operator", "add", role, "--role", role]);
        let joined = Command::new(binary("consign"))
            .args(["operator", "join", token.trim(), "--home"])
            .arg(&home)
            .output()
            .unwrap();
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        let operator = Operator::of_home(&home);
        for (may, arguments) in &commands {
            let ran = run(&operator, &publisher, arguments);
            assert_ne!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
            let refused = ran.stderr.contains("not allowed");
            assert_eq!(!refused, may.contains(&role), "{role}: {arguments:?}: {}{}", ran.stdout, ran.stderr);
            if refused {
                assert_eq!(ran.code, 1, "{role}: {arguments:?}: {}", ran.stderr);
                assert!(ran.stderr.contains(role), "it names the role: {}", ran.stderr);
            }
            // What everybody may see, everybody sees.
            if may.len() == ALL.len() && !matches!(arguments[0], "config") {
                assert_eq!(ran.code, 0, "{role}: {arguments:?}: {}{}", ran.stdout, ran.stderr);
            }
            table += &format!(
                "{role:9} {:9} {}\n",
                if refused { "refused" } else { "allowed" },
                arguments[..2.min(arguments.len())].join(" ")
            );
        }
    }
    println!("{table}");

    // All that was refused stands in the log, with who asked.
    let listed = scene.operator.json(&["audit", "list", "--who", "viewer"]);
    let refused =
        listed.as_array().unwrap().iter().filter(|entry| entry["outcome"]["code"] == "role").count();
    let expected = commands.iter().filter(|(may, _)| !may.contains(&"viewer")).count();
    assert_eq!(refused, expected, "{listed}");
}
