//! This server's key for receipts. It is not the certificate's, which is another one every month; that one endorses it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use consign_common::{
    durable,
    limits::KEY_FILE_BYTES,
    name::ServerName,
    tls::Identity,
    trust::{InvalidKey, PublicKey, ReceiptKey, SigningKey},
};

#[derive(Debug, thiserror::Error)]
pub enum ReceiptKeyError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used: {source}; remove it, and the next start makes another one")]
    Key { path: PathBuf, source: InvalidKey },
}

/// The key; a new one where there is none. Only with the state's lock: two would make two.
pub fn read_or_make(path: &Path) -> Result<SigningKey, ReceiptKeyError> {
    let io = |source| ReceiptKeyError::Io { path: path.into(), source };
    let invalid = |source| ReceiptKeyError::Key { path: path.into(), source };
    match fs::metadata(path) {
        Ok(file) if file.len() > KEY_FILE_BYTES as u64 => Err(invalid(InvalidKey::Encoding)),
        Ok(_) => {
            let text = fs::read_to_string(path).map_err(io)?;
            let pkcs8 = STANDARD.decode(text.trim_end()).map_err(|_| invalid(InvalidKey::Encoding))?;
            SigningKey::from_pkcs8(&pkcs8).map_err(invalid)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate().map_err(invalid)?;
            let text = format!("{}\n", STANDARD.encode(key.to_pkcs8()));
            durable::replace_file(path, text.as_bytes(), 0o600).map_err(io)?;
            Ok(key)
        }
        Err(error) => Err(io(error)),
    }
}

/// The certificate's word for this key. Nothing where the certificate is of another kind than ours are.
pub fn endorsement(server: &ServerName, identity: &Identity, key: &PublicKey) -> Vec<u8> {
    match SigningKey::from_pkcs8(&identity.key_pkcs8) {
        Ok(certified) => ReceiptKey::endorse(server, &certified, key).to_vec(),
        Err(error) => {
            tracing::warn!(%error, "the key of receipts cannot be endorsed");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("receipt.key");
        let made = read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_make(&path).unwrap().public(), made.public());
        fs::write(&path, "broken").unwrap();
        assert!(read_or_make(&path).unwrap_err().to_string().contains("receipt.key"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "broken", "left as it was");
    }
}
