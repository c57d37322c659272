//! The coordinator's identity: its id, its CA, and the certificate that it shows.

use std::{path::Path, sync::Arc, time::Duration};

use consign_common::{
    digest::Sha256,
    durable,
    time::UnixMs,
    tls::{self, Ca, CertificateDer, ClientAuth, Subject, TlsError},
};
use rustls::ServerConfig;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An agent renews at a third of it.
const AGENT_VALID: Duration = DAY.saturating_mul(90);
/// An operator may not touch the command line for months.
const OPERATOR_VALID: Duration = DAY.saturating_mul(365);
/// The coordinator's own, made anew at every start and every [`SERVER_RENEWS`].
const SERVER_VALID: Duration = DAY.saturating_mul(30);
pub const SERVER_RENEWS: Duration = DAY;

#[derive(Debug)]
pub struct Authority {
    id: String,
    ca: Ca,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("failed to use {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The two configurations of the coordinator's listeners.
#[derive(Clone, Debug)]
pub struct ServerConfigs {
    /// Clients show a certificate.
    pub mutual: Arc<ServerConfig>,
    /// Clients are nobody yet.
    pub enrolment: Arc<ServerConfig>,
}

/// A certificate that was just issued.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub spki: Sha256,
    pub ends: UnixMs,
}

impl Authority {
    /// From the bundle.
    pub fn import(dir: &Path, pem: &str) -> Result<(), AuthorityError> {
        Ca::from_pem(pem)?;
        let path = dir.join("ca.pem");
        durable::replace_file(&path, pem.as_bytes(), 0o600)
            .map_err(|source| AuthorityError::Io { path: path.display().to_string(), source })
    }

    pub fn load(dir: &Path, id: String) -> Result<Self, AuthorityError> {
        let path = dir.join("ca.pem");
        let pem = std::fs::read_to_string(&path)
            .map_err(|source| AuthorityError::Io { path: path.display().to_string(), source })?;
        Ok(Self { id, ca: Ca::from_pem(&pem)? })
    }

    /// As the trust root names this coordinator.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn ca_certificate(&self) -> &CertificateDer<'static> {
        self.ca.certificate_der()
    }

    pub fn ca_pin(&self) -> Sha256 {
        self.ca.pin()
    }

    /// A certificate for the request's public key; nothing else in the request is looked at.
    pub fn issue(&self, csr: &[u8], subject: &Subject, now: UnixMs) -> Result<Issued, TlsError> {
        let valid = match subject {
            Subject::Agent { .. } => AGENT_VALID,
            Subject::Operator { .. } => OPERATOR_VALID,
            Subject::Coordinator { .. } => SERVER_VALID,
        };
        let certificate = self.ca.issue(&tls::spki_from_csr(csr)?, subject, now, valid)?;
        let peer = tls::peer_identity(&certificate)?;
        Ok(Issued { certificate, spki: peer.spki_sha256, ends: peer.not_after })
    }

    pub fn server_configs(&self, now: UnixMs) -> Result<ServerConfigs, TlsError> {
        let subject = Subject::Coordinator { id: self.id.clone() };
        let identity = self.ca.issue_identity(&subject, now, SERVER_VALID)?;
        let config = |clients| tls::server_config(&identity, self.ca.certificate_der(), clients);
        Ok(ServerConfigs { mutual: config(ClientAuth::Required)?, enrolment: config(ClientAuth::None)? })
    }
}
