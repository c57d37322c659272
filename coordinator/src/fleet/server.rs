//! A server as the coordinator knows it.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    limits::CLOCK_SKEW_MS,
    name::{App, Environment, Id, ServerName},
    time::UnixMs,
    trust::OrderingNumber,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub name: ServerName,
    /// Names the server in its certificate; another enrolment under the same name has another one.
    pub uid: Id,
    /// Fixed when it enrolled.
    pub environment: Environment,
    pub enablement: Enablement,
    pub enrolled: UnixMs,
    /// `None` until its agent's first session.
    pub last_seen: Option<UnixMs>,
    /// What its agent said last; empty until then, but for the labels of its enrolment.
    pub report: Report,
    /// The agent's clock minus ours.
    pub clock_offset_ms: i64,
    /// Why the agent refused a newer trust root; empty if it did not.
    pub trust_root_error: String,
    pub apps: BTreeMap<App, AppReport>,
    /// The latest end among its keys' certificates.
    pub certificate_expires: UnixMs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enablement {
    Enabled,
    /// No rollout touches it.
    Disabled {
        reason: String,
        by: String,
    },
}

/// What an agent says of its server in `Hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub labels: BTreeMap<String, String>,
    pub agent_version: String,
    pub os: String,
    pub arch: String,
    /// The agent runs as root.
    pub root: bool,
    pub boot_id: String,
    pub trust_root_version: u64,
}

/// What an agent says of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppReport {
    pub good: Option<Sha256>,
    pub good_version: String,
    pub before: Option<Sha256>,
    /// What `current` points at, good or not.
    pub current: Option<Sha256>,
    /// The highest ordering number it has seen.
    pub highest: OrderingNumber,
    pub term: u64,
}

impl Server {
    pub fn is_enabled(&self) -> bool {
        self.enablement == Enablement::Enabled
    }

    /// Its clock is too far from ours: no deploy order is sent.
    pub fn has_clock_skew(&self) -> bool {
        self.clock_offset_ms.unsigned_abs() > CLOCK_SKEW_MS
    }
}
