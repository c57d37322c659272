//! The files themselves. Positions come from the database, never from a file's length: a crash may leave bytes that
//! nobody acknowledged, and they are written again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use consign_common::{
    deployment::{
        Attempt,
        log::{CorruptRecord, Decoder},
    },
    durable,
    name::Id,
};

#[derive(Clone, Debug)]
pub struct LogFiles {
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read or written")]
pub struct LogFileError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl LogFiles {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, deployment: &Id, attempt: Attempt) -> PathBuf {
        self.root.join(deployment.as_str()).join(format!("{attempt}.log"))
    }

    /// The attempt's file, made if it is not there, with its name durable. Blocks.
    pub fn open_for_append(&self, deployment: &Id, attempt: Attempt) -> Result<File, LogFileError> {
        let path = self.path(deployment, attempt);
        let failed = |source| LogFileError { path: path.clone(), source };
        let directory = self.root.join(deployment.as_str());
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => durable::sync_dir(&self.root).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        durable::sync_dir(&directory).map_err(failed)?;
        Ok(file)
    }

    /// These bytes, fewer if the file has fewer. Blocks.
    pub fn read(
        &self,
        deployment: &Id,
        attempt: Attempt,
        start: u64,
        length: usize,
    ) -> Result<Vec<u8>, LogFileError> {
        let path = self.path(deployment, attempt);
        let mut bytes = vec![0; length];
        let mut filled = 0;
        let outcome = File::open(&path).and_then(|file| {
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, start.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX))) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        match outcome {
            Ok(()) => {
                bytes.truncate(filled);
                Ok(bytes)
            }
            Err(source) => Err(LogFileError { path, source }),
        }
    }
}

/// How many of these bytes are whole records, each checked.
pub fn whole_records(bytes: &[u8], offset: u64) -> Result<usize, CorruptRecord> {
    let mut decoder = Decoder::at(offset);
    decoder.push(bytes);
    while decoder.next_record()?.is_some() {}
    Ok(bytes.len() - decoder.torn())
}
