//! Who is connected right now, and the way to them. A fact of the moment: nothing here is kept, and whatever is lost
//! here is in the outbox.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use consign_common::{
    digest::Sha256,
    name::{Id, ServerName},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::questions::{Papers, Prospect, Question};

/// Orders and acknowledgements that wait for one agent's connection; an agent that does not read is disconnected.
const QUEUE: usize = 64;

/// From the coordinator to one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    Order(Papers),
    /// What would this order come to?
    Query {
        id: Id,
        papers: Papers,
    },
    EventAck {
        deployment: Id,
        sequence: u64,
    },
    /// Envelopes in ascending versions.
    TrustRoots(Vec<Vec<u8>>),
    Heartbeat,
    /// A heartbeat that is to be answered with this number.
    Ask(u64),
    /// What the agent knows to be here, and is not.
    Resend {
        deployment: Id,
        lost: Lost,
    },
}

/// What a coordinator that was restored from a backup no longer has of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    EventsAfter(u64),
    /// What its attempts wrote.
    Logs,
}

/// Who wants the server's place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Of the agent's process; the same one again has only lost its connection.
    pub process: String,
    pub boot_id: String,
    /// The agent's clock minus ours.
    pub clock_offset_ms: i64,
}

#[derive(Debug)]
pub enum Entered {
    Session(Session),
    /// Another process has the place. It has been asked whether it lives, and gets no orders until that is known.
    Occupied(Occupant),
}

/// Another process's session, as seen by one that wants its place.
#[derive(Debug)]
pub struct Occupant {
    pub boot_id: String,
    number: u64,
    echo: u64,
    answered: watch::Receiver<u64>,
}

/// Whether an agent that was asked has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Alive,
    /// It said nothing in time, or its line is gone.
    Silent,
}

#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_server: HashMap<ServerName, Entry>,
    /// Who has come since this process began.
    came: HashSet<ServerName>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    claim: Claim,
    queue: mpsc::Sender<ToAgent>,
    /// The number that it is to answer with, once somebody wants its place.
    asked: Option<u64>,
    answered: watch::Sender<u64>,
    /// Queries without an answer, with the artifact that each is about. Whoever waits is told when the session ends.
    questions: HashMap<Id, (Sha256, oneshot::Sender<Prospect>)>,
    /// Dropped, it ends the session.
    _open: oneshot::Sender<()>,
}

/// One agent's session, held by its stream.
#[derive(Debug)]
pub struct Session {
    pub server: ServerName,
    number: u64,
    pub queue: mpsc::Receiver<ToAgent>,
    /// Resolves when the session is to end: another one has taken its place, or the server was removed.
    pub closed: oneshot::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Queued,
    NotConnected,
}

impl Sessions {
    /// Begins a session. An older one of the same server ends: it is a connection that we have not yet seen die, and
    /// two streams would race for the same orders.
    pub fn open(&self, server: &ServerName, clock_offset_ms: i64) -> Session {
        self.table().open(server, Claim { clock_offset_ms, ..Claim::default() })
    }

    /// Begins a session, unless another process has one: then that is asked for a sign of life. `silent` is one that gave
    /// none and may be replaced.
    pub fn enter(&self, server: &ServerName, claim: &Claim, silent: Option<&Occupant>) -> Entered {
        let mut table = self.table();
        table.next += 1;
        let echo = table.next;
        let other = table.by_server.get_mut(server).filter(|entry| {
            entry.claim.process != claim.process && silent.is_none_or(|silent| silent.number != entry.number)
        });
        if let Some(entry) = other {
            let echo = *entry.asked.get_or_insert(echo);
            // One whose queue is full does not read: it is silent.
            if entry.queue.try_send(ToAgent::Ask(echo)).is_ok() {
                return Entered::Occupied(Occupant {
                    boot_id: entry.claim.boot_id.clone(),
                    number: entry.number,
                    echo,
                    answered: entry.answered.subscribe(),
                });
            }
        }
        Entered::Session(table.open(server, claim.clone()))
    }

    /// The stream ended. Nothing happens if another one has taken its place.
    pub fn ended(&self, session: &Session) {
        let mut table = self.table();
        if table.by_server.get(&session.server).is_some_and(|entry| entry.number == session.number) {
            table.by_server.remove(&session.server);
        }
    }

    /// Ends the server's session from our side.
    pub fn disconnect(&self, server: &ServerName) {
        self.table().by_server.remove(server);
    }

