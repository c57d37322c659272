//! Where a rule begins and ends to hold, and what is told of who counts.

use super::{
    gates::{TESTED, approvals, gated, rule},
    *,
};
use crate::trust::{Separation, gate::Why};

fn approach(change: impl FnOnce(&mut World)) -> Result<(), &'static str> {
    let mut world = world();
    change(&mut world);
    authorize_approach(&world.order, CONNECTED, &world.root, &world.word, &world.memory)
        .map_err(|refusal| refusal.code())
}

#[test]
fn nothing_is_fetched_for_an_order_that_is_not_for_this_server_or_of_no_app_that_root_lists() {
    assert_eq!(approach(|_| {}), Ok(()));
    assert_eq!(approach(|world| world.word.allowances.clear()), Err("app-not-allowed"));
    let other = |world: &mut World| world.word.allowances[0].app = "blog".parse().unwrap();
    assert_eq!(approach(other), Err("app-not-allowed"));
    let both = |world: &mut World| {
        let shop = world.word.allowances[0].clone();
        world.word.allowances[0].app = "blog".parse().unwrap();
        world.word.allowances.push(shop);
    };
    assert_eq!(approach(both), Ok(()));
    assert_eq!(approach(|world| world.order.server = "web-2".parse().unwrap()), Err("wrong-server"));
    assert_eq!(approach(|world| world.order.coordinator = "another".into()), Err("coordinator-unknown"));
    assert_eq!(approach(|world| world.memory.term = 8), Err("old-term"));
}

#[test]
fn as_many_statements_are_read_as_the_limit_says() {
    let mut world = world();
    world.statements = vec![world.statements[0].clone(); STATEMENTS];
    world.ordered().unwrap();
    world.statements.push(world.statements[0].clone());
    assert_eq!(world.code(), "malformed");
}

#[test]
fn of_two_approvals_by_one_owner_the_newer_is_told_in_whatever_order_they_come() {
    for order in [[6000, 9000], [9000, 6000]] {
        let (mut world, alice, anna) = gated();
        world.gate(vec![approvals(2)], vec![], Separation::None);
        order.into_iter().for_each(|ms| world.approve_at(&alice, ms));
        for missing in [1, 0] {
            let assessed = world.assessed();
            let state = &assessed.rules[0];
            assert_eq!(state.missing, missing);
            let of_alice = state.counted.iter().find(|vote| vote.owner.as_str() == "alice");
            assert_eq!(of_alice.unwrap().number, Some(at(9000)));
            world.approve_at(&anna, 5000);
        }
    }
}

#[test]
fn who_is_not_needed_is_not_called_out() {
    let (mut world, alice, anna) = gated();
    for key in [&alice, &anna] {
        world.take_role(key, "qa");
    }
    world.gate(vec![approvals(1), rule(TESTED, "qa", 1)], vec![], Separation::All);
    for key in [&alice, &anna] {
        world.approve(key, |_| {});
        world.test(key, serde_json::json!({}));
    }
    let assessed = world.assessed();
    assert!(assessed.is_met());
    for state in &assessed.rules {
        assert_eq!((state.counted.len(), state.uncounted.as_slice()), (1, &[][..]));
    }
}

#[test]
fn an_approval_of_another_config_says_which() {
    let (approved, in_force) = (Sha256::of(b"approved"), Sha256::of(b"in force"));
    let told = |approved| Why::Config { approved, in_force }.to_string();
    assert_eq!(told(None), format!("it approves no config, and {in_force} is in force"));
    assert_eq!(told(Some(approved)), format!("it approves {approved}, and {in_force} is in force"));
    let told = |given| Why::Plan { approved, given }.to_string();
    let none = "the order comes with none that has this server";
    assert_eq!(told(None), format!("it approves the plan {approved}, and {none}"));
}

#[test]
fn what_nobody_signed_beside_the_publication_keeps_nobody_apart() {
    let (mut world, alice, _) = gated();
    world.gate(vec![approvals(1)], vec![], Separation::Publisher);
    world.approve(&alice, |_| {});
    let publication = world.publication(at(2000)).to_payload();
    world.statements.push(Envelope::sign(STATEMENT_TYPE, publication.clone(), &[]).to_vec());
    let stranger = SigningKey::generate().unwrap();
    world.statements.push(Envelope::sign(STATEMENT_TYPE, publication, &[&stranger]).to_vec());
    world.ordered().unwrap();
}

#[test]
fn an_order_is_sent_with_all_that_it_asks_for() {
    let mut world = world();
    for force in [true, false] {
        let kind = OrderKind::deploy(world.digest(), force);
        if let OrderKind::Deploy { manifest, force, skip, plan, confirm_ms, .. } = kind {
            for converge in [true, false] {
                let (skip, plan) = (skip.clone(), plan.clone());
                world.order.order = OrderKind::Deploy { manifest, force, skip, plan, confirm_ms, converge };
                assert_eq!(Order::parse(&world.order.to_vec()), Ok(world.order.clone()));
            }
        }
    }
}
