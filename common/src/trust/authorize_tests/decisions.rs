//! What operators decide where people sign: leaving out a step, and how an unknown outcome is to be taken.

use super::{
    gates::{approvals, gated, rule, tests},
    *,
};
use crate::trust::{Decision, DecisionAction, Separation};

const STEP: &str = "migrate";

impl World {
    pub(super) fn decision(&self, action: DecisionAction) -> Decision {
        Decision {
            environment: "production".parse().unwrap(),
            rollout: self.order.rollout.clone(),
            server: None,
            step: STEP.parse().unwrap(),
            action,
            at: NOW,
            reason: "looked at it".into(),
        }
    }

    /// Signs what the order asks for, but for what is changed of it.
    fn sign(&mut self, key: &SigningKey, change: impl FnOnce(&mut Decision)) {
        let mut decision = self.decision(DecisionAction::Done);
        change(&mut decision);
        self.say(&[key], Predicate::Decision(decision));
    }

    fn controlled_of(&self, manifest: Option<Sha256>) -> Result<(), Refusal> {
        let deciding = Deciding { manifest, statements: &self.statements, now: self.now };
        authorize_control(&self.order, CONNECTED, &self.root, &self.word, &self.memory, deciding).map(drop)
    }

    fn controlled(&self) -> Result<(), &'static str> {
        self.controlled_of(Some(self.digest())).map_err(|refusal| refusal.code())
    }
}

/// An order to call a step done, about a deployment of the world's artifact.
fn deciding() -> (World, SigningKey, SigningKey) {
    let (mut world, alice, anna) = gated();
    let (step, reason) = (STEP.parse().unwrap(), String::new());
    world.order.order = OrderKind::Decide { step, action: DecisionAction::Done, reason };
    (world, alice, anna)
}

fn with(change: impl FnOnce(&mut Decision)) -> Result<(), &'static str> {
    let (mut world, alice, _) = deciding();
    world.sign(&alice, change);
    world.controlled()
}

#[test]
fn a_decision_is_signed_by_those_who_approve() {
    let (mut world, alice, anna) = deciding();
    assert_eq!(world.controlled(), Err("decision-missing"));
    let refusal = world.controlled_of(Some(world.digest())).unwrap_err().to_string();
    assert!(refusal.contains("step migrate as done: 1 of owners, and 0 have"), "{refusal}");
    let qa = world.person("robot", "qa");
    world.sign(&qa, |_| {});
    assert_eq!(world.controlled(), Err("decision-missing"));
    world.approve(&alice, |_| {});
    assert_eq!(world.controlled(), Err("decision-missing"), "an approval is no decision");
    world.sign(&alice, |_| {});
    assert_eq!(world.controlled(), Ok(()));
    world.gate(vec![approvals(2)], vec![], Separation::None);
    assert_eq!(world.controlled(), Err("decision-missing"));
    world.sign(&anna, |_| {});
    assert_eq!(world.controlled(), Ok(()));
    assert_eq!(world.controlled_of(None).unwrap_err().code(), "decision-missing", "about nothing known here");
}

#[test]
fn a_decision_is_about_one_step_of_one_rollout_and_says_one_thing() {
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|it| it.environment = "staging".parse().unwrap()), Err("decision-missing"));
    assert_eq!(with(|it| it.rollout = id(99)), Err("decision-missing"));
    assert_eq!(with(|it| it.step = "restart".parse().unwrap()), Err("decision-missing"));
    for action in [DecisionAction::Skip, DecisionAction::Failed, DecisionAction::Again] {
        assert_eq!(with(|it| it.action = action), Err("decision-missing"));
    }
    assert_eq!(with(|it| it.server = Some("web-1".parse().unwrap())), Ok(()));
    assert_eq!(with(|it| it.server = Some("web-2".parse().unwrap())), Err("decision-missing"));
    assert_eq!(with(|it| it.at = UnixMs(NOW.0 + FUTURE_MS)), Ok(()));
    assert_eq!(with(|it| it.at = UnixMs(NOW.0 + FUTURE_MS + 1)), Err("decision-missing"));
    let (mut world, alice, _) = deciding();
    world.sign(&alice, |_| {});
    world.manifest.version = "1.2.1".parse().unwrap();
    assert_eq!(world.controlled(), Err("decision-missing"), "about another artifact");
}

