//! What agent and supervisor say to each other: on a connection one request and one reply, each a line of strict JSON.
//! Variants without fields have braces: serde then refuses fields that do not belong there. The socket lies in a directory that only the agent's user may enter.

use std::{
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use consign_common::deployment::Attempt;
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    exit_record::ExitRecord,
    spec::{AttemptIdentity, AttemptSpec},
};

/// Bytes of a line, its newline included: a plan with all its parameters fits many times.
pub(super) const LINE_BYTES: u64 = 4 << 20;

const SOCKET: &str = "supervisor.sock";

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// Create the attempt's process, which waits; again for the same attempt: tell how it stands.
    Run { spec: Box<AttemptSpec> },
    /// Let it execute.
    Release { attempt: Attempt },
    /// Answer when it has ended.
    Wait { attempt: Attempt },
    /// TERM, grace, KILL; answered at once, its end comes through `Wait`.
    Cancel { attempt: Attempt },
    /// Exit, unless an attempt runs.
    ShutDown {},
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Reply {
    Done {},
    Spawned { identity: AttemptIdentity },
    Finished { exit: Box<ExitRecord> },
    Refused { because: String },
}

/// The socket's address by way of an open directory: a path of any length fits the 108 bytes of an address.
#[derive(Debug)]
pub(super) struct Address {
    directory: OwnedFd,
}

impl Address {
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::openat(CWD, directory, flags, Mode::empty())? })
    }

    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()).into()
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }
}

pub(super) fn write_line(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&line(message)?)
}

pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn read_line<T: DeserializeOwned>(from: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    io::BufRead::read_until(&mut io::BufReader::new(from.take(LINE_BYTES)), b'\n', &mut line)?;
    parse(&line)
}

/// A whole line; one without newline was cut off or is too long.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    let document = line.strip_suffix(b"\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_slice(document)?)
}
