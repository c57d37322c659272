//! OpenSSH's key files, of type ed25519. `ssh-key` reads the private ones; ring signs.

use age::secrecy::ExposeSecret;
use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    limits::KEY_FILE_BYTES,
    terminal::escape_line,
    trust::{PublicKey, SigningKey, sshsig},
};
use ssh_key::PrivateKey;

use super::Passphrase;
use crate::cli::failure::{Doing, Failure, Result};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const NEW: &str = "consign signs with ed25519 keys; make one: ssh-keygen -t ed25519";

pub(super) fn is_private(text: &str) -> bool {
    text.starts_with(BEGIN)
}

/// A private key file; its public half is in clear also where a passphrase protects it.
#[derive(Debug)]
pub(super) struct PrivateFile {
    key: PrivateKey,
    pub(super) public: PublicKey,
}

impl PrivateFile {
    /// `name` is for messages.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self> {
        let key = PrivateKey::from_openssh(text).doing(|| format!("failed to read {name}"))?;
        let Some(public) = key.public_key().key_data().ed25519() else {
            let kind = escape_line(key.algorithm().as_str());
            return Err(Failure::new(format!("{name} is an OpenSSH key of type {kind}")).next(NEW));
        };
        let public = PublicKey::from_raw(&public.0).doing(|| format!("the public key in {name}"))?;
        Ok(Self { key, public })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.key.is_encrypted()
    }

    /// Of a key without a passphrase.
    pub(super) fn signing_key(&self, name: &str) -> Result<SigningKey> {
        signing_key(&self.key, name)
    }

    pub(super) fn decrypt(&self, passphrase: &Passphrase, name: &str) -> Result<SigningKey> {
        let key = self
            .key
            .decrypt(passphrase.expose_secret())
            .map_err(|_| Failure::new(format!("the passphrase does not open {name}")).next("try again"))?;
        signing_key(&key, name)
    }
}

fn signing_key(key: &PrivateKey, name: &str) -> Result<SigningKey> {
    let pair =
        key.key_data().ed25519().ok_or_else(|| Failure::new(format!("{name} has no ed25519 key in it")))?;
    SigningKey::from_halves(pair.private.as_ref(), &pair.public.0)
        .doing(|| format!("the private key in {name}"))
}

/// One line, as in `~/.ssh/id_ed25519.pub`: the type, the key, a comment.
pub(crate) fn public_line(bytes: &[u8], name: &str) -> Result<PublicKey> {
    let invalid = |why: &str| Failure::new(format!("{name} is no OpenSSH public key: {why}"));
    if bytes.len() > KEY_FILE_BYTES {
        return Err(invalid("it is too long"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8"))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(invalid("it must have one line"));
    };
    let mut fields = line.split_ascii_whitespace();
    let (kind, key) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    if kind != "ssh-ed25519" {
        return Err(Failure::new(format!("{name} is an OpenSSH key of type {}", escape_line(kind))).next(NEW));
    }
    let blob = STANDARD.decode(key).map_err(|_| invalid("the key is not base64"))?;
    let raw = sshsig::raw_key(&blob).ok_or_else(|| invalid("the key is not one of type ssh-ed25519"))?;
    PublicKey::from_raw(raw).doing(|| format!("the key in {name}"))
}