#[test]
fn what_is_signed_once_decides_once() {
    let (mut world, alice, anna) = deciding();
    world.gate(vec![approvals(2)], vec![], Separation::None);
    world.sign(&alice, |_| {});
    world.sign(&anna, |it| it.reason = "so did I".into());
    let decide = |world: &World| {
        let (statements, manifest) = (&world.statements, Some(world.digest()));
        let deciding = Deciding { manifest, statements, now: world.now };
        authorize_control(&world.order, CONNECTED, &world.root, &world.word, &world.memory, deciding)
    };
    let decided = decide(&world).unwrap();
    assert_eq!(decided.len(), 2);
    // The step is unknown again, and the old word comes in another order.
    world.memory.decided.extend(decided);
    let refusal = decide(&world).unwrap_err();
    assert_eq!(refusal.code(), "decision-missing");
    assert!(refusal.to_string().contains("0 have signed it"), "{refusal}");
    assert!(refusal.to_string().contains("signed once decides once"), "{refusal}");
    // A new word by one of two is not enough for another turn of the other's old one.
    world.sign(&alice, |it| it.at.0 += 1);
    assert_eq!(world.controlled(), Err("decision-missing"));
    world.sign(&anna, |it| {
        it.at.0 += 1;
        it.reason = "so did I".into();
    });
    assert_eq!(decide(&world).unwrap().len(), 2);
}

#[test]
fn all_who_signed_a_decision_have_decided_with_it() {
    let (mut world, alice, anna) = deciding();
    world.sign(&alice, |_| {});
    world.sign(&anna, |it| it.reason = "so did I".into());
    let deciding = Deciding { manifest: Some(world.digest()), statements: &world.statements, now: world.now };
    let decided =
        authorize_control(&world.order, CONNECTED, &world.root, &world.word, &world.memory, deciding);
    assert_eq!(decided.unwrap().len(), 2, "one would do, and the other must not be left for another time");
}

#[test]
fn a_skip_is_repeated_under_the_same_approvals_only() {
    let (mut world, alice, _) = gated();
    world.approve(&alice, |_| {});
    world.sign(&alice, |it| it.action = DecisionAction::Skip);
    if let OrderKind::Deploy { skip, .. } = &mut world.order.order {
        skip.push(STEP.parse().unwrap());
    }
    let work = world.ordered().unwrap();
    assert_eq!(work.decided.len(), 1);
    // As the agent remembers it of an accepted order: a retry is the same again.
    world.memory.highest = Some(work.number);
    world.memory.decided.extend(work.decided.iter().copied());
    assert_eq!(world.ordered().unwrap().decided, work.decided);
    // People have approved it again, and decided nothing.
    world.approve(&alice, |it| it.number.ms.0 += 1);
    let refusal = world.ordered().unwrap_err();
    assert_eq!(refusal.code(), "skip-unsigned");
    assert!(refusal.to_string().contains("signed once decides once"), "{refusal}");
    world.sign(&alice, |it| {
        it.action = DecisionAction::Skip;
        it.at.0 += 1;
    });
    assert_eq!(world.ordered().unwrap().decided.len(), 1);
}

#[test]
fn the_approvals_of_the_gate_say_who_decides() {
    let (mut world, alice, _) = deciding();
    let bob = world.person("bob", "captains");
    world.take_role(&alice, "qa");
    world.sign(&alice, |_| {});
    let captains = || rule(crate::trust::APPROVAL, "captains", 1);
    world.gate(vec![approvals(1)], vec![captains()], Separation::None);
    assert_eq!(world.controlled(), Ok(()), "those of `require`");
    world.gate(vec![approvals(1), captains()], vec![], Separation::None);
    assert_eq!(world.controlled(), Err("decision-missing"), "every one of them");
    world.gate(vec![tests("true")], vec![captains()], Separation::None);
    assert_eq!(world.controlled(), Err("decision-missing"), "else those of `rearm`");
    world.sign(&bob, |_| {});
    assert_eq!(world.controlled(), Ok(()));
    world.gate(vec![tests("true")], vec![tests("true")], Separation::None);
    assert_eq!(world.controlled(), Err("decision-missing"), "else nobody");
    // What an approval has to say is nothing that a decision says.
    let rule = crate::trust::GateRule { condition: Some("predicate.reason == 'x'".into()), ..approvals(1) };
    world.gate(vec![rule], vec![], Separation::None);
    assert_eq!(world.controlled(), Ok(()));
}

