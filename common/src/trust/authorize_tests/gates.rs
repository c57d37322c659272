//! Approvals and other statements: who lets an artifact in, where, until when, and in which order.

use serde_json::json;

use super::*;
use crate::trust::{APPROVAL, Approval, GateRule, PUBLISHED, Separation, gate::Rearming};

pub(super) const TESTED: &str = "https://in-toto.io/attestation/test-result/v0.1";
const HOUR: u64 = 3_600_000;

pub(super) fn rule(predicate: &str, role: &str, threshold: u32) -> GateRule {
    GateRule { predicate: predicate.into(), role: role.parse().unwrap(), threshold, condition: None }
}

pub(super) fn approvals(threshold: u32) -> GateRule {
    rule(APPROVAL, "owners", threshold)
}

pub(super) fn tests(condition: &str) -> GateRule {
    GateRule { condition: Some(condition.into()), ..rule(TESTED, "qa", 1) }
}

impl World {
    /// A key of somebody whom the trust root knows, in this role.
    pub(super) fn person(&mut self, owner: &str, role: &str) -> SigningKey {
        let key = SigningKey::generate().unwrap();
        self.root.keys.extend([trusted(&key, owner)]);
        self.take_role(&key, role);
        key
    }

    pub(super) fn take_role(&mut self, key: &SigningKey, role: &str) {
        let nobody = RoleKeys { keys: vec![], threshold: 1 };
        let role = self.root.roles.entry(role.parse().unwrap()).or_insert(nobody);
        role.keys.push(key.public().id());
    }

    pub(super) fn gate(&mut self, require: Vec<GateRule>, rearm: Vec<GateRule>, separation: Separation) {
        let gate = Gate::Statements { require, rearm, separation };
        self.root.environments.insert("production".parse().unwrap(), gate);
    }

    /// One that lets the world's artifact in for an hour.
    pub(super) fn approval(&self, number: OrderingNumber) -> Approval {
        Approval {
            app: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
            number,
            start_by: UnixMs(NOW.0 + HOUR),
            converge_until: UnixMs(NOW.0 + 2 * HOUR),
            config_sha256: None,
            plan_sha256: None,
            reason: None,
        }
    }

    pub(super) fn say(&mut self, keys: &[&SigningKey], predicate: Predicate) {
        let subject = Subject { name: "shop".into(), sha256: self.digest() };
        let statement = Statement { subject, predicate };
        self.statements.push(Envelope::sign(STATEMENT_TYPE, statement.to_payload(), keys).to_vec());
    }

    pub(super) fn approve(&mut self, key: &SigningKey, change: impl FnOnce(&mut Approval)) {
        let mut approval = self.approval(at(NOW.0 - 1000));
        change(&mut approval);
        self.say(&[key], Predicate::Approval(approval));
    }

    pub(super) fn approve_at(&mut self, key: &SigningKey, ms: u64) {
        self.approve(key, |approval| approval.number = at(ms));
    }

    pub(super) fn test(&mut self, key: &SigningKey, value: serde_json::Value) {
        self.say(&[key], Predicate::Foreign { predicate_type: TESTED.into(), value });
    }

    pub(super) fn number(&self) -> Result<u64, &'static str> {
        self.ordered().map(|work| work.number.ms.0).map_err(|refusal| refusal.code())
    }
}

/// Production takes what alice or anna approve.
pub(super) fn gated() -> (World, SigningKey, SigningKey) {
    let mut world = world();
    let (alice, anna) = (world.person("alice", "owners"), world.person("anna", "owners"));
    world.gate(vec![approvals(1)], vec![], Separation::None);
    world.root.check().unwrap();
    (world, alice, anna)
}

/// The refusal of an approval by alice that is changed.
fn with(change: impl FnOnce(&mut Approval)) -> Result<u64, &'static str> {
    let (mut world, alice, _) = gated();
    world.approve(&alice, change);
    world.number()
}

