//! The trust root in words.

use consign_common::{
    digest::Sha256,
    time::UnixMs,
    trust::{OrderingNumber, TrustRoot},
};

use super::{
    difference::{key_text, number, owners},
    expiry::Validity,
    role::places,
    rule::gate_text,
};

/// `pin`: what a host or another signer compares.
pub(super) fn text(root: &TrustRoot, pin: Sha256, now: UnixMs) -> String {
    let mut text = format!("trust root {}, valid until {}", root.version, root.expires);
    let words = Validity::of(root.expires, now).words();
    if !words.is_empty() {
        text.push_str(&format!("\n              {words}"));
    }
    text.push_str(&format!("\npin           {pin}\nroot          {}\n", owners(root, &root.root)));
    for (name, role) in &root.roles {
        text.push_str(&format!("role          {name}: {}\n", owners(root, role)));
    }
    if let Some(role) = &root.enrolment {
        text.push_str(&format!("enrolment     {}\n", owners(root, role)));
    }
    for (app, trust) in &root.apps {
        text.push_str(&format!("app           {app}, published by {}", owners(root, &trust.publishers)));
        if trust.floor != OrderingNumber::default() {
            text.push_str(&format!(", floor {}", number(trust.floor)));
        }
        if trust.epoch != 0 {
            text.push_str(&format!(", epoch {}", trust.epoch));
        }
        if let Some(role) = &trust.config {
            text.push_str(&format!(", config by {role}"));
        }
        text.push('\n');
    }
    for (environment, gate) in &root.environments {
        text.push_str(&format!("environment   {environment}: {}\n", gate_text(gate)));
    }
    for (id, key) in &root.keys {
        text.push_str(&format!("key           {}: {}\n", key_text(id, key), places(root, id).join(", ")));
    }
    for coordinator in &root.coordinators {
        text.push_str(&format!("coordinator   {} with CA {}\n", coordinator.id, coordinator.ca_sha256));
    }
    for digest in &root.revoked {
        text.push_str(&format!("revoked       {digest}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::trust::edit::tests::root;

    #[test]
    fn who_may_do_what_can_be_read() {
        let text = text(&root(), Sha256::of(b"pin"), UnixMs(200_000));
        for part in [
            "trust root 1, valid until",
            "EXPIRED",
            "pin ",
            "role          approvers: ada (",
            "publisher of shop",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