#[test]
fn duties_are_kept_apart_for_decisions_too() {
    let (mut world, alice, anna) = deciding();
    let ci = SigningKey::from_pkcs8(world.publisher.to_pkcs8()).unwrap();
    world.take_role(&ci, "owners");
    world.sign(&ci, |_| {});
    assert_eq!(world.controlled(), Ok(()));
    world.gate(vec![approvals(1)], vec![], Separation::Publisher);
    assert_eq!(world.controlled(), Err("decision-missing"));
    world.sign(&alice, |_| {});
    assert_eq!(world.controlled(), Ok(()));
    let publication = world.statements.remove(0);
    assert_eq!(world.controlled(), Err("statement-missing"), "who published it must be known");
    world.statements.push(publication);
    world.gate(vec![approvals(1), approvals(1)], vec![], Separation::All);
    assert_eq!(world.controlled(), Err("decision-missing"));
    world.sign(&anna, |_| {});
    assert_eq!(world.controlled(), Ok(()));
}

#[test]
fn where_the_publisher_is_enough_nobody_signs_decisions() {
    let (mut world, ..) = deciding();
    world.root.environments.insert("production".parse().unwrap(), Gate::PublisherOnly {});
    assert_eq!(world.controlled(), Ok(()));
    assert_eq!(world.controlled_of(None), Ok(()));
    world.root.environments.clear();
    assert_eq!(world.controlled(), Err("environment-unknown"));
    let (mut world, ..) = deciding();
    world.gate(vec![], vec![], Separation::None);
    assert_eq!(world.controlled(), Err("trust-root-invalid"));
    world.statements = vec![b"{".to_vec()];
    assert_eq!(world.controlled(), Err("malformed"));
}

#[test]
fn what_only_stops_or_answers_needs_nobody() {
    let (mut world, ..) = deciding();
    for kind in [
        OrderKind::Cancel { reason: String::new() },
        OrderKind::Confirm {},
        OrderKind::Once { step: STEP.parse().unwrap(), word: crate::trust::OnceWord::Run {} },
    ] {
        world.order.order = kind;
        assert_eq!(world.controlled(), Ok(()));
    }
}

fn skipping(steps: &[&str]) -> (World, SigningKey) {
    let (mut world, alice, _) = gated();
    world.approve(&alice, |_| {});
    let OrderKind::Deploy { skip, .. } = &mut world.order.order else { panic!() };
    *skip = steps.iter().map(|step| step.parse().unwrap()).collect();
    (world, alice)
}

#[test]
fn a_step_is_left_out_where_that_is_signed() {
    let (mut world, alice) = skipping(&["migrate", "restart"]);
    assert_eq!(world.code(), "skip-unsigned");
    let skip = |step: &'static str| {
        move |it: &mut Decision| {
            it.action = DecisionAction::Skip;
            it.step = step.parse().unwrap();
        }
    };
    world.sign(&alice, skip("migrate"));
    assert_eq!(world.code(), "skip-unsigned", "each of them");
    assert!(world.ordered().unwrap_err().to_string().contains("leave out step restart"));
    world.sign(&alice, skip("restart"));
    world.ordered().unwrap();
    world.now = UnixMs(0);
    world.resumed().unwrap();
    world.statements.truncate(3);
    assert_eq!(world.resumed().unwrap_err().code(), "skip-unsigned");
    let (mut world, alice) = skipping(&["migrate"]);
    world.sign(&alice, |_| {});
    assert_eq!(world.code(), "skip-unsigned", "to call it done is another word");
    world.root.environments.insert("production".parse().unwrap(), Gate::PublisherOnly {});
    world.ordered().unwrap();
}

#[test]
fn a_way_back_needs_nobody_unless_it_leaves_something_out() {
    let (mut world, alice, _) = gated();
    world.statements.clear();
    world.memory.before = Some(world.installed(at(5000)));
    world.order.order = OrderKind::back(world.digest(), "rollback");
    world.ordered().unwrap();
    let OrderKind::Return { skip, .. } = &mut world.order.order else { panic!() };
    skip.push("restart".parse().unwrap());
    assert_eq!(world.code(), "skip-unsigned");
    world.sign(&alice, |it| {
        it.action = DecisionAction::Skip;
        it.step = "restart".parse().unwrap();
    });
    world.ordered().unwrap();
    world.resumed().unwrap();
    world.statements.push(b"{".to_vec());
    assert_eq!(world.code(), "malformed");
    world.statements.clear();
    world.root.environments.clear();
    assert_eq!(world.code(), "environment-unknown");
}
