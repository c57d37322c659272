//! An app's directory on this server: its releases, `shared/`, and the `current` link.

use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use cap_std::{ambient_authority, fs::Dir};
use consign_common::{
    crash,
    digest::Sha256,
    name::{App, Version},
};
use rustix::fs::{Mode, OFlags};

use super::StageError;

const CURRENT: &str = "current";
/// Made and renamed over `current` within one switch; a leftover of a crash is replaced.
const NEXT: &str = ".current.next";

/// `<apps>/<app>`.
#[derive(Debug)]
pub struct AppDirectory {
    path: PathBuf,
    root: Dir,
    releases: Dir,
}

/// `<version>-<first twelve digits of the digest>`.
pub fn release_name(version: &Version, digest: Sha256) -> String {
    format!("{version}-{}", digest.short())
}

impl AppDirectory {
    /// Opens it; what is missing of the directories is made.
    pub fn open(apps: &Path, app: &App) -> Result<Self, StageError> {
        let path = apps.join(app.as_str());
        let error = |path: &Path| StageError::io("cannot use the directory", path);
        let apps_dir = Dir::open_ambient_dir(apps, ambient_authority()).map_err(error(apps))?;
        check_owner(&apps_dir, apps)?;
        let root = open_or_create(&apps_dir, app.as_str()).map_err(error(&path))?;
        check_owner(&root, &path)?;
        let releases_path = path.join("releases");
        let releases = open_or_create(&root, "releases").map_err(error(&releases_path))?;
        check_owner(&releases, &releases_path)?;
        drop(open_or_create(&root, "shared").map_err(error(&path.join("shared")))?);
        Ok(Self { path, root, releases })
    }

    pub fn release_path(&self, release: &str) -> PathBuf {
        self.path.join("releases").join(release)
    }

    pub(super) fn shared_path(&self, path: &str) -> PathBuf {
        self.path.join("shared").join(path)
    }

    pub(super) fn releases(&self) -> &Dir {
        &self.releases
    }

    pub(super) fn releases_path(&self) -> PathBuf {
        self.path.join("releases")
    }

    pub fn open_release(&self, release: &str) -> io::Result<Dir> {
        self.releases.open_dir(release)
    }

    /// The release that `current` points at. A link that leads anywhere else is no release of ours.
    pub fn current(&self) -> io::Result<Option<String>> {
        let target = match self.root.read_link_contents(CURRENT) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut parts = target.components();
        Ok(match (parts.next(), parts.next(), parts.next()) {
            (Some(Component::Normal(first)), Some(Component::Normal(release)), None)
                if first == "releases" =>
            {
                release.to_str().map(str::to_owned)
            }
            _ => None,
        })
    }

