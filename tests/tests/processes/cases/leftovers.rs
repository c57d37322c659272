//! A step that starts something and does not wait for it.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{is_alive, line_in, newest};
use crate::scene::{ACTIVATE, Scene};

#[test]
fn t2_a_step_ends_at_once_though_its_child_holds_stdout_and_the_leftover_is_listed() {
    let scene = Scene::start(&["web-1"]);
    let mut told = Vec::new();
    for (version, leaves) in [("1.0.0", "false"), ("1.1.0", "true")] {
        let pid = scene.directory.path().join(format!("pid-{version}"));
        let run =
            format!("#!/bin/sh\necho $$ > {}\necho it begins\nwhile :; do sleep 1; done\n", pid.display());
        let step = format!(
            "[[step]]\nname = \"launch\"\nleaves = {leaves}\n\
             shell = \"bin/run.sh & until [ -s {} ]; do sleep 0.05; done\"\n{ACTIVATE}",
            pid.display()
        );
        scene.publish(version, &step, &[("bin/run.sh", &run)]);
        let ran = scene.roll_out(version);
        let pid = line_in(&pid);
        let left = is_alive(&pid);
        if left {
            // Whatever the test says of it, it goes with the test.
            kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        }
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        let shown = newest(&scene);
        let step = &shown["deployments"][0]["steps"][0];
        let took = step["ended_ms"].as_u64().unwrap() - step["started_ms"].as_u64().unwrap();
        println!("t2: leaves = {leaves}: the step took {took} ms");
        assert!(Duration::from_millis(took) < Duration::from_secs(60), "it waited for its child: {step}");
        assert_eq!(left, leaves == "true", "{version}: process {pid}");
        let id = shown["id"].as_str().unwrap();
        let words = [
            ran.stdout.clone(),
            scene.operator.ok(&["rollout", "show", id]),
            scene.operator.ok(&["rollout", "logs", id]),
        ];
        told.push((pid, words.concat()));
    }
    // Where the step's end is told, or in what can be read of it later.
    for (pid, words) in told {
        assert!(words.contains(&pid) && words.contains("run.sh"), "process {pid} is listed nowhere\n{words}");
    }
}
