//! An artifact file back to a `.tar.gz` that packs to the same artifact.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::{
    ArtifactFile, EntryKind, FileError, PLAN_FILE,
    file::{directory_of, set_mode},
    pack::Contents,
};
use crate::limits::ArtifactLimits;

/// 1980-01-01: tools warn of times before it, and the same artifact must give the same bytes.
const MTIME: u64 = 315_532_800;

/// Writes all of `artifact`, its plan as `consign.toml`, to `out`; a file that is there is replaced, whole or not at all.
pub fn export(artifact: &mut ArtifactFile, out: &Path, limits: &ArtifactLimits) -> Result<(), FileError> {
    let at = |source| FileError::Io { path: out.to_owned(), source };
    let directory = directory_of(out);
    let mut temporary = tempfile::Builder::new().prefix(".consign-").tempfile_in(directory).map_err(at)?;
    archive(artifact, temporary.as_file_mut(), limits, out)?;
    set_mode(temporary.as_file()).map_err(at)?;
    temporary.as_file().sync_all().map_err(at)?;
    temporary.persist(out).map_err(|error| at(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at)
}

fn archive(
    artifact: &mut ArtifactFile,
    out: &mut File,
    limits: &ArtifactLimits,
    path: &Path,
) -> Result<(), FileError> {
    let at = |source| FileError::Io { path: path.to_owned(), source };
    let manifest = artifact.manifest().clone();
    let pack = |source| FileError::Pack { path: path.to_owned(), source };
    let mut contents = Contents::open(artifact.pack()?, &manifest, limits).map_err(pack)?;
    let gzip =
        GzBuilder::new().mtime(0).operating_system(255).write(BufWriter::new(out), Compression::new(6));
    let mut tar = Builder::new(gzip);
    let mut plan = header(EntryType::Regular, 0o644, manifest.plan.len() as u64);
    tar.append_data(&mut plan, PLAN_FILE, manifest.plan.as_bytes()).map_err(at)?;
    for entry in &manifest.entries {
        match &entry.kind {
            EntryKind::Dir => {
                let mut header = header(EntryType::Directory, 0o755, 0);
                tar.append_data(&mut header, format!("{}/", entry.path), io::empty()).map_err(at)?;
            }
            EntryKind::Link { target } => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                // As it was: `append_link` would tidy a short target.
                let short = header.set_link_name_literal(target).is_ok();
                match short {
                    true => tar.append_data(&mut header, &entry.path, io::empty()),
                    false => tar.append_link(&mut header, &entry.path, target),
                }
                .map_err(at)?;
            }
            EntryKind::File { mode, size, sha256 } => {
                let mut header = header(EntryType::Regular, mode.bits(), *size);
                tar.append_data(&mut header, &entry.path, contents.file(entry, *size, *sha256))
                    .map_err(at)?;
            }
        }
    }
    contents.finish().map_err(pack)?;
    let gzip = tar.into_inner().map_err(at)?;
    gzip.finish().and_then(|mut out| out.flush()).map_err(at)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}
