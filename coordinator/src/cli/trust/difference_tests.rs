//! Every change has its words.

use consign_common::{
    time::UnixMs,
    trust::{CoordinatorPin, Gate},
};

use super::*;
use crate::cli::trust::edit::tests::root;

#[test]
fn nothing_changes_without_a_line() {
    type Change = fn(&mut TrustRoot);
    let changes: [(&str, Change); 20] = [
        ("expires", |root| root.expires = UnixMs(7)),
        ("- key", |root| drop(root.keys.pop_first())),
        ("+ key", |root| {
            let key = root.keys.values().next().unwrap().clone();
            root.keys.insert(Sha256::of(b"x"), key);
        }),
        ("key ", |root| root.keys.values_mut().for_each(|key| key.scheme = Scheme::Sshsig)),
        ("root:", |root| root.root.threshold = 2),
        ("root:", |root| root.root.keys.clear()),
        ("role approvers", |root| root.roles.values_mut().for_each(|role| role.threshold = 2)),
        ("- role approvers", |root| root.roles.clear()),
        ("+ role qa", |root| drop(root.roles.insert("qa".parse().unwrap(), root.root.clone()))),
        ("app shop: publishers", |root| root.apps.values_mut().for_each(|app| app.publishers.threshold = 9)),
        ("app shop: epoch", |root| root.apps.values_mut().for_each(|app| app.epoch = 9)),
        ("app shop: floor", |root| root.apps.values_mut().for_each(|app| app.floor.ms = UnixMs(9))),
        ("app shop: config", |root| root.apps.values_mut().for_each(|app| app.config = "x".parse().ok())),
        ("- app shop", |root| root.apps.clear()),
        ("- environment staging", |root| root.environments.clear()),
        ("+ environment x", |root| {
            root.environments.insert("x".parse().unwrap(), Gate::PublisherOnly {});
        }),
        ("- coordinator", |root| root.coordinators.clear()),
        ("+ coordinator", |root| {
            root.coordinators.push(CoordinatorPin { id: "x".into(), ca_sha256: Sha256::of(b"") });
        }),
        ("+ revoked", |root| root.revoked.push(Sha256::of(b"r"))),
        ("enrolment:", |root| root.enrolment = Some(root.root.clone())),
    ];
    for (begins, change) in changes {
        let old = root();
        let mut new = old.clone();
        change(&mut new);
        let lines = difference(&old, &new);
        assert!(
            lines.len() > 1 && lines[1..].iter().any(|line| line.starts_with(begins)),
            "{begins}: {lines:?}"
        );
        // And back: what is taken away is told as what is added.
        assert!(difference(&new, &old).len() > 1, "{begins}");
    }
    let old = root();
    assert_eq!(
        difference(&old, &TrustRoot { version: 2, issued: UnixMs(7), ..old.clone() }),
        ["version 1 → 2"]
    );
}
