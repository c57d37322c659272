//! Envelopes and signatures: A01 to A15, as far as they come with an order.

use consign_common::trust::{Predicate, STATEMENT_TYPE, TRUST_ROOT_TYPE, pae};

use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    tamper::{Parts, malleate, tampered},
    world::{Artifact, Shot, World},
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::refused(
        "a01-publication-unsigned",
        "signature-missing",
        "the publication without its signature",
        |world| {
            with_publication(world, |publication| {
                vec![tampered(&publication, |parts| parts.signatures.clear())]
            })
        },
    ),
    Attack::refused(
        "a01-approvals-unsigned",
        "approval-missing",
        "approvals without their signatures",
        |world| {
            with_approvals(world, |_, approvals| {
                let strip = |approval: &Vec<u8>| tampered(approval, |parts| parts.signatures.clear());
                vec![approvals.iter().map(strip).collect()]
            })
        },
    ),
    Attack::refused(
        "a02-flipped-body",
        "signature-invalid",
        "the publication with one bit of its body flipped, at 32 places",
        |world| {
            with_publication(world, |publication| {
                let length = Parts::of(&publication).payload.len();
                let places = (0..32).map(|at| at * (length - 1) / 31);
                places.map(|at| tampered(&publication, |parts| parts.payload[at] ^= 1 << (at % 8))).collect()
            })
        },
    ),
    Attack::refused(
        "a02-flipped-signature",
        "signature-invalid",
        "the publication with one bit of its signature flipped, at every byte",
        |world| {
            with_publication(world, |publication| {
                (0..64)
                    .map(|at| tampered(&publication, |parts| parts.signatures[0].1[at] ^= 1 << (at % 8)))
                    .collect()
            })
        },
    ),
    Attack::refused(
        "a02-flipped-type",
        "statement-missing",
        "the publication with one letter of its payload type changed",
        |world| {
            with_publication(world, |publication| {
                let last = STATEMENT_TYPE.len() - 1;
                let flip = |at: usize| {
                    tampered(&publication, |parts| {
                        let letter = if parts.payload_type.as_bytes()[at] == b'x' { "y" } else { "x" };
                        parts.payload_type.replace_range(at..=at, letter);
                    })
                };
                vec![flip(0), flip(last / 2), flip(last)]
            })
        },
    ),
    Attack::refused(
        "a02-flipped-approval",
        "approval-missing",
        "approvals with one bit of body or signature flipped",
        |world| {
            with_approvals(world, |_, approvals| {
                let flip = |change: fn(&mut Parts)| {
                    approvals.iter().map(|approval| tampered(approval, change)).collect()
                };
                vec![
                    flip(|parts| parts.payload[40] ^= 1),
                    flip(|parts| *parts.payload.last_mut().unwrap() ^= 2),
                    flip(|parts| parts.signatures[0].1[0] ^= 1),
                    flip(|parts| parts.signatures[0].1[63] ^= 1),
                ]
            })
        },
    ),
    Attack::refused(
        "a03-publication-by-unknown-key",
        "signature-invalid",
        "a publication by a key that the trust root does not have",
        |world| {
            let artifact = world.artifact();
            let own = world.published(&artifact, "eve");
            vec![with(world, &artifact, own)]
        },
    ),
    Attack::refused(
        "a03-approvals-by-unknown-key",
        "approval-missing",
        "approvals by a key that the trust root does not have, also under the ids of keys that it has",
        |world| {
            let artifact = world.artifact();
            let by_eve = world.approved(&artifact, "eve");
            let posing = |name: &str| {
                tampered(&by_eve, |parts| parts.signatures[0].0 = world.authority.id_of(name).to_string())
            };
            let posing = vec![posing("pat"), posing("paul")];
            [vec![by_eve.clone()], posing]
                .map(|approvals| {
                    let statements = world.evidence_with(&artifact, approvals);
                    world.deploy(&artifact, statements)
                })
                .into()
        },
    ),
    Attack::refused(
        "a04-publication-by-approver",
        "signature-invalid",
        "a publication by a product owner, by QA, by the root key",
        |world| {
            ["pat", "quinn", "alice", "carl"]
                .map(|by| {
                    let artifact = world.artifact();
                    let own = world.published(&artifact, by);
                    with(world, &artifact, own)
                })
                .into()
        },
    ),
    Attack::refused(
        "a04-approvals-by-others",
        "approval-missing",
        "approvals by QA, the root key, who keeps the config, who enrols",
        |world| {
            [["quinn", "alice"], ["carl", "erin"], ["rita", "blogger"]]
                .map(|pair| {
                    let artifact = world.artifact();
                    let approvals = pair.map(|by| world.approved(&artifact, by)).into();
                    let statements = world.evidence_with(&artifact, approvals);
                    world.deploy(&artifact, statements)
                })
                .into()
        },
    ),
    Attack::refused(
        "a04-test-result-by-others",
        "gate-unmet",
        "a passed test signed by product owners and by the publisher",
        |world| {
            let artifact = world.artifact();
            let mut statements = world.approvals(&artifact, |_| {});
            statements.push(world.published(&artifact, "ci"));
            statements.extend(["pat", "paul", "ci", "alice"].map(|by| world.tested(&artifact, by, "PASSED")));
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::refused(
        "a05-one-signature-often",
        "approval-missing",
        "one approval with its signature listed many times, under several key ids, in several envelopes",
        |world| {
            let artifact = world.artifact();
            let one = world.approved(&artifact, "pat");
            let ids: Vec<String> =
                ["pat", "pat-2", "paul", "eve"].map(|name| world.authority.id_of(name).to_string()).into();
            let often = tampered(&one, |parts| {
                let signature = parts.signatures[0].1.clone();
                parts
                    .signatures
                    .extend(ids.into_iter().chain([String::new()]).map(|id| (id, signature.clone())));
            });
            [vec![often], vec![one.clone(), one.clone(), one]]
                .map(|approvals| {
                    let statements = world.evidence_with(&artifact, approvals);
                    world.deploy(&artifact, statements)
                })
                .into()
        },
    ),
    Attack::refused(
        "a06-two-keys-of-one-owner",
        "approval-missing",
        "a threshold of two met by one owner with two keys: in two envelopes, and in one",
        |world| {
            let artifact = world.artifact();
            let apart = vec![world.approved(&artifact, "pat"), world.approved(&artifact, "pat-2")];
            let approval = world.approval();
            let together = vec![world.authority.statement(
                &["pat", "pat-2"],
                artifact.digest,
                Predicate::Approval(approval),
            )];
            [apart, together]
                .map(|approvals| {
                    let statements = world.evidence_with(&artifact, approvals);
                    world.deploy(&artifact, statements)
                })
                .into()
        },
    ),
    Attack::refused(
        "a07-signature-under-another-type",
        "approval-missing",
        "approvals signed as another payload type, or over the bytes without the type",
        |world| {
            with_approvals(world, |world, approvals| {
                let signed = |message: fn(&[u8]) -> Vec<u8>| {
                    let by = ["pat", "paul"];
                    let again = |(approval, name): (&Vec<u8>, &str)| {
                        tampered(approval, |parts| {
                            parts.signatures[0].1 = world.authority.raw(name, &message(&parts.payload));
                        })
                    };
                    approvals.iter().zip(by).map(again).collect()
                };
                vec![signed(|payload| pae(TRUST_ROOT_TYPE, payload)), signed(<[u8]>::to_vec)]
            })
        },
    ),
    Attack::refused(
        "a07-publication-of-another-type",
        "statement-missing",
        "a publication rightly signed as a trust root",
        |world| {
            with_publication_of(world, |world, publication| {
                let payload = Parts::of(&publication).payload;
                vec![world.authority.envelope(TRUST_ROOT_TYPE, payload, &["ci"])]
            })
        },
    ),
    Attack::refused(
        "a08-re-encoded",
        "signature-invalid",
        "the publication with the same meaning in other bytes: spaces, another order of keys",
        |world| {
            with_publication(world, |publication| {
                let again = |to: fn(&serde_json::Value) -> Vec<u8>| {
                    tampered(&publication, |parts| {
                        parts.payload = to(&serde_json::from_slice(&parts.payload).unwrap());
                    })
                };
                vec![
                    again(|value| serde_json::to_vec_pretty(value).unwrap()),
                    again(|value| serde_json::to_vec(value).unwrap()),
                    tampered(&publication, |parts| parts.payload.push(b'\n')),
                ]
            })
        },
    ),
    Attack::refused(
        "a09-a14-publication-malformed",
        "malformed",
        "a publication that its publisher signed and that is malformed: unknown field, duplicate key, float, exponent, trailing bytes, BOM, depth 10000, invalid UTF-8",
        |world| {
            with_publication_of(world, |world, publication| {
                malformed(&Parts::of(&publication).payload)
                    .into_iter()
                    .map(|payload| world.authority.envelope(STATEMENT_TYPE, payload, &["ci"]))
                    .collect()
            })
        },
    ),
    Attack::refused(
        "a09-a14-approvals-malformed",
        "approval-missing",
        "approvals that are rightly signed and malformed in the same ways",
        |world| {
            with_approvals(world, |world, approvals| {
                let of = |approval: &Vec<u8>| malformed(&Parts::of(approval).payload);
                let (by_pat, by_paul) = (of(&approvals[0]), of(&approvals[1]));
                let signed = |payload, by| world.authority.envelope(STATEMENT_TYPE, payload, &[by]);
                by_pat
                    .into_iter()
                    .zip(by_paul)
                    .map(|(a, b)| vec![signed(a, "pat"), signed(b, "paul")])
                    .collect()
            })
        },
    ),
    Attack::refused(
        "a11-malleated",
        "signature-invalid",
        "the publication with S + L in place of S in its signature",
        |world| {
            with_publication(world, |publication| {
                vec![tampered(&publication, |parts| malleate(&mut parts.signatures[0].1))]
            })
        },
    ),
    Attack::refused(
        "a13-no-statements",
        "statement-missing",
        "an order without statements; one without a publication",
        |world| {
            let artifact = world.artifact();
            let mut approvals = world.approvals(&artifact, |_| {});
            approvals.push(world.tested(&artifact, "quinn", "PASSED"));
            vec![world.deploy(&artifact, Vec::new()), world.deploy(&artifact, approvals)]
        },
    ),
    Attack::refused(
        "a15-evidence-of-another-artifact",
        "gate-unmet",
        "a passed test of another artifact",
        |world| {
            let (artifact, other) = (world.artifact(), world.artifact());
            let mut statements = world.approvals(&artifact, |_| {});
            statements.push(world.published(&artifact, "ci"));
            statements.push(world.tested(&other, "quinn", "PASSED"));
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::refused(
        "sshsig-for-git",
        "approval-missing",
        "an approval by an SSH key that was made in git's namespace",
        |world| {
            let artifact = world.artifact();
            let honest = world.approved(&artifact, "sue");
            let for_git = tampered(&honest, |parts| {
                parts.signatures[0].1 =
                    world.authority.ssh_for_git("sue", &pae(&parts.payload_type, &parts.payload));
            });
            let approvals = vec![world.approved(&artifact, "pat"), for_git];
            let statements = world.evidence_with(&artifact, approvals);
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::refused(
        "sshsig-without-its-frame",
        "approval-missing",
        "an approval by an SSH key over the bytes themselves, as if it were of the other scheme",
        |world| {
            let artifact = world.artifact();
            let honest = world.approved(&artifact, "sue");
            let bare = tampered(&honest, |parts| {
                parts.signatures[0].1 = world.authority.raw("sue", &pae(&parts.payload_type, &parts.payload));
            });
            let approvals = vec![world.approved(&artifact, "pat"), bare];
            let statements = world.evidence_with(&artifact, approvals);
            vec![world.deploy(&artifact, statements)]
        },
    ),
    Attack::free(
        "sshsig-in-its-namespace",
        Outcome::Remains("counts: the two attacks before it fail for their reason, and no other"),
        "an approval by an SSH key in consign's namespace",
        |world| {
            let artifact = world.artifact();
            let approvals = vec![world.approved(&artifact, "pat"), world.approved(&artifact, "sue")];
            let statements = world.evidence_with(&artifact, approvals);
            world.honest_with(&artifact, statements);
        },
    ),
];

/// Signed rightly, and not to be read.
fn malformed(payload: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8(payload.to_vec()).unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        text.replacen(from, to, 1).into_bytes()
    };
    let deep = format!("\"predicate\":{{\"x\":{}{},", "[".repeat(10_000), "]".repeat(10_000));
    vec![
        replaced("\"predicate\":{", "\"predicate\":{\"more\":true,"),
        replaced("{\"_type\"", "{\"more\":true,\"_type\""),
        replaced("\"epoch\":0", "\"epoch\":0,\"epoch\":0"),
        replaced("\"epoch\":0", "\"epoch\":0.0"),
        replaced("\"epoch\":0", "\"epoch\":0e3"),
        replaced("\"epoch\":0", "\"epoch\":-1"),
        replaced("\"predicate\":{", &deep),
        format!("{text} {{}}").into_bytes(),
        format!("{text}x").into_bytes(),
        [b"\xef\xbb\xbf", payload].concat(),
        [&replaced("\"name\":\"shop\"", "\"name\":\"@\"")[..]]
            .concat()
            .iter()
            .map(|byte| if *byte == b'@' { 0xff } else { *byte })
            .collect(),
    ]
}

fn with(world: &mut World, artifact: &Artifact, publication: Vec<u8>) -> Shot {
    let mut statements = world.approvals(artifact, |_| {});
    statements.push(world.tested(artifact, "quinn", "PASSED"));
    statements.push(publication);
    world.deploy(artifact, statements)
}

/// One order for each publication that is made of the honest one.
fn with_publication(world: &mut World, make: impl FnOnce(Vec<u8>) -> Vec<Vec<u8>>) -> Vec<Shot> {
    with_publication_of(world, |_, publication| make(publication))
}

fn with_publication_of(world: &mut World, make: impl FnOnce(&World, Vec<u8>) -> Vec<Vec<u8>>) -> Vec<Shot> {
    let artifact = world.artifact();
    let honest = world.published(&artifact, "ci");
    let all = make(world, honest);
    all.into_iter().map(|publication| with(world, &artifact, publication)).collect()
}

/// One order for each set of approvals that is made of the honest ones.
fn with_approvals(
    world: &mut World,
    make: impl FnOnce(&World, Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>>,
) -> Vec<Shot> {
    let artifact = world.artifact();
    let honest = world.approvals(&artifact, |_| {});
    let all = make(world, honest);
    all.into_iter()
        .map(|approvals| {
            let statements = world.evidence_with(&artifact, approvals);
            world.deploy(&artifact, statements)
        })
        .collect()
}
