//! Output is live, and much of it from one server holds up no other.

use std::{
    fs,
    io::{BufRead, BufReader},
    time::Duration,
};

use super::support::{ended, newest, since};
use crate::scene::{ACTIVATE, Scene};

/// A log that may be this long is full after a fraction of a second.
const LOG_LIMIT: u64 = 1 << 20;
const LINES: usize = 200_000;

#[test]
fn t1_a_line_is_seen_before_the_next_one_is_written() {
    let scene = Scene::start(&["web-1"]);
    let next = scene.directory.path().join("next-is-written");
    let step = format!(
        "[[step]]\nname = \"hello\"\nshell = \"echo hello 1 $(date +%s%N); sleep 10; touch {}; echo hello 2\"\n{ACTIVATE}",
        next.display()
    );
    scene.publish("1.0.0", &step, &[]);
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.find(|line| line.contains("| hello 1 ")).unwrap();
    let latency = since(first.rsplit_once(' ').unwrap().1);
    assert!(!next.exists(), "the first line came only with the second: {latency:?}");
    println!("t1: from the step's write to the follower's line: {latency:?}");
    assert!(lines.any(|line| line.ends_with("| hello 2")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// `loud` and `capped` write about 10 000 lines a second for twenty seconds, of which `capped` may keep a mebibyte; `quiet`
/// says something every 200 ms meanwhile.
#[test]
fn t13_a_flood_from_one_server_holds_up_no_other_and_its_gap_is_exact() {
    let mut scene = Scene::start(&["capped", "loud", "quiet"]);
    let config = scene.directory.path().join("capped/agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    let limit = text.lines().find(|line| line.starts_with("log_limit")).unwrap();
    fs::write(&config, text.replace(limit, &format!("log_limit = {LOG_LIMIT}"))).unwrap();
    scene.agents[0].kill();
    scene.agents[0].launch();
    scene.operator.wait_online("capped");

    let loud_ended = scene.directory.path().join("loud-ended");
    let plan = format!(
        "[[step]]\nname = \"flood\"\nwhen = \"server.name != 'quiet'\"\nshell = '''\n\
         for i in $(seq 0 199); do seq -f 'line %.0f of a step that talks much' $((i*1000)) $((i*1000+999)); sleep 0.09; done\n\
         [ $CONSIGN_SERVER != loud ] || touch {}\n'''\n\
         [[step]]\nname = \"murmur\"\nwhen = \"server.name == 'quiet'\"\nshell = '''\n\
         for i in $(seq 1 50); do echo \"word $i $(date +%s%N)\"; sleep 0.2; done\n'''\n{ACTIVATE}",
        loud_ended.display()
    );
    scene.publish("1.0.0", &plan, &[]);
    let mut child = scene.operator.spawn(&["rollout", "start", "app@1.0.0", "--env", "staging", "--follow"]);
    let (mut words, mut loud) = (Vec::new(), Vec::new());
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some((_, at)) = line.split_once("| word ") {
            assert!(!loud_ended.exists(), "a line of the quiet server came only after the flood: {line}");
            words.push(since(at.rsplit_once(' ').unwrap().1));
        } else if line.contains(" loud flood | ") {
            loud.push(line.rsplit_once("| ").unwrap().1.to_owned());
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(words.len(), 50);
    assert_whole(&loud);

    let shown = newest(&scene);
    let step = |server: usize, name: &str| {
        let steps = shown["deployments"][server]["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap().clone()
    };
    let (flood, murmur) = (step(1, "flood"), step(2, "murmur"));
    let took = |step: &serde_json::Value| {
        Duration::from_millis(step["ended_ms"].as_u64().unwrap() - step["started_ms"].as_u64().unwrap())
    };
    words.sort();
    println!(
        "t13: {LINES} lines in {:?}; the quiet server's 50 lines: median {:?}, longest {:?} from write to screen, its step took {:?}",
        took(&flood),
        words[25],
        words[49],
        took(&murmur),
    );
    assert!(murmur["ended_ms"].as_u64() < flood["ended_ms"].as_u64(), "{shown}");

    let id = shown["id"].as_str().unwrap();
    assert_whole(&lines_of(&scene, id, "loud").concat());
    // Without the limit nothing was missing; with it, every byte that is not there is counted where it is missing.
    let kept = lines_of(&scene, id, "capped");
    let [head, tail] = kept.as_slice() else { panic!("{} gaps", kept.len() - 1) };
    assert!(head.iter().enumerate().all(|(index, line)| index + 1 == head.len() || *line == said(index)));
    assert_eq!(tail.last(), Some(&said(LINES - 1)), "the last word is kept");
    let written: u64 = (0..LINES).map(|index| said(index).len() as u64 + 1).sum();
    let (bytes, missing) = counted(&scene, id, "capped");
    println!("t13: {written} bytes written, {bytes} kept, {missing} in the gap");
    assert_eq!(bytes + missing, written);
    assert!(bytes < LOG_LIMIT + (128 << 10) && missing > 0);
    assert_eq!(counted(&scene, id, "loud"), (written, 0));
    let text = scene.operator.ok(&["rollout", "logs", id, "--server", "capped", "--step", "flood"]);
    assert!(text.contains(&format!("({missing} bytes are missing here")), "a person is told how many");
    ended(&scene, id);
}

fn said(index: usize) -> String {
    format!("line {index} of a step that talks much")
}

#[track_caller]
fn assert_whole(lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, said(index));
    }
    assert_eq!(lines.len(), LINES);
}

fn records(scene: &Scene, id: &str, server: &str) -> Vec<serde_json::Value> {
    let logs = ["rollout", "logs", id, "--server", server, "--step", "flood", "--output", "json"];
    scene.operator.ok(&logs).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines between gaps.
fn lines_of(scene: &Scene, id: &str, server: &str) -> Vec<Vec<String>> {
    let mut texts = vec![String::new()];
    for record in records(scene, id, server) {
        match record["stream"].as_str().unwrap() {
            "stdout" => texts.last_mut().unwrap().push_str(record["text"].as_str().unwrap()),
            "gap" => texts.push(String::new()),
            other => panic!("{other}: {record}"),
        }
    }
    texts.iter().map(|text| text.lines().map(str::to_owned).collect()).collect()
}

/// Bytes that are there, and bytes that gaps tell of.
fn counted(scene: &Scene, id: &str, server: &str) -> (u64, u64) {
    let (mut bytes, mut missing) = (0, 0);
    for record in records(scene, id, server) {
        bytes += record["text"].as_str().map_or(0, str::len) as u64;
        missing += record["missing_bytes"].as_u64().unwrap_or(0);
    }
    (bytes, missing)
}
