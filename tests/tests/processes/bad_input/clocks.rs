//! A server whose clock is two hours off.

use std::time::Duration;

use consign_tests::wait::until;

use super::support::{assert_says, names, shifted};
use crate::scene::{ACTIVATE, Scene};

#[test]
fn a_clock_two_hours_off_is_shown_and_stops_deployments_but_not_the_way_back() {
    for (shift, shown) in [("+2h", "ahead"), ("-2h", "behind")] {
        let mut scene = Scene::start(&["web-1"]);
        for version in ["1.0.0", "1.1.0"] {
            scene.publish(version, ACTIVATE, &[]);
            assert_says(&scene.roll_out(version), 0, &[]);
        }
        scene.publish("1.2.0", ACTIVATE, &[]);
        scene.agents[0].kill();
        scene.agents[0].launch_with(|command| shifted(command, shift));
        until("the clock is shown", Duration::from_secs(60), || {
            let listed = scene.operator.json(&["server", "list"]);
            let server = &listed[0];
            if server["online"] == true && server["clock_skew"] == true { Ok(()) } else { Err(listed) }
        });
        // On the server's own line, with how much it is.
        let listed = scene.operator.ok(&["server", "list"]);
        let line = listed.lines().find(|line| line.starts_with("web-1")).unwrap();
        assert!(line.contains("clock ") && line.contains(shown), "{line}");
        let offset = scene.operator.json(&["server", "list"])[0]["clock_offset_ms"].as_i64().unwrap();
        assert!((offset.abs() - 7_200_000).abs() < 60_000 && (offset > 0) == (shift == "+2h"), "{offset}");

        assert_says(&scene.roll_out("1.2.0"), 3, &["clock", shown, "clock-skew", "no deploy order was sent"]);
        let releases = names(&scene.agents[0].apps().join("app/releases"));
        assert!(!releases.iter().any(|release| release.starts_with("1.2.0")), "{releases:?}");
        let back = scene.operator.run(&[
            "rollout",
            "rollback",
            "app@1.1.0",
            "--env",
            "staging",
            "--reason",
            "test",
            "--follow",
        ]);
        assert_says(&back, 0, &[]);
        let current = std::fs::read_link(scene.agents[0].apps().join("app/current")).unwrap();
        assert!(current.to_string_lossy().contains("1.0.0"), "{current:?}");

        // The clock is set: deployments go on.
        scene.agents[0].kill();
        scene.agents[0].launch();
        until("the clock is good again", Duration::from_secs(60), || {
            let listed = scene.operator.json(&["server", "list"]);
            let server = &listed[0];
            if server["online"] == true && server["clock_skew"] == false { Ok(()) } else { Err(listed) }
        });
        assert_says(&scene.roll_out("1.2.0"), 0, &[]);
    }
}
