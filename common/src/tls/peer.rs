//! What a certificate says of the one who shows it.

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::TlsError;
use crate::{
    digest::Sha256,
    name::{Id, Owner, ServerName},
    time::UnixMs,
};

/// Who a certificate is for: the one URI among its alternative names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `consign://coordinator/<id>`
    Coordinator { id: String },
    /// `consign://agent/<uid>`; the server's name is the common name.
    Agent { server: ServerName, uid: Id },
    /// `consign://operator/<name>`
    Operator { name: String },
}

impl Subject {
    pub fn uri(&self) -> String {
        match self {
            Self::Coordinator { id } => format!("consign://coordinator/{id}"),
            Self::Agent { uid, .. } => format!("consign://agent/{uid}"),
            Self::Operator { name } => format!("consign://operator/{name}"),
        }
    }

    pub(super) fn common_name(&self) -> &str {
        match self {
            Self::Coordinator { id } => id,
            Self::Agent { server, .. } => server.as_str(),
            Self::Operator { name } => name,
        }
    }

    /// Every part in its alphabet, so that what is in a certificate is safe to print and to compare.
    fn parse(uri: &str, common_name: &str) -> Option<Self> {
        let named = |name: &str| name.parse::<Owner>().ok().map(String::from);
        let (kind, name) = uri.strip_prefix("consign://")?.split_once('/')?;
        match kind {
            "coordinator" => Some(Self::Coordinator { id: named(name)? }),
            "agent" => Some(Self::Agent { server: common_name.parse().ok()?, uid: name.parse().ok()? }),
            "operator" => Some(Self::Operator { name: named(name)? }),
            _ => None,
        }
    }
}

/// A certificate that a handshake has verified, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub subject: Subject,
    /// What allow-lists hold.
    pub spki_sha256: Sha256,
    pub not_before: UnixMs,
    pub not_after: UnixMs,
}

impl Peer {
    /// The handshake lets such a certificate in, for `Renew` alone.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        now > self.not_after
    }
}

pub fn peer_identity(certificate: &[u8]) -> Result<Peer, TlsError> {
    let parsed = parse(certificate)?;
    let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let common_name = names.next().unwrap_or_default();
    let alternatives = parsed.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
    let mut uris = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(uri);
    let subject = match (uris.next(), uris.next()) {
        (Some(uri), None) => Subject::parse(uri, common_name),
        (Some(_) | None, _) => None,
    };
    let time = |seconds: i64| UnixMs(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    Ok(Peer {
        subject: subject.ok_or_else(|| malformed("it names nobody that consign knows".to_owned()))?,
        spki_sha256: Sha256::of(parsed.public_key().raw),
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
    })
}

/// The SHA-256 of a certificate's SPKI, whoever it is for.
pub(super) fn spki_sha256(certificate: &[u8]) -> Result<Sha256, TlsError> {
    Ok(Sha256::of(parse(certificate)?.public_key().raw))
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, TlsError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(malformed("there are bytes after its end".to_owned())),
        Err(error) => Err(malformed(error.to_string())),
    }
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(uri) = name { Some(uri) } else { None }
}

fn malformed(why: String) -> TlsError {
    TlsError::Malformed { what: "certificate", why }
}