#[test]
fn what_nobody_approved_does_not_come_in() {
    let (mut world, alice, _) = gated();
    assert_eq!(world.code(), "approval-missing");
    let held = world.ordered().unwrap_err();
    assert_eq!(held.to_string(), "production takes what 1 of owners have approved, and 0 have");
    world.approve(&alice, |_| {});
    let work = world.ordered().unwrap();
    assert_eq!((work.number, work.published), (at(NOW.0 - 1000), at(NOW.0)), "ordered by the approval");
    world.statements.remove(0);
    assert_eq!(world.code(), "statement-missing", "an approval does not make up for the publication");
}

#[test]
fn an_approval_is_for_one_app_environment_and_artifact() {
    assert_eq!(with(|_| {}), Ok(NOW.0 - 1000));
    assert_eq!(with(|it| it.app = "blog".parse().unwrap()), Err("approval-missing"));
    assert_eq!(with(|it| it.environment = "staging".parse().unwrap()), Err("wrong-environment"));
    let (mut world, alice, _) = gated();
    world.approve(&alice, |_| {});
    // Another artifact under the approval of this one.
    world.manifest.version = "1.2.1".parse().unwrap();
    let publication = world.signed(&world.publication(at(NOW.0)));
    world.statements.push(publication);
    world.order.order = OrderKind::deploy(world.digest(), false);
    assert_eq!(world.code(), "approval-missing");
    assert!(world.ordered().unwrap_err().to_string().contains("another artifact"));
}

#[test]
fn an_approval_is_of_the_apps_epoch_and_not_from_the_future() {
    let of = |epoch| move |it: &mut Approval| it.number.epoch = epoch;
    assert_eq!(with(of(0)), Err("wrong-epoch"));
    assert_eq!(with(of(2)), Err("wrong-epoch"));
    let ms = |ms| move |it: &mut Approval| it.number.ms = UnixMs(ms);
    assert_eq!(with(ms(NOW.0 + FUTURE_MS)), Ok(NOW.0 + FUTURE_MS));
    assert_eq!(with(ms(NOW.0 + FUTURE_MS + 1)), Err("far-future"));
    assert_eq!(with(ms(u64::MAX)), Err("far-future"));
}

#[test]
fn an_approval_counts_until_its_start_by_and_for_those_that_come_later_until_its_converge_until() {
    let start_by = |ms| move |it: &mut Approval| it.start_by = UnixMs(ms);
    assert_eq!(with(start_by(NOW.0 + 1)), Ok(NOW.0 - 1000));
    assert_eq!(with(start_by(NOW.0)), Err("approval-expired"));
    assert_eq!(with(start_by(0)), Err("approval-expired"));

    let later = |change: fn(&mut Approval)| {
        let (mut world, alice, _) = gated();
        world.approve(&alice, change);
        let OrderKind::Deploy { converge, .. } = &mut world.order.order else { panic!() };
        *converge = true;
        world.number()
    };
    assert_eq!(later(|it| it.start_by = UnixMs(0)), Ok(NOW.0 - 1000));
    assert_eq!(later(|it| it.converge_until = UnixMs(NOW.0 + 1)), Ok(NOW.0 - 1000));
    assert_eq!(later(|it| it.converge_until = NOW), Err("approval-expired"), "whatever its start_by");
}

#[test]
fn only_keys_of_the_role_approve_and_each_owner_once() {
    let (mut world, alice, anna) = gated();
    world.gate(vec![approvals(2)], vec![], Separation::None);
    let stranger = SigningKey::generate().unwrap();
    let bob = world.person("bob", "qa");
    let second_of_alice = world.person("alice", "owners");
    world.approve(&stranger, |_| {});
    world.approve(&bob, |_| {});
    assert_eq!(world.code(), "approval-missing");
    world.approve(&alice, |_| {});
    world.approve(&alice, |it| it.reason = Some("again".into()));
    world.approve(&second_of_alice, |_| {});
    assert_eq!(world.code(), "approval-missing");
    assert!(world.ordered().unwrap_err().to_string().contains("2 of owners have approved, and 1 have"));
    world.approve(&anna, |_| {});
    world.ordered().unwrap();
}

