//! Log records: the bytes of an attempt's log file, on the server, on the wire and at the coordinator alike. An offset
//! is a position in that file and always lies between two records. Format: docs/formats.md, "log record".
//!
//! ```text
//! u32 LE length of data | u32 LE CRC-32 of all that follows | u64 LE Unix ms | u8 stream | data
//! ```

use flate2::Crc;

use crate::{limits::LOG_RECORD_BYTES, time::UnixMs};

/// Bytes before the data.
pub const HEADER_BYTES: usize = 17;

/// Who speaks in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
    /// The agent's own words about the attempt.
    System,
    /// Bytes that were written and are not in the log; the data is their number, `u64` LE.
    Gap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub at: UnixMs,
    pub stream: Stream,
    /// 1 to [`LOG_RECORD_BYTES`] bytes.
    pub data: Vec<u8>,
}

/// These bytes were never written by [`encode_into`], or have changed since. Nothing after them can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt log record at offset {offset}: {fault}")]
pub struct CorruptRecord {
    /// Where the record begins; all before it is whole.
    pub offset: u64,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("its length is {0}, outside of 1 to {LOG_RECORD_BYTES}")]
    Length(u32),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("stream {0} does not exist")]
    Stream(u8),
    #[error("a gap has 8 bytes of data, this one has {0}")]
    Gap(usize),
}

/// Appends `data` as records to `out`: as many as its length needs, none for no data.
pub fn encode_into(out: &mut Vec<u8>, at: UnixMs, stream: Stream, data: &[u8]) {
    for piece in data.chunks(LOG_RECORD_BYTES) {
        // A piece is at most LOG_RECORD_BYTES long, so the length always fits.
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let mut rest = [0; 9];
        rest[..8].copy_from_slice(&at.0.to_le_bytes());
        rest[8] = stream.code();
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&checksum(&rest, piece).to_le_bytes());
        out.extend_from_slice(&rest);
        out.extend_from_slice(piece);
    }
}

/// Appends a record that says how many bytes are missing here.
pub fn encode_gap_into(out: &mut Vec<u8>, at: UnixMs, missing: u64) {
    encode_into(out, at, Stream::Gap, &missing.to_le_bytes());
}

/// How many bytes of a log file `data` bytes of one piece of output need.
pub fn encoded_length(data: usize) -> usize {
    data + data.div_ceil(LOG_RECORD_BYTES) * HEADER_BYTES
}

impl Record {
    /// For a gap: how many bytes are missing.
    pub fn missing(&self) -> Option<u64> {
        match self.stream {
            Stream::Gap => self.data.as_slice().try_into().ok().map(u64::from_le_bytes),
            Stream::Stdout | Stream::Stderr | Stream::System => None,
        }
    }
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::System => 3,
            Self::Gap => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::System, Self::Gap].into_iter().find(|stream| stream.code() == code)
    }

    /// The stream's name for people and for `--output json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
            Self::Gap => "gap",
        }
    }
}

/// Reads records out of bytes that come in any pieces. Holds at most what was pushed and not yet read.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the beginning of `buffer` that were read.
    taken: usize,
    offset: u64,
    corrupt: Option<Fault>,
}

impl Decoder {
    /// A decoder of bytes that begin at this offset of the file.
    pub fn at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record; `None` when more bytes are needed. A corrupt record is reported again by every call.
    pub fn next_record(&mut self) -> Result<Option<Record>, CorruptRecord> {
        let result = match self.corrupt {
            Some(fault) => Err(fault),
            None => read(self.unread()),
        };
        match result {
            Ok(None) => Ok(None),
            Ok(Some(record)) => {
                let length = HEADER_BYTES + record.data.len();
                self.taken += length;
                self.offset += u64::try_from(length).unwrap_or(u64::MAX);
                Ok(Some(record))
            }
            Err(fault) => {
                self.corrupt = Some(fault);
                Err(CorruptRecord { offset: self.offset, fault })
            }
        }
    }

    /// The offset after the last record that was read: where a reader goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of a record that has begun and is not whole. At the end of a file: its torn tail, which a writer that
    /// died in the middle of a write leaves behind, and which is no corruption.
    pub fn torn(&self) -> usize {
        self.unread().len()
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }
}

