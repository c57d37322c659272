//! People who go, and a coordinator that dies while it is sent something.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    time::Duration,
};

use consign_tests::wait::until;
use nix::{sys::signal, unistd::Pid};

use super::support::{assert_says, names};
use crate::scene::{ACTIVATE, Scene};

#[test]
fn ctrl_c_leaves_the_rollout_running_and_says_how_to_follow_it() {
    let scene = Scene::start(&["web-1"]);
    let gate = scene.publish_waiting("1.0.0");
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("first")));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    signal::kill(pid, signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let hint = said.split("consign rollout follow ").nth(1).unwrap_or_else(|| panic!("no hint: {said}"));
    let id = hint.split_whitespace().next().unwrap();
    assert_eq!(scene.operator.json(&["rollout", "show", id])["state"], "running");

    fs::write(&gate, "").unwrap();
    // As it was said.
    let followed = scene.operator.run(&["rollout", "follow", id]);
    assert_says(&followed, 0, &["| first", "| second"]);
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn an_upload_outlives_the_coordinator_and_the_publisher() {
    let mut scene = Scene::start(&["web-1"]);
    let source = scene.source("app", "1.0.0", ACTIVATE, &[]);
    let mut noise = vec![0; 300 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(source.join("noise"), noise).unwrap();
    let packed = scene.directory.path().join("app.consign");
    let packed = packed.to_str().unwrap();
    scene.operator.ok(&["artifact", "pack", source.to_str().unwrap(), "--version", "1.0.0", "-o", packed]);
    let uploads = scene.coordinator.state().join("uploads");
    let under_way = |more_than: u64| {
        until("the upload is under way", Duration::from_secs(120), || {
            let there = bytes_below(&uploads);
            if there > more_than { Ok(there) } else { Err(there) }
        })
    };

    // The coordinator dies, and the publisher too.
    let mut first = scene.operator.spawn(&["artifact", "publish", packed]);
    under_way(1 << 20);
    scene.coordinator.kill();
    first.kill().unwrap();
    first.wait().unwrap();
    let kept = bytes_below(&uploads);
    assert!(kept > 0, "what was sent is kept");

    scene.coordinator.launch();
    assert_eq!(scene.operator.run(&["artifact", "show", "app@1.0.0"]).code, 1, "half an artifact is none");

    // The coordinator dies once more, and this publisher does not give up.
    let second = scene.operator.spawn(&["artifact", "publish", packed]);
    let further = under_way(kept + (1 << 20));
    println!("{kept} bytes kept, {further} when it was killed again");
    scene.coordinator.kill();
    scene.coordinator.launch();
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What a kill left of a file that was just being written is swept with the old uploads.
    let left: Vec<String> = names(&uploads).into_iter().filter(|name| !name.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
    for agent in &scene.agents {
        scene.operator.wait_online(&agent.name);
    }
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
}
