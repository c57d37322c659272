//! The artifact file, `NAME.consign`: manifest and full pack (docs/formats.md, "artifact file").

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Built, Discard, InvalidManifest, Manifest, PackError, pack};
use crate::{digest::Sha256, limits::ArtifactLimits};

const MAGIC: &[u8; 8] = b"CNSGFILE";
const VERSION: u32 = 1;
/// magic, version, length of the manifest
const HEADER_BYTES: u64 = 8 + 4 + 8;

/// An artifact file, opened: its manifest is checked, its pack is not read yet.
#[derive(Debug)]
pub struct ArtifactFile {
    path: PathBuf,
    file: File,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    pack_offset: u64,
    pack_length: u64,
}

/// Why a file is no artifact file, or cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: failed to read or write")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not an artifact file; `consign artifact pack` makes one")]
    Magic { path: PathBuf },
    #[error("{path}: artifact file version {given}; this consign reads {VERSION}")]
    Version { path: PathBuf, given: u32 },
    #[error("{path}: the file ends early")]
    Truncated { path: PathBuf },
    #[error("{path}: {source}")]
    Manifest { path: PathBuf, source: InvalidManifest },
    #[error("{path}: {source}")]
    Pack { path: PathBuf, source: PackError },
}

impl ArtifactFile {
    /// Writes `built` to `path`; a file that is there is replaced, whole or not at all.
    pub fn write(path: &Path, built: &mut Built) -> Result<(), FileError> {
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let directory = directory_of(path);
        let mut temporary =
            tempfile::Builder::new().prefix(".consign-").tempfile_in(directory).map_err(io)?;
        let manifest = built.manifest.to_bytes();
        let mut out = BufWriter::new(temporary.as_file_mut());
        let written = (|| {
            out.write_all(MAGIC)?;
            out.write_all(&VERSION.to_le_bytes())?;
            out.write_all(&(manifest.len() as u64).to_le_bytes())?;
            out.write_all(&manifest)?;
            built.write_pack(&mut out)?;
            out.flush()
        })();
        written.map_err(io)?;
        drop(out);
        set_mode(temporary.as_file()).map_err(io)?;
        temporary.as_file().sync_all().map_err(io)?;
        temporary.persist(path).map_err(|error| io(error.error))?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
    }

    pub fn open(path: &Path, limits: &ArtifactLimits) -> Result<Self, FileError> {
        let at = || path.to_owned();
        let io = |source: io::Error| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                return FileError::Truncated { path: at() };
            }
            FileError::Io { path: at(), source }
        };
        let mut file = File::open(path).map_err(io)?;
        let mut magic = [0; 8];
        let (mut version, mut length) = ([0; 4], [0; 8]);
        file.read_exact(&mut magic).map_err(io)?;
        if &magic != MAGIC {
            return Err(FileError::Magic { path: at() });
        }
        file.read_exact(&mut version).map_err(io)?;
        let version = u32::from_le_bytes(version);
        if version != VERSION {
            return Err(FileError::Version { path: at(), given: version });
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        let whole = file.metadata().map_err(io)?.len();
        let pack_offset = HEADER_BYTES.saturating_add(length);
        // Before memory is given to it: no more than the file has, and one byte more than is allowed, to say so.
        if pack_offset > whole {
            return Err(FileError::Truncated { path: at() });
        }
        let most = u64::try_from(limits.manifest_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let mut manifest_bytes = Vec::new();
        (&mut file).take(length.min(most)).read_to_end(&mut manifest_bytes).map_err(io)?;
        let manifest = Manifest::parse(&manifest_bytes, limits)
            .map_err(|source| FileError::Manifest { path: at(), source })?;
        let pack_length = whole - pack_offset;
        Ok(Self { path: at(), file, manifest, manifest_bytes, pack_offset, pack_length })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// What the artifact is named by.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.manifest_bytes)
    }

    pub fn pack_length(&self) -> u64 {
        self.pack_length
    }

    /// The pack from its beginning; unchecked, as it is to be sent.
    pub fn pack(&mut self) -> Result<impl Read + '_, FileError> {
        let at = |source| FileError::Io { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.pack_offset)).map_err(at)?;
        Ok(BufReader::with_capacity(128 << 10, &self.file))
    }

    /// Reads the whole pack and compares every file with the manifest.
    pub fn verify(&mut self, limits: &ArtifactLimits) -> Result<(), FileError> {
        let manifest = self.manifest.clone();
        let path = self.path.clone();
        pack::extract(&mut self.pack()?, &manifest, limits, &mut Discard)
            .map_err(|source| FileError::Pack { path, source })
    }
}

/// The directory that a file lies in, also where its path is a bare name.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Temporary files are their owner's alone; what is to be shared has the usual mode.
pub(super) fn set_mode(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}
