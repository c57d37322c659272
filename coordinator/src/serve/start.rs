//! Wiring: every part is made here, and nowhere else.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use consign_common::{
    durable, json,
    limits::{ArtifactLimits, MESSAGE_BYTES},
    time::Clock,
};
use consign_proto::v1::{
    agents_server::AgentsServer, enrolment_server::EnrolmentServer, operators_server::OperatorsServer,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time,
};
use tonic::transport::Server;
use tower::layer::util::{Identity as NoLayer, Stack};

use super::{Addresses, Options, import::import};
use crate::{
    bundle::InvalidBundle,
    config::Configs,
    enrolment::{Authority, AuthorityError, Enroller, SERVER_RENEWS, Tokens},
    fleet::{Registry, Sessions},
    grpc::{
        AccessLayer, AgentParts, AgentService, AllowList, ConfigService, Connections, EnvironmentService,
        OperatorService, RolloutService,
        listener::{self, Admission, Tcp},
    },
    logs::{LogSettings, LogWriter},
    operators::Operators,
    repository::{self, Repository, RepositoryError},
    rollouts::{self, Controller, ControllerError, Feed, Patience, Surroundings},
    store::{StateDir, Store, StoreError},
    trust_roots::{TrustRootError, TrustRoots},
};

/// Connections at once. A connection is a file descriptor, and the limit of those is the unit file's.
const PLACES: usize = 20_000;
const ENROLMENT_PLACES: usize = 256;
const LOCAL_PLACES: usize = 256;
/// Bytes of a request on the enrolment port: a token, a CSR and labels.
const ENROLMENT_BYTES: usize = 64 << 10;
/// Nobody enrols for longer than this.
const ENROLMENT_AGE: Duration = Duration::from_secs(30);
const ENROLMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open streams may take to end by themselves when the coordinator stops.
const GRACE: Duration = Duration::from_secs(2);
/// Old uploads and old artifacts.
const CLEAN_UP: Duration = Duration::from_secs(60 * 60);

/// A coordinator that answers.
#[derive(Debug)]
pub struct Coordinator {
    pub addresses: Addresses,
    store: Arc<Store>,
    connections: Arc<Connections>,
    stop: watch::Sender<Phase>,
    tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "{state} holds no coordinator yet: run `consign init` on your own machine, and start this once with the --bundle that it writes"
    )]
    NoBundle { state: PathBuf },
    #[error(
        "{state} is coordinator {coordinator}, made from another bundle; start without --bundle, or with another --state"
    )]
    OtherBundle { state: PathBuf, coordinator: String },
    #[error("the bundle's trust root does not name its coordinator {coordinator} with its CA")]
    NotNamed { coordinator: String },
    #[error("{address} is in use: another `consign serve`, or another program, listens there")]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("failed to write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Bundle(#[from] InvalidBundle),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    TrustRoot(#[from] TrustRootError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Rollouts(#[from] ControllerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Runtime(#[from] io::Error),
}

