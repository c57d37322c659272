//! What differs between two artifacts: what `changed(glob)` asks.

use std::collections::{BTreeMap, BTreeSet};

use globset::{GlobBuilder, GlobMatcher};

use crate::artifact::{EntryKind, Manifest};

/// The paths that were added, removed or are of other content, mode, kind or target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(BTreeSet<String>);

impl Changes {
    /// From `previous` to `next`; with no previous, every entry of `next` is new.
    pub fn between(previous: Option<&Manifest>, next: &Manifest) -> Self {
        let mut old: BTreeMap<&str, &EntryKind> = previous
            .into_iter()
            .flat_map(|manifest| &manifest.entries)
            .map(|entry| (entry.path.as_str(), &entry.kind))
            .collect();
        let added_or_other =
            next.entries.iter().filter(|entry| old.remove(entry.path.as_str()) != Some(&entry.kind));
        let mut changed: BTreeSet<String> = added_or_other.map(|entry| entry.path.clone()).collect();
        changed.extend(old.into_keys().map(str::to_owned));
        Self(changed)
    }

    pub(super) fn any_matches(&self, glob: &GlobMatcher) -> bool {
        self.0.iter().any(|path| glob.is_match(path))
    }
}

/// A glob over paths of a manifest: `*` and `?` stay within one component, `**` does not.
pub(super) fn glob(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()?.compile_matcher())
}
