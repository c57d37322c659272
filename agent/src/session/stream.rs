//! One session: hello and welcome, then orders down and events up, and heartbeats both ways.

use std::time::Duration;

use consign_common::{
    crash,
    deployment::Event,
    limits::{PLAN_DOCUMENT_BYTES, SEALED_BYTES, STATEMENTS},
    name::Id,
    terminal,
    time::{Clock as _, SystemClock},
};
use consign_proto::v1::{
    AgentMessage, CoordinatorMessage, Heartbeat, Order, Query, Resend, TrustRoots as Offered, Welcome,
    agents_client::AgentsClient, coordinator_message::Kind, resend,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    convert::{self, Host, PROTOCOL},
    dial::DialError,
};
use crate::{
    identity::{TrustRoots, roots::RootsError},
    ports::{Inbound, Ledger, Lost, Outbound, Papers, Rewound},
};

/// Messages on their way out. More waits in the journal.
const QUEUE: usize = 64;
const WELCOME_WITHIN: Duration = Duration::from_secs(20);
/// Heartbeat intervals without a message after which the line is given up.
const SILENT_INTERVALS: u32 = 3;
const SKEW: u32 = 2;
/// The coordinator's name for a query; it is sent back as it came.
const QUERY_ID_BYTES: usize = 64;

/// Why a session ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error(transparent)]
    Dial(DialError),
    #[error("the coordinator refused the session: {0}")]
    Refused(String),
    #[error("the coordinator did not answer within {} s", WELCOME_WITHIN.as_secs())]
    NoWelcome,
    #[error(
        "the coordinator speaks version {theirs} of the protocol, this agent {PROTOCOL}; update the older of the two"
    )]
    Protocol { theirs: u32 },
    #[error("the session broke: {0}")]
    Broken(String),
    #[error("the coordinator closed the session")]
    Closed,
    #[error("nothing came for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("nothing could be sent for {} s", .0.as_secs())]
    Stuck(Duration),
    #[error("the coordinator sent what no coordinator sends: {0}")]
    Malformed(&'static str),
    #[error("the certificate was renewed")]
    NewIdentity,
    #[error("the coordinator was restored from a backup; what it lost is told again")]
    Rewound,
    #[error("this agent is stopping")]
    ManagerEnded,
}

impl SessionEnd {
    pub(super) fn was_welcomed(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Refused(_) | Self::NoWelcome | Self::Protocol { .. } => false,
            Self::Broken(_)
            | Self::Closed
            | Self::Silent(_)
            | Self::Stuck(_)
            | Self::Malformed(_)
            | Self::NewIdentity
            | Self::Rewound
            | Self::ManagerEnded => true,
        }
    }
}

/// An open session.
pub(super) struct Stream {
    incoming: Streaming<CoordinatorMessage>,
    outgoing: mpsc::Sender<AgentMessage>,
    heartbeat: Duration,
}

impl Stream {
    /// Says hello and waits for the welcome.
    pub(super) async fn open(
        client: &mut AgentsClient<Channel>,
        host: &Host,
        coordinator: &str,
        ledger: &impl Ledger,
        roots: &TrustRoots,
    ) -> Result<(Self, Welcome), SessionEnd> {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let open = ledger.open_deployments().await.into_iter().map(String::from).collect();
        let apps = ledger.apps(coordinator).await;
        let version = roots.current().version;
        let hello = convert::hello(host, SystemClock.now(), version, apps, open, ledger.journal());
        crash::point("hello-send-before");
        outgoing.send(hello).await.map_err(|_| SessionEnd::Closed)?;
        let welcomed = timeout(WELCOME_WITHIN, async {
            let mut incoming =
                client.session(ReceiverStream::new(queue)).await.map_err(refused)?.into_inner();
            let first = incoming.message().await.map_err(refused)?.ok_or(SessionEnd::Closed)?;
            match first.kind {
                Some(Kind::Welcome(welcome)) => Ok((incoming, welcome)),
                Some(
                    Kind::Heartbeat(_)
                    | Kind::Order(_)
                    | Kind::EventAck(_)
                    | Kind::TrustRoots(_)
                    | Kind::Query(_)
                    | Kind::Resend(_),
                )
                | None => Err(SessionEnd::Malformed("its first message is not a welcome")),
            }
        });
        let (incoming, welcome) = welcomed.await.map_err(|_| SessionEnd::NoWelcome)??;
        if welcome.protocol.abs_diff(PROTOCOL) > SKEW {
            return Err(SessionEnd::Protocol { theirs: welcome.protocol });
        }
        crash::point("welcome-received");
        let heartbeat = Duration::from_secs(welcome.heartbeat_seconds.clamp(1, 300).into());
        Ok((Self { incoming, outgoing, heartbeat }, welcome))
    }

