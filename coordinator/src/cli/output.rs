//! What `--output json` prints: a stable schema of its own, apart from the wire. Names are snake_case, times are Unix
//! milliseconds (`_ms`), digests lower-case hex. A field may be added; none changes its meaning or goes away.
//!
//! The follow view is built on these types too, so that what a person sees and what a script reads is one thing.

mod audit;
mod candidate;
mod environment;
mod evidence;
mod past;
mod plan;

use std::collections::BTreeMap;

use audit::hex;
pub use audit::*;
pub use candidate::*;
use consign_common::time::UnixMs;
use consign_proto::v1;
pub use environment::*;
pub use evidence::*;
pub use past::*;
pub use plan::*;
use serde::{Deserialize, Serialize};

use super::trust::Validity;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub id: String,
    /// `deploy` or `return`.
    pub kind: String,
    pub app: String,
    pub version: String,
    pub environment: String,
    pub digest: String,
    pub state: String,
    pub because: String,
    /// Absent while active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u32>,
    pub started_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    pub started_by: String,
    pub waves: Vec<String>,
    pub deployments: Vec<Deployment>,
    pub reason: String,
    /// That it is at; 0 unless it runs.
    pub wave: u32,
    pub last_wave: u32,
    /// `deploying`, `baking`, `judging` or `confirming`; empty unless it runs.
    pub stage: String,
    /// When it goes on by itself: its start, the end of the bake, or of the wait for a server. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Why; empty: it is not.
    pub paused: String,
    /// Of its environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    pub once: Vec<OnceStep>,
    /// The rollout that it began when it stopped; empty: none.
    pub rolled_back_by: String,
    pub selector: String,
    /// The digest of the plan that servers are held to; empty: none.
    pub plan: String,
    pub skips: Vec<SkippedStep>,
    /// As they were when it was planned.
    pub settings: Settings,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnceStep {
    pub step: String,
    /// `open`, `granted`, `done`, `failed` or `unknown`.
    pub state: String,
    /// That runs or ran it.
    pub server: String,
    pub because: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedStep {
    pub step: String,
    /// Empty: on every server.
    pub server: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: String,
    pub server: String,
    pub wave: u32,
    pub state: String,
    pub because: String,
    pub release_before: String,
    pub steps: Vec<Step>,
    /// From 1; a retry makes another one.
    pub attempt: u32,
    /// It returns by itself then, unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_until_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `deploy` or `return`.
    pub phase: String,
    pub index: u32,
    pub name: String,
    pub kind: String,
    pub state: String,
    pub because: String,
    pub attempts: u32,
    pub started_ms: u64,
    pub ended_ms: u64,
    pub log_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    pub app: String,
    pub version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    pub digest: String,
    pub entries: u64,
    pub bytes: u64,
    pub pack_bytes: u64,
    pub published_ms: u64,
    pub running_on: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    pub name: String,
    pub environment: String,
    pub labels: BTreeMap<String, String>,
    pub online: bool,
    pub enabled: bool,
    pub disabled_reason: String,
    pub disabled_by: String,
    /// Why nothing is deployed to it and its agent gets no session; empty if it is not.
    pub quarantined: String,
    pub quarantined_since_ms: u64,
    /// Deployments that its agent told of and the coordinator does not have.
    pub unknown_deployments: u64,
    /// Of its apps.
    pub behind: Vec<Behind>,
    /// The newest entry of the audit log that its agent has seen; 0: none.
    pub audit_seen: u64,
    /// Absent: what it has seen is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_dispute: Option<AuditDispute>,
    pub agent_version: String,
    pub last_seen_ms: u64,
    /// The agent's clock minus the coordinator's.
    pub clock_offset_ms: i64,
    pub clock_skew: bool,
    pub apps: Vec<ServerApp>,
    pub trust_root_version: u64,
    pub trust_root_error: String,
    /// Of the newest: `valid`, `ending` (in a month) or `expired`; then it takes no new deployment.
    pub trust_root: String,
    /// That its agent reads.
    pub document_types: Vec<String>,
    pub identity: String,
    pub certificate_expires_ms: u64,
    pub root: bool,
    pub os: String,
    pub arch: String,
    /// Of its keys, as `consign-agent status` prints it; empty where it has none yet.
    pub fingerprint: String,
    /// Whether secrets may be sealed to it: accepted, not-accepted, other-key, unverified, no-key; empty where this machine
    /// has no trust root to decide it by.
    pub acceptance: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerApp {
    pub app: String,
    pub good: String,
    pub good_version: String,
    pub before: String,
    pub current: String,
    /// Since when what the gate's `rearm` asks for is asked here: its last deployment did not succeed. 0: it is not.
    pub rearmed_since_ms: u64,
    /// The highest config that it has accepted; 0: none.
    pub config_sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operator {
    pub name: String,
    pub role: String,
    /// The apps that a CI identity is for; none: every one.
    pub apps: Vec<String>,
    pub identity: String,
    pub certificate_expires_ms: u64,
    pub added_by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub version: String,
    pub coordinator: String,
    pub trust_root_version: u64,
    pub trust_root_expires_ms: u64,
    /// `valid`, `ending` (in a month) or `expired`: then new deployments are refused.
    pub trust_root: String,
    pub servers: u32,
    pub servers_online: u32,
    pub artifacts: u32,
    pub rollouts_active: u32,
    pub now_ms: u64,
    pub identity: String,
    pub role: String,
    /// Servers that wait for a person.
    pub quarantined: Vec<String>,
    /// Where agents have seen more than this coordinator knows: nothing is started there until `env take-over`.
    pub behind: Vec<Behind>,
    /// Of the audit log's newest entry.
    pub audit_sequence: u64,
    pub audit_hash: String,
    /// What agents have seen of the audit log that is not in it.
    pub audit_disputes: Vec<AuditDispute>,
    /// What begins by itself when nothing keeps it any more.
    pub candidates_waiting: u32,
    /// Where nothing begins by itself until somebody lifts it.
    pub holds: Vec<Hold>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Behind {
    pub app: String,
    pub environment: String,
    /// The highest term that an agent has seen.
    pub term: u64,
    /// The highest one that this coordinator gave.
    pub given: u64,
    /// Whose agent that is.
    pub server: String,
    pub seen_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TakenOver {
    /// What it was.
    #[serde(flatten)]
    pub behind: Behind,
    /// From which it goes on.
    pub new_term: u64,
}

/// One line of `--follow --output json`, of `rollout logs --output json` and of `artifact publish --wait-for`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    Rollout {
        at_ms: u64,
        rollout: Rollout,
    },
    Deployment {
        at_ms: u64,
        deployment: Deployment,
    },
    /// One framed record. `text` is the bytes where they are UTF-8, else `base64` is there instead.
    Output {
        at_ms: u64,
        server: String,
        step: String,
        attempt: String,
        /// `stdout`, `stderr`, `system`, or `gap`, which says how many bytes are missing.
        stream: &'static str,
        /// Where the record begins in the attempt's log.
        offset: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        missing_bytes: Option<u64>,
    },
    /// The connection to the coordinator was lost; it is tried again.
    Interrupted {
        because: String,
    },
    /// The rollout stopped and began another one that brings servers back; what follows is of that one.
    Successor {
        rollout: String,
        successor: String,
    },
    /// What was published.
    Published {
        artifact: Artifact,
    },
    /// What is waited for.
    Candidate {
        at_ms: u64,
        candidate: Candidate,
    },
    /// The last line: the process exits with this code.
    End {
        rollout: Rollout,
        exit_code: u8,
    },
}

/// An error, on stderr, with `--output json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Error<'a> {
    pub error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<&'a str>,
    pub exit_code: u8,
}

impl From<v1::Rollout> for Rollout {
    fn from(wire: v1::Rollout) -> Self {
        let ended = (wire.ended_ms > 0).then_some(wire.ended_ms);
        Self {
            id: wire.id,
            kind: wire.kind,
            app: wire.app,
            version: wire.version,
            environment: wire.environment,
            digest: wire.digest,
            state: wire.state,
            because: wire.because,
            exit_code: ended.map(|_| wire.exit_code),
            started_ms: wire.started_ms,
            ended_ms: ended,
            started_by: wire.started_by,
            waves: wire.waves,
            deployments: wire.deployments.into_iter().map(Into::into).collect(),
            reason: wire.reason,
            wave: wire.wave,
            last_wave: wire.last_wave,
            stage: wire.stage,
            deadline_ms: (wire.deadline_ms > 0).then_some(wire.deadline_ms),
            paused: wire.paused,
            hold: wire.hold.map(Into::into),
            once: wire.once.into_iter().map(Into::into).collect(),
            rolled_back_by: wire.rolled_back_by,
            selector: wire.selector,
            plan: wire.plan,
            skips: wire.skips.into_iter().map(Into::into).collect(),
            settings: wire.settings.unwrap_or_default().into(),
        }
    }
}

impl From<v1::OnceStep> for OnceStep {
    fn from(wire: v1::OnceStep) -> Self {
        Self { step: wire.step, state: wire.state, server: wire.server, because: wire.because }
    }
}

impl From<v1::SkippedStep> for SkippedStep {
    fn from(wire: v1::SkippedStep) -> Self {
        Self { step: wire.step, server: wire.server }
    }
}

impl From<v1::Deployment> for Deployment {
    fn from(wire: v1::Deployment) -> Self {
        Self {
            id: wire.id,
            server: wire.server,
            wave: wire.wave,
            state: wire.state,
            because: wire.because,
            release_before: wire.release_before,
            steps: wire.steps.into_iter().map(Into::into).collect(),
            attempt: wire.attempt,
            confirm_until_ms: (wire.confirm_until_ms > 0).then_some(wire.confirm_until_ms),
        }
    }
}

impl From<v1::StepView> for Step {
    fn from(wire: v1::StepView) -> Self {
        Self {
            phase: wire.phase,
            index: wire.index,
            name: wire.name,
            kind: wire.kind,
            state: wire.state,
            because: wire.because,
            attempts: wire.attempts,
            started_ms: wire.started_ms,
            ended_ms: wire.ended_ms,
            log_bytes: wire.log_bytes,
        }
    }
}

impl From<v1::Artifact> for Artifact {
    fn from(wire: v1::Artifact) -> Self {
        Self {
            app: wire.app,
            version: wire.version,
            platform: wire.platform,
            digest: wire.digest,
            entries: wire.entries,
            bytes: wire.bytes,
            pack_bytes: wire.pack_bytes,
            published_ms: wire.published_ms,
            running_on: wire.running_on,
        }
    }
}

impl From<v1::Server> for Server {
    fn from(wire: v1::Server) -> Self {
        Self {
            name: wire.name,
            environment: wire.environment,
            labels: wire.labels.into_iter().collect(),
            online: wire.online,
            enabled: wire.enabled,
            disabled_reason: wire.disabled_reason,
            disabled_by: wire.disabled_by,
            quarantined: wire.quarantined,
            quarantined_since_ms: wire.quarantined_since_ms,
            unknown_deployments: wire.unknown_deployments,
            behind: wire.behind.into_iter().map(Into::into).collect(),
            audit_seen: wire.audit.map_or(0, |head| head.sequence),
            audit_dispute: wire.audit_dispute.map(Into::into),
            agent_version: wire.agent_version,
            last_seen_ms: wire.last_seen_ms,
            clock_offset_ms: wire.clock_offset_ms,
            clock_skew: wire.clock_skew,
            apps: wire.apps.into_iter().map(Into::into).collect(),
            trust_root_version: wire.trust_root_version,
            trust_root_error: wire.trust_root_error,
            trust_root: String::new(),
            document_types: wire.document_types,
            identity: wire.identity,
            certificate_expires_ms: wire.certificate_expires_ms,
            root: wire.root,
            os: wire.os,
            arch: wire.arch,
            fingerprint: wire
                .keys
                .as_ref()
                .and_then(super::acceptance::fingerprint)
                .map(|fingerprint| fingerprint.to_string())
                .unwrap_or_default(),
            // Decided by this machine's trust root, where there is one.
            acceptance: String::new(),
        }
    }
}

impl From<v1::AppState> for ServerApp {
    fn from(wire: v1::AppState) -> Self {
        Self {
            app: wire.app,
            good: wire.good,
            good_version: wire.good_version,
            before: wire.before,
            current: wire.current,
            rearmed_since_ms: wire.failed_ms,
            config_sequence: wire.config_sequence,
        }
    }
}

impl From<v1::Operator> for Operator {
    fn from(wire: v1::Operator) -> Self {
        Self {
            name: wire.name,
            role: wire.role,
            apps: wire.apps,
            identity: wire.identity,
            certificate_expires_ms: wire.certificate_expires_ms,
            added_by: wire.added_by,
        }
    }
}

impl From<v1::StatusResponse> for Status {
    fn from(wire: v1::StatusResponse) -> Self {
        Self {
            version: wire.version,
            coordinator: wire.coordinator,
            trust_root_version: wire.trust_root_version,
            trust_root_expires_ms: wire.trust_root_expires_ms,
            trust_root: Validity::of(UnixMs(wire.trust_root_expires_ms), UnixMs(wire.now_ms)).as_str().into(),
            servers: wire.servers,
            servers_online: wire.servers_online,
            artifacts: wire.artifacts,
            rollouts_active: wire.rollouts_active,
            now_ms: wire.now_ms,
            identity: wire.identity,
            role: wire.role,
            quarantined: wire.quarantined,
            behind: wire.behind.into_iter().map(Into::into).collect(),
            audit_sequence: wire.audit.as_ref().map_or(0, |head| head.sequence),
            audit_hash: wire.audit.map(|head| hex(&head.hash)).unwrap_or_default(),
            audit_disputes: wire.audit_disputes.into_iter().map(Into::into).collect(),
            candidates_waiting: wire.candidates_waiting,
            holds: wire.holds.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::Behind> for Behind {
    fn from(wire: v1::Behind) -> Self {
        Self {
            app: wire.app,
            environment: wire.environment,
            term: wire.term,
            given: wire.given,
            server: wire.server,
            seen_ms: wire.seen_ms,
        }
    }
}

impl From<v1::TakeOverResponse> for TakenOver {
    fn from(wire: v1::TakeOverResponse) -> Self {
        Self { behind: wire.behind.unwrap_or_default().into(), new_term: wire.term }
    }
}
