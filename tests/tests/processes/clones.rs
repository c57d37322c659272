//! A server that was cloned with its agent's identity and journal: which one is meant, only a person can say.

use std::time::Duration;

use consign_tests::{scene::Agent, wait::until};

use crate::scene::{ACTIVATE, Scene};

const LONG: Duration = Duration::from_secs(60);

fn current(agent: &Agent) -> String {
    std::fs::read_link(agent.apps().join("app/current")).unwrap().display().to_string()
}

/// What `consign-agent status` says on the machine itself.
fn status(agent: &Agent) -> String {
    let output = agent.command(&["status"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn t8_a_cloned_server_is_quarantined() {
    let mut scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_eq!(scene.roll_out("1.0.0").code, 0);

    scene.agents[0].kill();
    let mut copy = scene.agents[0].copied("web-1-copy");
    scene.agents[0].launch();
    scene.operator.wait_online("web-1");
    copy.launch();

    let shown = until("the server is in quarantine", LONG, || {
        let shown = scene.operator.json(&["server", "show", "web-1"]);
        if shown["quarantined"] == "" { Err(shown) } else { Ok(shown) }
    });
    assert!(shown["quarantined"].as_str().unwrap().contains("two agents"), "{shown}");
    assert!(shown["quarantined_since_ms"].as_u64().unwrap() > 0 && shown["online"] == false, "{shown}");
    for look in [&["status"][..], &["server", "list"], &["server", "show", "web-1"]] {
        let told = scene.operator.ok(look);
        assert!(told.contains("QUARANTINED"), "{look:?}\n{told}");
    }
    for agent in [&scene.agents[0], &copy] {
        until("its agent says so", LONG, || {
            let told = status(agent);
            if told.contains("quarantined: ") { Ok(()) } else { Err(told) }
        });
        assert!(agent.log().contains("quarantined: "), "{}", agent.log());
    }

    // Nothing is deployed to either, and the rollout says why.
    scene.publish("1.1.0", ACTIVATE, &[]);
    let passed_by = scene.roll_out("1.1.0");
    let told = format!("{}{}", passed_by.stdout, passed_by.stderr);
    assert!(told.contains("quarantined: "), "{told}");
    for agent in [&scene.agents[0], &copy] {
        assert!(current(agent).contains("1.0.0"), "{}", current(agent));
    }

    // Nothing but a person's word ends it: neither time nor a restart.
    scene.coordinator.kill();
    scene.coordinator.launch();
    assert_ne!(scene.operator.run(&["server", "enable", "web-1"]).code, 0);
    assert!(scene.operator.ok(&["server", "list"]).contains("QUARANTINED"));

    // One of them is enrolled anew, and is the server. The other one is nobody.
    scene.agents[0].kill();
    let token = scene.operator.ok(&["server", "token", "--name", "web-1", "--env", "staging", "--replace"]);
    scene.agents[0].enroll(&token, &["--replace", "--allow-app", "app", "--allow-user", "root"]);
    scene.agents[0].launch();
    scene.operator.ok(&["server", "enable", "web-1"]);
    scene.operator.wait_online("web-1");
    let taken = scene.roll_out("1.1.0");
    assert_eq!(taken.code, 0, "{}{}", taken.stdout, taken.stderr);
    assert!(current(&scene.agents[0]).contains("1.1.0"));
    assert!(current(&copy).contains("1.0.0"), "{}", current(&copy));
    assert!(scene.operator.json(&["server", "show", "web-1"])["quarantined"] == "");
}
