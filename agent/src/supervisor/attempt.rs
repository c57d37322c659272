//! One attempt from its first process to its exit record, on one thread. That thread alone spawns and reaps.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use consign_common::{
    crash,
    deployment::{Failure, Leftover, StepOutcome, log::Stream},
    name::Id,
    time::{Clock, SystemClock, UnixMs},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
        timerfd_create, timerfd_settime,
    },
};

use super::{
    cgroup::Subtree,
    containment::{Containment, Seeker},
    exec::Orders,
    exit_record::{self, ExitRecord, Reserved},
    output::{self, Output},
    private::Private,
    processes::{self, Seen, boot_id},
    protocol::line,
    spec::{AttemptIdentity, AttemptSpec, Process, mark},
};

const READ_BYTES: usize = 64 << 10;
/// Bytes that are read from each pipe after the end: more than any pipe holds.
const DRAIN_BYTES: usize = 4 << 20;
/// From spawning to readiness.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Characters of a failure's message.
const BECAUSE_BYTES: usize = 1024;

/// Left processes that are named in the step's log.
const LEFT_TOLD: usize = 5;

/// What the attempt's thread is told: a byte each.
pub(super) const GO: u8 = b'g';
pub(super) const CANCEL: u8 = b'c';

/// Where attempts are executed.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) directory: &'a Path,
    pub(super) deployment: &'a Id,
    pub(super) subtree: Option<&'a Subtree>,
    /// What earlier attempts were allowed to leave behind.
    pub(super) stayed: Vec<Seen>,
}

/// An attempt whose process exists.
#[derive(Debug)]
pub(super) struct Execution<'a> {
    spec: AttemptSpec,
    identity: AttemptIdentity,
    place: Place<'a>,
    containment: Containment,
    output: Output,
    reserved: Reserved,
    pipes: Vec<Pipe>,
    /// To the process, until it executes.
    link: Option<UnixStream>,
    exec_failure: Vec<u8>,
    timer: OwnedFd,
    /// Secrets as files.
    private: Option<Private>,
    main: Pid,
    main_handle: OwnedFd,
    status: Option<WaitStatus>,
    phase: Phase,
    started_at: UnixMs,
    started: Duration,
    oom_kills: u64,
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    from: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is executed yet.
    Waiting,
    Running,
    /// TERM was sent, the grace runs.
    Ending(Why),
    /// KILL was sent, nothing is left.
    Killed(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Timeout,
    Cancel,
}

/// How it ended, and what it was allowed to leave.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) record: ExitRecord,
    pub(super) stayed: Vec<Seen>,
}

impl<'a> Execution<'a> {
    /// Takes the space for the outcome, opens the log, and creates the process. Nothing stays of a failure.
    pub(super) fn prepare(place: Place<'a>, spec: AttemptSpec) -> io::Result<Self> {
        let (directory, attempt) = (place.directory, spec.attempt);
        let reserved = Reserved::create(directory, attempt)?;
        let prepared = Output::create(directory, &spec).and_then(|output| {
            let spawned = Self::spawn(place, spec, reserved, output);
            if spawned.is_err() {
                drop(std::fs::remove_file(output::path(directory, attempt)));
            }
            spawned
        });
        if prepared.is_err() {
            drop(std::fs::remove_file(exit_record::path(directory, attempt)));
        }
        prepared
    }

    pub(super) fn identity(&self) -> &AttemptIdentity {
        &self.identity
    }

