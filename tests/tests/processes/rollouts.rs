//! Rollouts as an operator sees them: exit codes, waves, refusals by name.

use std::{process::Command, time::Duration};

use consign_tests::wait::until;

use crate::scene::{ACTIVATE, Scene};

#[test]
fn deploy_again_fail_return_and_roll_back() {
    let scene = Scene::start(&["web-1", "web-2", "web-3"]);
    scene.publish(
        "1.0.0",
        &format!("[[step]]\nname = \"say\"\nshell = \"echo hello from $CONSIGN_SERVER\"\n{ACTIVATE}"),
        &[],
    );
    let first = scene.roll_out("1.0.0");
    assert_eq!(first.code, 0, "{}{}", first.stdout, first.stderr);
    for server in ["web-1", "web-2", "web-3"] {
        assert_eq!(first.stdout.matches(&format!("hello from {server}")).count(), 1, "{}", first.stdout);
    }

    // What runs already is a no-op: no step runs.
    let again = scene.roll_out("1.0.0");
    assert_eq!(again.code, 0);
    assert!(!again.stdout.contains("hello from"), "{}", again.stdout);

    // A failure before the switch touches nothing and is not green.
    scene.publish(
        "1.1.0",
        &format!("[[step]]\nname = \"no\"\nshell = \"echo broken >&2; exit 3\"\n{ACTIVATE}"),
        &[],
    );
    let failed = scene.roll_out("1.1.0");
    assert_eq!(failed.code, 3, "stopped over its budget\n{}", failed.stdout);
    assert!(failed.stdout.contains("broken") && failed.stdout.contains("exit code 3"), "{}", failed.stdout);
    for agent in &scene.agents {
        let current = std::fs::read_link(agent.apps().join("app/current")).unwrap();
        assert!(current.to_string_lossy().contains("1.0.0"), "{current:?}");
        assert_eq!(
            std::fs::read_dir(agent.apps().join("app/releases")).unwrap().count(),
            1,
            "the staged release is gone"
        );
    }

    // A failure after it brings every server back.
    scene.publish("1.2.0", &format!("{ACTIVATE}[[step]]\nname = \"check\"\nrun = [\"/bin/false\"]\n"), &[]);
    assert_eq!(scene.roll_out("1.2.0").code, 4);

    scene.publish("1.3.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.3.0").code, 0);
    let rollback = ["rollout", "rollback", "app", "--env", "staging", "--reason", "test", "--follow"];
    assert_eq!(scene.operator.run(&rollback).code, 0);
    for agent in &scene.agents {
        let current = std::fs::read_link(agent.apps().join("app/current")).unwrap();
        assert!(current.to_string_lossy().contains("1.0.0"), "{current:?}");
    }
    // A second rollback has nowhere to go.
    let second = scene.operator.run(&rollback);
    assert_ne!(second.code, 0, "{}", second.stdout);
}

#[test]
fn what_is_not_built_or_not_allowed_is_refused_by_name() {
    let scene = Scene::start(&["web-1", "web-2"]);
    let user = format!("[[step]]\nname = \"as_other\"\nshell = \"id\"\nuser = \"daemon\"\n{ACTIVATE}");
    let unit =
        format!("{ACTIVATE}[[step]]\nname = \"restart\"\nsystemd = {{ restart = \"other.service\" }}\n");
    let parameter = format!("[params.token]\ntype = \"string\"\nsecret = true\n{ACTIVATE}");
    for (version, plan, word) in
        [("1.0.2", &user, "daemon"), ("1.0.3", &unit, "other.service"), ("1.0.4", &parameter, "token")]
    {
        scene.publish(version, plan, &[]);
        let ran = scene.roll_out(version);
        assert_ne!(ran.code, 0, "{version}: {}", ran.stdout);
        assert!(
            format!("{}{}", ran.stdout, ran.stderr).contains(word),
            "{version}: {}{}",
            ran.stdout,
            ran.stderr
        );
        for agent in &scene.agents {
            assert!(!agent.apps().join("app/current").exists(), "{version} ran");
        }
    }
}

/// What one server runs for all is told of the others, and what waits to be confirmed is, once its wave is good.
#[test]
fn a_once_step_runs_on_one_server_and_a_good_wave_is_confirmed() {
    let scene = Scene::start(&["web-1", "web-2", "web-3"]);
    let migrate =
        "[[step]]\nname = \"migrate\"\nshell = \"echo $CONSIGN_SERVER >> ../../effects\"\nonce = true\n";
    scene.publish("1.0.0", &format!("confirm = \"5m\"\n{migrate}{ACTIVATE}"), &[]);
    let start =
        ["rollout", "start", "app@1.0.0", "--env", "staging", "--wave", "2", "--wave", "100%", "--follow"];
    let ran = scene.operator.run(&start);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let effects = |agent: &consign_tests::scene::Agent| {
        std::fs::read_to_string(agent.apps().join("app/effects")).unwrap_or_default()
    };
    let all: Vec<String> = scene.agents.iter().map(effects).collect();
    assert_eq!(all, ["web-1\n", "", ""], "the first in the order of waves");
    assert!(ran.stdout.contains("web-2 migrate: skipped"), "{}", ran.stdout);
    assert!(ran.stdout.contains("web-1: confirming"), "{}", ran.stdout);

    let shown = scene.operator.json(&["rollout", "list"]);
    let id = shown[0]["id"].as_str().unwrap();
    let shown = scene.operator.ok(&["rollout", "show", id]);
    assert!(shown.contains("migrate: done on web-1") && shown.contains("confirm within 5m"), "{shown}");
    // A `confirm` that this environment's bake leaves no time for is refused before anything is touched.
    scene.publish("1.1.0", &format!("confirm = \"5m\"\n{migrate}{ACTIVATE}"), &[]);
    let never = scene.operator.run(&["rollout", "start", "app@1.1.0", "--env", "staging", "--bake", "5m"]);
    assert_eq!(never.code, 2, "{}{}", never.stdout, never.stderr);
    assert!(never.stderr.contains("would wait 5m00s for its confirmation"), "{}", never.stderr);
}

