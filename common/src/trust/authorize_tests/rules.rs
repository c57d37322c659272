//! What is told of every rule: who counts, what is missing, and why something does not count.

use serde_json::json;

use super::{
    gates::{approvals, gated, rule, tests},
    *,
};
use crate::trust::{
    APPROVAL, Approval, Separation,
    evidence::{self, Content},
    gate::{Arrival, Assessed, Part, Why},
    review::{Case, review},
};

impl World {
    pub(super) fn assessed(&self) -> Assessed {
        let case = Case {
            root: &self.root,
            environment: &self.order.environment,
            digest: self.digest(),
            manifest: &self.manifest,
            statements: &self.statements,
            plan: self.document.as_deref(),
            server: Some(&self.order.server),
            arrival: Arrival::WithTheOthers,
            memory: &self.memory,
            time: Time::Now(self.now),
        };
        review(case).unwrap().assessed
    }
}

/// Why the last statement does not count, once `change` has been made to a good approval.
fn why(change: impl FnOnce(&mut Approval)) -> Why {
    let (mut world, alice, _) = gated();
    world.approve(&alice, change);
    let assessed = world.assessed();
    assert!(!assessed.is_met());
    assessed.rules[0].uncounted[0].why.clone()
}

#[test]
fn a_gate_of_the_publisher_alone_has_no_rules() {
    let assessed = world().assessed();
    assert_eq!(assessed, Assessed::default());
    assert!(assessed.is_met());
    assert_eq!(assessed.refusal(&"production".parse().unwrap()), None);
}

#[test]
fn everybody_who_counts_is_named_with_the_key_and_the_statement() {
    let (mut world, alice, anna) = gated();
    world.gate(vec![approvals(2)], vec![approvals(1)], Separation::None);
    world.approve_at(&alice, 5000);
    let one = world.assessed();
    let [state] = one.rules.as_slice() else { panic!("{one:?}") };
    assert_eq!((state.part, state.have(), state.need(), state.missing), (Part::Require, 1, 2, 1));
    assert!(!state.is_met() && !one.is_met() && one.number.is_none());
    let [vote] = state.counted.as_slice() else { panic!("{state:?}") };
    let statement = Envelope::parse(&world.statements[1], crate::limits::ENVELOPE_BYTES).unwrap();
    assert_eq!(vote.owner.as_str(), "alice");
    assert_eq!(vote.key, alice.public().id());
    assert_eq!(vote.statement, Sha256::of(statement.payload()));
    assert_eq!(vote.number, Some(at(5000)));

    world.approve_at(&anna, 6000);
    world.memory.failed = Some(at(5500));
    let both = world.assessed();
    let parts: Vec<_> = both.rules.iter().map(|state| (state.part, state.have(), state.is_met())).collect();
    assert_eq!(parts, [(Part::Require, 2, true), (Part::Rearm, 1, true)]);
    assert_eq!((both.number, both.is_met()), (Some(at(5000)), true));
}

#[test]
fn every_reason_is_told() {
    assert_eq!(why(|it| it.app = "blog".parse().unwrap()), Why::OtherApp("blog".parse().unwrap()));
    let staging: crate::name::Environment = "staging".parse().unwrap();
    assert_eq!(why(|it| it.environment = staging.clone()), Why::OtherEnvironment(staging.clone()));
    assert_eq!(why(|it| it.number.epoch = 7), Why::Epoch { given: 7, current: 1 });
    let number = at(u64::MAX);
    assert_eq!(why(|it| it.number = number), Why::FarFuture { number, now: NOW });
    let (approved, in_force) = (Some(Sha256::of(b"x")), Sha256::of(b"{}"));
    assert_eq!(why(|it| it.config_sha256 = approved), Why::Config { approved, in_force });
    let approved = Sha256::of(b"x");
    assert_eq!(why(|it| it.plan_sha256 = Some(approved)), Why::Plan { approved, given: None });
    assert_eq!(why(|it| it.start_by = UnixMs(7)), Why::Expired { until: UnixMs(7), now: NOW });
}

