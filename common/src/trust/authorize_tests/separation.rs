//! Separation of duties: whose signatures do not count, and whose count once.

use serde_json::json;

use super::{
    gates::{TESTED, approvals, gated, rule, tests},
    *,
};
use crate::trust::{APPROVAL, Separation};

#[test]
fn who_published_does_not_approve() {
    for separation in [Separation::Publisher, Separation::All] {
        let (mut world, _, anna) = gated();
        let ci = SigningKey::from_pkcs8(world.publisher.to_pkcs8()).unwrap();
        world.take_role(&ci, "owners");
        world.approve(&ci, |_| {});
        world.ordered().unwrap();
        world.gate(vec![approvals(1)], vec![], separation);
        let refusal = world.ordered().unwrap_err();
        assert_eq!(refusal.code(), "approval-missing");
        assert!(refusal.to_string().contains("ci does not count: its owner has also signed the publication"));
        // Nor with another key.
        let second = world.person("ci", "owners");
        world.approve(&second, |_| {});
        assert_eq!(world.code(), "approval-missing");
        world.approve(&anna, |_| {});
        world.ordered().unwrap();
    }
}

#[test]
fn of_one_envelope_the_publishers_signature_falls_out_alone() {
    let (mut world, alice, _) = gated();
    let ci = SigningKey::from_pkcs8(world.publisher.to_pkcs8()).unwrap();
    world.take_role(&ci, "owners");
    world.gate(vec![approvals(1)], vec![], Separation::Publisher);
    let approval = Predicate::Approval(world.approval(at(NOW.0)));
    world.say(&[&ci, &alice], approval);
    world.ordered().unwrap();
    world.gate(vec![approvals(2)], vec![], Separation::Publisher);
    assert_eq!(world.code(), "approval-missing");
}

#[test]
fn whoever_signed_any_publication_of_it_counts_as_its_publisher() {
    let (mut world, alice, anna) = gated();
    world.gate(vec![approvals(1)], vec![], Separation::Publisher);
    world.approve(&alice, |_| {});
    world.ordered().unwrap();
    // Published again by alice; the first publication would be enough by itself.
    let publication = world.publication(at(2000)).predicate;
    world.say(&[&alice], publication);
    assert_eq!(world.code(), "approval-missing");
    world.approve(&anna, |_| {});
    world.ordered().unwrap();
    // What she published of another artifact has no part in it.
    let mut other = world.publication(at(2000));
    other.subject.sha256 = Sha256::of(b"another");
    world.statements[2] = Envelope::sign(STATEMENT_TYPE, other.to_payload(), &[&alice]).to_vec();
    world.statements.pop();
    world.ordered().unwrap();
}

#[test]
fn nobody_counts_for_two_rules_where_all_are_kept_apart() {
    let (mut world, alice, anna) = gated();
    world.take_role(&alice, "qa");
    let rules = vec![approvals(1), rule(TESTED, "qa", 1)];
    world.gate(rules.clone(), vec![], Separation::None);
    world.approve(&alice, |_| {});
    world.test(&alice, json!({}));
    world.ordered().unwrap();
    world.gate(rules.clone(), vec![], Separation::Publisher);
    world.ordered().unwrap();
    world.gate(rules, vec![], Separation::All);
    let refusal = world.ordered().unwrap_err();
    assert_eq!(refusal.code(), "gate-unmet");
    assert!(refusal.to_string().contains("alice does not count: its owner counts for another rule already"));
    // Anna can stand in for her at one of the two, whichever it takes.
    world.approve(&anna, |_| {});
    world.ordered().unwrap();
}

#[test]
fn an_owner_is_moved_to_where_nobody_else_is() {
    let (mut world, alice, anna) = gated();
    let bob = world.person("bob", "owners");
    world.take_role(&alice, "qa");
    world.gate(vec![approvals(2), rule(TESTED, "qa", 1)], vec![], Separation::All);
    world.root.check().unwrap();
    for key in [&alice, &anna] {
        world.approve(key, |_| {});
    }
    world.test(&alice, json!({}));
    assert_eq!(world.code(), "gate-unmet");
    world.approve(&bob, |_| {});
    world.ordered().unwrap();
}

#[test]
fn who_signs_again_after_a_failure_may_be_who_signed_before() {
    let (mut world, alice, anna) = gated();
    let rearm = vec![approvals(1), rule(TESTED, "owners", 1)];
    world.gate(vec![approvals(1)], rearm, Separation::All);
    world.root.check().unwrap();
    world.memory.failed = Some(at(5000));
    world.approve_at(&alice, 6000);
    assert_eq!(world.code(), "rearmed");
    world.test(&alice, json!({}));
    assert_eq!(world.code(), "rearmed", "but for two rules of one part nobody counts");
    world.test(&anna, json!({}));
    assert_eq!(world.number(), Ok(6000));
}

#[test]
fn what_counts_together_is_what_orders_it() {
    // Alice's newest approval cannot be used for the approval, because it takes her for the test.
    let (mut world, alice, anna) = gated();
    world.take_role(&alice, "qa");
    world.gate(vec![approvals(1), rule(TESTED, "qa", 1)], vec![], Separation::All);
    world.approve_at(&alice, 9000);
    world.approve_at(&anna, 7000);
    world.test(&alice, json!({}));
    assert_eq!(world.number(), Ok(7000));
}

#[test]
fn a_trust_root_has_people_enough_for_what_it_keeps_apart() {
    let (mut world, alice, _) = gated();
    world.take_role(&alice, "qa");
    let check = |world: &World| world.root.check().map_err(|refusal| refusal.to_string());
    for separation in [Separation::None, Separation::Publisher] {
        world.gate(vec![approvals(2), tests("true")], vec![], separation);
        assert_eq!(check(&world), Ok(()));
    }
    world.gate(vec![approvals(2), tests("true")], vec![], Separation::All);
    assert!(check(&world).unwrap_err().contains("too few owners"));
    world.gate(vec![approvals(1), tests("true")], vec![], Separation::All);
    assert_eq!(check(&world), Ok(()));
    world.gate(vec![approvals(1)], vec![approvals(1), approvals(1), approvals(1)], Separation::All);
    assert!(check(&world).unwrap_err().contains("too few owners"), "also after a failure");
    world.gate(vec![approvals(2)], vec![approvals(2)], Separation::All);
    assert_eq!(check(&world), Ok(()), "each part by itself");
    let second = world.person("alice", "qa");
    world.take_role(&second, "owners");
    world.gate(vec![rule(APPROVAL, "qa", 1), rule(APPROVAL, "qa", 1)], vec![], Separation::All);
    assert!(check(&world).unwrap_err().contains("too few owners"), "two keys of one owner");
}