    /// Points `current` at the release: whoever looks sees the old one or the new one, also after power was lost.
    pub fn switch(&self, release: &str) -> io::Result<()> {
        self.open_release(release)?;
        match self.root.symlink_metadata(CURRENT) {
            Ok(found) if !found.is_symlink() => {
                return Err(io::Error::other(format!(
                    "{} is not a link; move it away, then deploy again",
                    self.path.join(CURRENT).display()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.root.remove_file(NEXT) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        crash::point("switch-link-before");
        self.root.symlink_contents(Path::new("releases").join(release), NEXT)?;
        crash::point("switch-rename-before");
        self.root.rename(NEXT, &self.root, CURRENT)?;
        crash::point("switch-rename-after");
        sync(&self.root)?;
        crash::point("switch-sync-after");
        Ok(())
    }

    /// Removes a release; one that is not there is no error. Its name goes first, so that a half-removed one is never
    /// taken for whole.
    pub fn remove(&self, release: &str) -> io::Result<()> {
        let doomed = format!(".removing-{release}");
        crash::point("release-remove-before");
        match self.releases.rename(release, &self.releases, &doomed) {
            Ok(()) => sync(&self.releases)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        crash::point("release-remove-renamed");
        self.remove_tree(&doomed)?;
        crash::point("release-remove-after");
        Ok(())
    }

    /// Removes what a crash left half-written or half-removed; only the agent that owns the app may call it.
    pub fn clean(&self) -> io::Result<()> {
        for entry in self.releases.entries()? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(".staging-") || name.starts_with(".removing-") {
                self.remove_tree(name)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_tree(&self, name: &str) -> io::Result<()> {
        let tree = match self.releases.open_dir(name) {
            Ok(tree) => tree,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        rustix::fs::fchmod(handle(&tree)?, Mode::RWXU)?;
        empty(&tree)?;
        self.releases.remove_dir(name)
    }

    /// Removes the oldest releases beyond `keep`, but none of `protected`. Returns what was removed.
    pub fn prune(&self, keep: u32, protected: &[&str]) -> io::Result<Vec<String>> {
        let mut releases = Vec::new();
        for entry in self.releases.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_release_name(name)) else { continue };
            let staged = entry.metadata()?.modified()?.into_std();
            releases.push((protected.contains(&name), staged, name.to_owned()));
        }
        // Those that stay in any case count first, then the youngest.
        releases
            .sort_by_key(|(protected, staged, _)| (!*protected, std::cmp::Reverse::<SystemTime>(*staged)));
        let mut removed = Vec::new();
        for (protected, _, name) in releases.into_iter().skip(usize::try_from(keep).unwrap_or(usize::MAX)) {
            if !protected {
                self.remove(&name)?;
                removed.push(name);
            }
        }
        Ok(removed)
    }
}

/// Whether consign gave this name: what else lies in `releases/` is left alone.
fn is_release_name(name: &str) -> bool {
    let (stem, copy) = match name.rsplit_once('.') {
        Some((stem, copy)) if is_digest(stem) => (stem, Some(copy)),
        Some(_) | None => (name, None),
    };
    is_digest(stem) && copy.is_none_or(|copy| copy.parse::<u32>().is_ok())
}

fn is_digest(name: &str) -> bool {
    let digits = name.rsplit_once('-').map(|(_, digits)| digits);
    !name.starts_with('.')
        && digits.is_some_and(|digits| {
            digits.len() == 12 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
}

pub(super) fn sync(directory: &Dir) -> io::Result<()> {
    Ok(rustix::fs::fsync(handle(directory)?)?)
}

/// A `Dir` is a mere place (`O_PATH`); modes, owners and syncing need the directory opened.
pub(super) fn handle(directory: &Dir) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, c".", flags, Mode::empty())?)
}

fn open_or_create(parent: &Dir, name: &str) -> io::Result<Dir> {
    match parent.create_dir(name) {
        Ok(()) => {
            let made = parent.open_dir(name)?;
            rustix::fs::fchmod(handle(&made)?, Mode::from_raw_mode(0o755))?;
            sync(parent)?;
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => parent.open_dir(name),
        Err(error) => Err(error),
    }
}

/// Whoever may write here can put something else in the place of what was verified, before it runs. Without root there
/// is nobody to keep out but strangers: the steps run as the agent does.
fn check_owner(directory: &Dir, path: &Path) -> Result<(), StageError> {
    let found = handle(directory)
        .and_then(|directory| Ok(rustix::fs::fstat(directory)?))
        .map_err(StageError::io("cannot look at", path))?;
    let others = Mode::from_raw_mode(found.st_mode);
    let is_ours = if rustix::process::geteuid().is_root() {
        found.st_uid == 0 && !others.intersects(Mode::WGRP | Mode::WOTH)
    } else {
        !others.contains(Mode::WOTH)
    };
    if is_ours { Ok(()) } else { Err(StageError::OpenToOthers { path: path.to_owned() }) }
}

/// Empties a directory without ever going more than one level down: what an app made in its writable paths may be nested
/// deeper than a stack or the table of open files goes.
fn empty(tree: &Dir) -> io::Result<()> {
    let mut moved = 0;
    loop {
        let mut was_empty = true;
        for entry in tree.entries()? {
            let entry = entry?;
            was_empty = false;
            if entry.file_type()?.is_dir() {
                lift(tree, &entry.file_name(), &mut moved)?;
            } else {
                tree.remove_file(entry.file_name())?;
            }
        }
        if was_empty {
            return Ok(());
        }
    }
}

/// Removes a directory of `tree`, after its own directories have come up beside it.
fn lift(tree: &Dir, name: &OsStr, moved: &mut u64) -> io::Result<()> {
    make_writable(tree, name)?;
    let directory = tree.open_dir(name)?;
    for entry in directory.entries()? {
        let entry = entry?;
        let below = entry.file_name();
        if !entry.file_type()?.is_dir() {
            directory.remove_file(below)?;
            continue;
        }
        // A directory that changes its parent is written to.
        make_writable(&directory, &below)?;
        let place = loop {
            let place = format!(".{moved}");
            *moved += 1;
            if tree.symlink_metadata(&place).is_err() {
                break place;
            }
        };
        directory.rename(below, tree, place)?;
    }
    tree.remove_dir(name)
}

/// Directories of a release may be read-only, and then nothing in them can be removed.
fn make_writable(parent: &Dir, name: &OsStr) -> io::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    parent.set_permissions(name, cap_std::fs::Permissions::from_std(mode))
}
