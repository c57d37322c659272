//! Artifacts: an app at a version, named by the digest of its manifest.
//!
//! | module | holds |
//! |---|---|
//! | [`manifest`] | what is signed: its types, its one form as bytes |
//! | [`rules`] | which entries may stand together in a manifest |
//! | [`input`] | a directory or an archive, read and normalized into a [`Built`] artifact |
//! | [`pack`] | contents as they travel: segments of zstd, bounded and checked |
//! | [`file`](mod@file) | manifest and full pack in one `.consign` file |
//! | [`export`](mod@export) | and back to a `.tar.gz` |

mod export;
mod file;
mod input;
mod manifest;
mod pack;
mod rules;

pub use export::export;
pub use file::{ArtifactFile, FileError};
pub use input::{Built, Identity, InputError, Options, read_archive, read_directory};
pub use manifest::{Entry, EntryKind, MANIFEST_FORMAT, Manifest, Mode};
pub use pack::{Contents, Discard, PackError, Sink, extract, write_full};
pub use rules::{InvalidManifest, LinkRefusal, PathRefusal};

/// The plan's place at the root of what is packed; never an entry, because the manifest has its text.
pub const PLAN_FILE: &str = "consign.toml";

#[cfg(test)]
mod tests;
