//! Our types to the wire's, for what only an agent says.

use consign_common::{
    audit::Head,
    digest::Sha256,
    json,
    name::Id,
    sealing::Recipient,
    time::UnixMs,
    trust::{
        APPROVAL, CONFIG, DECISION, ENROLLED, PUBLISHED, Privilege, PublicKey, STATEMENT_TYPE, ServersWord,
        TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE,
    },
};
use consign_proto::v1::{
    AgentMessage, Answer as Answered, AppState, AuditHead, Event, Heartbeat, Hello, PlannedStep, Receipt,
    Refused, TrustRootTaken, agent_message::Kind,
};

use crate::ports::{Answer, AppReport, Foretold, Held, JournalMark, Outbound};

/// Raised with every addition to the wire; two versions of skew work both ways.
pub(super) const PROTOCOL: u32 = 1;

/// The document types that this agent reads: nobody signs one that a server of theirs does not name. A new type stands
/// here as soon as it is decided by, and not before.
fn document_types() -> Vec<String> {
    [
        "consign-order-v1",
        "consign-manifest-v1",
        STATEMENT_TYPE,
        PUBLISHED,
        APPROVAL,
        CONFIG,
        ENROLLED,
        DECISION,
        TRUST_ROOT_TYPE,
        TRUST_ROOT_V2_TYPE,
    ]
    .map(String::from)
    .into()
}

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Host {
    pub word: ServersWord,
    pub privilege: Privilege,
    pub boot_id: String,
    /// Random, of this process: by it the coordinator tells a line that was lost from a second agent.
    pub process: Id,
    /// What this server signs receipts with.
    pub receipt_key: PublicKey,
    /// What secrets are sealed to.
    pub sealing_key: Recipient,
}

/// What the hello says of the coordinator's audit log, and of this server's receipts.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// The newest entry that was heard of.
    pub(super) audit: Option<Head>,
    /// The certificate's word for the key of receipts.
    pub(super) receipt_key: Vec<u8>,
}

pub(super) fn hello(
    host: &Host,
    now: UnixMs,
    trust_root_version: u64,
    apps: Vec<AppReport>,
    open: Vec<String>,
    journal: JournalMark,
    remembered: Remembered,
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
        // A server that was moved to another environment remembers the one before, too.
        apps: apps
            .into_iter()
            .filter(|app| app.environment.as_ref().is_none_or(|own| *own == host.word.environment))
            .map(app_state)
            .collect(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        root: host.privilege == Privilege::Root,
        open_deployments: open,
        journal: journal.id,
        journal_position: journal.position,
        process: host.process.to_string(),
        audit: remembered.audit.map(audit_head),
        receipt_key: remembered.receipt_key.into(),
        sealing_key: host.sealing_key.to_string(),
    }))
}

/// `echo`: what the coordinator's heartbeat asks to hear, or 0.
pub(super) fn heartbeat(now: UnixMs, echo: u64) -> AgentMessage {
    message(Kind::Heartbeat(Heartbeat { now_ms: now.0, echo, audit: None }))
}

/// `position`: the journal's, now. `None`: it is for the session itself.
pub(super) fn outbound(outbound: Outbound, position: u64) -> Option<AgentMessage> {
    Some(message(match outbound {
        Outbound::Again => return None,
        Outbound::Event { deployment, sequence, at, body } => Kind::Event(Event {
            deployment: deployment.into(),
            sequence,
            at_ms: at.0,
            body: json::to_vec(&body).into(),
            journal_position: position,
        }),
        Outbound::Refused { order, code, message } => {
            Kind::Refused(Refused { order: order.into(), code, message })
        }
        Outbound::Answer { query, answer } => Kind::Answer(answered(query, answer)),
    }))
}

fn answered(query: String, answer: Answer) -> Answered {
    let answered = Answered { query, ..Answered::default() };
    match answer {
        Answer::Refused { code, message } => Answered { code, message, ..answered },
        Answer::Foretold { foretold, held } => {
            let Held { code: held_code, message: held_message } = held.unwrap_or_default();
            let step = |step: crate::ports::PlannedStep| PlannedStep {
                name: step.name,
                kind: step.kind.into(),
                decision: step.decision.into(),
                because: step.because,
            };
            let (no_op, steps) = match foretold {
                Foretold::NoOp => (true, Vec::new()),
                Foretold::Work { steps } => (false, steps.into_iter().map(step).collect()),
            };
            Answered { no_op, steps, held_code, held_message, ..answered }
        }
    }
}

pub(super) fn receipt(envelope: Vec<u8>) -> AgentMessage {
    message(Kind::Receipt(Receipt { envelope: envelope.into() }))
}

fn audit_head(head: Head) -> AuditHead {
    AuditHead { sequence: head.sequence, hash: head.hash.as_bytes().to_vec().into() }
}

/// Where the coordinator's log ends, as it says; what is no head is passed over.
pub(super) fn told_head(told: Option<AuditHead>) -> Option<Head> {
    let AuditHead { sequence, hash } = told?;
    let hash = <[u8; 32]>::try_from(&*hash).ok()?;
    (sequence > 0).then(|| Head { sequence, hash: Sha256::from_bytes(hash) })
}

pub(super) fn trust_root_taken(version: u64, error: String) -> AgentMessage {
    message(Kind::TrustRootTaken(TrustRootTaken { version, error }))
}

fn message(kind: Kind) -> AgentMessage {
    AgentMessage { kind: Some(kind) }
}

fn app_state(report: AppReport) -> AppState {
    let AppReport {
        app,
        environment: _,
        good,
        good_version,
        before,
        current,
        highest,
        term,
        failed,
        config_sequence,
    } = report;
    let hex = |digest: Option<Sha256>| digest.map(|digest| digest.to_string()).unwrap_or_default();
    AppState {
        app: app.map(String::from).unwrap_or_default(),
        good: hex(good),
        before: hex(before),
        current: hex(current),
        epoch: highest.epoch,
        ms: highest.ms.0,
        good_version,
        term,
        failed_epoch: failed.map_or(0, |failed| failed.epoch),
        failed_ms: failed.map_or(0, |failed| failed.ms.0),
        config_sequence,
    }
}

#[cfg(test)]
mod tests {
    use consign_common::trust::{Refusal, Statement};

    use super::*;

    #[test]
    fn what_an_agent_says_it_reads_it_reads() {
        let types = document_types();
        for root in [TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE] {
            assert!(types.contains(&root.to_owned()));
        }
        let ours = types.iter().filter(|name| name.starts_with("consign:"));
        for name in ours {
            let text = format!(
                "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{{\"name\":\"\",\"digest\":{{\"sha256\":\"{}\"}}}}],\
                 \"predicateType\":\"{name}\",\"predicate\":{{}}}}",
                "0".repeat(64)
            );
            // It knows the type, and misses what belongs into it.
            let Err(Refusal::Malformed { why, .. }) = Statement::parse(text.as_bytes()) else {
                panic!("{name}")
            };
            assert!(why.contains("missing field"), "{name}: {why}");
        }
    }
}
