//! Output is live: what a step writes is on the operator's screen while the step still runs.

use std::{
    io::{BufRead, BufReader},
    time::Instant,
};

use crate::scene::Scene;

#[test]
fn the_first_line_is_seen_before_the_step_ends() {
    let scene = Scene::start(&["web-1"]);
    // The step ends only when the test, having seen `first`, lets it: no clock can make this pass.
    let gate = scene.publish_waiting("1.0.0");
    let begun = Instant::now();
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.find(|line| line.ends_with("first"));
    assert!(first.is_some(), "the follower ended without the step's output");
    println!("first line after {:?}", begun.elapsed());
    std::fs::write(&gate, "").unwrap();
    assert!(lines.any(|line| line.ends_with("second")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
