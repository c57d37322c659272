//! One agent's session: hello and welcome, then orders down and events up, until either side is gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consign_common::{
    crash,
    limits::{EVENT_BYTES, STEPS},
    name::{App, Environment, Id, ServerName},
    sealing::Recipient,
    time::UnixMs,
    trust::{OrderingNumber, TrustRoot},
    wire,
};
use consign_proto::v1::{self, AgentMessage, CoordinatorMessage, agent_message, coordinator_message::Kind};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tonic::{Status, Streaming};

use super::{
    agent_papers, agent_place,
    agents::{AgentParts, Shown},
    answer::invalid,
};
use crate::{
    config,
    fleet::{
        AppReport, Claim, Decision, Foreseeing, Greeting, Held, JournalMark, Lost, Papers, Prospect, Report,
        Session, ToAgent,
    },
    rollouts::{ControllerError, Heard, NotTaken, Reported},
    trust_roots::MESSAGE_BUDGET,
};

/// The minor version of this wire; two of skew work both ways.
const PROTOCOL: u32 = 1;
const SKEW: u32 = 2;
const HELLO_WITHIN: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Without a word for this long an agent is gone, whatever TCP says.
const SILENT: Duration = Duration::from_secs(45);
/// A line that does not take a message for this long is dead.
const STUCK: Duration = Duration::from_secs(30);
/// How often a living session is noted durably.
const NOTE: Duration = Duration::from_secs(60);
/// Of what an agent says of its server: apps, and characters of a text.
const APPS: usize = 1000;
/// No coordinator ever gives a term like this one; an agent that says so would stop its environment for good.
const TERM: u64 = 1 << 40;
const TEXT: usize = 253;
/// Document types that an agent says it reads.
const TYPES: usize = 100;
/// Characters of why it would skip a step, or refuse an order.
const REASON: usize = 2000;

type ToLine = mpsc::Sender<Result<CoordinatorMessage, Status>>;

pub(super) async fn run(
    parts: AgentParts,
    server: ServerName,
    environment: Environment,
    shown: Shown,
    mut from_agent: Streaming<AgentMessage>,
    to_agent: ToLine,
) {
    // Before the agent is told what there is, so that nothing newer is missed.
    let roots = parts.trust_roots.subscribe();
    let begun = begin(&parts, &server, &environment, &shown, &mut from_agent, &to_agent).await;
    let (mut session, known) = match begun {
        Ok(begun) => begun,
        Err(status) => {
            tracing::warn!(%server, reason = status.message(), "session refused");
            // Gone already: nobody to tell.
            return drop(to_agent.send(Err(status)).await);
        }
    };
    tracing::info!(%server, "connected");
    let line = Line { parts: &parts, server: &server, shown: &shown, to_agent: &to_agent };
    let talked = line.talk(&mut session, &mut from_agent, roots, known).await;
    let end = talked.err().unwrap_or_else(|| Status::ok("the agent ended it"));
    parts.sessions.ended(&session);
    tracing::info!(%server, reason = end.message(), "disconnected");
    drop(to_agent.try_send(Err(end)));
    let offset = parts.sessions.clock_offset_ms(&server);
    if offset.is_none() {
        note(&parts, &server, line_offset(&parts, &server).await).await;
        match parts.controller.disconnected(&server).await {
            Ok(()) => {}
            // It is we who leave: the next start looks for all of them.
            Err(_) if parts.store.is_closed() => {}
            Err(error) => tracing::error!(%server, %error, "an agent's departure could not be looked into"),
        }
    }
}

