//! The agent's side of the socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use consign_common::{crash, deployment::Attempt};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::{
    exit_record::{ExitRecord, InvalidExitRecord},
    launcher::{LaunchError, Launcher},
    protocol::{Address, LINE_BYTES, Reply, Request, line, parse},
    spec::{AttemptIdentity, AttemptSpec},
};

/// From launching to the first answer; a machine that boots or swaps is slow.
const START_WITHIN: Duration = Duration::from_secs(30);
/// Without anybody there a supervisor is launched once more: the one before may have died before it listened. Where it
/// is only slow, the second one gives way.
const LAUNCH_EVERY: Duration = Duration::from_secs(2);
/// Conversations that may break off before somebody who listens is no longer asked, and the pause between them.
const BROKEN_OFF: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// For an answer to anything but `wait`; creating files on a slow disk is part of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A supervisor that answered. Dropping it leaves the supervisor and its attempt running.
#[derive(Clone, Debug)]
pub struct Supervisor {
    directory: PathBuf,
}

/// How an attempt stands after [`Supervisor::run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Its process exists. If it was not released before, it waits for [`Supervisor::release`].
    Spawned(AttemptIdentity),
    /// It has ended; possibly long ago.
    Finished(Box<ExitRecord>),
}

#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("failed to start a supervisor for {directory}")]
    Launch { directory: PathBuf, source: LaunchError },
    #[error("the supervisor of {directory} did not answer within {} s of its start", START_WITHIN.as_secs())]
    Silent { directory: PathBuf },
    /// It does not run any more, and has not recorded an end: what it executed must be looked for
    /// ([`reap_lost`](super::reap_lost)), and its outcome is unknown.
    #[error("the supervisor of {directory} is gone")]
    Lost { directory: PathBuf },
    #[error("the supervisor refused: {because}")]
    Refused { because: String },
    #[error("failed to talk to the supervisor of {directory}")]
    Io { directory: PathBuf, source: io::Error },
    #[error(transparent)]
    ExitRecord(#[from] InvalidExitRecord),
}

