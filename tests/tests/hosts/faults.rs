//! What is lost in the middle of a step, and what the rollout then says: always the truth.

use std::{process::Child, time::Duration};

use consign_tests::{
    scene::{LONG, Production, SLOW},
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

#[test]
fn host_rebooted_mid_step() {
    let (mut scene, rollout) = mid_step();
    scene.fleet.hosts[0].reboot();
    // Nobody can say how the step ended: it is unknown, never green, and it does not run again.
    let (code, text) = followed(rollout);
    assert_eq!(code, 7, "{text}");
    assert_eq!(scene.newest()["deployments"][0]["state"], "unknown");
    let host = &scene.fleet.hosts[0];
    let effects = host.exec("cat /srv/notes/shared/data/effects");
    assert_eq!(effects, "begin 1.1.0\n");
    // Not activated: what ran before still does.
    assert!(host.exec("readlink /srv/notes/current").contains("1.0.0"));

    // Only a new deployment may follow, and it does.
    scene.operator.wait_online("web-1");
    scene.publish("1.2.0", "0.13.4", &["001-notes.sql"], SLOW);
    assert_eq!(scene.roll_out("1.2.0").code, 0);
    scene.assert_slow_once(&scene.fleet.hosts[0], "1.2.0");
}

#[test]
fn power_lost_mid_step() {
    let (mut scene, rollout) = mid_step();
    scene.fleet.host("web-1").power_off();
    scene.fleet.host("web-1").power_on();
    let (code, text) = followed(rollout);
    assert_eq!(code, 7, "{text}");
    assert!(scene.fleet.hosts[0].exec("readlink /srv/notes/current").contains("1.0.0"));
}

#[test]
fn supervisor_killed_mid_step() {
    let (scene, rollout) = mid_step();
    let host = &scene.fleet.hosts[0];
    host.exec("systemctl kill -s KILL --kill-whom=main 'consign-deployment-*.service'");
    let (code, text) = followed(rollout);
    assert_eq!(code, 7, "{text}");
    // Nothing of the attempt is left, and it did not go on.
    assert_eq!(host.try_exec("pgrep -u notes -f 'seq|sleep|tick'").code, 1);
    assert_eq!(host.exec("cat /srv/notes/shared/data/effects"), "begin 1.1.0\n");
}