    /// Until the session ends. Both queues are waited for without holding up anything else: neither a manager that is
    /// busy nor a line that is slow stops the heartbeats.
    pub(super) async fn serve(
        mut self,
        coordinator: String,
        ledger: &impl Ledger,
        roots: &std::sync::Arc<TrustRoots>,
        inbound: &mpsc::Sender<Inbound>,
        outbound: &mut mpsc::Receiver<Outbound>,
        logs_changed: &Notify,
    ) -> SessionEnd {
        let patience = self.heartbeat * SILENT_INTERVALS;
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut for_manager = Some(Inbound::Connected);
        let mut for_coordinator: Option<AgentMessage> = None;
        // What is still on its way from an earlier session has gaps where some of it was discarded.
        let mut events = Events::OfBefore;
        loop {
            tokio::select! {
                permit = inbound.reserve(), if for_manager.is_some() => match permit {
                    Ok(permit) => {
                        if let Some(message) = for_manager.take() {
                            permit.send(message);
                        }
                        heard = Instant::now();
                    }
                    Err(_) => return SessionEnd::ManagerEnded,
                },
                permit = self.outgoing.reserve(), if for_coordinator.is_some() => match permit {
                    Ok(permit) => {
                        if let Some(message) = for_coordinator.take() {
                            crash::point("event-send-before");
                            permit.send(message);
                            crash::point("event-send-after");
                        }
                    }
                    Err(_) => return SessionEnd::Closed,
                },
                message = self.incoming.message(), if for_manager.is_none() => {
                    heard = Instant::now();
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return SessionEnd::Closed,
                        Err(status) => return broken(&status),
                    };
                    match receive(message, &coordinator) {
                        Ok(Received::Nothing) => {}
                        Ok(Received::ForManager(message)) => for_manager = Some(message),
                        Ok(Received::Asked { echo }) => {
                            let alive = convert::heartbeat(SystemClock.now(), echo);
                            if let Err(end) = say(&self.outgoing, alive, patience).await {
                                return end;
                            }
                        }
                        Ok(Received::Resend { deployment, lost }) => {
                            match ledger.rewind(&deployment, lost).await {
                                // Everything that is on its way starts over from the journal with the next session.
                                Rewound::Some => return SessionEnd::Rewound,
                                Rewound::Nothing => {}
                            }
                        }
                        Ok(Received::TrustRoots(offered)) => {
                            let taken = take(roots.clone(), offered).await;
                            if let Err(end) = say(&self.outgoing, taken, patience).await {
                                return end;
                            }
                        }
                        Err(why) => return SessionEnd::Malformed(why),
                    }
                }
                said = outbound.recv(), if for_coordinator.is_none() => match said {
                    Some(Outbound::Again) => events = Events::OfThisSession,
                    Some(Outbound::Event { .. }) if events == Events::OfBefore => {}
                    Some(said) => {
                        if begins_or_ends_a_log(&said) {
                            logs_changed.notify_one();
                        }
                        for_coordinator = convert::outbound(said, ledger.journal().position);
                    }
                    None => return SessionEnd::ManagerEnded,
                },
                _ = beat.tick() => {
                    if for_manager.is_none() && heard.elapsed() > patience {
                        return SessionEnd::Silent(patience);
                    }
                    // A full queue is a line that is busy or dead; silence will tell which.
                    drop(self.outgoing.try_send(convert::heartbeat(SystemClock.now(), 0)));
                }
            }
        }
    }
}

