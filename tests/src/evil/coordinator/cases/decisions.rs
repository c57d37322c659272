//! Decisions of operators that nobody signed: A31.

use consign_common::{
    deployment::{DeploymentOutcome, Event},
    digest::Sha256,
    name::Id,
    trust::{Decision, DecisionAction, Order, OrderKind, Predicate},
};

use super::orders::refused;
use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    authority::now,
    world::{Artifact, Failed, Shot, World, shot},
};

/// `steps` while it waits: the second is left out, or not.
const SLOW: &str = r#"
[[step]]
name = "wait"
shell = "until [ -e @effects.go ]; do sleep 0.02; done"

[[step]]
name = "prepare"
shell = "echo prepare $CONSIGN_VERSION >> @effects"

[[step]]
name = "activate"
activate = true
"#;

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused("a31-skip-unsigned", "skip-unsigned", "an honest order that leaves out a step, without a decision", |world| {
        skipping(world, |_, _, _| Vec::new())
    }),
    Attack::refused("a31-skip-by-one-of-two", "skip-unsigned", "a decision by one owner with two keys, where it takes two owners; by those who may not approve", |world| {
        let mut shots = skipping(world, |world, artifact, rollout| sign(world, artifact, &["pat", "pat-2"], &decision(rollout)));
        shots.extend(skipping(world, |world, artifact, rollout| sign(world, artifact, &["pat", "quinn", "alice", "rita"], &decision(rollout))));
        shots.extend(skipping(world, |world, artifact, rollout| sign(world, artifact, &["pat", "ci"], &decision(rollout))));
        shots
    }),
    Attack::refused("a31-decision-of-another-rollout", "skip-unsigned", "a decision about another rollout, server, step, action, environment, artifact", |world| {
        let mut shots = Vec::new();
        let changes: [fn(&mut Decision); 6] = [
            |decision| decision.rollout = Id::from_bytes([9; 16]),
            |decision| decision.server = Some("web-2".parse().unwrap()),
            |decision| decision.step = "tell".parse().unwrap(),
            |decision| decision.action = DecisionAction::Done,
            |decision| decision.environment = "staging".parse().unwrap(),
            |decision| decision.at.0 += 11 * 60 * 1000,
        ];
        for change in changes {
            shots.extend(skipping(world, |world, artifact, rollout| {
                let mut decision = decision(rollout);
                change(&mut decision);
                sign(world, artifact, &["pat", "paul"], &decision)
            }));
        }
        shots.extend(skipping(world, |world, artifact, rollout| {
            let other = Artifact { digest: Sha256::of(b"another"), ..artifact.clone() };
            sign(world, &other, &["pat", "paul"], &decision(rollout))
        }));
        shots
    }),
    Attack::refused("approval-as-decision", "skip-unsigned", "approvals in place of a decision", |world| {
        skipping(world, |world, artifact, _| world.approvals(artifact, |_| {}))
    }),
    Attack::shots("skip-activate", Outcome::Answered("not-skippable"), "an order that leaves out `activate`, with a decision that says so", |world| {
        let artifact = world.artifact();
        let mut statements = world.evidence(&artifact);
        let step = "activate";
        let order = leaving_out(world, &artifact, step);
        let decision = Decision { step: step.parse().unwrap(), ..decision(&order.rollout) };
        statements.extend(sign(world, &artifact, &["pat", "paul"], &decision));
        vec![shot(&order, statements)]
    }),
    Attack::free("a31-decide-unsigned", Outcome::Refused("decision-missing"), "while a deployment runs: to leave out a step, to call one done, failed, or to run it again; unsigned, by one of two owners, with a decision about another rollout", |world| {
        let (running, order, artifact) = slow(world);
        for action in [DecisionAction::Skip, DecisionAction::Done, DecisionAction::Failed, DecisionAction::Again] {
            let other = Id::from_bytes([9; 16]);
            let said = Decision { action, ..decision(&order.rollout) };
            let elsewhere = Decision { rollout: other, ..said.clone() };
            let sets = [
                Vec::new(),
                sign(world, &artifact, &["pat", "pat-2"], &said),
                sign(world, &artifact, &["pat", "paul"], &elsewhere),
            ];
            for mut statements in sets {
                // Who published is not asked, and must be known: nobody decides over what they published.
                statements.push(world.published(&artifact, "ci"));
                let word = about(world, &order, OrderKind::Decide { step: "prepare".parse().unwrap(), action, reason: "because".into() });
                let word = shot(&word, statements);
                world.send(&word);
                assert_eq!(world.refusal_of(&word), "decision-missing");
                assert_eq!(world.journalled(&word.id).as_deref(), Some("decision-missing"));
            }
        }
        go(world);
        let outcome = world.outcome_of(&running);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        assert!(world.effects().contains(&format!("prepare {}", artifact.version)), "it was not left out");
    })
    .own(),
    Attack::free("a31-decide-signed", Outcome::Remains("counts once those who approve have signed it: the attack before it fails for its reason, and no other"), "while a deployment runs: to leave out a step, signed", |world| {
        let (running, order, artifact) = slow(world);
        let mut statements = sign(world, &artifact, &["pat", "paul"], &decision(&order.rollout));
        statements.push(world.published(&artifact, "ci"));
        let word = about(world, &order, OrderKind::Decide { step: "prepare".parse().unwrap(), action: DecisionAction::Skip, reason: "because".into() });
        world.send(&shot(&word, statements));
        world.event(&running, |event| matches!(event, Event::Decided { .. }).then_some(()));
        go(world);
        let outcome = world.outcome_of(&running);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        assert!(!world.effects().contains(&format!("prepare {}", artifact.version)), "it was left out");
    })
    .own(),
    Attack::free("a31-skip-again", Outcome::Refused("skip-unsigned"), "a decision that has left out a step, with new approvals of the same artifact under the same rollout's id", |world| {
        let artifact = world.artifact();
        let mut statements = world.evidence(&artifact);
        let first = leaving_out(world, &artifact, "prepare");
        let decisions = sign(world, &artifact, &["pat", "paul"], &decision(&first.rollout));
        statements.extend(decisions.clone());
        let outcome = world.run(&shot(&first, statements));
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        let mut statements = world.evidence(&artifact);
        statements.extend(decisions);
        let mut again = Order { rollout: first.rollout, ..leaving_out(world, &artifact, "prepare") };
        if let OrderKind::Deploy { force, .. } = &mut again.order {
            *force = true;
        }
        refused(world, &shot(&again, statements), "skip-unsigned");
        assert!(!world.effects().contains(&format!("prepare {}", artifact.version)));
    })
    .own(),
    Attack::free("a31-decision-again", Outcome::Refused("decision-missing"), "a decision that has been carried out, in another order about the same step of the same rollout: while the same deployment runs, and in the one that repeats it", |world| {
        let (running, order, artifact) = slow(world);
        let mut statements = sign(world, &artifact, &["pat", "paul"], &decision(&order.rollout));
        statements.push(world.published(&artifact, "ci"));
        let skip = OrderKind::Decide { step: "prepare".parse().unwrap(), action: DecisionAction::Skip, reason: "because".into() };
        let word = about(world, &order, skip.clone());
        world.send(&shot(&word, statements.clone()));
        world.event(&running, |event| matches!(event, Event::Decided { .. }).then_some(()));
        let again = about(world, &order, skip.clone());
        refused(world, &shot(&again, statements.clone()), "decision-missing");
        let cancel = about(world, &order, OrderKind::Cancel { reason: "again, please".into() });
        world.send(&shot(&cancel, Vec::new()));
        let outcome = world.outcome_of(&running);
        assert!(matches!(outcome, DeploymentOutcome::Cancelled { .. }), "{outcome:?}");
        world.failed = Some(Failed);
        // The rollout tries again on this server: the same step is open once more.
        let evidence = world.evidence(&artifact);
        let retry = Order { id: world.id(), deployment: world.id(), ..order };
        let running = shot(&retry, evidence);
        world.send(&running);
        world.event(&running, |event| matches!(event, Event::Started { .. }).then_some(()));
        let again = about(world, &retry, skip);
        refused(world, &shot(&again, statements), "decision-missing");
        go(world);
        let outcome = world.outcome_of(&running);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        assert!(world.effects().contains(&format!("prepare {}", artifact.version)), "it was not left out again");
        world.failed = None;
    })
    .own(),
    Attack::shots("decide-about-nothing", Outcome::Answered("not-running"), "words about a deployment that there is not: decide, cancel, confirm", |world| {
        let decide = OrderKind::Decide { step: "prepare".parse().unwrap(), action: DecisionAction::Done, reason: "because".into() };
        [decide, OrderKind::Cancel { reason: "because".into() }, OrderKind::Confirm {}]
            .map(|kind| {
                let order = world.order("shop", kind);
                shot(&order, Vec::new())
            })
            .into()
    }),
];

