//! The trust root: the signed, versioned document that says whose key may do what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    CONFIG, DECISION, ENROLLED, Envelope, OrderingNumber, PublicKey, Refusal, TRUST_ROOT_TYPE,
    TRUST_ROOT_V2_TYPE,
    condition::Where,
    matching::{Need, assign},
    refusal::shown,
};
use crate::{
    digest::Sha256,
    json,
    limits::{CONDITION_BYTES, GATE_RULES, ROLE_KEYS, TRUST_ROOT_BYTES},
    name::{App, Environment, Owner},
    time::UnixMs,
};

/// The payload of type `application/vnd.consign.trust-root.v1+json`; of `.v2+json` where it says what version 1 has no
/// field for.
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
    /// Who vouches for servers' keys with `enrolled` statements. Absent: the root role. Since v2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<RoleKeys>,
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
    /// Over the bytes themselves.
    Ed25519,
    /// As `ssh-keygen -Y sign` does it, with an ssh-ed25519 key. Since v2.
    Sshsig,
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
    /// The role that signs the app's config. Absent: its publishers. Since v2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Owner>,
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
        /// Since v2.
        #[serde(default, skip_serializing_if = "Separation::is_none")]
        separation: Separation,
    },
}

/// Separation of duties: whose signatures do not count for a gate's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Separation {
    /// One owner may sign everything.
    #[default]
    None,
    /// An owner who signed the publication counts for no rule.
    Publisher,
    /// And nobody counts for two rules of `require`, nor for two of `rearm`.
    All,
}

impl Separation {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
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

impl TrustRoot {
    /// The bytes to sign.
    pub fn to_payload(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// The type to sign them as: the oldest that can say it, so that agents that read no newer one still follow.
    pub fn payload_type(&self) -> &'static str {
        let gates = self.environments.values().any(|gate| match gate {
            Gate::PublisherOnly {} => false,
            Gate::Statements { separation, .. } => *separation != Separation::None,
        });
        let newer = gates
            || self.enrolment.is_some()
            || self.apps.values().any(|app| app.config.is_some())
            || self.keys.values().any(|key| key.scheme == Scheme::Sshsig);
        if newer { TRUST_ROOT_V2_TYPE } else { TRUST_ROOT_TYPE }
    }

    /// What a host pins: the SHA-256 of the payload, so that adding a signature does not change it.
    pub fn pin(envelope: &[u8]) -> Result<Sha256, Refusal> {
        Ok(Sha256::of(typed(envelope)?.payload()))
    }

    /// The first trust root of a host: the one that its operator pinned, whoever brought it. It must also be signed by
    /// its own root role.
    pub fn open_pinned(envelope: &[u8], pin: Sha256) -> Result<Self, Refusal> {
        let envelope = typed(envelope)?;
        if Sha256::of(envelope.payload()) != pin {
            return Err(invalid(format!("it is not the one with the pin {pin}")));
        }
        let root = Self::parse(envelope.payload(), envelope.payload_type())?;
        envelope.verified_by("trust root", &root.root, &root.keys)?;
        Ok(root)
    }

    /// The version after this one, signed by the thresholds of both. Neither one's expiry matters here: a chain is
    /// followed to its end, and only the last one's counts.
    pub fn open_next(&self, envelope: &[u8]) -> Result<Self, Refusal> {
        let envelope = typed(envelope)?;
        let payload = envelope.verified_by("trust root", &self.root, &self.keys)?;
        let next = Self::parse(payload, envelope.payload_type())?;
        envelope.verified_by("trust root", &next.root, &next.keys)?;
        self.check_follows(&next)?;
        Ok(next)
    }

    /// What the next version would say, whoever has signed it so far: for showing it to those who are asked to sign. It is
    /// in force when [`Self::open_next`] takes it, and nothing is decided by it before.
    pub fn read_next(&self, envelope: &[u8]) -> Result<Self, Refusal> {
        let envelope = typed(envelope)?;
        let next = Self::parse(envelope.payload(), envelope.payload_type())?;
        self.check_follows(&next)?;
        Ok(next)
    }

