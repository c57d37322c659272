//! Artifacts: an app at a version, named by the digest of its manifest.

mod manifest;

pub use manifest::{Entry, EntryKind, Manifest, Mode};
