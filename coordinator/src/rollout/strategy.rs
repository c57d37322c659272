//! How a rollout goes about it: what it tolerates, what it waits for, and what it does when it stops.

use serde::{Deserialize, Serialize};

use super::{explain::span, waves::InvalidWaves};

/// Frozen when the rollout is planned. Spans are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// Between a wave and the next one.
    pub bake_ms: u64,
    /// Servers that may fail or return, over the whole rollout; one more stops it.
    pub failures: u32,
    /// The same for the servers that share a value of this label.
    pub group: Option<GroupBudget>,
    /// Servers of the rollout that must be up at any time, or nothing more is ordered.
    pub min_healthy: u32,
    pub offline: Offline,
    /// Asked about every wave before the next one.
    pub health: Option<HealthCheck>,
    pub on_stop: OnStop,
    /// How long a server waits for its confirmation; 0 where the plan wants none.
    pub confirm_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupBudget {
    pub label: String,
    pub failures: u32,
}

/// What becomes of a server that is not connected when its turn comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "lowercase", deny_unknown_fields)]
pub enum Offline {
    /// It has failed.
    #[default]
    Fail,
    /// Its wave waits for it this long; then it has failed.
    Wait { ms: u64 },
    /// The rollout goes on without it; it converges when it is back.
    Owe,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    pub probe: Probe,
    /// Tried again until it passes or this is over.
    pub within_ms: u64,
}

/// Who says how a wave is. The coordinator asks; it decides nothing itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
pub enum Probe {
    /// Passes with this status.
    Http { url: String, status: u16 },
    /// A program that root installed on the coordinator's machine under this name: 0 passes, 1 fails, all else is
    /// inconclusive.
    Command { name: String },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Leave every server as it is, for a person to look.
    #[default]
    Pause,
    /// Bring back every server that took it.
    Rollback,
}

impl OnStop {
    pub const ALL: [Self; 2] = [Self::Pause, Self::Rollback];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Rollback => "rollback",
        }
    }
}

/// What a rollout may not be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStrategy {
    #[error(transparent)]
    Waves(#[from] InvalidWaves),
    #[error("a budget of {failures} failures is more than the {members} servers that there are")]
    Budget { failures: u32, members: u32 },
    #[error("no server has the label {label:?} that failures are counted by")]
    GroupUnknown { label: String },
    #[error("{min} of {members} servers are to stay up, which leaves none to deploy to")]
    MinHealthy { min: u32, members: u32 },
    #[error("no server is a canary: {selector:?} matches none of those that are enabled")]
    NoCanary { selector: String },
    #[error(
        "a server would wait {} for its confirmation, and the verdict on its wave may take {} (bake, health and the wait for offline servers); lengthen `confirm` in the plan or shorten those",
        span(*confirm_ms),
        span(*needed_ms)
    )]
    ConfirmTooShort { confirm_ms: u64, needed_ms: u64 },
}

impl Strategy {
    pub(super) fn check(&self, members: u32) -> Result<(), InvalidStrategy> {
        let budgets = [self.failures].into_iter().chain(self.group.as_ref().map(|group| group.failures));
        if let Some(failures) = budgets.max().filter(|failures| *failures > members) {
            return Err(InvalidStrategy::Budget { failures, members });
        }
        if self.min_healthy > 0 && self.min_healthy >= members {
            return Err(InvalidStrategy::MinHealthy { min: self.min_healthy, members });
        }
        let needed_ms = self.verdict_after_ms();
        if self.confirm_ms > 0 && needed_ms >= self.confirm_ms {
            return Err(InvalidStrategy::ConfirmTooShort { confirm_ms: self.confirm_ms, needed_ms });
        }
        Ok(())
    }

    /// From a wave's first success to the verdict on it, at the worst.
    fn verdict_after_ms(&self) -> u64 {
        let wait = match self.offline {
            Offline::Wait { ms } => ms,
            Offline::Fail | Offline::Owe => 0,
        };
        let health = self.health.as_ref().map_or(0, |health| health.within_ms);
        self.bake_ms.saturating_add(health).saturating_add(wait)
    }
}
