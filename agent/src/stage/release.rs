//! Writing a release: into a fresh directory, from a stream of files, then whole under its name.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
};

use cap_std::fs::{Dir, File, OpenOptions};
use consign_common::{
    artifact::{Entry, EntryKind, Manifest, Sink},
    crash,
    digest::Sha256,
    plan::Plan,
    trust::Privilege,
};
use rustix::fs::{AtFlags, Gid, Mode, Uid};

use super::{
    AppDirectory, StageError,
    layout::{handle, release_name, sync},
    verify::{is_whole, verify},
};

/// Filesystem overhead of one entry, for the check of free space.
const ENTRY_BYTES: u64 = 4096;

/// What a release is to look like, beside its entries.
#[derive(Debug)]
pub struct Form<'a> {
    pub digest: Sha256,
    pub manifest: &'a Manifest,
    pub plan: &'a Plan,
    pub privilege: &'a Privilege,
}

impl Form<'_> {
    /// The release that is there already, whole and with its shared links; what is there and damaged is removed, if it
    /// is not one of `in_use`.
    pub fn existing(&self, app: &AppDirectory, in_use: &[&str]) -> Result<Option<String>, StageError> {
        for name in self.names() {
            let Ok(release) = app.open_release(&name) else { return Ok(None) };
            let drift = verify(&release, self.manifest, self.plan)
                .map_err(StageError::io("cannot hash the release", &app.release_path(&name)))?;
            if is_whole(&drift) {
                return Ok(Some(name));
            }
            if !in_use.contains(&name.as_str()) {
                app.remove(&name).map_err(StageError::io("cannot remove", &app.release_path(&name)))?;
            }
        }
        Ok(None)
    }

    /// What the plan needs beside the release: shared paths, and the user that its writable ones belong to.
    pub fn check_surroundings(&self, app: &AppDirectory) -> Result<(), StageError> {
        for path in &self.plan.shared {
            let expected = app.shared_path(path);
            // Followed: what is shared may lie on another filesystem.
            match std::fs::metadata(&expected) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StageError::SharedMissing { path: path.clone(), expected });
                }
                Err(source) => return Err(StageError::Io { what: "cannot look at", path: expected, source }),
            }
        }
        self.owner().map(|_| ())
    }

    /// Whether the release fits, before a byte of it is fetched.
    pub fn check_space(&self, app: &AppDirectory) -> Result<(), StageError> {
        let path = app.releases_path();
        let space = rustix::fs::fstatvfs(app.releases())
            .map_err(|error| StageError::io("cannot ask for free space at", &path)(error.into()))?;
        let entries = self.manifest.entries.len() as u64;
        let needed = self.manifest.total_bytes().saturating_add(entries.saturating_mul(ENTRY_BYTES));
        let available = space.f_bavail.saturating_mul(space.f_frsize);
        if needed > available {
            return Err(StageError::DiskFull { path, needed, available });
        }
        // Some filesystems have no fixed number of inodes, and say 0 of 0.
        if space.f_files > 0 && entries > space.f_favail {
            return Err(StageError::InodesFull { path, needed: entries, available: space.f_favail });
        }
        Ok(())
    }

    /// The plain name, and others for when that one is in use and damaged.
    fn names(&self) -> impl Iterator<Item = String> {
        let name = release_name(&self.manifest.version, self.digest);
        std::iter::once(name.clone()).chain((2..100).map(move |copy| format!("{name}.{copy}")))
    }

    /// Whom `writable` paths belong to: the first user that the plan names.
    fn owner(&self) -> Result<Option<(Uid, Gid)>, StageError> {
        let user = self.plan.steps.iter().find_map(|step| step.user.as_deref());
        let (Privilege::Root, Some(user)) = (self.privilege, user) else { return Ok(None) };
        let missing = || StageError::UserMissing { user: user.to_owned() };
        let found = nix::unistd::User::from_name(user).map_err(|_| missing())?.ok_or_else(missing)?;
        Ok(Some((Uid::from_raw(found.uid.as_raw()), Gid::from_raw(found.gid.as_raw()))))
    }

    fn is_writable(&self, path: &str) -> bool {
        self.plan.writable.iter().any(|writable| is_at_or_below(path, writable))
    }
}

/// Whether `path` is `directory`, or lies in it.
pub(super) fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A release that is being written. Dropped before `finish`, it is removed when the app is next opened for staging.
#[derive(Debug)]
pub struct Staging<'a> {
    form: &'a Form<'a>,
    app: &'a AppDirectory,
    temporary: String,
    tree: Dir,
    open: Option<File>,
}