/// An operator changes his mind in the middle: what was reached goes back, what was not is never touched.
#[test]
fn verbs_from_the_command_line_in_the_middle_of_a_rollout() {
    let scene = Scene::start(&["web-1", "web-2", "web-3"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    scene.publish("1.1.0", ACTIVATE, &[]);
    let start = ["rollout", "start", "app@1.1.0", "--env", "staging", "--wave", "1", "--bake", "1h"];
    let begun = scene.operator.json(&start);
    let id = begun["id"].as_str().unwrap();
    until("the first wave bakes", Duration::from_secs(60), || {
        let shown = scene.operator.json(&["rollout", "show", id]);
        if shown["stage"] == "baking" { Ok(()) } else { Err(shown) }
    });
    let shown = scene.operator.ok(&["rollout", "show", id]);
    assert!(shown.contains("waiting for wave 2 of 3: bake ") && shown.contains("bake ends"), "{shown}");

    let illegal = scene.operator.run(&["rollout", "resume", id, "--reason", "x"]);
    assert_eq!(illegal.code, 1, "{}", illegal.stderr);
    assert!(
        illegal.stderr.contains("cannot resume: the rollout is running; it must be paused"),
        "{}",
        illegal.stderr
    );
    let paused = scene.operator.ok(&["rollout", "pause", id, "--reason", "lunch"]);
    assert!(paused.contains("lunch"), "{paused}");
    scene.operator.ok(&["rollout", "skip", id, "--server", "web-3", "--reason", "its disk"]);
    let back = scene.operator.run(&["rollout", "abort", id, "--return", "--follow", "--reason", "wrong"]);
    assert_eq!(back.code, 0, "{}{}", back.stdout, back.stderr);
    for agent in &scene.agents {
        let current = std::fs::read_link(agent.apps().join("app/current")).unwrap();
        assert!(current.to_string_lossy().contains("1.0.0"), "{current:?}");
    }
    let ended = scene.operator.json(&["rollout", "show", id]);
    assert_eq!(ended["state"], "aborted");
    let states: Vec<_> = ended["deployments"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["succeeded", "not-reached", "skipped"], "{ended}");
    let history = scene.operator.ok(&["rollout", "history", id]);
    for word in ["pause", "lunch", "skip web-3", "its disk", "abort", "wrong"] {
        assert!(history.contains(word), "{word}: {history}");
    }
}

/// Nobody answers where the wave's health is asked for: that is no good wave, and there is no next one.
#[test]
fn a_wave_whose_health_fails_is_the_last() {
    let scene = Scene::start(&["web-1", "web-2"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/healthz");
    let start = ["rollout", "start", "app@1.0.0", "--env", "staging", "--wave", "1", "--follow"];
    let ran = scene.operator.run(&[&start[..], &["--health-http", &url, "--health-within", "2s"]].concat());
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("the health of wave 1 failed"), "{}", ran.stdout);
    assert!(!scene.agents[1].apps().join("app/current").exists());
}

#[test]
fn a_server_that_was_away_gets_what_it_is_owed_when_it_is_back() {
    let mut scene = Scene::start(&["web-1", "web-2"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    scene.agents[1].kill();
    let start = ["rollout", "start", "app@1.0.0", "--env", "staging", "--offline", "owe", "--follow"];
    let ran = scene.operator.run(&start);
    assert_eq!(ran.code, 7, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("web-2 owed"), "{}", ran.stdout);
    scene.agents[1].launch();
    let shown = until("web-2 has it", Duration::from_secs(60), || {
        let shown = scene.operator.json(&["rollout", "list"])[0].clone();
        if shown["state"] == "succeeded" { Ok(shown) } else { Err(shown.to_string()) }
    });
    assert_eq!(shown["exit_code"], 0, "{shown}");
    assert!(scene.agents[1].apps().join("app/current").exists());
}

/// `systemctl restart consign` is no reason for an administrator to look.
#[test]
fn a_coordinator_that_is_stopped_calls_nothing_an_error() {
    let mut scene = Scene::start(&["web-1", "web-2", "web-3"]);
    let pid = scene.coordinator.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    until("it has ended", Duration::from_secs(60), || {
        if scene.coordinator.is_gone() { Ok(()) } else { Err(scene.coordinator.log()) }
    });
    let log = scene.coordinator.log();
    assert!(log.contains("disconnected server=web-1"), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}
