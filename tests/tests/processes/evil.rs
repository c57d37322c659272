//! The attacks of docs/attacks.md, a test for each group of them: what failed is named.

use std::{fs, path::Path};

use consign_tests::evil::{
    agent,
    coordinator::{Attack, Group, Runner, attacks},
    table,
};

fn play(group: Group) {
    let chosen: Vec<Attack> = attacks().into_iter().filter(|attack| attack.group == group).collect();
    assert!(!chosen.is_empty());
    let failed = Runner::default().play(&chosen);
    assert!(failed.is_empty(), "these did not end as they must: {failed:?}");
}

#[test]
fn signatures_that_do_not_count() {
    play(Group::Signatures);
}

#[test]
fn gates_that_are_not_met() {
    play(Group::Gate);
}

#[test]
fn artifacts_and_plans_that_nobody_approved() {
    play(Group::Documents);
}

#[test]
fn orders_that_are_old_known_or_not_for_this_server() {
    play(Group::Orders);
}

#[test]
fn decisions_that_nobody_signed() {
    play(Group::Decisions);
}

#[test]
fn configs_that_are_old_or_swapped() {
    play(Group::Config);
}

#[test]
fn trust_roots_that_do_not_follow() {
    play(Group::TrustRoots);
}

#[test]
fn what_root_on_the_server_does_not_allow() {
    play(Group::ServersWord);
}

#[test]
fn floods_and_giants() {
    play(Group::Bounds);
}

#[test]
fn what_remains_is_exactly_that() {
    play(Group::Remains);
}

#[test]
fn a_stolen_server() {
    let failed = agent::play(agent::ATTACKS);
    assert!(failed.is_empty(), "these did not end as they must: {failed:?}");
}

#[test]
fn the_page_is_what_the_binary_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attacks.md");
    let written = fs::read_to_string(page).unwrap();
    assert!(written == table(), "write it again: target/debug/evil-coordinator table > docs/attacks.md");
}

#[test]
fn every_attack_has_a_name_of_its_own() {
    let mut names: Vec<&str> = attacks().iter().map(|attack| attack.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
