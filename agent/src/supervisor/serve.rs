//! The supervisor's process: a socket, a thread per connection, a thread per attempt.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::{
        fs::OpenOptionsExt,
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use consign_common::{
    crash,
    deployment::Attempt,
    name::{Id, InvalidName},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::Mode,
    time::Timespec,
};

use super::{
    attempt::{CANCEL, Execution, GO, Place},
    cgroup::Subtree,
    exit_record::{self, ExitRecord},
    output,
    processes::Seen,
    protocol::{Address, Reply, Request, read_line, write_line},
    spec::{AttemptIdentity, AttemptSpec},
};

const CONNECTIONS: usize = 32;
const STACK_BYTES: usize = 512 << 10;
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// How often an idle supervisor looks whether its deployment still exists.
const LOOK_EVERY_SECONDS: i64 = 5;

#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    #[error("the directory {directory} is not named by a deployment")]
    Name { directory: PathBuf, source: InvalidName },
    #[error("another supervisor runs for {directory}")]
    Taken { directory: PathBuf },
    #[error("failed to supervise {directory}")]
    Io { directory: PathBuf, source: io::Error },
}

/// Starts the supervisor of this directory in a session of its own, without waiting for it.
fn detach(directory: &Path) -> io::Result<()> {
    let errors =
        OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join("supervisor.err"))?;
    rustix::process::setsid()?;
    // The child of a child: when this process ends, init adopts it, and nothing ties it to the agent.
    Command::new(std::env::current_exe()?)
        .arg0("consign-agent")
        .args(["supervise", "--dir"])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map(drop)
}

/// The hidden subcommand `supervise`. Returns when it was told to end, or its deployment's directory is gone.
pub fn supervise(directory: &Path, session: Session) -> Result<(), SuperviseError> {
    let failed = |source| SuperviseError::Io { directory: directory.to_owned(), source };
    match session {
        Session::Detached => detach(directory).map_err(failed),
        Session::Inherited => {
            let directory = directory.canonicalize().map_err(failed)?;
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let deployment = Id::try_from(name)
                .map_err(|source| SuperviseError::Name { directory: directory.clone(), source })?;
            match serve(&directory, deployment) {
                Ok(Served::Ended) => Ok(()),
                Ok(Served::Taken) => Err(SuperviseError::Taken { directory }),
                Err(source) => Err(SuperviseError::Io { directory, source }),
            }
        }
    }
}

/// Whether `supervise` makes a session for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Inherited,
    Detached,
}

enum Served {
    Ended,
    Taken,
}

fn serve(directory: &Path, deployment: Id) -> io::Result<Served> {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let lock = directory.join("supervisor.lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(Served::Taken),
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let address = Address::of(directory)?;
    // The lock is ours: a socket that is there is a dead supervisor's.
    match std::fs::remove_file(address.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let subtree = Subtree::prepare(&deployment);
    let (wake, wakes) = UnixStream::pair()?;
    crash::point("supervisor-listen-before");
    let listener = UnixListener::bind(address.path())?;
    crash::point("supervisor-listen-after");
    let place = std::fs::canonicalize(directory)?;
    let shared = Arc::new(Shared {
        directory: directory.to_owned(),
        deployment,
        subtree,
        state: Mutex::default(),
        changed: Condvar::new(),
        wake,
    });
    while !shared.state().ending {
        let mut fds = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&wakes, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: LOOK_EVERY_SECONDS, tv_nsec: 0 })) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [called, _] = &fds;
        if !called.revents().is_empty() {
            accept(&listener, &shared);
        }
        if is_gone(&place, address.directory()) && shared.abandon() {
            break;
        }
    }
    crash::point("supervisor-end-before");
    drop(std::fs::remove_file(address.path()));
    if let Some(subtree) = &shared.subtree {
        subtree.remove();
    }
    Ok(Served::Ended)
}