#[test]
fn statements_of_others_and_about_other_things_are_told_apart() {
    let (mut world, alice, _) = gated();
    let qa = world.person("robot", "qa");
    let stranger = SigningKey::generate().unwrap();
    world.gate(vec![approvals(1), tests("predicate.ok")], vec![], Separation::None);
    world.approve(&qa, |_| {});
    world.approve(&stranger, |_| {});
    world.test(&alice, json!({"ok": true}));
    let other = Statement {
        subject: Subject { name: "other".into(), sha256: Sha256::of(b"other") },
        predicate: Predicate::Approval(world.approval(at(NOW.0))),
    };
    world.statements.push(Envelope::sign(STATEMENT_TYPE, other.to_payload(), &[&alice]).to_vec());
    world.statements.push(Envelope::sign(STATEMENT_TYPE, b"{}".to_vec(), &[&qa]).to_vec());
    let assessed = world.assessed();
    let told: Vec<Vec<(String, Why)>> = assessed
        .rules
        .iter()
        .map(|state| {
            let uncounted = state.uncounted.iter();
            uncounted.map(|it| (it.owners[0].to_string(), it.why.clone())).collect()
        })
        .collect();
    assert_eq!(told[0].len(), 2, "{told:?}");
    assert_eq!(told[0][0], ("robot".into(), Why::NotOfRole));
    assert_eq!(told[0][1], ("alice".into(), Why::OtherArtifact(Sha256::of(b"other"))));
    assert_eq!(told[1].len(), 2, "{told:?}");
    assert_eq!(told[1][0], ("alice".into(), Why::NotOfRole));
    assert!(matches!(told[1][1], (_, Why::Unreadable(_))));
}

#[test]
fn the_refusal_names_what_came_closest() {
    let staging = |it: &mut Approval| it.environment = "staging".parse().unwrap();
    let expired = |it: &mut Approval| it.start_by = UnixMs(0);
    let unconfigured = |it: &mut Approval| it.config_sha256 = Some(Sha256::of(b"x"));
    let unplanned = |it: &mut Approval| it.plan_sha256 = Some(Sha256::of(b"x"));
    let far = |it: &mut Approval| it.number = at(u64::MAX);
    let epoch = |it: &mut Approval| it.number.epoch = 9;
    let app = |it: &mut Approval| it.app = "blog".parse().unwrap();
    type Step = (&'static str, fn(&mut Approval));
    let ladder: [Step; 7] = [
        ("approval-missing", app),
        ("wrong-environment", staging),
        ("wrong-epoch", epoch),
        ("far-future", far),
        ("config-not-approved", unconfigured),
        ("plan-not-approved", unplanned),
        ("approval-expired", expired),
    ];
    let (mut world, alice, _) = gated();
    for (code, change) in ladder {
        world.approve(&alice, change);
        assert_eq!(world.code(), code);
    }
    world.statements.reverse();
    assert_eq!(world.code(), "approval-expired", "whatever comes first");
    // A rule that asks for something else is refused by its own name.
    let (mut world, alice, _) = gated();
    world.gate(vec![tests("true"), approvals(1)], vec![], Separation::None);
    world.take_role(&alice, "qa");
    world.approve(&alice, staging);
    assert_eq!(world.code(), "gate-unmet");
}

#[test]
fn what_nobody_asks_for_is_not_read() {
    let (mut world, alice, _) = gated();
    let bob = world.person("bob", "others");
    let stranger = SigningKey::generate().unwrap();
    let read = |world: &World| {
        let (app, environment) = (&world.order.app, &world.order.environment);
        evidence::read(&world.statements, &world.root, app, environment).unwrap()
    };
    world.statements.clear();
    for keys in [vec![], vec![&stranger], vec![&bob], vec![&alice, &bob]] {
        world.say(&keys, Predicate::Approval(world.approval(at(5000))));
    }
    let found = read(&world);
    assert_eq!(found[0].content, Content::Unsigned);
    assert_eq!((&found[1].content, &found[2].content), (&Content::OfStrangers, &Content::OfStrangers));
    assert!(matches!(found[3].content, Content::Statement(_)));
    assert_eq!(found[3].signers.len(), 1, "bob has no say here");
    assert!(found.iter().all(|one| one.statement == found[0].statement));
    // A gate that asks for others reads theirs; and a `rearm` that does not hold is asked, too.
    world.gate(vec![approvals(1)], vec![rule(APPROVAL, "others", 1)], Separation::None);
    assert_eq!(read(&world)[2].signers.values().map(|owner| owner.as_str()).collect::<Vec<_>>(), ["bob"]);
    world.root.apps.clear();
    world.root.environments.clear();
    assert!(read(&world).iter().all(|one| one.signers.is_empty()), "nobody's word counts");
}
