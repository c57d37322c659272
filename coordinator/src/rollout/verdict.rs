//! What a rollout came to: its final state, its exit code, and why in one line.
//!
//! The codes are documented for scripts; where several fit, the first of 6, 7 (unknown), 5, 4, 3, 7 (partial), 0 holds.

use consign_common::trust::Refusal;
use serde::{Deserialize, Serialize};

use super::{
    advance::used_up,
    state::{End, Joined, Kind, Member, Rollout, Stop},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub state: Final,
    pub because: String,
    pub cause: Cause,
}

/// Why there was no next wave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "lowercase", deny_unknown_fields)]
pub enum Cause {
    /// There was none left.
    Finished,
    Stopped {
        because: String,
        stop: Stop,
    },
    Aborted {
        because: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Final {
    Succeeded,
    /// It stopped before its end: more servers failed than are tolerated, or a wave was not healthy.
    Stopped,
    /// Every server that was changed is back on its previous good artifact.
    Returned,
    Aborted,
    /// Refused by a gate.
    Refused,
    Unknown,
    /// It went through, but servers failed within its budget, are owed, or were left out.
    Partial,
}

impl Final {
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Stopped => 3,
            Self::Returned => 4,
            Self::Aborted => 5,
            Self::Refused => 6,
            Self::Unknown | Self::Partial => 7,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Stopped => "stopped",
            Self::Returned => "returned",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Partial => "partial",
        }
    }
}

impl Verdict {
    /// Of a rollout whose servers have all ended.
    pub(super) fn of(rollout: &Rollout, cause: Cause) -> Self {
        let first = |wanted: &dyn Fn(&End) -> bool| {
            planned(rollout).find(|member| member.state.end().is_some_and(wanted))
        };
        let (state, because) = if let Some(member) = first(&is_refused_by_gate) {
            (Final::Refused, told(member))
        } else if let Some(member) = first(&|end| matches!(end, End::Unknown { .. })) {
            (Final::Unknown, told(member))
        } else if let Cause::Aborted { because } = &cause {
            (Final::Aborted, because.clone())
        } else if let Some(member) = first(&|end| went_back(rollout, end))
            && first(&changed_and_not_back).is_none()
        {
            (Final::Returned, told(member))
        } else if planned(rollout).all(|member| member.state.end().is_some_and(End::is_green)) {
            // Whatever stopped it was settled since.
            (Final::Succeeded, all_green(rollout))
        } else if let Cause::Stopped { because, stop } = &cause {
            (Final::Stopped, stopped(rollout, because, *stop))
        } else {
            // A return stops nobody, so that only its end says that it failed.
            let failed = rollout.kind == Kind::Return && first(&End::is_failure).is_some();
            (if failed { Final::Stopped } else { Final::Partial }, not_green(rollout))
        };
        Self { state, because, cause }
    }
}

/// A server that was told to cancel while it waited to be confirmed went back too.
fn went_back(rollout: &Rollout, end: &End) -> bool {
    let cancelled = rollout.strategy.confirm_ms > 0 && matches!(end, End::Cancelled { .. });
    cancelled || matches!(end, End::Returned { .. })
}

/// Why it stopped, as it stands now: a decision may have settled what it stopped for.
fn stopped(rollout: &Rollout, because: &str, stop: Stop) -> String {
    match (stop, used_up(rollout)) {
        (Stop::Budget, Some(now)) => now,
        (Stop::Budget, None) => {
            format!(
                "it had stopped: {because}; that is settled, and `consign rollout retry` takes the others"
            )
        }
        (Stop::Health | Stop::Capacity, _) => because.to_owned(),
    }
}

fn planned(rollout: &Rollout) -> impl Iterator<Item = &Member> {
    rollout.members.iter().filter(|member| member.joined == Joined::Planned)
}

fn told(member: &Member) -> String {
    let how = member.state.end().map(ToString::to_string).unwrap_or_default();
    format!("{} {how}", member.server)
}

/// The first server of each kind of end, with how many there are: enough for one line.
fn not_green(rollout: &Rollout) -> String {
    let ends: Vec<(&Member, &End)> = planned(rollout)
        .filter_map(|member| Some((member, member.state.end().filter(|end| !end.is_green())?)))
        .collect();
    let mut lines: Vec<String> = Vec::new();
    let mut said: Vec<&str> = Vec::new();
    for (member, end) in &ends {
        let state = end.as_str();
        if said.contains(&state) {
            continue;
        }
        said.push(state);
        let others = ends.iter().filter(|(_, other)| other.as_str() == state).count() - 1;
        let more = if others > 0 { format!(" (and {others} more {state})") } else { String::new() };
        lines.push(format!("{} {end}{more}", member.server));
    }
    lines.join("; ")
}

fn all_green(rollout: &Rollout) -> String {
    let servers = planned(rollout).count();
    let unchanged = planned(rollout).filter(|member| member.state.end() == Some(&End::NoOp)).count();
    let noun = if servers == 1 { "server" } else { "servers" };
    match (rollout.kind, unchanged) {
        (Kind::Deploy, unchanged) if unchanged == servers => {
            format!("nothing to do: {servers} {noun} ran it already")
        }
        (Kind::Deploy, 0) => format!("{servers} {noun} succeeded"),
        (Kind::Deploy, unchanged) => {
            format!("{servers} {noun} succeeded, {unchanged} of them ran it already")
        }
        (Kind::Return, unchanged) if unchanged == servers => {
            format!("nothing to do: {servers} {noun} did not run it any more")
        }
        (Kind::Return, 0) => format!("{servers} {noun} returned"),
        (Kind::Return, unchanged) => {
            format!(
                "{} of {servers} {noun} returned, the others did not run it any more",
                servers - unchanged
            )
        }
    }
}

/// The server may run the artifact, or something between.
pub fn changed_and_not_back(end: &End) -> bool {
    match end {
        End::Succeeded { .. } | End::Stopped { .. } | End::Unknown { .. } => true,
        // Cancelled is said when all is as before.
        End::NoOp
        | End::Cancelled { .. }
        | End::Failed { .. }
        | End::Returned { .. }
        | End::Refused { .. }
        | End::Offline
        | End::Owed
        | End::Skipped { .. }
        | End::NotReached { .. } => false,
    }
}

/// What no budget covers: nobody knows what a server does, or nobody signed for this.
pub(super) fn is_intolerable(end: &End) -> bool {
    matches!(end, End::Unknown { .. }) || is_refused_by_gate(end)
}

fn is_refused_by_gate(end: &End) -> bool {
    matches!(end, End::Refused { code, .. } if Refusal::TRUST_CODES.contains(&code.as_str()))
}
