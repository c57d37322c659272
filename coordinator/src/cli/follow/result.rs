//! How it ended, server by server, with every skipped step and the values that its condition saw.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{terminal::escape_line, time::UnixMs};

use super::{plain::of_rollout, view::because};
use crate::cli::{
    output::{Deployment, Rollout},
    text::{short, span, table},
};

pub(crate) fn result_table(rollout: &Rollout) -> String {
    format!("{}\n{}", result_line(rollout), result_servers(rollout))
}

pub(crate) fn result_line(rollout: &Rollout) -> String {
    of_rollout(rollout)
}

/// All but the first line, which `--follow` has printed as the last happening.
pub(crate) fn result_servers(rollout: &Rollout) -> String {
    let mut text = String::new();
    let mut deployments: Vec<&Deployment> = rollout.deployments.iter().collect();
    deployments.sort_by(|one, other| (one.wave, &one.server).cmp(&(other.wave, &other.server)));
    if !deployments.is_empty() {
        let rows: Vec<Vec<String>> = deployments.iter().map(|deployment| row(deployment)).collect();
        text.push('\n');
        text.push_str(&table(&["SERVER", "WAVE", "STATE", "TOOK", "BECAUSE"], &rows));
    }
    let skipped = skipped(&deployments);
    if !skipped.is_empty() {
        text.push_str("\nskipped steps\n");
        for ((step, because), servers) in skipped {
            text.push_str(&format!("  {step} on {}: {because}\n", servers.join(", ")));
        }
    }
    let commands = logs_of_failed(rollout, &deployments);
    if !commands.is_empty() {
        text.push_str("\nwhat they wrote\n");
        text.extend(commands.iter().map(|command| format!("  {command}\n")));
    }
    text
}

/// Where to read on: one command per step that went wrong, for the first server where it did.
fn logs_of_failed(rollout: &Rollout, deployments: &[&Deployment]) -> Vec<String> {
    let mut commands = BTreeMap::new();
    for deployment in deployments {
        let wrong =
            deployment.steps.iter().filter(|step| matches!(step.state.as_str(), "failed" | "unknown"));
        for step in wrong {
            let (id, server) = (short(&rollout.id, 8), escape_line(&deployment.server));
            let name = escape_line(&step.name);
            let command = format!("consign rollout logs {id} --server {server} --step {name}");
            commands.entry((&step.phase, step.index)).or_insert(command);
        }
    }
    commands.into_values().collect()
}

fn row(deployment: &Deployment) -> Vec<String> {
    let took = took(deployment).map(span).unwrap_or_default();
    let because = because(&deployment.state, &deployment.because);
    vec![deployment.server.clone(), wave(deployment.wave), deployment.state.clone(), took, because]
}

/// A server that takes no part is in no wave.
fn wave(wave: u32) -> String {
    if wave == 0 { "-".into() } else { wave.to_string() }
}

/// From the first step's beginning to the last one's end.
fn took(deployment: &Deployment) -> Option<Duration> {
    let started = deployment.steps.iter().map(|step| step.started_ms).filter(|at| *at > 0).min()?;
    let ended = deployment.steps.iter().map(|step| step.ended_ms).max().filter(|at| *at >= started)?;
    Some(UnixMs(ended).since(UnixMs(started)))
}

/// The same step is mostly skipped for the same reason everywhere: said once.
fn skipped(deployments: &[&Deployment]) -> BTreeMap<(String, String), Vec<String>> {
    let mut skipped: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for deployment in deployments {
        for step in deployment.steps.iter().filter(|step| step.state == "skipped") {
            let key = (escape_line(&step.name), because(&step.state, &step.because));
            skipped.entry(key).or_default().push(escape_line(&deployment.server));
        }
    }
    skipped
}
