//! Packs: the contents of an artifact's regular files as they travel (docs/formats.md, "pack").
//!
//! The contents, in manifest order, are cut into segments, and each is a zstd frame of its own: neither side holds more
//! than one segment. The header already has what delta packs need; a reader that meets one says so by name.

use std::io::{self, Read, Write};

use super::{Entry, Manifest};
use crate::{
    digest::{Hasher, Sha256},
    limits::ArtifactLimits,
};

const MAGIC: &[u8; 8] = b"CNSGPACK";
const VERSION: u32 = 1;
/// magic, version, from, to, raw length, segments
const HEADER_BYTES: usize = 8 + 4 + 32 + 32 + 8 + 4;
/// raw length, packed length, prefix offset, prefix length
const SEGMENT_HEADER_BYTES: usize = 4 + 4 + 8 + 4;
/// What this writer cuts; readers take up to [`SEGMENT_MOST`].
const SEGMENT_BYTES: u64 = 16 << 20;
const SEGMENT_MOST: u32 = 64 << 20;
/// zstd's window: what a reader must hold. 8 MiB.
const WINDOW_LOG: u32 = 23;
/// Fixed, because the same input gives the same bytes everywhere.
const LEVEL: i32 = 9;
/// A segment that does not compress is a little longer than its content.
const PACKED_MOST: u32 = SEGMENT_MOST + (1 << 20);
const BUFFER_BYTES: usize = 128 << 10;

/// Why a pack is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("not a pack")]
    Magic,
    #[error("pack version {given}; this consign reads {VERSION}")]
    Version { given: u32 },
    #[error("a delta pack from {from}: this consign reads full packs only")]
    Delta { from: Sha256 },
    #[error("a pack of {given}, not of {wanted}")]
    OtherArtifact { given: Sha256, wanted: Sha256 },
    #[error("a pack of {given} bytes, but the manifest's files have {wanted}")]
    RawLength { given: u64, wanted: u64 },
    #[error("segment {index}: {why}")]
    Segment { index: u32, why: &'static str },
    #[error("segment {index} cannot be decompressed: {why}")]
    Zstd { index: u32, why: io::Error },
    #[error("the pack ends early")]
    Truncated,
    #[error("bytes after the end of the pack")]
    TrailingBytes,
    #[error("the pack's own checksum does not match: bytes of it were changed")]
    Checksum,
    #[error("{path:?} is not what the manifest says: its sha256 differs")]
    Content { path: String },
    #[error("failed to read the pack")]
    Read(#[source] io::Error),
    #[error("failed to write")]
    Write(#[source] io::Error),
}

/// Takes the contents of an artifact, file by file.
pub trait Sink {
    fn begin(&mut self, entry: &Entry) -> io::Result<()>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The file is whole and has the manifest's digest.
    fn end(&mut self) -> io::Result<()>;
}

/// For checking alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    fn begin(&mut self, _: &Entry) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the full pack of `manifest`. `contents` has all regular files in manifest order.
pub fn write_full(manifest: &Manifest, contents: impl Read, out: impl Write) -> io::Result<()> {
    let mut out = HashingWriter { inner: out, hasher: Hasher::new() };
    let total = manifest.total_bytes();
    let segments = u32::try_from(total.div_ceil(SEGMENT_BYTES)).map_err(io::Error::other)?;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[0; 32])?;
    out.write_all(manifest.digest().as_bytes())?;
    out.write_all(&total.to_le_bytes())?;
    out.write_all(&segments.to_le_bytes())?;
    let mut contents = contents;
    let mut left = total;
    while left > 0 {
        let length = left.min(SEGMENT_BYTES);
        let packed = compress(&mut contents, length)?;
        out.write_all(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes())?;
        out.write_all(&u32::try_from(packed.len()).map_err(io::Error::other)?.to_le_bytes())?;
        out.write_all(&[0; 8 + 4])?;
        out.write_all(&packed)?;
        left -= length;
    }
    let digest = out.hasher.clone().finish();
    out.inner.write_all(digest.as_bytes())?;
    out.inner.flush()
}

fn compress(contents: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.include_checksum(false)?;
    encoder.set_pledged_src_size(Some(length))?;
    let copied = io::copy(&mut contents.take(length), &mut encoder)?;
    if copied != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    encoder.finish()
}

/// Reads a full pack of `manifest` to its exact end, and gives every file to `sink`. Memory is bounded by a segment's
/// window, and what is decompressed by what the manifest says.
pub fn extract(
    pack: &mut impl Read,
    manifest: &Manifest,
    limits: &ArtifactLimits,
    sink: &mut impl Sink,
) -> Result<(), PackError> {
    let mut contents = Contents::open(pack, manifest, limits)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for (entry, size, sha256) in manifest.files() {
        sink.begin(entry).map_err(PackError::Write)?;
        let mut file = contents.file(entry, size, sha256);
        loop {
            let count = file.next(&mut buffer)?;
            if count == 0 {
                break;
            }
            sink.write(buffer.get(..count).unwrap_or_default()).map_err(PackError::Write)?;
        }
        sink.end().map_err(PackError::Write)?;
    }
    contents.finish()
}

/// A full pack, opened: one file after the other in manifest order, then [`finish`](Self::finish).
pub struct Contents<R: Read> {
    /// `None` while a segment has the reader.
    reader: Option<HashingReader<R>>,
    segment: Option<Segment<R>>,
    next: u32,
    segments: u32,
    /// Of all segments' content, what was not announced by a segment's header yet.
    unannounced: u64,
}

type Decoder<R> = zstd::Decoder<'static, io::BufReader<io::Take<HashingReader<R>>>>;

struct Segment<R: Read> {
    index: u32,
    decoder: Decoder<R>,
    left: u32,
}

impl<R: Read> std::fmt::Debug for Contents<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").field("next", &self.next).field("segments", &self.segments).finish()
    }
}

