//! Orders that are old, known, or not for this server: A18, A20 to A24, A28, A32, A36.

use consign_common::{
    deployment::DeploymentOutcome,
    trust::{Order, OrderKind},
};

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    authority::shop,
    world::{Shot, World, shot},
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused("a18-other-environment", "wrong-environment", "an order that says that this server is in staging, where the publisher is enough", |world| {
        changed(world, |order| order.environment = "staging".parse().unwrap())
    }),
    Attack::refused("a28-order-of-another-server", "wrong-server", "another server's order", |world| {
        changed(world, |order| order.server = "web-2".parse().unwrap())
    }),
    Attack::refused("order-of-another-coordinator", "coordinator-unknown", "an order in the name of another coordinator than the one that is connected", |world| {
        let mut shots = changed(world, |order| order.coordinator = "decaf".into());
        shots.extend(changed(world, |order| order.coordinator = String::new()));
        shots
    }),
    Attack::free("a36-older-term", Outcome::Refused("old-term"), "an order of the term before", |world| {
        world.term = 7;
        world.honest();
        let stale = changed(world, |order| order.term = 6).remove(0);
        let before = world.snapshot();
        world.send(&stale);
        assert_eq!(world.refusal_of(&stale), "old-term");
        assert_eq!(world.journalled(&stale.id).as_deref(), Some("old-term"));
        before.assert_same(&world.snapshot(), "afterwards");
    })
    .own(),
    Attack::shots("a23-finished-order-again", Outcome::Nothing, "a finished order, twenty times", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        let order = world.deploy(&artifact, statements);
        let outcome = world.run(&order);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        vec![order; 20]
    }),
    Attack::refused("a23-refused-order-again", "approval-missing", "a refused order, five times: the same answer from the journal; also where approvals come with it the second time", |world| {
        let artifact = world.artifact();
        let none = world.evidence_with(&artifact, Vec::new());
        let all = world.evidence(&artifact);
        let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
        let mut shots = vec![shot(&order, none); 5];
        shots.push(shot(&order, all));
        shots
    }),
    Attack::shots("a24-same-id-other-content", Outcome::Answered("equivocation"), "another order under the id of one that was carried out, of one that was refused", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
        let done = shot(&order, statements);
        let outcome = world.run(&done);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        let next = world.artifact();
        let statements = world.evidence(&next);
        let rollout = world.id();
        let other = Order { rollout, order: OrderKind::deploy(next.digest, false), ..order.clone() };
        let cancel = Order { order: OrderKind::Cancel { reason: "no".into() }, ..order };
        let refused = changed(world, |order| order.term = 0).remove(0);
        world.send(&refused);
        assert_eq!(world.refusal_of(&refused), "old-term");
        let instead = world.order("shop", OrderKind::deploy(next.digest, false));
        let instead = Order { id: refused.id, ..instead };
        vec![shot(&other, statements.clone()), shot(&cancel, Vec::new()), shot(&instead, statements)]
    }),
    Attack::refused("deployment-id-again", "deployment-reused", "an honest order under the deployment's id of another one, which has ended", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        let done = world.deploy(&artifact, statements);
        let outcome = world.run(&done);
        assert!(matches!(outcome, DeploymentOutcome::Succeeded { .. }), "{outcome:?}");
        let next = world.artifact();
        let statements = world.evidence(&next);
        let order = world.order("shop", OrderKind::deploy(next.digest, false));
        vec![shot(&Order { deployment: done.deployment, ..order }, statements)]
    }),
    Attack::refused("a21-return-to-another", "wrong-return", "a return to an artifact that is not the one before, though it ran here once", |world| {
        let (first, _) = world.honest();
        world.honest();
        let (current, _) = world.honest();
        [first.digest, current.digest]
            .map(|digest| {
                let order = world.order("shop", OrderKind::back(digest, "because"));
                shot(&order, Vec::new())
            })
            .into()
    }),
    Attack::refused("a21-return-to-nothing", "nothing-to-return-to", "a return where there is no artifact before", |world| {
        let artifact = world.artifact();
        let order = world.order("shop", OrderKind::back(artifact.digest, "because"));
        vec![shot(&order, Vec::new())]
    })
    .own(),
    Attack::free("a22-return-below-the-floor", Outcome::Refused("below-floor"), "a return to the artifact before, and its deployment with new approvals, after the owner has raised the floor above it", |world| {
        let (before, _) = world.honest();
        world.honest();
        let (_, now) = world.honest();
        drop(now);
        let floor = world.number();
        world.take_root(|root| root.apps.get_mut(&shop()).unwrap().floor = floor);
        let published = consign_common::trust::OrderingNumber { epoch: 0, ms: consign_common::time::UnixMs(floor.ms.0 - 1) };
        let mut statements = world.approvals(&before, |_| {});
        statements.push(world.tested(&before, "quinn", "PASSED"));
        statements.push(world.published_at(&before, "ci", published));
        let forward = world.deploy(&before, statements);
        refused(world, &forward, "below-floor");
        let back = back(world);
        refused(world, &back, "below-floor");
    })
    .own(),
    Attack::free("a22-revoked", Outcome::Refused("revoked"), "a return to the artifact before, and its deployment with new approvals, after the owner has revoked it", |world| {
        let (before, _) = world.honest();
        world.honest();
        world.take_root(|root| root.revoked = vec![before.digest]);
        let statements = world.evidence(&before);
        let forward = world.deploy(&before, statements);
        refused(world, &forward, "revoked");
        let order = world.order("shop", OrderKind::back(before.digest, "because"));
        refused(world, &shot(&order, Vec::new()), "revoked");
    })
    .own(),
    Attack::shots("a32-unknown-fields", Outcome::Dropped, "orders with a plan, a command, an environment for steps in them; without a format; with an id that is a path", |world| {
        let honest = changed(world, |_| {}).remove(0);
        let text = String::from_utf8(honest.order.document.to_vec()).unwrap();
        let id = format!("\"id\":\"{}\"", honest.id);
        assert!(text.contains(&id));
        [
            text.replacen("\"force\":", "\"run\":[\"sh\"],\"force\":", 1),
            text.replacen("\"force\":", "\"params\":{\"path\":\"x\"},\"force\":", 1),
            text.replacen('{', "{\"env\":{\"LD_PRELOAD\":\"x\"},", 1),
            text.replacen("consign-order-v1", "consign-order-v2", 1),
            text.replacen(&id, "\"id\":\"../../etc/passwd\"", 1),
            text.replacen(&id, "\"id\":\"\"", 1),
            text.replacen('{', "{\"id\":\"x\",", 1),
            format!("{text}x"),
            "{}".into(),
        ]
        .map(|text| {
            let mut shot = honest.clone();
            shot.order.document = text.into_bytes().into();
            shot
        })
        .into()
    }),
    Attack::free("query-executes-nothing", Outcome::Nothing, "a question about an honest order, in place of the order", |world| {
        let before = world.snapshot();
        let order = changed(world, |_| {}).remove(0);
        world.say(consign_proto::v1::coordinator_message::Kind::Query(consign_proto::v1::Query {
            id: "q".into(),
            order: Some(order.order.clone()),
        }));
        let steps = world.hear("the answer", |said| match said {
            consign_proto::v1::agent_message::Kind::Answer(answer) => Some(answer.steps.len()),
            _ => None,
        });
        assert_eq!(steps, 3);
        before.assert_same(&world.snapshot(), "afterwards");
        assert_eq!(world.journalled(&order.id), None);
    }),
];

/// An honest order, but for this.
fn changed(world: &mut World, change: impl FnOnce(&mut Order)) -> Vec<Shot> {
    let artifact = world.artifact();
    let statements = world.evidence(&artifact);
    let mut order = world.order("shop", OrderKind::deploy(artifact.digest, false));
    change(&mut order);
    vec![shot(&order, statements)]
}

pub(super) fn refused(world: &mut World, order: &Shot, code: &str) {
    let before = world.snapshot();
    world.send(order);
    assert_eq!(world.refusal_of(order), code);
    assert_eq!(world.journalled(&order.id).as_deref(), Some(code));
    before.assert_same(&world.snapshot(), "afterwards");
}

/// A return to what this server says is the artifact before.
pub(super) fn back(world: &mut World) -> Shot {
    world.line.hang_up();
    let hello = world.session();
    let before = hello.apps.iter().find(|app| app.app == "shop").unwrap().before.parse().unwrap();
    let order = world.order("shop", OrderKind::back(before, "because"));
    shot(&order, Vec::new())
}
