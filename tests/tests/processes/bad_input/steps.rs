//! Steps whose program, user, unit or shared file is not there.

use super::support::{assert_runs, assert_says};
use crate::scene::{ACTIVATE, Scene};

#[test]
fn what_is_missing_is_named_in_the_table() {
    let mut scene = Scene::without_agents(&["app"], &["staging"]);
    let word = [
        "--allow-app",
        "app",
        "--allow-user",
        "root",
        "--allow-user",
        "ghost",
        "--allow-unit",
        "ghost.service",
    ];
    scene.enrol("web-1", "staging", &word);
    let step = |name: &str, body: &str| format!("[[step]]\nname = \"{name}\"\n{body}\n{ACTIVATE}");
    let absent = step("begin", "run = [\"bin/absent\", \"--now\"]");
    let on_path = step("begin", "run = [\"no-such-program\"]");
    let not_executable = step("begin", "run = [\"bin/plain\"]");
    let user = step("begin", "shell = \"id\"\nuser = \"ghost\"");
    let unit = step("begin", "systemd = { restart = \"ghost.service\" }");
    let shared = format!("shared = [\"config/.env\"]\n{ACTIVATE}");
    for (version, plan, parts) in [
        ("1.0.0", &absent, &["begin", "bin/absent"][..]),
        ("1.0.1", &on_path, &["begin", "no-such-program"]),
        ("1.0.2", &not_executable, &["begin", "bin/plain", "ermission denied"]),
        ("1.0.3", &user, &["ghost"]),
        ("1.0.4", &unit, &["begin", "ghost.service"]),
        ("1.0.5", &shared, &["config/.env", "shared"]),
    ] {
        scene.publish(version, plan, &[("bin/plain", "no program\n")]);
        let ran = scene.roll_out(version);
        println!("{version}: {}", ran.stdout.lines().last().unwrap_or_default());
        assert_says(&ran, 3, parts);
        // In the table at the end, not only somewhere in the output.
        let table = ran.stdout.rsplit("BECAUSE").next().unwrap();
        for part in parts {
            assert!(table.contains(part), "{part:?} is not in the table\n{}", ran.stdout);
        }
        assert_runs(&scene.agents[0], None);
    }
    scene.publish("1.1.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
}
