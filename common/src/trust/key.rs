//! Ed25519 keys, through ring. A private key never leaves [`SigningKey`] but as its PKCS#8 document; a public key is
//! checked when it is loaded, because ring accepts points of small order, for which one signature fits any message.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use super::Scheme;
use crate::{
    digest::Sha256,
    durable,
    json::{self, InvalidJson},
    limits::KEY_FILE_BYTES,
    name::Owner,
};

/// A public key that may be in a trust root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error("not base64")]
    Encoding,
    #[error("{0} bytes, an Ed25519 public key has 32")]
    Length(usize),
    #[error("not in canonical form")]
    NonCanonical,
    #[error("a point of small order, for which anybody can make signatures")]
    SmallOrder,
    #[error("not an Ed25519 private key in PKCS#8 v2 with a public key that fits")]
    Private,
    #[error("the system gives no random bytes")]
    Random,
}

impl PublicKey {
    pub fn from_raw(raw: &[u8]) -> Result<Self, InvalidKey> {
        let key: [u8; 32] = raw.try_into().map_err(|_| InvalidKey::Length(raw.len()))?;
        // The y coordinate, little endian; the top bit is the sign of x.
        let mut y = key;
        y[31] &= 0x7f;
        if !below_prime(&y) {
            return Err(InvalidKey::NonCanonical);
        }
        if SMALL_ORDER.contains(&y) {
            return Err(InvalidKey::SmallOrder);
        }
        Ok(Self(key))
    }

    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        Self::from_raw(&STANDARD.decode(text).map_err(|_| InvalidKey::Encoding)?)
    }

    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    pub fn as_raw(&self) -> &[u8; 32] {
        &self.0
    }

    /// The SHA-256 of the raw key.
    pub fn id(&self) -> Sha256 {
        Sha256::of(&self.0)
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_base64())
    }
}

/// The y coordinates of the eight points of small order: 0 (order 4, both signs), 1 and -1 (orders 1 and 2, of which the
/// other sign is no point), and two of order 8 (both signs).
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = PRIME;
        minus_one[0] -= 1;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// 2^255 - 19, little endian.
const PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

fn below_prime(y: &[u8; 32]) -> bool {
    y.iter().rev().lt(PRIME.iter().rev())
}

/// What stands before the seed and before the public half in ring's PKCS#8 v2 documents of Ed25519 keys.
const PKCS8_SEED: &[u8] = b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const PKCS8_PUBLIC: &[u8] = b"\x81\x21\x00";

/// A private key. `Debug` shows the public half only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    pub fn generate() -> Result<Self, InvalidKey> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| InvalidKey::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// PKCS#8 v2, which holds both halves; ring checks that they fit.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| InvalidKey::Private)?;
        Ok(Self { pair, pkcs8: pkcs8.to_vec() })
    }

    /// From the two halves, as OpenSSH keeps them.
    pub fn from_halves(seed: &[u8; 32], public: &[u8; 32]) -> Result<Self, InvalidKey> {
        let mut pkcs8 = PKCS8_SEED.to_vec();
        pkcs8.extend_from_slice(seed);
        pkcs8.extend_from_slice(PKCS8_PUBLIC);
        pkcs8.extend_from_slice(public);
        Self::from_pkcs8(&pkcs8)
    }

    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub fn public(&self) -> PublicKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(raw)
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

/// A private key on disk (docs/formats.md, "key file").
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// [`KEY_FILE_FORMAT`].
    pub format: String,
    pub scheme: Scheme,
    pub owner: Owner,
    /// The PKCS#8 document, standard base64 with padding.
    pub private: String,
}

pub const KEY_FILE_FORMAT: &str = "consign-key-v1";

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("failed to access the key file {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a key file")]
    Json { path: PathBuf, source: InvalidJson },
    #[error("{path} has the format {format:?}, this version of consign reads {KEY_FILE_FORMAT:?}")]
    Format { path: PathBuf, format: String },
    #[error("the key in {path} cannot be used")]
    Key { path: PathBuf, source: InvalidKey },
}

impl KeyFile {
    pub fn new(owner: Owner, key: &SigningKey) -> Self {
        Self {
            format: KEY_FILE_FORMAT.to_owned(),
            scheme: Scheme::Ed25519,
            owner,
            private: STANDARD.encode(key.to_pkcs8()),
        }
    }