impl Coordinator {
    /// Listens when this returns.
    pub async fn start(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, ServeError> {
        let now = clock.now();
        let state = StateDir::open(&options.state).map_err(StoreError::from)?;
        let store = Arc::new(Store::open(state).await?);
        let imported = import(&store, options.bundle.as_deref(), now).await?;
        let authority = Arc::new(Authority::load(&store.state().identity(), imported.coordinator)?);
        let trust_roots = Arc::new(TrustRoots::load(Arc::clone(&store), Arc::clone(&clock)).await?);
        let connections = Arc::new(Connections::default());
        let allow_list = Arc::new(AllowList::load(Arc::clone(&store), Arc::clone(&connections)).await?);
        let repository = Arc::new(Repository::new(
            Arc::clone(&store),
            Arc::clone(&trust_roots),
            ArtifactLimits::default(),
            Arc::clone(&clock),
        ));
        repository.sweep().await?;

        let main = bind(options.listen).await?;
        let enrolment = bind(options.enrolment_listen).await?;
        let socket = store.state().socket();
        let local = bind_unix(&socket)?;
        let advertise = options.advertise.as_deref().or(imported.advertise.as_deref());
        let addresses = Addresses::new(main.local_addr()?, enrolment.local_addr()?, socket, advertise);

        let tokens = Tokens::new(Arc::clone(&store));
        let enroller = Enroller {
            store: Arc::clone(&store),
            tokens: tokens.clone(),
            authority: Arc::clone(&authority),
            allow_list: Arc::clone(&allow_list),
            trust_roots: Arc::clone(&trust_roots),
            clock: Arc::clone(&clock),
        };
        let (sessions, feed) = (Arc::new(Sessions::default()), Feed::default());
        let logs =
            LogWriter::start(Arc::clone(&store), feed.clone(), Arc::clone(&clock), LogSettings::default());
        let surroundings = Surroundings {
            coordinator: authority.id().to_owned(),
            store: Arc::clone(&store),
            repository: Arc::clone(&repository),
            trust_roots: Arc::clone(&trust_roots),
            sessions: Arc::clone(&sessions),
            feed,
            clock: Arc::clone(&clock),
            health_programs: options.health_programs.clone(),
        };
        let controller = Controller::new(surroundings, Patience::default());
        controller.resume().await?;
        let operators = OperatorService {
            coordinator: authority.id().to_owned(),
            clock: Arc::clone(&clock),
            repository: Arc::clone(&repository),
            trust_roots: Arc::clone(&trust_roots),
            tokens,
            registry: Registry::new(Arc::clone(&store)),
            operators: Operators::new(Arc::clone(&store)),
            allow_list: Arc::clone(&allow_list),
            environments: EnvironmentService {
                store: Arc::clone(&store),
                registry: Registry::new(Arc::clone(&store)),
                sessions: Arc::clone(&sessions),
                trust_roots: Arc::clone(&trust_roots),
                controller: Arc::clone(&controller),
                clock: Arc::clone(&clock),
            },
            config: ConfigService {
                configs: Configs::new(Arc::clone(&store), Arc::clone(&trust_roots), Arc::clone(&clock)),
            },
            rollouts: Arc::new(RolloutService {
                controller: Arc::clone(&controller),
                store: Arc::clone(&store),
                sessions: Arc::clone(&sessions),
            }),
            address: addresses.address.clone(),
            enrolment_address: addresses.enrolment_address.clone(),
        };
        let rollouts = Arc::clone(&controller);
        let agents = AgentService::new(AgentParts {
            coordinator: authority.id().to_owned(),
            enroller: enroller.clone(),
            repository: Arc::clone(&repository),
            store: Arc::clone(&store),
            registry: Registry::new(Arc::clone(&store)),
            trust_roots,
            controller,
            sessions,
            logs,
            clock: Arc::clone(&clock),
        });

        let configs = authority.server_configs(now).map_err(AuthorityError::from)?;
        let (mutual, mutual_tls) = watch::channel(configs.mutual);
        let (open, enrolment_tls) = watch::channel(configs.enrolment);
        let tcp = Tcp {
            tls: mutual_tls,
            admission: Admission::Allowed(Arc::clone(&allow_list)),
            connections: Arc::clone(&connections),
            clock: Arc::clone(&clock),
            places: PLACES,
        };
        let enrolment_tcp = Tcp {
            tls: enrolment_tls,
            admission: Admission::Anonymous,
            places: ENROLMENT_PLACES,
            ..tcp.clone()
        };

        let stop = watch::Sender::new(Phase::Running);
        let mut tasks = JoinSet::new();
        let access = AccessLayer::new(allow_list, Arc::clone(&clock));
        let operators = OperatorsServer::new(operators).max_decoding_message_size(MESSAGE_BYTES);
        let agents = AgentsServer::new(agents).max_decoding_message_size(MESSAGE_BYTES);
        tasks.spawn(ended("7443", {
            builder(&access)
                .add_service(operators.clone())
                .add_service(agents)
                .serve_with_incoming_shutdown(tcp.listen(main), stopping(&stop))
        }));
        tasks.spawn(ended("unix socket", {
            let incoming = listener::listen_unix(local, Arc::clone(&connections), LOCAL_PLACES);
            builder(&access).add_service(operators).serve_with_incoming_shutdown(incoming, stopping(&stop))
        }));
        tasks.spawn(ended("enrolment", {
            let service = EnrolmentServer::new(enroller).max_decoding_message_size(ENROLMENT_BYTES);
            builder(&access)
                .max_concurrent_streams(4)
                .timeout(ENROLMENT_TIMEOUT)
                .max_connection_age(ENROLMENT_AGE)
                .max_connection_age_grace(ENROLMENT_TIMEOUT)
                .add_service(service)
                .serve_with_incoming_shutdown(enrolment_tcp.listen(enrolment), stopping(&stop))
        }));
        let renewing = async move {
            loop {
                time::sleep(SERVER_RENEWS).await;
                match authority.server_configs(clock.now()) {
                    Ok(configs) => {
                        mutual.send_replace(configs.mutual);
                        open.send_replace(configs.enrolment);
                    }
                    Err(error) => tracing::error!(%error, "the coordinator's certificate cannot be renewed"),
                }
            }
        };
        tasks.spawn(until(stopping(&stop), renewing));
        tasks.spawn(until(stopping(&stop), Arc::clone(&rollouts).keep_time()));
        tasks.spawn(until(stopping(&stop), Arc::clone(&rollouts).keep_pipelines()));
        tasks.spawn(until(stopping(&stop), clean_up(repository, rollouts)));

        let path = store.state().addresses();
        durable::replace_file(&path, &json::to_vec(&addresses), 0o600)
            .map_err(|source| ServeError::Write { path, source })?;
        Ok(Self { addresses, store, connections, stop, tasks })
    }

    /// Whether the database answers: what the watchdog asks.
    pub async fn is_well(&self) -> bool {
        sqlx::query("SELECT 1").execute(self.store.read()).await.is_ok()
    }

    /// Takes no new calls, gives open ones a moment, then ends them.
    pub async fn stop(mut self) {
        self.stop.send_replace(Phase::Stopping);
        let connections = Arc::clone(&self.connections);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let closing = async {
            time::sleep(GRACE).await;
            loop {
                // Also those whose handshake ended only now.
                connections.close_all();
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = closing => {}
        }
        for path in [self.store.state().addresses(), self.store.state().socket()] {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "not removed");
            }
        }
        self.store.close().await;
    }
}

