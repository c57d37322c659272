//! What a rollout came to: its final state, its exit code, and why in one line.
//!
//! The codes are documented for scripts; where several fit, the first of 6, 7 (unknown), 5, 4, 3, 7 (partial), 0 holds.

use consign_common::trust::Refusal;
use serde::{Deserialize, Serialize};

use super::state::{End, Kind, Member, Phase, Rollout};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub state: Final,
    pub because: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Final {
    Succeeded,
    /// A server did not take it, and others run it.
    Stopped,
    /// Every server that was changed is back on its previous good artifact.
    Returned,
    Aborted,
    /// Refused by a gate.
    Refused,
    Unknown,
    /// All that was tried went well, but servers were left out.
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
    pub(super) fn of(rollout: &Rollout) -> Self {
        let first = |wanted: fn(&End) -> bool| {
            rollout.members.iter().find(|member| member.state.end().is_some_and(wanted))
        };
        if let Some(member) = first(refused_by_gate) {
            return Self::about(Final::Refused, member);
        }
        if let Some(member) = first(|end| matches!(end, End::Unknown { .. })) {
            return Self::about(Final::Unknown, member);
        }
        if let Phase::Aborting { because } = &rollout.phase {
            return Self { state: Final::Aborted, because: because.clone() };
        }
        if let Some(member) = first(|end| matches!(end, End::Returned { .. }))
            && first(changed_and_not_back).is_none()
        {
            return Self::about(Final::Returned, member);
        }
        if let Some(member) = first(End::stops) {
            return Self::about(Final::Stopped, member);
        }
        if let Some(member) = first(|end| !end.is_green()) {
            return Self::about(Final::Partial, member);
        }
        Self { state: Final::Succeeded, because: all_green(rollout) }
    }

    fn about(state: Final, member: &Member) -> Self {
        let how = member.state.end().map(ToString::to_string).unwrap_or_default();
        Self { state, because: format!("{} {how}", member.server) }
    }
}

fn all_green(rollout: &Rollout) -> String {
    let servers = rollout.members.len();
    let unchanged = rollout.members.iter().filter(|member| member.state.end() == Some(&End::NoOp)).count();
    let noun = if servers == 1 { "server" } else { "servers" };
    match (rollout.kind, unchanged) {
        (Kind::Deploy, unchanged) if unchanged == servers => {
            format!("nothing to do: {servers} {noun} ran it already")
        }
        (Kind::Deploy, 0) => format!("{servers} {noun} succeeded"),
        (Kind::Deploy, unchanged) => {
            format!("{servers} {noun} succeeded, {unchanged} of them ran it already")
        }
        (Kind::Return, _) => format!("{servers} {noun} returned"),
    }
}

/// The server may run the artifact, or something between.
fn changed_and_not_back(end: &End) -> bool {
    match end {
        End::Succeeded { .. } | End::Stopped { .. } | End::Unknown { .. } | End::Cancelled { .. } => true,
        End::NoOp
        | End::Failed { .. }
        | End::Returned { .. }
        | End::Refused { .. }
        | End::Offline
        | End::Skipped { .. } => false,
    }
}

fn refused_by_gate(end: &End) -> bool {
    matches!(end, End::Refused { code, .. } if Refusal::TRUST_CODES.contains(&code.as_str()))
}
