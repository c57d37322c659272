//! Accept loops. They never end by themselves, whatever comes: errors are waited out, handshakes have a deadline, and
//! both half-open and whole connections are bounded in number.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use consign_common::{time::Clock, tls};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    AllowList, Connection, Connections, Peer,
    half_open::{HalfOpen, PER_ADDRESS},
};

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; who comes while all are taken waits in the kernel's backlog.
const HALF_OPEN: usize = 512;
/// Before accepting again when the process has no file descriptor or memory left.
const EXHAUSTED: Duration = Duration::from_millis(100);
const QUEUE: usize = 64;

/// What tonic's `serve_with_incoming` takes.
pub type Incoming<IO> = ReceiverStream<Result<Connection<IO>, Infallible>>;

/// Whom a TCP listener lets in.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Any peer, as nobody: enrolment.
    Anonymous,
    /// A certificate of our CA whose key is on the allow-list.
    Allowed(Arc<AllowList>),
}

/// A TCP listener with TLS.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Renewed by `serve` before the certificate in it ends.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    pub admission: Admission,
    pub connections: Arc<Connections>,
    pub clock: Arc<dyn Clock>,
    /// Connections at once.
    pub places: usize,
}

#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error("the TLS handshake took longer than {HANDSHAKE:?}")]
    Slow,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("its certificate is not one that we issue: {0}")]
    Certificate(String),
    #[error("its key is not on the allow-list: removed, replaced or never enrolled")]
    NotAllowed,
    #[error("this address has {PER_ADDRESS} handshakes under way already")]
    Crowded,
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl Tcp {
    /// Accepts until the stream is dropped.
    pub fn listen(self, listener: TcpListener) -> Incoming<TlsStream<TcpStream>> {
        let (to, incoming) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(self.places));
            let half_open = Arc::new(Semaphore::new(HALF_OPEN));
            let by_address = Arc::new(HalfOpen::default());
            loop {
                let Some((place, handshake)) = permits(&places, &half_open).await else { return };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = to.closed() => return,
                };
                let (socket, address) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        wait_out(&error).await;
                        continue;
                    }
                };
                let Some(shared) = by_address.begin(address.ip()) else {
                    tracing::info!(%address, why = %Dropped::Crowded, "connection refused");
                    continue;
                };
                let (this, to) = (self.clone(), to.clone());
                tokio::spawn(async move {
                    let result = this.admit(socket, address, place).await;
                    drop((handshake, shared));
                    match result {
                        // Nobody takes it: the coordinator is shutting down.
                        Ok(connection) => drop(to.send(Ok(connection)).await),
                        Err(why) => tracing::info!(%address, %why, "connection refused"),
                    }
                });
            }
        });
        ReceiverStream::new(incoming)
    }

    async fn admit(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<Connection<TlsStream<TcpStream>>, Dropped> {
        socket.set_nodelay(true).map_err(Dropped::Tls)?;
        let config = Arc::clone(&self.tls.borrow());
        let stream = time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(socket))
            .await
            .map_err(|_elapsed| Dropped::Slow)?
            .map_err(Dropped::Tls)?;
        match &self.admission {
            Admission::Anonymous => Ok(self.connections.track(stream, Peer::Anonymous { address }, place)),
            Admission::Allowed(allow_list) => {
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let certificate = certificate.ok_or_else(|| Dropped::Certificate("there is none".into()))?;
                let peer = tls::peer_identity(certificate)
                    .map_err(|error| Dropped::Certificate(error.to_string()))?;
                let (spki, ends) = (peer.spki_sha256, peer.not_after);
                // Tracked before it is looked up: a removal in between ends it like any other.
                let peer = Peer::Certified { address, spki, certificate_ends: ends };
                let connection = self.connections.track(stream, peer, place);
                let now = self.clock.now();
                allow_list.caller(spki, ends, now).ok_or(Dropped::NotAllowed)?;
                allow_list.seen(spki, now).await?;
                Ok(connection)
            }
        }
    }
}

/// Accepts on the unix socket: root, and the user that the coordinator runs as.
pub fn listen_unix(
    listener: UnixListener,
    connections: Arc<Connections>,
    places: usize,
) -> Incoming<UnixStream> {
    let (to, incoming) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(places));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = to.closed() => return,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    wait_out(&error).await;
                    continue;
                }
            };
            let uid = match socket.peer_cred() {
                Ok(credentials) => credentials.uid(),
                Err(error) => {
                    tracing::warn!(%error, "unix socket: the kernel does not say who it is");
                    continue;
                }
            };
            if uid != 0 && uid != rustix::process::geteuid().as_raw() {
                tracing::warn!(uid, "unix socket: refused");
                continue;
            }
            drop(to.send(Ok(connections.track(socket, Peer::Local { uid }, place))).await);
        }
    });
    ReceiverStream::new(incoming)
}

/// `None` never happens while the semaphores live; they are never closed.
async fn permits(
    places: &Arc<Semaphore>,
    half_open: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let handshake = Arc::clone(half_open).acquire_owned().await.ok()?;
    Some((place, handshake))
}

/// A connection that broke before it was accepted is nothing; no descriptors left is a pause, never the end.
async fn wait_out(error: &io::Error) {
    let gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !gone {
        tracing::warn!(%error, "cannot accept a connection; trying again");
        time::sleep(EXHAUSTED).await;
    }
}
