//! The log of an attempt that runs in the agent: the same framed records as the supervisor writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use consign_common::{
    deployment::log::{Stream, encode_into},
    time::Clock,
};

/// Shared by all that one attempt does. Appends whole records, each with one write.
#[derive(Clone, Debug)]
pub(super) struct AttemptLog {
    file: Arc<Mutex<File>>,
    clock: Arc<dyn Clock>,
}

impl AttemptLog {
    pub(super) fn create(path: &Path, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)), clock })
    }

    /// The agent's own words; one line.
    pub(super) fn say(&self, line: impl std::fmt::Display) {
        self.write(Stream::System, format!("{line}\n").as_bytes());
    }

    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut records = Vec::new();
        encode_into(&mut records, self.clock.now(), stream, bytes);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not fail a check that came true; the outcome itself is in the journal.
        if let Err(error) = file.write_all(&records) {
            tracing::warn!(%error, "an attempt's log could not be written");
        }
    }
}
