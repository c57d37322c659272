//! From rows to what is sent.

use consign_common::{digest::Sha256, tls::Subject};
use consign_proto::v1;

use crate::{
    fleet::{AppReport, Enablement, Server},
    operators::Operator,
    repository::Artifact,
    rollouts::Behind,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Online,
    Offline,
}

/// `behind`: all of the coordinator; the server is told with those of its own apps.
pub(super) fn server(server: Server, presence: Presence, behind: &[v1::Behind]) -> v1::Server {
    let concerns = |behind: &&v1::Behind| {
        behind.environment == server.environment.as_str()
            && server.apps.keys().any(|app| behind.app == app.as_str())
    };
    let behind = behind.iter().filter(concerns).cloned().collect();
    let clock_skew = server.has_clock_skew();
    let subject = Subject::Agent { server: server.name.clone(), uid: server.uid };
    let (enabled, disabled_reason, disabled_by) = match server.enablement {
        Enablement::Enabled => (true, String::new(), String::new()),
        Enablement::Disabled { reason, by } => (false, reason, by),
    };
    let (quarantined, quarantined_since_ms) = match server.quarantine {
        Some(quarantine) => (quarantine.because, quarantine.since.0),
        None => (String::new(), 0),
    };
    v1::Server {
        name: server.name.into(),
        environment: server.environment.into(),
        labels: server.report.labels.into_iter().collect(),
        online: presence == Presence::Online,
        enabled,
        disabled_reason,
        agent_version: server.report.agent_version,
        last_seen_ms: server.last_seen.unwrap_or_default().0,
        clock_offset_ms: server.clock_offset_ms,
        clock_skew,
        apps: server.apps.into_iter().map(|(name, report)| app(name.into(), report)).collect(),
        trust_root_version: server.report.trust_root_version,
        trust_root_error: server.trust_root_error,
        identity: subject.uri(),
        certificate_expires_ms: server.certificate_expires.0,
        root: server.report.root,
        os: server.report.os,
        arch: server.report.arch,
        disabled_by,
        quarantined,
        quarantined_since_ms,
        unknown_deployments: server.unknown_deployments,
        behind,
        document_types: server.report.document_types,
        // Filled in where servers are listed.
        audit: None,
        audit_dispute: None,
        keys: None,
    }
}

pub(super) fn behind(behind: Behind) -> v1::Behind {
    v1::Behind {
        app: behind.app.into(),
        environment: behind.environment.into(),
        term: behind.term,
        given: behind.given,
        server: behind.server.into(),
        seen_ms: behind.since.0,
    }
}

fn app(app: String, report: AppReport) -> v1::AppState {
    let hex = |digest: Option<Sha256>| digest.map(String::from).unwrap_or_default();
    v1::AppState {
        app,
        good: hex(report.good),
        before: hex(report.before),
        current: hex(report.current),
        epoch: report.highest.epoch,
        ms: report.highest.ms.0,
        good_version: report.good_version,
        term: report.term,
        failed_epoch: report.failed.map_or(0, |failed| failed.epoch),
        failed_ms: report.failed.map_or(0, |failed| failed.ms.0),
        config_sequence: report.config_sequence,
    }
}

pub(super) fn operator(operator: Operator) -> v1::Operator {
    v1::Operator {
        identity: Subject::Operator { name: operator.name.to_string() }.uri(),
        name: operator.name.into(),
        role: operator.role.as_str().into(),
        apps: operator.apps.into_iter().map(String::from).collect(),
        certificate_expires_ms: operator.certificate_expires.0,
        added_by: operator.added_by,
    }
}

/// Without manifest and statements, which only `ShowArtifact` sends.
pub(super) fn artifact(artifact: Artifact, servers: &[Server]) -> v1::Artifact {
    let runs = |server: &&Server| {
        server.apps.get(&artifact.app).is_some_and(|app| app.good == Some(artifact.digest))
    };
    v1::Artifact {
        running_on: servers.iter().filter(runs).map(|server| server.name.to_string()).collect(),
        app: artifact.app.into(),
        version: artifact.version.into(),
        platform: artifact.platform.map(String::from).unwrap_or_default(),
        digest: artifact.digest.into(),
        entries: artifact.entries,
        bytes: artifact.bytes,
        pack_bytes: artifact.pack_bytes,
        statements: Vec::new(),
        manifest: Vec::new().into(),
        published_ms: artifact.number.ms.0,
    }
}