#[test]
fn one_envelope_with_two_signatures_is_worth_two() {
    let (mut world, alice, anna) = gated();
    world.gate(vec![approvals(2)], vec![], Separation::None);
    let approval = Predicate::Approval(world.approval(at(NOW.0)));
    world.say(&[&alice, &anna], approval);
    world.ordered().unwrap();
}

#[test]
fn a_threshold_of_nothing_is_not_met_by_nobody() {
    let (mut world, alice, _) = gated();
    world.gate(vec![approvals(0)], vec![], Separation::None);
    assert_eq!(world.code(), "approval-missing");
    world.approve(&alice, |_| {});
    world.ordered().unwrap();
}

#[test]
fn a_gate_that_requires_nothing_or_a_role_that_is_not_there_is_closed() {
    let (mut world, alice, _) = gated();
    world.approve(&alice, |_| {});
    world.gate(vec![], vec![], Separation::None);
    assert_eq!(world.code(), "trust-root-invalid");
    world.gate(vec![rule(APPROVAL, "nobody", 1)], vec![], Separation::None);
    assert_eq!(world.code(), "approval-missing");
}

#[test]
fn every_rule_must_be_met() {
    let (mut world, alice, _) = gated();
    let qa = world.person("robot", "qa");
    world.gate(vec![approvals(1), tests("predicate.result == 'PASSED'")], vec![], Separation::None);
    world.root.check().unwrap();
    world.approve(&alice, |_| {});
    assert_eq!(world.code(), "gate-unmet");
    world.test(&qa, json!({"result": "FAILED"}));
    let refusal = world.ordered().unwrap_err();
    assert_eq!(refusal.code(), "gate-unmet");
    assert!(refusal.to_string().contains("robot does not count: `where` is false over it"), "{refusal}");
    world.test(&alice, json!({"result": "PASSED"}));
    assert_eq!(world.code(), "gate-unmet", "not by somebody of another role");
    world.test(&qa, json!({"result": "PASSED"}));
    world.ordered().unwrap();
    world.statements.remove(1);
    assert_eq!(world.code(), "approval-missing");
}

