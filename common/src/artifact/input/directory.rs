//! Reading a directory. Links are recorded, never followed.

use std::{
    fs::{self, File, Metadata},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use rustix::fs::{Mode as FileMode, OFlags};

use super::{
    Built, EntryRefusal, Identity, InputError, Options, build,
    tree::{Tree, refused},
};
use crate::artifact::{Mode, PathRefusal};

/// Reads all that is in `root`.
pub fn read_directory(root: &Path, identity: &Identity, options: &Options<'_>) -> Result<Built, InputError> {
    let mut tree = Tree::new(options)?;
    read(&mut tree, root, "", options)?;
    build(tree, identity, options)
}

fn read(
    tree: &mut Tree<'_>,
    directory: &Path,
    prefix: &str,
    options: &Options<'_>,
) -> Result<(), InputError> {
    let failed = |source| InputError::Read { path: directory.to_owned(), source };
    for item in fs::read_dir(directory).map_err(failed)? {
        let item = item.map_err(failed)?;
        let name = item.file_name();
        let shown = format!("{prefix}{}", name.to_string_lossy());
        let Some(name) = name.to_str() else { return Err(refused(shown, PathRefusal::NotUtf8)) };
        let inner = format!("{prefix}{name}");
        let location = item.path();
        let failed = |source| InputError::Read { path: location.clone(), source };
        let metadata = fs::symlink_metadata(&location).map_err(failed)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            if let Some(path) = stripped(&inner, options.strip_components) {
                // Here its depth is checked, which bounds the recursion.
                tree.directory(path.to_owned())?;
            }
            read(tree, &location, &format!("{inner}/"), options)?;
            continue;
        }
        let Some(path) = stripped(&inner, options.strip_components) else {
            return Err(refused(inner, EntryRefusal::Stripped));
        };
        if kind.is_symlink() {
            let target = fs::read_link(&location).map_err(failed)?;
            let Some(target) = target.to_str() else {
                return Err(refused(inner, EntryRefusal::TargetNotUtf8));
            };
            tree.link(path.to_owned(), target.to_owned())?;
        } else if kind.is_file() {
            // Not following and not waiting: what lies there may have been replaced since it was looked at.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&location, flags, FileMode::empty());
            let mut file = File::from(opened.map_err(|error| failed(error.into()))?);
            let metadata = file.metadata().map_err(failed)?;
            if !metadata.is_file() {
                return Err(refused(inner, EntryRefusal::Device));
            }
            tree.file(path.to_owned(), mode(&inner, &metadata)?, &mut file, failed)?;
        } else if kind.is_fifo() {
            return Err(refused(inner, EntryRefusal::Fifo));
        } else if kind.is_socket() {
            return Err(refused(inner, EntryRefusal::Socket));
        } else {
            return Err(refused(inner, EntryRefusal::Device));
        }
    }
    Ok(())
}

fn mode(path: &str, metadata: &Metadata) -> Result<Mode, InputError> {
    if metadata.mode() & 0o6000 != 0 {
        return Err(refused(path, EntryRefusal::SetUid));
    }
    Ok(if metadata.mode() & 0o100 != 0 { Mode::Executable } else { Mode::Plain })
}

/// `path` without its first components; `None` where nothing is left of it.
pub(super) fn stripped(path: &str, components: usize) -> Option<&str> {
    (0..components).try_fold(path, |rest, _| rest.split_once('/').map(|(_, rest)| rest))
}
