//! Against a coordinator in this process, over real TLS: what it says is scripted, what the agent does is asserted.

use std::{
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use consign_common::{
    deployment::{Attempt, Event as Body, log},
    digest::Sha256,
    limits::ArtifactLimits,
    name::Id,
    time::{Clock as _, SystemClock, UnixMs},
    tls::{self, ClientAuth, Identity},
    trust::{JoinRole, JoinToken, Privilege, ServersWord},
};
use consign_proto::v1::{
    AgentMessage, Chunk, CoordinatorMessage, EnrollRequest, EnrollResponse, EventAck, FetchRequest, LogAck,
    LogChunk, Order, RenewRequest, RenewResponse, TrustRoots as Offered, Welcome,
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

use super::{convert::Host, dial::Dialer, fetch::Fetcher, proxy::Proxies, run::Session};
use crate::{
    fixture::{Authority, COORDINATOR, DAYS_90},
    identity::{
        TrustRoots,
        enroll::{self, EnrollError, Existing},
        renew::Renewal,
        roots,
    },
    ports::{AppReport, Fetch as _, FetchError, Inbound, Ledger, Outbound, PendingLog},
    status::{Board, Link},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A coordinator that keeps what it hears and does what a test told it.
#[derive(Clone)]
struct Coordinator {
    authority: Arc<Authority>,
    /// Every session's messages, in order; `None` where a session began.
    heard: mpsc::Sender<Option<AgentMessage>>,
    /// What the newest session sends.
    says: Arc<Mutex<Option<Says>>>,
    heartbeat_seconds: u32,
    /// What every session hears after the welcome.
    greeting: Vec<Kind>,
    /// The pack: its first answer is cut off after this many bytes.
    pack: Arc<Vec<u8>>,
    cut: Arc<AtomicU32>,
    fetched_from: Arc<Mutex<Vec<u64>>>,
    logs: Arc<Mutex<LogSink>>,
    refuse_enrolment: Option<&'static str>,
}

/// Keeps records as the coordinator must: only what goes on where it has ended.
#[derive(Debug, Default)]
struct LogSink {
    bytes: Vec<u8>,
    offsets: Vec<u64>,
    /// The stream is broken once after this many chunks.
    break_after: Option<usize>,
    acks: Acks,
}

#[derive(Clone, Copy, Debug, Default)]
enum Acks {
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
            protocol: super::convert::PROTOCOL,
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
struct World {
    dir: tempfile::TempDir,
    authority: Arc<Authority>,
    coordinator: Coordinator,
    heard: mpsc::Receiver<Option<AgentMessage>>,
    address: SocketAddr,
}

impl World {
    async fn new(change: impl FnOnce(&mut Coordinator)) -> Self {
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
            fetched_from: Arc::default(),
            logs: Arc::default(),
            refuse_enrolment: None,
        };
        change(&mut coordinator);
        let address = listen(&authority, coordinator.clone(), ClientAuth::Required).await;
        Self { dir: tempfile::tempdir().unwrap(), authority, coordinator, heard: hears, address }
    }

    fn dialer(&self) -> Dialer {
        Dialer {
            addresses: vec![self.address.to_string()],
            ca: self.authority.ca.pin(),
            proxies: Proxies::default(),
        }
    }

    fn roots(&self) -> Arc<TrustRoots> {
        std::fs::write(roots::file(self.dir.path(), 1), self.authority.root(1)).unwrap();
        Arc::new(TrustRoots::open(self.dir.path(), &self.authority.pin()).unwrap())
    }

    fn start(&self, ledger: Arc<TestLedger>) -> Agent {
        let (inbound, orders) = mpsc::channel(16);
        let (events, outbound) = mpsc::channel(16);
        let (identity, watched) = watch::channel(self.authority.agent());
        let board = Board::default();
        let roots = self.roots();
        let session = Session {
            dialer: self.dialer(),
            identity: watched,
            roots: roots.clone(),
            host: Host { word: word(), privilege: Privilege::User("me".into()), boot_id: "boot".into() },
            ledger,
            inbound,
            outbound,
            board: board.clone(),
            logs_changed: Arc::new(Notify::new()),
        };
        let task = tokio::spawn(session.run());
        Agent { orders, events, identity, board, roots, task }
    }

    async fn heard(&mut self) -> Option<AgentMessage> {
        timeout(PATIENCE, self.heard.recv()).await.expect("the agent says something").unwrap()
    }

    async fn hello(&mut self) -> consign_proto::v1::Hello {
        assert_eq!(self.heard().await, None, "a session begins");
        let Some(Said::Hello(hello)) = self.heard().await.unwrap().kind else { panic!() };
        hello
    }

    /// The next message that is no heartbeat.
    async fn news(&mut self) -> Said {
        loop {
            let said = self.heard().await.expect("no new session").kind.unwrap();
            if !matches!(said, Said::Heartbeat(_)) {
                return said;
            }
        }
    }

    async fn say(&self, kind: Kind) {
        let says = self.coordinator.says.lock().unwrap().clone().unwrap();
        says.send(Ok(CoordinatorMessage { kind: Some(kind) })).await.unwrap();
    }

    fn hang_up(&self) {
        drop(self.coordinator.says.lock().unwrap().take());
    }
}

struct Agent {
    orders: mpsc::Receiver<Inbound>,
    events: mpsc::Sender<Outbound>,
    identity: watch::Sender<Arc<Identity>>,
    board: Board,
    roots: Arc<TrustRoots>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn told(&mut self) -> Inbound {
        timeout(PATIENCE, self.orders.recv()).await.expect("the manager is told").unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct TestLedger {
    logs: Mutex<Vec<PendingLog>>,
    acknowledged: Notify,
}

impl TestLedger {
    async fn all_acknowledged(&self) {
        while self.pending_logs().await.iter().any(|log| log.length != Some(log.acknowledged)) {
            timeout(PATIENCE, self.acknowledged.notified()).await.expect("acknowledged");
        }
    }
}

impl Ledger for TestLedger {
    async fn apps(&self) -> Vec<AppReport> {
        vec![AppReport { app: Some("shop".parse().unwrap()), term: 4, ..AppReport::default() }]
    }

    async fn open_deployments(&self) -> Vec<Id> {
        vec![deployment()]
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

async fn listen(authority: &Authority, coordinator: Coordinator, clients: ClientAuth) -> SocketAddr {
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

fn word() -> ServersWord {
    ServersWord {
        server: "web-1".parse().unwrap(),
        environment: "staging".parse().unwrap(),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        allowances: Vec::new(),
    }
}

fn deployment() -> Id {
    Id::from_bytes([5; 16])
}

fn event(sequence: u64) -> Outbound {
    let body = Body::Staging { fetched: sequence, total: 9 };
    Outbound::Event { deployment: deployment(), sequence, at: UnixMs(1), body }
}

#[tokio::test]
async fn says_who_it_is_and_carries_orders_and_events() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    let hello = world.hello().await;
    assert_eq!((hello.environment.as_str(), hello.root), ("staging", false));
    assert_eq!(hello.labels.get("role").map(String::as_str), Some("web"));
    assert_eq!(hello.open_deployments, [deployment().to_string()]);
    assert_eq!((hello.apps[0].app.as_str(), hello.apps[0].term), ("shop", 4));
    assert!(matches!(agent.told().await, Inbound::Connected));
    world.say(Kind::Order(Order { document: "{}".into(), statements: vec!["s".into()] })).await;
    let Inbound::Order { document, statements, connected } = agent.told().await else { panic!() };
    assert_eq!((document, statements), (b"{}".to_vec(), vec![b"s".to_vec()]));
    assert_eq!(connected, COORDINATOR, "as its certificate says");
    agent.events.send(event(3)).await.unwrap();
    let Said::Event(event) = world.news().await else { panic!() };
    assert_eq!((event.sequence, event.deployment), (3, deployment().to_string()));
    world.say(Kind::EventAck(EventAck { deployment: deployment().to_string(), sequence: 3 })).await;
    assert!(matches!(agent.told().await, Inbound::EventAck { sequence: 3, .. }));
    assert!(matches!(agent.board.link(), Link::Connected { .. }));
}

#[tokio::test]
async fn comes_back_after_a_hang_up_and_does_not_hold_up_the_manager_meanwhile() {
    let mut world = World::new(|_| {}).await;
    let mut agent = world.start(Arc::default());
    world.hello().await;
    assert!(matches!(agent.told().await, Inbound::Connected));
    world.hang_up();
    // More than every queue holds: what nobody hears is in the journal.
    for sequence in 0..200 {
        timeout(PATIENCE, agent.events.send(event(sequence))).await.expect("never blocked").unwrap();
    }
    while world.heard().await.is_some() {}
    assert!(matches!(world.heard().await.unwrap().kind, Some(Said::Hello(_))));
    assert!(matches!(agent.told().await, Inbound::Connected));
}

#[tokio::test]
async fn gives_up_a_line_that_is_silent() {
    let mut world = World::new(|coordinator| coordinator.heartbeat_seconds = 1).await;
    let _agent = world.start(Arc::default());
    world.hello().await;
    let mut heartbeats = 0;
    while world.heard().await.is_some() {
        heartbeats += 1;
    }
    assert!((3..=6).contains(&heartbeats), "one each interval, for three intervals: {heartbeats}");
}

#[tokio::test]
async fn takes_trust_roots_and_says_why_it_refused_one() {
    let mut world = World::new(|_| {}).await;
    let agent = world.start(Arc::default());
    world.hello().await;
    let roots = vec![world.authority.root(2).into(), world.authority.root(3).into()];
    world.say(Kind::TrustRoots(Offered { envelopes: roots })).await;
    let Said::TrustRootTaken(taken) = world.news().await else { panic!() };
    assert_eq!((taken.version, taken.error.as_str()), (3, ""));
    assert_eq!(agent.roots.current().version, 3);
    world.say(Kind::TrustRoots(Offered { envelopes: vec![Authority::new().root(4).into()] })).await;
    let Said::TrustRootTaken(taken) = world.news().await else { panic!() };
    assert_eq!(taken.version, 3);
    assert!(taken.error.contains("not signed by enough"), "{}", taken.error);
}

#[tokio::test]
async fn a_coordinator_that_the_trust_root_does_not_name_gets_no_session() {
    let world = World::new(|_| {}).await;
    let stranger = Authority::new();
    let dialer = world.dialer();
    let connection = dialer.dial(Some(&world.authority.agent())).await.unwrap();
    let root =
        consign_common::trust::TrustRoot::open_pinned(&stranger.root(1), stranger.pin().sha256).unwrap();
    let refused = dialer.check_named(&connection, &root).unwrap_err().to_string();
    assert!(refused.contains("trust root 1 does not name"), "{refused}");
    let other_ca = Dialer { ca: stranger.ca.pin(), ..dialer };
    let refused = other_ca.dial(Some(&world.authority.agent())).await.unwrap_err().to_string();
    assert!(refused.contains("not the coordinator that was pinned"), "{refused}");
}

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_ended() {
    let world = World::new(|coordinator| coordinator.cut = Arc::new(2.into())).await;
    let fetcher = fetcher(&world, ArtifactLimits::default());
    let into = world.dir.path().join("pack");
    fetcher.pack(None, Sha256::of(b"x"), into.clone(), |_, _| {}).await.unwrap();
    assert_eq!(std::fs::read(into).unwrap(), *world.coordinator.pack);
    assert_eq!(*world.coordinator.fetched_from.lock().unwrap(), [0, 3000, 6000]);
}

#[tokio::test]
async fn a_longer_file_than_the_pack_is_begun_again() {
    let world = World::new(|_| {}).await;
    let into = world.dir.path().join("pack");
    std::fs::write(&into, vec![0; 100_000]).unwrap();
    fetcher(&world, ArtifactLimits::default())
        .pack(None, Sha256::of(b"x"), into.clone(), |_, _| {})
        .await
        .unwrap();
    assert_eq!(std::fs::read(into).unwrap(), *world.coordinator.pack);
}

#[tokio::test]
async fn a_manifest_beyond_its_limit_is_refused_before_it_is_read() {
    let world = World::new(|_| {}).await;
    let limits = ArtifactLimits { manifest_bytes: 5000, ..ArtifactLimits::default() };
    let refused = fetcher(&world, limits).manifest(Sha256::of(b"x")).await;
    assert!(matches!(refused, Err(FetchError::TooLong(5000))), "{refused:?}");
}

fn fetcher(world: &World, limits: ArtifactLimits) -> Fetcher {
    let (_, identity) = watch::channel(world.authority.agent());
    Fetcher::new(world.dialer(), identity, world.roots(), limits)
}

/// A finished attempt's log, and a ledger that knows it.
fn log_of(world: &World, bytes: usize) -> (Vec<u8>, Arc<TestLedger>, PathBuf) {
    let mut records = Vec::new();
    for (number, data) in vec![b'x'; bytes].chunks(3000).enumerate() {
        log::encode_into(&mut records, UnixMs(number as u64), log::Stream::Stdout, data);
    }
    let path = world.dir.path().join("deploy-0-1.log");
    std::fs::write(&path, &records).unwrap();
    let ledger = TestLedger::default();
    ledger.logs.lock().unwrap().push(PendingLog {
        deployment: deployment(),
        attempt: "deploy-0-1".parse().unwrap(),
        path: path.clone(),
        acknowledged: 0,
        length: Some(records.len() as u64),
    });
    (records, Arc::new(ledger), path)
}

#[tokio::test]
async fn a_log_arrives_whole_over_a_break_and_with_doubled_acknowledgements() {
    let world = World::new(|coordinator| {
        let sink = LogSink { break_after: Some(4), acks: Acks::Twice, ..LogSink::default() };
        coordinator.logs = Arc::new(Mutex::new(sink));
    })
    .await;
    let (records, ledger, _) = log_of(&world, 3 << 20);
    let _agent = world.start(ledger.clone());
    ledger.all_acknowledged().await;
    let sink = world.coordinator.logs.lock().unwrap();
    assert!(sink.bytes == records, "{} of {} bytes", sink.bytes.len(), records.len());
    assert!(
        sink.offsets.iter().filter(|offset| **offset == 0).count() == 1,
        "what was acknowledged is not sent again"
    );
}

#[tokio::test]
async fn without_acknowledgements_no_more_than_a_mebibyte_is_on_its_way() {
    let mut world = World::new(|coordinator| {
        coordinator.logs = Arc::new(Mutex::new(LogSink { acks: Acks::Lost, ..LogSink::default() }));
        coordinator.heartbeat_seconds = 1;
    })
    .await;
    let (records, ledger, _) = log_of(&world, 3 << 20);
    let _agent = world.start(ledger.clone());
    world.hello().await;
    // The silent line is given up after three intervals; by then everything that would come has come.
    while world.heard().await.is_some() {}
    let sent = {
        let mut sink = world.coordinator.logs.lock().unwrap();
        sink.acks = Acks::Each;
        sink.bytes.len()
    };
    assert!((1 << 20..=(1 << 20) + (64 << 10)).contains(&sent), "{sent}");
    ledger.all_acknowledged().await;
    assert!(world.coordinator.logs.lock().unwrap().bytes == records, "and all of it once they come");
}

#[tokio::test]
async fn a_growing_log_is_followed_and_a_torn_record_waited_for() {
    let world = World::new(|_| {}).await;
    let (records, ledger, path) = log_of(&world, 9000);
    let (half, rest) = records.split_at(4000);
    std::fs::write(&path, half).unwrap();
    ledger.logs.lock().unwrap()[0].length = None;
    let _agent = world.start(ledger.clone());
    let arrived = |bytes: usize| {
        let logs = world.coordinator.logs.clone();
        timeout(PATIENCE, async move {
            let mut look = tokio::time::interval(Duration::from_millis(5));
            while logs.lock().unwrap().bytes.len() != bytes {
                look.tick().await;
            }
        })
    };
    arrived(3017).await.expect("the first record, and not the torn one");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, rest).unwrap();
    arrived(records.len()).await.expect("the rest as it is written");
    ledger.logs.lock().unwrap()[0].length = Some(records.len() as u64);
    ledger.all_acknowledged().await;
}

#[tokio::test]
async fn a_renewed_certificate_has_a_new_key_and_reaches_the_session() {
    let mut world = World::new(|_| {}).await;
    let agent = world.start(Arc::default());
    world.hello().await;
    let path = world.dir.path().join("identity.pem");
    let before = agent.identity.borrow().peer().unwrap();
    let renewal = Renewal {
        dialer: world.dialer(),
        roots: agent.roots.clone(),
        path: path.clone(),
        identity: agent.identity.clone(),
    };
    let peer = renewal.renew().await.unwrap();
    assert_ne!(peer.spki_sha256, before.spki_sha256);
    assert_eq!(Identity::read(&path).unwrap().peer().unwrap(), peer);
    while world.heard().await.is_some() {}
    assert!(matches!(world.heard().await.unwrap().kind, Some(Said::Hello(_))), "a session with the new key");
}

fn join(world: &World, address: SocketAddr, pin: Sha256) -> enroll::Request {
    let token = JoinToken {
        enrolment: vec![address.to_string()],
        addresses: vec![world.address.to_string()],
        coordinator: COORDINATOR.into(),
        ca_sha256: world.authority.ca.pin(),
        trust_root: consign_common::trust::TrustRootPin { version: 1, sha256: pin },
        id: "t1".into(),
        secret: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]),
        name: "web-1".parse().unwrap(),
        role: JoinRole::Agent { environment: "staging".parse().unwrap() },
    };
    enroll::Request {
        token: token.to_text().unwrap(),
        apps: vec!["shop".parse().unwrap()],
        users: vec!["shop".into()],
        units: vec!["shop.service".into()],
        labels: [("role".to_owned(), "web".to_owned())].into(),
        address: None,
        existing: Existing::Refuse,
        config: world.dir.path().join("etc/agent.toml"),
        state: world.dir.path().join("state"),
        apps_directory: "/srv".into(),
    }
}

async fn enrolment(world: &World) -> SocketAddr {
    listen(&world.authority, world.coordinator.clone(), ClientAuth::None).await
}

#[tokio::test]
async fn enrolling_leaves_an_identity_a_chain_and_the_servers_own_word() {
    let world = World::new(|_| {}).await;
    let mut request = join(&world, enrolment(&world).await, world.authority.pin().sha256);
    let enrolled = enroll::enroll(&request, Proxies::default(), |preview| preview.server.as_str() == "web-1");
    let enrolled = enrolled.await.unwrap();
    assert_eq!(enrolled.trust_root_version, 2);
    let config = crate::config::Config::read(&request.config).unwrap();
    assert_eq!(config.word.allowances[0].users, ["shop"]);
    assert_eq!(config.word.labels, word().labels);
    let roots = TrustRoots::open(&request.state.join("trust-roots"), &config.agent.trust_root).unwrap();
    assert_eq!(roots.current().version, 2);
    let identity = request.state.join("identity.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&identity).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Identity::read(&identity).unwrap().peer().unwrap().spki_sha256, enrolled.key);
    let again = enroll::enroll(&request, Proxies::default(), |_| true).await;
    assert!(matches!(again, Err(EnrollError::Already { .. })));
    request.existing = Existing::Replace;
    let replaced = enroll::enroll(&request, Proxies::default(), |_| true).await.unwrap();
    assert_ne!(replaced.key, enrolled.key);
}

#[tokio::test]
async fn a_failed_enrolment_leaves_nothing_behind() {
    let world =
        World::new(|coordinator| coordinator.refuse_enrolment = Some("token-used: \u{1b}[31mask")).await;
    let address = enrolment(&world).await;
    let good = World::new(|_| {}).await;
    let good_address = enrolment(&good).await;
    let pin = world.authority.pin().sha256;
    let stranger = Sha256::of(b"another trust root");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (world, request, confirmed, expected) in [
        (&world, join(&world, address, pin), true, "token-used: \\x1b[31mask"),
        (&world, join(&world, address, pin), false, "not confirmed"),
        (&world, join(&world, nobody, pin), true, "is not reachable"),
        (&world, join(&world, good_address, pin), true, "not the coordinator that was pinned"),
        (&good, join(&good, good_address, stranger), true, "not the one that the token pins"),
    ] {
        let refused =
            enroll::enroll(&request, Proxies::default(), |_| confirmed).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(!request.config.exists(), "{expected}");
        let left: Vec<_> = std::fs::read_dir(&request.state)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock" && name != "version")
            .collect();
        assert!(left.is_empty(), "{expected}: {left:?}");
        let staged = world.dir.path().join("etc/agent.toml.enrolling");
        assert!(!staged.exists(), "{expected}");
    }
}

#[tokio::test]
async fn goes_through_a_proxy_where_the_environment_names_one() {
    let world = World::new(|_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let target = world.address;
    let asked = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::io::AsyncReadExt::read_u8(&mut client).await.unwrap());
        }
        let mut onward = tokio::net::TcpStream::connect(target).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut client, &mut onward).await);
        String::from_utf8(head).unwrap()
    });
    let proxies = Proxies::from_environment(|name| (name == "HTTPS_PROXY").then(|| proxy.clone())).unwrap();
    let dialer =
        Dialer { addresses: vec!["deploy.example:7443".into()], ca: world.authority.ca.pin(), proxies };
    let connection = dialer.dial(Some(&world.authority.agent())).await.unwrap();
    assert_eq!(connection.coordinator, COORDINATOR);
    drop(connection);
    let head = timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert!(head.starts_with("CONNECT deploy.example:7443 "), "the name is the proxy's to resolve: {head}");
}
