//! Manifests on this server's disk: `<state>/artifacts/<digest>/manifest.json`. Named by what they are, and hashed
//! again whenever they are read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use consign_common::{digest::Sha256, durable};

#[derive(Clone, Debug)]
pub struct Documents {
    directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} was changed: its sha256 is not its name")]
    Changed { path: PathBuf },
}

impl Documents {
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("artifacts") }
    }

    /// The manifest's bytes, if they are here.
    pub fn manifest(&self, digest: Sha256) -> Result<Option<Vec<u8>>, DocumentsError> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) if Sha256::of(&bytes) == digest => Ok(Some(bytes)),
            Ok(_) => Err(DocumentsError::Changed { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DocumentsError::Io { path, source }),
        }
    }

    /// Keeps a manifest; durable on return.
    pub fn keep(&self, bytes: &[u8]) -> Result<(), DocumentsError> {
        let path = self.path(Sha256::of(bytes));
        let io = |source| DocumentsError::Io { path: path.clone(), source };
        for directory in [Some(self.directory.as_path()), path.parent()].into_iter().flatten() {
            match durable::create_dir(directory, 0o700) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
                Ok(()) | Err(_) => {}
            }
        }
        durable::replace_file(&path, bytes, 0o600).map_err(io)
    }

    fn path(&self, digest: Sha256) -> PathBuf {
        self.directory.join(digest.to_string()).join("manifest.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_kept_and_a_changed_one_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let documents = Documents::new(dir.path());
        let digest = Sha256::of(b"{}");
        assert_eq!(documents.manifest(digest).unwrap(), None);
        documents.keep(b"{}").unwrap();
        documents.keep(b"{}").unwrap();
        assert_eq!(documents.manifest(digest).unwrap().as_deref(), Some(&b"{}"[..]));
        fs::write(documents.path(digest), b"{ }").unwrap();
        assert!(matches!(documents.manifest(digest), Err(DocumentsError::Changed { .. })));
    }
}
