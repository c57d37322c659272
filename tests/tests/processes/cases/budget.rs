//! T7: a budget is one over the whole rollout. Counted per wave, a group that always fails would cost half of the fleet.

use std::fs;

use serde_json::Value;

use super::support::{current, effects};
use crate::scene::{ACTIVATE, Scene};

/// Eight servers in two zones, two in every wave, one of each zone. Those of zone b fail before the switch.
#[test]
fn t7_one_group_that_always_fails_stops_at_the_budget() {
    let mut scene = Scene::without_agents(&["app"], &["staging"]);
    for number in 1..=8 {
        let zone = if number % 2 == 0 { "zone=b" } else { "zone=a" };
        let word = ["--allow-app", "app", "--allow-user", "root", "--label", zone];
        scene.enrol(&format!("web-{number}"), "staging", &word);
    }
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);

    let check = "echo $CONSIGN_SERVER >> ../../effects; case $CONSIGN_SERVER in *[2468]) exit 3;; esac";
    scene.publish("1.1.0", &format!("[[step]]\nname = \"check\"\nshell = \"{check}\"\n{ACTIVATE}"), &[]);
    let file = scene.directory.path().join("environments.toml");
    fs::write(&file, "[environment.staging]\nwaves = [\"2\"]\nfailures = 1\n").unwrap();
    scene.operator.ok(&["env", "apply", file.to_str().unwrap()]);
    let ran = scene.roll_out("1.1.0");
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("2 failed, 1 tolerated: web-2, web-4"), "{}", ran.stdout);

    let versions: Vec<String> = scene.agents.iter().map(current).collect();
    let expected = ["1.1.0", "1.0.0", "1.1.0", "1.0.0", "1.0.0", "1.0.0", "1.0.0", "1.0.0"];
    assert_eq!(versions, expected, "two waves of four were enough to know");
    let tried: Vec<usize> = scene.agents.iter().map(|agent| effects(agent).len()).collect();
    assert_eq!(tried, [1, 1, 1, 1, 0, 0, 0, 0]);

    // By zone: none of b may fail, so that the first one stops it.
    scene.publish("1.2.0", &format!("[[step]]\nname = \"check\"\nshell = \"{check}\"\n{ACTIVATE}"), &[]);
    let start = ["rollout", "start", "app@1.2.0", "--env", "staging", "--failures", "4", "--group", "zone=0"];
    let ran = scene.operator.run(&[&start[..], &["--follow"]].concat());
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("1 failed with zone=b, 0 tolerated: web-2"), "{}", ran.stdout);
    let tried: Vec<usize> = scene.agents.iter().map(|agent| effects(agent).len()).collect();
    assert_eq!(tried, [2, 2, 1, 1, 0, 0, 0, 0]);
}

/// What an operator sees of a rollout that stops and brings itself back: the end of both, and one exit code.
#[test]
fn a_rollout_that_rolls_itself_back_is_followed_to_where_servers_are() {
    let scene = Scene::start(&["web-1", "web-2"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    scene.publish(
        "1.1.0",
        &format!("[[step]]\nname = \"check\"\nshell = \"[ $CONSIGN_SERVER = web-1 ]\"\n{ACTIVATE}"),
        &[],
    );
    let start = ["rollout", "start", "app@1.1.0", "--env", "staging", "--wave", "1", "--on-stop", "rollback"];
    let reason = ["--reason", "spring sale", "--follow", "--output", "json"];
    let ran = scene.operator.run(&[&start[..], &reason].concat());
    assert_eq!(ran.code, 4, "every changed server is back\n{}{}", ran.stdout, ran.stderr);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let successor = lines.iter().find(|line| line["event"] == "successor").unwrap();
    let end = lines.last().unwrap();
    assert_eq!((end["event"].as_str(), end["exit_code"].as_u64()), (Some("end"), Some(4)));
    assert_eq!(end["rollout"]["id"], successor["successor"]);
    for agent in &scene.agents {
        assert_eq!(current(agent), "1.0.0");
    }

    let id = successor["rollout"].as_str().unwrap();
    let history = scene.operator.ok(&["rollout", "history", id]);
    assert!(history.contains("spring sale") && history.contains("wave 2"), "{history}");
    let timeline = scene.operator.ok(&["rollout", "timeline", id]);
    assert!(timeline.contains("a check") && !timeline.contains('\x1b'), "{timeline}");
    assert!(timeline.lines().skip(1).all(|line| line.chars().count() <= 80), "{timeline}");
    let shown = scene.operator.ok(&["rollout", "show", id]);
    assert!(shown.contains("rolled back by") && shown.contains("1 failed, 0 tolerated: web-2"), "{shown}");
    let env = scene.operator.ok(&["env", "show", "staging"]);
    assert!(env.contains("app is on hold since") && env.contains("app@1.0.0"), "{env}");

    // A person may start all the same; with the hold lifted, what begins by itself does again.
    let lift = ["env", "lift-hold", "app", "--env", "staging", "--reason", "mended"];
    assert!(scene.operator.ok(&lift).contains("is not on hold"));
    let again = scene.operator.run(&lift);
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("no-hold"), "{}", again.stderr);
}