    fn check_follows(&self, next: &Self) -> Result<(), Refusal> {
        if self.version.checked_add(1) == Some(next.version) {
            return Ok(());
        }
        Err(invalid(format!("version {} does not follow {}", next.version, self.version)))
    }

    fn parse(payload: &[u8], payload_type: &str) -> Result<Self, Refusal> {
        let root: Self = json::from_slice_exact(payload, TRUST_ROOT_BYTES)
            .map_err(|error| unreadable(&error.to_string()))?;
        // A document that an older agent could not read must not pass for one that it could.
        if root.payload_type() != payload_type {
            return Err(unreadable(&format!("what it says belongs into the type {:?}", root.payload_type())));
        }
        root.check()?;
        Ok(root)
    }

    /// Every rule that does not depend on time or on another document.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.version == 0 {
            return Err(invalid("versions begin with 1".to_owned()));
        }
        if self.expires <= self.issued {
            return Err(invalid("it expires before it is issued".to_owned()));
        }
        self.keys.iter().try_for_each(|(id, key)| key.check(id))?;
        self.check_role("root", &self.root)?;
        for (name, role) in &self.roles {
            self.check_role(name.as_str(), role)?;
        }
        for (app, trust) in &self.apps {
            self.check_role(&format!("publishers of {app}"), &trust.publishers)?;
            if trust.floor.epoch > trust.epoch {
                return Err(invalid(format!(
                    "the floor of {app} lies in a later epoch than {}",
                    trust.epoch
                )));
            }
            if let Some(role) = trust.config.as_ref().filter(|role| !self.roles.contains_key(*role)) {
                return Err(invalid(format!("config of {app}: there is no role {role}")));
            }
        }
        for (environment, gate) in &self.environments {
            self.check_gate(gate).map_err(|why| invalid(format!("gate of {environment}: {why}")))?;
        }
        self.check_coordinators()?;
        if let Some(role) = &self.enrolment {
            self.check_role("enrolment", role)?;
        }
        match first_double(&self.revoked) {
            Some(digest) => Err(invalid(format!("{digest} is revoked twice"))),
            None => Ok(()),
        }
    }

    fn check_role(&self, name: &str, role: &RoleKeys) -> Result<(), Refusal> {
        if let Some(id) = first_double(&role.keys) {
            return Err(invalid(format!("{name}: the key {id} is listed twice")));
        }
        if role.keys.len() > ROLE_KEYS {
            return Err(invalid(format!("{name}: more than {ROLE_KEYS} keys")));
        }
        if let Some(id) = role.keys.iter().find(|id| !self.keys.contains_key(id)) {
            return Err(invalid(format!("{name}: there is no key {id}")));
        }
        self.check_threshold(name, role.threshold, role)
    }

    /// A threshold that nobody need meet is no gate; one that nobody can meet locks everybody out.
    fn check_threshold(&self, name: &str, threshold: u32, role: &RoleKeys) -> Result<(), Refusal> {
        let owners: BTreeSet<_> =
            role.keys.iter().filter_map(|id| self.keys.get(id)).map(|key| &key.owner).collect();
        if threshold == 0 {
            return Err(invalid(format!("{name}: a threshold is at least 1")));
        }
        if u32::try_from(owners.len()).is_ok_and(|owners| threshold > owners) {
            return Err(invalid(format!(
                "{name}: a threshold of {threshold}, with {} distinct owners",
                owners.len()
            )));
        }
        Ok(())
    }

    fn check_gate(&self, gate: &Gate) -> Result<(), String> {
        match gate {
            Gate::PublisherOnly {} => Ok(()),
            Gate::Statements { require, rearm, separation } => {
                if require.is_empty() {
                    return Err("it requires nothing; say `publisher-only` if that is meant".to_owned());
                }
                if require.len().max(rearm.len()) > GATE_RULES {
                    return Err(format!("more than {GATE_RULES} rules"));
                }
                require.iter().chain(rearm).try_for_each(|rule| self.check_rule(rule))?;
                match separation {
                    Separation::None | Separation::Publisher => Ok(()),
                    Separation::All => self.check_apart(require).and_then(|()| self.check_apart(rearm)),
                }
            }
        }
    }

    /// Where nobody counts for two rules, there must be enough people for all of them together.
    fn check_apart(&self, rules: &[GateRule]) -> Result<(), String> {
        let owners = |role: &RoleKeys| {
            let keys = role.keys.iter().filter_map(|id| self.keys.get(id));
            keys.map(|key| key.owner.clone()).collect::<BTreeSet<_>>()
        };
        let needs: Vec<(usize, BTreeSet<Owner>)> = rules
            .iter()
            .filter_map(|rule| {
                let count = usize::try_from(rule.threshold).unwrap_or(usize::MAX);
                Some((count, owners(self.roles.get(&rule.role)?)))
            })
            .collect();
        let needs: Vec<Need<'_>> = needs
            .iter()
            .map(|(count, willing)| Need { count: *count, willing: willing.iter().collect() })
            .collect();
        match assign(&needs).iter().zip(&needs).all(|(given, need)| given.len() == need.count) {
            true => Ok(()),
            false => {
                Err("nobody may count for two rules, and its roles have too few owners for that".to_owned())
            }
        }
    }

    fn check_rule(&self, rule: &GateRule) -> Result<(), String> {
        let predicate = &rule.predicate;
        if predicate.is_empty()
            || predicate.len() > 200
            || !predicate.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err("a predicate type is 1 to 200 visible ASCII characters".to_owned());
        }
        if [CONFIG, ENROLLED, DECISION].contains(&predicate.as_str()) {
            return Err(format!("a {predicate} says nothing of an artifact, so no rule can ask for one"));
        }
        let role = self.roles.get(&rule.role).ok_or_else(|| format!("there is no role {}", rule.role))?;
        self.check_threshold(rule.role.as_str(), rule.threshold, role)
            .map_err(|refusal| refusal.to_string())?;
        match &rule.condition {
            Some(condition) if condition.is_empty() || condition.len() > CONDITION_BYTES => {
                Err(format!("`where` has 1 to {CONDITION_BYTES} bytes"))
            }
            Some(condition) => Where::compile(condition).map(drop).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    fn check_coordinators(&self) -> Result<(), Refusal> {
        let ids: Vec<_> = self.coordinators.iter().map(|pin| &pin.id).collect();
        if let Some(id) = first_double(&ids) {
            return Err(invalid(format!("the coordinator {} is listed twice", shown(id))));
        }
        // The same alphabet as owners': the id stands in a certificate's URI.
        match ids.iter().find(|id| id.parse::<Owner>().is_err()) {
            Some(id) => Err(invalid(format!("\"{}\" is no coordinator id", shown(id)))),
            None => Ok(()),
        }
    }
}

