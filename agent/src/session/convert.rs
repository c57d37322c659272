//! Our types to the wire's, for what only an agent says.

use consign_common::{
    json,
    time::UnixMs,
    trust::{Privilege, STATEMENT_TYPE, ServersWord, TRUST_ROOT_TYPE},
};
use consign_proto::v1::{
    AgentMessage, AppState, Event, Heartbeat, Hello, Refused, TrustRootTaken, agent_message::Kind,
};

use crate::ports::{AppReport, Outbound};

/// Raised with every addition to the wire; two versions of skew work both ways.
pub(super) const PROTOCOL: u32 = 1;

/// The document types that this agent reads.
fn document_types() -> Vec<String> {
    ["consign-order-v1", "consign-manifest-v1", STATEMENT_TYPE, TRUST_ROOT_TYPE].map(String::from).into()
}

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Host {
    pub word: ServersWord,
    pub privilege: Privilege,
    pub boot_id: String,
}

pub(super) fn hello(
    host: &Host,
    now: UnixMs,
    trust_root_version: u64,
    apps: Vec<AppReport>,
    open: Vec<String>,
) -> AgentMessage {
    message(Kind::Hello(Hello {
        protocol: PROTOCOL,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        document_types: document_types(),
        environment: host.word.environment.to_string(),
        labels: host.word.labels.clone().into_iter().collect(),
        boot_id: host.boot_id.clone(),
        now_ms: now.0,
        trust_root_version,
        apps: apps.into_iter().map(app_state).collect(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        root: host.privilege == Privilege::Root,
        open_deployments: open,
        journal: String::new(),
        journal_position: 0,
    }))
}

pub(super) fn heartbeat(now: UnixMs) -> AgentMessage {
    message(Kind::Heartbeat(Heartbeat { now_ms: now.0 }))
}

/// `None`: it is for the session itself.
pub(super) fn outbound(outbound: Outbound) -> Option<AgentMessage> {
    Some(message(match outbound {
        Outbound::Again => return None,
        Outbound::Event { deployment, sequence, at, body } => Kind::Event(Event {
            deployment: deployment.into(),
            sequence,
            at_ms: at.0,
            body: json::to_vec(&body).into(),
        }),
        Outbound::Refused { order, code, message } => {
            Kind::Refused(Refused { order: order.into(), code, message })
        }
    }))
}

pub(super) fn trust_root_taken(version: u64, error: String) -> AgentMessage {
    message(Kind::TrustRootTaken(TrustRootTaken { version, error }))
}

fn message(kind: Kind) -> AgentMessage {
    AgentMessage { kind: Some(kind) }
}

fn app_state(report: AppReport) -> AppState {
    let AppReport { app, good, good_version, before, current, highest, term } = report;
    let hex = |digest: Option<consign_common::digest::Sha256>| {
        digest.map(|digest| digest.to_string()).unwrap_or_default()
    };
    AppState {
        app: app.map(String::from).unwrap_or_default(),
        good: hex(good),
        before: hex(before),
        current: hex(current),
        epoch: highest.epoch,
        ms: highest.ms.0,
        good_version,
        term,
    }
}
