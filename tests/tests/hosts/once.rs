//! A migration that one server runs for all, and that server without power.

use std::{fs, time::Duration};

use consign_tests::{
    hosts::Host,
    scene::{LONG, Production},
    wait::until,
};
use serde_json::Value;

/// Runs on one server, takes five seconds, and leaves a trace of having begun and ended.
const MIGRATION: &str = r#"
[[step]]
name = "shared"
once = true
shell = """
echo "begin $CONSIGN_VERSION" >> data/effects
for i in $(seq 1 20); do echo "tick $i"; sleep 0.25; done
echo "end $CONSIGN_VERSION" >> data/effects
"""
user = "notes"
"#;

/// Two servers with 1.0.0; on web-1 the migration of 1.1.0 has begun, and web-2 waits to be told. `more`: of `rollout start`.
fn in_the_middle(more: &[&str]) -> (Production, String) {
    let scene = Production::boot(&["web-1", "web-2"]);
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    scene.publish("1.1.0", "0.13.4", &["001-notes.sql"], MIGRATION);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let start = ["rollout", "start", "notes@1.1.0", "--env", "production"];
    let start: Vec<&str> = start.iter().chain(more).copied().collect();
    let id = scene.operator.json(&start)["id"].as_str().unwrap().to_owned();
    scene.wait_mid_step(&scene.fleet.hosts[0], "1.1.0");
    until_shown(&scene, &id, "the other one waits to be told", |it| {
        it["deployments"][1]["state"] == "awaiting"
    });
    (scene, id)
}

fn until_shown(scene: &Production, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(what, LONG, || {
        let shown = scene.operator.json(&["rollout", "show", id]);
        if is(&shown) { Ok(shown) } else { Err(shown) }
    })
}

fn effects(host: &Host) -> String {
    fs::read_to_string(host.path("/srv/notes/shared/data/effects")).unwrap_or_default()
}

fn step<'a>(shown: &'a Value, server: &str) -> &'a Value {
    let deployments = shown["deployments"].as_array().unwrap();
    let mine = deployments.iter().rfind(|it| it["server"] == server).unwrap();
    let mut steps = mine["steps"].as_array().unwrap().iter();
    steps.find(|step| step["name"] == "shared").unwrap()
}

#[test]
fn one_runs_it_and_the_other_is_told() {
    let (scene, id) = in_the_middle(&[]);
    assert_eq!(effects(&scene.fleet.hosts[0]), "begin 1.1.0\n", "the other one waits until it has ended");
    let shown = until_shown(&scene, &id, "the rollout has ended", |shown| shown["ended_ms"].is_u64());
    assert_eq!(shown["state"], "succeeded", "{shown}");
    assert_eq!(effects(&scene.fleet.hosts[0]), "begin 1.1.0\nend 1.1.0\n");
    assert_eq!(effects(&scene.fleet.hosts[1]), "");
    assert_eq!(step(&shown, "web-1")["state"], "succeeded", "{shown}");
    let told = step(&shown, "web-2");
    assert_eq!(told["state"], "skipped", "{shown}");
    let because = told["because"].as_str().unwrap();
    assert!(because.contains("once") && because.contains("web-1"), "{because}");
    for host in &scene.fleet.hosts {
        assert_eq!(scene.serves(host), "0.13.4");
    }
}