#[test]
fn a_condition_that_fails_or_cannot_be_read_counts_for_nothing() {
    let tested = |condition: &str| {
        let (mut world, ..) = gated();
        let qa = world.person("robot", "qa");
        world.gate(vec![tests(condition)], vec![], Separation::None);
        world.test(&qa, json!({"result": "PASSED"}));
        world.ordered().map(|work| work.number).map_err(|refusal| (refusal.code(), refusal.to_string()))
    };
    assert_eq!(tested("predicate.result == 'PASSED'"), Ok(at(NOW.0)), "ordered by the publication");
    for (condition, why) in [
        ("predicate.result", "`where`: a condition does not apply to a string"),
        ("predicate.missing == 1", "`where`: it has no field \"missing\""),
        ("predicate.result ==", "not CEL"),
    ] {
        let (code, message) = tested(condition).unwrap_err();
        assert_eq!(code, "gate-unmet");
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_condition_may_speak_of_an_approval_too() {
    let (mut world, alice, anna) = gated();
    let condition = Some("has(predicate.reason) && predicate.reason.contains('audit')".to_owned());
    world.gate(vec![GateRule { condition, ..approvals(1) }], vec![], Separation::None);
    world.approve(&alice, |_| {});
    assert_eq!(world.code(), "approval-missing");
    assert!(world.ordered().unwrap_err().to_string().contains("alice does not count: `where` is false"));
    world.approve(&anna, |it| it.reason = Some("after the audit".into()));
    world.ordered().unwrap();
}

#[test]
fn a_rule_may_ask_for_a_second_publisher() {
    let (mut world, ..) = gated();
    let release = world.person("release", "releasers");
    world.gate(vec![rule(PUBLISHED, "releasers", 1)], vec![], Separation::None);
    assert_eq!(world.code(), "gate-unmet");
    let publication = world.publication(at(5000)).predicate;
    world.say(&[&release], publication);
    assert_eq!(world.number(), Ok(NOW.0));
}

#[test]
fn an_unreadable_statement_of_somebody_of_the_role_counts_for_nothing() {
    let (mut world, alice, anna) = gated();
    world.statements.push(Envelope::sign(STATEMENT_TYPE, b"{}".to_vec(), &[&alice]).to_vec());
    let refusal = world.ordered().unwrap_err();
    assert_eq!(refusal.code(), "approval-missing");
    assert!(refusal.to_string().contains("alice does not count: statement cannot be read"), "{refusal}");
    world.approve(&anna, |_| {});
    world.ordered().unwrap();
    // Of other types than statements nobody takes notice.
    let approval = Statement {
        subject: Subject { name: "shop".into(), sha256: world.digest() },
        predicate: Predicate::Approval(world.approval(at(NOW.0))),
    };
    world.statements.truncate(1);
    let sealed = Envelope::sign(crate::trust::TRUST_ROOT_TYPE, approval.to_payload(), &[&alice]).to_vec();
    world.statements.push(sealed);
    assert_eq!(world.code(), "approval-missing");
}

#[test]
fn no_flipped_bit_in_an_approval_lets_anything_else_in() {
    let (mut world, alice, _) = gated();
    world.approve(&alice, |_| {});
    let work = world.ordered().unwrap();
    let envelope = world.statements[1].clone();
    let text = String::from_utf8(envelope.clone()).unwrap();
    let hint = text.find("\"keyid\"").unwrap()..text.find(",\"sig\"").unwrap();
    for position in 0..envelope.len() {
        for bit in 0..8 {
            let mut flipped = envelope.clone();
            flipped[position] ^= 1 << bit;
            world.statements[1] = flipped;
            match world.ordered() {
                Ok(other) => assert!(other == work && hint.contains(&position), "byte {position} bit {bit}"),
                Err(refusal) => {
                    let code = refusal.code();
                    assert!(["malformed", "approval-missing"].contains(&code), "byte {position}: {code}");
                }
            }
        }
    }
}

#[test]
fn of_several_approvals_those_count_that_come_last_and_the_lowest_of_them_rules() {
    let (mut world, alice, anna) = gated();
    world.approve_at(&alice, 5000);
    assert_eq!(world.number(), Ok(5000));
    world.approve_at(&anna, 6000);
    assert_eq!(world.number(), Ok(6000), "either is enough");
    world.gate(vec![approvals(2)], vec![], Separation::None);
    assert_eq!(world.number(), Ok(5000), "both are needed");
    world.approve_at(&alice, 7000);
    assert_eq!(world.number(), Ok(6000), "alice's newest, and anna's only one");
    world.statements.reverse();
    assert_eq!(world.number(), Ok(6000));
    world.approve(&anna, |it| {
        it.number = at(8000);
        it.start_by = UnixMs(0);
    });
    assert_eq!(world.number(), Ok(6000), "one that does not count raises nothing");
}

#[test]
fn approvals_order_what_comes_in_and_not_publications() {
    let (mut world, alice, _) = gated();
    world.memory.highest = Some(at(5000));
    world.approve_at(&alice, 4999);
    assert_eq!(world.number(), Err("older"));
    world.approve_at(&alice, 5000);
    assert_eq!(world.number(), Ok(5000));
    // A hotfix that was built later went in between: what was frozen before it goes through.
    world.statements[0] = world.signed(&world.publication(at(2000)));
    world.memory.highest = Some(at(5000));
    assert_eq!(world.ordered().map(|work| (work.published, work.number)), Ok((at(2000), at(5000))));
    world.memory.succeeded = Some(at(5000));
    assert_eq!(world.number(), Err("used-up"));
    world.approve_at(&alice, 5001);
    assert_eq!(world.number(), Ok(5001));
}

#[test]
fn the_floor_is_for_publications() {
    let (mut world, alice, _) = gated();
    world.approve_at(&alice, 500);
    assert_eq!(world.number(), Ok(500), "below the floor of 1000, which is not for approvals");
    world.statements[0] = world.signed(&world.publication(at(999)));
    assert_eq!(world.number(), Err("below-floor"));
    world.statements[0] = world.signed(&world.publication(at(NOW.0 + FUTURE_MS + 1)));
    assert_eq!(world.number(), Err("far-future"));
    let both = world.signed(&world.publication(at(1000)));
    world.statements.push(both);
    assert_eq!(world.ordered().map(|work| work.published), Ok(at(1000)));
    let other = world.signed(&world.publication(at(1500)));
    world.statements.push(other);
    assert_eq!(world.ordered().map(|work| work.published), Ok(at(1500)), "the newest that counts");
}

#[test]
fn after_a_failure_somebody_must_sign_again() {
    let (mut world, ..) = gated();
    let robot = world.person("robot", "qa");
    let bob = world.person("bob", "owners");
    world.gate(vec![tests("predicate.ok")], vec![approvals(1)], Separation::None);
    world.root.check().unwrap();
    world.test(&robot, json!({"ok": true}));
    assert_eq!(world.number(), Ok(NOW.0), "by the publication");
    world.memory.failed = Some(at(NOW.0 - 500));
    assert_eq!(world.number(), Err("rearmed"));
    world.approve_at(&bob, NOW.0 - 500);
    let refusal = world.ordered().unwrap_err();
    assert_eq!(refusal.code(), "rearmed");
    assert!(refusal.to_string().contains("bob does not count: it was signed at"), "{refusal}");
    world.approve_at(&bob, NOW.0 - 499);
    assert_eq!(world.number(), Ok(NOW.0 - 499), "by the approval");
    // What did not need to be signed since need not be: the rules of `require` stay what they are.
    world.memory.failed = None;
    assert_eq!(world.number(), Ok(NOW.0));
    // What rearm asks for comes on top.
    world.memory.failed = Some(at(NOW.0 - 500));
    world.statements.remove(1);
    assert_eq!(world.number(), Err("gate-unmet"));
}

#[test]
fn the_same_approval_may_count_for_both_parts() {
    let (mut world, alice, _) = gated();
    world.gate(vec![approvals(1)], vec![approvals(1)], Separation::None);
    world.memory.failed = Some(at(5000));
    world.approve_at(&alice, 5000);
    assert_eq!(world.number(), Err("rearmed"));
    world.approve_at(&alice, 6000);
    assert_eq!(world.number(), Ok(6000));
}

#[test]
fn an_approval_of_a_new_epoch_is_after_every_failure_of_the_old_one() {
    let (mut world, alice, _) = gated();
    world.gate(vec![approvals(1)], vec![approvals(1)], Separation::None);
    world.memory.failed = Some(at(u64::MAX));
    world.approve_at(&alice, NOW.0);
    assert_eq!(world.number(), Err("rearmed"));
    world.root.apps.values_mut().for_each(|app| app.epoch = 2);
    let second = OrderingNumber { epoch: 2, ms: NOW };
    let publication = world.signed(&world.publication(second));
    world.statements.push(publication);
    world.approve(&alice, |it| it.number = second);
    assert_eq!(world.number(), Ok(NOW.0));
}

#[test]
fn a_resumption_accepts_what_was_accepted() {
    let (mut world, alice, anna) = gated();
    world.approve_at(&alice, 5000);
    let accepted = world.ordered().unwrap();
    world.memory.highest = Some(accepted.number);
    world.now = UnixMs(u64::MAX);
    assert_eq!(world.ordered().unwrap_err().code(), "trust-root-expired");
    assert_eq!(world.resumed(), Ok(accepted.clone()), "its start_by has passed");
    // One from the future did not count when it began, and orders nothing now.
    world.approve_at(&anna, NOW.0 + 2 * FUTURE_MS);
    assert_eq!(world.resumed(), Ok(accepted.clone()));
    world.memory.succeeded = Some(at(5000));
    assert_eq!(world.resumed(), Ok(accepted));
    // Without a number in the journal, the highest.
    world.memory.highest = None;
    assert_eq!(world.resumed().map(|work| work.number), Ok(at(NOW.0 + 2 * FUTURE_MS)));
    world.statements.truncate(1);
    assert_eq!(world.resumed().unwrap_err().code(), "approval-missing");
}

#[test]
fn a_resumption_takes_the_publication_that_a_floor_would_stop_first() {
    let (mut world, alice, _) = gated();
    world.approve_at(&alice, 5000);
    for ms in [2000, NOW.0 + 2 * FUTURE_MS] {
        let publication = world.signed(&world.publication(at(ms)));
        world.statements.push(publication);
    }
    assert_eq!(world.ordered().map(|work| work.published), Ok(at(NOW.0)));
    world.memory.highest = Some(at(5000));
    assert_eq!(world.resumed().map(|work| work.published), Ok(at(2000)));
}

#[test]
fn a_preview_says_what_would_run_though_nobody_approved_it_yet() {
    let (mut world, alice, _) = gated();
    let previewed = |world: &World| {
        let bytes = world.bytes();
        let documents = Documents { manifest: &bytes, statements: &world.statements, plan: None };
        let host = Host { word: &world.word, privilege: &world.privilege, platform: "linux-x86_64" };
        preview(&world.order, CONNECTED, documents, &world.root, host, &world.memory, world.now)
    };
    let Preview { work, held } = previewed(&world).unwrap();
    assert_eq!((work.digest, work.plan.steps.len()), (world.digest(), 3));
    assert_eq!(held.map(|refusal| refusal.code()), Some("approval-missing"));
    world.approve(&alice, |_| {});
    assert_eq!(previewed(&world).unwrap().held, None);
    world.memory.highest = Some(at(NOW.0));
    assert_eq!(previewed(&world).unwrap().held.map(|refusal| refusal.code()), Some("older"));
    world.order.server = "web-2".parse().unwrap();
    assert_eq!(previewed(&world).unwrap_err().code(), "wrong-server");
    world.order.server = "web-1".parse().unwrap();
    world.word.allowances.clear();
    assert_eq!(previewed(&world).unwrap_err().code(), "app-not-allowed");
}

#[test]
fn what_ends_badly_rearms_and_what_succeeds_disarms() {
    use crate::deployment::DeploymentOutcome as Outcome;
    let because = String::new;
    let deploy = OrderKind::deploy(Sha256::of(b"m"), false);
    let back = OrderKind::back(Sha256::of(b"m"), "rollback");
    let bad = [
        Outcome::Failed { because: because() },
        Outcome::Returned { because: because() },
        Outcome::Stopped { because: because() },
        Outcome::Unknown { step: because(), because: because() },
    ];
    for outcome in &bad {
        assert_eq!(Rearming::of(&deploy, outcome), Rearming::On, "{outcome:?}");
        assert_eq!(Rearming::of(&back, outcome), Rearming::On, "{outcome:?}");
    }
    let succeeded = Outcome::Succeeded { tolerated: vec![] };
    assert_eq!(Rearming::of(&deploy, &succeeded), Rearming::Off);
    assert_eq!(Rearming::of(&back, &succeeded), Rearming::On);
    // Nobody knows whether it would have failed.
    let cancelled = Outcome::Cancelled { because: because() };
    assert_eq!(Rearming::of(&deploy, &cancelled), Rearming::OnIfBegun);
    assert_eq!(Rearming::of(&back, &cancelled), Rearming::OnIfBegun);
    let nothing = [Outcome::NoOp, Outcome::Refused { code: because(), message: because() }];
    for outcome in &nothing {
        assert_eq!(Rearming::of(&deploy, outcome), Rearming::Unchanged, "{outcome:?}");
        assert_eq!(Rearming::of(&back, outcome), Rearming::Unchanged, "{outcome:?}");
    }
}
