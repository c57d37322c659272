//! A certificate with its private key, and the file that holds both.

use std::{fmt, fs, io::Read, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls_pki_types::{
    CertificateDer, PrivatePkcs8KeyDer,
    pem::{PemObject, SectionKind},
};

use super::{Peer, TlsError, peer_identity};
use crate::{durable, limits::IDENTITY_BYTES};

#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key_pkcs8: Vec<u8>,
}

impl Identity {
    /// A new key and the request for its certificate: `(request, private key)`, DER and PKCS#8. The request names
    /// nobody; who it is for is the issuer's to say.
    pub fn generate_csr() -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(TlsError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(TlsError::Make)?;
        Ok((request.der().to_vec(), key.serialized_der().to_vec()))
    }

    /// What the certificate says.
    pub fn peer(&self) -> Result<Peer, TlsError> {
        peer_identity(&self.certificate)
    }

    /// Certificate and private key in one file, as [`Self::write`] leaves it.
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let io = |source| TlsError::Io { path: path.to_owned(), source };
        let mut text = String::new();
        let file = fs::File::open(path).map_err(io)?;
        file.take(IDENTITY_BYTES as u64).read_to_string(&mut text).map_err(io)?;
        Self::from_pem(&text)
    }

    /// Mode 0600; old or new, never a part.
    pub fn write(&self, path: &Path) -> Result<(), TlsError> {
        durable::replace_file(path, self.to_pem().as_bytes(), 0o600)
            .map_err(|source| TlsError::Io { path: path.to_owned(), source })
    }

    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let (certificate, key_pkcs8) = sections("identity", text)?;
        Ok(Self { certificate, key_pkcs8 })
    }

    /// Holds the private key.
    pub fn to_pem(&self) -> String {
        pem(&self.certificate, &self.key_pkcs8)
    }

    pub(super) fn key(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_pkcs8.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer() {
            Ok(peer) => write!(f, "Identity({})", peer.subject.uri()),
            Err(_) => f.write_str("Identity(unreadable)"),
        }
    }
}

pub(super) fn pem(certificate: &CertificateDer<'_>, pkcs8: &[u8]) -> String {
    let mut text = String::new();
    for (label, der) in [("CERTIFICATE", certificate.as_ref()), ("PRIVATE KEY", pkcs8)] {
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        let mut rest = STANDARD.encode(der);
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(64));
            text.push_str(&rest);
            text.push('\n');
            rest = after;
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text
}

/// Exactly one certificate and one private key.
pub(super) fn sections(
    what: &'static str,
    text: &str,
) -> Result<(CertificateDer<'static>, Vec<u8>), TlsError> {
    let malformed = |why: String| TlsError::Malformed { what, why };
    let (mut certificate, mut key) = (None, None);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|error| malformed(error.to_string()))?;
        let second = if matches!(kind, SectionKind::Certificate) {
            certificate.replace(CertificateDer::from(der)).is_some()
        } else if matches!(kind, SectionKind::PrivateKey) {
            key.replace(der).is_some()
        } else {
            return Err(malformed(format!("it holds a {kind:?}")));
        };
        if second {
            return Err(malformed("it holds two certificates or two keys".to_owned()));
        }
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok((certificate, key)),
        (Some(_) | None, _) => Err(malformed("it lacks the certificate or the private key".to_owned())),
    }
}
