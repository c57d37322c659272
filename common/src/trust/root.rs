//! The trust root: the signed, versioned document that says whose key may do what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OrderingNumber;
use crate::{
    digest::Sha256,
    name::{App, Environment, Owner},
    time::UnixMs,
};

/// The payload of type `application/vnd.consign.trust-root.v1+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRoot {
    pub version: u64,
    pub issued: UnixMs,
    pub expires: UnixMs,
    /// By key id: the SHA-256 of the raw public key. An id is a hint; candidates come from roles only.
    pub keys: BTreeMap<Sha256, Key>,
    pub root: RoleKeys,
    /// Roles that gates name.
    pub roles: BTreeMap<Owner, RoleKeys>,
    pub apps: BTreeMap<App, AppTrust>,
    pub environments: BTreeMap<Environment, Gate>,
    pub coordinators: Vec<CoordinatorPin>,
    /// Manifests that must not run, nor be returned to.
    pub revoked: Vec<Sha256>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub scheme: Scheme,
    /// The raw public key, standard base64 with padding.
    pub public: String,
    pub owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Ed25519,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    pub keys: Vec<Sha256>,
    /// Distinct keys of distinct owners that must have signed; at least 1.
    pub threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppTrust {
    pub publishers: RoleKeys,
    pub epoch: u64,
    /// Publications below this number are refused everywhere, also on a return.
    pub floor: OrderingNumber,
}

/// What an environment requires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Gate {
    /// The publisher's signature is enough, said in words.
    PublisherOnly {},
    Statements {
        require: Vec<GateRule>,
        /// Who must sign when this agent's last deployment of the app failed or returned.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rearm: Vec<GateRule>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateRule {
    /// The predicate type, as `consign:approval/v1`.
    pub predicate: String,
    pub role: Owner,
    pub threshold: u32,
    /// CEL over `predicate`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// A coordinator that agents take orders from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorPin {
    /// As in the SAN of its certificate: `consign://coordinator/<id>`.
    pub id: String,
    /// SHA-256 of the SPKI (DER) of the CA that its certificate and its agents' are issued by.
    pub ca_sha256: Sha256,
}