impl Key {
    fn check(&self, id: &Sha256) -> Result<(), Refusal> {
        let public = match self.scheme {
            Scheme::Ed25519 | Scheme::Sshsig => PublicKey::from_base64(&self.public),
        };
        let public = public.map_err(|error| invalid(format!("the key {id} of {}: {error}", self.owner)))?;
        if public.id() != *id {
            return Err(invalid(format!("the key {id} of {} has the id {}", self.owner, public.id())));
        }
        Ok(())
    }
}

fn typed(envelope: &[u8]) -> Result<Envelope, Refusal> {
    let envelope = Envelope::parse(envelope, TRUST_ROOT_BYTES)?;
    if ![TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE].contains(&envelope.payload_type()) {
        return Err(unreadable(&format!("its payload type is \"{}\"", shown(envelope.payload_type()))));
    }
    Ok(envelope)
}

fn first_double<T: Ord>(list: &[T]) -> Option<&T> {
    let mut seen = BTreeSet::new();
    list.iter().find(|entry| !seen.insert(*entry))
}

fn unreadable(why: &str) -> Refusal {
    Refusal::Malformed { what: "trust root", why: why.to_owned() }
}

fn invalid(why: String) -> Refusal {
    Refusal::TrustRootInvalid { why }
}

#[cfg(test)]
#[path = "root_chain_tests.rs"]
mod chain_tests;
#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
