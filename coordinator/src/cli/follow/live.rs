//! The view for a terminal: output scrolls, and below it stands one line per server. Pure: the lines of a moment.

use consign_common::{terminal::escape_line, time::UnixMs};

use super::{
    plain::of_rollout,
    view::{Change, View, is_final},
};
use crate::cli::{
    output::{Deployment, Step},
    text::span,
};

/// The terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// What scrolls: every line of output and every step's end, without times.
pub(super) fn scrolled(change: &Change) -> Option<String> {
    match change {
        Change::Output(output) => Some(format!("{} {} | {}", output.server, output.step, output.text)),
        Change::StepEnded { server, step, state, because, took, .. } => {
            let took = took.filter(|_| state != "skipped").map(|took| format!(" after {}", span(took)));
            let because = if because.is_empty() { String::new() } else { format!(": {because}") };
            Some(format!("{server} {step} · {state}{}{because}", took.unwrap_or_default()))
        }
        Change::Rollout { .. } | Change::Server { .. } | Change::StepBegan { .. } => None,
    }
}

/// The lines that stand at the bottom now.
pub(super) fn standing(view: &View, now: UnixMs, size: Size) -> Vec<String> {
    let until = view.rollout.ended_ms.map_or(now, UnixMs);
    let took = span(until.since(UnixMs(view.rollout.started_ms)));
    let mut lines = vec![String::new(), format!("{}  {took}", of_rollout(&view.current(now)))];
    // Leaves room for at least half a screen of output.
    let room = (size.rows / 2).saturating_sub(3).max(3);
    let mut deployments: Vec<&Deployment> = view.deployments.values().collect();
    // Where there is no room for all, those that something happens on come first.
    if deployments.len() > room {
        deployments.sort_by_key(|deployment| (rank(&deployment.state), deployment.wave));
    }
    let width = deployments.iter().map(|deployment| deployment.server.len()).max().unwrap_or(0).min(30);
    for deployment in deployments.iter().take(room) {
        lines.push(server(deployment, now, width));
    }
    if deployments.len() > room {
        lines.push(format!("  … and {} more", deployments.len() - room));
    }
    lines.into_iter().map(|line| line.chars().take(size.columns.saturating_sub(1)).collect()).collect()
}

fn server(deployment: &Deployment, now: UnixMs, width: usize) -> String {
    let name = escape_line(&deployment.server);
    let state = escape_line(&deployment.state);
    let wave = if deployment.wave == 0 { "-".into() } else { deployment.wave.to_string() };
    let mut line = format!("  {name:width$}  wave {wave}  {state:10}");
    match running(deployment) {
        Some(step) if !is_final(&deployment.state) => {
            let done = deployment.steps.iter().filter(|step| is_final(&step.state)).count();
            let since = span(now.since(UnixMs(step.started_ms)));
            let name = escape_line(&step.name);
            line.push_str(&format!("  {name} {since} ({}/{})", done + 1, deployment.steps.len()));
        }
        _ if !deployment.because.is_empty() => {
            line.push_str("  ");
            line.push_str(&escape_line(&deployment.because));
        }
        _ => {}
    }
    line.trim_end().to_owned()
}

fn running(deployment: &Deployment) -> Option<&Step> {
    deployment.steps.iter().find(|step| step.state == "running")
}

fn rank(state: &str) -> u8 {
    match state {
        "running" | "awaiting" | "confirming" | "returning" => 0,
        "failed" | "stopped" | "unknown" | "refused" | "returned" | "offline" => 1,
        "ordered" => 2,
        "pending" => 3,
        _ => 4,
    }
}
