//! Why a release could not be brought in; each with the name under which the order is refused.

use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("{path} needs {needed} bytes more and has {available} bytes free")]
    DiskFull { path: PathBuf, needed: u64, available: u64 },
    #[error("{path} needs {needed} more files and directories than its filesystem has left ({available})")]
    InodesFull { path: PathBuf, needed: u64, available: u64 },
    #[error("the plan shares {path:?}, and {expected} does not exist; put it there, then deploy again")]
    SharedMissing { path: String, expected: PathBuf },
    #[error("the plan's steps run as user {user}, which does not exist on this server")]
    UserMissing { user: String },
    #[error("the pack does not hold what the manifest says: {why}")]
    Mismatch { why: String },
    #[error("{path} is in the way: it is not what consign put there")]
    InTheWay { path: PathBuf },
    #[error(
        "{path} can be written by others than the agent's user, who could change what was verified before it runs; \
         make it root's alone (`chown root:root {path}; chmod 755 {path}`), what the app writes belongs in shared/"
    )]
    OpenToOthers { path: PathBuf },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl StageError {
    /// The refusal's name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DiskFull { .. } | Self::InodesFull { .. } => "disk-full",
            Self::SharedMissing { .. } => "shared-missing",
            Self::UserMissing { .. } => "user-missing",
            Self::Mismatch { .. } => "pack-mismatch",
            Self::InTheWay { .. } => "in-the-way",
            Self::OpenToOthers { .. } => "open-to-others",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "disk-full",
            Self::Io { .. } => "staging-failed",
        }
    }

    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