impl<R: Read> Contents<R> {
    /// Reads and checks the header.
    pub fn open(pack: R, manifest: &Manifest, limits: &ArtifactLimits) -> Result<Self, PackError> {
        let mut reader = HashingReader { inner: pack, hasher: Hasher::new() };
        let header: [u8; HEADER_BYTES] = exactly(&mut reader)?;
        let mut fields = Fields(&header);
        if fields.bytes::<8>() != *MAGIC {
            return Err(PackError::Magic);
        }
        let version = u32::from_le_bytes(fields.bytes());
        if version != VERSION {
            return Err(PackError::Version { given: version });
        }
        let from = fields.bytes::<32>();
        if from != [0; 32] {
            return Err(PackError::Delta { from: Sha256::from_bytes(from) });
        }
        let (given, wanted) = (Sha256::from_bytes(fields.bytes()), manifest.digest());
        if given != wanted {
            return Err(PackError::OtherArtifact { given, wanted });
        }
        let (given, wanted) = (u64::from_le_bytes(fields.bytes()), manifest.total_bytes());
        if given != wanted || wanted > limits.total_bytes {
            return Err(PackError::RawLength { given, wanted });
        }
        let segments = u32::from_le_bytes(fields.bytes());
        Ok(Self { reader: Some(reader), segment: None, next: 0, segments, unannounced: wanted })
    }

    /// The next file; `entry` must be the next regular file of the manifest.
    pub fn file<'a>(&'a mut self, entry: &'a Entry, size: u64, sha256: Sha256) -> FileContents<'a, R> {
        FileContents { contents: self, entry, left: size, hasher: Some(Hasher::new()), sha256 }
    }