    /// A heartbeat came; `echo` is 0 unless it was asked for.
    pub fn heard(&self, session: &Session, clock_offset_ms: i64, echo: u64) {
        if let Some(entry) = self.table().by_server.get_mut(&session.server)
            && entry.number == session.number
        {
            entry.claim.clock_offset_ms = clock_offset_ms;
            if entry.asked == Some(echo) {
                entry.answered.send_replace(echo);
            }
        }
    }

    pub fn is_online(&self, server: &ServerName) -> bool {
        self.table().by_server.contains_key(server)
    }

    /// Whether it has been connected since this process began.
    pub fn has_been_online(&self, server: &ServerName) -> bool {
        self.table().came.contains(server)
    }

    pub fn online(&self) -> usize {
        self.table().by_server.len()
    }

    /// The agent's clock minus ours, as it said last; `None` when it is not connected.
    pub fn clock_offset_ms(&self, server: &ServerName) -> Option<i64> {
        self.table().by_server.get(server).map(|entry| entry.claim.clock_offset_ms)
    }

    /// Hands a message to the server's stream. An agent whose queue is full does not read: its session ends, and the
    /// next one begins with what is still open.
    pub fn send(&self, server: &ServerName, message: ToAgent) -> Sent {
        let mut table = self.table();
        let Some(entry) = table.by_server.get(server) else {
            return Sent::NotConnected;
        };
        // Whichever agent is left gets it when its session begins.
        if entry.asked.is_some() && matches!(message, ToAgent::Order(_)) {
            return Sent::NotConnected;
        }
        if entry.queue.try_send(message).is_ok() {
            return Sent::Queued;
        }
        table.by_server.remove(server);
        Sent::NotConnected
    }

    /// Asks the server; `None` if it is not connected. The answer fails to come when the session ends.
    pub fn ask(
        &self,
        server: &ServerName,
        id: Id,
        question: Question,
    ) -> Option<oneshot::Receiver<Prospect>> {
        let Question { papers, manifest } = question;
        let (sender, answer) = oneshot::channel();
        {
            let mut table = self.table();
            let entry = table.by_server.get_mut(server)?;
            entry.questions.retain(|_, (_, sender)| !sender.is_closed());
            entry.questions.insert(id.clone(), (manifest, sender));
        }
        match self.send(server, ToAgent::Query { id, papers }) {
            Sent::Queued => Some(answer),
            Sent::NotConnected => None,
        }
    }

    /// The server answered a query. What nobody asked, or nobody waits for any more, is passed over.
    pub fn answered(&self, session: &Session, query: &Id, prospect: Prospect) {
        let asked = match self.table().by_server.get_mut(&session.server) {
            Some(entry) if entry.number == session.number => entry.questions.remove(query),
            Some(_) | None => None,
        };
        if let Some((_, sender)) = asked {
            // An error: nobody waits any more.
            drop(sender.send(prospect));
        }
    }

    /// Whether somebody waits for the server's answer about this artifact.
    pub fn is_asked_about(&self, server: &ServerName, manifest: Sha256) -> bool {
        self.table().by_server.get_mut(server).is_some_and(|entry| {
            entry.questions.retain(|_, (_, sender)| !sender.is_closed());
            entry.questions.values().any(|(about, _)| *about == manifest)
        })
    }

