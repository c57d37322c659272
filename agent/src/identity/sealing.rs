//! This server's key for secrets: made once, at enrolment or at the first start of an agent that knows of it, and never
//! renewed, because what is sealed to it could not be opened any more. The file is one that `age -d -i` takes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use consign_common::{
    durable,
    sealing::{InvalidSealingKey, SealingKey},
};

#[derive(Debug, thiserror::Error)]
pub enum SealingFileError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} cannot be used: {source}; without it, secrets that were sealed to this server cannot be opened (remove it, and the next start makes another one, which must be accepted anew)"
    )]
    Key { path: PathBuf, source: InvalidSealingKey },
}

/// The key, where there is one.
pub fn read(path: &Path) -> Result<Option<SealingKey>, SealingFileError> {
    match fs::read_to_string(path) {
        Ok(text) => SealingKey::parse(&text)
            .map(Some)
            .map_err(|source| SealingFileError::Key { path: path.into(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SealingFileError::Io { path: path.into(), source }),
    }
}

/// The key; a new one where there is none. Only with the state's lock: two would make two.
pub fn read_or_make(path: &Path) -> Result<SealingKey, SealingFileError> {
    match read(path)? {
        Some(key) => Ok(key),
        None => {
            let key = SealingKey::generate();
            write(path, &key)?;
            Ok(key)
        }
    }
}

pub(super) fn write(path: &Path, key: &SealingKey) -> Result<(), SealingFileError> {
    durable::replace_file(path, key.to_file().as_bytes(), 0o600)
        .map_err(|source| SealingFileError::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        assert!(read(&path).unwrap().is_none());
        let made = read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_make(&path).unwrap().recipient(), made.recipient());
        assert!(fs::read_to_string(&path).unwrap().starts_with("AGE-SECRET-KEY-1"));
        fs::write(&path, "broken").unwrap();
        let told = read_or_make(&path).unwrap_err().to_string();
        assert!(told.contains("sealing.key") && told.contains("accepted anew"), "{told}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "broken", "left as it was");
    }
}
