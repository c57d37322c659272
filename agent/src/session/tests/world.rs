//! A coordinator in this process and an agent's view of it.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use consign_common::{
    deployment::{Attempt, Event as Body},
    name::Id,
    time::{Clock as _, SystemClock, UnixMs},
    tls::{self, ClientAuth, Identity},
    trust::{Privilege, ServersWord},
};
use consign_proto::v1::{
    AgentMessage, Chunk, CoordinatorMessage, EnrollRequest, EnrollResponse, FetchRequest, LogAck, LogChunk,
    RenewRequest, RenewResponse, Welcome,
    agent_message::Kind as Said,
    agents_server::{Agents, AgentsServer},
    coordinator_message::Kind,
    enrolment_server::{Enrolment, EnrolmentServer},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream as Items, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    fixture::{Authority, COORDINATOR, DAYS_90},
    identity::{TrustRoots, roots},
    ports::{AppReport, Inbound, JournalMark, Ledger, Lost, Outbound, PendingLog, Rewound},
    session::{convert::Host, dial::Dialer, proxy::Proxies, run::Session},
    status::Board,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A coordinator that keeps what it hears and does what a test told it.
#[derive(Clone)]
pub(super) struct Coordinator {
    pub(super) authority: Arc<Authority>,
    /// Every session's messages, in order; `None` where a session began.
    pub(super) heard: mpsc::Sender<Option<AgentMessage>>,
    /// What the newest session sends.
    pub(super) says: Arc<Mutex<Option<Says>>>,
    pub(super) heartbeat_seconds: u32,
    /// What every session hears after the welcome.
    pub(super) greeting: Vec<Kind>,
    /// The pack: its first answer is cut off after this many bytes.
    pub(super) pack: Arc<Vec<u8>>,
    pub(super) cut: Arc<AtomicU32>,
    /// Transfers bring empty messages without end.
    pub(super) idle: bool,
    pub(super) fetched_from: Arc<Mutex<Vec<u64>>>,
    pub(super) logs: Arc<Mutex<LogSink>>,
    pub(super) refuse_enrolment: Option<&'static str>,
}

/// Keeps records as the coordinator must: only what goes on where it has ended.
#[derive(Debug, Default)]
pub(super) struct LogSink {
    pub(super) bytes: Vec<u8>,
    pub(super) offsets: Vec<u64>,
    /// The stream is broken once after this many chunks.
    pub(super) break_after: Option<usize>,
    pub(super) acks: Acks,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Acks {
    #[default]
    Each,
    Twice,
    Lost,
}

type Says = mpsc::Sender<Result<CoordinatorMessage, Status>>;
type Reply<T> = Pin<Box<dyn Items<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agents for Coordinator {
    type SessionStream = Reply<CoordinatorMessage>;
    type LogsStream = Reply<LogAck>;
    type FetchStream = Reply<Chunk>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (says, queue) = mpsc::channel(64);
        let welcome = Kind::Welcome(Welcome {
            coordinator: COORDINATOR.into(),
            now_ms: SystemClock.now().0,
            heartbeat_seconds: self.heartbeat_seconds,
            protocol: crate::session::convert::PROTOCOL,
        });
        for kind in [welcome].into_iter().chain(self.greeting.clone()) {
            says.send(Ok(CoordinatorMessage { kind: Some(kind) })).await.unwrap();
        }
        *self.says.lock().unwrap() = Some(says);
        let heard = self.heard.clone();
        heard.send(None).await.unwrap();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if heard.send(Some(message)).await.is_err() {
                    break;
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
        let sink = self.logs.clone();
        tokio::spawn(async move {
            let mut received = 0;
            while let Ok(Some(chunk)) = chunks.message().await {
                received += 1;
                let (ack, how) = {
                    let mut sink = sink.lock().unwrap();
                    sink.offsets.push(chunk.offset);
                    let have = sink.bytes.len() as u64;
                    assert!(chunk.offset <= have, "a gap: {} after {have}", chunk.offset);
                    let new = usize::try_from(have - chunk.offset).unwrap();
                    if let Some(new) = chunk.records.get(new..) {
                        sink.bytes.extend_from_slice(new);
                    }
                    if sink.break_after.is_some_and(|after| received >= after) {
                        sink.break_after = None;
                        return;
                    }
                    (sink.bytes.len() as u64, sink.acks)
                };
                let LogChunk { deployment, attempt, .. } = chunk;
                let ack = LogAck { deployment, attempt, offset: ack };
                let times = match how {
                    Acks::Each => 1,
                    Acks::Twice => 2,
                    Acks::Lost => 0,
                };
                for _ in 0..times {
                    if acks.send(Ok(ack.clone())).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let from = request.into_inner().offset;
        self.fetched_from.lock().unwrap().push(from);
        let start = usize::try_from(from).unwrap();
        let total = self.pack.len() as u64;
        if self.idle {
            let empty = move || Ok(Chunk { offset: from, data: Vec::new().into(), total });
            return Ok(Response::new(Box::pin(tokio_stream::iter(std::iter::repeat_with(empty)))));
        }
        let Some(rest) = self.pack.get(start..) else {
            return Err(Status::out_of_range("the pack is shorter"));
        };
        let mut offset = from;
        let mut chunks = Vec::new();
        for data in rest.chunks(1000) {
            chunks.push(Ok(Chunk { offset, data: data.to_vec().into(), total }));
            offset += data.len() as u64;
        }
        if self.cut.load(Ordering::SeqCst) > 0 {
            self.cut.fetch_sub(1, Ordering::SeqCst);
            chunks.truncate(3);
            chunks.push(Err(Status::unavailable("the line was cut")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let spki = tls::spki_from_csr(&request.into_inner().csr).unwrap();
        let subject = self.authority.agent().peer().unwrap().subject;
        let certificate = self.authority.ca.issue(&spki, &subject, SystemClock.now(), DAYS_90).unwrap();
        Ok(Response::new(RenewResponse { certificate: certificate.to_vec().into() }))
    }
}

#[tonic::async_trait]
impl Enrolment for Coordinator {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        if let Some(why) = self.refuse_enrolment {
            return Err(Status::permission_denied(why));
        }
        let request = request.into_inner();
        assert_eq!(request.token_secret.as_ref(), [7; 32]);
        let spki = tls::spki_from_csr(&request.csr).unwrap();
        let subject = self.authority.agent().peer().unwrap().subject;
        let certificate = self.authority.ca.issue(&spki, &subject, SystemClock.now(), DAYS_90).unwrap();
        Ok(Response::new(EnrollResponse {
            certificate: certificate.to_vec().into(),
            ca_certificate: self.authority.ca.certificate_der().to_vec().into(),
            identity: subject.uri(),
            trust_roots: vec![self.authority.root(1).into(), self.authority.root(2).into()],
        }))
    }
}

/// A coordinator that listens, and an agent's view of it.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) authority: Arc<Authority>,
    pub(super) coordinator: Coordinator,
    pub(super) heard: mpsc::Receiver<Option<AgentMessage>>,
    pub(super) address: SocketAddr,
}

impl World {
    pub(super) async fn new(change: impl FnOnce(&mut Coordinator)) -> Self {
        let authority = Arc::new(Authority::new());
        let (heard, hears) = mpsc::channel(1024);
        let mut coordinator = Coordinator {
            authority: authority.clone(),
            heard,
            says: Arc::default(),
            heartbeat_seconds: 60,
            greeting: Vec::new(),
            pack: Arc::new((0..20_000_u32).flat_map(u32::to_le_bytes).collect()),
            cut: Arc::default(),
            idle: false,
            fetched_from: Arc::default(),
            logs: Arc::default(),
            refuse_enrolment: None,
        };
        change(&mut coordinator);
        let address = listen(&authority, coordinator.clone(), ClientAuth::Required).await;
        Self { dir: tempfile::tempdir().unwrap(), authority, coordinator, heard: hears, address }
    }

    pub(super) fn dialer(&self) -> Dialer {
        Dialer {
            addresses: vec![self.address.to_string()],
            ca: self.authority.ca.pin(),
            proxies: Proxies::default(),
        }
    }

    pub(super) fn roots(&self) -> Arc<TrustRoots> {
        std::fs::write(roots::file(self.dir.path(), 1), self.authority.root(1)).unwrap();
        Arc::new(TrustRoots::open(self.dir.path(), &self.authority.pin()).unwrap())
    }

    pub(super) fn start(&self, ledger: Arc<TestLedger>) -> Agent {
        let (inbound, orders) = mpsc::channel(16);
        let (events, outbound) = mpsc::channel(16);
        let (identity, watched) = watch::channel(self.authority.agent());
        let board = Board::default();
        let roots = self.roots();
        let session = Session {
            dialer: self.dialer(),
            identity: watched,
            roots: roots.clone(),
            host: Host {
                word: word(),
                privilege: Privilege::User("me".into()),
                boot_id: "boot".into(),
                process: Id::from_bytes([8; 16]),
                sealing_key: consign_common::sealing::SealingKey::generate().recipient(),
            },
            ledger,
            inbound,
            outbound,
            board: board.clone(),
            logs_changed: Arc::new(Notify::new()),
        };
        let task = tokio::spawn(session.run());
        Agent { orders, events, identity, board, roots, task }
    }

    pub(super) async fn heard(&mut self) -> Option<AgentMessage> {
        timeout(PATIENCE, self.heard.recv()).await.expect("the agent says something").unwrap()
    }

    pub(super) async fn hello(&mut self) -> consign_proto::v1::Hello {
        assert_eq!(self.heard().await, None, "a session begins");
        let Some(Said::Hello(hello)) = self.heard().await.unwrap().kind else { panic!() };
        hello
    }

    /// The next message that is no heartbeat.
    pub(super) async fn news(&mut self) -> Said {
        loop {
            let said = self.heard().await.expect("no new session").kind.unwrap();
            if !matches!(said, Said::Heartbeat(_)) {
                return said;
            }
        }
    }

    pub(super) async fn say(&self, kind: Kind) {
        let says = self.coordinator.says.lock().unwrap().clone().unwrap();
        says.send(Ok(CoordinatorMessage { kind: Some(kind) })).await.unwrap();
    }

    pub(super) fn hang_up(&self) {
        drop(self.coordinator.says.lock().unwrap().take());
    }
}

pub(super) struct Agent {
    pub(super) orders: mpsc::Receiver<Inbound>,
    pub(super) events: mpsc::Sender<Outbound>,
    pub(super) identity: watch::Sender<Arc<Identity>>,
    pub(super) board: Board,
    pub(super) roots: Arc<TrustRoots>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    pub(super) async fn told(&mut self) -> Inbound {
        timeout(PATIENCE, self.orders.recv()).await.expect("the manager is told").unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
pub(super) struct TestLedger {
    pub(super) logs: Mutex<Vec<PendingLog>>,
    pub(super) acknowledged: Notify,
}

impl TestLedger {
    pub(super) async fn all_acknowledged(&self) {
        while self.pending_logs().await.iter().any(|log| log.length != Some(log.acknowledged)) {
            timeout(PATIENCE, self.acknowledged.notified()).await.expect("acknowledged");
        }
    }
}

impl Ledger for TestLedger {
    async fn apps(&self, coordinator: &str) -> Vec<AppReport> {
        let term = if coordinator == COORDINATOR { 4 } else { 0 };
        vec![AppReport { app: Some("shop".parse().unwrap()), term, ..AppReport::default() }]
    }

    fn journal(&self) -> JournalMark {
        JournalMark { id: "journal".into(), position: 12 }
    }

    async fn open_deployments(&self) -> Vec<Id> {
        vec![deployment()]
    }

    async fn rewind(&self, _: &Id, lost: Lost) -> Rewound {
        match lost {
            Lost::EventsAfter(3) => Rewound::Some,
            Lost::EventsAfter(_) | Lost::Logs => Rewound::Nothing,
        }
    }

    async fn pending_logs(&self) -> Vec<PendingLog> {
        let logs = self.logs.lock().unwrap();
        logs.iter().filter(|log| log.length != Some(log.acknowledged)).cloned().collect()
    }

    async fn log_acknowledged(&self, _: &Id, attempt: Attempt, offset: u64) {
        for log in self.logs.lock().unwrap().iter_mut().filter(|log| log.attempt == attempt) {
            log.acknowledged = log.acknowledged.max(offset);
        }
        self.acknowledged.notify_one();
    }
}

pub(super) async fn listen(
    authority: &Authority,
    coordinator: Coordinator,
    clients: ClientAuth,
) -> SocketAddr {
    let config =
        tls::server_config(&authority.coordinator(), authority.ca.certificate_der(), clients).unwrap();
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, queue) = mpsc::channel::<Result<_, std::io::Error>>(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            // tonic serves what it knows: a pipe, with TLS at its other end.
            let (mut inner, served) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut tls, &mut inner).await });
            if accepted.send(Ok(served)).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(
        Server::builder()
            .add_service(AgentsServer::new(coordinator.clone()))
            .add_service(EnrolmentServer::new(coordinator))
            .serve_with_incoming(ReceiverStream::new(queue)),
    );
    address
}

pub(super) fn word() -> ServersWord {
    ServersWord {
        server: "web-1".parse().unwrap(),
        environment: "staging".parse().unwrap(),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        allowances: Vec::new(),
    }
}

pub(super) fn deployment() -> Id {
    Id::from_bytes([5; 16])
}

pub(super) fn event(sequence: u64) -> Outbound {
    let body = Body::Staging { fetched: sequence, total: 9 };
    Outbound::Event { deployment: deployment(), sequence, at: UnixMs(1), body }
}
