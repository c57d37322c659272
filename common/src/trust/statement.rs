//! Statements: signed sentences, as in-toto Statements v1 (https://in-toto.io/Statement/v1) in DSSE envelopes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256,
    name::{App, Environment, Id, Platform, ServerName, StepName, Version},
    time::UnixMs,
};

/// Exactly one subject; what it is depends on the predicate (design section 3).
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub subject: Subject,
    pub predicate: Predicate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// For people; no decision looks at it.
    pub name: String,
    pub sha256: Sha256,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    Published(Published),
    Approval(Approval),
    Config(Config),
    Enrolled(Enrolled),
    Decision(Decision),
    /// Somebody else's predicate, read leniently as in-toto asks: its type and its JSON.
    Foreign {
        predicate_type: String,
        value: serde_json::Value,
    },
}

/// What a deployment is ordered by in time, compared lexicographically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderingNumber {
    /// Must equal the app's epoch in the trust root; raised only to recover from a bad clock.
    pub epoch: u64,
    /// Unix milliseconds at signing.
    pub ms: UnixMs,
}

/// `consign:published/v1`. Subject: the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub app: App,
    pub version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    pub number: OrderingNumber,
}

/// `consign:approval/v1`. Subject: the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub app: App,
    pub environment: Environment,
    pub number: OrderingNumber,
    /// The deployment must begin before this.
    pub start_by: UnixMs,
    /// Servers that come later may converge to what the others run until this.
    pub converge_until: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `consign:config/v1`. Subject: the canonical values document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub app: App,
    pub environment: Environment,
    pub sequence: u64,
    /// Plain values as text; a sealed secret is its salted commitment.
    pub values: BTreeMap<StepName, String>,
}

/// `consign:enrolled/v1`. Subject: the server's public key (SPKI, DER).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    pub server: ServerName,
    pub environment: Environment,
    pub at: UnixMs,
    /// The server's public key that secrets are sealed to; base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<String>,
}

/// `consign:decision/v1`. Subject: the manifest of the rollout's artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub environment: Environment,
    pub rollout: Id,
    /// Absent: on every server of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    pub step: StepName,
    pub action: DecisionAction,
    pub at: UnixMs,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionAction {
    Skip,
    Done,
    Failed,
    Again,
}
