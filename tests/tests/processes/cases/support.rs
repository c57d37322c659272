//! What the cases look at.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use consign_tests::{scene::Agent, wait::until};
use serde_json::Value;

use crate::scene::Scene;

/// Waits until the rollout has ended; as `consign rollout show` tells it then.
pub(super) fn ended(scene: &Scene, id: &str) -> Value {
    until("the rollout ends", Duration::from_secs(120), || {
        let shown = scene.operator.json(&["rollout", "show", id]);
        if shown["ended_ms"].is_u64() { Ok(shown) } else { Err(shown) }
    })
}

/// Starts a rollout of this version and gives its id.
pub(super) fn start(scene: &Scene, version: &str) -> String {
    let started = scene.operator.json(&["rollout", "start", &format!("app@{version}"), "--env", "staging"]);
    started["id"].as_str().unwrap().to_owned()
}

pub(super) fn newest(scene: &Scene) -> Value {
    let list = scene.operator.json(&["rollout", "list"]);
    scene.operator.json(&["rollout", "show", list[0]["id"].as_str().unwrap()])
}

/// The version that `current` points at.
pub(super) fn current(agent: &Agent) -> String {
    let target = fs::read_link(agent.apps().join("app/current")).unwrap();
    let name = target.file_name().unwrap().to_string_lossy().into_owned();
    name.rsplit_once('-').unwrap().0.to_owned()
}

/// What steps have written into `effects` beside the releases.
pub(super) fn effects(agent: &Agent) -> Vec<String> {
    let text = fs::read_to_string(agent.apps().join("app/effects")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for a file with a whole line; that line.
pub(super) fn line_in(path: &Path) -> String {
    until("a file is written", Duration::from_secs(60), || {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.strip_suffix('\n').map(str::to_owned).ok_or(path)
    })
}

/// How long ago `date +%s%N` printed this.
pub(super) fn since(nanoseconds: &str) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.saturating_sub(Duration::from_nanos(nanoseconds.trim().parse().unwrap()))
}

pub(super) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}
