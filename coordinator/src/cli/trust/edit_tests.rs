//! What a change makes of a trust root, and what is refused.

use consign_common::trust::{Scheme, Separation, SigningKey};

use super::*;
use crate::cli::trust::{difference::difference, rule::RuleText};

pub(in crate::cli::trust) fn named(owner: &str) -> NamedKey {
    let key = SigningKey::generate().unwrap().public();
    NamedKey { owner: owner.parse().unwrap(), scheme: Scheme::Ed25519, key }
}

/// Of ada, whose shop is published by ci to staging.
pub(in crate::cli::trust) fn root() -> TrustRoot {
    let mut root = TrustRoot {
        version: 1,
        issued: UnixMs(1000),
        expires: UnixMs(100_000),
        keys: [].into(),
        root: RoleKeys { keys: vec![], threshold: 1 },
        roles: [].into(),
        apps: [].into(),
        environments: [("staging".parse().unwrap(), Gate::PublisherOnly {})].into(),
        coordinators: vec![CoordinatorPin { id: "c".repeat(32), ca_sha256: Sha256::of(b"ca") }],
        revoked: vec![],
        enrolment: None,
    };
    let owner = add_key(&mut root, named("ada")).unwrap();
    root.root.keys.push(owner);
    root.roles.insert("approvers".parse().unwrap(), root.root.clone());
    let ci = named("ci");
    apply(&mut root, Edit::AddApp { app: shop(), publisher: Some(ci) }).unwrap();
    root.check().unwrap();
    root
}

fn shop() -> App {
    "shop".parse().unwrap()
}

fn changed(root: &TrustRoot, edits: Vec<Edit>) -> Result<(TrustRoot, Vec<String>)> {
    next(root, edits, UnixMs(2000)).map(|next| {
        let lines = difference(root, &next);
        (next, lines)
    })
}

fn one(edit: Edit) -> Result<Vec<String>> {
    changed(&root(), vec![edit]).map(|(_, lines)| lines)
}

#[test]
fn every_change_is_told() {
    let lines = one(Edit::AddApp { app: "blog".parse().unwrap(), publisher: None }).unwrap();
    assert!(lines[1].starts_with("+ app blog, published by ci ("), "{lines:?}");
    let lines = one(Edit::AddEnvironment("production".parse().unwrap())).unwrap();
    assert_eq!(lines, ["version 1 → 2", "+ environment production, publisher-only"]);
    let lines = one(Edit::Floor { app: shop(), floor: UnixMs(1500) }).unwrap();
    assert_eq!(lines[1], "app shop: floor none → 1970-01-01T00:00:01Z (epoch 0)");
    let lines = one(Edit::Revoke(Sha256::of(b"x"))).unwrap();
    assert_eq!(lines[1], format!("+ revoked {}", Sha256::of(b"x")));
    let lines = one(Edit::AddPublisher { app: shop(), publisher: named("bob") }).unwrap();
    assert!(lines[1].starts_with("+ key ") && lines[2].contains("→ ci ("), "{lines:?}");
    assert!(lines[2].contains(", bob ("), "{lines:?}");
    assert_eq!(one(Edit::NextEpoch(shop())).unwrap()[1], "app shop: epoch 0 → 1");
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(one(Edit::AddApp { app: shop(), publisher: None }).is_err());
    assert!(one(Edit::AddEnvironment("staging".parse().unwrap())).is_err());
    assert!(one(Edit::Floor { app: "blog".parse().unwrap(), floor: UnixMs(1) }).is_err());
    assert!(one(Edit::Expires(UnixMs(2000))).unwrap_err().next.unwrap().contains("--expires"));
    let edits = vec![
        Edit::Floor { app: shop(), floor: UnixMs(1500) },
        Edit::Floor { app: shop(), floor: UnixMs(1400) },
    ];
    assert!(next(&root(), edits, UnixMs(2000)).unwrap_err().what.contains("never lowered"));
    let unknown = Edit::ConfigRole { app: shop(), role: "nobody".parse().unwrap() };
    assert!(one(unknown).unwrap_err().what.contains("no role nobody"));
    assert!(one(Edit::RemoveCoordinator("x".into())).is_err());
}

