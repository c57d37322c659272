//! Tokens: one use, one name, one environment, one hour.

use std::{fs, process::Stdio, time::Duration};

use consign_common::trust::{JoinRole, JoinToken};
use consign_tests::{
    scene::{Operator, Ran, binary},
    wait::until,
};

use super::support::{assert_says, names, output_of};
use crate::scene::Scene;

fn token(scene: &Scene, name: &str) -> String {
    scene.operator.ok(&["server", "token", "--name", name, "--env", "staging"]).trim().to_owned()
}

/// Enrols into a directory of its own.
fn enrol(scene: &Scene, directory: &str, token: &str) -> Ran {
    let directory = scene.directory.path().join(directory);
    fs::create_dir_all(&directory).unwrap();
    let mut command = std::process::Command::new(binary("consign-agent"));
    command.args(["enroll", token, "--yes", "--allow-app", "app"]).stdin(Stdio::null());
    for (option, name) in [("--state", "state"), ("--apps", "apps"), ("--config", "agent.toml")] {
        command.arg(option).arg(directory.join(name));
    }
    output_of(&mut command)
}

#[track_caller]
fn assert_not_enrolled(scene: &Scene, directory: &str) {
    let directory = scene.directory.path().join(directory);
    assert!(!directory.join("state/identity.pem").exists(), "an identity was left behind");
    assert!(!directory.join("agent.toml").exists(), "{:?}", names(&directory));
}

#[test]
fn a_token_works_once_in_its_time_for_its_name() {
    let scene = Scene::without_agents(&["app"], &["staging", "production"]);
    let used = token(&scene, "web-1");
    assert_says(&enrol(&scene, "first", &used), 0, &["web-1", "staging"]);
    assert_says(&enrol(&scene, "second", &used), 1, &["token-used", "ask for a new one"]);
    assert_not_enrolled(&scene, "second");

    // The same machine again: its own identity is not given up by accident.
    let again = token(&scene, "web-9");
    assert_says(&enrol(&scene, "first", &again), 1, &["enrolled already", "--replace"]);

    let made =
        scene.operator.json(&["server", "token", "--name", "web-2", "--env", "staging", "--ttl", "1s"]);
    let expires = made["expires_ms"].as_u64().unwrap();
    until("the token expires", Duration::from_secs(10), || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        if now.as_millis() > u128::from(expires) { Ok(()) } else { Err(now) }
    });
    assert_says(
        &enrol(&scene, "late", made["token"].as_str().unwrap()),
        1,
        &["token-expired", "ask for a new one"],
    );
    assert_not_enrolled(&scene, "late");

    // Rewritten by whoever has it: another name, another environment, another role.
    let honest = token(&scene, "web-3");
    let mut other = JoinToken::parse(&honest).unwrap();
    other.name = "db-1".parse().unwrap();
    assert_says(&enrol(&scene, "renamed", &other.to_text().unwrap()), 1, &["wrong-name"]);
    assert_not_enrolled(&scene, "renamed");
    let mut other = JoinToken::parse(&honest).unwrap();
    other.role = JoinRole::Agent { environment: "production".parse().unwrap() };
    assert_says(&enrol(&scene, "moved", &other.to_text().unwrap()), 1, &["wrong-environment"]);
    assert_not_enrolled(&scene, "moved");
    let joined = scene.operator.run(&["operator", "join", &honest]);
    assert_ne!(joined.code, 0, "{joined:?}");
    assert!(joined.stderr.contains("consign-agent enroll"), "{joined:?}");

    // A piece of it, and something else.
    assert_says(&enrol(&scene, "cut", &honest[..honest.len() - 9]), 1, &["token"]);
    assert_says(&enrol(&scene, "other", "hello"), 1, &["token"]);
    assert_not_enrolled(&scene, "cut");

    // None of that used it up, and no server came of it.
    assert_says(&enrol(&scene, "honest", &honest), 0, &["web-3"]);
    let listed = scene.operator.json(&["server", "list"]);
    let mut found: Vec<&str> =
        listed.as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ["web-1", "web-3"]);
}

/// What a token is used for must find a place: it works once.
#[test]
fn a_home_that_cannot_be_made_uses_up_no_token() {
    let scene = Scene::without_agents(&["app"], &["staging"]);
    let token = scene.operator.ok(&["operator", "add", "pat", "--role", "viewer"]);
    let at = |name: &str| Operator::of_home(&scene.directory.path().join(name));
    fs::write(scene.directory.path().join("file"), "").unwrap();
    assert_says(&at("file").run(&["operator", "join", token.trim()]), 1, &["failed to create"]);
    assert_says(&at("pat").run(&["operator", "join", token.trim()]), 0, &["joined"]);
    let left = names(&scene.directory.path().join("pat"));
    assert!(left.iter().all(|name| name != ".join"), "{left:?}");
}
