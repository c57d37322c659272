//! A coordinator that was restored from an old backup, and agents that have gone on since.

use std::{fs, time::Duration};

use consign_tests::wait::until;

use crate::scene::{ACTIVATE, Scene};

const LONG: Duration = Duration::from_secs(60);

fn current(scene: &Scene, agent: usize) -> String {
    fs::read_link(scene.agents[agent].apps().join("app/current")).unwrap().display().to_string()
}

/// Waits until the rollout's one server is in this state.
fn wait_for(scene: &Scene, rollout: &str, state: &str) {
    until("the server's state", LONG, || {
        let shown = scene.operator.json(&["rollout", "show", rollout]);
        if shown["deployments"][0]["state"] == state { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn a_restored_coordinator_stops_until_somebody_takes_over() {
    let mut scene = Scene::start(&["web-1", "web-2"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);
    let backup = scene.directory.path().join("backup");
    scene.coordinator.kill();
    scene.coordinator.back_up(&backup);
    scene.coordinator.launch();

    // Two rollouts that the backup does not have, and the second one is under way when the disk fails.
    scene.publish("1.1.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.1.0").code, 0);
    let gate = scene.publish_waiting("1.2.0");
    let started = ["rollout", "start", "app@1.2.0", "--env", "staging", "--only", "web-1"];
    let under_way = scene.operator.json(&started)["id"].as_str().unwrap().to_owned();
    wait_for(&scene, &under_way, "running");
    scene.coordinator.kill();
    scene.coordinator.restore(&backup);
    scene.coordinator.launch();
    for server in ["web-1", "web-2"] {
        scene.operator.wait_online(server);
    }
    fs::write(&gate, "").unwrap();

    // It says what it does not know, and starts nothing.
    let behind = until("it is behind", LONG, || {
        let status = scene.operator.json(&["status"]);
        if status["behind"][0]["term"] == 3 { Ok(status) } else { Err(status) }
    });
    let behind = &behind["behind"][0];
    assert_eq!((&behind["given"], &behind["server"]), (&1.into(), &"web-1".into()), "{behind}");
    until("the unknown deployment is told", LONG, || {
        let shown = scene.operator.ok(&["server", "show", "web-1"]);
        if shown.contains("1 deployments") && shown.contains("behind") { Ok(()) } else { Err(shown) }
    });
    assert!(scene.operator.ok(&["status"]).contains("BEHIND"), "status warns");
    scene.publish("1.3.0", ACTIVATE, &[]);
    let refused = scene.roll_out("1.3.0");
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.code, 1, "{told}");
    assert!(told.contains("coordinator-behind") && told.contains("web-1 has seen term 3"), "{told}");
    assert!(current(&scene, 1).contains("1.1.0"), "nothing was deployed");
    until("what ran goes on to its end", LONG, || {
        if current(&scene, 0).contains("1.2.0") { Ok(()) } else { Err(current(&scene, 0)) }
    });

    let take_over = ["env", "take-over", "app", "--env", "staging", "--reason", "restored"];
    let taken = scene.operator.json(&take_over);
    assert_eq!((&taken["term"], &taken["new_term"]), (&3.into(), &4.into()), "{taken}");
    let next = scene.roll_out("1.3.0");
    assert_eq!(next.code, 0, "{}{}", next.stdout, next.stderr);
    for agent in [0, 1] {
        assert!(current(&scene, agent).contains("1.3.0"), "{}", current(&scene, agent));
    }
    // Said once, and the sessions held: what it does not know breaks and repeats nothing.
    let log = scene.coordinator.log();
    assert_eq!(log.matches("a deployment that is not known here").count(), 1, "{log}");
    assert_ne!(scene.operator.run(&take_over).code, 0, "there is nothing to take over any more");
}

#[test]
fn what_a_restored_coordinator_lost_is_told_again() {
    let mut scene = Scene::start(&["web-1"]);
    let gate = scene.publish_waiting("1.0.0");
    let started = scene.operator.json(&["rollout", "start", "app@1.0.0", "--env", "staging"]);
    let rollout = started["id"].as_str().unwrap().to_owned();
    wait_for(&scene, &rollout, "running");
    let backup = scene.directory.path().join("backup");
    scene.coordinator.kill();
    scene.coordinator.back_up(&backup);
    scene.coordinator.launch();
    fs::write(&gate, "").unwrap();
    wait_for(&scene, &rollout, "succeeded");

    // The coordinator of the backup knows of a deployment that runs; the agent has told its end, to another one.
    scene.coordinator.kill();
    scene.coordinator.restore(&backup);
    scene.coordinator.launch();
    wait_for(&scene, &rollout, "succeeded");
    until("its output is here too", LONG, || {
        let log = scene.operator.ok(&["rollout", "logs", &rollout, "--server", "web-1", "--step", "talk"]);
        let lines = (log.matches("first").count(), log.matches("second").count());
        if lines == (1, 1) { Ok(()) } else { Err(log) }
    });
}
