//! Environments and their settings.

use consign_proto::v1;
use serde::{Deserialize, Serialize};

use super::{Candidate, Happening};

/// What is absent was not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub waves: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bake_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<String>,
    /// `fail`, `owe` or `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<String>,
    /// With `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_ms: Option<u64>,
    /// `pause` or `rollback`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_stop: Option<String>,
    /// `queue`, `supersede` or `refuse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// `manual`, `on-publish` or `after:ENVIRONMENT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<String>,
    /// `all` or `newest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub veto_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Freeze>,
}

/// When nothing begins by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// `mon` to `sun`, on which a window of every week begins; empty: it is one window.
    pub days: Vec<String>,
    pub from: String,
    pub to: String,
    /// Empty: `from` and `to` say their offset themselves.
    pub timezone: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub label: String,
    pub failures: u32,
}

/// Has `url` and `status`, or `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub url: String,
    pub status: u32,
    pub command: String,
    pub within_ms: u64,
}

/// What keeps things from beginning by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub app: String,
    pub environment: String,
    pub because: String,
    /// Empty: nobody, it followed.
    pub who: String,
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Environment {
    pub name: String,
    pub settings: Settings,
    /// 0: never.
    pub applied_ms: u64,
    pub applied_by: String,
    pub servers: u32,
    pub servers_online: u32,
    pub holds: Vec<Hold>,
    pub apps: Vec<EnvironmentApp>,
    /// In `env show` only; oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Happening>,
    /// In `env show` only: those that wait.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// By its windows. Absent: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_until_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnvironmentApp {
    pub app: String,
    pub versions: Vec<RunningVersion>,
    /// That have not ended.
    pub rollouts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunningVersion {
    pub version: String,
    pub servers: Vec<String>,
}

/// What `env apply` changed, or with `--dry-run` would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub changes: Vec<EnvironmentChange>,
    pub dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnvironmentChange {
    pub environment: String,
    pub setting: String,
    /// As in the file; empty: it was not set.
    pub before: String,
    pub after: String,
}

impl From<v1::Settings> for Settings {
    fn from(wire: v1::Settings) -> Self {
        let wait_ms = (wire.offline.as_deref() == Some("wait")).then_some(wire.wait_ms);
        let health = |wire: v1::HealthCheck| Health {
            url: wire.url,
            status: wire.status,
            command: wire.command,
            within_ms: wire.within_ms,
        };
        let automation = wire.automation.unwrap_or_default();
        let freeze = |wire: v1::Freeze| Freeze {
            days: wire.days,
            from: wire.from,
            to: wire.to,
            timezone: wire.timezone,
        };
        Self {
            deploy: automation.deploy,
            candidates: automation.candidates,
            veto_ms: automation.veto_ms,
            freeze: automation.freeze.into_iter().map(freeze).collect(),
            waves: wire.waves,
            canary: wire.canary,
            bake_ms: wire.bake_ms,
            failures: wire.failures,
            group: wire.group.map(|group| Group { label: group.label, failures: group.failures }),
            min_healthy: wire.min_healthy,
            offline: wire.offline,
            wait_ms,
            health: wire.health.map(health),
            confirm_ms: wire.confirm_ms,
            on_stop: wire.on_stop,
            queue: wire.queue,
        }
    }
}

impl From<v1::Hold> for Hold {
    fn from(wire: v1::Hold) -> Self {
        Self {
            app: wire.app,
            environment: wire.environment,
            because: wire.because,
            who: wire.who,
            at_ms: wire.at_ms,
        }
    }
}

impl From<v1::Environment> for Environment {
    fn from(wire: v1::Environment) -> Self {
        let version =
            |wire: v1::RunningVersion| RunningVersion { version: wire.version, servers: wire.servers };
        let app = |wire: v1::EnvironmentApp| EnvironmentApp {
            app: wire.app,
            versions: wire.versions.into_iter().map(version).collect(),
            rollouts: wire.rollouts,
        };
        Self {
            name: wire.name,
            settings: wire.settings.unwrap_or_default().into(),
            applied_ms: wire.applied_ms,
            applied_by: wire.applied_by,
            servers: wire.servers,
            servers_online: wire.servers_online,
            holds: wire.holds.into_iter().map(Into::into).collect(),
            apps: wire.apps.into_iter().map(app).collect(),
            history: wire.history.into_iter().map(Into::into).collect(),
            candidates: wire.candidates.into_iter().map(Into::into).collect(),
            frozen_until_ms: Some(wire.frozen_until_ms).filter(|ms| *ms > 0),
        }
    }
}

impl From<v1::EnvironmentChange> for EnvironmentChange {
    fn from(wire: v1::EnvironmentChange) -> Self {
        Self { environment: wire.environment, setting: wire.setting, before: wire.before, after: wire.after }
    }
}
