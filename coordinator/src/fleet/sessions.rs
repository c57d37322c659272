//! Who is connected right now, and the way to them. A fact of the moment: nothing here is kept, and whatever is lost
//! here is in the outbox.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use consign_common::name::{Id, ServerName};
use tokio::sync::{mpsc, oneshot};

/// Orders and acknowledgements that wait for one agent's connection; an agent that does not read is disconnected.
const QUEUE: usize = 64;

/// From the coordinator to one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    Order {
        document: Vec<u8>,
        statements: Vec<Vec<u8>>,
    },
    EventAck {
        deployment: Id,
        sequence: u64,
    },
    /// Envelopes in ascending versions.
    TrustRoots(Vec<Vec<u8>>),
    Heartbeat,
}

#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_server: HashMap<ServerName, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    clock_offset_ms: i64,
    queue: mpsc::Sender<ToAgent>,
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
        let (sender, queue) = mpsc::channel(QUEUE);
        let (keep, closed) = oneshot::channel();
        let mut table = self.table();
        table.next += 1;
        let number = table.next;
        let entry = Entry { number, clock_offset_ms, queue: sender, _open: keep };
        drop(table.by_server.insert(server.clone(), entry));
        Session { server: server.clone(), number, queue, closed }
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

    pub fn heard(&self, session: &Session, clock_offset_ms: i64) {
        if let Some(entry) = self.table().by_server.get_mut(&session.server)
            && entry.number == session.number
        {
            entry.clock_offset_ms = clock_offset_ms;
        }
    }

    pub fn is_online(&self, server: &ServerName) -> bool {
        self.table().by_server.contains_key(server)
    }

    pub fn online(&self) -> usize {
        self.table().by_server.len()
    }

    /// The agent's clock minus ours, as it said last; `None` when it is not connected.
    pub fn clock_offset_ms(&self, server: &ServerName) -> Option<i64> {
        self.table().by_server.get(server).map(|entry| entry.clock_offset_ms)
    }

    /// Hands a message to the server's stream. An agent whose queue is full does not read: its session ends, and the
    /// next one begins with what is still open.
    pub fn send(&self, server: &ServerName, message: ToAgent) -> Sent {
        let mut table = self.table();
        let Some(entry) = table.by_server.get(server) else {
            return Sent::NotConnected;
        };
        if entry.queue.try_send(message).is_ok() {
            return Sent::Queued;
        }
        table.by_server.remove(server);
        Sent::NotConnected
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
