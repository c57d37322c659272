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
    /// Set when more than one agent may be behind this identity.
    pub quarantine: Option<Quarantine>,
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
    /// How many deployments its agent told of that are not here.
    pub unknown_deployments: u64,
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

/// Nothing is deployed to it, and its agents get no session, until a person lifts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    pub because: String,
    pub since: UnixMs,
}

/// How far an agent's journal was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalMark {
    /// Of the journal; a copy of the disk has the same one. Empty: the agent did not say.
    pub id: String,
    /// Of its newest event; it never goes back.
    pub position: u64,
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
    /// That its agent reads.
    pub document_types: Vec<String>,
    pub trust_root_version: u64,
    /// On the coordinator's side: the furthest that was seen.
    pub journal: JournalMark,
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
    /// Since when the gate's `rearm` holds there: its last deployment did not succeed.
    pub failed: Option<OrderingNumber>,
    /// The highest config that it has accepted; 0: none.
    pub config_sequence: u64,
}

impl Server {
    pub fn is_enabled(&self) -> bool {
        self.enablement == Enablement::Enabled
    }

    /// Why no rollout touches it; `None` for a server that takes part.
    pub fn kept_out(&self) -> Option<String> {
        match (&self.quarantine, &self.enablement) {
            (Some(quarantine), _) => Some(format!("quarantined: {}", quarantine.because)),
            (None, Enablement::Disabled { reason, .. }) => Some(reason.clone()),
            (None, Enablement::Enabled) => None,
        }
    }

    /// Its clock is too far from ours: no deploy order is sent.
    pub fn has_clock_skew(&self) -> bool {
        self.clock_offset_ms.unsigned_abs() > CLOCK_SKEW_MS
    }
}
