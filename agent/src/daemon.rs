//! The running agent: everything wired together on one thread, until a signal.
//!
//! Stopping is not special: all that matters is durable before it is acted on, and running steps belong to supervisors
//! that outlive this process. So a signal only ends the event loop.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use consign_common::{
    limits::ArtifactLimits,
    name::Id,
    sealing::SealingKey,
    time::{Clock as _, SystemClock, UnixMs},
    tls::{Identity, TlsError},
    trust::{Privilege, ServersWord},
};
use nix::unistd::{Uid, User};
use ring::rand::{SecureRandom as _, SystemRandom};
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::Config,
    executor::{ConfirmTimer, Site, Supervised, host_facts},
    identity::{TrustRoots, renew::Renewal, roots::RootsError, sealing},
    journal::{Journal, JournalError},
    ledger::DiskLedger,
    logs,
    manager::{Manager, ManagerError},
    ports::{Inbound, Ledger as _, NO_COORDINATOR, Outbound},
    receipts,
    session::{
        Host,
        dial::Dialer,
        fetch::Fetcher,
        proxy::{Proxies, ProxyError},
        run::Session,
    },
    state::{LockedState, StateError, StatePaths},
    status::{self, AppView, Board, Live},
    supervisor::{Launcher, boot_id},
};

/// Orders and acknowledgements that wait for the manager.
const INBOUND: usize = 64;
/// Events that wait for the session.
const OUTBOUND: usize = 256;
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the manager of deployments is made from.
#[derive(Debug)]
pub struct Parts {
    pub state: PathBuf,
    pub apps: PathBuf,
    pub journal: Journal,
    pub fetcher: Fetcher,
    pub roots: Arc<TrustRoots>,
    /// Opens what was sealed to this server.
    pub sealing_key: Arc<SealingKey>,
    pub word: ServersWord,
    pub privilege: Privilege,
    pub boot_id: String,
    pub log_limit: u64,
    pub launcher: Launcher,
    pub confirm_timer: ConfirmTimer,
    pub inbound: mpsc::Receiver<Inbound>,
    pub outbound: mpsc::Sender<Outbound>,
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "this server's identity cannot be used; enrol it again with `consign-agent enroll --replace TOKEN`"
    )]
    Identity(#[source] TlsError),
    #[error("the trust root cannot be used: {0}")]
    Roots(#[from] RootsError),
    #[error(transparent)]
    ReceiptKey(#[from] receipts::key::ReceiptKeyError),
    #[error(transparent)]
    Sealing(#[from] sealing::SealingFileError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("cannot {what}")]
    System { what: &'static str, source: io::Error },
    #[error("deployments cannot go on in this process")]
    Manager(#[from] ManagerError),
    #[error(
        "{0} ended by itself, which is a defect; the agent stops, and goes on where it was when it is started again"
    )]
    Ended(&'static str),
}

/// Until SIGTERM or SIGINT. `manage` runs the deployments.
pub async fn run<M: Future<Output = Result<(), ManagerError>>>(
    config_path: &Path,
    config: Config,
    manage: impl FnOnce(Parts) -> M,
) -> Result<(), DaemonError> {
    let system = |what| move |source| DaemonError::System { what, source };
    let state = LockedState::open(&config.agent.state)?;
    let mut stop = Stop::new().map_err(system("wait for signals"))?;
    let identity = Identity::read(&state.paths.identity()).map_err(DaemonError::Identity)?;
    let roots = Arc::new(TrustRoots::open(&state.paths.trust_roots(), &config.agent.trust_root)?);
    let journal = Journal::open(state.paths.root()).await?;
    let socket = status::listen(&state.paths.status_socket()).map_err(system("listen on status.sock"))?;
    let receipt_key = receipts::key::read_or_make(&state.paths.receipt_key())?;
    let sealing_key = Arc::new(sealing::read_or_make(&state.paths.sealing_key())?);
    let boot_id = boot_id().map_err(system("read this boot's id"))?;
    let privilege = privilege();
    announce(&config, &privilege);

    let ledger = Arc::new(DiskLedger::new(journal.clone(), &config.agent.apps));
    let board = Board::default();
    let (inbound, orders) = mpsc::channel(INBOUND);
    let (events, outbound) = mpsc::channel(OUTBOUND);
    let (identity, newest) = watch::channel(Arc::new(identity));
    let dialer = Dialer {
        addresses: config.agent.coordinator.clone(),
        ca: config.agent.ca,
        proxies: Proxies::from_environment(|name| std::env::var(name).ok())?,
    };
    let fetcher = Fetcher::new(dialer.clone(), newest.clone(), roots.clone(), ArtifactLimits::default());
    let launcher = Launcher::detect().map_err(system("find its own binary"))?;
    let manager = manage(Parts {
        state: config.agent.state.clone(),
        apps: config.agent.apps.clone(),
        journal: journal.clone(),
        fetcher,
        roots: roots.clone(),
        sealing_key: sealing_key.clone(),
        word: config.word.clone(),
        privilege: privilege.clone(),
        boot_id: boot_id.clone(),
        log_limit: config.agent.log_limit,
        confirm_timer: confirm_timer(&launcher, config_path, &config),
        launcher,
        inbound: orders,
        outbound: events,
    });
    let renewal =
        Renewal { dialer: dialer.clone(), roots: roots.clone(), path: state.paths.identity(), identity };
    let receipts = receipts::Maker {
        journal: journal.clone(),
        key: receipt_key,
        word: config.word.clone(),
        boot_id: boot_id.clone(),
        deployments: state.paths.deployments(),
        made: Arc::default(),
    };
    let session = Session {
        dialer,
        identity: newest,
        roots,
        host: Host {
            word: config.word,
            privilege,
            boot_id,
            process: process_id()?,
            receipt_key: receipts.key.public(),
            sealing_key: sealing_key.recipient(),
        },
        ledger: ledger.clone(),
        inbound,
        outbound,
        board: board.clone(),
        logs_changed: Arc::new(Notify::new()),
        receipts_made: receipts.made.clone(),
    };
    tell_systemd(&[NotifyState::Ready]);
    // One task for all: a watchdog that is fed has seen every part of the loop turn.
    let ended = tokio::select! {
        signal = stop.wait() => {
            tracing::info!(signal, "stopping; running steps go on under their supervisors");
            Ok(())
        }
        ended = manager => Err(ended.map_or_else(DaemonError::Manager, |()| DaemonError::Ended("the manager of deployments"))),
        () = session.run() => Err(DaemonError::Ended("the session")),
        () = renewal.run() => Err(DaemonError::Ended("renewal")),
        () = answer_status(socket, &board, &ledger) => Err(DaemonError::Ended("the status socket")),
        () = receipts.run() => Err(DaemonError::Ended("receipts")),
        () = prune_logs(&state.paths, &ledger) => Err(DaemonError::Ended("pruning")),
        () = feed_watchdog() => Err(DaemonError::Ended("the watchdog")),
    };
    tell_systemd(&[NotifyState::Stopping]);
    drop(std::fs::remove_file(state.paths.status_socket()));
    journal.close().await;
    ended
}

/// Runs deployments under supervisors of their own.
pub async fn manage(parts: Parts) -> Result<(), ManagerError> {
    let Parts {
        state,
        apps,
        journal,
        fetcher,
        roots,
        sealing_key,
        word,
        privilege,
        boot_id,
        log_limit,
        launcher,
        confirm_timer,
        inbound,
        outbound,
    } = parts;
    let site = Site {
        state,
        apps,
        journal,
        fetch: fetcher,
        processes: Supervised { launcher },
        roots,
        sealing_key,
        word,
        privilege,
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        facts: host_facts(),
        boot_id,
        clock: Arc::new(SystemClock),
        confirm_timer,
        log_limit,
        outbound,
    };
    Manager::new(Arc::new(site)).run(inbound).await
}

/// Where systemd runs this agent it also keeps the deadlines that the agent may not live to see.
fn confirm_timer(launcher: &Launcher, config_path: &Path, config: &Config) -> ConfirmTimer {
    match launcher {
        Launcher::SystemdUnit { program } => {
            ConfirmTimer::systemd(program.clone(), config_path, &config.agent.state, &config.agent.apps)
        }
        Launcher::Session { .. } => ConfirmTimer::None,
    }
}

/// As whom this process runs.
pub(crate) fn privilege() -> Privilege {
    let user = Uid::effective();
    if user.is_root() {
        return Privilege::Root;
    }
    let named = User::from_uid(user).ok().flatten().map(|user| user.name);
    Privilege::User(named.unwrap_or_else(|| user.to_string()))
}

fn announce(config: &Config, privilege: &Privilege) {
    let ServersWord { server, environment, allowances, .. } = &config.word;
    tracing::info!(%server, %environment, version = env!("CARGO_PKG_VERSION"), "consign-agent");
    if let Privilege::User(user) = privilege {
        tracing::warn!(
            user,
            "running without root: every step runs as this user; steps with another user and systemd steps are refused"
        );
    }
    if allowances.is_empty() {
        tracing::warn!("no app is allowed on this server; list it under [[allow]] in agent.toml");
    }
}

/// Another one for every process, also where two are copies of one disk and share the boot, as containers do.
fn process_id() -> Result<Id, DaemonError> {
    let mut bits = [0; 16];
    let failed = |_| DaemonError::System {
        what: "make this process's id",
        source: io::Error::other("the system has no randomness"),
    };
    SystemRandom::new().fill(&mut bits).map_err(failed)?;
    Ok(Id::from_bytes(bits))
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn answer_status(socket: UnixListener, board: &Board, ledger: &DiskLedger) {
    let since = SystemClock.now();
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = status::answer(stream, &live(since, board, ledger).await).await {
                    tracing::debug!(%error, "a caller of status.sock went away");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "status.sock");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn live(since: UnixMs, board: &Board, ledger: &DiskLedger) -> Live {
    Live {
        pid: std::process::id(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        since,
        coordinator: board.link(),
        apps: ledger.apps(NO_COORDINATOR).await.into_iter().map(AppView::from).collect(),
        deployments: ledger.deployments().await,
        audit: ledger.audit().await,
    }
}

async fn prune_logs(paths: &StatePaths, ledger: &DiskLedger) {
    let mut hour = interval(PRUNE_EVERY);
    hour.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        hour.tick().await;
        logs::prune(&paths.deployments(), ledger).await;
    }
}

/// Twice as often as systemd asks for; never where it does not.
async fn feed_watchdog() {
    let Some(every) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut feed = interval((every / 2).max(Duration::from_millis(100)));
    feed.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        feed.tick().await;
        tell_systemd(&[NotifyState::Watchdog]);
    }
}

fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
