//! How an attempt ended, on disk before anyone is told. The file is allocated before the attempt executes anything, so
//! that a full disk cannot take the outcome away. Format: docs/formats.md, "supervisor record".

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use consign_common::{
    crash,
    deployment::{Attempt, Failure, Leftover, StepOutcome},
    time::UnixMs,
};
use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use super::spec::AttemptIdentity;

/// Every `<attempt>.exit` has this length from its creation on.
pub const EXIT_RECORD_BYTES: usize = 8192;

const MAGIC: &[u8; 8] = b"CNSGNEX1";
const HEADER_BYTES: usize = 16;
/// Characters of a message that came from outside.
const MESSAGE_CHARACTERS: usize = 400;
/// How often a record is looked at that seems corrupt. A write of two pages takes microseconds; a writer that has to wait
/// for its processor between the two takes longer.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRecord {
    pub identity: AttemptIdentity,
    pub result: StepOutcome,
    pub started_at: UnixMs,
    pub ended_at: UnixMs,
    pub duration_ms: u64,
    /// Bytes of the log file that are whole records.
    pub log_length: u64,
    /// Bytes of output that are not in the log: over its limit, or while the disk was full.
    pub missing_bytes: u64,
    /// Processes that stayed, as many as fit here.
    pub leftovers: Vec<Leftover>,
    pub leftovers_omitted: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidExitRecord {
    #[error("failed to read {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not an exit record: {fault}")]
    Corrupt { path: PathBuf, fault: &'static str },
    #[error("{path} is about {given}")]
    Other { path: PathBuf, given: Attempt },
}

impl ExitRecord {
    /// The record of an attempt, if it has ended: believed also when its supervisor is gone. `None`: it never began,
    /// or has not ended.
    ///
    /// A reader may come in the middle of the one write, and see a part of it: what seems corrupt is looked at again
    /// before it is called so.
    pub fn read(directory: &Path, attempt: Attempt) -> Result<Option<Self>, InvalidExitRecord> {
        let mut looks = 1;
        loop {
            match Self::look(directory, attempt) {
                Err(InvalidExitRecord::Corrupt { .. }) if looks < LOOKS => {
                    looks += 1;
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                seen => return seen,
            }
        }
    }

    fn look(directory: &Path, attempt: Attempt) -> Result<Option<Self>, InvalidExitRecord> {
        let path = path(directory, attempt);
        let corrupt = |fault| InvalidExitRecord::Corrupt { path: path.clone(), fault };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(InvalidExitRecord::Io { path, source }),
        };
        let mut bytes = Vec::with_capacity(EXIT_RECORD_BYTES);
        let limit = u64::try_from(EXIT_RECORD_BYTES + 1).unwrap_or(u64::MAX);
        if let Err(source) = file.take(limit).read_to_end(&mut bytes) {
            return Err(InvalidExitRecord::Io { path, source });
        }
        match decode(&bytes).map_err(corrupt)? {
            Some(record) if record.identity.attempt != attempt => {
                Err(InvalidExitRecord::Other { path, given: record.identity.attempt })
            }
            other => Ok(other),
        }
    }

    /// The file's bytes. What does not fit of leftovers is left out, and counted.
    pub(super) fn encode(mut self) -> io::Result<Vec<u8>> {
        if let StepOutcome::Failed { failure: Failure::Exec { message } } = &mut self.result {
            *message = message.chars().take(MESSAGE_CHARACTERS).collect();
        }
        loop {
            let json = serde_json::to_vec(&self)?;
            if json.len() <= EXIT_RECORD_BYTES - HEADER_BYTES {
                let mut bytes = Vec::with_capacity(EXIT_RECORD_BYTES);
                bytes.extend_from_slice(MAGIC);
                bytes.extend_from_slice(&u32::try_from(json.len()).unwrap_or(0).to_le_bytes());
                bytes.extend_from_slice(&checksum(&json).to_le_bytes());
                bytes.extend_from_slice(&json);
                bytes.resize(EXIT_RECORD_BYTES, 0);
                return Ok(bytes);
            }
            if self.leftovers.pop().is_none() {
                return Err(io::Error::other("an exit record without leftovers is too long"));
            }
            self.leftovers_omitted += 1;
        }
    }
}

/// The file whose space is taken and whose content is still to come.
#[derive(Debug)]
pub(super) struct Reserved(File);

impl Reserved {
    /// Fails where the file exists: an attempt begins once.
    pub(super) fn create(directory: &Path, attempt: Attempt) -> io::Result<Self> {
        crash::point("exit-reserve-before");
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(directory, attempt))?;
        let length = u64::try_from(EXIT_RECORD_BYTES).unwrap_or(u64::MAX);
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => {}
            // A filesystem without fallocate (zfs): zeros take the space as well as that filesystem can promise.
            Err(rustix::io::Errno::OPNOTSUPP) => file.write_all_at(&[0; EXIT_RECORD_BYTES], 0)?,
            Err(error) => return Err(error.into()),
        }
        crash::point("exit-reserve-sync-before");
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        crash::point("exit-reserve-after");
        Ok(Self(file))
    }

    pub(super) fn write(self, record: ExitRecord) -> io::Result<()> {
        crash::point("exit-record-before");
        self.0.write_all_at(&record.encode()?, 0)?;
        crash::point("exit-record-sync-before");
        self.0.sync_data()?;
        crash::point("exit-record-after");
        Ok(())
    }
}