fn decision(rollout: &Id) -> Decision {
    Decision {
        environment: "production".parse().unwrap(),
        rollout: rollout.clone(),
        server: None,
        step: "prepare".parse().unwrap(),
        action: DecisionAction::Skip,
        at: now(),
        reason: "because".into(),
    }
}

fn sign(world: &World, artifact: &Artifact, by: &[&str], decision: &Decision) -> Vec<Vec<u8>> {
    let predicate = Predicate::Decision(decision.clone());
    by.iter().map(|by| world.authority.statement(&[by], artifact.digest, predicate.clone())).collect()
}

fn leaving_out(world: &mut World, artifact: &Artifact, step: &str) -> Order {
    let kind = OrderKind::Deploy {
        manifest: artifact.digest,
        force: false,
        skip: vec![step.parse().unwrap()],
        plan: [].into(),
        confirm_ms: None,
        converge: false,
    };
    world.order("shop", kind)
}

/// An order that is honest but for the step that it leaves out, with these decisions.
fn skipping(
    world: &mut World,
    decisions: impl FnOnce(&mut World, &Artifact, &Id) -> Vec<Vec<u8>>,
) -> Vec<Shot> {
    let artifact = world.artifact();
    let mut statements = world.evidence(&artifact);
    let order = leaving_out(world, &artifact, "prepare");
    statements.extend(decisions(world, &artifact, &order.rollout));
    vec![shot(&order, statements)]
}

/// A deployment that waits in its first step.
fn slow(world: &mut World) -> (Shot, Order, Artifact) {
    let artifact = world.artifact_of("shop", SLOW);
    let statements = world.evidence(&artifact);
    let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
    let running = shot(&order, statements);
    world.send(&running);
    world.event(&running, |event| matches!(event, Event::Started { .. }).then_some(()));
    (running, order, artifact)
}

fn about(world: &mut World, order: &Order, kind: OrderKind) -> Order {
    Order { id: world.id(), order: kind, ..order.clone() }
}

fn go(world: &World) {
    world.release("effects.go");
}
