//! The coordinator's certificate authority. It takes nothing from a request but the public key: names, uses and times in
//! a certificate are ours.

use std::{fmt, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
    SubjectPublicKeyInfo, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::{
    COORDINATOR_NAME, Identity, Subject, TlsError,
    identity::{pem, sections},
    peer::spki_sha256,
};
use crate::{digest::Sha256, time::UnixMs, trust::PublicKey};

/// A server's clock may be hours behind when it first connects; it must get in for that to be seen and said.
const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);
/// The CA is known by its pin; it ends by being replaced in the trust root.
const CA_VALID: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Beyond this a certificate's time cannot be written (year 9999), with room for [`CA_VALID`].
const LATEST: UnixMs = UnixMs(250_000_000_000_000);

pub struct Ca {
    certificate: CertificateDer<'static>,
    pin: Sha256,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A new CA for the coordinator with this id.
    pub fn generate(id: &str, now: UnixMs) -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(TlsError::Make)?;
        let mut params = params(&format!("consign CA of {id}"), now, CA_VALID)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(TlsError::Make)?.der().clone();
        Self::new(certificate, key)
    }

    /// The certificate and the private key, as [`Self::to_pem`] writes them.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let (certificate, pkcs8) = sections("CA", text)?;
        let key = KeyPair::try_from(pkcs8.as_slice()).map_err(TlsError::Make)?;
        let ca = Self::new(certificate, key)?;
        if ca.pin != Sha256::of(&ca.issuer.key().subject_public_key_info()) {
            return Err(TlsError::Malformed {
                what: "CA",
                why: "key and certificate do not belong together".into(),
            });
        }
        Ok(ca)
    }

    /// Holds the private key.
    pub fn to_pem(&self) -> String {
        pem(&self.certificate, self.issuer.key().serialized_der())
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, TlsError> {
        let pin = spki_sha256(&certificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(TlsError::Make)?;
        Ok(Self { certificate, pin, issuer })
    }

    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-256 of the CA's SPKI: what tokens and trust roots name it by.
    pub fn pin(&self) -> Sha256 {
        self.pin
    }

    /// A certificate for this public key (of a request: [`spki_from_csr`]).
    pub fn issue(
        &self,
        spki: &[u8],
        subject: &Subject,
        now: UnixMs,
        valid: Duration,
    ) -> Result<CertificateDer<'static>, TlsError> {
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(TlsError::Make)?;
        check_key(&key)?;
        let mut params = params(subject.common_name(), now, valid)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let uri = subject.uri().try_into().map_err(TlsError::Make)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.extended_key_usages = match subject {
            Subject::Coordinator { .. } => {
                let name = COORDINATOR_NAME.try_into().map_err(TlsError::Make)?;
                params.subject_alt_names.push(SanType::DnsName(name));
                vec![ExtendedKeyUsagePurpose::ServerAuth]
            }
            Subject::Agent { .. } | Subject::Operator { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(params.signed_by(&key, &self.issuer).map_err(TlsError::Make)?.der().clone())
    }

    /// A new key with its certificate: for the coordinator itself and for the first operator.
    pub fn issue_identity(
        &self,
        subject: &Subject,
        now: UnixMs,
        valid: Duration,
    ) -> Result<Identity, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(TlsError::Make)?;
        let certificate = self.issue(&key.subject_public_key_info(), subject, now, valid)?;
        Ok(Identity { certificate, key_pkcs8: key.serialized_der().to_vec() })
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({})", self.pin)
    }
}

/// The public key (SPKI, DER) of a PKCS#10 request whose signature proves that its sender has the private one. Nothing
/// else in the request is looked at.
pub fn spki_from_csr(csr_der: &[u8]) -> Result<Vec<u8>, TlsError> {
    let request = CertificateSigningRequestDer::from(csr_der);
    let request = CertificateSigningRequestParams::from_der(&request)
        .map_err(|error| TlsError::Malformed { what: "certificate request", why: error.to_string() })?;
    check_key(&request.public_key)?;
    Ok(request.public_key.subject_public_key_info())
}

fn check_key(key: &impl PublicKeyData) -> Result<(), TlsError> {
    if key.algorithm() != &PKCS_ED25519 || PublicKey::from_raw(key.der_bytes()).is_err() {
        return Err(TlsError::Key);
    }
    Ok(())
}

fn params(common_name: &str, now: UnixMs, valid: Duration) -> Result<CertificateParams, TlsError> {
    let ends = now.plus(valid);
    if ends > LATEST || now < UnixMs(0).plus(BACKDATED) {
        return Err(TlsError::Time(ends));
    }
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.since(UnixMs(0).plus(BACKDATED));
    params.not_after = epoch + ends.since(UnixMs(0));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
