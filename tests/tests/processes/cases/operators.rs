//! People in a hurry: two at once, Ctrl-C twice, a terminal that nobody reads.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    process::Child,
    sync::Barrier,
    time::{Duration, Instant},
};

use consign_tests::{scene::Ran, wait::until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::support::{current, effects, ended, newest, start};
use crate::scene::{ACTIVATE, Scene};

const PATIENCE: Duration = Duration::from_secs(60);

/// A step that says so when it has begun, and goes on until it is told to end.
fn waiting(version: &str) -> String {
    format!(
        "[[step]]\nname = \"wait\"\nshell = \"echo begun {version} >> ../../effects; exec sleep 120\"\n{ACTIVATE}"
    )
}

fn wait_begun(scene: &Scene, version: &str) {
    until("the step has begun", PATIENCE, || {
        let effects = effects(&scene.agents[0]);
        if effects.contains(&format!("begun {version}")) { Ok(()) } else { Err(effects) }
    });
}

/// A scene with 0.9.0 and then 1.0.0 deployed.
fn with_two_versions() -> Scene {
    let scene = Scene::start(&["web-1"]);
    for version in ["0.9.0", "1.0.0"] {
        scene.publish(version, ACTIVATE, &[]);
        assert_eq!(scene.roll_out(version).code, 0);
    }
    scene
}

/// An answer that a person can act on: what was done, or by name why not.
#[track_caller]
fn assert_clear(what: &str, ran: &Ran, refusals: &[&str]) {
    println!("{what}: exit code {}\n{}{}", ran.code, ran.stdout, ran.stderr);
    match ran.code {
        0 => assert!(ran.stdout.starts_with("rollout ") && ran.stdout.contains("web-1"), "{what}: {ran:?}"),
        _ => assert!(refusals.iter().any(|refusal| ran.stderr.contains(refusal)), "{what}: {ran:?}"),
    }
}

/// However the two meet: the version on its way is given up once, and what ran before still does.
#[test]
fn abort_and_rollback_pressed_at_once_have_one_end() {
    let seed = std::env::var("CONSIGN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    println!("CONSIGN_TEST_SEED={seed}");
    let mut random = seed | 1;
    let scene = with_two_versions();
    for round in 1..=8 {
        let version = format!("1.{round}.0");
        scene.publish(&version, &waiting(&version), &[]);
        let id = start(&scene, &version);
        wait_begun(&scene, &version);
        // xorshift64: who is how much earlier, by less than a command takes.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (later, pause) = (random % 2, Duration::from_millis(random / 2 % 40));
        let both = Barrier::new(2);
        let press = |me: u64, arguments: &[&str]| {
            both.wait();
            if me == later {
                std::thread::sleep(pause);
            }
            scene.operator.run(arguments)
        };
        let (abort, rollback) = std::thread::scope(|scope| {
            let abort = scope.spawn(|| press(0, &["rollout", "abort", &id, "--reason", "wrong"]));
            let back = ["rollout", "rollback", "app", "--env", "staging", "--reason", "slow"];
            let rollback = press(1, &back);
            (abort.join().unwrap(), rollback)
        });
        println!("---- round {round}: number {later} is {pause:?} later");
        assert_clear("abort", &abort, &["cannot abort: the rollout is abort"]);
        assert_clear("rollback", &rollback, &["nothing-to-return"]);

        let end = ended(&scene, &id);
        assert_eq!((end["state"].as_str(), end["exit_code"].as_u64()), (Some("aborted"), Some(5)), "{end}");
        assert_eq!(end["deployments"][0]["state"], "cancelled");
        let back = newest(&scene);
        let back = ended(&scene, back["id"].as_str().unwrap());
        println!("newest: {} {} of {}: {}", back["kind"], back["state"], back["version"], back["because"]);
        assert_eq!(current(&scene.agents[0]), "1.0.0", "what ran before still does");
        assert_eq!(effects(&scene.agents[0]).len(), round, "nothing ran twice");
        let listed = scene.operator.json(&["rollout", "list"]);
        let open: Vec<_> = listed.as_array().unwrap().iter().filter(|it| !it["ended_ms"].is_u64()).collect();
        assert!(open.is_empty(), "{open:?}");
    }
}

/// The second one is a moment too late: the version on its way is gone already, and nobody meant the one before it.
#[test]
fn a_rollback_pressed_just_after_an_abort_does_not_leave_what_was_good() {
    let scene = with_two_versions();
    scene.publish("1.1.0", &waiting("1.1.0"), &[]);
    let id = start(&scene, "1.1.0");
    wait_begun(&scene, "1.1.0");
    scene.operator.ok(&["rollout", "abort", &id, "--reason", "wrong"]);
    ended(&scene, &id);
    let rollback = scene
        .operator
        .run(&["rollout", "rollback", "app", "--env", "staging", "--reason", "slow", "--follow"]);
    println!("exit code {}\n{}{}", rollback.code, rollback.stdout, rollback.stderr);
    assert_eq!(current(&scene.agents[0]), "1.0.0", "{}{}", rollback.stdout, rollback.stderr);
}

fn interrupt(child: &Child) {
    // One that has ended already is a zombie until it is waited for.
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
}

/// Waits for the process's end; its exit code, 130 also where the signal itself ended it.
#[track_caller]
fn code_of(child: &mut Child, longest: Duration) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let status = until("the command ends", longest, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

#[test]
fn ctrl_c_twice_is_as_once() {
    let scene = Scene::start(&["web-1"]);
    let gate = scene.publish_waiting("1.0.0");
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("first")));
    interrupt(&child);
    interrupt(&child);
    assert_eq!(code_of(&mut child, PATIENCE), 130);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.matches("consign rollout follow ").count(), 1, "{said}");
    let shown = newest(&scene);
    assert_eq!(shown["state"], "running", "the rollout goes on");
    fs::write(&gate, "").unwrap();
    assert_eq!(ended(&scene, shown["id"].as_str().unwrap())["state"], "succeeded");
}

