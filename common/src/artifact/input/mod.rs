//! What is packed: a directory or an archive, read once and normalized.
//!
//! Contents are spooled to a file without a name, so that memory does not grow with the artifact and nothing can change
//! between hashing and packing. Everything that a manifest cannot say is refused by name, never dropped.

mod archive;
mod directory;
mod tree;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub use archive::read_archive;
pub use directory::read_directory;

use super::{InvalidManifest, MANIFEST_FORMAT, Manifest, PathRefusal, pack, rules};
use crate::{
    limits::ArtifactLimits,
    name::{Platform, Version},
    plan::{Plan, PlanError},
};

/// What the artifact is called beyond what its plan says.
#[derive(Clone, Debug)]
pub struct Identity {
    pub version: Version,
    pub platform: Option<Platform>,
}

/// How the input is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// A plan from elsewhere: its text and its name for messages. Else the input has `consign.toml` at its root.
    pub plan: Option<(String, String)>,
    /// Leading components to cut from every path: 1 for npm's `package/`.
    pub strip_components: usize,
    pub limits: &'a ArtifactLimits,
    /// Where contents are spooled: best beside the output.
    pub spool: &'a Path,
}

/// Why an input cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{path}: failed to read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{directory}: failed to spool")]
    Spool { directory: PathBuf, source: io::Error },
    #[error("entry {path:?}: {why}")]
    Entry { path: String, why: EntryRefusal },
    #[error("the archive: {0}")]
    Archive(#[from] ArchiveError),
    #[error("more than {0} entries")]
    TooManyEntries(usize),
    #[error("all files together have more than {0} bytes")]
    TooLarge(u64),
    #[error(
        "no consign.toml at the root of the input; put the plan there, or give it with --plan FILE; is there a top directory to cut? --strip-components 1"
    )]
    NoPlan,
    #[error("{0}")]
    Plan(PlanError),
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefusal {
    #[error("{0}")]
    Path(#[from] PathRefusal),
    #[error("a device")]
    Device,
    #[error("a FIFO")]
    Fifo,
    #[error("a socket")]
    Socket,
    #[error("setuid or setgid")]
    SetUid,
    #[error("stands twice")]
    Duplicate,
    #[error("a sparse file; pack it without --sparse")]
    Sparse,
    #[error("an entry of the unknown type {0:?}")]
    UnknownType(char),
    #[error("a hard link to {0:?}, which is no earlier file of the archive")]
    HardLink(String),
    #[error("lies in {0:?}, which is no directory")]
    NotInDirectory(String),
    #[error("has fewer components than --strip-components cuts")]
    Stripped,
    #[error("more than {0} bytes")]
    TooLarge(u64),
    #[error("extended headers that are too large, doubled, or not understood")]
    ExtendedHeader,
    #[error("a size in an extended header that differs from the entry's own")]
    ExtendedSize,
    #[error("its target is not UTF-8")]
    TargetNotUtf8,
    #[error("the plan is not UTF-8")]
    PlanNotUtf8,
}

/// Why an archive is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("not a .tar.gz")]
    NotGzip,
    #[error("it is cut off")]
    Truncated,
    #[error("it is damaged: {0}")]
    Damaged(io::Error),
    #[error("bytes after the end of the tar")]
    BytesAfterTar,
    #[error("bytes after the end of the gzip member")]
    BytesAfterGzip,
    #[error("a second gzip member")]
    SecondMember,
}

/// An artifact, ready to be written: its manifest, and its contents in the spool.
#[derive(Debug)]
pub struct Built {
    pub manifest: Manifest,
    /// Where in the spool the files' contents lie, in manifest order.
    extents: Vec<Extent>,
    spool: File,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    offset: u64,
    length: u64,
}

impl Built {
    /// Writes the full pack.
    pub fn write_pack(&mut self, out: impl Write) -> io::Result<()> {
        let contents = SpoolReader { spool: &self.spool, extents: &self.extents, position: 0 };
        pack::write_full(&self.manifest, contents, out)
    }
}

struct SpoolReader<'a> {
    spool: &'a File,
    extents: &'a [Extent],
    /// In the first extent.
    position: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((extent, rest)) = self.extents.split_first() {
            let left = extent.length - self.position;
            if left == 0 {
                self.extents = rest;
                self.position = 0;
                continue;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let target = buffer.get_mut(..most).unwrap_or_default();
            let count = self.spool.read_at(target, extent.offset + self.position)?;
            if count == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.position += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

/// Plan and entries to a manifest that keeps every rule.
fn build(tree: tree::Tree<'_>, identity: &Identity, options: &Options<'_>) -> Result<Built, InputError> {
    let (entries, extents, spool, own_plan) = tree.finish()?;
    let (text, file_name) = match (&options.plan, own_plan) {
        (Some((text, file_name)), _) => (text.clone(), file_name.clone()),
        (None, Some(text)) => (text, super::PLAN_FILE.to_owned()),
        (None, None) => return Err(InputError::NoPlan),
    };
    let plan = Plan::parse(&text, &file_name).map_err(InputError::Plan)?;
    let manifest = Manifest {
        format: MANIFEST_FORMAT.to_owned(),
        app: plan.app,
        version: identity.version.clone(),
        platform: identity.platform.clone(),
        plan: text,
        entries,
    };
    rules::check(&manifest, options.limits)?;
    Ok(Built { manifest, extents, spool })
}