    /// After the last file: nothing may be left, and the checksum must match.
    pub fn finish(mut self) -> Result<(), PackError> {
        self.close_segment()?;
        if self.next != self.segments {
            return Err(PackError::Segment { index: self.next, why: "more segments than content" });
        }
        let Some(mut reader) = self.reader.take() else { return Err(PackError::Truncated) };
        let digest = reader.hasher.clone().finish();
        let given: [u8; 32] = exactly(&mut reader)?;
        if Sha256::from_bytes(given) != digest {
            return Err(PackError::Checksum);
        }
        match io::copy(&mut reader.inner.take(1), &mut io::sink()) {
            Ok(0) => Ok(()),
            Ok(_) => Err(PackError::TrailingBytes),
            Err(error) => Err(PackError::Read(error)),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PackError> {
        loop {
            if let Some(segment) = self.segment.as_mut().filter(|segment| segment.left > 0) {
                let most = usize::try_from(segment.left).unwrap_or(usize::MAX).min(buffer.len());
                let target = buffer.get_mut(..most).unwrap_or_default();
                let index = segment.index;
                let count = segment.decoder.read(target).map_err(|why| PackError::Zstd { index, why })?;
                if count == 0 {
                    return Err(PackError::Segment { index, why: "its content is shorter than it says" });
                }
                segment.left -= u32::try_from(count).unwrap_or(segment.left);
                return Ok(count);
            }
            self.close_segment()?;
            self.open_segment()?;
        }
    }

    fn open_segment(&mut self) -> Result<(), PackError> {
        let index = self.next;
        if index >= self.segments {
            return Err(PackError::Segment { index, why: "fewer segments than content" });
        }
        let Some(mut reader) = self.reader.take() else { return Err(PackError::Truncated) };
        let header: [u8; SEGMENT_HEADER_BYTES] = exactly(&mut reader)?;
        let mut fields = Fields(&header);
        let raw = u32::from_le_bytes(fields.bytes());
        let packed = u32::from_le_bytes(fields.bytes());
        let prefix = fields.bytes::<12>();
        if raw == 0 || raw > SEGMENT_MOST || u64::from(raw) > self.unannounced || packed > PACKED_MOST {
            return Err(PackError::Segment { index, why: "its length is out of bounds" });
        }
        if prefix != [0; 12] {
            return Err(PackError::Segment { index, why: "a prefix in a full pack" });
        }
        let zstd = |why| PackError::Zstd { index, why };
        let limited = io::BufReader::new(reader.take(u64::from(packed)));
        let mut decoder = zstd::Decoder::with_buffer(limited).map_err(zstd)?.single_frame();
        decoder.window_log_max(WINDOW_LOG).map_err(zstd)?;
        self.unannounced -= u64::from(raw);
        self.next += 1;
        self.segment = Some(Segment { index, decoder, left: raw });
        Ok(())
    }

    /// The segment's frame must end where its content does, and where its header says.
    fn close_segment(&mut self) -> Result<(), PackError> {
        let Some(segment) = self.segment.take() else { return Ok(()) };
        let Segment { index, mut decoder, left } = segment;
        if left > 0 {
            return Err(PackError::Segment { index, why: "content beyond the manifest's files" });
        }
        match decoder.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(PackError::Segment { index, why: "its content is longer than it says" }),
            Err(why) => return Err(PackError::Zstd { index, why }),
        }
        let buffered = decoder.finish();
        let unread = buffered.buffer().len();
        let taken = buffered.into_inner();
        if unread > 0 || taken.limit() > 0 {
            return Err(PackError::Segment { index, why: "bytes after its frame" });
        }
        self.reader = Some(taken.into_inner());
        Ok(())
    }
}

/// One file of a pack. As [`Read`], an error of the pack is the source of the `io::Error`.
pub struct FileContents<'a, R: Read> {
    contents: &'a mut Contents<R>,
    entry: &'a Entry,
    left: u64,
    /// `None` once the digest was compared.
    hasher: Option<Hasher>,
    sha256: Sha256,
}

impl<R: Read> std::fmt::Debug for FileContents<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileContents").field("entry", &self.entry.path).field("left", &self.left).finish()
    }
}

impl<R: Read> FileContents<'_, R> {
    /// Some bytes; 0 at the end, when the digest was found to match.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<usize, PackError> {
        if self.left == 0 {
            if let Some(hasher) = self.hasher.take()
                && hasher.finish() != self.sha256
            {
                return Err(PackError::Content { path: self.entry.path.clone() });
            }
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.contents.read(buffer.get_mut(..most).unwrap_or_default())?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        self.left -= u64::try_from(count).unwrap_or(self.left);
        Ok(count)
    }
}

impl<R: Read> Read for FileContents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Fixed-width fields, taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

fn exactly<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], PackError> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(PackError::Truncated),
        Err(error) => Err(PackError::Read(error)),
    }
}

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