/// Hello and welcome. Gives the version of the trust root that the agent has, or is being sent.
async fn begin(
    parts: &AgentParts,
    server: &ServerName,
    environment: &Environment,
    shown: &Shown,
    from_agent: &mut Streaming<AgentMessage>,
    to_agent: &ToLine,
) -> Result<(Session, u64), Status> {
    let first = timeout(HELLO_WITHIN, from_agent.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came"))??;
    let Some(AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }) = first else {
        return Err(invalid("the first message is not a hello"));
    };
    if hello.environment != environment.as_str() {
        return Err(Status::failed_precondition(format!(
            "wrong-environment: this server was enrolled for {environment}; its agent.toml says {:?}",
            hello.environment.chars().take(TEXT).collect::<String>()
        )));
    }
    if hello.protocol.abs_diff(PROTOCOL) > SKEW {
        return Err(Status::failed_precondition(format!(
            "the agent speaks version {} of the protocol, this coordinator {PROTOCOL}; update the older of the two",
            hello.protocol
        )));
    }
    let claim = Claim {
        process: cut(&hello.process),
        boot_id: cut(&hello.boot_id),
        clock_offset_ms: offset(hello.now_ms, parts.clock.now()),
    };
    let session = agent_place::take(parts, server, &claim).await?;
    match introduce(parts, server, environment, shown, &hello, claim.clock_offset_ms, to_agent).await {
        Ok(known) => Ok((session, known)),
        Err(status) => {
            parts.sessions.ended(&session);
            Err(status)
        }
    }
}

/// In its place the agent is welcomed, if it is the one that was there before, and given what is open for it.
async fn introduce(
    parts: &AgentParts,
    server: &ServerName,
    environment: &Environment,
    shown: &Shown,
    hello: &v1::Hello,
    offset: i64,
    to_agent: &ToLine,
) -> Result<u64, Status> {
    let now = parts.clock.now();
    let (report, apps) = report(hello)?;
    match parts.registry.hello(server, &report, &apps, offset, now).await? {
        Greeting::Welcome => {}
        Greeting::StillQuarantined(quarantine) => return Err(agent_place::refused(&quarantine)),
        Greeting::NowQuarantined(quarantine) => {
            return Err(agent_place::end_all(parts, server, &quarantine));
        }
    }
    if !hello.sealing_key.is_empty() {
        let recipient: Recipient = hello.sealing_key.parse().map_err(invalid)?;
        let mut write = parts.store.write().await?;
        config::note_sealing_key(&mut write, server, &recipient.to_string(), now).await?;
        write.commit().await?;
    }
    let compared = parts.controller.compare(server, environment, &apps, &open_deployments(hello)?).await;
    compared.map_err(|error| unreadable(server, &error))?;
    agent_papers::introduce(&parts.store, server, shown, hello, now).await?;
    let welcome = Kind::Welcome(v1::Welcome {
        coordinator: parts.coordinator.clone(),
        now_ms: now.0,
        heartbeat_seconds: u32::try_from(HEARTBEAT.as_secs()).unwrap_or(15),
        protocol: PROTOCOL,
        audit: Some(agent_papers::head(&parts.store).await?),
    });
    send(to_agent, welcome).await?;
    let known = send_trust_roots(parts, to_agent, hello.trust_root_version).await?;
    parts.controller.connected(server).await.map_err(|error| unreadable(server, &error))?;
    Ok(known)
}

struct Line<'a> {
    parts: &'a AgentParts,
    server: &'a ServerName,
    shown: &'a Shown,
    to_agent: &'a ToLine,
}