    /// To everybody who is connected.
    pub fn broadcast(&self, message: &ToAgent) {
        let servers: Vec<ServerName> = self.table().by_server.keys().cloned().collect();
        for server in servers {
            self.send(&server, message.clone());
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and a table is whole between any two statements.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn open(&mut self, server: &ServerName, claim: Claim) -> Session {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (keep, closed) = oneshot::channel();
        self.next += 1;
        let number = self.next;
        let (answered, _) = watch::channel(0);
        let entry = Entry {
            number,
            claim,
            queue: sender,
            asked: None,
            answered,
            questions: HashMap::new(),
            _open: keep,
        };
        self.came.insert(server.clone());
        drop(self.by_server.insert(server.clone(), entry));
        Session { server: server.clone(), number, queue, closed }
    }
}

impl Occupant {
    pub async fn sign_of_life(&mut self, within: Duration) -> Sign {
        let echo = self.echo;
        let answered = self.answered.wait_for(|answered| *answered == echo);
        match timeout(within, answered).await {
            Ok(Ok(_)) => Sign::Alive,
            Ok(Err(_)) | Err(_) => Sign::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServerName {
        "web-1".parse().unwrap()
    }

    #[test]
    fn a_second_session_ends_the_first_and_its_end_does_not_end_the_second() {
        let sessions = Sessions::default();
        let mut first = sessions.open(&web(), 0);
        let mut second = sessions.open(&web(), 7);
        assert!(first.closed.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        sessions.ended(&first);
        assert_eq!(sessions.send(&web(), ToAgent::Heartbeat), Sent::Queued);
        assert!(first.queue.try_recv().is_err());
        assert_eq!(second.queue.try_recv(), Ok(ToAgent::Heartbeat));
        assert_eq!(sessions.clock_offset_ms(&web()), Some(7));
        sessions.ended(&second);
        assert!(!sessions.is_online(&web()));
    }

    fn claim(process: &str) -> Claim {
        Claim { process: process.into(), boot_id: format!("boot of {process}"), clock_offset_ms: 0 }
    }

    fn entered(entered: Entered) -> Session {
        match entered {
            Entered::Session(session) => session,
            Entered::Occupied(occupant) => panic!("{occupant:?}"),
        }
    }

    fn occupied(entered: Entered) -> Occupant {
        match entered {
            Entered::Occupied(occupant) => occupant,
            Entered::Session(session) => panic!("{session:?}"),
        }
    }

    #[tokio::test]
    async fn a_second_process_waits_for_the_first_to_answer() {
        let sessions = Sessions::default();
        let mut first = entered(sessions.enter(&web(), &claim("a"), None));
        let mut other = occupied(sessions.enter(&web(), &claim("b"), None));
        assert_eq!(other.boot_id, "boot of a");
        let order = ToAgent::Order(Papers::default());
        assert_eq!(
            sessions.send(&web(), order),
            Sent::NotConnected,
            "no order while it is not known who it is"
        );
        let Ok(ToAgent::Ask(echo)) = first.queue.try_recv() else { panic!("it was not asked") };
        sessions.heard(&first, 0, 0);
        assert_eq!(
            other.sign_of_life(Duration::from_millis(1)).await,
            Sign::Silent,
            "not what was asked for"
        );
        sessions.heard(&first, 0, echo);
        assert_eq!(other.sign_of_life(Duration::from_secs(9)).await, Sign::Alive);
    }

    #[tokio::test]
    async fn a_silent_one_is_replaced_and_the_same_process_is_not_asked() {
        let sessions = Sessions::default();
        let first = entered(sessions.enter(&web(), &claim("a"), None));
        let mut again = entered(sessions.enter(&web(), &claim("a"), None));
        assert!(again.queue.try_recv().is_err());
        let mut other = occupied(sessions.enter(&web(), &claim("b"), None));
        sessions.ended(&first);
        assert_eq!(other.sign_of_life(Duration::from_millis(1)).await, Sign::Silent);
        let second = entered(sessions.enter(&web(), &claim("b"), Some(&other)));
        assert!(again.closed.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        // The line of one that was asked may end first.
        let mut third = occupied(sessions.enter(&web(), &claim("c"), None));
        sessions.ended(&second);
        assert_eq!(third.sign_of_life(Duration::from_secs(9)).await, Sign::Silent);
        entered(sessions.enter(&web(), &claim("c"), Some(&third)));
    }

    #[test]
    fn who_asks_gets_the_answer_or_hears_that_the_session_ended() {
        let sessions = Sessions::default();
        let (id, manifest) = (Id::from_bytes([1; 16]), Sha256::of(b"m"));
        let question = || Question { papers: Papers::default(), manifest };
        let no_op = || Prospect::NoOp { held: None };
        assert!(sessions.ask(&web(), id.clone(), question()).is_none(), "not connected");
        let session = sessions.open(&web(), 0);
        let mut first = sessions.ask(&web(), id.clone(), question()).unwrap();
        assert!(sessions.is_asked_about(&web(), manifest));
        sessions.answered(&session, &Id::from_bytes([2; 16]), no_op());
        assert!(first.try_recv().is_err(), "of another query");
        sessions.answered(&session, &id, no_op());
        assert_eq!(first.try_recv(), Ok(no_op()));
        assert!(!sessions.is_asked_about(&web(), manifest));

        let mut second = sessions.ask(&web(), id, question()).unwrap();
        sessions.ended(&session);
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn an_agent_that_does_not_read_is_disconnected() {
        let sessions = Sessions::default();
        let session = sessions.open(&web(), 0);
        for _ in 0..QUEUE {
            assert_eq!(sessions.send(&web(), ToAgent::Heartbeat), Sent::Queued);
        }
        assert_eq!(sessions.send(&web(), ToAgent::Heartbeat), Sent::NotConnected);
        assert!(!sessions.is_online(&web()));
        drop(session);
    }
}