/// Limits of HTTP/2, said and not left to defaults.
fn builder(access: &AccessLayer) -> Server<Stack<AccessLayer, NoLayer>> {
    Server::builder()
        .max_concurrent_streams(64)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(64 << 10)
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(128))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(access.clone())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            return ServeError::InUse { address };
        }
        ServeError::Listen { address: address.to_string(), source }
    };
    TcpListener::bind(address).await.map_err(failed)
}

/// The state directory's lock is ours, so a socket that is there is a dead process's.
fn bind_unix(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { address: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) | Ok(()) => {}
    }
    UnixListener::bind(path).map_err(failed)
}

async fn ended(what: &'static str, server: impl Future<Output = Result<(), tonic::transport::Error>> + Send) {
    if let Err(error) = server.await {
        tracing::error!(what, %error, "a listener ended");
    }
}

fn stopping(stop: &watch::Sender<Phase>) -> impl Future<Output = ()> + Send + 'static {
    let mut phase = stop.subscribe();
    async move {
        // An error: the coordinator itself is gone.
        drop(phase.wait_for(|phase| *phase == Phase::Stopping).await);
    }
}

async fn until(end: impl Future<Output = ()> + Send, work: impl Future<Output = ()> + Send) {
    tokio::select! {
        () = end => {}
        () = work => {}
    }
}

async fn clean_up(repository: Arc<Repository>, rollouts: Arc<Controller>) {
    loop {
        time::sleep(CLEAN_UP).await;
        if let Err(error) = repository.sweep().await {
            tracing::error!(%error, "old uploads cannot be removed");
        }
        if let Err(error) = rollouts.retain(rollouts::KEEP).await {
            tracing::error!(%error, "old rollouts cannot be removed");
        }
        if let Err(error) = repository.retain(repository::KEEP).await {
            tracing::error!(%error, "old artifacts cannot be removed");
        }
    }
}
