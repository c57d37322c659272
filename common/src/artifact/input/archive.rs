//! Reading a `.tar.gz`. The tar crate splits it into entries, raw: what the extended headers say is read here, bounded,
//! and nothing is ever unpacked by the crate.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry};

use super::{
    ArchiveError, Built, EntryRefusal, Identity, InputError, Options, build,
    directory::stripped,
    tree::{Tree, refused},
};
use crate::artifact::{Mode, PathRefusal};

const BLOCK: u64 = 512;
/// Bytes of one extended header.
const EXTENDED_BYTES: u64 = 64 << 10;
/// Extended headers in a row.
const EXTENDED_MOST: u32 = 8;

/// Reads all that is in the archive, to its very end.
pub fn read_archive(
    input: impl Read,
    identity: &Identity,
    options: &Options<'_>,
) -> Result<Built, InputError> {
    let mut input = BufReader::new(input);
    let start = input.fill_buf().map_err(damaged)?;
    if !start.starts_with(&[0x1f, 0x8b]) {
        return Err(ArchiveError::NotGzip.into());
    }
    let mut tree = Tree::new(options)?;
    let mut archive = Archive::new(Counting { inner: GzDecoder::new(&mut input), count: 0 });
    let end = entries(&mut archive, &mut tree, options)?;
    end_of_tar(archive.into_inner(), end)?;
    match input.fill_buf().map_err(damaged)? {
        [] => build(tree, identity, options),
        [0x1f, 0x8b, ..] => Err(ArchiveError::SecondMember.into()),
        _ => Err(ArchiveError::BytesAfterGzip.into()),
    }
}

/// Returns where the last entry ends.
fn entries<R: Read>(
    archive: &mut Archive<R>,
    tree: &mut Tree<'_>,
    options: &Options<'_>,
) -> Result<u64, InputError> {
    let mut end = 0;
    let mut extended = Extended::default();
    for item in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = item.map_err(damaged)?;
        let size = entry.header().entry_size().map_err(damaged)?;
        end = entry.raw_file_position().saturating_add(size.next_multiple_of(BLOCK));
        let kind = entry.header().entry_type();
        if kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink() {
            extended.read(&mut entry)?;
        } else if kind.is_pax_global_extensions() {
            global_header(&mut entry)?;
        } else {
            add(tree, &mut entry, std::mem::take(&mut extended), options)?;
        }
    }
    if extended.count > 0 {
        return Err(ArchiveError::Truncated.into());
    }
    Ok(end)
}

fn add<R: Read>(
    tree: &mut Tree<'_>,
    entry: &mut Entry<'_, R>,
    extended: Extended,
    options: &Options<'_>,
) -> Result<(), InputError> {
    let raw_path = match extended.path {
        Some(path) => path,
        None => entry.header().path_bytes().into_owned(),
    };
    let written = text(&raw_path)?;
    let size = entry.header().entry_size().map_err(damaged)?;
    if extended.size.is_some_and(|extended| extended != size) {
        return Err(refused(written, EntryRefusal::ExtendedSize));
    }
    let mode = entry.header().mode().map_err(damaged)?;
    let kind = entry.header().entry_type();
    // Before pax a directory was a file whose name ends with a slash.
    let directory = kind.is_dir() || (kind.is_file() && written.ends_with('/') && size == 0);
    let Some(path) = relative(&written) else {
        return if directory { Ok(()) } else { Err(refused(written, PathRefusal::EmptyComponent)) };
    };
    let target = || match &extended.target {
        Some(target) => target.clone(),
        None => entry.header().link_name_bytes().map(|name| name.into_owned()).unwrap_or_default(),
    };
    // Checked before anything is cut from it: `../../x` must not become `x`.
    crate::artifact::rules::check_path(path, options.limits).map_err(|why| refused(path, why))?;
    let Some(inner) = stripped(path, options.strip_components) else {
        return if directory { Ok(()) } else { Err(refused(path, EntryRefusal::Stripped)) };
    };
    let inner = inner.to_owned();
    if directory {
        return tree.directory(inner);
    }
    match kind.as_byte() {
        b'0' | b'\0' | b'7' => {
            if mode & 0o6000 != 0 {
                return Err(refused(path, EntryRefusal::SetUid));
            }
            let mode = if mode & 0o100 != 0 { Mode::Executable } else { Mode::Plain };
            tree.file(inner, mode, &mut Whole { inner: entry, left: size }, damaged)
        }
        b'2' => {
            let target =
                String::from_utf8(target()).map_err(|_| refused(path, EntryRefusal::TargetNotUtf8))?;
            tree.link(inner, target)
        }
        b'1' => {
            let target = target();
            let shown = String::from_utf8_lossy(&target).into_owned();
            let earlier = std::str::from_utf8(&target).ok().and_then(relative);
            match earlier.and_then(|earlier| stripped(earlier, options.strip_components)) {
                Some(earlier) if size == 0 => tree.copy(inner, earlier),
                Some(_) | None => Err(refused(path, EntryRefusal::HardLink(shown))),
            }
        }
        b'3' | b'4' => Err(refused(path, EntryRefusal::Device)),
        b'6' => Err(refused(path, EntryRefusal::Fifo)),
        b'S' => Err(refused(path, EntryRefusal::Sparse)),
        other => Err(refused(path, EntryRefusal::UnknownType(char::from(other)))),
    }
}

