//! One key that signs. It is read when it is named, and opened (a passphrase, a touch) when it signs.

use std::{fmt, path::Path, sync::OnceLock};

use consign_common::{
    digest::Sha256,
    json,
    limits::KEY_FILE_BYTES,
    name::Owner,
    trust::{
        Envelope, KEY_FILE_FORMAT, KeyFile, PublicKey, Scheme, Signature, SigningKey, TrustRoot, pae, sshsig,
    },
};
use serde::Deserialize;

use super::{
    KeyName, PassphraseArgs, SealedKeyFile,
    agent::{self, AgentKey},
    openssh::{self, PrivateFile},
    sealed,
};
use crate::cli::{
    failure::{Doing, Failure, Result},
    profile::read,
};

pub(crate) struct Signer {
    /// For messages.
    name: String,
    public: PublicKey,
    scheme: Scheme,
    owner: Option<Owner>,
    held: Held,
}

enum Held {
    Open(SigningKey),
    Locked { lock: Lock, passphrase: PassphraseArgs, opened: OnceLock<SigningKey> },
    Agent(AgentKey),
}

enum Lock {
    File(SealedKeyFile),
    Ssh(Box<PrivateFile>),
}

impl Signer {
    /// A key that was just made.
    pub(crate) fn of_key(key: SigningKey, owner: Owner, name: &str) -> Self {
        let (public, scheme) = (key.public(), Scheme::Ed25519);
        Self { name: name.into(), public, scheme, owner: Some(owner), held: Held::Open(key) }
    }

    pub(crate) fn open(name: &KeyName, passphrase: &PassphraseArgs) -> Result<Self> {
        match name {
            KeyName::File(path) => Self::read(path, passphrase),
            KeyName::Agent(key) => Ok(Self::of_agent(agent::find(key)?)),
        }
    }

    pub(crate) fn open_all(names: &[KeyName], passphrase: &PassphraseArgs) -> Result<Vec<Self>> {
        names.iter().map(|name| Self::open(name, passphrase)).collect()
    }

    fn read(path: &Path, passphrase: &PassphraseArgs) -> Result<Self> {
        if !path.exists() {
            return Err(Failure::new(format!("there is no key at {}", path.display())).next(
                "--key FILE names another one, --key ssh-agent:FINGERPRINT one that your ssh-agent holds",
            ));
        }
        Self::parse(&read(path, KEY_FILE_BYTES as u64)?, &path.display().to_string(), passphrase)
    }

    /// A key file's content. `name` is for messages.
    pub(crate) fn parse(content: &[u8], name: &str, passphrase: &PassphraseArgs) -> Result<Self> {
        let text = std::str::from_utf8(content).unwrap_or_default().trim();
        if text.starts_with('{') {
            return Self::of_json(text.as_bytes(), name, passphrase);
        }
        if openssh::is_private(text) {
            return Self::of_openssh(PrivateFile::parse(text, name)?, name, passphrase);
        }
        // As with `ssh-keygen -Y sign -f KEY.pub`: the agent has the other half.
        if text.starts_with("ssh-") {
            return Ok(Self::of_agent(agent::find_public(&openssh::public_line(text.as_bytes(), name)?)?));
        }
        let what = format!("{name} is no key that consign knows");
        Err(Failure::new(what).next(if text.starts_with("-----BEGIN") {
            "it reads its own key files, and OpenSSH's of type ed25519: ssh-keygen -t ed25519"
        } else {
            "make one: consign key generate FILE --owner NAME, or ssh-keygen -t ed25519"
        }))
    }

    fn of_json(content: &[u8], name: &str, passphrase: &PassphraseArgs) -> Result<Self> {
        let doing = || format!("failed to read {name}");
        let Format { format } = json::from_slice(content, KEY_FILE_BYTES).doing(doing)?;
        match format.as_str() {
            KEY_FILE_FORMAT => {
                let file: KeyFile = json::from_slice(content, KEY_FILE_BYTES).doing(doing)?;
                let key = file.key().doing(doing)?;
                Ok(Self::of_key(key, file.owner, name))
            }
            sealed::FORMAT => {
                let file = SealedKeyFile::parse(content, name)?;
                let (public, scheme) = (file.public_key(name)?, file.scheme);
                let owner = Some(file.owner.clone());
                let held = Held::locked(Lock::File(file), passphrase);
                Ok(Self { name: name.into(), public, scheme, owner, held })
            }
            _ if format.starts_with("consign-public-key-") => {
                Err(Failure::new(format!("{name} is a public key, which signs nothing"))
                    .next("name the file with the private half, which ends in .key"))
            }
            other => Err(Failure::new(format!(
                "{name} has the format {other:?}; this version of consign reads {KEY_FILE_FORMAT} and {}",
                sealed::FORMAT
            ))),
        }
    }

