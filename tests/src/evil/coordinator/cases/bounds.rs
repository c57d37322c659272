//! Floods and giants: the agent keeps its bounds, and serves on.

use std::fs;

use consign_common::{
    limits::{PLAN_DOCUMENT_BYTES, SEALED_BYTES},
    trust::OrderKind,
};
use consign_proto::v1::{EventAck, Resend, TrustRoots, coordinator_message::Kind, resend};

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    world::{Shot, World, shot},
};

/// Orders in the flood: more than are kept.
const FLOOD: usize = 1200;
/// What the agent's memory may grow by, KiB.
const GROWTH_KIB: u64 = 64 << 10;

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused(
        "giant-statement",
        "malformed",
        "a statement of more than 256 KiB; one of 200 KiB of opening brackets",
        |world| {
            let honest = honest(world);
            let mut long = honest.clone();
            long.order.statements.push(vec![b' '; (256 << 10) + 1].into());
            let mut deep = self::honest(world);
            deep.order.statements.push(vec![b'['; 200 << 10].into());
            vec![long, deep]
        },
    ),
    Attack::shots(
        "giant-order",
        Outcome::Dropped,
        "an order document of more than 64 KiB; one of 60 KiB of opening brackets",
        |world| {
            let honest = honest(world);
            let with = |bytes: Vec<u8>| {
                let mut shot = honest.clone();
                shot.order.document = bytes.into();
                shot
            };
            let mut long = honest.order.document.to_vec();
            long.resize((64 << 10) + 1, b' ');
            vec![with(long), with(vec![b'['; 60 << 10])]
        },
    ),
    Attack::shots("too-many-statements", Outcome::SessionEnds, "an order with 33 statements", |world| {
        let mut shot = honest(world);
        shot.order.statements = vec![shot.order.statements[0].clone(); 33];
        vec![shot]
    }),
    Attack::shots(
        "giant-plan-document",
        Outcome::SessionEnds,
        "an order with a plan document of more than 2 MiB",
        |world| {
            let mut shot = honest(world);
            shot.order.plan = vec![b'x'; PLAN_DOCUMENT_BYTES + 1].into();
            vec![shot]
        },
    )
    .own(),
    Attack::shots(
        "giant-sealed",
        Outcome::SessionEnds,
        "an order with more than 256 KiB that is sealed",
        |world| {
            let mut shot = honest(world);
            shot.order.sealed = vec![b'x'; SEALED_BYTES + 1].into();
            vec![shot]
        },
    )
    .own(),
    Attack::shots("giant-message", Outcome::SessionEnds, "a message of 64 MiB", |world| {
        let mut shot = honest(world);
        shot.order.plan = vec![b'x'; 64 << 20].into();
        vec![shot]
    })
    .own(),
    Attack::free(
        "flood-of-refused-orders",
        Outcome::Refused("wrong-server"),
        "1200 orders for another server, as fast as they go, each with statements of 32 KiB",
        |world| {
            let kib = resident_kib(world);
            let padding = vec![vec![b'x'; 8 << 10]; 4];
            let order = world.order("shop", OrderKind::Cancel { reason: "x".repeat(1000) });
            let mut last = None;
            for _ in 0..FLOOD {
                let order = consign_common::trust::Order {
                    id: world.id(),
                    server: "web-2".parse().unwrap(),
                    ..order.clone()
                };
                let flood = shot(&order, padding.clone());
                world.send(&flood);
                last = Some(flood);
            }
            assert_eq!(world.refusal_of(&last.unwrap()), "wrong-server");
            let kept = world.orders_kept();
            assert!(kept <= 1100, "{kept} orders are kept");
            let grown = resident_kib(world).saturating_sub(kib);
            assert!(grown < GROWTH_KIB, "the agent has grown by {grown} KiB");
        },
    )
    .own(),
    Attack::free(
        "acknowledgements-of-nothing",
        Outcome::Nothing,
        "acknowledgements of events that have not happened, and a demand to send all again",
        |world| {
            let deployment = world.id().to_string();
            let before = world.snapshot();
            for sequence in [1, u64::MAX] {
                world.say(Kind::EventAck(EventAck { deployment: deployment.clone(), sequence }));
            }
            let lost = Some(resend::Lost::EventsAfter(0));
            world.say(Kind::Resend(Resend { deployment, lost }));
            world.say(Kind::TrustRoots(TrustRoots::default()));
            world.hear("the trust root in force", |said| match said {
                consign_proto::v1::agent_message::Kind::TrustRootTaken(_) => Some(()),
                _ => None,
            });
            before.assert_same(&world.snapshot(), "afterwards");
        },
    ),
];

fn honest(world: &mut World) -> Shot {
    let artifact = world.artifact();
    let statements = world.evidence(&artifact);
    world.deploy(&artifact, statements)
}

fn resident_kib(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
