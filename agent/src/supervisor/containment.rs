//! All processes of an attempt, however they try to get away: by cgroup, by session, by descent from the supervisor
//! (which adopts what loses its parent), by the mark in their environment.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use super::{
    cgroup::Cgroup,
    processes::{self, Seen, mark_of},
};

#[derive(Debug)]
pub(super) struct Containment {
    pub(super) mark: String,
    pub(super) cgroup: Option<Cgroup>,
    /// The leader of the attempt's session, by pid and start time.
    pub(super) leader: Option<(u32, u64)>,
    pub(super) seeker: Seeker,
}

/// Who looks for the processes.
#[derive(Clone, Debug)]
pub(super) enum Seeker {
    /// Their supervisor: whatever descends from it is of this attempt, but for what earlier ones were allowed to leave.
    Supervisor { stayed: Vec<Seen> },
    /// Another process, after the supervisor was lost.
    Stranger,
}

impl Containment {
    /// All that live now.
    pub(super) fn members(&self) -> Vec<Seen> {
        let Ok(table) = processes::all() else { return Vec::new() };
        let in_cgroup: HashSet<u32> = self.cgroup.iter().flat_map(Cgroup::pids).collect();
        let own = std::process::id();
        table
            .values()
            .filter(|seen| seen.pid != own)
            .filter(|seen| {
                in_cgroup.contains(&seen.pid)
                    || self.is_in_session(seen, &table)
                    || self.is_marked(seen, &table)
            })
            .copied()
            .collect()
    }

    /// TERM to all that live now.
    pub(super) fn terminate(&self) {
        for seen in self.members() {
            processes::signal(seen, Signal::TERM);
        }
    }

    /// KILL until nothing is left; a process that the kernel holds is waited for. `reap` is called in between, to take
    /// the exit status of children.
    pub(super) fn kill(&self, mut reap: impl FnMut()) {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(cgroup) = &self.cgroup {
                cgroup.kill();
            }
            let members = self.members();
            for seen in &members {
                processes::signal(*seen, Signal::KILL);
            }
            reap();
            if members.is_empty() && !self.cgroup.as_ref().is_some_and(Cgroup::is_populated) {
                break;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }

    fn is_in_session(&self, seen: &Seen, table: &HashMap<u32, Seen>) -> bool {
        let Some((leader, start_ticks)) = self.leader else { return false };
        // A pid is not given again while it is a session's: if another process has it now, the session is empty.
        let is_ours = table.get(&leader).is_none_or(|now| now.start_ticks == start_ticks);
        seen.session == leader && is_ours
    }

    fn is_marked(&self, seen: &Seen, table: &HashMap<u32, Seen>) -> bool {
        match (mark_of(seen.pid), &self.seeker) {
            (Some(mark), _) if mark == self.mark.as_bytes() => true,
            // Another attempt's; or nothing but the environment could say so.
            (Some(_), _) | (None, Seeker::Stranger) => false,
            (None, Seeker::Supervisor { stayed }) => is_descendant(seen, table, stayed),
        }
    }
}

/// Whether the process descends from this one, and not by way of one that was allowed to stay.
fn is_descendant(seen: &Seen, table: &HashMap<u32, Seen>, stayed: &[Seen]) -> bool {
    let own = std::process::id();
    let mut at = *seen;
    // The table is no snapshot, so that a circle is not impossible.
    for _ in 0..table.len() {
        if stayed.iter().any(|other| (other.pid, other.start_ticks) == (at.pid, at.start_ticks)) {
            return false;
        }
        if at.parent == own {
            return true;
        }
        match table.get(&at.parent) {
            Some(parent) => at = *parent,
            None => return false,
        }
    }
    false
}