#[test]
fn a_root_of_one_becomes_two_of_three() {
    let root = root();
    let keys = vec![named("bob"), named("carol")];
    let edit = Edit::AddKeys { role: RoleName::Root, keys, threshold: Some(2) };
    let (next, lines) = changed(&root, vec![edit]).unwrap();
    assert_eq!((next.root.keys.len(), next.root.threshold), (3, 2));
    assert!(
        lines.iter().any(|line| line.starts_with("root: ada (") && line.contains("→ 2 of ada (")),
        "{lines:?}"
    );
    // The same key again, and a threshold that nobody can meet.
    let ada = root.keys.values().find(|key| key.owner.as_str() == "ada").unwrap();
    let again = NamedKey {
        owner: ada.owner.clone(),
        scheme: ada.scheme,
        key: consign_common::trust::PublicKey::from_base64(&ada.public).unwrap(),
    };
    let other_owner = NamedKey { owner: "eve".parse().unwrap(), ..again.clone() };
    let add = |keys, threshold| one_of(&root, Edit::AddKeys { role: RoleName::Root, keys, threshold });
    assert!(add(vec![again], None).unwrap_err().what.contains("already"));
    assert!(add(vec![other_owner], None).unwrap_err().what.contains("as ada's"));
    assert!(add(vec![named("bob")], Some(3)).unwrap_err().what.contains("2 distinct owners"));
    assert!(add(vec![named("ada")], Some(2)).unwrap_err().what.contains("1 distinct owners"));
}

fn one_of(root: &TrustRoot, edit: Edit) -> Result<Vec<String>> {
    changed(root, vec![edit]).map(|(_, lines)| lines)
}

#[test]
fn roles_are_made_where_they_belong() {
    let role = |text: &str| text.parse::<RoleName>().unwrap();
    let add = |name: &str, threshold| {
        changed(&root(), vec![Edit::AddKeys { role: role(name), keys: vec![named("bob")], threshold }])
    };
    assert!(add("product-owners", None).unwrap_err().next.unwrap().contains("--threshold"));
    let (next, _) = add("product-owners", Some(1)).unwrap();
    assert_eq!(next.roles["product-owners"].keys.len(), 1);
    let (next, _) = add("approvers", None).unwrap();
    assert_eq!(next.roles["approvers"].keys.len(), 2);
    let (next, lines) = add("enrolment", None).unwrap();
    assert_eq!(next.enrolment.unwrap().keys.len(), 1);
    assert!(lines.iter().any(|line| line.starts_with("enrolment: by the root role → bob (")), "{lines:?}");
    let (next, lines) = add("config of shop", None).unwrap();
    assert_eq!(next.apps["shop"].config.as_ref().unwrap().as_str(), "config-shop");
    assert!(lines.contains(&"app shop: config by its publishers → by config-shop".to_owned()), "{lines:?}");
    assert!(add("publisher of blog", None).unwrap_err().what.contains("does not name blog"));
}

#[test]
fn a_key_is_rotated_everywhere_and_goes() {
    let root = root();
    let old = root.root.keys[0];
    let new = named("ada");
    let (next, lines) = changed(&root, vec![Edit::Rotate { from: old, to: Some(new.clone()) }]).unwrap();
    assert!(!next.keys.contains_key(&old));
    assert_eq!(places(&next, &new.key.id()), ["root", "approvers"]);
    assert!(lines.iter().any(|line| line.starts_with("- key ")), "{lines:?}");

    // Without another in its place nobody could sign any more.
    let edit = Edit::Rotate { from: old, to: None };
    assert!(one_of(&root, edit).unwrap_err().what.contains("0 distinct owners"));
    let bob = Edit::AddKeys { role: RoleName::Root, keys: vec![named("bob")], threshold: None };
    let also =
        Edit::AddKeys { role: "approvers".parse().unwrap(), keys: vec![named("bob")], threshold: None };
    let (next, _) = changed(&root, vec![bob, also, Edit::Rotate { from: old, to: None }]).unwrap();
    assert_eq!(next.root.keys.len(), 1);
}

#[test]
fn a_key_without_a_role_is_dropped() {
    let root = root();
    let ci = root.apps["shop"].publishers.keys[0];
    let publisher = RoleName::Publisher(shop());
    let add = Edit::AddKeys { role: publisher.clone(), keys: vec![named("bob")], threshold: None };
    let (next, _) = changed(&root, vec![add, Edit::RemoveKey { role: publisher.clone(), key: ci }]).unwrap();
    assert!(!next.keys.contains_key(&ci));
    let missing = Edit::RemoveKey { role: publisher, key: root.root.keys[0] };
    assert!(one_of(&root, missing).unwrap_err().what.contains("not a key of the role publisher of shop"));
}

#[test]
fn a_gate_is_set_in_an_environment_that_there_is() {
    let rule = |text: &str| text.parse::<RuleText>().unwrap().0;
    let gate = |role: &str| Gate::Statements {
        require: vec![rule(&format!("approval:{role}"))],
        rearm: vec![],
        separation: Separation::Publisher,
    };
    let set = |environment: &str, role: &str| {
        one(Edit::SetGate { environment: environment.parse().unwrap(), gate: gate(role) })
    };
    let lines = set("staging", "approvers").unwrap();
    assert_eq!(
        lines[1],
        "environment staging: publisher-only → approval by 1 of approvers; whoever published counts for none of it"
    );
    assert!(set("production", "approvers").unwrap_err().next.unwrap().contains("--add-env production"));
    assert!(set("staging", "nobody").unwrap_err().what.contains("no role nobody"));
}
