//! The manifest: what is signed, and all that is installed (docs/formats.md, "manifest").

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    name::{App, Platform, Version},
};

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
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Relative, `/` between components, no `.`, `..`, empty component or control character.
    pub path: String,
    #[serde(flatten)]
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
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

impl Mode {
    pub fn bits(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}
