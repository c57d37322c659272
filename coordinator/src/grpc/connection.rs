//! Open connections: each knows its peer, and each can be ended from outside.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use consign_common::{digest::Sha256, time::UnixMs};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, oneshot},
};
use tonic::transport::server::Connected;

/// The other end, as far as the connection itself proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// On the enrolment port.
    Anonymous { address: SocketAddr },
    /// It holds the private key of a certificate that our CA issued.
    Certified { address: SocketAddr, spki: Sha256, certificate_ends: UnixMs },
    /// On the unix socket, by the kernel's word.
    Local { uid: u32 },
}

/// All open connections.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: HashMap<u64, (Option<Sha256>, oneshot::Sender<()>)>,
}

/// A connection as tonic serves it.
#[derive(Debug)]
pub struct Connection<IO> {
    io: IO,
    peer: Peer,
    /// Resolves when somebody ends the connection.
    ended: oneshot::Receiver<()>,
    _entry: Entry,
    /// Its place among the connections that the listener may have.
    _place: OwnedSemaphorePermit,
}

/// Takes the connection out of [`Connections`] when it is dropped.
#[derive(Debug)]
struct Entry {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    pub fn track<IO>(self: &Arc<Self>, io: IO, peer: Peer, place: OwnedSemaphorePermit) -> Connection<IO> {
        let (end, ended) = oneshot::channel();
        let key = match &peer {
            Peer::Certified { spki, .. } => Some(*spki),
            Peer::Anonymous { .. } | Peer::Local { .. } => None,
        };
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, (key, end));
        let entry = Entry { connections: Arc::clone(self), number };
        Connection { io, peer, ended, _entry: entry, _place: place }
    }

    /// Ends every connection of this key, with all streams on it.
    pub fn close_key(&self, spki: Sha256) {
        self.open().by_number.retain(|_, (key, _)| *key != Some(spki));
    }

    pub fn close_all(&self) {
        self.open().by_number.clear();
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        drop(self.connections.open().by_number.remove(&self.number));
    }
}

impl<IO> Connection<IO> {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// An error once the connection has been ended; the task that reads is woken by that.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match Pin::new(&mut self.ended).poll(context) {
            Poll::Ready(_) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by the coordinator"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
