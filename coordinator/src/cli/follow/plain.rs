//! One line per happening, each with its time and its server in front: for CI's log and for grep.

use consign_common::terminal::escape_line;

use super::{
    Output,
    view::{Change, because},
};
use crate::cli::{
    output::Rollout,
    text::{precise, short, span},
};

pub(super) fn line(change: &Change) -> String {
    match change {
        Change::Rollout { at, rollout } => format!("{} {}", precise(*at), of_rollout(rollout)),
        Change::Server { at, server, wave, state, because } => {
            let because = reason(because);
            let wave = if *wave == 0 { String::new() } else { format!(" (wave {wave})") };
            format!("{} {server}: {state}{wave}{because}", precise(*at))
        }
        Change::StepBegan { at, server, step, phase, attempt } => {
            let way = if phase == "return" { " on the way back" } else { "" };
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            format!("{} {server} {step}: started{way}{again}", precise(*at))
        }
        Change::StepEnded { at, server, step, state, because, took } => {
            let took = took.filter(|_| state != "skipped").map(|took| format!(" after {}", span(took)));
            let because = reason(because);
            format!("{} {server} {step}: {state}{}{because}", precise(*at), took.unwrap_or_default())
        }
        Change::Output(output) => line_of_output(output),
    }
}

pub(crate) fn line_of_output(output: &Output) -> String {
    let Output { at, server, step, text, .. } = output;
    // What is missing has no time of its own.
    let at = if at.0 == 0 { "-".into() } else { precise(*at) };
    format!("{at} {server} {step} | {text}")
}

/// `rollout 0a1b2c3d: running: shop 1.2.0 to production`, or, on the way back, `shop back from 1.2.0 in production`
pub(super) fn of_rollout(rollout: &Rollout) -> String {
    let (before, between) = if rollout.kind == "return" { ("back from ", "in") } else { ("", "to") };
    format!(
        "rollout {}: {}: {} {before}{} {between} {}{}",
        short(&rollout.id, 8),
        escape_line(&rollout.state),
        escape_line(&rollout.app),
        escape_line(&rollout.version),
        escape_line(&rollout.environment),
        reason(&because(&rollout.state, &rollout.because)),
    )
}

fn reason(because: &str) -> String {
    if because.is_empty() { String::new() } else { format!(": {because}") }
}
