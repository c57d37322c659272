//! Processes as `/proc` tells of them. Everything read here may be stale: a signal goes only to a process that is
//! still the one that was seen.

use std::{collections::HashMap, fs, io};

use super::masking::masked;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Characters of a command line that are kept.
const COMMAND_CHARACTERS: usize = 200;
pub(super) const MARK_NAME: &str = "CONSIGN_ATTEMPT";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) start_ticks: u64,
}

/// Distinguishes one boot of this machine from another, as its first process sees it.
///
/// A container has a boot id of its own, mounted over the kernel's; the agent's sandbox mounts `/proc/sys` anew, and the
/// kernel's shows again. The agent, its supervisors and what a timer starts would each believe in another boot.
pub fn boot_id() -> io::Result<String> {
    const OWN: &str = "/proc/sys/kernel/random/boot_id";
    // Not to be looked at without root, but then the agent has no sandbox that its children do not have.
    let text = fs::read_to_string(format!("/proc/1/root{OWN}")).or_else(|_| fs::read_to_string(OWN))?;
    Ok(text.trim().to_owned())
}

/// A process that lives. `None` for one that does not exist, or only waits to be reaped.
pub(super) fn see(pid: u32) -> Option<Seen> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses and newlines too: fields are counted from the last one.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Seen {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// All that live, by pid.
pub(super) fn all() -> io::Result<HashMap<u32, Seen>> {
    let mut table = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(seen) = name.to_str().and_then(|name| name.parse().ok()).and_then(see) {
            table.insert(seen.pid, seen);
        }
    }
    Ok(table)
}

/// The attempt that a process belongs to by its environment. `None` also where it may not be read.
pub(super) fn mark_of(pid: u32) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variable = environment.split(|byte| *byte == 0).find_map(|variable| {
        variable.strip_prefix(MARK_NAME.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    });
    variable.map(<[u8]>::to_vec)
}

/// The command line in one safe line, with secrets masked; in brackets the name of a process that has none.
pub(super) fn command_of(pid: u32, secrets: &[String]) -> String {
    let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line: Vec<u8> = read("cmdline").split(|byte| *byte == 0).collect::<Vec<_>>().join(&b' ');
    // Before anything is cut off or escaped: half a secret would not be found any more.
    let line = masked(secrets, &line);
    let text = match line.trim_ascii() {
        [] => format!("[{}]", String::from_utf8_lossy(read("comm").trim_ascii())),
        line => String::from_utf8_lossy(line).into_owned(),
    };
    consign_common::terminal::escape_line(&text).chars().take(COMMAND_CHARACTERS).collect()
}

/// Signals the process that was seen, and no other that has its pid by now. One that is gone is none.
pub(super) fn signal(seen: Seen, signal: Signal) {
    let Some(pid) = i32::try_from(seen.pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if see(seen.pid).is_some_and(|now| now.start_ticks == seen.start_ticks) {
        // It may end between the two calls, and that is all that was wanted.
        let _ = pidfd_send_signal(&handle, signal);
    }
}
