//! Secrets that a step reads from files. They lie in memory (tmpfs), in a directory that only the step's user may enter,
//! and are removed when the attempt has ended; the supervisor makes them, because it knows when that is.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use consign_common::{deployment::Attempt, name::Id};
use nix::unistd::User;

/// Filesystems in memory, by the numbers of `statfs`.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The files of one attempt; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Private {
    directory: PathBuf,
    /// By variable, the path.
    variables: BTreeMap<String, PathBuf>,
}

impl Private {
    /// `files`: by the variable that names the file, its content. `None` where there are none.
    pub(super) fn create(
        deployment: &Id,
        attempt: Attempt,
        files: &BTreeMap<String, String>,
        user: Option<&str>,
    ) -> io::Result<Option<Self>> {
        if files.is_empty() {
            return Ok(None);
        }
        let directory = base()?.join(own_name(deployment, attempt));
        remove(&directory)?;
        DirBuilder::new().mode(0o700).create(&directory)?;
        // From here on it goes, whatever fails.
        let mut private = Self { directory, variables: BTreeMap::new() };
        for (number, (variable, content)) in files.iter().enumerate() {
            let path = private.directory.join(format!("{}-{number}", variable.to_ascii_lowercase()));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
            file.write_all(content.as_bytes())?;
            private.variables.insert(variable.clone(), path);
        }
        private.hand_over(user)?;
        Ok(Some(private))
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        self.variables.iter().map(move |(variable, path)| (variable.clone(), text(path)))
    }

    /// The directory last: until then nobody else can look into it. Who the step's user is, is found out as it is when the
    /// step executes; an unknown one ends the attempt there, with a message of its own.
    fn hand_over(&self, user: Option<&str>) -> io::Result<()> {
        if let Some(user) = user
            && nix::unistd::geteuid().is_root()
            && let Ok(Some(account)) = User::from_name(user)
        {
            let (uid, gid) = (Some(account.uid.as_raw()), Some(account.gid.as_raw()));
            for path in self.variables.values() {
                chown(path, uid, gid)?;
            }
            chown(&self.directory, uid, gid)?;
        }
        fs::set_permissions(&self.directory, Permissions::from_mode(0o500))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            tracing::error!(directory = %self.directory.display(), %error, "secrets in files were not removed");
        }
    }
}

/// What a supervisor that is gone left of an attempt.
pub(super) fn sweep(deployment: &Id, attempt: Attempt) -> io::Result<()> {
    remove(&place()?.join(own_name(deployment, attempt)))
}

fn own_name(deployment: &Id, attempt: Attempt) -> String {
    format!("{deployment}-{attempt}")
}

fn remove(directory: &Path) -> io::Result<()> {
    // As its owner without root it may not be written to.
    drop(fs::set_permissions(directory, Permissions::from_mode(0o700)));
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The directory of all attempts' directories. A filesystem on a disk is refused: what was written there may stay.
fn place() -> io::Result<PathBuf> {
    let user = rustix::process::geteuid();
    let places: &[&str] = if user.is_root() { &["/run", "/dev/shm"] } else { &["/dev/shm"] };
    let in_memory = |place: &&&str| {
        rustix::fs::statfs(Path::new(place))
            .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| IN_MEMORY.contains(&kind)))
    };
    let place = places.iter().find(in_memory).ok_or_else(|| {
        io::Error::other(format!("secrets are delivered in memory, and neither of {} is", places.join(", ")))
    })?;
    let name = match *place {
        // The unit of the agent has it as its runtime directory, so that its sandbox may sweep there.
        "/run" => "consign-secrets".to_owned(),
        _ => format!("consign-secrets-{}", user.as_raw()),
    };
    Ok(Path::new(place).join(name))
}

fn base() -> io::Result<PathBuf> {
    let (base, user) = (place()?, rustix::process::geteuid());
    let mode = if user.is_root() { 0o711 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(&base) {
        Ok(()) => fs::set_permissions(&base, Permissions::from_mode(mode))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // Anybody may make directories in /dev/shm, and this name can be guessed.
    let found = fs::symlink_metadata(&base)?;
    if !found.is_dir() || found.uid() != user.as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{} is not this user's own directory", base.display())));
    }
    Ok(base)
}