/// The record at the beginning of `bytes`, if it is whole. A hostile length is refused before anything waits for it.
fn read(bytes: &[u8]) -> Result<Option<Record>, Fault> {
    let Some((length, bytes)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    let data_bytes = usize::try_from(length)
        .ok()
        .filter(|length| (1..=LOG_RECORD_BYTES).contains(length))
        .ok_or(Fault::Length(length))?;
    let Some((sum, bytes)) = bytes.split_first_chunk() else { return Ok(None) };
    let Some((rest, bytes)) = bytes.split_first_chunk::<9>() else { return Ok(None) };
    let Some(data) = bytes.get(..data_bytes) else { return Ok(None) };
    if checksum(rest, data) != u32::from_le_bytes(*sum) {
        return Err(Fault::Checksum);
    }
    let [at @ .., code] = *rest;
    let stream = Stream::from_code(code).ok_or(Fault::Stream(code))?;
    if stream == Stream::Gap && data.len() != 8 {
        return Err(Fault::Gap(data.len()));
    }
    Ok(Some(Record { at: UnixMs(u64::from_le_bytes(at)), stream, data: data.to_vec() }))
}

/// CRC-32 (IEEE), as log records and exit records have it.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn checksum(rest: &[u8; 9], data: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(rest);
    crc.update(data);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn drain(decoder: &mut Decoder) -> Result<Vec<Record>, CorruptRecord> {
        let mut records = Vec::new();
        while let Some(record) = decoder.next_record()? {
            records.push(record);
        }
        Ok(records)
    }

    fn decode(bytes: &[u8]) -> Result<(Vec<Record>, usize), CorruptRecord> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        Ok((drain(&mut decoder)?, decoder.torn()))
    }

    fn record() -> impl Strategy<Value = (u64, Stream, Vec<u8>)> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr), Just(Stream::System)];
        (any::<u64>(), stream, vec(any::<u8>(), 1..200))
    }

    fn encode(records: &[(u64, Stream, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, stream, data) in records {
            encode_into(&mut bytes, UnixMs(*at), *stream, data);
        }
        bytes
    }

    #[test]
    fn the_golden_file_is_read_and_written_byte_for_byte() {
        let golden: &[u8] = include_bytes!("../../tests/golden/attempt-log.golden");
        let mut written = Vec::new();
        encode_into(&mut written, UnixMs(1_700_000_000_000), Stream::System, b"attempt deploy-0-1\n");
        encode_into(&mut written, UnixMs(1_700_000_000_001), Stream::Stdout, b"hello\n");
        encode_into(&mut written, UnixMs(1_700_000_000_002), Stream::Stderr, &[0xff, 0x00, 0x1b]);
        encode_gap_into(&mut written, UnixMs(1_700_000_000_003), 4096);
        assert_eq!(written, golden);
        let (records, torn) = decode(golden).unwrap();
        assert_eq!((records.len(), torn), (4, 0));
        assert_eq!(records[3].missing(), Some(4096));
    }

    #[test]
    fn long_output_becomes_several_records() {
        let data = vec![7; LOG_RECORD_BYTES * 2 + 1];
        let mut bytes = Vec::new();
        encode_into(&mut bytes, UnixMs(1), Stream::Stdout, &data);
        assert_eq!(bytes.len(), encoded_length(data.len()));
        let (records, torn) = decode(&bytes).unwrap();
        assert_eq!((records.len(), torn), (3, 0));
        assert_eq!(records.concat_data(), data);
    }

    #[test]
    fn a_hostile_length_is_refused_from_its_four_bytes_alone() {
        for length in [0_u32, 32 * 1024 + 1, u32::MAX] {
            let mut decoder = Decoder::at(50);
            decoder.push(&length.to_le_bytes());
            let corrupt = CorruptRecord { offset: 50, fault: Fault::Length(length) };
            assert_eq!(decoder.next_record(), Err(corrupt.clone()));
            decoder.push(&[0; 100]);
            assert_eq!(decoder.next_record(), Err(corrupt), "and it stays refused");
        }
    }

    #[test]
    fn zeros_that_a_lost_power_leaves_are_corruption_and_not_records() {
        assert_eq!(decode(&[0; 40]).unwrap_err().fault, Fault::Length(0));
    }

    #[test]
    fn a_valid_checksum_does_not_excuse_an_unknown_stream_or_a_short_gap() {
        let forge = |code: u8, data: &[u8]| {
            let rest = [1, 0, 0, 0, 0, 0, 0, 0, code];
            let mut bytes = u32::try_from(data.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend(checksum(&rest, data).to_le_bytes());
            bytes.extend(rest);
            bytes.extend(data);
            bytes
        };
        assert_eq!(decode(&forge(0, b"x")).unwrap_err().fault, Fault::Stream(0));
        assert_eq!(decode(&forge(5, b"x")).unwrap_err().fault, Fault::Stream(5));
        assert_eq!(decode(&forge(4, b"x")).unwrap_err().fault, Fault::Gap(1));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_records(records in vec(record(), 0..12), cuts in vec(1_usize..64, 1..50)) {
            let bytes = encode(&records);
            let mut decoder = Decoder::default();
            let (mut rest, mut got) = (bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                decoder.push(piece);
                got.extend(drain(&mut decoder).unwrap());
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decoder.torn(), 0);
            prop_assert_eq!(decoder.offset(), bytes.len() as u64);
            let got: Vec<_> = got.into_iter().map(|record| (record.at.0, record.stream, record.data)).collect();
            prop_assert_eq!(got, records);
        }

        #[test]
        fn a_cut_anywhere_is_a_torn_tail_and_never_corruption(records in vec(record(), 1..6), at in any::<prop::sample::Index>()) {
            let bytes = encode(&records);
            let cut = at.index(bytes.len());
            let (got, torn) = decode(&bytes[..cut]).unwrap();
            prop_assert!(got.len() < records.len());
            let whole: usize = got.iter().map(|record| HEADER_BYTES + record.data.len()).sum();
            prop_assert_eq!(whole + torn, cut);
        }

        #[test]
        fn a_flipped_bit_never_gives_other_records(records in vec(record(), 1..6), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encode(&records);
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let mut good = 0;
            let whole = loop {
                match decoder.next_record() {
                    Ok(Some(record)) => {
                        let (at, stream, data) = &records[good];
                        prop_assert_eq!((record.at.0, record.stream, &record.data), (*at, *stream, data));
                        good += 1;
                    }
                    Ok(None) => break decoder.torn() == 0,
                    Err(corrupt) => {
                        prop_assert!(corrupt.offset <= index as u64);
                        break false;
                    }
                }
            };
            prop_assert!(!whole, "the flip went unnoticed");
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..300)) {
            drop(decode(&bytes));
        }
    }

    trait ConcatData {
        fn concat_data(&self) -> Vec<u8>;
    }

    impl ConcatData for Vec<Record> {
        fn concat_data(&self) -> Vec<u8> {
            self.iter().flat_map(|record| record.data.clone()).collect()
        }
    }
}