impl Supervisor {
    /// The supervisor of the deployment whose directory this is (its last component is the deployment's id); started
    /// if none runs.
    pub async fn start(directory: &Path, launcher: &Launcher) -> Result<Self, SupervisorError> {
        if let Some(running) = Self::attach(directory).await? {
            return Ok(running);
        }
        let owned = || directory.to_owned();
        crash::point("supervisor-launch-before");
        launcher
            .launch(directory)
            .await
            .map_err(|source| SupervisorError::Launch { directory: owned(), source })?;
        crash::point("supervisor-launch-after");
        let deadline = Instant::now() + START_WITHIN;
        let mut launched = Instant::now();
        while Instant::now() < deadline {
            if let Some(running) = Self::attach(directory).await? {
                return Ok(running);
            }
            if launched.elapsed() >= LAUNCH_EVERY {
                launched = Instant::now();
                if let Err(error) = launcher.launch(directory).await {
                    tracing::debug!(%error, "a supervisor was not launched once more");
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(SupervisorError::Silent { directory: owned() })
    }

    /// The supervisor that runs for this deployment, if one does.
    pub async fn attach(directory: &Path) -> Result<Option<Self>, SupervisorError> {
        match connect(directory).await {
            Ok(_) => Ok(Some(Self { directory: directory.to_owned() })),
            Err(error) if is_absence(&error) => Ok(None),
            Err(source) => Err(SupervisorError::Io { directory: directory.to_owned(), source }),
        }
    }

    /// Creates the attempt's process, which executes nothing before [`release`](Self::release). Idempotent: for an
    /// attempt that was created before it tells how that one stands, and `spec` is not looked at.
    pub async fn run(&self, spec: &AttemptSpec) -> Result<Run, SupervisorError> {
        match self.ask(&Request::Run { spec: Box::new(spec.clone()) }, Some(ANSWER_WITHIN)).await? {
            Reply::Spawned { identity } => Ok(Run::Spawned(identity)),
            Reply::Finished { exit } => Ok(Run::Finished(exit)),
            other @ (Reply::Done {} | Reply::Refused { .. }) => Err(self.unexpected(other)),
        }
    }

    /// Lets the attempt execute; call it when the identity that `run` gave is durable. Idempotent.
    pub async fn release(&self, attempt: Attempt) -> Result<(), SupervisorError> {
        self.command(&Request::Release { attempt }).await
    }

    /// How the attempt ended, when it has. If the supervisor dies meanwhile and left a record, that record counts.
    pub async fn wait(&self, attempt: Attempt) -> Result<ExitRecord, SupervisorError> {
        let answer = match self.ask(&Request::Wait { attempt }, None).await {
            Err(SupervisorError::Lost { directory }) => {
                let record = ExitRecord::read(&self.directory, attempt)?;
                return record.ok_or(SupervisorError::Lost { directory });
            }
            answer => answer?,
        };
        match answer {
            Reply::Finished { exit } => Ok(*exit),
            other @ (Reply::Done {} | Reply::Spawned { .. } | Reply::Refused { .. }) => {
                Err(self.unexpected(other))
            }
        }
    }

    /// Ends the attempt: TERM, grace, KILL to all that it started. Returns at once; [`wait`](Self::wait) returns when
    /// nothing of it is left. An attempt that has ended already stays as it ended.
    pub async fn cancel(&self, attempt: Attempt) -> Result<(), SupervisorError> {
        self.command(&Request::Cancel { attempt }).await
    }

    /// Ends the supervisor; refused while an attempt executes. One that was never released is killed.
    pub async fn shut_down(&self) -> Result<(), SupervisorError> {
        match self.command(&Request::ShutDown {}).await {
            Err(SupervisorError::Lost { .. }) => Ok(()),
            other => other,
        }
    }

    async fn command(&self, request: &Request) -> Result<(), SupervisorError> {
        match self.ask(request, Some(ANSWER_WITHIN)).await? {
            Reply::Done {} => Ok(()),
            other @ (Reply::Spawned { .. } | Reply::Finished { .. } | Reply::Refused { .. }) => {
                Err(self.unexpected(other))
            }
        }
    }

    /// A process that dies closes what it has open one by one, and where it listens perhaps last: while somebody seems to
    /// be there, a conversation that broke off is begun again. All requests may be made twice.
    async fn ask(&self, request: &Request, within: Option<Duration>) -> Result<Reply, SupervisorError> {
        let mut broken_off = 0;
        loop {
            match self.ask_once(request, within).await {
                Err(SupervisorError::Io { source, .. }) if is_absence(&source) && broken_off < BROKEN_OFF => {
                    broken_off += 1;
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_once(&self, request: &Request, within: Option<Duration>) -> Result<Reply, SupervisorError> {
        let conversation = async {
            let mut stream = connect(&self.directory).await?;
            crash::point("supervisor-ask-before");
            stream.write_all(&line(request)?).await?;
            crash::point("supervisor-ask-after");
            let mut answer = Vec::new();
            BufReader::new(stream.take(LINE_BYTES)).read_until(b'\n', &mut answer).await?;
            crash::point("supervisor-answered");
            parse(&answer)
        };
        let answer = match within {
            Some(within) => {
                timeout(within, conversation).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
            }
            None => conversation.await,
        };
        let source = match answer {
            Ok(reply) => return Ok(reply),
            Err(source) => source,
        };
        let directory = self.directory.clone();
        // A broken conversation alone proves nothing: only where nobody listens any more is the supervisor gone.
        let is_gone = is_absence(&source) && connect(&directory).await.is_err_and(|error| is_absence(&error));
        Err(if is_gone {
            SupervisorError::Lost { directory }
        } else {
            SupervisorError::Io { directory, source }
        })
    }

    fn unexpected(&self, reply: Reply) -> SupervisorError {
        match reply {
            Reply::Refused { because } => SupervisorError::Refused { because },
            Reply::Done {} | Reply::Spawned { .. } | Reply::Finished { .. } => SupervisorError::Io {
                directory: self.directory.clone(),
                source: io::Error::other("the answer does not belong to the request"),
            },
        }
    }
}

async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let address = Address::of(directory)?;
    UnixStream::connect(address.path()).await
}

/// Nobody listens, or who listened died before it answered.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}
