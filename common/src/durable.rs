//! Files that survive a crash: written whole or not at all, and found again after power was lost.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::crash;

/// Puts `bytes` at `path` with exactly `mode`. A reader, also after a crash, sees the old content or the new, never a
/// part. The content is never readable by more than `mode` allows, not even before it is in place.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    crash::point("durable-write-before");
    let (temporary, mut file) = create_beside(path, mode)?;
    let written = (|| {
        // The mode of `open` is cut by the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        crash::point("durable-rename-before");
        fs::rename(&temporary, path)
    })();
    match written {
        Ok(()) => sync_dir(parent(path)),
        Err(error) => {
            // What was wrong is the first error; a leftover with a name of its own does no harm.
            drop(fs::remove_file(&temporary));
            Err(error)
        }
    }
}

/// Makes one directory with exactly `mode`; its parent must exist, it itself must not.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    crash::point("durable-directory-before");
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    sync_dir(path)?;
    sync_dir(parent(path))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    crash::point("durable-names-before");
    File::open(path)?.sync_all()?;
    crash::point("durable-names-after");
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// A new file in the same directory. What a crash left there, or what somebody else put there, is never opened.
fn create_beside(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        let mut own = std::ffi::OsString::from(".");
        own.push(name);
        own.push(format!(".{}-{}.tmp", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = parent(path).join(own);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn replaces_content_and_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.pem");
        replace_file(&path, b"old", 0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
        replace_file(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, b"kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace_file(&link, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"kept");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn a_failure_leaves_the_directory_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("occupied");
        fs::create_dir(&path).unwrap();
        replace_file(&path, b"new", 0o600).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        replace_file(&dir.path().join("missing/file"), b"new", 0o600).unwrap_err();
    }

    #[test]
    fn a_directory_gets_exactly_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        create_dir(&path, 0o777).unwrap();
        assert_eq!(mode(&path), 0o777);
        assert_eq!(create_dir(&path, 0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