    fn of_openssh(file: PrivateFile, name: &str, passphrase: &PassphraseArgs) -> Result<Self> {
        let (public, scheme) = (file.public, Scheme::Sshsig);
        let held = if file.is_encrypted() {
            Held::locked(Lock::Ssh(Box::new(file)), passphrase)
        } else {
            Held::Open(file.signing_key(name)?)
        };
        Ok(Self { name: name.into(), public, scheme, owner: None, held })
    }

    fn of_agent(key: AgentKey) -> Self {
        let name = format!("ssh-agent:{}", key.comment);
        Self { name, public: key.public, scheme: Scheme::Sshsig, owner: None, held: Held::Agent(key) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key's id in a trust root.
    pub(crate) fn id(&self) -> Sha256 {
        self.public.id()
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whose it is, where its file says so. What counts is what the trust root says.
    pub(crate) fn owner_hint(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Its signatures count only where the trust root knows the key under the scheme that it signs in.
    pub(crate) fn check_scheme(&self, root: &TrustRoot) -> Result<()> {
        match root.keys.get(&self.id()) {
            Some(key) if key.scheme != self.scheme => Err(Failure::refused(format!(
                "the trust root takes {:?} signatures from the key {}, and {} makes {:?} ones",
                key.scheme,
                self.id().short(),
                self.name,
                self.scheme
            ))
            .next("sign with the form of the key that was given to the trust root")),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn sign(&self, payload_type: &str, payload: &[u8]) -> Result<Signature> {
        let message = pae(payload_type, payload);
        let bytes = match self.scheme {
            Scheme::Ed25519 => self.raw(&message)?,
            Scheme::Sshsig => sshsig::blob(&self.public, &self.raw(&sshsig::to_sign(&message))?),
        };
        Ok(Signature { key_id: self.id().to_string(), bytes })
    }

    fn raw(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        match &self.held {
            Held::Open(key) => Ok(key.sign(bytes)),
            Held::Agent(key) => key.sign(bytes),
            Held::Locked { .. } => Ok(self.signing_key()?.sign(bytes)),
        }
    }

    /// The private key itself, for a file that is to be written anew; asks for the passphrase once.
    pub(crate) fn signing_key(&self) -> Result<&SigningKey> {
        match &self.held {
            Held::Open(key) => Ok(key),
            Held::Agent(_) => Err(Failure::new(format!("{} does not leave its agent", self.name))),
            Held::Locked { lock, passphrase, opened } => {
                if let Some(key) = opened.get() {
                    return Ok(key);
                }
                let key = lock.open(passphrase, &self.name)?;
                Ok(opened.get_or_init(|| key))
            }
        }
    }
}

impl Held {
    fn locked(lock: Lock, passphrase: &PassphraseArgs) -> Self {
        Self::Locked { lock, passphrase: passphrase.clone(), opened: OnceLock::new() }
    }
}

impl Lock {
    fn open(&self, passphrase: &PassphraseArgs, name: &str) -> Result<SigningKey> {
        let passphrase = passphrase.of(name)?;
        match self {
            Self::File(file) => file.open(passphrase, name),
            Self::Ssh(file) => file.decrypt(&passphrase, name),
        }
    }
}

/// What says which key file it is; the rest is read strictly afterwards.
#[derive(Deserialize)]
struct Format {
    format: String,
}

/// An envelope with a signature of each.
pub(crate) fn sign<'a>(
    payload_type: &str,
    payload: Vec<u8>,
    signers: impl IntoIterator<Item = &'a Signer>,
) -> Result<Envelope> {
    let mut envelope = Envelope::unsigned(payload_type, payload);
    for signer in signers {
        let signature = signer.sign(payload_type, envelope.payload())?;
        envelope.add(signature);
    }
    Ok(envelope)
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {:?})", self.name, self.public)
    }
}
