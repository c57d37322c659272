//! The coordinator's directory: one owner, one process.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// The state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held for its lock, which the kernel lets go of however the process ends.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another `consign serve` is running on {dir}; stop it first, or choose another --state")]
    InUse { dir: PathBuf },
    #[error("{dir} belongs to user {owner}, not to the user that runs this ({own}); it holds private keys")]
    Foreign { dir: PathBuf, owner: u32, own: u32 },
    #[error("{path} cannot be used as the state directory")]
    Io { path: PathBuf, source: io::Error },
}

impl StateDir {
    /// Opens the directory, or makes it, and takes its lock.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        private_dir(root).map_err(io(root))?;
        let metadata = fs::metadata(root).map_err(io(root))?;
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own {
            return Err(StateError::Foreign { dir: root.to_owned(), owner: metadata.uid(), own });
        }
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io(&path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::InUse { dir: root.to_owned() }),
            Err(error) => return Err(StateError::Io { path, source: error.into() }),
        }
        let state = Self { root: root.to_owned(), _lock: lock };
        for dir in [state.artifacts(), state.uploads(), state.logs(), state.identity()] {
            private_dir(&dir).map_err(io(&dir))?;
        }
        Ok(state)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("consign.db")
    }

    pub fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("consign.sock")
    }

    /// Where `serve` says which addresses it really listens on.
    pub fn addresses(&self) -> PathBuf {
        self.root.join("addresses.json")
    }
}

/// A directory for our eyes only, also when somebody else made it before.
fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_on_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let first = StateDir::open(&root).unwrap();
        assert!(matches!(StateDir::open(&root), Err(StateError::InUse { .. })));
        drop(first);
        StateDir::open(&root).unwrap();
    }

    #[test]
    fn nobody_else_can_look_in() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/state")).unwrap();
        for path in [state.root(), &state.artifacts(), &state.identity()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
        }
    }
}
