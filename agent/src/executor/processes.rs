//! Attempts that are processes: the supervisor, behind a seam, so that tests can play it.

use std::{fmt, fs, io, path::Path};

use consign_common::{
    deployment::{Attempt, Leftover, StepOutcome},
    error::chain,
    name::Id,
};

use crate::{
    core::{Begun, Process},
    supervisor::{
        self, AttemptIdentity, AttemptSpec, ExitRecord, Launcher, Run, Supervisor, SupervisorError, reap_lost,
    },
};

/// What executes attempts outside the agent. A directory stands for its deployment.
pub trait Processes: Send + Sync + fmt::Debug + 'static {
    /// Creates the attempt's process; it executes nothing before its release.
    fn create(
        &self,
        directory: &Path,
        spec: &AttemptSpec,
    ) -> impl Future<Output = Result<Created, String>> + Send;

    /// Lets it execute, and waits for its end. A lost one ends as unknown, with nothing of it left.
    fn run(&self, directory: &Path, begun: &Begun) -> impl Future<Output = Exit> + Send;

    /// Finds out about an attempt that an agent before this one began.
    fn rejoin(
        &self,
        directory: &Path,
        begun: &Begun,
        spec: &AttemptSpec,
    ) -> impl Future<Output = Rejoined> + Send;

    /// Ends it with all that it started; `run` returns when nothing is left.
    fn cancel(&self, directory: &Path, attempt: Attempt) -> impl Future<Output = ()> + Send;

    /// Nothing more is to be executed for this deployment.
    fn shut_down(&self, directory: &Path) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    Waiting(Process),
    Ended(Exit),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Rejoined {
    /// It waits for its release, or runs already: releasing it twice does no harm.
    There(Process),
    Ended(Exit),
    NeverBegan,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub result: StepOutcome,
    pub log_length: u64,
    pub duration_ms: u64,
    pub leftovers: Vec<Leftover>,
}

impl Exit {
    pub(super) fn of(result: StepOutcome) -> Self {
        Self { result, log_length: 0, duration_ms: 0, leftovers: Vec::new() }
    }
}

impl From<ExitRecord> for Exit {
    fn from(record: ExitRecord) -> Self {
        Self {
            result: record.result,
            log_length: record.log_length,
            duration_ms: record.duration_ms,
            leftovers: record.leftovers,
        }
    }
}

/// Supervisors that are tried for one attempt, when they are lost before it began.
const SUPERVISORS: u32 = 3;

/// The real one: `consign-agent supervise`.
#[derive(Clone, Debug)]
pub struct Supervised {
    pub launcher: Launcher,
}

impl Supervised {
    async fn begin(&self, directory: &Path, spec: &AttemptSpec) -> Result<Created, SupervisorError> {
        let supervisor = Supervisor::start(directory, &self.launcher).await?;
        match supervisor.run(spec).await? {
            Run::Spawned(AttemptIdentity { process: Some(process), .. }) => {
                Ok(Created::Waiting(process_of(process)))
            }
            Run::Spawned(_) => Err(SupervisorError::Refused { because: "no process is named".into() }),
            Run::Finished(record) => Ok(Created::Ended((*record).into())),
        }
    }
}

impl Processes for Supervised {
    async fn create(&self, directory: &Path, spec: &AttemptSpec) -> Result<Created, String> {
        let mut started = 1;
        loop {
            let error = match self.begin(directory, spec).await {
                Ok(created) => return Ok(created),
                Err(error) => error,
            };
            // Nothing was released, so nothing was executed: under another supervisor it may begin once more.
            // Killed in the middle of an answer it is first seen as a broken connection.
            let lost = matches!(error, SupervisorError::Lost { .. })
                || matches!(Supervisor::attach(directory).await, Ok(None));
            if !lost || started == SUPERVISORS || forget(directory, spec.attempt).is_err() {
                return Err(chain(&error));
            }
            tracing::warn!(attempt = %spec.attempt, "the supervisor was lost before the attempt began; starting another");
            started += 1;
        }
    }

