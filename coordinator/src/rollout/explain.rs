//! Why a rollout is where it is, in one line.

use consign_common::time::UnixMs;

use super::{
    once::OnceState,
    state::{Member, Phase, Rollout, ServerState, Stage, Told},
};

/// Names in one line; the others are counted.
const NAMES: usize = 5;

/// What it waits for at `now`, or why it ended.
pub fn explain(rollout: &Rollout, now: UnixMs) -> String {
    match &rollout.phase {
        Phase::Queued { not_before } if now < *not_before => {
            format!("begins in {}", span(not_before.0.saturating_sub(now.0)))
        }
        Phase::Queued { .. } => "waits for the rollout before it to end".to_owned(),
        Phase::Running { wave, stage } => {
            let at = running(rollout, *wave, stage, now);
            match &rollout.paused {
                Some(pause) => format!("paused: {}; {at}", pause.because),
                None => at,
            }
        }
        Phase::Stopping { because, .. } => format!("stopping: {because}; {}", under_way(rollout)),
        Phase::Aborting { because } => format!("aborting: {because}; {}", under_way(rollout)),
        Phase::Ended { verdict } if rollout.is_under_way() => {
            format!("{}; {}", verdict.because, under_way(rollout))
        }
        Phase::Ended { verdict } => verdict.because.clone(),
    }
}

impl Rollout {
    /// What its history has a line for: where it is, without what changes all the time.
    pub fn milestone(&self) -> String {
        match &self.phase {
            Phase::Running { .. } if self.paused.is_some() => "paused".to_owned(),
            Phase::Running { wave, stage } => match stage {
                Stage::Deploying => format!("wave {wave}"),
                Stage::Baking { .. } => format!("wave {wave}: bake"),
                Stage::Judging => format!("wave {wave}: health"),
                Stage::Confirming => format!("wave {wave}: confirm"),
            },
            Phase::Queued { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } | Phase::Ended { .. } => {
                self.as_str().to_owned()
            }
        }
    }
}

fn running(rollout: &Rollout, wave: u32, stage: &Stage, now: UnixMs) -> String {
    let last = rollout.last_wave();
    match stage {
        Stage::Deploying => {
            let what = under_way(rollout);
            format!("wave {wave} of {last}: {what}")
        }
        Stage::Baking { until } => {
            let left = span(until.0.saturating_sub(now.0));
            format!("waiting for wave {} of {last}: bake {left} left", wave + 1)
        }
        Stage::Judging => format!("wave {wave} of {last}: its health is being checked"),
        Stage::Confirming => format!("wave {wave} of {last}: its servers are being confirmed"),
    }
}

/// What the servers that have not ended are at; those that wait for something come first.
fn under_way(rollout: &Rollout) -> String {
    let once = rollout.once.iter().find_map(|(step, once)| {
        let waiting = members(
            rollout,
            |state| matches!(state, ServerState::Awaiting { step: own, told: Told::NotYet } if own == step),
        );
        if waiting.is_empty() {
            return None;
        }
        let waits = format!("{} for step {step}", verb(&waiting, "waits", "wait"));
        match &once.state {
            OnceState::Granted { server, .. } => Some(format!("{waits}, which runs once, on {server}")),
            OnceState::Unknown { server, because } => Some(format!(
                "{waits}, whose outcome on {server} is unknown ({because}): `consign rollout decide`"
            )),
            OnceState::Open => {
                Some(format!("{waits}, which runs once, until the servers before have come to it"))
            }
            OnceState::Done { .. } | OnceState::Failed { .. } => None,
        }
    });
    let absent = members(rollout, |state| matches!(state, ServerState::Due { .. }));
    let busy = members(rollout, |state| {
        // One that was told about a `once` step goes on as soon as it hears of it.
        let told = matches!(state, ServerState::Awaiting { told: Told::Ordered, .. });
        told || matches!(state, ServerState::Ordered | ServerState::Running | ServerState::Returning)
    });
    let confirming = members(rollout, |state| matches!(state, ServerState::Confirming { .. }));
    let mut parts: Vec<String> = once.into_iter().collect();
    if !absent.is_empty() {
        parts.push(format!("{} to connect", verb(&absent, "is waited for", "are waited for")));
    }
    if !busy.is_empty() {
        parts.push(verb(&busy, "runs", "run"));
    }
    if !confirming.is_empty() {
        parts.push(format!("{} to be confirmed", verb(&confirming, "waits", "wait")));
    }
    if parts.is_empty() {
        let pending = members(rollout, |state| *state == ServerState::Pending);
        return verb(&pending, "is to come", "are to come");
    }
    parts.join("; ")
}

fn members(rollout: &Rollout, wanted: impl Fn(&ServerState) -> bool) -> Vec<&Member> {
    rollout.members.iter().filter(|member| wanted(&member.state)).collect()
}

fn verb(members: &[&Member], one: &str, several: &str) -> String {
    let names: Vec<&str> = members.iter().take(NAMES).map(|member| member.server.as_str()).collect();
    let more = members.len().saturating_sub(NAMES);
    let names = names.join(", ");
    let names = if more > 0 { format!("{names} and {more} more") } else { names };
    format!("{names} {}", if members.len() == 1 { one } else { several })
}

/// As `3m12s`.
pub fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes:02}m{seconds:02}s"),
    }
}
