//! `consign-agent exec-attempt`: the attempt's process before it is the attempt. It takes its place (session, terminal),
//! says that it is ready, waits to be told what to execute, and becomes that. Its standard input is a socket to the
//! supervisor; the socket closes when the program executes, or carries the reason why it cannot.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use nix::unistd::{Uid, User};
use rustix::{fs::Mode, io::Errno};
use serde::{Deserialize, Serialize};

use super::{
    protocol::read_line,
    spec::{AttemptSpec, mark},
};
use consign_common::name::Id;

/// As a shell has it for a command that was found and cannot be executed.
const CANNOT_EXECUTE: u8 = 126;

/// What is executed, as the supervisor says it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Orders {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    user: Option<String>,
    tty: bool,
}

impl Orders {
    /// `files`: by variable, the paths of secrets.
    pub(super) fn new(
        spec: &AttemptSpec,
        deployment: &Id,
        files: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let mut env = spec.env.clone();
        env.extend(files);
        env.insert(super::processes::MARK_NAME.to_owned(), mark(deployment, spec.attempt));
        Self { argv: spec.argv.clone(), env, cwd: spec.cwd.clone(), user: spec.user.clone(), tty: spec.tty }
    }
}

/// The hidden subcommand. Returns only where nothing was executed.
pub fn exec_attempt() -> ExitCode {
    close_inherited();
    // Closes by itself when the program executes.
    let Ok(mut link) = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map(File::from) else {
        return ExitCode::from(CANNOT_EXECUTE);
    };
    let ready = rustix::process::setsid()
        .map_err(io::Error::from)
        .and_then(|_| Ok(nix::unistd::dup2_stdin(File::open("/dev/null")?)?));
    let because = match ready {
        Err(error) => format!("its session could not be made: {}", describe(error)),
        Ok(()) => {
            // No orders: the supervisor is gone, or the attempt was cancelled before it began.
            let orders = link.write_all(b"+").and_then(|()| read_line::<Orders>(&link));
            let Ok(orders) = orders else { return ExitCode::from(CANNOT_EXECUTE) };
            become_it(orders)
        }
    };
    // If the supervisor is gone, there is nobody to tell.
    drop(link.write_all(because.as_bytes()));
    ExitCode::from(CANNOT_EXECUTE)
}

/// Whatever whoever started the agent left open must not reach a step. Nothing of this process is open yet but 0, 1, 2.
fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = open.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The directory's own was among them, and is closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Returns why it could not.
fn become_it(orders: Orders) -> String {
    let Orders { argv, mut env, cwd, user, tty } = orders;
    if tty {
        let terminal = rustix::process::ioctl_tiocsctty(io::stdout());
        if let Err(error) = terminal {
            return format!("its terminal could not be made its own: {}", describe(error.into()));
        }
        env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let account = match account(user.as_deref()) {
        Ok(account) => account,
        Err(because) => return because,
    };
    if let Some(account) = &account {
        for (name, value) in [
            ("HOME", account.dir.to_string_lossy()),
            ("SHELL", account.shell.to_string_lossy()),
            ("USER", account.name.as_str().into()),
            ("LOGNAME", account.name.as_str().into()),
        ] {
            env.entry(name.to_owned()).or_insert_with(|| value.into_owned());
        }
        if user.is_some()
            && account.uid != nix::unistd::geteuid()
            && let Err(because) = switch(account)
        {
            return because;
        }
    }
    if let Err(error) = std::env::set_current_dir(&cwd) {
        return format!("working directory {}: {}", cwd.display(), describe(error));
    }
    let Some((name, arguments)) = argv.split_first() else { return "no program was given".to_owned() };
    let program = match find(name, env.get("PATH").map(String::as_str).unwrap_or_default()) {
        Ok(program) => program,
        Err(error) => return format!("{name}: {}", describe(error)),
    };
    let error = execute(name, &program, arguments, &env);
    if error.kind() == io::ErrorKind::NotFound && program.exists() {
        return format!("{name}: its interpreter does not exist (ENOENT)");
    }
    format!("{name}: {}", describe(error))
}

/// Signals are as a program expects them: nothing blocked, SIGPIPE at its default. `Command::exec` does both.
fn execute(name: &str, program: &Path, arguments: &[String], env: &BTreeMap<String, String>) -> io::Error {
    // A file without a known beginning would be given to /bin/sh by the C library; the kernel alone decides instead.
    if !has_known_format(program) {
        let strings = |texts: Vec<String>| texts.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let argv = std::iter::once(name.to_owned()).chain(arguments.iter().cloned()).collect();
        let variables = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let path = CString::new(program.as_os_str().as_encoded_bytes());
        let (Ok(path), Ok(argv), Ok(variables)) = (path, strings(argv), strings(variables)) else {
            return io::ErrorKind::InvalidInput.into();
        };
        return match nix::unistd::execve(&path, &argv, &variables) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        };
    }
    Command::new(program).arg0(name).args(arguments).env_clear().envs(env).exec()
}

