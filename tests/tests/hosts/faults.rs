//! What is lost in the middle of a step, and what the rollout then says: always the truth.

use std::{process::Child, time::Duration};

use consign_tests::{
    scene::{LONG, Production, Ran, SLOW},
    wait::until,
};

/// A scene with 1.0.0 deployed and 1.1.0, which has the slow step, on its way and in the middle of that step.
fn mid_step() -> (Production, Child) {
    let scene = Production::boot(&["web-1"]);
    scene.publish("1.0.0", "0.13.3", &["001-notes.sql"], "");
    scene.publish("1.1.0", "0.13.4", &["001-notes.sql"], SLOW);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let rollout =
        scene.operator.spawn(&["rollout", "start", "notes@1.1.0", "--env", "production", "--follow"]);
    scene.wait_mid_step(&scene.fleet.hosts[0], "1.1.0");
    (scene, rollout)
}

/// Waits for the follower's end; its exit code, and what it printed.
fn followed(rollout: Child) -> (i32, String) {
    let output = rollout.wait_with_output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    (output.status.code().unwrap(), text)
}

fn assert_went_through(scene: &Production, rollout: Child) {
    let (code, text) = followed(rollout);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with("tick 40")).count(), 1, "{text}");
    scene.assert_slow_once(&scene.fleet.hosts[0], "1.1.0");
    assert_eq!(scene.serves(&scene.fleet.hosts[0]), "0.13.4");
}

#[test]
fn agent_killed_mid_step() {
    let (scene, rollout) = mid_step();
    let host = &scene.fleet.hosts[0];
    let agent = host.exec("systemctl show -P MainPID consign-agent");
    host.exec("systemctl kill -s KILL --kill-whom=main consign-agent");
    until("systemd has started it again", LONG, || {
        let now = host.exec("systemctl show -P MainPID consign-agent");
        if now != agent && now.trim() != "0" { Ok(()) } else { Err(now) }
    });
    assert_went_through(&scene, rollout);
}

#[test]
fn agent_restarted_through_systemd_mid_step() {
    let (scene, rollout) = mid_step();
    scene.fleet.hosts[0].exec("systemctl restart consign-agent");
    assert_went_through(&scene, rollout);
}

#[test]
fn link_cut_for_half_a_minute_mid_step() {
    let (scene, rollout) = mid_step();
    scene.fleet.hosts[0].cut_link();
    std::thread::sleep(Duration::from_secs(30));
    scene.fleet.hosts[0].join_link();
    assert_went_through(&scene, rollout);
}

#[test]
fn coordinator_killed_mid_rollout() {
    let (mut scene, rollout) = mid_step();
    scene.coordinator.kill();
    scene.coordinator.launch();
    assert_went_through(&scene, rollout);
}

/// The step's outcome is unknown, the rollout says so, and the server waits for a decision; the rollout's id.
fn assert_waits_for_a_decision(scene: &Production, rollout: Child) -> String {
    let (code, text) = followed(rollout);
    assert_eq!(code, 7, "{text}");
    let host = &scene.fleet.hosts[0];
    let shown = scene.newest();
    assert_eq!((&shown["state"], &shown["deployments"][0]["state"]), (&"unknown".into(), &"unknown".into()));
    let because = shown["because"].as_str().unwrap();
    assert!(because.contains("slow") && because.contains("consign rollout decide"), "{because}");
    let status = host.exec("consign-agent status");
    assert!(status.contains("waits for a decision") && status.contains("step slow"), "{status}");
    // It did not run again, and it is not activated: what ran before still does.
    assert_eq!(host.exec("cat /srv/notes/shared/data/effects"), "begin 1.1.0\n");
    assert!(host.exec("readlink /srv/notes/current").contains("1.0.0"));
    scene.operator.wait_online("web-1");
    shown["id"].as_str().unwrap().to_owned()
}

fn decide(scene: &Production, id: &str, action: &str) -> Ran {
    let decide = ["rollout", "decide", id, "--server", "web-1", "--step", "slow", action];
    scene.operator.run(&[&decide[..], &["--reason", "looked at it"]].concat())
}