pub(super) fn path(directory: &Path, attempt: Attempt) -> PathBuf {
    directory.join(format!("{attempt}.exit"))
}

fn decode(bytes: &[u8]) -> Result<Option<ExitRecord>, &'static str> {
    // Created, and the power was lost before its space was allocated; or allocated and never written.
    if bytes.iter().all(|byte| *byte == 0) && bytes.len() <= EXIT_RECORD_BYTES {
        return Ok(None);
    }
    if bytes.len() != EXIT_RECORD_BYTES {
        return Err("its length is wrong");
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err("its length is wrong");
    };
    let Some(fields) = header.strip_prefix(MAGIC) else { return Err("its first bytes are wrong") };
    let Some((length, sum)) = fields.split_first_chunk::<4>() else { return Err("its header is short") };
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| "its content is too long")?;
    let json = rest.get(..length).ok_or("its content is too long")?;
    if checksum(json).to_le_bytes() != sum {
        return Err("its checksum is wrong");
    }
    if rest.iter().skip(length).any(|byte| *byte != 0) {
        return Err("there is something after its content");
    }
    serde_json::from_slice(json).map(Some).map_err(|_| "its content is not understood")
}

fn checksum(json: &[u8]) -> u32 {
    consign_common::deployment::log::crc32(json)
}

#[cfg(test)]
mod tests {
    use consign_common::{name::Id, plan::Phase};

    use super::*;
    use crate::supervisor::spec::Process;

    const ATTEMPT: Attempt = Attempt { phase: Phase::Deploy, step: 3, number: 1 };

    fn record() -> ExitRecord {
        ExitRecord {
            identity: AttemptIdentity {
                deployment: Id::from_bytes([0xab; 16]),
                attempt: ATTEMPT,
                boot_id: "0d5c1d4e-7b1c-4a37-a7d5-3a2a5b5ce6f1".to_owned(),
                process: Some(Process { pid: 4711, start_ticks: 123_456, cgroup: None }),
            },
            result: StepOutcome::Failed { failure: Failure::Exit { code: 2 } },
            started_at: UnixMs(1_700_000_000_000),
            ended_at: UnixMs(1_700_000_001_500),
            duration_ms: 1500,
            log_length: 104,
            missing_bytes: 0,
            leftovers: vec![Leftover { pid: 4712, command: "bin/worker --queue".to_owned() }],
            leftovers_omitted: 0,
        }
    }

    #[test]
    fn the_golden_file_is_read_and_written_byte_for_byte() {
        let golden: &[u8] = include_bytes!("../../tests/golden/exit-record.golden");
        assert_eq!(record().encode().unwrap(), golden);
        assert_eq!(decode(golden), Ok(Some(record())));
    }

    /// One page of the record is there, the other is still to come.
    #[test]
    fn a_record_that_is_being_written_is_read_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = path(directory.path(), ATTEMPT);
        let whole = record().encode().unwrap();
        let mut half = whole.clone();
        half[100..].fill(0);
        std::fs::write(&file, &half).unwrap();
        let writer = std::thread::spawn({
            let file = file.clone();
            move || {
                std::thread::sleep(BETWEEN_LOOKS);
                OpenOptions::new().write(true).open(file).unwrap().write_all_at(&whole, 0).unwrap();
            }
        });
        assert_eq!(ExitRecord::read(directory.path(), ATTEMPT).unwrap(), Some(record()));
        writer.join().unwrap();
        std::fs::write(&file, &half).unwrap();
        let fault = ExitRecord::read(directory.path(), ATTEMPT).unwrap_err();
        assert!(matches!(fault, InvalidExitRecord::Corrupt { .. }), "what stays so is corrupt");
    }

    #[test]
    fn a_reserved_record_is_no_outcome_and_a_written_one_is() {
        let directory = tempfile::tempdir().unwrap();
        assert!(ExitRecord::read(directory.path(), ATTEMPT).unwrap().is_none());
        let reserved = Reserved::create(directory.path(), ATTEMPT).unwrap();
        assert!(ExitRecord::read(directory.path(), ATTEMPT).unwrap().is_none());
        assert!(Reserved::create(directory.path(), ATTEMPT).is_err(), "an attempt begins once");
        reserved.write(record()).unwrap();
        assert_eq!(ExitRecord::read(directory.path(), ATTEMPT).unwrap(), Some(record()));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let bytes = record().encode().unwrap();
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 0x20;
            assert!(decode(&flipped).is_err(), "byte {index}");
        }
        for length in 1..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn more_leftovers_than_fit_are_counted() {
        let leftover = |pid| Leftover { pid, command: "x".repeat(100) };
        let many = ExitRecord { leftovers: (1..=500).map(leftover).collect(), ..record() };
        let read = decode(&many.encode().unwrap()).unwrap().unwrap();
        assert!(read.leftovers.len() > 10);
        assert_eq!(read.leftovers.len() + usize::try_from(read.leftovers_omitted).unwrap(), 500);
    }
}