/// ELF or `#!`. A file that may be executed and not be read counts as known: scripts must be readable.
fn has_known_format(program: &Path) -> bool {
    let mut first = [0; 4];
    match File::open(program).and_then(|mut file| file.read(&mut first)) {
        Ok(_) => first == *b"\x7fELF" || first.starts_with(b"#!"),
        Err(_) => true,
    }
}

/// A name without `/` is looked up in the step's own PATH.
fn find(name: &str, path: &str) -> io::Result<PathBuf> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let mut refusal = Errno::NOENT;
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = Path::new(directory).join(OsStr::new(name));
        match std::fs::metadata(&candidate) {
            Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => refusal = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(refusal.into())
}

fn account(user: Option<&str>) -> Result<Option<User>, String> {
    match user {
        Some(name) => match User::from_name(name) {
            Ok(Some(account)) => Ok(Some(account)),
            Ok(None) => Err(format!("no such user: {name}")),
            Err(error) => Err(format!("user {name}: {}", describe(error.into()))),
        },
        // Without an entry there is no home to tell of, and that is no failure.
        None => Ok(User::from_uid(Uid::effective()).ok().flatten()),
    }
}

/// Groups first, the user last: after it nothing may be changed any more.
fn switch(account: &User) -> Result<(), String> {
    let name = &account.name;
    if !nix::unistd::geteuid().is_root() {
        return Err(format!("cannot become {name}: the agent does not run as root"));
    }
    let c_name = CString::new(name.as_str()).map_err(|_| format!("no such user: {name}"))?;
    nix::unistd::initgroups(&c_name, account.gid)
        .and_then(|()| nix::unistd::setgid(account.gid))
        .and_then(|()| nix::unistd::setuid(account.uid))
        .map_err(|error| format!("cannot become {name}: {}", describe(error.into())))?;
    let users = nix::unistd::getresuid().map_err(|error| describe(error.into()))?;
    let groups = nix::unistd::getresgid().map_err(|error| describe(error.into()))?;
    let is_whole = [users.real, users.effective, users.saved].iter().all(|uid| *uid == account.uid)
        && [groups.real, groups.effective, groups.saved].iter().all(|gid| *gid == account.gid);
    is_whole
        .then_some(())
        .ok_or_else(|| format!("cannot become {name}: only a part of the switch took effect"))
}

fn describe(error: io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "does not exist (ENOENT)".to_owned(),
        Some(Errno::ACCESS) => "permission denied (EACCES)".to_owned(),
        Some(Errno::NOEXEC) => "neither a binary for this machine nor a script with #! (ENOEXEC)".to_owned(),
        Some(Errno::NOTDIR) => "not a directory (ENOTDIR)".to_owned(),
        Some(_) | None => error.to_string(),
    }
}
