//! SSHSIG, as `ssh-keygen -Y sign -n consign` writes it (OpenSSH's PROTOCOL.sshsig), for keys of type ssh-ed25519.
//!
//! What is signed is not the message but a frame around its hash, with the namespace in it: a signature that was made
//! for git, for a mail or for a login is none for consign. The blob is read strictly: version 1, nothing reserved,
//! nothing after its end, and every field as long as it must be.

use ring::digest::{SHA256, SHA512, digest};

use super::PublicKey;
use crate::limits::SSHSIG_BYTES;

/// What `-n` says. Signatures for other purposes are not ours.
pub const SSHSIG_NAMESPACE: &str = "consign";

const MAGIC: &[u8; 6] = b"SSHSIG";
const VERSION: u32 = 1;
const KEY_TYPE: &[u8] = b"ssh-ed25519";

/// The hash of the message, which the blob names. OpenSSH writes sha512, and reads both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"sha256",
            Self::Sha512 => b"sha512",
        }
    }

    fn of(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha512 => &SHA512,
        };
        digest(algorithm, message).as_ref().to_vec()
    }
}

/// Whether this blob is a signature of the message in our namespace, by this key and no other.
pub fn verify(key: &PublicKey, message: &[u8], blob: &[u8]) -> bool {
    let Some((hash, signature)) = open(key, blob) else { return false };
    key.verify(&frame(hash, message), signature)
}

/// What the key signs.
pub fn to_sign(message: &[u8]) -> Vec<u8> {
    frame(Hash::Sha512, message)
}

/// The blob, from the key's signature of [`to_sign`].
pub fn blob(key: &PublicKey, signature: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_be_bytes());
    put(&mut bytes, &public_blob(key));
    put(&mut bytes, SSHSIG_NAMESPACE.as_bytes());
    put(&mut bytes, b"");
    put(&mut bytes, Hash::Sha512.name());
    let mut inner = Vec::new();
    put(&mut inner, KEY_TYPE);
    put(&mut inner, signature);
    put(&mut bytes, &inner);
    bytes
}

/// The key as SSH writes it: in `.pub` files, in agents, in fingerprints.
pub fn public_blob(key: &PublicKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, KEY_TYPE);
    put(&mut bytes, key.as_raw());
    bytes
}

/// The raw key in such a blob, if it is one of type ssh-ed25519.
pub fn raw_key(blob: &[u8]) -> Option<&[u8]> {
    of_type(blob).filter(|raw| raw.len() == 32)
}

/// The raw signature in SSH's encoding of one, if it is one by an ssh-ed25519 key.
pub fn raw_signature(encoded: &[u8]) -> Option<&[u8]> {
    of_type(encoded).filter(|raw| raw.len() == 64)
}

fn frame(hash: Hash, message: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    put(&mut bytes, SSHSIG_NAMESPACE.as_bytes());
    put(&mut bytes, b"");
    put(&mut bytes, hash.name());
    put(&mut bytes, &hash.of(message));
    bytes
}

/// The hash and the raw signature. The key in the blob must be the one that is asked for: the blob does not choose it.
fn open<'a>(key: &PublicKey, blob: &'a [u8]) -> Option<(Hash, &'a [u8])> {
    if blob.len() > SSHSIG_BYTES {
        return None;
    }
    let mut rest = Reader::new(blob);
    if rest.take(MAGIC.len())? != MAGIC || rest.number()? != VERSION {
        return None;
    }
    if rest.string()? != public_blob(key) || rest.string()? != SSHSIG_NAMESPACE.as_bytes() {
        return None;
    }
    // Reserved: whoever sets it says something that this version does not understand.
    if !rest.string()?.is_empty() {
        return None;
    }
    let name = rest.string()?;
    let hash = [Hash::Sha512, Hash::Sha256].into_iter().find(|hash| hash.name() == name)?;
    let signature = raw_signature(rest.string()?)?;
    rest.is_empty().then_some((hash, signature))
}

/// What follows the key type, and nothing else follows.
fn of_type(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = Reader::new(bytes);
    if rest.string()? != KEY_TYPE {
        return None;
    }
    let raw = rest.string()?;
    rest.is_empty().then_some(raw)
}

/// Appends a string in SSH's encoding.
pub fn put(bytes: &mut Vec<u8>, string: &[u8]) {
    // Ours are all short; a length that did not fit would make a blob that nobody reads.
    bytes.extend(u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(string);
}

/// SSH's encoding (RFC 4251, section 5): what is read is cut off.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }
}

#[cfg(test)]
#[path = "sshsig_tests.rs"]
mod tests;
