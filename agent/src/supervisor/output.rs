//! From pipe to log file: masked, framed, within its limit. Nothing that happens here stops a step: bytes over the
//! limit and bytes that a full disk does not take are counted, and a gap record says how many.
//!
//! The file only ever grows: a record that a full disk cut in two is completed when there is space again, before
//! anything else is written, so that no reader ever sees bytes change.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use consign_common::{
    crash,
    deployment::{
        Attempt,
        log::{self, HEADER_BYTES, Stream},
    },
    limits::LOG_RECORD_BYTES,
    time::{Clock, SystemClock, UnixMs},
};

use super::{masking::Masker, spec::AttemptSpec};

/// Bytes that are kept of the end of an output that is over its limit.
const TAIL_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Output {
    stdout: Masker,
    stderr: Masker,
    masked: Vec<u8>,
    log: LogFile<File>,
    limit: u64,
    /// Beyond the limit: the last bytes, and how many were let go before them.
    tail: VecDeque<(UnixMs, Stream, Vec<u8>)>,
    tail_bytes: usize,
    dropped: u64,
}

/// What the exit record says of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) length: u64,
    pub(super) missing: u64,
}

impl Output {
    /// Creates the attempt's log file; fails where it exists.
    pub(super) fn create(directory: &Path, spec: &AttemptSpec) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path(directory, spec.attempt))?;
        Ok(Self {
            stdout: Masker::new(&spec.secrets),
            stderr: Masker::new(&spec.secrets),
            masked: Vec::new(),
            log: LogFile::new(file),
            limit: spec.log_limit,
            tail: VecDeque::new(),
            tail_bytes: 0,
            dropped: 0,
        })
    }

    /// Takes bytes that the step wrote.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let mut masked = std::mem::take(&mut self.masked);
        masked.clear();
        match stream {
            Stream::Stderr => self.stderr.push(bytes, &mut masked),
            Stream::Stdout | Stream::System | Stream::Gap => self.stdout.push(bytes, &mut masked),
        }
        self.write(stream, &masked);
        self.masked = masked;
    }

    /// The agent's own words, a line each; written also over the limit.
    pub(super) fn say(&mut self, words: &str) {
        let words = format!("{words}\n");
        if self.dropped == 0 && self.tail.is_empty() {
            self.log.write(SystemClock.now(), Stream::System, words.as_bytes());
        } else {
            self.keep(SystemClock.now(), Stream::System, words.as_bytes());
        }
    }

    /// The end of both streams: everything is decided, written and on disk, as far as the disk takes it.
    pub(super) fn finish(mut self) -> Written {
        let mut rest = Vec::new();
        self.stdout.finish(&mut rest);
        self.write(Stream::Stdout, &rest);
        rest.clear();
        self.stderr.finish(&mut rest);
        self.write(Stream::Stderr, &rest);
        self.log.missing += self.dropped;
        self.log.unreported += self.dropped;
        for (at, stream, bytes) in std::mem::take(&mut self.tail) {
            self.log.write(at, stream, &bytes);
        }
        self.log.settle(SystemClock.now());
        // A failure here is one of the disk; the exit record that follows will meet it too.
        crash::point("log-sync-before");
        drop(self.log.file.sync_data());
        crash::point("log-sync-after");
        self.log.written()
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let at = SystemClock.now();
        for piece in bytes.chunks(LOG_RECORD_BYTES) {
            let length = u64::try_from(log::encoded_length(piece.len())).unwrap_or(u64::MAX);
            let is_over = self.log.written_or_pending().saturating_add(length) > self.limit;
            if !self.tail.is_empty() || self.dropped > 0 || is_over {
                self.keep(at, stream, piece);
            } else {
                self.log.write(at, stream, piece);
            }
        }
    }

    /// Keeps the newest [`TAIL_BYTES`]; what falls out at the other end is gone, and counted.
    fn keep(&mut self, at: UnixMs, stream: Stream, bytes: &[u8]) {
        // Small writes would make small records, whose headers are then more than their bytes.
        match self.tail.back_mut() {
            Some((_, last, kept)) if *last == stream && kept.len() + bytes.len() <= LOG_RECORD_BYTES => {
                kept.extend_from_slice(bytes);
            }
            Some(_) | None => self.tail.push_back((at, stream, bytes.to_vec())),
        }
        self.tail_bytes += bytes.len();
        while self.tail_bytes > TAIL_BYTES {
            let over = self.tail_bytes - TAIL_BYTES;
            let Some((_, _, oldest)) = self.tail.front_mut() else { return };
            let cut = over.min(oldest.len());
            oldest.drain(..cut);
            let is_empty = oldest.is_empty();
            self.tail_bytes -= cut;
            self.dropped += u64::try_from(cut).unwrap_or(0);
            if is_empty {
                self.tail.pop_front();
            }
        }
    }
}

pub(super) fn path(directory: &Path, attempt: Attempt) -> std::path::PathBuf {
    directory.join(format!("{attempt}.log"))
}

/// Appends whole records, or counts them.
#[derive(Debug)]
struct LogFile<W> {
    file: W,
    /// Bytes of whole records in the file.
    length: u64,
    /// The record that the disk took in part, and how much of it is there.
    pending: Vec<u8>,
    pending_written: usize,
    pending_data: u64,
    /// Output that is not in the file, and how much of it no gap record tells of yet.
    missing: u64,
    unreported: u64,
}