    async fn run(&self, directory: &Path, begun: &Begun) -> Exit {
        let waited = async {
            let lost = || SupervisorError::Lost { directory: directory.to_owned() };
            let supervisor = Supervisor::attach(directory).await?.ok_or_else(lost)?;
            match supervisor.release(begun.attempt).await {
                // Cancelled before its release: how it ended is known.
                Ok(()) | Err(SupervisorError::Refused { .. }) => supervisor.wait(begun.attempt).await,
                Err(error) => Err(error),
            }
        };
        match waited.await {
            Ok(record) => record.into(),
            Err(error) => after_loss(directory, begun, &error).await,
        }
    }

    async fn rejoin(&self, directory: &Path, begun: &Begun, spec: &AttemptSpec) -> Rejoined {
        match ExitRecord::read(directory, begun.attempt) {
            Ok(Some(record)) => return Rejoined::Ended(record.into()),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "an exit record cannot be used"),
        }
        let error = match Supervisor::attach(directory).await {
            Ok(Some(supervisor)) => match supervisor.run(spec).await {
                Ok(Run::Finished(record)) => return Rejoined::Ended((*record).into()),
                Ok(Run::Spawned(AttemptIdentity { process: Some(process), .. })) => {
                    return Rejoined::There(process_of(process));
                }
                Ok(Run::Spawned(_)) => SupervisorError::Refused { because: "no process is named".into() },
                Err(error) => error,
            },
            Ok(None) => SupervisorError::Lost { directory: directory.to_owned() },
            Err(error) => error,
        };
        if begun.process.is_none() && forget(directory, begun.attempt).is_ok() {
            return Rejoined::NeverBegan;
        }
        Rejoined::Ended(after_loss(directory, begun, &error).await)
    }

    async fn cancel(&self, directory: &Path, attempt: Attempt) {
        let cancelled = async {
            match Supervisor::attach(directory).await? {
                Some(supervisor) => supervisor.cancel(attempt).await,
                None => Ok(()),
            }
        };
        if let Err(error) = cancelled.await {
            tracing::warn!(%attempt, error = chain(&error), "an attempt could not be cancelled");
        }
    }

    async fn shut_down(&self, directory: &Path) {
        let ended = async {
            match Supervisor::attach(directory).await? {
                Some(supervisor) => supervisor.shut_down().await,
                None => Ok(()),
            }
        };
        if let Err(error) = ended.await {
            tracing::warn!(error = chain(&error), "a supervisor could not be shut down");
        }
    }
}

/// Its supervisor is gone: what it left counts, else it is killed and nobody knows how it ended.
async fn after_loss(directory: &Path, begun: &Begun, error: &SupervisorError) -> Exit {
    if let Ok(Some(record)) = ExitRecord::read(directory, begun.attempt) {
        return record.into();
    }
    let mut because = chain(error);
    if let Some(identity) = identity(directory, begun)
        && let Err(error) = reap_lost(identity).await
    {
        because = format!("{because}; and what is left of it could not be looked for: {error}");
    }
    Exit::of(StepOutcome::Unknown { because })
}

fn identity(directory: &Path, begun: &Begun) -> Option<AttemptIdentity> {
    let deployment: Id = directory.file_name()?.to_str()?.parse().ok()?;
    let process = begun.process.clone().map(|Process { pid, start_ticks, cgroup }| supervisor::Process {
        pid,
        start_ticks,
        cgroup,
    });
    Some(AttemptIdentity { deployment, attempt: begun.attempt, boot_id: begun.boot_id.clone(), process })
}

/// An attempt that never executed anything may begin once more: what was prepared for it goes.
fn forget(directory: &Path, attempt: Attempt) -> io::Result<()> {
    for ending in ["exit", "log"] {
        match fs::remove_file(directory.join(format!("{attempt}.{ending}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn process_of(process: supervisor::Process) -> Process {
    let supervisor::Process { pid, start_ticks, cgroup } = process;
    Process { pid, start_ticks, cgroup }
}