const LINES: usize = 200_000;

/// A step that writes more than any pipe and buffer on the way holds.
fn talkative() -> String {
    let talk = format!("seq -f 'line %.0f of a step that talks much' 0 {}", LINES - 1);
    format!("[[step]]\nname = \"talk\"\nshell = \"{talk}\"\n{ACTIVATE}")
}

/// Follows a rollout of [`talkative`] to two servers, one after the other, and reads nothing before it has ended.
fn follow_unread(scene: &Scene, options: &[&str]) -> Child {
    scene.publish("1.0.0", &talkative(), &[]);
    let begun = Instant::now();
    let start =
        ["rollout", "start", "app@1.0.0", "--env", "staging", "--wave", "1", "--wave", "100%", "--follow"];
    let mut child = scene.operator.spawn(&[&start[..], options].concat());
    until("the rollout is there", PATIENCE, || {
        let list = scene.operator.json(&["rollout", "list"]);
        if list[0]["id"].is_string() { Ok(()) } else { Err(list) }
    });
    let shown = ended(scene, newest(scene)["id"].as_str().unwrap());
    println!("ended {:?} after its beginning, with nobody reading", begun.elapsed());
    assert_eq!(shown["state"], "succeeded");
    assert_eq!(child.try_wait().unwrap(), None, "it has more to say");
    child
}

#[test]
fn a_follower_that_nobody_reads_holds_up_nothing_and_misses_nothing() {
    let scene = Scene::start(&["web-1", "web-2"]);
    let mut child = follow_unread(&scene, &["--output", "json"]);
    let mut texts =
        BTreeMap::from([("web-1".to_owned(), String::new()), ("web-2".to_owned(), String::new())]);
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["event"] == "output" && line["step"] == "talk" {
            texts.get_mut(line["server"].as_str().unwrap()).unwrap().push_str(line["text"].as_str().unwrap());
        }
    }
    assert_eq!(code_of(&mut child, PATIENCE), 0);
    let whole: String = (0..LINES).map(|index| format!("line {index} of a step that talks much\n")).collect();
    for (server, text) in texts {
        assert!(text == whole, "{server}: {} bytes of {}", text.len(), whole.len());
    }
}

#[test]
fn a_follower_that_was_not_read_for_a_while_shows_whole_lines() {
    let scene = Scene::start(&["web-1", "web-2"]);
    let mut child = follow_unread(&scene, &[]);
    let mut next = [0, 0];
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let Some((head, text)) = line.split_once(" talk | ") else { continue };
        let server = usize::from(head.ends_with("web-2"));
        assert_eq!(text, format!("line {} of a step that talks much", next[server]));
        next[server] += 1;
    }
    assert_eq!(next, [LINES; 2]);
    assert_eq!(code_of(&mut child, PATIENCE), 0);
}

#[test]
fn ctrl_c_ends_a_follower_that_nobody_reads() {
    let scene = Scene::start(&["web-1"]);
    scene.publish("1.0.0", &talkative(), &[]);
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // It follows, and has filled the pipe: the rollout is long over.
    let mut line = String::new();
    while !line.contains("line 0 of") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0);
    }
    ended(&scene, newest(&scene)["id"].as_str().unwrap());
    interrupt(&child);
    interrupt(&child);
    let code = until("Ctrl-C ends it, twice at most", Duration::from_secs(20), || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    println!("{code}");
    drop(stdout);
}
