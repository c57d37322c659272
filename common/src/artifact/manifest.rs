//! The manifest: what is signed, and all that is installed (docs/formats.md, "manifest").

use serde::{Deserialize, Serialize};

use super::rules::{self, InvalidManifest};
use crate::{
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{App, Platform, Version},
    plan::Plan,
};

pub const MANIFEST_FORMAT: &str = "consign-manifest-v1";

/// Every entry of an artifact and its plan, verbatim. Its JSON bytes are what the artifact's digest is taken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `consign-manifest-v1`.
    pub format: String,
    pub app: App,
    pub version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The text of `consign.toml`.
    pub plan: String,
    /// In ascending order of their paths' bytes; every directory before what is in it.
    pub entries: Vec<Entry>,
}

/// One file, directory or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EntryDocument", into = "EntryDocument")]
pub struct Entry {
    /// Relative, `/` between components, no `.`, `..`, empty component or control character.
    pub path: String,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File {
        mode: Mode,
        size: u64,
        sha256: Sha256,
    },
    /// Mode 0755 always.
    Dir,
    /// `target` is kept as it was; where it may point is checked when packed and again when staged.
    Link {
        target: String,
    },
}

/// The two modes that a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    #[serde(rename = "0644")]
    Plain,
    #[serde(rename = "0755")]
    Executable,
}

impl Manifest {
    /// Reads a manifest and checks every rule of docs/formats.md: also its plan, and the entries against the plan.
    ///
    /// A manifest has one form as bytes; any other that would mean the same is refused.
    pub fn parse(bytes: &[u8], limits: &ArtifactLimits) -> Result<Self, InvalidManifest> {
        let manifest: Self = json::from_slice(bytes, limits.manifest_bytes)?;
        if manifest.to_bytes() != bytes {
            return Err(InvalidManifest::NotCanonical);
        }
        manifest.check(limits)?;
        Ok(manifest)
    }

    /// Every rule of docs/formats.md but that of the one form; its plan, which they are checked with.
    pub fn check(&self, limits: &ArtifactLimits) -> Result<Plan, InvalidManifest> {
        rules::check(self, limits)
    }

    /// The one form as bytes: compact JSON, fields in the order of the type.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// What the artifact is named by.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.to_bytes())
    }

    /// Every regular file, in the order in which a pack has their contents.
    pub fn files(&self) -> impl Iterator<Item = (&Entry, u64, Sha256)> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::File { size, sha256, .. } => Some((entry, *size, *sha256)),
            EntryKind::Dir | EntryKind::Link { .. } => None,
        })
    }

    /// Bytes of all regular files.
    pub fn total_bytes(&self) -> u64 {
        self.files().fold(0, |total, (_, size, _)| total.saturating_add(size))
    }
}

impl Mode {
    pub fn bits(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// An entry as JSON. One flat object per entry, which serde cannot both flatten and keep free of unknown fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryDocument {
    path: String,
    kind: KindDocument,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindDocument {
    File,
    Dir,
    Link,
}

/// An entry whose fields are not those of its kind.
#[derive(Debug, thiserror::Error)]
#[error("entry {path:?}: a file has mode, size and sha256, a link has target, a dir has nothing more")]
struct WrongFields {
    path: String,
}

impl TryFrom<EntryDocument> for Entry {
    type Error = WrongFields;
    fn try_from(document: EntryDocument) -> Result<Self, WrongFields> {
        let EntryDocument { path, kind, mode, size, sha256, target } = document;
        let kind = match (kind, mode, size, sha256, target) {
            (KindDocument::File, Some(mode), Some(size), Some(sha256), None) => {
                EntryKind::File { mode, size, sha256 }
            }
            (KindDocument::Dir, None, None, None, None) => EntryKind::Dir,
            (KindDocument::Link, None, None, None, Some(target)) => EntryKind::Link { target },
            (KindDocument::File | KindDocument::Dir | KindDocument::Link, ..) => {
                return Err(WrongFields { path });
            }
        };
        Ok(Self { path, kind })
    }
}

impl From<Entry> for EntryDocument {
    fn from(entry: Entry) -> Self {
        let bare = Self {
            path: entry.path,
            kind: KindDocument::Dir,
            mode: None,
            size: None,
            sha256: None,
            target: None,
        };
        match entry.kind {
            EntryKind::Dir => bare,
            EntryKind::File { mode, size, sha256 } => Self {
                kind: KindDocument::File,
                mode: Some(mode),
                size: Some(size),
                sha256: Some(sha256),
                ..bare
            },
            EntryKind::Link { target } => Self { kind: KindDocument::Link, target: Some(target), ..bare },
        }
    }
}
