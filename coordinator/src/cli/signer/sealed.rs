//! `consign-key-v2`: a key file whose private half is sealed with a passphrase, by age's scrypt. Owner, scheme and public
//! half stand in clear: whether it is the right key is known before anybody is asked for a passphrase.

use std::path::Path;

use age::scrypt::{Identity, Recipient};
use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    durable, json,
    limits::KEY_FILE_BYTES,
    name::Owner,
    trust::{KeyFile, PublicKey, Scheme, SigningKey},
};
use serde::{Deserialize, Serialize};

use super::Passphrase;
use crate::cli::failure::{Doing, Failure, Result};

pub(super) const FORMAT: &str = "consign-key-v2";

/// scrypt's cost, as the age command has it: a second, and 256 MiB. Whoever stole the file pays it for every guess. What
/// is built for tests does not wait so long.
const WORK: u8 = if cfg!(debug_assertions) { 12 } else { 18 };
/// What a file may ask of us: four times that.
const MAX_WORK: u8 = 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedKeyFile {
    /// `consign-key-v2`.
    format: String,
    pub(crate) scheme: Scheme,
    pub(crate) owner: Owner,
    /// The raw public key, standard base64 with padding.
    pub(crate) public: String,
    /// The PKCS#8 document as a binary age file with one scrypt recipient, standard base64 with padding.
    sealed: String,
}

impl SealedKeyFile {
    pub(crate) fn seal(owner: Owner, key: &SigningKey, passphrase: Passphrase) -> Result<Self> {
        let mut recipient = Recipient::new(passphrase);
        recipient.set_work_factor(WORK);
        let sealed =
            age::encrypt(&recipient, key.to_pkcs8()).doing(|| "failed to seal the private key".into())?;
        Ok(Self {
            format: FORMAT.into(),
            scheme: Scheme::Ed25519,
            owner,
            public: key.public().to_base64(),
            sealed: STANDARD.encode(sealed),
        })
    }

    /// `name` is for messages.
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let file: Self =
            json::from_slice(bytes, KEY_FILE_BYTES).doing(|| format!("failed to read {name}"))?;
        if file.format != FORMAT || file.scheme != Scheme::Ed25519 {
            return Err(Failure::new(format!("{name} is no {FORMAT}")));
        }
        file.public_key(name)?;
        Ok(file)
    }

    pub(crate) fn public_key(&self, name: &str) -> Result<PublicKey> {
        PublicKey::from_base64(&self.public).doing(|| format!("the public key in {name}"))
    }

    pub(crate) fn open(&self, passphrase: Passphrase, name: &str) -> Result<SigningKey> {
        let sealed = STANDARD.decode(&self.sealed).doing(|| format!("failed to read {name}"))?;
        let mut identity = Identity::new(passphrase);
        identity.set_max_work_factor(MAX_WORK);
        let pkcs8 = age::decrypt(&identity, &sealed).map_err(|_| {
            Failure::new(format!("the passphrase does not open {name}")).next(
                "try again; a passphrase that is lost is a key that is lost: docs/guide.md says what then",
            )
        })?;
        let key = SigningKey::from_pkcs8(&pkcs8).doing(|| format!("the private key in {name}"))?;
        if key.public() != self.public_key(name)? {
            return Err(Failure::new(format!("the public key in {name} is not that of its private key"))
                .next("somebody changed the file; do not use it"));
        }
        Ok(key)
    }

    /// Without a passphrase.
    pub(crate) fn plain(&self, key: &SigningKey) -> KeyFile {
        KeyFile::new(self.owner.clone(), key)
    }

    /// Mode 0600; what was there is replaced.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        durable::replace_file(path, &json::to_vec(self), 0o600).at("write", path)
    }
}
