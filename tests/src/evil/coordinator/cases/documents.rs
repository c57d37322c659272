//! Artifacts, packs, plans and plan documents that are not what was approved: A19, A30, A32.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    trust::{OrderKind, PlanDocument, Planned, PlannedStep},
};

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    authority::SERVER,
    world::{Artifact, STEPS, Shot, World, shot},
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused("a19-other-bytes-as-manifest", "manifest-digest", "an approved digest, and another manifest when the agent asks for it: another artifact's, one with one space more, nothing", |world| {
        let other = world.artifact();
        let bytes = |world: &World, artifact: &Artifact| world.line.manifests.lock().unwrap()[&artifact.digest].clone();
        let of_other = bytes(world, &other);
        type Change = fn(Vec<u8>, Vec<u8>) -> Vec<u8>;
        let changes: [Change; 3] =
            [|_, other| other, |mut own, _| { own.push(b' '); own }, |_, _| b"{}".to_vec()];
        changes
            .map(|change| {
                let artifact = world.artifact();
                let statements = world.evidence(&artifact);
                let own = bytes(world, &artifact);
                world.line.manifests.lock().unwrap().insert(artifact.digest, change(own, of_other.clone()));
                world.deploy(&artifact, statements)
            })
            .into()
    }),
    Attack::refused("a02-flipped-manifest", "manifest-digest", "an approved digest, and its manifest with one bit flipped, at 16 places", |world| {
        (0..16)
            .map(|place| {
                let artifact = world.artifact();
                let statements = world.evidence(&artifact);
                let mut manifests = world.line.manifests.lock().unwrap();
                let bytes = manifests.get_mut(&artifact.digest).unwrap();
                let at = place * (bytes.len() - 1) / 15;
                bytes[at] ^= 1;
                drop(manifests);
                world.deploy(&artifact, statements)
            })
            .collect()
    }),
    Attack::shots("pack-spoilt", Outcome::Ends("refused"), "an approved artifact whose pack has a flipped bit, which it has again when it is fetched again; the deployment is refused as `pack-mismatch`", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        let mut packs = world.line.packs.lock().unwrap();
        let pack = packs.get_mut(&artifact.digest).unwrap();
        let middle = pack.len() / 2;
        pack[middle] ^= 1;
        drop(packs);
        vec![world.deploy(&artifact, statements)]
    })
    .own(),
    Attack::refused("artifact-of-another-app", "malformed", "an order for one app with another's artifact, rightly published by its publisher", |world| {
        let artifact = world.artifact_of("blog", STEPS);
        let statements = vec![world.published(&artifact, "blogger")];
        let order = world.order("shop", OrderKind::deploy(artifact.digest, false));
        vec![shot(&order, statements)]
    }),
    Attack::refused("artifact-by-another-apps-publisher", "signature-invalid", "an artifact of the shop that the blog's publisher has signed, approved by everybody", |world| {
        let artifact = world.artifact();
        let mut statements = world.approvals(&artifact, |_| {});
        statements.push(world.tested(&artifact, "quinn", "PASSED"));
        statements.push(world.published(&artifact, "blogger"));
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("publication-of-another-artifact", "wrong-subject", "an artifact with the publication of another", |world| {
        let (artifact, other) = (world.artifact(), world.artifact());
        let mut statements = world.approvals(&artifact, |_| {});
        statements.push(world.tested(&artifact, "quinn", "PASSED"));
        statements.push(world.published(&other, "ci"));
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("publication-of-another-version", "wrong-subject", "a publication of these bytes as another version", |world| {
        let artifact = world.artifact();
        let mut statements = world.approvals(&artifact, |_| {});
        statements.push(world.tested(&artifact, "quinn", "PASSED"));
        statements.push(world.published(&Artifact { version: "9.9.9".into(), ..artifact.clone() }, "ci"));
        vec![world.deploy(&artifact, statements)]
    }),
    Attack::refused("a30-reserved-parameters", "plan-invalid", "a plan, signed and approved by everybody, with a parameter or a variable that the loader or a shell would listen to: LD_PRELOAD, PATH, BASH_ENV, CONSIGN_SERVER", |world| {
        let params = ["ld_preload", "path", "bash_env", "consign_server"]
            .map(|name| format!("[params.{name}]\ntype = \"string\"\ndefault = \"x\"\n{STEPS}"));
        let variables = ["LD_PRELOAD", "PATH", "BASH_ENV", "CONSIGN_SERVER"].map(|name| {
            format!("[[step]]\nname = \"one\"\nshell = \"true\"\nenv = {{ {name} = \"x\" }}\n{STEPS}")
        });
        params
            .into_iter()
            .chain(variables)
            .map(|plan| {
                let artifact = world.artifact_of("shop", &plan);
                let statements = world.evidence(&artifact);
                world.deploy(&artifact, statements)
            })
            .collect()
    }),
    Attack::refused("a32-plan-document-of-another-artifact", "plan-other", "the plan document of another artifact; one that does not have this server; one with other steps", |world| {
        let (artifact, other) = (world.artifact(), world.artifact());
        let honest = document(&artifact);
        let elsewhere = PlanDocument {
            servers: honest.servers.values().map(|planned| ("web-2".parse().unwrap(), planned.clone())).collect(),
            ..honest.clone()
        };
        let fewer = PlanDocument {
            servers: BTreeMap::from([(SERVER.parse().unwrap(), steps(&["activate"]))]),
            ..honest
        };
        [document(&other), elsewhere, fewer]
            .map(|document| {
                let statements = world.evidence(&artifact);
                planned(world, &artifact, statements, Some(&document))
            })
            .into()
    }),
    Attack::refused("a29-plan-document-withheld-or-swapped", "plan-not-approved", "approvals of a plan, and an order without a plan, or with another about the same artifact", |world| {
        let artifact = world.artifact();
        let shown = document(&artifact);
        let (config, _) = (None::<Sha256>, ());
        let mut swapped = PlanDocument { config, ..shown.clone() };
        swapped.servers.insert("web-9".parse().unwrap(), Planned::NoOp);
        [None, Some(swapped)]
            .map(|given| {
                let approvals = world.approvals(&artifact, |approval| approval.plan_sha256 = Some(shown.digest()));
                let statements = world.evidence_with(&artifact, approvals);
                planned(world, &artifact, statements, given.as_ref())
            })
            .into()
    }),
    Attack::refused("a32-plan-that-comes-out-otherwise", "plan-drift", "an approved plan that says that a step is left out, where it would run", |world| {
        let artifact = world.artifact();
        let mut shown = document(&artifact);
        let skip = |name: &str, step| (name.parse().unwrap(), step);
        let skipping = Planned::Steps(vec![
            skip("prepare", PlannedStep::Skip),
            skip("activate", PlannedStep::Run),
            skip("tell", PlannedStep::Run),
        ]);
        shown.servers.insert(SERVER.parse().unwrap(), skipping);
        let approvals = world.approvals(&artifact, |approval| approval.plan_sha256 = Some(shown.digest()));
        let statements = world.evidence_with(&artifact, approvals);
        vec![planned(world, &artifact, statements, Some(&shown))]
    }),
    Attack::refused("a32-plan-document-malformed", "malformed", "a plan document with another line, another order, no UTF-8", |world| {
        let artifact = world.artifact();
        let honest = document(&artifact).to_vec();
        [[&honest[..], b"x\n"].concat(), [b"\xff", &honest[..]].concat(), honest[..honest.len() - 1].to_vec()]
            .map(|bytes| {
                let statements = world.evidence(&artifact);
                let mut shot = world.deploy(&artifact, statements);
                shot.order.plan = bytes.into();
                shot
            })
            .into()
    }),
];

fn steps(names: &[&str]) -> Planned {
    Planned::Steps(names.iter().map(|name| (name.parse().unwrap(), PlannedStep::Run)).collect())
}

/// What an honest preview of an artifact with the usual steps says.
fn document(artifact: &Artifact) -> PlanDocument {
    PlanDocument {
        artifact: artifact.digest,
        config: None,
        servers: BTreeMap::from([(SERVER.parse().unwrap(), steps(&["prepare", "activate", "tell"]))]),
    }
}

fn planned(
    world: &mut World,
    artifact: &Artifact,
    statements: Vec<Vec<u8>>,
    document: Option<&PlanDocument>,
) -> Shot {
    let mut shot = world.deploy(artifact, statements);
    shot.order.plan = document.map(PlanDocument::to_vec).unwrap_or_default().into();
    shot
}