/// The deployment that was decided about goes on to its end, and nothing of the rollout is unknown any more.
fn assert_goes_on(scene: &Production, id: &str) {
    let shown = scene.until_newest("the decided deployment has ended", |shown| {
        shown["id"] == id && shown["deployments"][0]["state"] == "succeeded"
    });
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"succeeded".into(), &0.into()), "{shown}");
    assert_eq!(scene.serves(&scene.fleet.hosts[0]), "0.13.4");
    let again = decide(scene, id, "done");
    assert!(again.code == 1 && again.stderr.contains("nothing to decide"), "{again:?}");
}

#[test]
fn host_rebooted_mid_step_and_decided_to_run_it_again() {
    let (mut scene, rollout) = mid_step();
    scene.fleet.host("web-1").reboot();
    let id = assert_waits_for_a_decision(&scene, rollout);
    assert_eq!(decide(&scene, &id, "again").code, 0);
    assert_goes_on(&scene, &id);
    let effects = scene.fleet.hosts[0].exec("cat /srv/notes/shared/data/effects");
    assert_eq!(effects, "begin 1.1.0\nbegin 1.1.0\nend 1.1.0\n");
    let shown = scene.newest();
    let mut steps = shown["deployments"][0]["steps"].as_array().unwrap().iter();
    let slow = steps.find(|step| step["name"] == "slow").unwrap();
    assert_eq!((&slow["attempts"], &slow["state"]), (&2.into(), &"succeeded".into()), "{shown}");
}

#[test]
fn power_lost_mid_step_and_decided_that_it_was_done() {
    let (mut scene, rollout) = mid_step();
    scene.fleet.host("web-1").power_off();
    scene.fleet.host("web-1").power_on();
    let id = assert_waits_for_a_decision(&scene, rollout);
    // It is asked for again after every restart.
    scene.fleet.hosts[0].exec("systemctl restart consign-agent");
    scene.operator.wait_online("web-1");
    assert_eq!(decide(&scene, &id, "done").code, 0);
    assert_goes_on(&scene, &id);
    let effects = scene.fleet.hosts[0].exec("cat /srv/notes/shared/data/effects");
    assert_eq!(effects, "begin 1.1.0\n", "it did not run again");
}

#[test]
fn power_lost_mid_step_and_a_new_version_comes_before_a_decision() {
    let (mut scene, rollout) = mid_step();
    scene.fleet.host("web-1").power_off();
    scene.fleet.host("web-1").power_on();
    let id = assert_waits_for_a_decision(&scene, rollout);
    scene.publish("1.2.0", "0.13.4", &["001-notes.sql"], SLOW);
    assert_eq!(scene.roll_out("1.2.0").code, 0, "a fix is never in the way of itself");
    scene.assert_slow_once(&scene.fleet.hosts[0], "1.2.0");
    assert_eq!(scene.serves(&scene.fleet.hosts[0]), "0.13.4");

    // The one before stays unknown, and nobody waits for a word about it.
    let shown = scene.operator.json(&["rollout", "show", &id]);
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"unknown".into(), &7.into()), "{shown}");
    assert!(!shown["because"].as_str().unwrap().contains("consign rollout decide"), "{shown}");
    let late = decide(&scene, &id, "done");
    assert!(late.code == 1 && late.stderr.contains("superseded"), "{late:?}");
    assert!(!scene.fleet.hosts[0].exec("consign-agent status").contains("decision"));
    let effects = scene.fleet.hosts[0].exec("cat /srv/notes/shared/data/effects");
    assert_eq!(effects, "begin 1.1.0\nbegin 1.2.0\nend 1.2.0\n");
}

#[test]
fn supervisor_killed_mid_step_and_decided_that_it_failed() {
    let (scene, rollout) = mid_step();
    let host = &scene.fleet.hosts[0];
    host.exec("systemctl kill -s KILL --kill-whom=main 'consign-deployment-*.service'");
    let id = assert_waits_for_a_decision(&scene, rollout);
    // Nothing of the attempt is left, and it did not go on.
    assert_eq!(host.try_exec("pgrep -u notes -f 'seq|sleep|tick'").code, 1);
    assert_eq!(decide(&scene, &id, "failed").code, 0);
    let shown = scene.until_newest("it has failed", |shown| shown["deployments"][0]["state"] == "failed");
    assert_eq!((&shown["state"], &shown["exit_code"]), (&"stopped".into(), &3.into()), "{shown}");
    assert!(host.exec("readlink /srv/notes/current").contains("1.0.0"));
    assert_eq!(host.exec("cat /srv/notes/shared/data/effects"), "begin 1.1.0\n");
}