impl<W: Write> LogFile<W> {
    fn new(file: W) -> Self {
        Self {
            file,
            length: 0,
            pending: Vec::new(),
            pending_written: 0,
            pending_data: 0,
            missing: 0,
            unreported: 0,
        }
    }

    fn write(&mut self, at: UnixMs, stream: Stream, data: &[u8]) {
        for piece in data.chunks(LOG_RECORD_BYTES) {
            let length = u64::try_from(piece.len()).unwrap_or(0);
            self.report_gap(at);
            let fits =
                self.unreported == 0 && self.record(length, |out| log::encode_into(out, at, stream, piece));
            if !fits {
                self.missing += length;
                self.unreported += length;
            }
        }
    }

    /// Says how many bytes are missing here, if any are and there is space for it.
    fn report_gap(&mut self, at: UnixMs) {
        let missing = self.unreported;
        if missing > 0 && self.record(0, |out| log::encode_gap_into(out, at, missing)) {
            self.unreported = 0;
        }
    }

    /// The last attempt to write what is not written, and to say what is missing.
    fn settle(&mut self, at: UnixMs) {
        if self.pending.is_empty() || self.complete() {
            self.report_gap(at);
        }
    }

    fn written(&self) -> Written {
        // A record that was never completed is no part of the log.
        let lost = if self.pending.is_empty() { 0 } else { self.pending_data };
        Written { length: self.length, missing: self.missing + lost }
    }

    fn written_or_pending(&self) -> u64 {
        self.length + u64::try_from(self.pending.len()).unwrap_or(0)
    }

    /// Whether the record is in the file, or at least has begun there and will be completed first of all.
    fn record(&mut self, data: u64, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        if !self.pending.is_empty() && !self.complete() {
            return false;
        }
        self.pending.clear();
        encode(&mut self.pending);
        self.pending_written = 0;
        self.pending_data = data;
        crash::point("log-append-before");
        if !self.complete() && self.pending_written == 0 {
            self.pending.clear();
            return false;
        }
        crash::point("log-append-after");
        true
    }

    /// Writes what is pending; false where the disk does not take all of it.
    fn complete(&mut self) -> bool {
        while let Some(rest) = self.pending.get(self.pending_written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return false,
                Ok(count) => self.pending_written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.length += u64::try_from(self.pending.len()).unwrap_or(0);
        self.pending.clear();
        true
    }
}

const _: () = assert!(TAIL_BYTES >= LOG_RECORD_BYTES + HEADER_BYTES);

#[cfg(test)]
mod tests {
    use consign_common::deployment::log::{Decoder, Record};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A disk that takes a number of bytes, as often as it is given some.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        space: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.space);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..count]);
            self.space -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(bytes: &[u8]) -> Vec<Record> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        let mut records = Vec::new();
        while let Some(record) = decoder.next_record().unwrap() {
            records.push(record);
        }
        records
    }

    proptest! {
        #[test]
        fn a_full_disk_loses_only_what_gap_records_count(
            writes in vec((vec(any::<u8>(), 1..300), prop_oneof![Just(0_usize), 0..400_usize]), 1..40),
        ) {
            let mut log = LogFile::new(Disk::default());
            let mut sent = 0;
            for (data, space) in &writes {
                log.file.space += space;
                log.write(UnixMs(1), Stream::Stdout, data);
                sent += data.len() as u64;
            }
            log.file.space = usize::MAX;
            log.settle(UnixMs(2));
            let written = log.written();
            prop_assert_eq!(written.length, log.file.bytes.len() as u64);
            let records = read(&log.file.bytes);
            let gaps: u64 = records.iter().filter_map(Record::missing).sum();
            let kept: u64 = records.iter().filter(|r| r.missing().is_none()).map(|r| r.data.len() as u64).sum();
            prop_assert_eq!(gaps, written.missing);
            prop_assert_eq!(kept + gaps, sent);
        }
    }

    #[test]
    fn over_the_limit_the_last_bytes_are_kept_and_the_rest_is_counted_exactly() {
        let directory = tempfile::tempdir().unwrap();
        let spec = AttemptSpec {
            attempt: "deploy-0-1".parse().unwrap(),
            argv: vec!["x".to_owned()],
            env: Default::default(),
            cwd: "/".into(),
            user: None,
            timeout_ms: 1,
            grace_ms: 1,
            tty: false,
            leaves: false,
            secrets: Vec::new(),
            files: Default::default(),
            log_limit: 10_000,
        };
        let mut output = Output::create(directory.path(), &spec).unwrap();
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        for piece in text.chunks(1000) {
            output.push(Stream::Stdout, piece);
        }
        let written = output.finish();
        let bytes = std::fs::read(path(directory.path(), spec.attempt)).unwrap();
        assert_eq!(written.length, bytes.len() as u64);
        let records = read(&bytes);
        let gap = records.iter().position(|record| record.missing().is_some()).unwrap();
        let data = |records: &[Record]| records.iter().flat_map(|r| r.data.clone()).collect::<Vec<u8>>();
        let (head, tail) = (data(&records[..gap]), data(&records[gap + 1..]));
        assert!(text.starts_with(&head) && text.ends_with(&tail));
        assert_eq!(tail.len(), TAIL_BYTES);
        assert_eq!(records[gap].missing(), Some(written.missing));
        assert_eq!(head.len() as u64 + written.missing + tail.len() as u64, text.len() as u64);
    }
}
