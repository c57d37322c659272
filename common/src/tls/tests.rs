//! Real handshakes between two rustls connections in memory.

use std::io::{Read, Write};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection,
    client::Resumption, version::TLS13,
};
use rustls_pki_types::ServerName as DialledName;
use std::{sync::Arc, time::Duration};

use super::*;
use crate::time::{Clock, SystemClock, UnixMs};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> UnixMs {
    SystemClock.now()
}

fn ago(span: Duration) -> UnixMs {
    UnixMs(now().since(UnixMs(0).plus(span)).as_millis().try_into().unwrap())
}

fn coordinator() -> Subject {
    Subject::Coordinator { id: "c0ffee".into() }
}

fn agent() -> Subject {
    Subject::Agent { server: "web-1".parse().unwrap(), uid: crate::name::Id::from_bytes([7; 16]) }
}

fn operator() -> Subject {
    Subject::Operator { name: "alice".into() }
}

fn ca() -> Ca {
    Ca::generate("c0ffee", now()).unwrap()
}

fn identity(ca: &Ca, subject: &Subject) -> Identity {
    ca.issue_identity(subject, now(), 90 * DAY).unwrap()
}

fn server(ca: &Ca) -> Arc<ServerConfig> {
    server_config(&identity(ca, &coordinator()), ca.certificate_der(), ClientAuth::Required).unwrap()
}

/// How a handshake went: what each side said, and what the server learnt of the client.
#[derive(Debug)]
struct Handshake {
    client: Result<(), Error>,
    server: Result<Option<Peer>, Error>,
    /// What the client wrote as soon as it was allowed to, as the server got it.
    received: Vec<u8>,
    /// Bytes that the client sent after its first flight (its hello).
    after_hello: usize,
}

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Handshake {
    shake_as(client, server, COORDINATOR_NAME)
}

fn shake_as(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &'static str) -> Handshake {
    let mut client = ClientConnection::new(client, DialledName::try_from(name).unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut result = Handshake { client: Ok(()), server: Ok(None), received: Vec::new(), after_hello: 0 };
    client.writer().write_all(b"token").unwrap();
    for flight in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        if flight > 0 {
            result.after_hello += wire.len();
        }
        feed(&wire, |bytes| server.read_tls(bytes));
        if let Err(error) = server.process_new_packets() {
            result.server = Err(error);
        }
        drop(server.reader().read_to_end(&mut result.received));
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| client.read_tls(bytes));
        if let Err(error) = client.process_new_packets() {
            result.client = Err(error);
        }
    }
    if result.server.is_ok() && !server.is_handshaking() {
        let certificate = server.peer_certificates().and_then(|chain| chain.first());
        result.server = Ok(certificate.map(|certificate| peer_identity(certificate).unwrap()));
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    }
    result
}

fn feed(wire: &[u8], mut read: impl FnMut(&mut dyn Read) -> std::io::Result<usize>) {
    let mut rest = wire;
    while !rest.is_empty() && read(&mut rest).is_ok_and(|count| count > 0) {}
}

