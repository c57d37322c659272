//! What a next version changes, in words: what people decide by when they are asked to sign it. Nothing of the document
//! may change without a line here. Pure.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    trust::{AppTrust, Key, OrderingNumber, RoleKeys, Scheme, TrustRoot},
};

use super::rule::gate_text;

/// One line each.
pub(super) fn difference(old: &TrustRoot, new: &TrustRoot) -> Vec<String> {
    let mut lines = vec![format!("version {} → {}", old.version, new.version)];
    if old.expires != new.expires {
        lines.push(format!("expires {} → {}", old.expires, new.expires));
    }
    for (id, key) in &old.keys {
        match new.keys.get(id) {
            None => lines.push(format!("- key {}", key_text(id, key))),
            Some(now) if now != key => {
                lines.push(format!("key {} → {}", key_text(id, key), key_text(id, now)));
            }
            Some(_) => {}
        }
    }
    for (id, key) in new.keys.iter().filter(|(id, _)| !old.keys.contains_key(id)) {
        lines.push(format!("+ key {}", key_text(id, key)));
    }
    let role = |root: &TrustRoot, role: &RoleKeys| owners(root, role);
    if old.root != new.root {
        lines.push(format!("root: {} → {}", role(old, &old.root), role(new, &new.root)));
    }
    maps(&mut lines, "role", (&old.roles, |it| role(old, it)), (&new.roles, |it| role(new, it)));
    let app = |root: &TrustRoot, trust: &AppTrust| app_text(root, trust);
    for (name, trust) in &new.apps {
        match old.apps.get(name) {
            None => lines.push(format!("+ app {name}, {}", app(new, trust))),
            Some(known) => app_difference(&mut lines, name.as_str(), (old, known), (new, trust)),
        }
    }
    let gone = old.apps.iter().filter(|(name, _)| !new.apps.contains_key(*name));
    lines.extend(gone.map(|(name, trust)| format!("- app {name}, {}", app(old, trust))));
    maps(&mut lines, "environment", (&old.environments, gate_text), (&new.environments, gate_text));
    let enrolment = |root: &TrustRoot| match &root.enrolment {
        Some(keys) => role(root, keys),
        None => "by the root role".to_owned(),
    };
    if old.enrolment != new.enrolment {
        lines.push(format!("enrolment: {} → {}", enrolment(old), enrolment(new)));
    }
    let coordinators = |root: &TrustRoot| -> BTreeMap<String, Sha256> {
        root.coordinators.iter().map(|pin| (pin.id.clone(), pin.ca_sha256)).collect()
    };
    let pin = |digest: &Sha256| format!("with CA {digest}");
    maps(&mut lines, "coordinator", (&coordinators(old), pin), (&coordinators(new), pin));
    let more = new.revoked.iter().filter(|digest| !old.revoked.contains(digest));
    lines.extend(more.map(|digest| format!("+ revoked {digest}")));
    let less = old.revoked.iter().filter(|digest| !new.revoked.contains(digest));
    lines.extend(less.map(|digest| format!("- NOT revoked any more: {digest}")));
    // Nobody is asked to sign what there are no words for.
    let same = TrustRoot { version: old.version, issued: old.issued, ..new.clone() } == *old;
    if lines.len() == 1 && !same {
        lines.push("something changes that this version of consign has no words for: do not sign it".into());
    }
    lines
}

fn maps<K: Ord + std::fmt::Display, V: PartialEq>(
    lines: &mut Vec<String>,
    what: &str,
    (old, before): (&BTreeMap<K, V>, impl Fn(&V) -> String),
    (new, after): (&BTreeMap<K, V>, impl Fn(&V) -> String),
) {
    for (name, value) in old {
        match new.get(name) {
            None => lines.push(format!("- {what} {name}, {}", before(value))),
            Some(now) if now != value => {
                lines.push(format!("{what} {name}: {} → {}", before(value), after(now)));
            }
            Some(_) => {}
        }
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(name)) {
        lines.push(format!("+ {what} {name}, {}", after(value)));
    }
}

fn app_difference(
    lines: &mut Vec<String>,
    name: &str,
    (old, known): (&TrustRoot, &AppTrust),
    (new, trust): (&TrustRoot, &AppTrust),
) {
    if known.publishers != trust.publishers {
        let (before, after) = (owners(old, &known.publishers), owners(new, &trust.publishers));
        lines.push(format!("app {name}: publishers {before} → {after}"));
    }
    if known.epoch != trust.epoch {
        lines.push(format!("app {name}: epoch {} → {}", known.epoch, trust.epoch));
    }
    if known.floor != trust.floor {
        lines.push(format!("app {name}: floor {} → {}", number(known.floor), number(trust.floor)));
    }
    if known.config != trust.config {
        lines.push(format!("app {name}: config {} → {}", config(known), config(trust)));
    }
}

fn app_text(root: &TrustRoot, trust: &AppTrust) -> String {
    let mut text = format!("published by {}", owners(root, &trust.publishers));
    if trust.epoch != 0 {
        text.push_str(&format!(", epoch {}", trust.epoch));
    }
    if trust.floor != OrderingNumber::default() {
        text.push_str(&format!(", floor {}", number(trust.floor)));
    }
    if trust.config.is_some() {
        text.push_str(&format!(", config {}", config(trust)));
    }
    text
}

fn config(trust: &AppTrust) -> String {
    trust.config.as_ref().map_or("by its publishers".to_owned(), |role| format!("by {role}"))
}

/// `0a1b2c3d4e5f of bob`, and how it signs where that is not our own way.
pub(super) fn key_text(id: &Sha256, key: &Key) -> String {
    let scheme = match key.scheme {
        Scheme::Ed25519 => "",
        Scheme::Sshsig => ", an SSH key",
    };
    format!("{} of {}{scheme}", id.short(), key.owner)
}

/// `ci (0a1b2c3d4e5f), ada (…)`
pub(crate) fn owners(root: &TrustRoot, role: &RoleKeys) -> String {
    let names: Vec<String> = role
        .keys
        .iter()
        .map(|id| {
            let owner = root.keys.get(id).map_or("nobody", |key| key.owner.as_str());
            format!("{owner} ({})", id.short())
        })
        .collect();
    let names = names.join(", ");
    if role.threshold > 1 { format!("{} of {names}", role.threshold) } else { names }
}

pub(super) fn number(number: OrderingNumber) -> String {
    if number == OrderingNumber::default() {
        return "none".into();
    }
    format!("{} (epoch {})", number.ms, number.epoch)
}

#[cfg(test)]
#[path = "difference_tests.rs"]
mod tests;