    fn spawn(place: Place<'a>, spec: AttemptSpec, reserved: Reserved, output: Output) -> io::Result<Self> {
        let mark = mark(place.deployment, spec.attempt);
        let private = Private::create(place.deployment, spec.attempt, &spec.files, spec.user.as_deref())?;
        let (mut link, theirs) = UnixStream::pair()?;
        let (pipes, stdout, stderr) = if spec.tty { terminal()? } else { two_pipes()? };
        crash::point("attempt-spawn-before");
        let child = Command::new("/proc/self/exe")
            .arg("exec-attempt")
            .env_clear()
            .env(processes::MARK_NAME, &mark)
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .stderr(stderr)
            .spawn()?;
        let pid = child.id();
        let main =
            i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no pid"))?;
        // From here on dropping `link` ends the process: it executes nothing without orders.
        link.set_read_timeout(Some(READY_WITHIN))?;
        link.read_exact(&mut [0])?;
        crash::point("attempt-spawn-after");
        let main_handle = pidfd_open(main, PidfdFlags::empty())?;
        let seen = processes::see(pid).ok_or_else(|| io::Error::other("the attempt's process is gone"))?;
        let cgroup = place.subtree.and_then(|subtree| subtree.attempt(spec.attempt)).filter(|cgroup| {
            let added = cgroup.add(pid).is_ok();
            if !added {
                cgroup.remove();
            }
            added
        });
        let identity = AttemptIdentity {
            deployment: place.deployment.clone(),
            attempt: spec.attempt,
            boot_id: boot_id()?,
            process: Some(Process {
                pid,
                start_ticks: seen.start_ticks,
                cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_string_lossy().into_owned()),
            }),
        };
        let containment = Containment {
            mark,
            cgroup,
            leader: Some((pid, seen.start_ticks)),
            seeker: Seeker::Supervisor { stayed: place.stayed.clone() },
        };
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self {
            identity,
            containment,
            output,
            reserved,
            pipes,
            link: Some(link),
            exec_failure: Vec::new(),
            timer,
            private,
            main,
            main_handle,
            status: None,
            phase: Phase::Waiting,
            started_at: SystemClock.now(),
            started: since_boot(),
            oom_kills: place.subtree.map_or(0, Subtree::oom_kills),
            spec,
            place,
        })
    }

    /// Executes it when told to, and returns when it has ended and its record is on disk.
    pub(super) fn run(mut self, control: &UnixStream) -> Ended {
        let mut buffer = vec![0; READ_BYTES];
        while !self.is_over() {
            if let Err(error) = self.turn(control, &mut buffer) {
                // Nothing that can be retried fails here: the attempt is ended rather than left alone.
                self.output.say(&format!("the supervisor cannot watch the attempt: {error}"));
                self.kill(Why::Cancel);
            }
        }
        self.finish(&mut buffer)
    }

    /// The main process has ended, and where the attempt was told to end, so has all else of it.
    fn is_over(&self) -> bool {
        self.status.is_some()
            && match self.phase {
                Phase::Waiting | Phase::Running | Phase::Killed(_) => true,
                Phase::Ending(_) => self.containment.members().is_empty(),
            }
    }

    /// Waits for the next thing to happen, and deals with it.
    fn turn(&mut self, control: &UnixStream, buffer: &mut [u8]) -> io::Result<()> {
        let mut ready = Ready::default();
        let mut pipes_ready = vec![false; self.pipes.len()];
        {
            let mut fds = vec![PollFd::new(control, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
            if self.status.is_none() {
                fds.push(PollFd::new(&self.main_handle, PollFlags::IN));
            }
            let fixed = fds.len();
            fds.extend(self.pipes.iter().map(|pipe| PollFd::new(&pipe.from, PollFlags::IN)));
            if let (Some(link), Phase::Running) = (&self.link, self.phase) {
                fds.push(PollFd::new(link, PollFlags::IN));
            }
            // What is left after its main process is looked for again and again; orphans are reaped now and then.
            let tick = if self.status.is_some() { 20_000_000 } else { 1_000_000_000 };
            let (tv_sec, tv_nsec) = if tick == 1_000_000_000 { (1, 0) } else { (0, tick) };
            match poll(&mut fds, Some(&Timespec { tv_sec, tv_nsec })) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut happened = fds.iter().map(|fd| !fd.revents().is_empty());
            ready.control = happened.next().unwrap_or(false);
            ready.timer = happened.next().unwrap_or(false);
            for (index, happened) in fds.iter().map(|fd| !fd.revents().is_empty()).skip(fixed).enumerate() {
                match pipes_ready.get_mut(index) {
                    Some(pipe) => *pipe = happened,
                    None => ready.link = happened,
                }
            }
        }
        if ready.link {
            self.read_link(buffer);
        }
        let mut index = 0;
        let output = &mut self.output;
        self.pipes.retain_mut(|pipe| {
            let is_ready = pipes_ready.get(index).copied().unwrap_or(false);
            index += 1;
            !is_ready || pipe.read(buffer, output) != Progress::Ended
        });
        if ready.control {
            self.obey(control);
        }
        if ready.timer && rustix::io::read(&self.timer, &mut [0_u8; 8][..]).is_ok() {
            match self.phase {
                Phase::Waiting | Phase::Killed(_) => {}
                Phase::Running => self.end(Why::Timeout),
                Phase::Ending(why) => self.kill(why),
            }
        }
        self.reap();
        Ok(())
    }

    fn obey(&mut self, mut control: &UnixStream) {
        let mut commands = [0; 16];
        let count = control.read(&mut commands).unwrap_or(0);
        for command in commands.iter().take(count) {
            match (*command, self.phase) {
                (GO, Phase::Waiting) => self.go(),
                (CANCEL, Phase::Waiting) => self.kill(Why::Cancel),
                (CANCEL, Phase::Running) => self.end(Why::Cancel),
                // Said twice, or too late.
                (_, Phase::Waiting | Phase::Running | Phase::Ending(_) | Phase::Killed(_)) => {}
            }
        }
    }

    fn go(&mut self) {
        self.started_at = SystemClock.now();
        self.started = since_boot();
        self.phase = Phase::Running;
        self.arm(self.spec.timeout());
        let Some(link) = &mut self.link else { return };
        crash::point("attempt-release-before");
        let files = self.private.iter().flat_map(Private::variables);
        let orders = line(&Orders::new(&self.spec, self.place.deployment, files));
        let told =
            orders.and_then(|orders| link.write_all(&orders)).and_then(|()| link.set_nonblocking(true));
        crash::point("attempt-release-after");
        if let Err(error) = told {
            self.exec_failure = error.to_string().into_bytes();
            self.link = None;
        }
    }

    /// The reason why it could not be executed, or the end that says that it was.
    fn read_link(&mut self, buffer: &mut [u8]) {
        let Some(link) = &mut self.link else { return };
        match link.read(buffer) {
            Ok(count) if count > 0 => {
                let room = BECAUSE_BYTES.saturating_sub(self.exec_failure.len());
                self.exec_failure.extend(buffer.iter().take(count.min(room)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.link = None,
        }
    }

    fn end(&mut self, why: Why) {
        let words = match why {
            Why::Timeout => format!("timed out after {} ms", self.spec.timeout_ms),
            Why::Cancel => "cancelled".to_owned(),
        };
        self.output.say(&format!(
            "{words}: SIGTERM to all of it, SIGKILL in {} s",
            self.spec.grace_ms.div_ceil(1000)
        ));
        self.phase = Phase::Ending(why);
        self.arm(self.spec.grace());
        self.containment.terminate();
    }

    fn kill(&mut self, why: Why) {
        self.phase = Phase::Killed(why);
        self.kill_rest();
    }

    fn kill_rest(&mut self) {
        let (main, status) = (self.main, &mut self.status);
        self.containment.kill(|| reap(main, status));
        // The kill returns when nothing lives; the main process is then at most waiting to be reaped.
        while self.status.is_none() {
            reap(self.main, &mut self.status);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn arm(&self, after: Duration) {
        let after = after.max(Duration::from_millis(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().into(),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        // It fails for values out of range only.
        let _ =
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value });
    }

    fn reap(&mut self) {
        reap(self.main, &mut self.status);
    }

    fn finish(mut self, buffer: &mut [u8]) -> Ended {
        crash::point("attempt-ended");
        let may_leave = self.spec.leaves && self.phase == Phase::Running && self.exec_failure.is_empty();
        let left = match self.phase {
            Phase::Running => self.containment.members(),
            Phase::Waiting | Phase::Ending(_) | Phase::Killed(_) => Vec::new(),
        };
        let told = tell(&left, &self.spec.secrets);
        let stayed = if may_leave { left } else { Vec::new() };
        if !may_leave {
            self.kill_rest();
        }
        self.read_link(buffer);
        for pipe in &mut self.pipes {
            pipe.drain(buffer, &mut self.output);
        }
        drop(std::mem::take(&mut self.pipes));
        // Whoever wrote the step may not know that it leaves something.
        match (told, may_leave) {
            (None, _) => {}
            (Some(told), true) => self.output.say(&format!("still running: {told}")),
            (Some(told), false) => {
                self.output.say(&format!("ended what was still running (`leaves = true` keeps it): {told}"));
            }
        }
        if stayed.is_empty()
            && let Some(cgroup) = &self.containment.cgroup
        {
            cgroup.remove();
        }
        let result = self.result();
        let leftovers = stayed.iter().map(|seen| Leftover {
            pid: seen.pid,
            command: processes::command_of(seen.pid, &self.spec.secrets),
        });
        let leftovers = leftovers.collect();
        drop(self.private.take());
        let written = self.output.finish();
        let record = ExitRecord {
            identity: self.identity,
            result,
            started_at: self.started_at,
            ended_at: SystemClock.now(),
            duration_ms: u64::try_from(since_boot().saturating_sub(self.started).as_millis())
                .unwrap_or(u64::MAX),
            log_length: written.length,
            missing_bytes: written.missing,
            leftovers,
            leftovers_omitted: 0,
        };
        if let Err(error) = self.reserved.write(record.clone()) {
            // Who waits is told all the same; only after a crash would it be unknown.
            tracing::error!(attempt = %self.spec.attempt, %error, "failed to write the exit record");
        }
        Ended { record, stayed }
    }

    fn result(&self) -> StepOutcome {
        let failed = |failure| StepOutcome::Failed { failure };
        if let Phase::Ending(why) | Phase::Killed(why) = self.phase {
            return match why {
                Why::Timeout => failed(Failure::Timeout { after_ms: self.spec.timeout_ms }),
                Why::Cancel => StepOutcome::Cancelled,
            };
        }
        if !self.exec_failure.is_empty() {
            let message = consign_common::terminal::escape_line(&String::from_utf8_lossy(&self.exec_failure));
            return failed(Failure::Exec { message });
        }
        if self.phase == Phase::Waiting {
            let message = "its process was killed before it executed anything".to_owned();
            return failed(Failure::Exec { message });
        }
        let Some(status) = self.status else {
            return StepOutcome::Unknown { because: "its main process left no status".to_owned() };
        };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => StepOutcome::Succeeded,
            (Some(code), _) => failed(Failure::Exit { code }),
            (None, Some(9))
                if self.place.subtree.is_some_and(|subtree| subtree.oom_kills() > self.oom_kills) =>
            {
                failed(Failure::OutOfMemory)
            }
            (None, Some(signal)) => {
                failed(Failure::Signal { signal, core_dumped: status.as_raw() & 0x80 != 0 })
            }
            (None, None) => StepOutcome::Unknown { because: "its main process left no status".to_owned() },
        }
    }
}

/// Processes for a person: the first few, and how many more.
fn tell(left: &[Seen], secrets: &[String]) -> Option<String> {
    let few = left.iter().take(LEFT_TOLD);
    let mut told: Vec<String> = few
        .map(|seen| format!("process {} ({})", seen.pid, processes::command_of(seen.pid, secrets)))
        .collect();
    if left.len() > LEFT_TOLD {
        told.push(format!("{} more", left.len() - LEFT_TOLD));
    }
    (!told.is_empty()).then(|| told.join(", "))
}

#[derive(Default)]
struct Ready {
    control: bool,
    timer: bool,
    link: bool,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Read(usize),
    /// Nothing for now.
    Empty,
    Ended,
}

impl Pipe {
    fn read(&mut self, buffer: &mut [u8], output: &mut Output) -> Progress {
        match self.from.read(buffer) {
            Ok(0) => Progress::Ended,
            Ok(count) => {
                output.push(self.stream, buffer.get(..count).unwrap_or_default());
                Progress::Read(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Progress::Empty
            }
            // EIO: a terminal that nobody has open any more.
            Err(_) => Progress::Ended,
        }
    }

    /// What was written before the end; not what something that may stay goes on to write.
    fn drain(&mut self, buffer: &mut [u8], output: &mut Output) {
        let mut total = 0;
        while let Progress::Read(count) = self.read(buffer, output) {
            total += count;
            if total >= DRAIN_BYTES {
                return;
            }
        }
    }
}

/// Takes the status of every child that has ended: the main process, and orphans that this process adopted.
fn reap(main: Pid, status: &mut Option<WaitStatus>) {
    while let Ok(Some((pid, ended))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == main && (ended.exited() || ended.signaled()) {
            *status = Some(ended);
        }
    }
}

type Ends = (Vec<Pipe>, Stdio, Stdio);

fn two_pipes() -> io::Result<Ends> {
    let one = |stream| {
        let (from, to) = io::pipe()?;
        rustix::io::ioctl_fionbio(&from, true)?;
        io::Result::Ok((Pipe { stream, from: OwnedFd::from(from).into() }, Stdio::from(to)))
    };
    let (out, stdout) = one(Stream::Stdout)?;
    let (err, stderr) = one(Stream::Stderr)?;
    Ok((vec![out, err], stdout, stderr))
}

/// A terminal that changes nothing of what is written: no carriage returns, no echo.
fn terminal() -> io::Result<Ends> {
    use rustix::{
        pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
        termios::{LocalModes, OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    let mut modes = tcgetattr(&slave)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    modes.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let stderr = slave.as_fd().try_clone_to_owned()?;
    Ok((vec![Pipe { stream: Stream::Stdout, from: master.into() }], slave.into(), stderr.into()))
}

/// Goes on while the machine sleeps, and takes no notice of a clock that is set.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
