//! The trust root's end.

use std::{
    fs,
    io::{BufRead, BufReader},
    time::Duration,
};

use consign_tests::wait::until;

use crate::{
    bad_input::support::{assert_runs, assert_says},
    scene::{ACTIVATE, Scene},
};

fn wait_expired(scene: &Scene) {
    until("the trust root has expired", Duration::from_secs(60), || {
        let status = scene.operator.json(&["status"]);
        if status["trust_root"] == "expired" { Ok(()) } else { Err(status) }
    });
}

#[test]
fn after_the_end_what_runs_goes_on_and_nothing_new_begins() {
    let scene = Scene::start(&["web-1"]);
    for version in ["1.0.0", "1.1.0"] {
        scene.publish(version, ACTIVATE, &[]);
        assert_says(&scene.roll_out(version), 0, &[]);
    }
    let gate = scene.publish_waiting("1.2.0");

    // A month before its end everybody hears of it, on stderr and once; not before.
    scene.operator.ok(&["trust", "update", "--expires", "40d"]);
    assert!(!scene.operator.run(&["server", "list"]).stderr.contains("valid until"));
    scene.operator.ok(&["trust", "update", "--expires", "29d"]);
    for command in [
        &["server", "list"][..],
        &["rollout", "list"],
        &["artifact", "list"],
        &["env", "list"],
        &["operator", "list"],
    ] {
        let ran = scene.operator.run(command);
        assert_eq!(ran.code, 0);
        assert_eq!(ran.stderr.matches("28 days left").count(), 1, "{command:?}: {}", ran.stderr);
        assert!(!ran.stdout.contains("days left"));
    }
    let status = scene.operator.ok(&["status"]);
    assert!(status.contains("28 days left, renew it: consign trust update --expires"), "{status}");

    scene.operator.ok(&["trust", "update", "--expires", "6s"]);
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.2.0", "--env", "staging", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("first")));
    wait_expired(&scene);
    // What runs, runs on to its end.
    fs::write(&gate, "").unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_runs_version(&scene, "1.2.0");

    // Nothing new begins, and it is said why and what now.
    scene.publish("1.3.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.3.0"), 6, &["trust root expired", "trust update"]);
    assert_says(&scene.operator.run(&["status"]), 0, &["EXPIRED", "trust-root-expired"]);
    assert_says(&scene.operator.run(&["trust", "show"]), 0, &["EXPIRED"]);
    let listed = scene.operator.run(&["server", "list"]);
    assert_says(&listed, 0, &["online, trust root EXPIRED"]);
    assert_eq!(listed.stderr.matches("new deployments are refused").count(), 1, "{}", listed.stderr);
    assert_says(
        &scene.operator.run(&["server", "show", "web-1"]),
        0,
        &["EXPIRED: new deployments are refused"],
    );
    let there = crate::bad_input::support::output_of(&mut scene.agents[0].command(&["status"]));
    assert_says(&there, 0, &["(EXPIRED: new deployments are refused)"]);
    // The way back is open, and needs nobody's key.
    let back = ["rollout", "rollback", "app", "--env", "staging", "--reason", "slow", "--follow"];
    assert_says(&scene.operator.run(&back), 0, &[]);
    assert_runs_version(&scene, "1.1.0");

    // A change without a new end is refused; a new end opens everything again.
    assert_says(
        &scene.operator.run(&["trust", "update", "--add-env", "x"]),
        1,
        &["expired at", "--expires 365d"],
    );
    scene.operator.ok(&["trust", "update", "--expires", "365d"]);
    scene.operator.ok(&["env", "lift-hold", "app", "--env", "staging", "--reason", "renewed"]);
    assert_says(&scene.roll_out("1.3.0"), 0, &[]);
    assert!(!scene.operator.run(&["server", "list"]).stderr.contains("valid until"));
}

fn assert_runs_version(scene: &Scene, version: &str) {
    let current = fs::read_link(scene.agents[0].apps().join("app/current")).unwrap();
    assert!(current.to_string_lossy().contains(version), "{current:?}");
}

/// A coordinator that does not mind: the agent refuses by itself. (The coordinator's clock is an hour behind, and the
/// agents' ten minutes of patience for clocks are over.)
#[test]
fn an_agent_refuses_by_its_own_clock() {
    let mut scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    scene.operator.ok(&["trust", "update", "--expires", "3m"]);
    scene.agents[0].kill();
    // Four minutes: less than what counts as a clock that is wrong.
    scene.agents[0].launch_with(|command| crate::bad_input::support::shifted(command, "+4m"));
    scene.operator.wait_online("web-1");
    assert_says(&scene.roll_out("1.0.0"), 6, &["trust root expired"]);
    assert_runs(&scene.agents[0], None);
}
