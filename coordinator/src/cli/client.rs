//! The way to the coordinator: mutual TLS with the profile's identity and pin, or the unix socket of its own machine.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use consign_common::{error::chain, limits::MESSAGE_BYTES, terminal::escape, tls, wire::REFUSAL_METADATA};
use consign_proto::v1::{enrolment_client::EnrolmentClient, operators_client::OperatorsClient};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Uri},
};

use super::{
    failure::{Doing, Exit, Failure, Result},
    profile::{Home, check_address},
};

const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the coordinator is, as the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) address: Option<String>,
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
    /// For messages: `deploy.example:7443`.
    place: String,
}

impl Client {
    /// Nothing is sent before the first request.
    pub(crate) fn new(home: &Home, target: &Target) -> Result<Self> {
        if let Some(socket) = &target.socket {
            return Ok(Self::over_socket(socket.clone()));
        }
        let profile = home.profile()?;
        let address = target.address.clone().unwrap_or(profile.address);
        check_address(&address)?;
        let path = home.operator_path();
        let identity = tls::Identity::read(&path).at("read the identity", &path)?;
        let config = tls::client_config(Some(&identity), profile.ca_sha256).doing(|| "TLS".into())?;
        Ok(Self::over_tls(address, config))
    }

    fn over_tls(address: String, config: Arc<rustls::ClientConfig>) -> Self {
        let place = address.clone();
        let connector = TlsConnector::from(config);
        let connect = tower::service_fn(move |_: Uri| {
            let (address, connector) = (address.clone(), connector.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(tls::COORDINATOR_NAME).map_err(io::Error::other)?;
                io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Self { channel: endpoint().connect_with_connector_lazy(connect), place }
    }

    fn over_socket(path: PathBuf) -> Self {
        let place = path.display().to_string();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        Self { channel: endpoint().connect_with_connector_lazy(connect), place }
    }

    pub(crate) fn operators(&self) -> OperatorsClient<Channel> {
        OperatorsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES * 16)
            .max_encoding_message_size(MESSAGE_BYTES * 16)
    }

    /// What a status means to the person who asked.
    pub(crate) fn failure(&self, status: Status) -> Failure {
        let place = &self.place;
        let message = escape(status.message().as_bytes());
        if status.metadata().contains_key(REFUSAL_METADATA) {
            return Failure::refused(message);
        }
        // Made on this side: the connection, not the coordinator's answer.
        if let Some(source) = std::error::Error::source(&status) {
            return Failure::new(format!(
                "cannot talk to the coordinator at {place}: {}",
                escape(chain(source).as_bytes())
            ))
            .next("check that `consign serve` runs there, the address (profile.toml, --address), and that nobody removed your identity");
        }
        match status.code() {
            Code::Unauthenticated => Failure::new(format!(
                "the coordinator at {place} does not know you: {message}"
            ))
            .next(
                "an admin adds you with `consign operator add NAME`; then `consign operator join TOKEN` here",
            ),
            Code::PermissionDenied => Failure::new(format!("not allowed: {message}")).next(
                "`consign status` shows your role; an admin gives another one with `consign operator add NAME --role ROLE --replace`",
            ),
            Code::Unavailable => {
                Failure::new(format!("the coordinator at {place} is not available: {message}"))
                    .next("try again in a moment")
            }
            Code::DeadlineExceeded | Code::Cancelled => {
                Failure::new(format!("the coordinator at {place} did not answer in time: {message}"))
                    .next("try again; if it was a change, look first whether it was made")
            }
            Code::Unimplemented => {
                Failure::new(format!("the coordinator at {place} does not know this request"))
                    .next("it is of another version: `consign status` shows which")
            }
            Code::InvalidArgument => Failure { exit: Exit::Usage, ..Failure::new(message) },
            Code::Ok
            | Code::Unknown
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss => Failure::new(message),
        }
    }
}

/// The enrolment port, for somebody who has no certificate yet.
pub(crate) fn enrolment(
    address: String,
    config: Arc<rustls::ClientConfig>,
) -> (Client, EnrolmentClient<Channel>) {
    let client = Client::over_tls(address, config);
    let service = EnrolmentClient::new(client.channel.clone());
    (client, service)
}

fn endpoint() -> Endpoint {
    // The scheme says "no TLS of tonic's own"; ours is in the connector.
    Endpoint::from_static("http://coordinator.consign")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
}

/// A request that has one answer, and not much time for it.
pub(crate) fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REQUEST);
    request
}

/// Whether the same request may succeed later without anybody's doing.
pub(crate) fn is_transient(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}
