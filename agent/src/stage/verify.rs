//! Does a release still hold what its manifest says?

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
};

use cap_std::fs::{Dir, MetadataExt};
use consign_common::{
    artifact::{Entry, EntryKind, Manifest},
    digest::Sha256,
    plan::Plan,
};

use super::release::is_at_or_below;

/// One way in which a release differs from its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    Missing {
        path: String,
    },
    /// Another content, kind, mode or link target.
    Changed {
        path: String,
        what: &'static str,
    },
    /// Nothing in the manifest has this path.
    Added {
        path: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "{path:?} is missing"),
            Self::Changed { path, what } => write!(f, "{path:?} has another {what}"),
            Self::Added { path } => write!(f, "{path:?} was added"),
        }
    }
}

/// Whether all that the artifact brought is there as it was; what was added beside it does no harm to that.
pub fn is_whole(drift: &[Drift]) -> bool {
    drift.iter().all(|drift| matches!(drift, Drift::Added { .. }))
}

/// Hashes a release against its manifest. Shared links and `writable` paths are the app's own and are not looked at.
pub fn verify(release: &Dir, manifest: &Manifest, plan: &Plan) -> io::Result<Vec<Drift>> {
    let own = |path: &str| {
        let paths = plan.writable.iter().chain(&plan.shared);
        paths.clone().any(|own| is_at_or_below(path, own))
    };
    let mut expected: BTreeMap<&str, &Entry> =
        manifest.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let mut drift = Vec::new();
    walk(release, "", &mut |directory, name, path| {
        if own(path) {
            return Ok(Descend::No);
        }
        match expected.remove(path) {
            Some(entry) => {
                let change = compare(directory, name, entry)?;
                drift.extend(change.map(|what| Drift::Changed { path: path.to_owned(), what }));
            }
            None if !leads_to_own(path, plan) => drift.push(Drift::Added { path: path.to_owned() }),
            None => {}
        }
        Ok(Descend::Yes)
    })?;
    let missing = expected.into_keys().filter(|path| !own(path));
    drift.extend(missing.map(|path| Drift::Missing { path: path.to_owned() }));
    Ok(drift)
}

/// A directory that exists only because a shared or writable path lies in it.
fn leads_to_own(path: &str, plan: &Plan) -> bool {
    plan.shared.iter().chain(&plan.writable).any(|own| is_at_or_below(own, path))
}

/// Nothing of the app's own is walked through: it may be nested deeper than a stack or the table of open files goes.
enum Descend {
    Yes,
    No,
}

fn walk(
    directory: &Dir,
    path: &str,
    visit: &mut impl FnMut(&Dir, &str, &str) -> io::Result<Descend>,
) -> io::Result<()> {
    for entry in directory.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
        match visit(directory, &name, &below)? {
            Descend::Yes if entry.file_type()?.is_dir() => walk(&entry.open_dir()?, &below, visit)?,
            Descend::Yes | Descend::No => {}
        }
    }
    Ok(())
}

fn compare(directory: &Dir, name: &str, entry: &Entry) -> io::Result<Option<&'static str>> {
    let found = directory.symlink_metadata(name)?;
    Ok(match &entry.kind {
        EntryKind::Dir => (!found.is_dir()).then_some("kind"),
        EntryKind::Link { target } => {
            if !found.is_symlink() {
                Some("kind")
            } else {
                (directory.read_link_contents(name)?.as_os_str() != target.as_str()).then_some("target")
            }
        }
        EntryKind::File { mode, size, sha256 } => {
            if !found.is_file() {
                Some("kind")
            } else if found.mode() & 0o555 != mode.bits() & 0o555 {
                Some("mode")
            } else if found.len() != *size {
                Some("content")
            } else {
                // One byte more than it may have: it may grow under our eyes.
                let mut content = directory.open(name)?.take(size.saturating_add(1));
                (Sha256::of_reader(&mut content)? != (*sha256, *size)).then_some("content")
            }
        }
    })
}