    /// Reads and checks; what comes back can sign.
    pub fn read(path: &Path) -> Result<(Self, SigningKey), KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let bytes = read_bounded(path).map_err(io)?;
        let file: Self = json::from_slice(&bytes, KEY_FILE_BYTES)
            .map_err(|source| KeyFileError::Json { path: path.to_owned(), source })?;
        if file.format != KEY_FILE_FORMAT {
            return Err(KeyFileError::Format { path: path.to_owned(), format: file.format });
        }
        let key = file.key().map_err(|source| KeyFileError::Key { path: path.to_owned(), source })?;
        Ok((file, key))
    }

    /// Mode 0600; what was there is replaced.
    pub fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        durable::replace_file(path, &json::to_vec(self), 0o600)
            .map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
    }

    pub fn key(&self) -> Result<SigningKey, InvalidKey> {
        SigningKey::from_pkcs8(&STANDARD.decode(&self.private).map_err(|_| InvalidKey::Encoding)?)
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({})", self.owner)
    }
}

/// One byte more than allowed shows that there is too much, whatever the file is.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(KEY_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_signature_fits_its_message_and_key_only() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"massage", &signature));
        assert!(!other.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"message", &signature[..63]));
        assert!(!key.public().verify(b"message", &[]));
        let again = SigningKey::from_pkcs8(key.to_pkcs8()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.to_pkcs8()[..16], *PKCS8_SEED);
        let seed = key.to_pkcs8()[16..48].try_into().unwrap();
        let halves = SigningKey::from_halves(&seed, key.public().as_raw()).unwrap();
        assert_eq!(halves.to_pkcs8(), key.to_pkcs8());
        assert!(SigningKey::from_halves(&seed, other.public().as_raw()).is_err());
        assert!(!format!("{key:?}").contains(&STANDARD.encode(key.to_pkcs8())));
    }

    #[test]
    fn a_malleated_signature_is_refused() {
        // S + L is the same scalar to a verifier that does not check its range.
        let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let key = SigningKey::generate().unwrap();
        let mut signature = key.sign(b"message");
        let mut carry = 0;
        for (digit, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*digit) + u16::from(add) + carry;
            *digit = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert!(!key.public().verify(b"message", &signature));
    }

    #[test]
    fn small_order_points_are_refused_in_every_spelling() {
        let points = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        ];
        for point in points {
            assert_eq!(PublicKey::from_raw(&hex(point)), Err(InvalidKey::SmallOrder), "{point}");
        }
    }

    #[test]
    fn every_coordinate_at_or_above_the_prime_is_refused() {
        // p = 2^255 - 19, so there are nineteen, each with two signs.
        for low in 0xed..=0xff {
            for high in [0x7f, 0xff] {
                let mut raw = [0xff; 32];
                (raw[0], raw[31]) = (low, high);
                assert_eq!(PublicKey::from_raw(&raw), Err(InvalidKey::NonCanonical), "{low:x}");
            }
        }
        assert_eq!(PublicKey::from_raw(&[1; 31]), Err(InvalidKey::Length(31)));
        assert_eq!(PublicKey::from_base64("!"), Err(InvalidKey::Encoding));
    }

    #[test]
    fn a_key_file_is_private_and_strict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let key = SigningKey::generate().unwrap();
        let file = KeyFile::new("alice".parse().unwrap(), &key);
        file.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (read, again) = KeyFile::read(&path).unwrap();
        assert_eq!((read, again.public()), (file.clone(), key.public()));

        let refuse = |file: &KeyFile| {
            file.write(&path).unwrap();
            KeyFile::read(&path).unwrap_err()
        };
        let newer = KeyFile { format: "consign-key-v2".into(), ..file.clone() };
        assert!(matches!(refuse(&newer), KeyFileError::Format { .. }));
        // A public half that does not belong to the private one.
        let mut pkcs8 = key.to_pkcs8().to_vec();
        *pkcs8.last_mut().unwrap() ^= 1;
        let broken = KeyFile { private: STANDARD.encode(pkcs8), ..file };
        assert!(matches!(refuse(&broken), KeyFileError::Key { .. }));
        std::fs::write(&path, vec![b' '; KEY_FILE_BYTES + 10]).unwrap();
        assert!(matches!(KeyFile::read(&path), Err(KeyFileError::Json { .. })));
    }

    #[test]
    fn a_key_file_in_a_trace_shows_its_owner_only() {
        let file = KeyFile::new("alice".parse().unwrap(), &SigningKey::generate().unwrap());
        assert_eq!(format!("{file:?}"), "KeyFile(alice)");
    }

    #[test]
    fn a_key_file_is_read_up_to_its_limit_and_never_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let key = SigningKey::generate().unwrap();
        let mut bytes = json::to_vec(&KeyFile::new("alice".parse().unwrap(), &key));
        bytes.resize(KEY_FILE_BYTES, b' ');
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(KeyFile::read(&path).unwrap().1.public(), key.public());
        bytes.push(b' ');
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(KeyFile::read(&path), Err(KeyFileError::Json { .. })));
    }
}
