//! The coordinator's bundle: what `consign init` gives to the machine that `consign serve` runs on. It holds the CA's
//! private key, so the file is 0600 and deleted once imported. It never holds a key that signs artifacts, approvals or
//! trust roots: a stolen coordinator must not be able to say what may run.

use std::{io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use consign_common::{
    digest::Sha256,
    json,
    limits::TRUST_ROOT_BYTES,
    name::{Id, Owner},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "consign-bundle-v1";
const BYTES: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// `consign-bundle-v1`.
    format: String,
    /// The coordinator's id, as the trust root and the SAN of its certificate name it.
    pub coordinator: Id,
    /// The CA's certificate and private key, as `Ca::to_pem` writes them.
    pub ca: String,
    /// The envelope of the first trust root, base64.
    trust_root: String,
    /// Who may call the coordinator first, as `admin`.
    pub operator: FirstOperator,
    /// Where agents and operators reach the coordinator, if `--advertise` said so: a host without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstOperator {
    pub name: Owner,
    /// Of the public key in its certificate: what the allow-list holds.
    pub spki_sha256: Sha256,
    pub certificate_expires: UnixMs,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidBundle {
    #[error("failed to read the bundle {path}")]
    Read { path: String, source: io::Error },
    #[error("the bundle is no {FORMAT}: {why}")]
    Content { why: String },
}

impl Bundle {
    pub fn new(
        coordinator: Id,
        ca: String,
        trust_root: &[u8],
        operator: FirstOperator,
        advertise: Option<String>,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            coordinator,
            ca,
            trust_root: STANDARD.encode(trust_root),
            operator,
            advertise,
        }
    }

    pub fn read(path: &Path) -> Result<Self, InvalidBundle> {
        let failed = |source| InvalidBundle::Read { path: path.display().to_string(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > BYTES {
            return Err(InvalidBundle::Content { why: format!("longer than {BYTES} bytes") });
        }
        Self::parse(&std::fs::read(path).map_err(failed)?)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBundle> {
        let max = usize::try_from(BYTES).unwrap_or(usize::MAX);
        let bundle: Self = json::from_slice(bytes, max)
            .map_err(|error| InvalidBundle::Content { why: error.to_string() })?;
        if bundle.format != FORMAT {
            return Err(InvalidBundle::Content { why: format!("its format is {:?}", bundle.format) });
        }
        bundle.trust_root()?;
        Ok(bundle)
    }

    /// The envelope's bytes.
    pub fn trust_root(&self) -> Result<Vec<u8>, InvalidBundle> {
        let bytes = STANDARD
            .decode(&self.trust_root)
            .map_err(|error| InvalidBundle::Content { why: format!("trust_root: {error}") })?;
        if bytes.len() > TRUST_ROOT_BYTES {
            return Err(InvalidBundle::Content {
                why: format!("trust_root: longer than {TRUST_ROOT_BYTES} bytes"),
            });
        }
        Ok(bytes)
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidBundle> {
        serde_json::to_vec_pretty(self).map_err(|error| InvalidBundle::Content { why: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let operator = FirstOperator {
            name: "ada".parse().unwrap(),
            spki_sha256: Sha256::of(b"key"),
            certificate_expires: UnixMs(9),
        };
        Bundle::new(Id::from_bytes([1; 16]), "pem".into(), b"{}", operator, Some("deploy.example".into()))
    }

    #[test]
    fn comes_back_as_it_was() {
        let read = Bundle::parse(&bundle().to_bytes().unwrap()).unwrap();
        assert_eq!(read, bundle());
        assert_eq!(read.trust_root().unwrap(), b"{}");
    }

    #[test]
    fn another_format_or_field_is_refused() {
        let text = String::from_utf8(bundle().to_bytes().unwrap()).unwrap();
        for bad in
            [text.replace("bundle-v1", "bundle-v2"), text.replacen('{', "{\"more\": 1,", 1), text + "x"]
        {
            assert!(matches!(Bundle::parse(bad.as_bytes()), Err(InvalidBundle::Content { .. })), "{bad}");
        }
    }
}
