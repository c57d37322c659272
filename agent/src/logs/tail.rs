//! One attempt's log file, read in whole records.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use consign_common::deployment::log::Decoder;

use crate::ports::PendingLog;

/// Bytes of records in one chunk; no record is longer.
pub(super) const CHUNK: usize = 64 << 10;
/// Bytes on their way for one attempt: enough to fill a long line, little enough to hold for all attempts.
pub(super) const IN_FLIGHT: u64 = 1 << 20;
/// Acknowledged bytes that may be sent again after a crash, so that not every acknowledgement costs a write.
const RECORD_EVERY: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct Tail {
    pub log: PendingLog,
    file: Option<Arc<File>>,
    /// Everything before has been handed to the stream.
    sent: u64,
    acknowledged: u64,
    /// What the journal knows of `acknowledged`.
    recorded: u64,
    /// No more is read: a record is corrupt, or the file cannot be read.
    given_up: bool,
}

impl Tail {
    pub(super) fn new(log: PendingLog) -> Self {
        let start = log.acknowledged;
        Self { log, file: None, sent: start, acknowledged: start, recorded: start, given_up: false }
    }

    /// Whether more may come of its own accord.
    pub(super) fn grows(&self) -> bool {
        self.log.length.is_none() && !self.given_up
    }

    pub(super) fn is_done(&self) -> bool {
        self.log.length.is_some_and(|length| self.acknowledged >= length)
    }

    /// The next whole records and the offset that they begin at; `None` when there is nothing to send now.
    pub(super) async fn next_chunk(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.given_up || self.sent.saturating_sub(self.acknowledged) >= IN_FLIGHT {
            return None;
        }
        match self.read().await {
            Ok(records) if records.is_empty() => None,
            Ok(records) => {
                let offset = self.sent;
                self.sent += records.len() as u64;
                Some((offset, records))
            }
            Err(error) => {
                tracing::error!(path = %self.log.path.display(), offset = self.sent, %error, "this log cannot be sent further");
                self.given_up = true;
                None
            }
        }
    }

    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let Some(file) = self.file()? else { return Ok(Vec::new()) };
        let end = file.metadata()?.len().min(self.log.length.unwrap_or(u64::MAX));
        let wanted = usize::try_from(end.saturating_sub(self.sent)).unwrap_or(usize::MAX).min(CHUNK);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let offset = self.sent;
        let mut bytes = tokio::task::spawn_blocking(move || read_at(&file, offset, wanted)).await??;
        let mut decoder = Decoder::at(offset);
        decoder.push(&bytes);
        loop {
            match decoder.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // What is whole before it still goes out; the next read meets the corrupt record alone.
                Err(_) if decoder.offset() > offset => break,
                Err(corrupt) => return Err(io::Error::new(io::ErrorKind::InvalidData, corrupt)),
            }
        }
        bytes.truncate(usize::try_from(decoder.offset() - offset).unwrap_or(0));
        Ok(bytes)
    }

    /// `None` while the attempt has not made it yet. Before the first byte it is opened anew each time: an attempt whose
    /// supervisor was lost before it began is begun by another one, with another file in the place of an empty one.
    fn file(&mut self) -> io::Result<Option<Arc<File>>> {
        if self.file.is_none() || self.sent == 0 {
            match File::open(&self.log.path) {
                Ok(file) => self.file = Some(Arc::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.log.length.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.file.clone())
    }

    /// Takes an acknowledgement; they may come twice, late, or from beyond what this process sent, when the coordinator
    /// had more from an earlier session. Answers the offset to record, when it is time to.
    pub(super) fn acknowledge(&mut self, offset: u64) -> Option<u64> {
        let written = match (self.log.length, &self.file) {
            (Some(length), _) => length,
            (None, Some(file)) => file.metadata().map_or(self.sent, |metadata| metadata.len()),
            (None, None) => self.sent,
        };
        if offset > written.max(self.sent) {
            tracing::warn!(path = %self.log.path.display(), offset, written, "acknowledgement of bytes that do not exist");
            return None;
        }
        self.acknowledged = self.acknowledged.max(offset);
        self.sent = self.sent.max(offset);
        (self.is_done() || self.acknowledged - self.recorded >= RECORD_EVERY)
            .then(|| self.unrecorded())
            .flatten()
    }

    /// What the journal does not know yet; it is taken to be recorded from here on.
    pub(super) fn unrecorded(&mut self) -> Option<u64> {
        (self.acknowledged > self.recorded).then(|| {
            self.recorded = self.acknowledged;
            self.recorded
        })
    }
}

fn read_at(file: &File, offset: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; wanted];
    let mut have = 0;
    while have < wanted {
        let Some(rest) = bytes.get_mut(have..) else { break };
        match file.read_at(rest, offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use consign_common::{
        deployment::log::{Stream, encode_into},
        name::Id,
        time::UnixMs,
    };

    use super::*;

    #[tokio::test]
    async fn a_file_in_the_place_of_an_empty_one_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deploy-0-1.log");
        let (deployment, attempt) = (Id::from_bytes([7; 16]), "deploy-0-1".parse().unwrap());
        let mut tail =
            Tail::new(PendingLog { deployment, attempt, path: path.clone(), acknowledged: 0, length: None });
        std::fs::write(&path, []).unwrap();
        assert_eq!(tail.next_chunk().await, None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tail.next_chunk().await, None);
        let mut record = Vec::new();
        encode_into(&mut record, UnixMs(1), Stream::Stdout, b"from the second\n");
        std::fs::write(&path, &record).unwrap();
        assert_eq!(tail.next_chunk().await, Some((0, record)));
        assert_eq!(tail.next_chunk().await, None);
    }
}