/// Whether the directory that was opened is no longer the one of that name: removed, or on a filesystem that was unmounted.
fn is_gone(directory: &Path, opened: impl std::os::fd::AsFd) -> bool {
    let Ok(opened) = rustix::fs::fstat(opened) else { return false };
    match rustix::fs::stat(directory) {
        Ok(named) => (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino),
        Err(error) => error == rustix::io::Errno::NOENT,
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    let Ok((stream, _)) = listener.accept() else { return };
    let is_ours = rustix::net::sockopt::socket_peercred(&stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid());
    if !is_ours {
        return;
    }
    // Never silence: who finds nobody here takes the supervisor for dead, and kills what it executes.
    let busy = |mut stream: &UnixStream| drop(write_line(&mut stream, &refused("it is too busy".to_owned())));
    if shared.state().connections >= CONNECTIONS {
        return busy(&stream);
    }
    let Ok(second) = stream.try_clone() else { return busy(&stream) };
    shared.state().connections += 1;
    let theirs = Arc::clone(shared);
    let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        theirs.converse(&second);
        theirs.state().connections -= 1;
    });
    if spawned.is_err() {
        shared.state().connections -= 1;
        busy(&stream);
    }
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    deployment: Id,
    subtree: Option<Subtree>,
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the thread that accepts.
    wake: UnixStream,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    /// The last that ended; here also if its record could not be written.
    last: Option<ExitRecord>,
    /// The last that could not be prepared.
    failed: Option<(Attempt, String)>,
    stayed: Vec<Seen>,
    connections: usize,
    ending: bool,
}

#[derive(Debug)]
struct Current {
    attempt: Attempt,
    control: UnixStream,
    /// Known once its process exists.
    identity: Option<AttemptIdentity>,
    released: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(self: &Arc<Self>, mut stream: &UnixStream) {
        let request =
            stream.set_read_timeout(Some(REQUEST_WITHIN)).and_then(|()| read_line::<Request>(stream));
        let reply = match request.map_err(|error| refused(format!("the request is not understood: {error}")))
        {
            // Also one who only looks whether somebody listens, and says nothing.
            Err(reply) => reply,
            Ok(request) => match self.answer(request, stream) {
                Some(reply) => reply,
                None => return,
            },
        };
        // Who asked may be gone; then it asks again.
        crash::point("supervisor-reply-before");
        drop(write_line(&mut stream, &reply));
        crash::point("supervisor-reply-after");
        if self.state().ending {
            drop((&self.wake).write_all(b"e"));
        }
    }

    /// `None`: who asked is gone.
    fn answer(self: &Arc<Self>, request: Request, stream: &UnixStream) -> Option<Reply> {
        Some(match request {
            Request::Run { spec } => self.run(*spec),
            Request::Release { attempt } => self.command(attempt, GO),
            Request::Cancel { attempt } => self.command(attempt, CANCEL),
            Request::Wait { attempt } => return self.wait(attempt, stream),
            Request::ShutDown {} => self.shut_down(),
        })
    }

