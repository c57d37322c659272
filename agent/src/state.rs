//! The state directory: its version, and the lock that keeps a second agent out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use consign_common::durable;
use rustix::fs::{FlockOperation, flock};

/// Raised when an older agent could no longer read what a newer one left here.
const VERSION: u32 = 1;

/// Paths below the state directory.
#[derive(Clone, Debug)]
pub struct StatePaths {
    root: PathBuf,
}

impl StatePaths {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.pem")
    }

    pub fn sealing_key(&self) -> PathBuf {
        self.root.join("sealing.key")
    }

    pub fn trust_roots(&self) -> PathBuf {
        self.root.join("trust-roots")
    }

    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    pub fn deployments(&self) -> PathBuf {
        self.root.join("deployments")
    }

    pub fn status_socket(&self) -> PathBuf {
        self.root.join("status.sock")
    }
}

/// The state directory, held by this process alone until it is dropped.
#[derive(Debug)]
pub struct LockedState {
    pub paths: StatePaths,
    /// The lock ends when this is closed, however the process ends.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path} is in use by another consign-agent{}", .pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, pid: Option<String> },
    #[error(
        "{path} was written by a newer consign-agent (state version {found}, this one reads up to {VERSION}); install that version again"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("{path} does not hold a state version: {content:?}")]
    BadVersion { path: PathBuf, content: String },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl LockedState {
    /// Makes the directory where it is missing, takes the lock, checks the version.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { path: root.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io)?;
        close_to_others(root).map_err(io)?;
        let lock = lock(root)?;
        match read_version(root)? {
            Some(_) => {}
            None => {
                let version = format!("{VERSION}\n");
                durable::replace_file(&root.join("version"), version.as_bytes(), 0o600).map_err(io)?;
            }
        }
        Ok(Self { paths: StatePaths::new(root), _lock: lock })
    }
}

/// One that was there already may have been made with another mode: orders, logs and keys are nobody else's business.
fn close_to_others(root: &Path) -> io::Result<()> {
    let found = fs::metadata(root)?;
    let own = rustix::process::geteuid();
    if found.uid() != own.as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to user {}, the agent runs as user {}",
            found.uid(),
            own.as_raw()
        )));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The version of the state; `None` where there is no state yet. A newer one is an error.
pub fn read_version(root: &Path) -> Result<Option<u32>, StateError> {
    let path = root.join("version");
    let content = match fs::read_to_string(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { path, source }),
    };
    match content.trim().parse() {
        Ok(found) if found > VERSION => Err(StateError::Newer { path: root.into(), found }),
        Ok(found) => Ok(Some(found)),
        Err(_) => Err(StateError::BadVersion { path, content: content.chars().take(40).collect() }),
    }
}

fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join("lock");
    let io = |source| StateError::Io { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only for the message: whoever holds the lock wrote it.
            let read = (&mut file).take(20).read_to_string(&mut pid);
            let pid = read.ok().map(|_| pid.trim().to_owned()).filter(|pid| pid.parse::<u32>().is_ok());
            return Err(StateError::InUse { path: root.into(), pid });
        }
        Err(error) => return Err(io(error.into())),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let first = LockedState::open(&root).unwrap();
        let refused = LockedState::open(&root).unwrap_err().to_string();
        assert!(refused.contains("in use") && refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        LockedState::open(&root).unwrap();
    }

    #[test]
    fn one_that_others_could_read_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        drop(LockedState::open(dir.path()).unwrap());
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
            let refused = LockedState::open(dir.path()).unwrap_err().to_string();
            assert!(refused.contains("belongs to user 65534"), "{refused}");
        }
    }

    #[test]
    fn newer_and_broken_versions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("version"), "2\n").unwrap();
        assert!(matches!(LockedState::open(dir.path()), Err(StateError::Newer { found: 2, .. })));
        fs::write(dir.path().join("version"), "two").unwrap();
        assert!(matches!(LockedState::open(dir.path()), Err(StateError::BadVersion { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("version")).unwrap(), "two", "left as it was");
    }
}
