//! What the agent dials: the Agents service, which says whatever it is told to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, mpsc as waiting},
};

use consign_common::{
    digest::Sha256,
    tls::{self, ClientAuth, Identity},
};
use consign_proto::v1::{
    AgentMessage, Chunk, CoordinatorMessage, EventAck, FetchRequest, Hello, LogAck, LogChunk, RenewRequest,
    RenewResponse, Welcome,
    agent_message::Kind as Said,
    agents_server::{Agents, AgentsServer},
    coordinator_message::Kind,
    fetch_request::What,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::authority::{Authority, now};

#[derive(Clone, Debug)]
pub(super) enum Heard {
    /// A session begins.
    Session(Box<Hello>),
    Said(Box<Said>),
}

/// What is served to whoever asks.
#[derive(Debug)]
pub(super) struct Line {
    /// As it calls itself in the welcome.
    id: String,
    heard: waiting::Sender<Heard>,
    says: Mutex<Option<mpsc::Sender<Result<CoordinatorMessage, Status>>>>,
    pub(super) manifests: Mutex<BTreeMap<Sha256, Vec<u8>>>,
    pub(super) packs: Mutex<BTreeMap<Sha256, Vec<u8>>>,
    pub(super) output: Mutex<Vec<u8>>,
}

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone, Debug)]
struct Service(Arc<Line>);

impl Line {
    pub(super) fn new(id: &str) -> (Arc<Self>, waiting::Receiver<Heard>) {
        let (heard, hears) = waiting::channel();
        let line = Self {
            id: id.into(),
            heard,
            says: Mutex::default(),
            manifests: Mutex::default(),
            packs: Mutex::default(),
            output: Mutex::default(),
        };
        (Arc::new(line), hears)
    }

    /// To the newest session. What it says to one that has ended is lost, as on a real line.
    pub(super) fn say(&self, kind: Kind) {
        let says = self.says.lock().unwrap().clone().unwrap();
        drop(says.blocking_send(Ok(CoordinatorMessage { kind: Some(kind) })));
    }

    pub(super) fn hang_up(&self) {
        drop(self.says.lock().unwrap().take());
    }
}

#[tonic::async_trait]
impl Agents for Service {
    type SessionStream = Reply<CoordinatorMessage>;
    type LogsStream = Reply<LogAck>;
    type FetchStream = Reply<Chunk>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (says, queue) = mpsc::channel(64);
        let welcome = Welcome {
            coordinator: self.0.id.clone(),
            now_ms: now().0,
            heartbeat_seconds: 10,
            protocol: 1,
            audit: None,
        };
        let message = |kind| Ok(CoordinatorMessage { kind: Some(kind) });
        drop(says.send(message(Kind::Welcome(welcome))).await);
        let line = self.0.clone();
        // Once the session has begun, only the line holds it: to hang up is to let go of it.
        let (held, mut says) = (says.downgrade(), Some(says));
        tokio::spawn(async move {
            while let Ok(Some(AgentMessage { kind: Some(kind) })) = incoming.message().await {
                let heard = match kind {
                    Said::Hello(hello) => {
                        *line.says.lock().unwrap() = says.take();
                        Heard::Session(Box::new(hello))
                    }
                    Said::Event(event) => {
                        let ack = EventAck { deployment: event.deployment.clone(), sequence: event.sequence };
                        if let Some(says) = held.upgrade() {
                            drop(says.send(message(Kind::EventAck(ack))).await);
                        }
                        Heard::Said(Box::new(Said::Event(event)))
                    }
                    other => Heard::Said(Box::new(other)),
                };
                if line.heard.send(heard).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn logs(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let mut chunks = request.into_inner();
        let (acks, queue) = mpsc::channel(64);
        let line = self.0.clone();
        tokio::spawn(async move {
            while let Ok(Some(LogChunk { deployment, attempt, offset, records })) = chunks.message().await {
                let offset = offset + records.len() as u64;
                line.output.lock().unwrap().extend_from_slice(&records);
                if acks.send(Ok(LogAck { deployment, attempt, offset })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let FetchRequest { what, offset } = request.into_inner();
        let found = match what.ok_or_else(|| Status::invalid_argument("nothing"))? {
            What::Manifest(digest) => of(&self.0.manifests, &digest),
            What::Pack(pair) => of(&self.0.packs, &pair.to),
        };
        let bytes = found.ok_or_else(|| Status::not_found("there is none"))?;
        let total = bytes.len() as u64;
        let start = usize::try_from(offset).unwrap();
        let data = bytes.get(start..).unwrap_or_default().to_vec().into();
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(Chunk { offset, data, total })))))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unavailable("not today"))
    }
}

fn of(shelf: &Mutex<BTreeMap<Sha256, Vec<u8>>>, digest: &str) -> Option<Vec<u8>> {
    shelf.lock().unwrap().get(&digest.parse().ok()?).cloned()
}

/// Listens as this identity, until the runtime ends.
pub(super) async fn listen(authority: &Authority, identity: &Identity, line: Arc<Line>) -> SocketAddr {
    let ca = authority.ca.certificate_der();
    let acceptor = TlsAcceptor::from(tls::server_config(identity, ca, ClientAuth::Required).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, queue) = mpsc::channel::<Result<_, std::io::Error>>(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                // tonic serves what it knows: a pipe, with TLS at its other end.
                let (mut inner, served) = tokio::io::duplex(64 << 10);
                if accepted.send(Ok(served)).await.is_ok() {
                    drop(tokio::io::copy_bidirectional(&mut tls, &mut inner).await);
                }
            });
        }
    });
    let service = AgentsServer::new(Service(line)).max_encoding_message_size(usize::MAX);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(queue)));
    address
}