/// Sends an answer. A line that takes nothing for so long is given up, also where something still comes from it.
async fn say(
    outgoing: &mpsc::Sender<AgentMessage>,
    message: AgentMessage,
    patience: Duration,
) -> Result<(), SessionEnd> {
    match timeout(patience, outgoing.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SessionEnd::Closed),
        Err(_) => Err(SessionEnd::Stuck(patience)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Events {
    OfBefore,
    OfThisSession,
}

enum Received {
    Nothing,
    /// For a sign of life, with this number.
    Asked {
        echo: u64,
    },
    Resend {
        deployment: Id,
        lost: Lost,
    },
    ForManager(Inbound),
    TrustRoots(Offered),
}

fn receive(message: CoordinatorMessage, coordinator: &str) -> Result<Received, &'static str> {
    match message.kind {
        Some(Kind::Order(order)) => {
            crash::point("order-received");
            let papers = papers(order)?;
            Ok(Received::ForManager(Inbound::Order { papers, connected: coordinator.into() }))
        }
        Some(Kind::EventAck(ack)) => {
            crash::point("event-ack-received");
            let deployment: Id =
                ack.deployment.parse().map_err(|_| "an acknowledgement for no deployment")?;
            Ok(Received::ForManager(Inbound::EventAck { deployment, sequence: ack.sequence }))
        }
        Some(Kind::Resend(Resend { deployment, lost })) => {
            let deployment = deployment.parse().map_err(|_| "a loss of no deployment")?;
            match lost {
                Some(resend::Lost::EventsAfter(sequence)) => {
                    Ok(Received::Resend { deployment, lost: Lost::EventsAfter(sequence) })
                }
                Some(resend::Lost::Logs(_)) => Ok(Received::Resend { deployment, lost: Lost::Logs }),
                None => Ok(Received::Nothing),
            }
        }
        Some(Kind::TrustRoots(offered)) => Ok(Received::TrustRoots(offered)),
        Some(Kind::Query(Query { id, order })) => {
            let papers = papers(order.ok_or("a query about no order")?)?;
            if id.is_empty() || id.len() > QUERY_ID_BYTES {
                return Err("a query whose id is more than is allowed");
            }
            let connected = coordinator.into();
            Ok(Received::ForManager(Inbound::Query { query: id, papers, connected }))
        }
        Some(Kind::Heartbeat(Heartbeat { echo, .. })) if echo != 0 => Ok(Received::Asked { echo }),
        Some(Kind::Heartbeat(_)) => Ok(Received::Nothing),
        Some(Kind::Welcome(_)) => Err("a second welcome"),
        // A kind that a newer coordinator knows.
        None => Ok(Received::Nothing),
    }
}

/// What came with an order, within the limits; nothing of it is read here.
fn papers(order: Order) -> Result<Papers, &'static str> {
    let Order { document, statements, plan, sealed } = order;
    if statements.len() > STATEMENTS {
        return Err("an order with more statements than are allowed");
    }
    if plan.len() > PLAN_DOCUMENT_BYTES || sealed.len() > SEALED_BYTES {
        return Err("an order with a longer plan document, or more that is sealed, than is allowed");
    }
    // The wire has no other word for none.
    let given = |bytes: Vec<u8>| Some(bytes).filter(|bytes| !bytes.is_empty());
    Ok(Papers {
        document: document.into(),
        statements: statements.into_iter().map(Vec::from).collect(),
        plan: given(plan.into()),
        sealed: given(sealed.into()),
    })
}

/// Takes new trust roots, and says which version is in force now.
async fn take(roots: std::sync::Arc<TrustRoots>, offered: Offered) -> AgentMessage {
    let before = roots.current().version;
    let taking = roots.clone();
    let taken = tokio::task::spawn_blocking(move || taking.take(&offered.envelopes)).await;
    let version = roots.current().version;
    if version != before {
        tracing::info!(version, "new trust root");
    }
    let error = match taken {
        Ok(Ok(())) => String::new(),
        Ok(Err(error @ (RootsError::Offered(_) | RootsError::Refused { .. } | RootsError::Io { .. }))) => {
            tracing::warn!(%error, "trust root refused");
            error.to_string()
        }
        Err(error) => error.to_string(),
    };
    convert::trust_root_taken(version, error)
}

fn begins_or_ends_a_log(said: &Outbound) -> bool {
    match said {
        Outbound::Event { body, .. } => match body {
            Event::Started { .. } | Event::Spawned { .. } | Event::Finished { .. } | Event::Ended { .. } => {
                true
            }
            Event::Accepted { .. }
            | Event::Staging { .. }
            | Event::Staged { .. }
            | Event::Skipped { .. }
            | Event::Returning { .. }
            | Event::Cancelling { .. }
            | Event::Awaiting { .. }
            | Event::Answered { .. }
            | Event::Undecided { .. }
            | Event::Decided { .. }
            | Event::Confirming { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. } => false,
        },
        Outbound::Refused { .. } | Outbound::Answer { .. } | Outbound::Again => false,
    }
}

fn refused(status: Status) -> SessionEnd {
    SessionEnd::Refused(describe(&status))
}

fn broken(status: &Status) -> SessionEnd {
    SessionEnd::Broken(describe(status))
}

/// A status in words that are safe in a terminal and in the journal.
pub(super) fn describe(status: &Status) -> String {
    let message = terminal::escape_line(status.message());
    if message.is_empty() { status.code().to_string() } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_takes_nothing_is_given_up() {
        let alive = || convert::heartbeat(SystemClock.now(), 7);
        let (outgoing, line) = mpsc::channel(1);
        let patience = Duration::from_millis(20);
        assert!(say(&outgoing, alive(), patience).await.is_ok());
        assert!(matches!(say(&outgoing, alive(), patience).await, Err(SessionEnd::Stuck(_))));
        drop(line);
        assert!(matches!(say(&outgoing, alive(), patience).await, Err(SessionEnd::Closed)));
    }
}