impl<'a> Staging<'a> {
    /// A fresh directory with all directories and links of the artifact.
    pub fn create(form: &'a Form<'a>, app: &'a AppDirectory) -> Result<Self, StageError> {
        let temporary = format!(".staging-{}", release_name(&form.manifest.version, form.digest));
        let path = app.release_path(&temporary);
        app.remove_tree(&temporary).map_err(StageError::io("cannot remove the leftover", &path))?;
        // Closed to everybody until `finish` has dressed all of it, so that nobody plants anything between.
        rustix::fs::mkdirat(app.releases(), temporary.as_str(), Mode::RWXU)
            .map_err(|error| StageError::io("cannot create", &path)(error.into()))?;
        crash::point("staging-begun");
        let tree = app.releases().open_dir(&temporary).map_err(StageError::io("cannot open", &path))?;
        let staging = Self { form, app, temporary, tree, open: None };
        for entry in &form.manifest.entries {
            let made = match &entry.kind {
                EntryKind::Dir => staging.tree.create_dir(&entry.path),
                EntryKind::Link { target } => staging.tree.symlink_contents(target, &entry.path),
                EntryKind::File { .. } => Ok(()),
            };
            made.map_err(StageError::io("cannot create", &path.join(&entry.path)))?;
        }
        Ok(staging)
    }

    /// Links to `shared/`, modes and owners, everything durable, and the name. Returns it.
    pub fn finish(self) -> Result<String, StageError> {
        let path = self.app.release_path(&self.temporary);
        self.link_shared().map_err(StageError::io("cannot link the shared paths of", &path))?;
        self.make_writable_paths().map_err(StageError::io("cannot create the writable paths of", &path))?;
        let owner = self.form.owner()?;
        self.dress(&self.tree, "", owner).map_err(StageError::io("cannot set modes and owners in", &path))?;
        crash::point("staging-sync-before");
        handle(&self.tree)
            .and_then(|tree| Ok(rustix::fs::syncfs(tree)?))
            .map_err(StageError::io("cannot make durable", &path))?;
        let free = |name: &String| self.app.releases().symlink_metadata(name).is_err();
        let Some(name) = self.form.names().find(free) else {
            return Err(StageError::InTheWay { path: self.app.releases_path() });
        };
        let releases = self.app.releases();
        crash::point("staging-rename-before");
        releases
            .rename(&self.temporary, releases, &name)
            .and_then(|()| sync(releases))
            .map_err(StageError::io("cannot give its name to", &path))?;
        crash::point("staging-rename-after");
        Ok(name)
    }

    fn link_shared(&self) -> io::Result<()> {
        for path in &self.form.plan.shared {
            if let Some(parent) = Path::new(path).parent() {
                self.tree.create_dir_all(parent)?;
            }
            // From releases/<release>/<parents...>/ up to the app's directory.
            let up = "../".repeat(Path::new(path).components().count() + 1);
            self.tree.symlink_contents(format!("{up}shared/{path}"), path)?;
        }
        Ok(())
    }

    /// A writable path that the artifact does not have is an empty directory.
    fn make_writable_paths(&self) -> io::Result<()> {
        let is_entry = |path: &String| self.form.manifest.entries.iter().any(|entry| entry.path == **path);
        for path in self.form.plan.writable.iter().filter(|path| !is_entry(path)) {
            self.tree.create_dir_all(path)?;
        }
        Ok(())
    }

    /// Sets modes and owners of all in `directory`, then of itself: what is read-only can take nothing in any more.
    fn dress(&self, directory: &Dir, path: &str, owner: Option<(Uid, Gid)>) -> io::Result<()> {
        for entry in directory.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return Err(io::ErrorKind::InvalidData.into()) };
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.dress(&entry.open_dir()?, &below, owner)?;
                continue;
            }
            let writable = self.form.is_writable(&below);
            if let (true, Some((uid, gid))) = (writable, owner) {
                rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if kind.is_file() {
                let bits = self.mode_of(&below);
                rustix::fs::fchmod(entry.open()?.as_fd(), self.mode(bits, writable))?;
            }
        }
        let writable = self.form.is_writable(path);
        let directory = handle(directory)?;
        if let (true, Some((uid, gid))) = (writable, owner) {
            rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
        }
        Ok(rustix::fs::fchmod(&directory, self.mode(0o755, writable))?)
    }

    fn mode_of(&self, path: &str) -> u32 {
        let entries = &self.form.manifest.entries;
        let found = entries.binary_search_by(|entry| entry.path.as_str().cmp(path));
        match found.ok().and_then(|index| entries.get(index)).map(|entry| &entry.kind) {
            Some(EntryKind::File { mode, .. }) => mode.bits(),
            Some(EntryKind::Dir | EntryKind::Link { .. }) | None => 0o644,
        }
    }

    fn mode(&self, bits: u32, writable: bool) -> Mode {
        Mode::from_raw_mode(match self.form.privilege {
            Privilege::User(_) if !writable => bits & 0o555,
            Privilege::User(_) | Privilege::Root => bits,
        })
    }
}

/// Content comes checked: what is not what the manifest says never reaches `finish`.
impl Sink for Staging<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        let mut options = OpenOptions::new();
        self.open = Some(self.tree.open_with(&entry.path, options.write(true).create_new(true))?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::other("content before its file")),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.open = None;
        Ok(())
    }
}
