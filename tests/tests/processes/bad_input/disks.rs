//! Disks that are full before, while and after something is written.

use std::{
    fs,
    io::{Read, Write},
    time::{Duration, Instant},
};

use consign_tests::wait::until;
use nix::{sys::signal, unistd::Pid};

use super::support::{SmallDisk, assert_runs, assert_says, names};
use crate::scene::{ACTIVATE, Scene};

const WORD: [&str; 4] = ["--allow-app", "app", "--allow-user", "root"];

#[test]
fn a_disk_that_is_too_small_is_left_as_it_was() {
    let mut scene = Scene::without_agents(&["app"], &["staging"]);
    let apps = scene.directory.path().join("web-1/apps");
    let disk = SmallDisk::mount(&apps, "size=4m,nr_inodes=200");
    scene.enrol("web-1", "staging", &WORD);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    let before = disk.free_bytes();

    scene.publish("1.1.0", ACTIVATE, &[("big", &"x".repeat(6 << 20))]);
    assert_says(&scene.roll_out("1.1.0"), 3, &["web-1", "needs", "free"]);
    assert_runs(&scene.agents[0], Some("1.0.0"));
    assert_eq!(disk.free_bytes(), before);

    let many: Vec<(String, String)> = (0..250).map(|file| (format!("d/{file}"), file.to_string())).collect();
    let many: Vec<(&str, &str)> =
        many.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
    scene.publish("1.2.0", ACTIVATE, &many);
    assert_says(&scene.roll_out("1.2.0"), 3, &["web-1"]);
    assert_runs(&scene.agents[0], Some("1.0.0"));

    scene.publish("1.3.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.3.0"), 0, &[]);
}

/// Somebody else takes the space between the question and the writing.
#[test]
fn a_disk_that_fills_while_staging_is_left_as_it_was() {
    let mut scene = Scene::without_agents(&["app"], &["staging"]);
    let apps = scene.directory.path().join("web-1/apps");
    let disk = SmallDisk::mount(&apps, "size=64m");
    scene.enrol("web-1", "staging", &WORD);
    scene.publish("1.0.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.0.0"), 0, &[]);
    let before = disk.free_bytes();
    let source = scene.source("app", "1.1.0", ACTIVATE, &[]);
    let mut noise = vec![0; 48 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(source.join("noise"), noise).unwrap();
    scene.operator.ok(&["artifact", "publish", source.to_str().unwrap(), "--version", "1.1.0"]);

    let child = scene.operator.spawn(&["rollout", "start", "app@1.1.0", "--env", "staging", "--follow"]);
    let downloads = scene.agents[0].state().join("downloads");
    let agent = Pid::from_raw(i32::try_from(scene.agents[0].pid()).unwrap());
    // The question for space was answered when the pack is on its way; hold the agent there.
    let deadline = Instant::now() + Duration::from_secs(60);
    while names(&downloads).is_empty() {
        assert!(Instant::now() < deadline, "no pack is fetched");
    }
    signal::kill(agent, signal::Signal::SIGSTOP).unwrap();
    let ballast = apps.join("ballast");
    let left = usize::try_from(disk.free_bytes()).unwrap() - (8 << 20);
    fs::write(&ballast, vec![0; left]).unwrap();
    signal::kill(agent, signal::Signal::SIGCONT).unwrap();
    let output = child.wait_with_output().unwrap();
    fs::remove_file(&ballast).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{stdout}");
    assert!(stdout.contains("disk-full") && stdout.contains("No space left on device"), "{stdout}");
    assert_runs(&scene.agents[0], Some("1.0.0"));
    assert_eq!(disk.free_bytes(), before);
    // There is space again.
    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
}

#[test]
fn a_step_that_fills_the_disk_fails_and_its_log_survives() {
    let mut scene = Scene::without_agents(&["app"], &["staging"]);
    let apps = scene.directory.path().join("web-1/apps");
    let disk = SmallDisk::mount(&apps, "size=8m");
    scene.enrol("web-1", "staging", &WORD);
    fs::create_dir_all(apps.join("app/shared/data")).unwrap();
    let fill = "shared = [\"data\"]\n[[step]]\nname = \"fill\"\nshell = \"\"\"\necho before\n\
                head -c 20000000 /dev/zero > data/fill\ncode=$?\necho after\nrm data/fill\nexit $code\n\"\"\"\n";
    scene.publish("1.0.0", &format!("{fill}{ACTIVATE}"), &[]);
    let before = disk.free_bytes();
    let parts = ["before", "No space left on device", "after", "exit code 1"];
    assert_says(&scene.roll_out("1.0.0"), 3, &parts);
    assert_runs(&scene.agents[0], None);
    assert!(disk.free_bytes() + 100_000 > before);
    let listed = scene.operator.json(&["rollout", "list"]);
    let id = listed[0]["id"].as_str().unwrap();
    let log = scene.operator.ok(&["rollout", "logs", id]);
    for part in ["before", "No space left on device", "after"] {
        assert!(log.contains(part), "{log}");
    }
}

/// The agent's own disk is full in the middle of a step: the step is not disturbed, what its log misses is counted, and
/// the outcome is told when there is space again.
#[test]
fn a_full_state_directory_loses_no_outcome() {
    let mut scene = Scene::without_agents(&["app"], &["staging"]);
    let state = scene.directory.path().join("web-1/state");
    let disk = SmallDisk::mount(&state, "size=16m");
    scene.enrol("web-1", "staging", &WORD);
    let ballast = state.join("ballast");
    let gate = scene.directory.path().join("gate");
    let step = format!(
        "[[step]]\nname = \"talk\"\nshell = \"\"\"\necho begun\nuntil [ -e {} ]; do sleep 0.05; done\n\
         yes 'a line of thirty-two characters' | head -c 6000000\necho ended\n\"\"\"\n{ACTIVATE}",
        gate.display()
    );
    scene.publish("1.0.0", &step, &[]);
    let started = scene.operator.json(&["rollout", "start", "app@1.0.0", "--env", "staging"]);
    let id = started["id"].as_str().unwrap();
    until("the step runs", Duration::from_secs(60), || {
        let log = scene.operator.ok(&["rollout", "logs", id]);
        if log.contains("begun") { Ok(()) } else { Err(log) }
    });
    let left = usize::try_from(disk.free_bytes()).unwrap() - (2 << 20);
    fs::write(&ballast, vec![0; left]).unwrap();
    fs::write(&gate, "").unwrap();
    until("the disk is full", Duration::from_secs(60), || {
        let free = disk.free_bytes();
        if free < 65536 { Ok(()) } else { Err(free) }
    });
    fs::remove_file(&ballast).unwrap();
    let ended = until("the rollout ends", Duration::from_secs(90), || {
        let shown = scene.operator.json(&["rollout", "show", id]);
        if shown["ended_ms"].as_u64().unwrap_or(0) != 0 { Ok(shown) } else { Err(shown) }
    });
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_runs(&scene.agents[0], Some("1.0.0"));

    // While it is full, no order is taken: nothing may begin that cannot be written down.
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    scene.publish("1.1.0", ACTIVATE, &[]);
    assert_says(&scene.roll_out("1.1.0"), 3, &["web-1", "full"]);
    assert_runs(&scene.agents[0], Some("1.0.0"));
    fs::remove_file(&ballast).unwrap();
    assert_says(&scene.roll_out("1.1.0"), 0, &[]);
}