/// `./a/` is `a`; `None` for the root itself.
fn relative(path: &str) -> Option<&str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    // One slash: `a//` keeps an empty component, which is refused.
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    if path.is_empty() || path == "." { None } else { Some(path) }
}

fn text(path: &[u8]) -> Result<String, InputError> {
    String::from_utf8(path.to_vec()).map_err(|_| refused(String::from_utf8_lossy(path), PathRefusal::NotUtf8))
}

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default)]
struct Extended {
    count: u32,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    fn read<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), InputError> {
        let refuse = || refused("(extended header)", EntryRefusal::ExtendedHeader);
        self.count += 1;
        if self.count > EXTENDED_MOST {
            return Err(refuse());
        }
        let bytes = extended_bytes(entry)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            let name = bytes.strip_suffix(&[0]).unwrap_or(&bytes).to_vec();
            let place = if kind.is_gnu_longname() { &mut self.path } else { &mut self.target };
            return if place.replace(name).is_some() { Err(refuse()) } else { Ok(()) };
        }
        for (key, value) in pax_records(&bytes).ok_or_else(refuse)? {
            let doubled = match key {
                b"path" => self.path.replace(value.to_vec()).is_some(),
                b"linkpath" => self.target.replace(value.to_vec()).is_some(),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                    self.size.replace(size.ok_or_else(refuse)?).is_some()
                }
                sparse if sparse.starts_with(b"GNU.sparse.") => {
                    return Err(refused("(extended header)", EntryRefusal::Sparse));
                }
                // Owners, times, attributes, comments: nothing that an artifact keeps.
                _ => false,
            };
            if doubled {
                return Err(refuse());
            }
        }
        Ok(())
    }
}

/// `git archive` writes one, with a comment. One that would speak of paths or sizes speaks of every entry.
fn global_header<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), InputError> {
    let refuse = || refused("(global header)", EntryRefusal::ExtendedHeader);
    let bytes = extended_bytes(entry)?;
    let records = pax_records(&bytes).ok_or_else(refuse)?;
    let harmless = |key: &[u8]| !matches!(key, b"path" | b"linkpath" | b"size") && !key.starts_with(b"GNU.");
    if records.iter().all(|(key, _)| harmless(key)) { Ok(()) } else { Err(refuse()) }
}

fn extended_bytes<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, InputError> {
    let size = entry.header().entry_size().map_err(damaged)?;
    if size > EXTENDED_BYTES {
        return Err(refused("(extended header)", EntryRefusal::ExtendedHeader));
    }
    let mut bytes = Vec::new();
    Whole { inner: entry, left: size }.read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

/// `LENGTH KEY=VALUE\n`, one after the other; `None` where the bytes are anything else.
fn pax_records(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(rest.get(..space)?).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((record.get(..equals)?, record.get(equals + 1..)?));
        rest = rest.get(length..)?;
    }
    Some(records)
}

/// Two blocks of zeros end a tar; tools pad with more. Reading on to the end also checks the gzip CRC.
fn end_of_tar<R: Read>(mut rest: Counting<R>, end: u64) -> Result<(), InputError> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = rest.read(&mut buffer).map_err(damaged)?;
        if count == 0 {
            break;
        }
        if buffer.iter().take(count).any(|byte| *byte != 0) {
            return Err(ArchiveError::BytesAfterTar.into());
        }
    }
    match rest.count.checked_sub(end) {
        Some(padding) if padding >= 2 * BLOCK => Ok(()),
        Some(_) | None => Err(ArchiveError::Truncated.into()),
    }
}

fn damaged(error: io::Error) -> InputError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ArchiveError::Truncated.into();
    }
    ArchiveError::Damaged(error).into()
}

/// An entry's content, which ends early only with an error.
struct Whole<'a, R> {
    inner: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// Knows how many bytes of the tar were read.
struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}
