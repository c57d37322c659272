//! Who may talk: certificates, pins, rustls configurations. TLS 1.3 only, Ed25519 only, ring behind it.
//!
//! One CA per coordinator, known by the SHA-256 of its public key (SPKI), which the token or the trust root brought. What
//! a certificate may be used for stands in it: the coordinator's for `serverAuth`, all others for `clientAuth`, so that
//! no server's certificate passes for the coordinator's. Every client asks for the name [`COORDINATOR_NAME`], whatever
//! address it dials.
//!
//! A certificate says who somebody is. Whether he may still come in is the coordinator's allow-list, checked after the
//! handshake; and what may run is decided by [`crate::trust`] alone.

mod ca;
mod config;
mod identity;
mod peer;

pub use ca::{Ca, spki_from_csr};
pub use config::{ClientAuth, client_config, server_config};
pub use identity::Identity;
pub use peer::{Peer, Subject, peer_identity};
pub use rustls_pki_types::CertificateDer;

/// The DNS name in every coordinator's certificate.
pub const COORDINATOR_NAME: &str = "coordinator.consign";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to make a key or a certificate")]
    Make(#[source] rcgen::Error),
    #[error("{what} cannot be read: {why}")]
    Malformed { what: &'static str, why: String },
    #[error("the public key of the request is not an Ed25519 key that may be used")]
    Key,
    #[error("the time {0} is not one that a certificate can hold")]
    Time(crate::time::UnixMs),
    #[error("failed to configure TLS")]
    Configure(#[source] rustls::Error),
    #[error("failed to access {path}")]
    Io { path: std::path::PathBuf, source: std::io::Error },
}

#[cfg(test)]
mod tests;