impl Line<'_> {
    /// Until the agent ends it, or for this reason.
    async fn talk(
        &self,
        session: &mut Session,
        from_agent: &mut Streaming<AgentMessage>,
        mut roots: watch::Receiver<Arc<TrustRoot>>,
        mut known: u64,
    ) -> Result<(), Status> {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut noted = Instant::now();
        loop {
            tokio::select! {
                message = from_agent.message() => {
                    heard = Instant::now();
                    let Some(message) = message? else { return Ok(()) };
                    // A kind that a newer agent knows is passed over.
                    if let Some(kind) = message.kind {
                        self.hear(session, kind).await?;
                    }
                }
                message = session.queue.recv() => match message {
                    Some(message) => send(self.to_agent, wire(message, self.parts.clock.now())).await?,
                    None => return Err(replaced()),
                },
                _ = &mut session.closed => return Err(replaced()),
                changed = roots.changed() => {
                    changed.map_err(|_| Status::unavailable("stopping"))?;
                    known = send_trust_roots(self.parts, self.to_agent, known).await?;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENT {
                        return Err(Status::deadline_exceeded("the agent is silent"));
                    }
                    if noted.elapsed() > NOTE {
                        noted = Instant::now();
                        note(self.parts, self.server, line_offset(self.parts, self.server).await).await;
                    }
                    send(self.to_agent, self.heartbeat().await?).await?;
                }
            }
        }
    }

    /// With the end of the audit log, as it is now.
    async fn heartbeat(&self) -> Result<Kind, Status> {
        let audit = Some(agent_papers::head(&self.parts.store).await?);
        Ok(Kind::Heartbeat(v1::Heartbeat { now_ms: self.parts.clock.now().0, echo: 0, audit }))
    }

    async fn hear(&self, session: &Session, kind: agent_message::Kind) -> Result<(), Status> {
        match kind {
            agent_message::Kind::Hello(_) => Err(invalid("a second hello")),
            agent_message::Kind::Heartbeat(beat) => {
                self.parts.sessions.heard(session, offset(beat.now_ms, self.parts.clock.now()), beat.echo);
                Ok(())
            }
            agent_message::Kind::Event(event) => self.event(event).await,
            agent_message::Kind::Refused(refused) => {
                let order: Id = refused.order.parse().map_err(invalid)?;
                let taken =
                    self.parts.controller.refused(self.server, &order, &refused.code, &refused.message);
                self.pass_over(taken.await)
            }
            agent_message::Kind::Answer(answer) => {
                let query: Id = answer.query.parse().map_err(invalid)?;
                self.parts.sessions.answered(session, &query, prospect(answer));
                Ok(())
            }
            agent_message::Kind::TrustRootTaken(taken) => {
                let error: String = taken.error.chars().take(2000).collect();
                self.parts.registry.trust_root_taken(self.server, taken.version, &error).await?;
                Ok(())
            }
            agent_message::Kind::Receipt(receipt) => {
                let now = self.parts.clock.now();
                let taken = agent_papers::take(&self.parts.store, self.server, self.shown, &receipt, now);
                match taken.await? {
                    Some(ack) => send(self.to_agent, Kind::ReceiptAck(ack)).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn event(&self, event: v1::Event) -> Result<(), Status> {
        crash::point("event-received");
        if event.body.len() > EVENT_BYTES {
            return Err(invalid("an event that is longer than an event may be"));
        }
        let deployment: Id = event.deployment.parse().map_err(invalid)?;
        let reported = Reported {
            deployment: deployment.clone(),
            sequence: event.sequence,
            at: UnixMs(event.at_ms),
            body: event.body.into(),
            journal_position: event.journal_position,
        };
        match self.parts.controller.event(self.server, &reported).await {
            Ok(Heard::Up(sequence)) => {
                let ack = ToAgent::EventAck { deployment, sequence };
                send(self.to_agent, wire(ack, self.parts.clock.now())).await
            }
            Ok(Heard::Passing) => Ok(()),
            // It is not acknowledged, and the agent keeps it.
            Err(NotTaken::NotYours { deployment }) => self
                .pass_over(self.parts.controller.unknown(self.server, &deployment).await.map_err(Into::into)),
            // The agent knows what is missing to be here: it was, before this coordinator was restored from a backup.
            Err(NotTaken::Gap { deployment, sequence, expected }) => {
                let lost = Lost::EventsAfter(expected.saturating_sub(1));
                let resend = ToAgent::Resend { deployment: deployment.clone(), lost };
                send(self.to_agent, wire(resend, self.parts.clock.now())).await?;
                self.pass_over(Err(NotTaken::Gap { deployment, sequence, expected }))
            }
            Err(error) => self.pass_over(Err(error)),
        }
    }

    /// What is about one deployment alone does not end the session; what a new session would mend, does.
    fn pass_over(&self, taken: Result<(), NotTaken>) -> Result<(), Status> {
        match taken {
            Ok(()) => Ok(()),
            Err(
                error @ (NotTaken::NotYours { .. } | NotTaken::AfterEnd { .. } | NotTaken::Unreadable { .. }),
            ) => {
                tracing::warn!(server = %self.server, %error, "not taken");
                Ok(())
            }
            Err(error @ NotTaken::Gap { .. }) => Err(Status::aborted(error.to_string())),
            Err(NotTaken::Failed(error)) => {
                tracing::error!(server = %self.server, %error, "an agent's word could not be kept");
                Err(Status::unavailable("the coordinator could not keep it; send it again"))
            }
        }
    }
}

fn unreadable(server: &ServerName, error: &ControllerError) -> Status {
    tracing::error!(%server, %error, "an agent's orders cannot be read");
    Status::unavailable("try again")
}

fn replaced() -> Status {
    Status::aborted(
        "another session of this server began, or it was removed or quarantined, or it did not read",
    )
}

async fn send(to_agent: &ToLine, kind: Kind) -> Result<(), Status> {
    let (before, after) = match &kind {
        Kind::Order(_) => ("order-send-before", "order-send-after"),
        Kind::EventAck(_) => ("event-ack-send-before", "event-ack-send-after"),
        Kind::Welcome(_)
        | Kind::Heartbeat(_)
        | Kind::TrustRoots(_)
        | Kind::Query(_)
        | Kind::Resend(_)
        | Kind::ReceiptAck(_) => ("message-send-before", "message-send-after"),
    };
    crash::point(before);
    let message = CoordinatorMessage { kind: Some(kind) };
    let sent = timeout(STUCK, to_agent.send(Ok(message))).await;
    crash::point(after);
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the agent is gone")),
        Err(_) => Err(Status::deadline_exceeded("the agent does not read")),
    }
}

/// The trust roots after `known`, and the newest version that the agent has then.
async fn send_trust_roots(parts: &AgentParts, to_agent: &ToLine, mut known: u64) -> Result<u64, Status> {
    loop {
        let envelopes = parts.trust_roots.after(known, MESSAGE_BUDGET).await?;
        if envelopes.is_empty() {
            return Ok(known);
        }
        known = known.saturating_add(u64::try_from(envelopes.len()).unwrap_or(u64::MAX));
        send(to_agent, wire(ToAgent::TrustRoots(envelopes), parts.clock.now())).await?;
    }
}

fn wire(message: ToAgent, now: UnixMs) -> Kind {
    match message {
        ToAgent::Order(papers) => Kind::Order(order(papers)),
        ToAgent::Query { id, papers } => Kind::Query(v1::Query { id: id.into(), order: Some(order(papers)) }),
        ToAgent::EventAck { deployment, sequence } => {
            Kind::EventAck(v1::EventAck { deployment: deployment.into(), sequence })
        }
        ToAgent::TrustRoots(envelopes) => {
            Kind::TrustRoots(v1::TrustRoots { envelopes: envelopes.into_iter().map(Into::into).collect() })
        }
        ToAgent::Heartbeat => Kind::Heartbeat(v1::Heartbeat { now_ms: now.0, ..Default::default() }),
        ToAgent::Resend { deployment, lost } => Kind::Resend(v1::Resend {
            deployment: deployment.into(),
            lost: Some(match lost {
                Lost::EventsAfter(sequence) => v1::resend::Lost::EventsAfter(sequence),
                Lost::Logs => v1::resend::Lost::Logs(true),
            }),
        }),
        ToAgent::Ask(echo) => Kind::Heartbeat(v1::Heartbeat { now_ms: now.0, echo, audit: None }),
    }
}

fn order(papers: Papers) -> v1::Order {
    let Papers { document, statements, plan, sealed } = papers;
    v1::Order {
        document: document.into(),
        statements: statements.into_iter().map(Into::into).collect(),
        plan: plan.into(),
        sealed: sealed.into(),
    }
}

/// What the agent foresees, checked and cut. What cannot be read is a refusal of its own kind: nobody may take it for a
/// plan.
fn prospect(answer: v1::Answer) -> Prospect {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    if !answer.code.is_empty() {
        return Prospect::Refused { code: cut(&answer.code, 64), message: cut(&answer.message, REASON) };
    }
    let held = (!answer.held_code.is_empty())
        .then(|| Held { code: cut(&answer.held_code, 64), message: cut(&answer.held_message, REASON) });
    if answer.no_op {
        return Prospect::NoOp { held };
    }
    let mut steps = Vec::new();
    for step in answer.steps.iter().take(STEPS) {
        let because = cut(&step.because, REASON);
        let decision = match step.decision.as_str() {
            "run" => Some(Decision::Run),
            "skip" => Some(Decision::Skip { because }),
            "undetermined" => Some(Decision::Undetermined { because }),
            _ => None,
        };
        let (Some(decision), Ok(name)) = (decision, step.name.parse()) else {
            let message = format!("it said {:?} of step {:?}", cut(&step.decision, 40), cut(&step.name, 40));
            return Prospect::Refused { code: "answer-unreadable".to_owned(), message };
        };
        steps.push(Foreseeing { step: name, kind: cut(&step.kind, 20), decision });
    }
    Prospect::Steps { steps, held }
}

/// The agent's clock minus ours.
fn offset(theirs_ms: u64, ours: UnixMs) -> i64 {
    let behind = |later: u64, earlier: u64| i64::try_from(later - earlier).unwrap_or(i64::MAX);
    if theirs_ms >= ours.0 { behind(theirs_ms, ours.0) } else { -behind(ours.0, theirs_ms) }
}

/// The offset of the newest session, or what was known before.
async fn line_offset(parts: &AgentParts, server: &ServerName) -> i64 {
    match parts.sessions.clock_offset_ms(server) {
        Some(offset) => offset,
        None => parts.registry.get(server).await.map_or(0, |known| known.clock_offset_ms),
    }
}

async fn note(parts: &AgentParts, server: &ServerName, offset: i64) {
    if let Err(error) = parts.registry.seen(server, offset, parts.clock.now()).await
        && !parts.store.is_closed()
    {
        tracing::warn!(%server, %error, "a sign of life could not be noted");
    }
}

fn open_deployments(hello: &v1::Hello) -> Result<Vec<Id>, Status> {
    if hello.open_deployments.len() > APPS {
        return Err(invalid(format!("a hello with more than {APPS} open deployments")));
    }
    hello.open_deployments.iter().map(|id| id.parse().map_err(invalid)).collect()
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

/// What the agent says of its server, checked and cut.
fn report(hello: &v1::Hello) -> Result<(Report, BTreeMap<App, AppReport>), Status> {
    if hello.apps.len() > APPS {
        return Err(invalid(format!("a hello with more than {APPS} apps")));
    }
    let mut apps = BTreeMap::new();
    for state in &hello.apps {
        if state.term >= TERM {
            return Err(invalid(format!(
                "term {} of {:?} is none that was ever given",
                state.term,
                cut(&state.app)
            )));
        }
        let digest = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(invalid),
        };
        let report = AppReport {
            good: digest(&state.good)?,
            good_version: cut(&state.good_version),
            before: digest(&state.before)?,
            current: digest(&state.current)?,
            highest: OrderingNumber { epoch: state.epoch, ms: UnixMs(state.ms) },
            term: state.term,
            failed: (state.failed_ms > 0)
                .then_some(OrderingNumber { epoch: state.failed_epoch, ms: UnixMs(state.failed_ms) }),
            config_sequence: state.config_sequence,
        };
        apps.insert(state.app.parse().map_err(invalid)?, report);
    }
    let report = Report {
        labels: wire::labels(hello.labels.clone()).map_err(invalid)?,
        agent_version: cut(&hello.agent_version),
        os: cut(&hello.os),
        arch: cut(&hello.arch),
        root: hello.root,
        boot_id: cut(&hello.boot_id),
        document_types: hello.document_types.iter().take(TYPES).map(|name| cut(name)).collect(),
        trust_root_version: hello.trust_root_version,
        journal: JournalMark { id: cut(&hello.journal), position: hello.journal_position },
    };
    Ok((report, apps))
}
