//! The two rustls configurations. No session is resumed: every connection proves itself with its certificate.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{COORDINATOR_NAME, Identity, Subject, TlsError, peer::spki_sha256, peer_identity};
use crate::digest::Sha256;

/// gRPC is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";
/// Certificates in a chain that are looked at: our own has two.
const CHAIN: usize = 4;

/// Whether a listener asks its clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// The enrolment port: clients have none yet.
    None,
    Required,
}

/// For agents and operators. The coordinator's chain must end in the CA with this pin, before anything is sent that
/// could be used elsewhere: neither the certificate nor a token.
pub fn client_config(identity: Option<&Identity>, ca_pin: Sha256) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned { ca_pin, algorithms: provider.signature_verification_algorithms };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Configure)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key().into())
            .map_err(TlsError::Configure)?,
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For the coordinator. Clients' certificates must come from `ca`; one that is fine but for having expired is let in,
/// for the caller to see ([`super::Peer::is_expired`]) and to allow `Renew` alone.
pub fn server_config(
    coordinator: &Identity,
    ca: &CertificateDer<'static>,
    clients: ClientAuth,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Configure)?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Required => builder.with_client_cert_verifier(Arc::new(Issued::new(ca, provider)?)),
    };
    let chain = vec![coordinator.certificate.clone(), ca.clone()];
    let mut config =
        builder.with_single_cert(chain, coordinator.key().into()).map_err(TlsError::Configure)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Takes the coordinator of the CA with this pin, and no other server.
#[derive(Debug)]
struct Pinned {
    ca_pin: Sha256,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned =
            |candidate: &&CertificateDer<'_>| spki_sha256(candidate).is_ok_and(|pin| pin == self.ca_pin);
        let ca = intermediates.iter().take(CHAIN).find(is_pinned).ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], now, self.algorithms.all)?;
        let expected =
            ServerName::try_from(COORDINATOR_NAME).map_err(|_| CertificateError::NotValidForName)?;
        if *server_name != expected {
            return Err(CertificateError::NotValidForName.into());
        }
        verify_server_name(&certificate, &expected)?;
        match peer_identity(end_entity).map(|peer| peer.subject) {
            Ok(Subject::Coordinator { .. }) => Ok(ServerCertVerified::assertion()),
            Ok(Subject::Agent { .. } | Subject::Operator { .. }) | Err(_) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes agents and operators of our CA, also with an expired certificate.
#[derive(Debug)]
struct Issued {
    chain: Arc<dyn ClientCertVerifier>,
}

impl Issued {
    fn new(ca: &CertificateDer<'static>, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(TlsError::Configure)?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError::Malformed { what: "CA", why: error.to_string() })?;
        Ok(Self { chain })
    }
}

impl ClientCertVerifier for Issued {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = match self.chain.verify_client_cert(end_entity, &[], now) {
            // Everything but its end must hold, so it is verified again as of its last second.
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                self.chain.verify_client_cert(end_entity, &[], not_after)?
            }
            other => other?,
        };
        match peer_identity(end_entity).map(|peer| peer.subject) {
            Ok(Subject::Agent { .. } | Subject::Operator { .. }) => Ok(verified),
            Ok(Subject::Coordinator { .. }) | Err(_) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
