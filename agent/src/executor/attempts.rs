//! Carrying an attempt out, as a task of its own: its end comes back as an input.

use std::{path::PathBuf, sync::Arc, time::Instant};

use consign_common::{
    config::Values,
    deployment::{Attempt, Failure, StepOutcome},
    plan::{Kind, Step},
    time::Clock,
};
use tokio::sync::oneshot;

use super::{
    environment::{Surroundings, variables},
    log::AttemptLog,
    processes::{Created, Exit, Processes, Rejoined},
    steps,
};
use crate::{
    core::{Begun, Input},
    stage::{AppDirectory, StageError},
    supervisor::{AttemptSpec, DEFAULT_GRACE_MS},
};

/// What the supervisor is to execute.
pub(super) fn specification(
    attempt: Attempt,
    around: Surroundings<'_>,
    config: &Values,
    step: &Step,
    user: Option<String>,
    log_limit: u64,
) -> AttemptSpec {
    AttemptSpec {
        attempt,
        argv: match &step.kind {
            Kind::Run(argv) => argv.clone(),
            Kind::Shell(script) => vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()],
            // Never sent: these run in the agent.
            Kind::Activate | Kind::Systemd(_) | Kind::Http(_) | Kind::Tcp(_) | Kind::Sleep(_) => Vec::new(),
        },
        env: variables(around, config, step),
        cwd: around.release.to_owned(),
        user,
        timeout_ms: u64::try_from(step.timeout.as_millis()).unwrap_or(u64::MAX),
        grace_ms: DEFAULT_GRACE_MS,
        tty: step.tty,
        leaves: step.leaves,
        secrets: Vec::new(),
        files: Default::default(),
        log_limit,
    }
}

pub(super) async fn create<P: Processes>(processes: &P, directory: PathBuf, spec: AttemptSpec) -> Input {
    let attempt = spec.attempt;
    match processes.create(&directory, &spec).await {
        Ok(Created::Waiting(process)) => Input::Spawned { attempt, process },
        Ok(Created::Ended(exit)) => finished(attempt, exit),
        // It was never released, so that nothing has executed.
        Err(message) => {
            finished(attempt, Exit::of(StepOutcome::Failed { failure: Failure::Exec { message } }))
        }
    }
}

pub(super) async fn run<P: Processes>(processes: &P, directory: PathBuf, begun: Begun) -> Input {
    finished(begun.attempt, processes.run(&directory, &begun).await)
}

pub(super) async fn rejoin<P: Processes>(
    processes: &P,
    directory: PathBuf,
    begun: Begun,
    spec: AttemptSpec,
) -> Input {
    let attempt = begun.attempt;
    match processes.rejoin(&directory, &begun, &spec).await {
        Rejoined::There(process) => Input::Spawned { attempt, process },
        Rejoined::Ended(exit) => finished(attempt, exit),
        Rejoined::NeverBegan => Input::NeverBegan { attempt },
    }
}

/// An attempt that runs in the agent.
#[derive(Debug)]
pub(super) struct InAgent {
    pub(super) attempt: Attempt,
    pub(super) step: Step,
    pub(super) log: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) app: Result<AppDirectory, StageError>,
    /// What `activate` switches to.
    pub(super) release: String,
}

impl InAgent {
    pub(super) async fn run(self, cancelled: oneshot::Receiver<()>) -> Input {
        let began = Instant::now();
        let Self { attempt, step, log, clock, app, release } = self;
        let written = match AttemptLog::create(&log, clock) {
            Ok(written) => written,
            Err(error) => {
                let message = format!("the attempt's log {} cannot be created: {error}", log.display());
                let failure = Failure::Check { message };
                return finished(attempt, Exit::of(StepOutcome::Failed { failure }));
            }
        };
        let say = written.clone();
        let switch = async move {
            let switched = tokio::task::spawn_blocking(move || {
                let app = app.map_err(|error| error.to_string())?;
                app.switch(&release).map_err(|error| error.to_string())?;
                say.say(format_args!("current -> releases/{release}"));
                Ok(())
            });
            switched.await.unwrap_or_else(|error| Err(error.to_string()))
        };
        let result = steps::run(&step, written, cancelled, switch).await;
        let log_length = std::fs::metadata(&log).map_or(0, |file| file.len());
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        finished(attempt, Exit { result, log_length, duration_ms, leftovers: Vec::new() })
    }
}

pub(super) fn finished(attempt: Attempt, exit: Exit) -> Input {
    let Exit { result, log_length, duration_ms, leftovers } = exit;
    Input::Finished { attempt, result, log_length, duration_ms, leftovers }
}
