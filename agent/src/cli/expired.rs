//! `consign-agent confirm-expired`: what an agent that does not run can no longer do. Started by a timer at the deadline of
//! a confirmation, and once at boot.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use consign_common::{digest::Sha256, time::SystemClock};
use tokio::sync::mpsc;

use super::{Done, Global, report::say, runtime, start_log};
use crate::{
    config::Config,
    daemon::privilege,
    executor::{ConfirmTimer, Site, Supervised, host_facts},
    identity::{TrustRoots, sealing},
    journal::Journal,
    manager::{TakenBack, take_back},
    ports::{Fetch, FetchError},
    state::{LockedState, StateError},
    supervisor::{Launcher, boot_id},
};

/// An agent that is just ending, or starting and ending again, is given so long to let go.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// No network: what a return needs is on this server, or it stops and says so.
#[derive(Debug)]
struct NoFetch;

impl Fetch for NoFetch {
    async fn manifest(&self, _: Sha256) -> Result<Vec<u8>, FetchError> {
        Err(FetchError::Unreachable("the agent does not run".into()))
    }

    async fn pack(
        &self,
        _: Option<Sha256>,
        _: Sha256,
        _: u64,
        _: PathBuf,
        _: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<(), FetchError> {
        Err(FetchError::Unreachable("the agent does not run".into()))
    }
}

pub(super) fn run(global: &Global) -> Done {
    start_log();
    let config = global.read_config()?;
    let state = match lock(&config) {
        Ok(state) => state,
        Err(StateError::InUse { .. }) => {
            say("An agent is running: it keeps its deadlines itself.");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    let taken = if state.paths.journal().exists() {
        runtime()?.block_on(take_all_back(config, &state))?
    } else {
        Vec::new()
    };
    if taken.is_empty() {
        say("Nothing waits that was not confirmed in time.");
    }
    for TakenBack { app, deployment, outcome } in taken {
        say(match outcome {
            Some(outcome) => {
                format!("{app}: deployment {deployment} was not confirmed: {}", outcome.as_str())
            }
            None => {
                format!("{app}: deployment {deployment} was not confirmed; its return waits for a decision")
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn lock(config: &Config) -> Result<LockedState, StateError> {
    let began = Instant::now();
    loop {
        match LockedState::open(&config.agent.state) {
            Err(StateError::InUse { .. }) if began.elapsed() < LOCK_WITHIN => std::thread::sleep(LOCK_PAUSE),
            result => return result,
        }
    }
}

async fn take_all_back(
    config: Config,
    state: &LockedState,
) -> Result<Vec<TakenBack>, Box<dyn std::error::Error>> {
    let roots = Arc::new(TrustRoots::open(&state.paths.trust_roots(), &config.agent.trust_root)?);
    let journal = Journal::open(state.paths.root()).await?;
    let (outbound, _) = mpsc::channel(1);
    let site = Arc::new(Site {
        state: config.agent.state,
        apps: config.agent.apps,
        journal: journal.clone(),
        fetch: NoFetch,
        processes: Supervised { launcher: Launcher::detect()? },
        roots,
        sealing_key: Arc::new(sealing::read_or_make(&state.paths.sealing_key())?),
        word: config.word,
        privilege: privilege(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        facts: host_facts(),
        boot_id: boot_id()?,
        clock: Arc::new(SystemClock),
        confirm_timer: ConfirmTimer::None,
        log_limit: config.agent.log_limit,
        outbound,
    });
    let taken = take_back(&site).await?;
    journal.close().await;
    Ok(taken)
}
