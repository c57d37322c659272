//! The way to the coordinator: address, proxy, TLS with the pinned CA, one HTTP/2 connection.
//!
//! A connection is made once and never again by tonic itself: who is at the other end is checked when it is made.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use consign_common::{
    digest::Sha256,
    tls::{self, COORDINATOR_NAME, Identity, Subject},
    trust::{CoordinatorPin, TrustRoot},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::proxy::{Proxies, ProxyError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to, and whom to expect there.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// `host:port`, tried in this order.
    pub addresses: Vec<String>,
    pub ca: Sha256,
    pub proxies: Proxies,
}

#[derive(Debug)]
pub struct Connection {
    pub channel: Channel,
    /// The address that answered.
    pub address: String,
    /// The id in the coordinator's certificate.
    pub coordinator: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{address} is not reachable: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("{address} did not answer within {} s", .after.as_secs())]
    TimedOut { address: String, after: Duration },
    #[error("no way to {address} through the proxy {proxy}: {source}")]
    Proxy { address: String, proxy: String, source: ProxyError },
    #[error(
        "{address} is not the coordinator that was pinned, or something on the way answers in its place: {source}"
    )]
    Tls { address: String, source: io::Error },
    #[error("{address} showed a certificate that is not a coordinator's: {why}")]
    NotACoordinator { address: String, why: String },
    #[error("{address} answers as the coordinator {coordinator}, which trust root {version} does not name")]
    NotNamed { address: String, coordinator: String, version: u64 },
    #[error("{address} does not speak HTTP/2: {why}")]
    Http { address: String, why: String },
}

impl Dialer {
    /// The first address that answers as the pinned coordinator; else the last one's error.
    pub async fn dial(&self, identity: Option<&Identity>) -> Result<Connection, DialError> {
        let mut last = DialError::Unreachable {
            address: "the coordinator".into(),
            source: io::Error::new(io::ErrorKind::AddrNotAvailable, "no address is configured"),
        };
        for address in &self.addresses {
            match self.dial_one(address, identity).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether the trust root takes orders from who answered, under the CA that was checked.
    pub fn check_named(&self, connection: &Connection, root: &TrustRoot) -> Result<(), DialError> {
        let named = |pin: &CoordinatorPin| pin.id == connection.coordinator && pin.ca_sha256 == self.ca;
        if root.coordinators.iter().any(named) {
            return Ok(());
        }
        Err(DialError::NotNamed {
            address: connection.address.clone(),
            coordinator: connection.coordinator.clone(),
            version: root.version,
        })
    }

    async fn dial_one(&self, address: &str, identity: Option<&Identity>) -> Result<Connection, DialError> {
        let stream = self.reach(address).await?;
        let tls = self.handshake(stream, address, identity).await?;
        let coordinator = coordinator_of(&tls)
            .map_err(|why| DialError::NotACoordinator { address: address.into(), why })?;
        let channel = channel_over(tls)
            .await
            .map_err(|error| DialError::Http { address: address.into(), why: root_cause(&error) })?;
        Ok(Connection { channel, address: address.into(), coordinator })
    }

    /// TCP to the address itself, or through the proxy's tunnel.
    async fn reach(&self, address: &str) -> Result<TcpStream, DialError> {
        let proxy = self.proxies.towards(address);
        let first_hop = proxy.map_or(address, |proxy| proxy.address.as_str());
        let unreachable = |source| DialError::Unreachable { address: first_hop.into(), source };
        let timed_out = || DialError::TimedOut { address: first_hop.into(), after: CONNECT_TIMEOUT };
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(first_hop)).await;
        let mut stream = connected.map_err(|_| timed_out())?.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        if let Some(proxy) = proxy {
            let tunnel = timeout(CONNECT_TIMEOUT, proxy.tunnel(&mut stream, address)).await;
            tunnel.map_err(|_| timed_out())?.map_err(|source| DialError::Proxy {
                address: address.into(),
                proxy: proxy.address.clone(),
                source,
            })?;
        }
        Ok(stream)
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: &str,
        identity: Option<&Identity>,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let failed = |source| DialError::Tls { address: address.into(), source };
        let config =
            tls::client_config(identity, self.ca).map_err(|error| failed(io::Error::other(error)))?;
        let name = ServerName::try_from(COORDINATOR_NAME).map_err(|error| failed(io::Error::other(error)))?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(tls) => tls.map_err(failed),
            Err(_) => Err(DialError::TimedOut { address: address.into(), after: HANDSHAKE_TIMEOUT }),
        }
    }
}

fn coordinator_of(tls: &TlsStream<TcpStream>) -> Result<String, String> {
    let (_, connection) = tls.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first).ok_or("it showed none")?;
    let peer = tls::peer_identity(certificate).map_err(|error| error.to_string())?;
    match peer.subject {
        Subject::Coordinator { id } => Ok(id),
        Subject::Agent { .. } | Subject::Operator { .. } => {
            Err("it belongs to an agent or an operator".into())
        }
    }
}

async fn channel_over(tls: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(tls))));
    let once = service_fn(move |_| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection has ended"))
        }
    });
    // TLS is done here and not by tonic, so to tonic this is plain HTTP/2.
    Endpoint::from_static("http://coordinator.consign").tcp_nodelay(true).connect_with_connector(once).await
}

/// The innermost error: tonic's own say "transport error" and no more.
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
