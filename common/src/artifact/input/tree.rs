//! The entries as they are read: checked one by one, in any order; contents go to the spool.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
};

use super::{EntryRefusal, Extent, InputError, Options};
use crate::{
    artifact::{Entry, EntryKind, Mode, PLAN_FILE, rules::check_path},
    digest::Hasher,
    limits::{ArtifactLimits, PLAN_BYTES},
};

#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// Strings compare by their bytes: this is the manifest's order.
    nodes: BTreeMap<String, (EntryKind, Option<Extent>)>,
    plan: Option<String>,
    spool: File,
    spooled: u64,
    /// Bytes of all files; a hard link counts again, because it becomes a copy.
    total: u64,
    limits: &'a ArtifactLimits,
    directory: PathBuf,
}

type Finished = (Vec<Entry>, Vec<Extent>, File, Option<String>);

impl<'a> Tree<'a> {
    pub(super) fn new(options: &Options<'a>) -> Result<Self, InputError> {
        let directory = options.spool.to_owned();
        let spool = tempfile::tempfile_in(&directory)
            .map_err(|source| InputError::Spool { directory: directory.clone(), source })?;
        Ok(Self {
            nodes: BTreeMap::new(),
            plan: None,
            spool,
            spooled: 0,
            total: 0,
            limits: options.limits,
            directory,
        })
    }

    pub(super) fn directory(&mut self, path: String) -> Result<(), InputError> {
        self.insert(path, EntryKind::Dir, None)
    }

    pub(super) fn link(&mut self, path: String, target: String) -> Result<(), InputError> {
        self.insert(path, EntryKind::Link { target }, None)
    }

    /// Reads `contents` to its end.
    pub(super) fn file(
        &mut self,
        path: String,
        mode: Mode,
        contents: &mut impl Read,
        failed: impl Fn(io::Error) -> InputError,
    ) -> Result<(), InputError> {
        if path == PLAN_FILE {
            return self.plan_file(path, contents, failed);
        }
        self.admit(&path)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        let (offset, mut length) = (self.spooled, 0u64);
        loop {
            let count = match contents.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            length += count as u64;
            if length > self.limits.file_bytes {
                return Err(refused(path, EntryRefusal::TooLarge(self.limits.file_bytes)));
            }
            self.grow(count as u64)?;
            let bytes = buffer.get(..count).unwrap_or_default();
            hasher.update(bytes);
            self.spool
                .write_all(bytes)
                .map_err(|source| InputError::Spool { directory: self.directory.clone(), source })?;
            self.spooled += count as u64;
        }
        let kind = EntryKind::File { mode, size: length, sha256: hasher.finish() };
        self.nodes.insert(path, (kind, Some(Extent { offset, length })));
        Ok(())
    }

    /// A hard link: a copy of an earlier file.
    pub(super) fn copy(&mut self, path: String, of: &str) -> Result<(), InputError> {
        let Some((kind @ EntryKind::File { size, .. }, extent)) = self.nodes.get(of).cloned() else {
            return Err(refused(path, EntryRefusal::HardLink(of.to_owned())));
        };
        self.grow(size)?;
        self.insert(path, kind, extent)
    }

    /// In the manifest's order, with an entry for every directory that only its content told of.
    pub(super) fn finish(mut self) -> Result<Finished, InputError> {
        let mut implicit = Vec::new();
        for path in self.nodes.keys() {
            let mut rest = path.as_str();
            while let Some((parent, _)) = rest.rsplit_once('/') {
                match self.nodes.get(parent) {
                    None => implicit.push(parent.to_owned()),
                    Some((EntryKind::Dir, _)) => break,
                    Some((EntryKind::File { .. } | EntryKind::Link { .. }, _)) => {
                        return Err(refused(path.clone(), EntryRefusal::NotInDirectory(parent.to_owned())));
                    }
                }
                rest = parent;
            }
        }
        for path in implicit {
            self.nodes.entry(path).or_insert((EntryKind::Dir, None));
        }
        if self.nodes.len() > self.limits.entries {
            return Err(InputError::TooManyEntries(self.limits.entries));
        }
        let extents = self.nodes.values().filter_map(|(_, extent)| *extent).collect();
        let entries = self.nodes.into_iter().map(|(path, (kind, _))| Entry { path, kind }).collect();
        Ok((entries, extents, self.spool, self.plan))
    }

    fn plan_file(
        &mut self,
        path: String,
        contents: &mut impl Read,
        failed: impl Fn(io::Error) -> InputError,
    ) -> Result<(), InputError> {
        if self.plan.is_some() {
            return Err(refused(path, EntryRefusal::Duplicate));
        }
        let mut bytes = Vec::new();
        let most = PLAN_BYTES as u64;
        contents.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > PLAN_BYTES {
            return Err(refused(path, EntryRefusal::TooLarge(most)));
        }
        self.plan = Some(String::from_utf8(bytes).map_err(|_| refused(path, EntryRefusal::PlanNotUtf8))?);
        Ok(())
    }

    fn insert(&mut self, path: String, kind: EntryKind, extent: Option<Extent>) -> Result<(), InputError> {
        self.admit(&path)?;
        self.nodes.insert(path, (kind, extent));
        Ok(())
    }

    fn admit(&self, path: &str) -> Result<(), InputError> {
        check_path(path, self.limits).map_err(|why| refused(path, why))?;
        if self.nodes.contains_key(path) {
            return Err(refused(path, EntryRefusal::Duplicate));
        }
        if self.nodes.len() >= self.limits.entries {
            return Err(InputError::TooManyEntries(self.limits.entries));
        }
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), InputError> {
        self.total = self.total.saturating_add(bytes);
        if self.total > self.limits.total_bytes {
            return Err(InputError::TooLarge(self.limits.total_bytes));
        }
        Ok(())
    }
}

pub(super) fn refused(path: impl Into<String>, why: impl Into<EntryRefusal>) -> InputError {
    InputError::Entry { path: path.into(), why: why.into() }
}
