//! A cgroup (v2) for each attempt: its processes cannot leave it without privileges, and are killed in one act. Only
//! `cgroup.procs`, `cgroup.kill` and `cgroup.events` are used, so that no controller is needed, and a machine that has
//! v1 hierarchies beside the unified one is as good.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use consign_common::{deployment::Attempt, name::Id};

/// Where attempts' cgroups may be made.
#[derive(Clone, Debug)]
pub(super) struct Subtree(PathBuf);

#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

impl Subtree {
    /// The part of the hierarchy that is this supervisor's to use, if there is one. Under systemd: the cgroup of the
    /// supervisor's own unit, which was delegated; in another's unit nothing may be made. Without systemd: a cgroup
    /// beneath the one it was started in.
    pub(super) fn prepare(deployment: &Id) -> Option<Self> {
        let own = own_cgroup()?;
        let unit = format!("consign-deployment-{deployment}.service");
        if own.file_name().is_some_and(|name| name == unit.as_str()) {
            // Processes stand in leaves only: the supervisor moves out of the way.
            let leaf = own.join("supervisor");
            create(&leaf).ok()?;
            add(&leaf, std::process::id()).ok()?;
            return Some(Self(own));
        }
        if Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        let base = own.join(format!("consign-deployment-{deployment}"));
        create(&base).ok()?;
        Some(Self(base))
    }

    /// A new cgroup for the attempt. `None` where the kernel refuses or is too old to kill it.
    pub(super) fn attempt(&self, attempt: Attempt) -> Option<Cgroup> {
        let path = self.0.join(format!("attempt-{attempt}"));
        create(&path).ok()?;
        let cgroup = Cgroup(path);
        if cgroup.0.join("cgroup.kill").exists() {
            return Some(cgroup);
        }
        cgroup.remove();
        None
    }

    /// How often the kernel killed for memory in all of it, where that is counted.
    pub(super) fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        field(&events, "oom_kill").unwrap_or(0)
    }

    /// Fails, and leaves it, while something stayed in it.
    pub(super) fn remove(&self) {
        drop(fs::remove_dir(&self.0));
    }
}

impl Cgroup {
    /// The cgroup that an attempt's identity names; only a path that this module could have made.
    pub(super) fn recorded(path: &str) -> Option<Self> {
        let path = PathBuf::from(path);
        let ours = path.file_name()?.to_str()?.strip_prefix("attempt-")?.parse::<Attempt>().is_ok();
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        (ours && plain && path.starts_with(mount()?.point) && path.is_dir()).then_some(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        add(&self.0, pid)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// KILL to all in it and beneath it, also to what is forked meanwhile.
    pub(super) fn kill(&self) {
        // Gone, or an old kernel's: then the processes are signalled one by one.
        drop(fs::write(self.0.join("cgroup.kill"), "1"));
    }

    /// Whether anything lives in it or beneath it.
    pub(super) fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        field(&events, "populated") == Some(1)
    }

    pub(super) fn remove(&self) {
        remove_tree(&self.0);
    }
}

/// What a lost supervisor could not remove: the deployment's own cgroup, where that is no unit of systemd's. Stays while
/// anything is in it.
pub(super) fn remove_lost_subtree(attempt: &Cgroup) {
    if let Some(parent) = attempt.0.parent()
        && let Some(name) = parent.file_name().and_then(|name| name.to_str())
        && name.starts_with("consign-deployment-")
        && !name.ends_with(".service")
    {
        drop(fs::remove_dir(parent));
    }
}

fn create(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn add(path: &Path, pid: u32) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
}

/// A step may have made cgroups beneath its own; they are empty by now.
fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    drop(fs::remove_dir(path));
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

struct Mount {
    /// The path within the hierarchy that is visible at `point`.
    root: PathBuf,
    point: PathBuf,
}

fn mount() -> Option<Mount> {
    parse_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn own_cgroup() -> Option<PathBuf> {
    let mount = mount()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(mount.point.join(Path::new(path).strip_prefix(&mount.root).ok()?))
}

fn parse_mount(mountinfo: &str) -> Option<Mount> {
    mountinfo.lines().find_map(|line| {
        let (mounted, source) = line.split_once(" - ")?;
        let mut fields = mounted.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        source.starts_with("cgroup2 ").then(|| Mount { root: root.into(), point: point.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_beside_v1() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 /docker/4f /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
";
        let mount = parse_mount(mountinfo).unwrap();
        assert_eq!(
            (mount.root.to_str(), mount.point.to_str()),
            (Some("/docker/4f"), Some("/sys/fs/cgroup/unified"))
        );
        assert!(parse_mount("35 31 0:32 / /x rw - cgroup cgroup2 rw\n").is_none());
    }

    #[test]
    fn a_recorded_path_that_we_never_made_is_not_killed() {
        for path in
            ["/", "/sys/fs/cgroup", "/tmp/attempt-deploy-0-1", "/sys/fs/cgroup/attempt-deploy-0-1/../x", ""]
        {
            assert!(Cgroup::recorded(path).is_none(), "{path}");
        }
    }
}
