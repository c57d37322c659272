//! Asking a coordinator that may be dead at the moment: one try each, for whoever tries again.

use consign_common::deployment::log::HEADER_BYTES;
use consign_tests::scene::Operator;
use serde_json::Value;
use std::collections::BTreeMap;

/// What steps printed, by server, step, attempt and stream.
pub(crate) type Output = BTreeMap<(String, String, String, String), String>;

/// Starts a rollout of `app` to staging, and gives its id. Where the answer was lost, looks whether it was taken.
pub(crate) fn start(operator: &Operator, version: &str) -> Result<String, String> {
    let artifact = format!("app@{version}");
    let started = operator.run(&["rollout", "start", &artifact, "--env", "staging", "--output", "json"]);
    if started.code == 0 {
        return id_of(&parse(&started.stdout)?);
    }
    let listed = parse(&operator.run(&["rollout", "list", "--output", "json"]).stdout)?;
    let taken = listed.as_array().into_iter().flatten().find(|rollout| rollout["version"] == version);
    taken.map_or(Err(started.stderr), id_of)
}

/// The rollout, if it has ended.
pub(crate) fn ended(operator: &Operator, id: &str) -> Result<Value, String> {
    let ran = operator.run(&["rollout", "show", id, "--output", "json"]);
    let shown = parse(&ran.stdout).map_err(|_| ran.stderr)?;
    if shown["ended_ms"].as_u64().unwrap_or(0) != 0 { Ok(shown) } else { Err(shown.to_string()) }
}

/// All output of a rollout that has ended, once as much is there as was announced. Each record begins where the one
/// before it ended, or something was lost or doubled; that is the inner error.
pub(crate) fn output(operator: &Operator, id: &str) -> Result<Result<Output, String>, String> {
    let shown = ended(operator, id)?;
    let ran = operator.run(&["rollout", "logs", id, "--output", "json"]);
    if ran.code != 0 {
        return Err(ran.stderr);
    }
    let mut output = Output::new();
    let mut ends: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in ran.stdout.lines() {
        let record = parse(line)?;
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let end = ends.entry((text("server"), text("attempt"))).or_default();
        if record["offset"].as_u64() != Some(*end) {
            return Ok(Err(format!("output goes on at {end}, and came: {line}")));
        }
        let said = text("text");
        *end += (HEADER_BYTES + said.len()) as u64;
        let key = (text("server"), text("step"), text("attempt"), text("stream"));
        output.entry(key).or_default().push_str(&said);
    }
    let (announced, received): (u64, u64) = (announced(&shown), ends.values().sum());
    if announced == received {
        return Ok(Ok(output));
    }
    Err(format!("{announced} bytes of output are announced, and {received} are there: {output:#?}"))
}

fn announced(shown: &Value) -> u64 {
    let deployments = shown["deployments"].as_array().into_iter().flatten();
    let steps = deployments.flat_map(|deployment| deployment["steps"].as_array().into_iter().flatten());
    steps.filter_map(|step| step["log_bytes"].as_u64()).sum()
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn id_of(rollout: &Value) -> Result<String, String> {
    rollout["id"].as_str().map(str::to_owned).ok_or_else(|| rollout.to_string())
}
