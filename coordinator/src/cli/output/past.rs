//! What happened to a rollout, and when.

use consign_proto::v1;
use serde::Serialize;

use super::Rollout;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct History {
    pub rollout: String,
    /// Oldest first.
    pub happenings: Vec<Happening>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happening {
    pub at_ms: u64,
    /// Empty: nobody, it followed.
    pub who: String,
    /// A verb, or what it came to.
    pub what: String,
    pub because: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// Without its servers.
    pub rollout: Rollout,
    pub now_ms: u64,
    /// The rollout's own: waves, bakes, pauses.
    pub waves: Vec<Bar>,
    /// By wave and name; of each the oldest attempt first.
    pub servers: Vec<TimelineServer>,
}

/// One attempt at a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TimelineServer {
    pub server: String,
    pub wave: u32,
    /// From 1; a retry makes another one.
    pub attempt: u32,
    pub state: String,
    pub bars: Vec<Bar>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// `staging`, `step`, `awaiting`, `undecided` or `confirming`; of the rollout, what it was at.
    pub what: String,
    /// Of a step: `deploy` or `return`.
    pub phase: String,
    pub index: u32,
    pub step: String,
    pub attempt: u32,
    pub state: String,
    pub from_ms: u64,
    /// Absent: it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<u64>,
}

impl From<v1::History> for History {
    fn from(wire: v1::History) -> Self {
        Self { rollout: wire.rollout, happenings: wire.happenings.into_iter().map(Into::into).collect() }
    }
}

impl From<v1::Happening> for Happening {
    fn from(wire: v1::Happening) -> Self {
        Self { at_ms: wire.at_ms, who: wire.who, what: wire.what, because: wire.because }
    }
}

impl From<v1::Timeline> for Timeline {
    fn from(wire: v1::Timeline) -> Self {
        let server = |wire: v1::TimelineServer| TimelineServer {
            server: wire.server,
            wave: wire.wave,
            attempt: wire.attempt,
            state: wire.state,
            bars: wire.bars.into_iter().map(Into::into).collect(),
        };
        Self {
            rollout: wire.rollout.unwrap_or_default().into(),
            now_ms: wire.now_ms,
            waves: wire.waves.into_iter().map(Into::into).collect(),
            servers: wire.servers.into_iter().map(server).collect(),
        }
    }
}

impl From<v1::Bar> for Bar {
    fn from(wire: v1::Bar) -> Self {
        Self {
            what: wire.what,
            phase: wire.phase,
            index: wire.index,
            step: wire.step,
            attempt: wire.attempt,
            state: wire.state,
            from_ms: wire.from_ms,
            to_ms: (wire.to_ms > 0).then_some(wire.to_ms),
        }
    }
}
