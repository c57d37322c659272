//! Steps that print too much, or what is no text.

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::support::peak_kib;
use crate::scene::{ACTIVATE, Scene};

/// What the agent and the coordinator may take in a debug build, whatever steps print.
const PEAK_KIB: u64 = 160 * 1024;

/// Follows a rollout of one step; how much of its output was seen, and that no byte of it can move a cursor.
fn follow(scene: &Scene, version: &str, shell: &str) -> (u64, Vec<u8>) {
    scene.publish(
        version,
        &format!("[[step]]\nname = \"talk\"\ntimeout = \"9m\"\nshell = '''{shell}'''\n{ACTIVATE}"),
        &[],
    );
    let start = ["rollout", "start", &format!("app@{version}"), "--env", "staging", "--follow"];
    let mut child = scene.operator.spawn(&start);
    let mut stdout = child.stdout.take().unwrap();
    let (mut seen, mut tail, mut buffer) = (0, Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        let part = &buffer[..count];
        let harmful = part.iter().find(|byte| **byte != b'\n' && (**byte < b' ' || **byte == 0x7f));
        assert_eq!(harmful, None, "{}", String::from_utf8_lossy(part));
        seen += count as u64;
        tail.extend_from_slice(part);
        let cut = tail.len().saturating_sub(1 << 16);
        tail.drain(..cut);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", String::from_utf8_lossy(&tail));
    let (agent, coordinator) = (peak_kib(scene.agents[0].pid()), peak_kib(scene.coordinator.pid()));
    println!("{version}: {seen} bytes seen; peak memory agent {agent} KiB, coordinator {coordinator} KiB");
    assert!(agent < PEAK_KIB && coordinator < PEAK_KIB, "{agent} and {coordinator} KiB");
    (seen, tail)
}

#[test]
fn a_gibibyte_and_an_endless_line_are_borne() {
    let scene = Scene::start(&["web-1"]);
    let (_, tail) = follow(&scene, "1.0.0", "head -c 104857600 /dev/zero | tr '\\\\0' x; echo; echo the end");
    assert!(String::from_utf8_lossy(&tail).contains("| the end"));
    let (_, tail) = follow(
        &scene,
        "1.1.0",
        "yes 'the quick brown fox jumps over the lazy dog' | head -c 1073741824; echo; echo the end",
    );
    let tail = String::from_utf8_lossy(&tail);
    assert!(tail.contains("| the end"), "the last word of a long output is kept: {tail}");
}

#[test]
fn bytes_that_are_no_text_are_shown_escaped_and_kept_exactly() {
    let scene = Scene::start(&["web-1"]);
    let bytes: &[u8] = b"\x1b]0;owned\x07\x1b[2J\xff\xfe\r\x08\xc2\x9b31m\x7f \xe2\x80\xae end\n";
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let (_, tail) = follow(&scene, "1.0.0", &format!("echo first; sleep 0.1; printf '{octal}'"));
    let text = String::from_utf8(tail).unwrap();
    let line = text.lines().find(|line| line.ends_with(" end") && line.contains('|')).unwrap();
    assert!(line.contains("\\x1b]0;owned\\x07\\x1b[2J") && line.contains("\\xff\\xfe"), "{line}");
    assert!(!line.contains('\u{9b}') && !line.contains('\u{202e}'), "{line:?}");

    let listed = scene.operator.json(&["rollout", "list"]);
    let id = listed[0]["id"].as_str().unwrap();
    let logs = |since: &str| -> Vec<serde_json::Value> {
        let text = scene.operator.ok(&[
            "rollout", "logs", id, "--server", "web-1", "--step", "talk", "--since", since, "--output",
            "json",
        ]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = logs("0");
    let written: Vec<u8> = all
        .iter()
        .filter(|record| record["stream"] == "stdout")
        .flat_map(|record| match record["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(record["base64"].as_str().unwrap()).unwrap(),
        })
        .collect();
    assert_eq!(written, [b"first\n", bytes].concat());

    // From any record's offset on: that record is the first, and none is missing.
    for (index, record) in all.iter().enumerate() {
        assert_eq!(logs(&record["offset"].to_string()), all[index..]);
    }
    let plain = scene.operator.ok(&["rollout", "logs", id]);
    assert!(!plain.contains('\x1b') && plain.contains("\\x1b]0;owned"), "{plain}");
}
