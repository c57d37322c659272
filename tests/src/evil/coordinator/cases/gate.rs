//! Gates that are not met, and approvals of something else: A16 to A27.

use std::time::Duration;

use consign_common::{
    deployment::{DeploymentOutcome, Event},
    time::UnixMs,
    trust::{Decision, DecisionAction, Enrolled, Order, OrderKind, OrderingNumber, Predicate},
};

use consign_proto::v1::agent_message::Kind as Said;

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    authority::{SERVER, now, shop},
    world::{self, Failed, Shot, World},
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused("a16-no-approval", "approval-missing", "what is published and tested, and approved by nobody", |world| {
        approved_by(world, &[])
    }),
    Attack::refused("a16-one-approval-of-two", "approval-missing", "what one product owner has approved where it takes two", |world| {
        approved_by(world, &["pat"])
    }),
    Attack::refused("a16-no-test-result", "gate-unmet", "what is approved and was not tested", |world| {
        let artifact = world.artifact();
        let mut statements = world.approvals(&artifact, |_| {});
        statements.push(world.published(&artifact, "ci"));
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("a16-failed-test", "gate-unmet", "what is approved and did not pass its test, or may have", |world| {
        ["FAILED", "WARNED", "passed", ""]
            .map(|result| {
                let artifact = world.artifact();
                let mut statements = world.approvals(&artifact, |_| {});
                statements.push(world.published(&artifact, "ci"));
                statements.push(world.tested(&artifact, "quinn", result));
                world.deploy(&artifact, statements)
            })
            .into()
    }),
    Attack::refused("a17-approval-of-other-environment", "wrong-environment", "approvals for staging", |world| {
        approved_with(world, |approval| approval.environment = "staging".parse().unwrap())
    }),
    Attack::refused("approval-of-other-app", "approval-missing", "approvals of the same artifact for another app", |world| {
        approved_with(world, |approval| approval.app = "blog".parse().unwrap())
    }),
    Attack::refused("a19-approval-of-other-artifact", "approval-missing", "approvals of the artifact before, with their own ordering number", |world| {
        let (artifact, other) = (world.artifact(), world.artifact());
        let approvals = world.approvals(&other, |_| {});
        let statements = world.evidence_with(&artifact, approvals);
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("a20-older", "older", "what was approved before what runs", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        world.honest();
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("a20-older-with-old-approvals", "older", "what ran two deployments ago, with all that let it in then", |world| {
        let (first, statements) = world.honest();
        world.honest();
        world.honest();
        vec![world.deploy(&first, statements)]
    }),
    Attack::refused("a20-used-up", "used-up", "what runs, by force, under approvals that have brought it in already", |world| {
        let (artifact, statements) = world.honest();
        let order = world.order("shop", OrderKind::deploy(artifact.digest, true));
        vec![world::shot(&order, statements)]
    }),
    Attack::refused("a25-expired", "approval-expired", "approvals whose `start_by` has passed", |world| {
        approved_with(world, |approval| approval.start_by = now())
    }),
    Attack::refused("a25-expired-also-to-converge", "approval-expired", "an order that says `converge`, with approvals whose `converge_until` has passed", |world| {
        let artifact = world.artifact();
        let approvals = world.approvals(&artifact, |approval| {
            approval.start_by = now();
            approval.converge_until = now();
        });
        let statements = world.evidence_with(&artifact, approvals);
        vec![converging(world, artifact.digest, statements)]
    }),
    Attack::refused("a26-from-the-future", "far-future", "approvals signed for eleven minutes from now", |world| {
        approved_with(world, |approval| approval.number.ms = now().plus(Duration::from_secs(11 * 60)))
    }),
    Attack::refused("a34-a-number-of-2-63", "far-future", "approvals and a publication with the numbers 2^63 and 2^64 - 1", |world| {
        let mut shots = approved_with(world, |approval| approval.number.ms = UnixMs(1 << 63));
        shots.extend(approved_with(world, |approval| approval.number.ms = UnixMs(u64::MAX)));
        let artifact = world.artifact();
        let number = OrderingNumber { epoch: 0, ms: UnixMs(u64::MAX) };
        let mut statements = world.approvals(&artifact, |_| {});
        statements.push(world.tested(&artifact, "quinn", "PASSED"));
        statements.push(world.published_at(&artifact, "ci", number));
        shots.push(world.deploy(&artifact, statements));
        shots
    }),
    Attack::refused("a34-a-later-epoch", "wrong-epoch", "approvals of an epoch that the trust root does not have yet", |world| {
        approved_with(world, |approval| approval.number.epoch = 1)
    }),
    Attack::free("a34-recovery-by-epoch", Outcome::Refused("wrong-epoch"), "approvals and publications of the epoch before, after the owner has raised it", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        world.take_root(|root| root.apps.get_mut(&shop()).unwrap().epoch = 1);
        let stale = world.deploy(&artifact, statements);
        world.send(&stale);
        assert_eq!(world.refusal_of(&stale), "wrong-epoch");
    })
    .own(),
    Attack::refused("approval-by-the-publisher", "approval-missing", "an approval by a product owner who has also signed the publication", |world| {
        approved_by(world, &["pat", "ci"])
    }),
    Attack::refused("other-statements-as-approvals", "approval-missing", "an `enrolled` statement, a decision, a test result, by product owners, about the artifact", |world| {
        let artifact = world.artifact();
        let decision = Decision {
            environment: "production".parse().unwrap(),
            rollout: world.id(),
            server: None,
            step: "prepare".parse().unwrap(),
            action: DecisionAction::Skip,
            at: now(),
            reason: "because".into(),
        };
        let enrolled = Enrolled {
            server: SERVER.parse().unwrap(),
            environment: "production".parse().unwrap(),
            at: now(),
            sealing_key: None,
        };
        let others = [Predicate::Decision(decision), Predicate::Enrolled(enrolled)];
        let mut approvals = Vec::new();
        for by in ["pat", "paul"] {
            approvals.extend(others.clone().map(|other| world.authority.statement(&[by], artifact.digest, other)));
            approvals.push(world.tested(&artifact, by, "PASSED"));
        }
        let statements = world.evidence_with(&artifact, approvals);
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("approval-called-foreign", "approval-missing", "a foreign statement by product owners whose predicate looks like an approval", |world| {
        let artifact = world.artifact();
        let approval = world.approval();
        let value = serde_json::to_value(&approval).unwrap();
        let predicate_type = "https://example.org/approval/v1".to_owned();
        let foreign = Predicate::Foreign { predicate_type, value };
        let approvals = ["pat", "paul"].map(|by| world.authority.statement(&[by], artifact.digest, foreign.clone()));
        let statements = world.evidence_with(&artifact, approvals.into());
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::free("rearm-after-a-failure", Outcome::Refused("rearmed"), "after a deployment that failed: all that let it in before, then with the word of a release manager from before the failure", |world| {
        let early = world.artifact();
        let mut before = world.evidence(&early);
        before.push(world.approved(&early, "rita"));
        fail(world);
        for statements in [before[..4].to_vec(), before] {
            let refused = world.deploy(&early, statements);
            let snapshot = world.snapshot();
            world.send(&refused);
            // What was approved before what failed is older, too; the word that is asked for comes first.
            assert_eq!(world.refusal_of(&refused), "rearmed");
            snapshot.assert_same(&world.snapshot(), "afterwards");
        }
        let artifact = world.artifact();
        let approvals = world.approvals(&artifact, |_| {});
        let statements = world.evidence_with(&artifact, approvals);
        let refused = world.deploy(&artifact, statements);
        world.send(&refused);
        assert_eq!(world.refusal_of(&refused), "rearmed", "approved since, and by no release manager");
        assert_eq!(world.journalled(&refused.id).as_deref(), Some("rearmed"));
        // A restart forgets nothing of it.
        world.agent.kill();
        world.agent.launch();
        world.session();
        let mut again = world.order("shop", OrderKind::deploy(artifact.digest, false));
        again.term = world.term;
        let approvals = world.approvals(&artifact, |_| {});
        let statements = world.evidence_with(&artifact, approvals);
        let again = world::shot(&again, statements);
        world.send(&again);
        assert_eq!(world.refusal_of(&again), "rearmed", "after a restart");
    })
    .own(),
    Attack::free(
        "cancel-after-a-failure",
        Outcome::Refused("rearmed"),
        "a cancel while a deployment that has failed tidies up, and while one goes back: they count as failed and as returned all the same, and what was approved without a release manager is refused",
        |world| {
            let wait = "shell = \"until [ -e @effects.go ]; do sleep 0.02; done\"";
            let tidying = format!(
                "[[step]]\nname = \"break\"\nshell = \"exit 1\"\n\n[[step]]\nname = \"activate\"\nactivate = true\n\n\
                 [[step]]\nname = \"tidy\"\nalways = true\n{wait}\n"
            );
            cancelled_late(world, &tidying);
        },
    )
    .own(),
];

/// It fails in its first step, is cancelled while its last one waits, and the gate is armed.
fn cancelled_late(world: &mut World, plan: &str) {
    let artifact = world.artifact_of("shop", plan);
    let statements = world.evidence(&artifact);
    let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
    let running = world::shot(&order, statements);
    world.send(&running);
    let mut spawned = 0;
    world.event(&running, |event| {
        spawned += u32::from(matches!(event, Event::Spawned { .. }));
        (spawned == 2).then_some(())
    });
    let cancel = Order { id: world.id(), order: OrderKind::Cancel { reason: "no".into() }, ..order };
    world.send(&world::shot(&cancel, Vec::new()));
    let word = cancel.id.to_string();
    world.hear("what becomes of the cancel", |said| match said {
        Said::Refused(refused) if refused.order == word => Some(()),
        Said::Event(event) if String::from_utf8_lossy(&event.body).contains("cancelling") => Some(()),
        _ => None,
    });
    world.release("effects.go");
    let outcome = world.outcome_of(&running);
    println!("       cancelled late: {outcome:?}");
    let next = world.artifact();
    let approvals = world.approvals(&next, |_| {});
    let statements = world.evidence_with(&next, approvals);
    let unarmed = world.deploy(&next, statements);
    world.send(&unarmed);
    assert_eq!(world.refusal_of(&unarmed), "rearmed");
    world.failed = Some(Failed);
}

/// A deployment that everybody signed, and that fails.
pub(super) fn fail(world: &mut World) {
    let plan =
        "[[step]]\nname = \"break\"\nshell = \"exit 1\"\n[[step]]\nname = \"activate\"\nactivate = true\n";
    let artifact = world.artifact_of("shop", plan);
    let statements = world.evidence(&artifact);
    let shot = world.deploy(&artifact, statements);
    let outcome = world.run(&shot);
    assert!(matches!(outcome, DeploymentOutcome::Failed { .. }), "{outcome:?}");
    world.failed = Some(Failed);
}

pub(super) fn converging(
    world: &mut World,
    manifest: consign_common::digest::Sha256,
    statements: Vec<Vec<u8>>,
) -> Shot {
    let kind = OrderKind::Deploy {
        manifest,
        force: false,
        skip: Vec::new(),
        plan: [].into(),
        confirm_ms: None,
        converge: true,
    };
    let order = world.order("shop", kind);
    world::shot(&order, statements)
}

fn approved_by(world: &mut World, names: &[&str]) -> Vec<Shot> {
    let artifact = world.artifact();
    let approvals = names.iter().map(|by| world.approved(&artifact, by)).collect();
    let statements = world.evidence_with(&artifact, approvals);
    vec![world.deploy(&artifact, statements)]
}

fn approved_with(world: &mut World, change: impl Fn(&mut consign_common::trust::Approval)) -> Vec<Shot> {
    let artifact = world.artifact();
    let approvals = world.approvals(&artifact, change);
    let statements = world.evidence_with(&artifact, approvals);
    vec![world.deploy(&artifact, statements)]
}