/// It comes back and does not know; a person looked, and finished by hand what was half done.
#[test]
fn power_lost_on_the_one_that_runs_it_and_decided_when_it_is_back() {
    let (mut scene, id) = in_the_middle(&[]);
    scene.fleet.host("web-1").power_off();
    scene.fleet.host("web-1").power_on();
    let shown = until_shown(&scene, &id, "the rollout has ended", |shown| shown["ended_ms"].is_u64());
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"unknown".into(), &7.into()), "{shown}");
    assert_eq!(shown["once"][0]["state"], "unknown", "{shown}");
    assert_eq!(effects(&scene.fleet.hosts[0]), "begin 1.1.0\n");
    assert_eq!(effects(&scene.fleet.hosts[1]), "", "the other one never runs it");

    // A retry is no way around the decision.
    let retry = ["rollout", "retry", &id, "--reason", "mended"];
    let refused = scene.operator.run(&retry);
    assert!(refused.code == 1 && refused.stderr.contains("decide"), "{refused:?}");

    let shared = fs::OpenOptions::new()
        .append(true)
        .open(scene.fleet.hosts[0].path("/srv/notes/shared/data/effects"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"end 1.1.0\n"));
    shared.unwrap();
    let decide = ["rollout", "decide", &id, "--server", "web-1", "--step", "shared", "done"];
    scene.operator.ok(&[&decide[..], &["--reason", "finished by hand"]].concat());
    until_shown(&scene, &id, "web-1 goes on to its end", |shown| {
        shown["deployments"][0]["state"] == "succeeded"
    });
    scene.operator.ok(&retry);
    let shown = until_shown(&scene, &id, "the retried rollout has ended", |shown| {
        shown["deployments"][1]["state"] == "succeeded" && shown["ended_ms"].is_u64()
    });
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"succeeded".into(), &0.into()), "{shown}");
    assert_eq!(effects(&scene.fleet.hosts[0]), "begin 1.1.0\nend 1.1.0\n", "exactly one effect");
    assert_eq!(effects(&scene.fleet.hosts[1]), "");
    for host in &scene.fleet.hosts {
        assert_eq!(scene.serves(host), "0.13.4");
    }
}

/// It does not come back: a person gives it up, saw that nothing was done, and lets another one run it.
#[test]
fn power_lost_for_good_on_the_one_that_runs_it_and_decided_without_it() {
    let (mut scene, id) = in_the_middle(&["--offline", "owe"]);
    scene.fleet.host("web-1").power_off();
    until("the coordinator calls it offline", LONG, || {
        let shown = scene.operator.json(&["server", "show", "web-1"]);
        if shown["online"] == false { Ok(()) } else { Err(shown) }
    });
    // Much longer than the step takes.
    let begun = std::time::Instant::now();
    until("nothing happens by itself", LONG, || {
        let shown = scene.operator.json(&["rollout", "show", &id]);
        assert_eq!(shown["deployments"][1]["state"], "awaiting", "{shown}");
        if begun.elapsed() > Duration::from_secs(10) { Ok(()) } else { Err(()) }
    });
    assert_eq!(effects(&scene.fleet.hosts[1]), "");

    scene.operator.ok(&["rollout", "abort", &id, "--reason", "web-1 burnt"]);
    let shown = until_shown(&scene, &id, "the rollout has ended", |shown| shown["ended_ms"].is_u64());
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"unknown".into(), &7.into()), "{shown}");
    let decide = ["rollout", "decide", &id, "--server", "web-1", "--step", "shared", "again"];
    scene.operator.ok(&[&decide[..], &["--reason", "nothing of it is in the database"]].concat());
    assert_eq!(effects(&scene.fleet.hosts[1]), "");
    scene.operator.ok(&["rollout", "retry", &id, "--reason", "without web-1"]);
    let shown = until_shown(&scene, &id, "the retried rollout has ended", |shown| {
        shown["deployments"][1]["state"] == "succeeded" && shown["ended_ms"].is_u64()
    });
    assert_eq!(shown["state"], "partial", "web-1 is owed: {shown}");
    assert_eq!(effects(&scene.fleet.hosts[1]), "begin 1.1.0\nend 1.1.0\n");
    assert_eq!(scene.serves(&scene.fleet.hosts[1]), "0.13.4");

    // It is back after all: it converges, and is told that web-2 ran it.
    scene.fleet.host("web-1").power_on();
    let shown = until_shown(&scene, &id, "web-1 converges", |shown| {
        let deployments = shown["deployments"].as_array().unwrap();
        deployments.iter().any(|it| it["server"] == "web-1" && it["state"] == "succeeded")
    });
    let told = step(&shown, "web-1");
    assert!(told["state"] == "skipped" && told["because"].as_str().unwrap().contains("web-2"), "{shown}");
    assert_eq!(effects(&scene.fleet.hosts[0]), "begin 1.1.0\n", "it never ran there again");
    assert_eq!(scene.serves(&scene.fleet.hosts[0]), "0.13.4");
}