fn refused_by_server(handshake: &Handshake) -> &CertificateError {
    assert!(handshake.received.is_empty(), "{handshake:?}");
    match &handshake.server {
        Err(Error::InvalidCertificate(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn refused_by_client(handshake: &Handshake) -> &CertificateError {
    assert!(handshake.received.is_empty(), "{handshake:?}");
    match &handshake.client {
        Err(Error::InvalidCertificate(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn agents_and_operators_come_in_with_their_names() {
    let ca = ca();
    for subject in [agent(), operator()] {
        let identity = identity(&ca, &subject);
        let handshake = shake(client_config(Some(&identity), ca.pin()).unwrap(), server(&ca));
        assert_eq!(handshake.client, Ok(()));
        assert_eq!(handshake.received, b"token");
        let peer = handshake.server.unwrap().unwrap();
        assert_eq!(peer, identity.peer().unwrap());
        assert_eq!(peer.subject, subject);
        assert!(!peer.is_expired(now()));
    }
}

#[test]
fn the_enrolment_port_takes_clients_without_a_certificate_and_the_other_does_not() {
    let ca = ca();
    let identity = identity(&ca, &coordinator());
    let open = server_config(&identity, ca.certificate_der(), ClientAuth::None).unwrap();
    let handshake = shake(client_config(None, ca.pin()).unwrap(), open);
    assert_eq!((handshake.client, handshake.received), (Ok(()), b"token".to_vec()));
    assert_eq!(handshake.server, Ok(None));
    let handshake = shake(client_config(None, ca.pin()).unwrap(), server(&ca));
    assert!(matches!(handshake.server, Err(Error::NoCertificatesPresented)), "{handshake:?}");
    assert!(handshake.received.is_empty());
}

#[test]
fn a_wrong_pin_is_refused_before_the_client_sends_its_certificate_or_data() {
    let (ours, theirs) = (ca(), ca());
    let client = client_config(Some(&identity(&ours, &agent())), ours.pin()).unwrap();
    let handshake = shake(client, server(&theirs));
    assert_eq!(refused_by_client(&handshake), &CertificateError::UnknownIssuer);
    // Nothing but the alert followed the hello: no certificate, no token.
    assert!(handshake.after_hello < 40, "{} bytes", handshake.after_hello);
}

#[test]
fn the_right_ca_in_the_chain_does_not_help_a_certificate_of_another() {
    let (ours, theirs) = (ca(), ca());
    let foreign = identity(&theirs, &coordinator());
    let server = server_config(&foreign, ours.certificate_der(), ClientAuth::None).unwrap();
    let handshake = shake(client_config(None, ours.pin()).unwrap(), server);
    refused_by_client(&handshake);
}

#[test]
fn an_agents_certificate_is_no_servers() {
    let ca = ca();
    for subject in [agent(), operator()] {
        let server = server_config(&identity(&ca, &subject), ca.certificate_der(), ClientAuth::None).unwrap();
        let handshake = shake(client_config(None, ca.pin()).unwrap(), server);
        let error = refused_by_client(&handshake);
        assert!(matches!(error, CertificateError::InvalidPurposeContext { .. }), "{error:?}");
    }
}

#[test]
fn the_coordinators_certificate_is_no_clients() {
    let ca = ca();
    let client = client_config(Some(&identity(&ca, &coordinator())), ca.pin()).unwrap();
    let handshake = shake(client, server(&ca));
    let error = refused_by_server(&handshake);
    assert!(matches!(error, CertificateError::InvalidPurposeContext { .. }), "{error:?}");
}

#[test]
fn a_client_of_another_ca_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let client = client_config(Some(&identity(&theirs, &agent())), ours.pin()).unwrap();
    let handshake = shake(client, server(&ours));
    refused_by_server(&handshake);
}

#[test]
fn an_expired_client_comes_in_and_is_seen_to_be_expired() {
    let (ca, other) = (ca(), ca());
    let expired = ca.issue_identity(&agent(), ago(30 * DAY), 10 * DAY).unwrap();
    let handshake = shake(client_config(Some(&expired), ca.pin()).unwrap(), server(&ca));
    let peer = handshake.server.unwrap().unwrap();
    assert!(peer.is_expired(now()));
    assert_eq!(peer.subject, agent());
    // Expired and of another CA, or made for another use: being expired excuses nothing else.
    let foreign = other.issue_identity(&agent(), ago(30 * DAY), 10 * DAY).unwrap();
    let handshake = shake(client_config(Some(&foreign), ca.pin()).unwrap(), server(&ca));
    refused_by_server(&handshake);
    let coordinators = ca.issue_identity(&coordinator(), ago(30 * DAY), 10 * DAY).unwrap();
    let handshake = shake(client_config(Some(&coordinators), ca.pin()).unwrap(), server(&ca));
    refused_by_server(&handshake);
}

#[test]
fn an_expired_coordinator_is_refused() {
    let ca = ca();
    let expired = ca.issue_identity(&coordinator(), ago(30 * DAY), 10 * DAY).unwrap();
    let server = server_config(&expired, ca.certificate_der(), ClientAuth::None).unwrap();
    let handshake = shake(client_config(None, ca.pin()).unwrap(), server);
    let error = refused_by_client(&handshake);
    assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error:?}");
}

#[test]
fn a_certificate_is_good_on_a_machine_whose_clock_is_hours_behind() {
    let peer = identity(&ca(), &coordinator()).peer().unwrap();
    assert!(peer.not_before < ago(Duration::from_secs(2 * 60 * 60)));
}

#[test]
fn the_client_asks_for_the_coordinators_name_and_no_other() {
    let ca = ca();
    let server =
        server_config(&identity(&ca, &coordinator()), ca.certificate_der(), ClientAuth::None).unwrap();
    let handshake = shake_as(client_config(None, ca.pin()).unwrap(), server, "db.example");
    refused_by_client(&handshake);
}

#[test]
fn a_self_signed_client_is_refused() {
    let ca = ca();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().der().clone();
    let identity = Identity { certificate, key_pkcs8: key.serialized_der().to_vec() };
    let handshake = shake(client_config(Some(&identity), ca.pin()).unwrap(), server(&ca));
    refused_by_server(&handshake);
}

#[test]
fn nothing_but_tls_1_3_is_spoken() {
    let ca = ca();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate_der().clone()).unwrap();
    let mut old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    old.resumption = Resumption::disabled();
    assert!(matches!(shake(Arc::new(old), server(&ca)).server, Err(Error::PeerIncompatible(_))));
    assert_eq!(TLS13.version, rustls::ProtocolVersion::TLSv1_3);
}

#[test]
fn a_certificate_takes_nothing_but_the_key_from_a_request() {
    let ca = ca();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut greedy = CertificateParams::new(vec!["coordinator.consign".into()]).unwrap();
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = greedy.serialize_request(&key).unwrap();
    let spki = spki_from_csr(request.der()).unwrap();
    assert_eq!(spki, key.subject_public_key_info());
    let certificate = ca.issue(&spki, &agent(), now(), DAY).unwrap();
    let text = String::from_utf8_lossy(&certificate).into_owned();
    assert!(!text.contains("coordinator.consign"));
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(peer_identity(&certificate).unwrap().subject, agent());
}

#[test]
fn a_request_with_another_kind_of_key_or_a_broken_signature_is_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    assert!(matches!(spki_from_csr(request.der()), Err(TlsError::Key)));
    let (mut request, _) = Identity::generate_csr().unwrap();
    spki_from_csr(&request).unwrap();
    *request.last_mut().unwrap() ^= 1;
    assert!(matches!(spki_from_csr(&request), Err(TlsError::Malformed { .. })));
    assert!(matches!(spki_from_csr(b"nonsense"), Err(TlsError::Malformed { .. })));
}

#[test]
fn files_hold_what_was_written_and_say_what_is_missing() {
    use std::os::unix::fs::PermissionsExt;
    let ca = ca();
    let again = Ca::from_pem(&ca.to_pem()).unwrap();
    assert_eq!((again.pin(), again.certificate_der()), (ca.pin(), ca.certificate_der()));
    // What the reloaded CA issues is good under the first one's pin.
    let agent = identity(&again, &agent());
    let handshake = shake(client_config(Some(&agent), ca.pin()).unwrap(), server(&again));
    assert_eq!(handshake.received, b"token");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.pem");
    agent.write(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Identity::read(&path).unwrap() == agent);
    for text in ["", "-----BEGIN CERTIFICATE-----\n", &format!("{}{}", agent.to_pem(), agent.to_pem())] {
        assert!(matches!(Identity::from_pem(text), Err(TlsError::Malformed { .. })), "{text:?}");
    }
    let mixed = identity::pem(ca.certificate_der(), &agent.key_pkcs8);
    assert!(matches!(Ca::from_pem(&mixed), Err(TlsError::Malformed { .. })));
    let own = ca.to_pem();
    let key = own.lines().rfind(|line| line.len() > 30).unwrap();
    assert!(!format!("{ca:?} {agent:?}").contains(key));
}
