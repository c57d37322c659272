//! What root on the server does not allow, whatever anybody signed; and who may talk to it at all.

use std::time::Duration;

use consign_common::trust::OrderKind;

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    authority::NEXT_COORDINATOR,
    world::{STEPS, Setting, World, shot},
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused(
        "app-not-allowed",
        "app-not-allowed",
        "an artifact of an app that the server does not take, rightly published",
        |world| {
            let artifact = world.artifact_of("blog", STEPS);
            let statements = vec![world.published(&artifact, "blogger")];
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::refused(
        "user-not-allowed",
        "user-not-allowed",
        "a step as a user that the app may not use, signed and approved by everybody",
        |world| {
            let artifact = world.artifact_of(
                "shop",
                &format!("[[step]]\nname = \"one\"\nshell = \"true\"\nuser = \"daemon\"\n{STEPS}"),
            );
            let statements = world.evidence(&artifact);
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::refused(
        "unit-not-allowed",
        "unit-not-allowed",
        "a step on a unit that the app may not touch, signed and approved by everybody",
        |world| {
            let artifact = world.artifact_of(
                "shop",
                &format!("{STEPS}[[step]]\nname = \"one\"\nsystemd = {{ restart = \"ssh.service\" }}\n"),
            );
            let statements = world.evidence(&artifact);
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::refused(
        "app-unknown",
        "app-not-allowed",
        "an order for an app that nobody has heard of",
        |world| {
            let artifact = world.artifact_of("ghost", STEPS);
            let statements = vec![world.published(&artifact, "ci")];
            let order = world.order("ghost", OrderKind::deploy(artifact.digest, false));
            vec![shot(&order, statements)]
        },
    ),
    Attack::alone(
        "coordinator-not-named",
        Outcome::NoSession,
        "a certificate of the right CA for a coordinator that the trust root does not name",
        || {
            let mut world = World::idle(Setting { identity: NEXT_COORDINATOR, ..Setting::USUAL });
            assert!(world.session_within(Duration::from_secs(2)).is_none());
            let log = world.agent.log();
            assert!(log.contains("does not name"), "{log}");
            assert_eq!(world.current(), None);
        },
    ),
];
