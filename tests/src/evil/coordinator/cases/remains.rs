//! What a stolen coordinator can still do (SECURITY.md), each shown to be exactly that.

use std::time::Duration;

use consign_common::{
    deployment::{DeploymentOutcome, Event},
    trust::{DecisionAction, OnceWord, Order, OrderKind},
};

use super::{
    gate::converging,
    orders::{back, refused},
};
use crate::evil::coordinator::{
    attack::Attack,
    authority::{NEXT_COORDINATOR, now, shop},
    world::{Failed, STEPS, Setting, World, shot},
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::remains(
        "remains-refuse-and-delay",
        "nothing, for a while; then an order that was approved meanwhile",
        "refuses and delays: what runs goes on, and an approval that is held back until after its `start_by` is worth nothing",
        |world| {
            let artifact = world.artifact();
            let approvals = world
                .approvals(&artifact, |approval| approval.start_by = now().plus(Duration::from_millis(300)));
            let statements = world.evidence_with(&artifact, approvals);
            let late = world.deploy(&artifact, statements);
            let before = world.snapshot();
            std::thread::sleep(Duration::from_millis(400));
            before.assert_same(&world.snapshot(), "afterwards");
            refused(world, &late, "approval-expired");
        },
    ),
    Attack::remains(
        "remains-choose-among-approved",
        "of two approved artifacts the second",
        "chooses which approved work goes where, and when; the one that was passed over is older from then on",
        |world| {
            let (first, second) = (world.artifact(), world.artifact());
            let (of_first, of_second) = (world.evidence(&first), world.evidence(&second));
            world.honest_with(&second, of_second);
            let passed_over = world.deploy(&first, of_first);
            refused(world, &passed_over, "older");
        },
    ),
    Attack::remains(
        "remains-interrupt",
        "a cancel, by nobody's word",
        "interrupts: the deployment ends as cancelled, and `current` is what it was; since a step had begun it re-arms the gate, so that what would have failed is not hidden by it",
        |world| {
            let plan = format!("[[step]]\nname = \"wait\"\nshell = \"sleep 60\"\n{STEPS}");
            let artifact = world.artifact_of("shop", &plan);
            let statements = world.evidence(&artifact);
            let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
            let running = shot(&order, statements);
            let before = (world.effects(), world.current());
            world.send(&running);
            world.event(&running, |event| matches!(event, Event::Spawned { .. }).then_some(()));
            let cancel = Order { id: world.id(), order: OrderKind::Cancel { reason: "no".into() }, ..order };
            world.send(&shot(&cancel, Vec::new()));
            let outcome = world.outcome_of(&running);
            assert!(matches!(outcome, DeploymentOutcome::Cancelled { .. }), "{outcome:?}");
            assert_eq!((world.effects(), world.current()), before);
            let again = world.artifact();
            let statements = world.evidence(&again);
            let without_rita = world.deploy(&again, statements);
            refused(world, &without_rita, "rearmed");
            world.failed = Some(Failed);
        },
    ),
    Attack::remains(
        "remains-return-to-before",
        "a return to the artifact before, by nobody's word; then another",
        "brings a server back to the artifact before: once, to that one and no further",
        |world| {
            let (before, _) = world.honest();
            world.honest();
            let once = back(world);
            let outcome = world.run(&once);
            assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
            assert_eq!(world.current().as_deref(), Some(before.version.as_str()));
            // A way back that was ordered is a judgement on what it left.
            world.failed = Some(Failed);
            let order = world.order("shop", OrderKind::back(before.digest, "again"));
            refused(world, &shot(&order, Vec::new()), "nothing-to-return-to");
        },
    ),
    Attack::remains(
        "remains-false-once",
        "that a `once` step ran on another server, where it did not",
        "claims falsely that a `once` step ran elsewhere: that step does not run here, all others do",
        |world| {
            let plan = format!(
                "[[step]]\nname = \"migrate\"\nshell = \"echo migrate >> @effects\"\nonce = true\n{STEPS}"
            );
            let artifact = world.artifact_of("shop", &plan);
            let statements = world.evidence(&artifact);
            let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
            let running = shot(&order, statements);
            world.send(&running);
            world.event(&running, |event| matches!(event, Event::Awaiting { .. }).then_some(()));
            let word = OnceWord::Done { server: "web-2".parse().unwrap() };
            let kind = OrderKind::Once { step: "migrate".parse().unwrap(), word };
            let claim = Order { id: world.id(), order: kind, ..order };
            world.send(&shot(&claim, Vec::new()));
            let outcome = world.outcome_of(&running);
            assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
            let effects = world.effects();
            assert!(!effects.contains(&"migrate".to_owned()), "{effects:?}");
            assert!(effects.contains(&format!("tell {}", artifact.version)), "{effects:?}");
        },
    ),
    Attack::remains(
        "remains-confirm",
        "a confirmation of what nobody looked at",
        "confirms: what was approved is good without anybody having looked",
        |world| {
            let artifact = confirming(world);
            let statements = world.evidence(&artifact);
            let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
            let running = shot(&order, statements);
            world.send(&running);
            world.event(&running, |event| matches!(event, Event::Confirming { .. }).then_some(()));
            let confirm = Order { id: world.id(), order: OrderKind::Confirm {}, ..order };
            world.send(&shot(&confirm, Vec::new()));
            let outcome = world.outcome_of(&running);
            assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        },
    ),
    Attack::remains(
        "remains-not-confirm",
        "an order that shortens the time to confirm to a second, and no confirmation",
        "does not confirm: the server goes back by itself to what was good",
        |world| {
            let before = world.current();
            let artifact = confirming(world);
            let statements = world.evidence(&artifact);
            let kind = OrderKind::Deploy {
                manifest: artifact.digest,
                force: false,
                skip: Vec::new(),
                plan: [].into(),
                confirm_ms: Some(1000),
                converge: false,
            };
            let order = world.order("shop", kind);
            let outcome = world.run(&shot(&order, statements));
            assert!(matches!(outcome, DeploymentOutcome::Returned { .. }), "{outcome:?}");
            assert_eq!(world.current(), before);
            world.failed = Some(Failed);
        },
    ),
    Attack::remains(
        "remains-reads-output",
        "nothing: it listens",
        "reads what steps print that is not secret",
        |world| {
            let plan = format!("[[step]]\nname = \"say\"\nshell = \"echo the weather is fine\"\n{STEPS}");
            let artifact = world.artifact_of("shop", &plan);
            let statements = world.evidence(&artifact);
            world.honest_with(&artifact, statements);
            crate::wait::until("the output is here", Duration::from_secs(20), || {
                let output = String::from_utf8_lossy(&world.line.output.lock().unwrap()).into_owned();
                if output.contains("the weather is fine") { Ok(()) } else { Err(output) }
            });
        },
    ),
    Attack::remains(
        "remains-converge",
        "an approval whose `start_by` has passed, as if the server came late",
        "says that a server comes late, until `converge_until`: it is still the approved artifact with the approved config",
        |world| {
            let artifact = world.artifact();
            let approvals = world.approvals(&artifact, |approval| approval.start_by = now());
            let statements = world.evidence_with(&artifact, approvals);
            let in_time = world.deploy(&artifact, statements.clone());
            refused(world, &in_time, "approval-expired");
            let late = converging(world, artifact.digest, statements);
            let outcome = world.run(&late);
            assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        },
    ),
    Attack::remains(
        "remains-choose-publication",
        "of two publications of the same artifact, one of them by a product owner, both; then only the other publisher's",
        "chooses which publication comes along, and so whether one who has published it, too, may approve: two people have signed it all the same",
        |world| {
            let pat = world.authority.id_of("pat");
            world.take_root(|root| root.apps.get_mut(&shop()).unwrap().publishers.keys.push(pat));
            let artifact = world.artifact();
            let with_cis_alone = world.evidence(&artifact);
            let mut with_both = with_cis_alone.clone();
            with_both.push(world.published(&artifact, "pat"));
            let honest = world.deploy(&artifact, with_both);
            refused(world, &honest, "approval-missing");
            // Pat's own publication lets in nothing that pat approves.
            let mut with_pats_alone = world.approvals(&artifact, |_| {});
            with_pats_alone.push(world.tested(&artifact, "quinn", "PASSED"));
            with_pats_alone.push(world.published(&artifact, "pat"));
            let order = world.deploy(&artifact, with_pats_alone);
            refused(world, &order, "approval-missing");
            world.honest_with(&artifact, with_cis_alone);
        },
    ),
    Attack::remains(
        "remains-approvals-left-over",
        "what runs, by force, with one approval more than were needed; then again",
        "uses an approval that was left over for one more deployment of the same artifact, and no more: a success uses up the lowest that counted",
        |world| {
            let artifact = world.artifact();
            let statements = world.evidence(&artifact);
            let (published, tested) =
                (world.published(&artifact, "ci"), world.tested(&artifact, "quinn", "PASSED"));
            let left_over = world.approved(&artifact, "sue");
            world.honest_with(&artifact, statements.clone());
            let force = OrderKind::deploy(artifact.digest, true);
            let mut statements: Vec<Vec<u8>> = statements;
            statements.extend([published, tested, left_over]);
            let order = world.order("shop", force.clone());
            let outcome = world.run(&shot(&order, statements.clone()));
            assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
            let order = world.order("shop", force);
            refused(world, &shot(&order, statements), "used-up");
        },
    ),
    Attack::remains(
        "remains-root-freeze",
        "no newer trust root",
        "withholds a newer trust root until the one in force expires (`a33-expired`): what it would have revoked still counts",
        |world| {
            let artifact = world.artifact();
            let statements = world.evidence(&artifact);
            // It is signed, and the agent never hears of it.
            let mut unheard = world.next_root();
            unheard.revoked = vec![artifact.digest];
            let unheard = world.authority.sign_root(&unheard, &["alice"]);
            world.honest_with(&artifact, statements);
            let (version, error) = world.offer(vec![unheard]);
            assert_eq!((version, error.as_str()), (2, ""));
            world.root = world.next_root();
            world.root.revoked = vec![artifact.digest];
        },
    ),
    Attack::remains(
        "remains-term-of-2-63",
        "an order with the term 2^64 - 1",
        "makes its own later orders too old (2^63 - 1 is the highest that is kept); a new identity in the trust root begins at zero",
        |world| {
            world.term = u64::MAX;
            world.honest();
            world.term = 1;
            let artifact = world.artifact();
            let statements = world.evidence(&artifact);
            let stale = world.deploy(&artifact, statements);
            refused(world, &stale, "old-term");
            let ca_sha256 = world.authority.ca.pin();
            world.take_root(|root| {
                root.coordinators =
                    vec![consign_common::trust::CoordinatorPin { id: NEXT_COORDINATOR.into(), ca_sha256 }];
            });
            world.hand_over();
        },
    ),
    Attack::alone(
        "remains-publisher-only",
        super::super::attack::Outcome::Remains(
            "where the publisher is enough: leaves out a step, but never `activate`, and runs nothing that nobody published",
        ),
        "in staging: an order that leaves out a step; one that leaves out `activate`; one that nobody published",
        || {
            let mut world = World::start(Setting { environment: "staging", ..Setting::USUAL });
            let artifact = world.artifact();
            let statements = vec![world.published(&artifact, "ci")];
            let leaving_out = |step: &str| OrderKind::Deploy {
                manifest: artifact.digest,
                force: false,
                skip: vec![step.parse().unwrap()],
                plan: [].into(),
                confirm_ms: None,
                converge: false,
            };
            let order = world.order("shop", leaving_out("activate"));
            let without_activate = shot(&order, statements.clone());
            world.send(&without_activate);
            assert_eq!(world.refusal_of(&without_activate), "not-skippable");
            let order = world.order("shop", leaving_out("prepare"));
            let outcome = world.run(&shot(&order, statements));
            assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
            assert!(!world.effects().contains(&format!("prepare {}", artifact.version)));
            let unpublished = world.artifact();
            let statements = vec![world.published(&unpublished, "eve")];
            let order = world.deploy(&unpublished, statements);
            refused(&mut world, &order, "signature-invalid");
            let decide = OrderKind::Decide {
                step: "tell".parse().unwrap(),
                action: DecisionAction::Done,
                reason: "because".into(),
            };
            let order = world.order("shop", decide);
            let nowhere = shot(&order, Vec::new());
            world.send(&nowhere);
            assert_eq!(world.refusal_of(&nowhere), "not-running");
            world.honest();
        },
    ),
];

/// Good only once it is confirmed.
fn confirming(world: &mut World) -> super::super::world::Artifact {
    world.artifact_of("shop", &format!("confirm = \"60s\"\n{STEPS}"))
}
