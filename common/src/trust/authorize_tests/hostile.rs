//! What somebody who has stolen the coordinator can try with an order and its documents.

use super::*;

/// Reads the order as the agent does, from bytes.
fn order_with(world: &World, change: impl FnOnce(&mut serde_json::Value)) -> Result<Order, Refusal> {
    let mut value = serde_json::to_value(&world.order).unwrap();
    change(&mut value);
    Order::parse(&serde_json::to_vec(&value).unwrap())
}

#[test]
fn no_field_of_an_order_changes_what_the_plan_does() {
    let mut world = world();
    let work = world.ordered().unwrap();
    let varied: [fn(&mut Order); 8] = [
        |order| order.id = id(100),
        |order| order.rollout = id(101),
        |order| order.deployment = id(102),
        |order| order.term = u64::MAX,
        |order| order.issued = UnixMs(0),
        |order| order.issued = UnixMs(u64::MAX),
        |order| {
            let OrderKind::Deploy { force, .. } = &mut order.order else { panic!() };
            *force = true;
        },
        |order| {
            let OrderKind::Deploy { confirm_ms, .. } = &mut order.order else { panic!() };
            *confirm_ms = Some(u64::MAX);
        },
    ];
    for change in varied {
        let before = world.order.clone();
        change(&mut world.order);
        assert_ne!(world.order, before);
        assert_eq!(world.ordered().as_ref(), Ok(&work));
        world.order = before;
    }
}

#[test]
fn an_order_has_no_room_for_more() {
    let world = world();
    order_with(&world, |_| {}).unwrap();
    for field in ["skip", "env", "params", "plan", "user"] {
        let outer = order_with(&world, |order| order[field] = serde_json::json!("x"));
        let inner = order_with(&world, |order| order["order"][field] = serde_json::json!("x"));
        for refusal in [outer.unwrap_err(), inner.unwrap_err()] {
            assert_eq!(refusal.code(), "malformed");
        }
    }
    let kind = order_with(&world, |order| order["order"]["kind"] = serde_json::json!("shell"));
    assert_eq!(kind.unwrap_err().code(), "malformed");
    let long = order_with(&world, |order| order["coordinator"] = serde_json::json!("x".repeat(70_000)));
    assert_eq!(long.unwrap_err().code(), "malformed");
}

#[test]
fn no_flipped_bit_in_the_manifest_is_authorized() {
    let world = world();
    let bytes = world.bytes();
    let host = Host { word: &world.word, privilege: &world.privilege, platform: "linux-x86_64" };
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << bit;
            // The coordinator is free to order the digest of what it sends.
            for manifest in [Sha256::of(&flipped), Sha256::of(&bytes)] {
                let mut order = world.order.clone();
                order.order = OrderKind::deploy(manifest, false);
                let documents = Documents { manifest: &flipped, statements: &world.statements, plan: None };
                let intent = Intent::Order { order: &order, connected: CONNECTED };
                let decision = authorize(intent, documents, &world.root, host, &world.memory, world.now);
                assert!(decision.is_err(), "byte {position} bit {bit}");
            }
        }
    }
}

#[test]
fn no_flipped_bit_in_the_publication_changes_the_work() {
    let mut world = world();
    let work = world.ordered().unwrap();
    let envelope = world.statements[0].clone();
    let text = String::from_utf8(envelope.clone()).unwrap();
    let hint = text.find("\"keyid\"").unwrap()..text.find(",\"sig\"").unwrap();
    for position in 0..envelope.len() {
        for bit in 0..8 {
            let mut flipped = envelope.clone();
            flipped[position] ^= 1 << bit;
            world.statements = vec![flipped];
            match world.ordered() {
                Ok(other) => assert!(other == work && hint.contains(&position), "byte {position} bit {bit}"),
                Err(refusal) => assert!(
                    ["malformed", "signature-invalid", "statement-missing"].contains(&refusal.code()),
                    "byte {position} bit {bit}: {refusal}"
                ),
            }
        }
    }
}

#[test]
fn a_signed_statement_written_anew_is_refused() {
    let mut world = world();
    let payload = world.publication(at(NOW.0)).to_payload();
    let signed = Envelope::sign(STATEMENT_TYPE, payload.clone(), &[&world.publisher]);
    // The same meaning in other bytes, under the same signature.
    let mut spaced = payload;
    spaced.push(b'\n');
    let other = Envelope::sign(STATEMENT_TYPE, spaced, &[]);
    let mut value: serde_json::Value = serde_json::from_slice(&signed.to_vec()).unwrap();
    let rewritten: serde_json::Value = serde_json::from_slice(&other.to_vec()).unwrap();
    value["payload"] = rewritten["payload"].clone();
    world.statements = vec![serde_json::to_vec(&value).unwrap()];
    assert_eq!(world.code(), "signature-invalid");
}

#[test]
fn a_trust_roots_signature_is_no_publication() {
    let mut world = world();
    let payload = world.publication(at(NOW.0)).to_payload();
    world.statements =
        vec![Envelope::sign(crate::trust::TRUST_ROOT_TYPE, payload, &[&world.publisher]).to_vec()];
    assert_eq!(world.code(), "statement-missing");
}

#[test]
fn an_approved_artifact_does_not_lend_its_statement_to_another() {
    let mut world = world();
    let statements = world.statements.clone();
    // The same version and number, other bytes, ordered by its own digest.
    world.plan(&PLAN.replace("bin/migrate", "bin/evil"));
    world.statements = statements;
    assert_eq!(world.code(), "wrong-subject");
}

#[test]
fn a_signature_does_not_make_a_harmful_manifest_harmless() {
    for (path, target) in [("../x", "a"), ("/etc/cron.d/x", "a"), ("x", "../../etc"), ("x", "/etc/shadow")] {
        let mut world = world();
        let kind = crate::artifact::EntryKind::Link { target: target.to_owned() };
        world.manifest.entries = vec![crate::artifact::Entry { path: path.to_owned(), kind }];
        world.publish(at(NOW.0));
        assert_eq!(world.code(), "malformed", "{path} {target}");
    }
}