    fn run(self: &Arc<Self>, spec: AttemptSpec) -> Reply {
        let attempt = spec.attempt;
        let mut state = self.state();
        if let Some(reply) = self.finished(&state, attempt) {
            return reply;
        }
        state = self.settled(state);
        match &state.current {
            Some(current) if current.attempt == attempt => {}
            Some(current) => return refused(format!("attempt {} has not ended", current.attempt)),
            None if state.ending => return refused("it is about to exit".to_owned()),
            None => {
                let paths =
                    [exit_record::path(&self.directory, attempt), output::path(&self.directory, attempt)];
                if paths.iter().any(|path| path.exists()) {
                    return refused(format!("attempt {attempt} was begun by a supervisor that is gone"));
                }
                if let Err(invalid) = spec.check() {
                    return refused(invalid.to_string());
                }
                if let Err(error) = self.begin(&mut state, spec) {
                    return refused(format!("attempt {attempt} could not be begun: {error}"));
                }
            }
        }
        loop {
            match &state.current {
                Some(Current { attempt: now, identity: Some(identity), .. }) if *now == attempt => {
                    return Reply::Spawned { identity: identity.clone() };
                }
                Some(current) if current.attempt == attempt => {}
                Some(_) | None => break,
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.failed {
            Some((failed, because)) if *failed == attempt => {
                refused(format!("attempt {attempt} could not be begun: {because}"))
            }
            Some(_) | None => self.finished(&state, attempt).unwrap_or_else(|| unknown(attempt)),
        }
    }

    fn begin(self: &Arc<Self>, state: &mut State, spec: AttemptSpec) -> io::Result<()> {
        let (control, controlled) = UnixStream::pair()?;
        controlled.set_nonblocking(true)?;
        let attempt = spec.attempt;
        let stayed = state.stayed.clone();
        let shared = Arc::clone(self);
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || shared.execute(spec, stayed, &controlled))?;
        state.current = Some(Current { attempt, control, identity: None, released: false });
        Ok(())
    }

    /// The attempt's thread.
    fn execute(&self, spec: AttemptSpec, stayed: Vec<Seen>, control: &UnixStream) {
        let attempt = spec.attempt;
        let place = Place {
            directory: &self.directory,
            deployment: &self.deployment,
            subtree: self.subtree.as_ref(),
            stayed,
        };
        let prepared = Execution::prepare(place, spec);
        let mut state = self.state();
        match prepared {
            Ok(execution) => {
                if let Some(current) = &mut state.current {
                    current.identity = Some(execution.identity().clone());
                }
                self.changed.notify_all();
                drop(state);
                let ended = execution.run(control);
                state = self.state();
                state.last = Some(ended.record);
                state.stayed.extend(ended.stayed);
            }
            Err(error) => state.failed = Some((attempt, error.to_string())),
        }
        state.current = None;
        drop(state);
        self.changed.notify_all();
    }

    fn command(&self, attempt: Attempt, command: u8) -> Reply {
        let mut state = self.state();
        match &mut state.current {
            Some(current) if current.attempt == attempt => match current.control.write_all(&[command]) {
                Ok(()) => {
                    current.released |= command == GO;
                    Reply::Done {}
                }
                Err(error) => refused(error.to_string()),
            },
            Some(_) | None => match self.finished(&state, attempt) {
                Some(_) => Reply::Done {},
                None => unknown(attempt),
            },
        }
    }

    /// `None`: who waits is gone.
    fn wait(&self, attempt: Attempt, stream: &UnixStream) -> Option<Reply> {
        let mut state = self.state();
        while state.current.as_ref().is_some_and(|current| current.attempt == attempt) {
            let second = Duration::from_secs(1);
            (state, _) = self.changed.wait_timeout(state, second).unwrap_or_else(PoisonError::into_inner);
            if is_closed(stream) {
                return None;
            }
        }
        Some(self.finished(&state, attempt).unwrap_or_else(|| unknown(attempt)))
    }

    fn shut_down(&self) -> Reply {
        let mut state = self.settled(self.state());
        if let Some(current) = &state.current
            && current.released
        {
            return refused(format!("attempt {} has not ended", current.attempt));
        }
        while let Some(current) = &mut state.current {
            // If it fails, the attempt's thread is about to end anyway.
            drop(current.control.write_all(&[CANCEL]));
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ending = true;
        Reply::Done {}
    }

    /// Waits for the thread of an attempt whose end is on disk already: an agent that has read it there comes with the
    /// next one, or with the end, before that thread is through.
    fn settled<'s>(&self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        while let Some(current) = &state.current
            && matches!(ExitRecord::read(&self.directory, current.attempt), Ok(Some(_)))
        {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// The deployment's directory is gone: whether nothing executes any more. What was never released is let go.
    fn abandon(&self) -> bool {
        let mut state = self.state();
        if let Some(current) = &mut state.current
            && !current.released
        {
            drop(current.control.write_all(&[CANCEL]));
        }
        state.current.is_none()
    }

    fn finished(&self, state: &State, attempt: Attempt) -> Option<Reply> {
        if let Some(last) = &state.last
            && last.identity.attempt == attempt
        {
            return Some(Reply::Finished { exit: Box::new(last.clone()) });
        }
        match ExitRecord::read(&self.directory, attempt) {
            Ok(record) => record.map(|record| Reply::Finished { exit: Box::new(record) }),
            Err(error) => Some(refused(error.to_string())),
        }
    }
}

fn refused(because: String) -> Reply {
    Reply::Refused { because }
}

fn unknown(attempt: Attempt) -> Reply {
    refused(format!("attempt {attempt} is not known here"))
}

fn is_closed(stream: &UnixStream) -> bool {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    rustix::net::recv(stream, &mut [0_u8; 1][..], flags).is_ok_and(|(count, _)| count == 0)
}
