//! Trust roots that do not follow: A10, A12, A33.

use std::time::Duration;

use consign_common::{
    digest::Sha256,
    limits::ROLE_KEYS,
    name::Environment,
    trust::{Gate, Key, RoleKeys, Scheme, SigningKey, TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE, TrustRoot},
};

use super::orders::{back, refused};
use crate::evil::coordinator::{
    attack::{Attack, Outcome},
    authority::{now, owners},
    tamper::{malleate, tampered},
    world::World,
};

pub(in crate::evil::coordinator) const ATTACKS: &[Attack] = &[
    Attack::root("a33-gap", "does not follow", "version N + 2 without N + 1; the last version there can be", |world| {
        let version = world.root.version;
        [version + 2, u64::MAX]
            .map(|version| vec![signed(world, |root| root.version = version)])
            .into()
    }),
    Attack::root("a33-not-signed-by-the-one-before", "sign", "version N + 1 signed by nobody, by a stranger, by those who approve and publish, by the new root key alone", |world| {
        let next = world.next_root();
        let unsigned = tampered(&world.authority.sign_root(&next, &["alice"]), |parts| parts.signatures.clear());
        let new_key = with_root_key(world, "alice-next");
        let eves = with_root_key(world, "eve");
        vec![
            vec![unsigned],
            vec![world.authority.sign_root(&next, &["eve"])],
            vec![world.authority.sign_root(&next, &["pat", "paul", "ci", "quinn", "carl", "erin"])],
            vec![world.authority.sign_root(&new_key, &["alice-next"])],
            vec![world.authority.sign_root(&eves, &["eve"])],
        ]
    }),
    Attack::root("a33-not-signed-by-itself", "signed", "version N + 1 with a new root key, signed by the old one alone", |world| {
        let next = with_root_key(world, "alice-next");
        vec![vec![world.authority.sign_root(&next, &["alice"])]]
    }),
    Attack::root("a33-equal-or-lower", "does not follow", "another document of the version in force, with an open gate, signed by the owner", |world| {
        let version = world.root.version;
        vec![vec![signed(world, |root| {
            root.version = version;
            root.environments.insert("production".parse().unwrap(), Gate::PublisherOnly {});
        })]]
    }),
    Attack::free("a33-older-again", Outcome::Nothing, "the versions that were in force before, as they were signed; in place of one of them another document of its version, signed by the owner", |world| {
        let of = |world: &World| world.authority.sign_root(&world.root, &["alice"]);
        let first = of(world);
        world.take_root(|root| root.revoked = vec![Sha256::of(b"what has a hole")]);
        let second = of(world);
        world.take_root(|root| root.expires.0 += 1);
        let version = world.root.version;
        let before = world.snapshot();
        // What it has already is no news, and nothing is taken back by it.
        for chain in [vec![first.clone()], vec![second.clone()], vec![second, first]] {
            assert_eq!(world.offer(chain), (version, String::new()));
        }
        for older in [version - 2, version - 1] {
            let other = signed(world, |root| {
                root.version = older;
                root.revoked.clear();
                root.environments.insert("production".parse().unwrap(), Gate::PublisherOnly {});
            });
            let (now, error) = world.offer(vec![other]);
            assert_eq!(now, version);
            assert!(error.contains("does not follow"), "{error}");
        }
        before.assert_same(&world.snapshot(), "afterwards");
    })
    .own(),
    Attack::root("a09-root-malformed", "trust root cannot be read", "version N + 1, signed by the owner, that is malformed: unknown fields, duplicate keys at every depth, float, exponent, a number of 2^64, trailing bytes, BOM, depth 10000, invalid UTF-8, nothing", |world| {
        let payload = String::from_utf8(world.next_root().to_payload()).unwrap();
        let replaced = |from: &str, to: &str| {
            assert!(payload.contains(from), "{from} in {payload}");
            payload.replacen(from, to, 1).into_bytes()
        };
        let version = format!("\"version\":{}", world.root.version + 1);
        let deep = format!("{{\"x\":{}{},", "[".repeat(10_000), "]".repeat(10_000));
        let malformed = vec![
            payload.replacen('{', "{\"more\":true,", 1).into_bytes(),
            replaced("\"root\":{", "\"root\":{\"more\":true,"),
            replaced(&version, &format!("{version},{version}")),
            replaced("\"threshold\":1", "\"threshold\":1,\"threshold\":1"),
            // Of a map with names for keys, too: two gates of one environment.
            replaced("\"environments\":{", "\"environments\":{\"production\":{\"gate\":\"publisher-only\"},"),
            replaced(&version, &format!("{version}.0")),
            replaced(&version, &format!("{version}e0")),
            replaced(&version, "\"version\":18446744073709551616"),
            replaced(&version, "\"version\":-1"),
            payload.replacen('{', &deep, 1).into_bytes(),
            format!("{payload}{{}}").into_bytes(),
            format!("{payload}x").into_bytes(),
            [b"\xef\xbb\xbf", payload.as_bytes()].concat(),
            [payload.as_bytes(), b"\xff"].concat(),
            b"{}".to_vec(),
            Vec::new(),
        ];
        let sign = |payload| vec![world.authority.envelope(TRUST_ROOT_V2_TYPE, payload, &["alice"])];
        malformed.into_iter().map(sign).collect()
    }),
    Attack::root("a05-root-keys-doubled", "", "version N + 1, signed by the owner, with a key listed twice in a role, under another id, a coordinator listed twice, an artifact revoked twice, more keys in a role than there may be", |world| {
        let owners = owners();
        let pat = world.authority.id_of("pat");
        let (_, key) = world.authority.entry("pat");
        let pin = world.root.coordinators[0].clone();
        let doubled = Sha256::of(b"revoked");
        vec![
            signed(world, |root| root.roles.get_mut(&owners).unwrap().keys.push(pat)),
            signed(world, |root| root.root.keys.push(root.root.keys[0])),
            signed(world, |root| {
                root.keys.insert(Sha256::of(b"another id"), key);
            }),
            signed(world, |root| root.coordinators.push(pin)),
            signed(world, |root| root.revoked = vec![doubled, doubled]),
            signed(world, |root| {
                let many = (0..=ROLE_KEYS).map(|n| {
                    let public = SigningKey::generate().unwrap().public();
                    let owner = format!("many-{n}").parse().unwrap();
                    (public.id(), Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner })
                });
                let many: Vec<(Sha256, Key)> = many.collect();
                root.roles.get_mut(&owners).unwrap().keys.extend(many.iter().map(|(id, _)| *id));
                root.keys.extend(many);
            }),
        ]
        .into_iter()
        .map(|envelope| vec![envelope])
        .collect()
    }),
    Attack::root("a33-flipped", "", "version N + 1 with a bit of its body or signature flipped, or with S + L", |world| {
        let honest = signed(world, |_| {});
        let length = crate::evil::coordinator::tamper::Parts::of(&honest).payload.len();
        let mut all: Vec<Vec<Vec<u8>>> = (0..16)
            .map(|place| vec![tampered(&honest, |parts| parts.payload[place * (length - 1) / 15] ^= 1)])
            .collect();
        all.extend((0..64).map(|at| vec![tampered(&honest, |parts| parts.signatures[0].1[at] ^= 1)]));
        all.push(vec![tampered(&honest, |parts| malleate(&mut parts.signatures[0].1))]);
        all
    }),
    Attack::root("a07-root-of-another-type", "", "version N + 1 signed as a statement, and as the other version of the type", |world| {
        let payload = world.next_root().to_payload();
        let statement = consign_common::trust::STATEMENT_TYPE;
        [statement, TRUST_ROOT_TYPE]
            .map(|payload_type| vec![world.authority.envelope(payload_type, payload.clone(), &["alice"])])
            .into_iter()
            .filter(|_| world.next_root().payload_type() == TRUST_ROOT_V2_TYPE)
            .collect()
    }),
    Attack::root("a10-weak-keys", "key", "version N + 1, signed by the owner, with public keys of small order or in no canonical form", |world| {
        let weak: [[u8; 32]; 4] = [
            [0; 32],
            std::array::from_fn(|at| u8::from(at == 0)),
            // The prime less 1, and the prime plus 1, which is 1 in another spelling.
            std::array::from_fn(|at| match at { 0 => 0xec, 31 => 0x7f, _ => 0xff }),
            std::array::from_fn(|at| match at { 0 => 0xee, 31 => 0x7f, _ => 0xff }),
        ];
        weak.map(|raw| {
            let id = Sha256::of(&raw);
            let public = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, raw);
            vec![signed(world, |root| {
                let key = Key { scheme: Scheme::Ed25519, public, owner: "eve".parse().unwrap() };
                root.keys.insert(id, key);
                root.roles.get_mut(&owners()).unwrap().keys.push(id);
            })]
        })
        .into()
    }),
    Attack::root("a12-thresholds", "", "version N + 1, signed by the owner, with a threshold of 0, or above the number of owners, for a role, for the root, in a gate; a gate that requires nothing, or names no role", |world| {
        let production = || -> Environment { "production".parse().unwrap() };
        let gate = |root: &mut TrustRoot, change: fn(&mut Vec<consign_common::trust::GateRule>)| {
            let Some(Gate::Statements { require, .. }) = root.environments.get_mut(&production()) else { panic!() };
            change(require);
        };
        vec![
            vec![signed(world, |root| root.roles.get_mut(&owners()).unwrap().threshold = 0)],
            vec![signed(world, |root| root.roles.get_mut(&owners()).unwrap().threshold = 6)],
            vec![signed(world, |root| root.root.threshold = 0)],
            vec![signed(world, |root| root.root.threshold = 2)],
            vec![signed(world, |root| gate(root, |rules| rules[0].threshold = 0))],
            vec![signed(world, |root| gate(root, |rules| rules[0].threshold = 9))],
            vec![signed(world, |root| gate(root, Vec::clear))],
            vec![signed(world, |root| gate(root, |rules| rules[0].role = "nobody".parse().unwrap()))],
            vec![signed(world, |root| gate(root, |rules| rules[1].condition = Some("predicate.".into())))],
            vec![signed(world, |root| root.root.keys.clear())],
        ]
    }),
    Attack::root("a33-many", "", "five hundred envelopes of a stranger's at once", |world| {
        let eves = world.authority.sign_root(&world.next_root(), &["eve"]);
        vec![vec![eves; 500]]
    }),
    Attack::root("giant-trust-root", "", "a trust root of more than 1 MiB", |world| {
        let honest = signed(world, |_| {});
        let mut padded = honest;
        padded.resize((1 << 20) + 1, b' ');
        vec![vec![padded], vec![vec![b'['; 1 << 20]], vec![Vec::new()]]
    }),
    Attack::free("a33-rotation", Outcome::Remains("a root key changes only where the old and the new one have signed; afterwards the old one is worth nothing"), "version N + 1 by both root keys, then N + 2 by the old one", |world| {
        let next = with_root_key(world, "alice-next");
        let both = world.authority.sign_root(&next, &["alice", "alice-next"]);
        assert_eq!(world.offer(vec![both]), (next.version, String::new()));
        world.root = next;
        let after = world.next_root();
        let (version, error) = world.offer(vec![world.authority.sign_root(&after, &["alice"])]);
        assert_eq!(version, world.root.version);
        assert!(error.contains("signed"), "{error}");
    })
    .own(),
    Attack::free("a33-expired", Outcome::Refused("trust-root-expired"), "an honest order after the newest trust root has expired; the way back needs none", |world| {
        world.honest();
        world.take_root(|root| {
            root.issued = consign_common::time::UnixMs(now().0 - 3000);
            root.expires = consign_common::time::UnixMs(now().0 - 1000);
        });
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        let order = world.deploy(&artifact, statements);
        refused(world, &order, "trust-root-expired");
        let back = back(world);
        let outcome = world.run(&back);
        assert_eq!(outcome.as_str(), "succeeded", "{outcome:?}");
        world.failed = Some(crate::evil::coordinator::world::Failed);
        world.take_root(|root| root.expires = now().plus(Duration::from_secs(3600)));
    })
    .own(),
    Attack::free("a33-removed-key", Outcome::Refused("approval-missing"), "approvals by a key that the next trust root takes out, signed before that", |world| {
        let artifact = world.artifact();
        let statements = world.evidence(&artifact);
        let paul = world.authority.id_of("paul");
        world.take_root(|root| {
            root.roles.get_mut(&owners()).unwrap().keys.retain(|id| *id != paul);
        });
        let order = world.deploy(&artifact, statements);
        refused(world, &order, "approval-missing");
        let (id, key) = world.authority.entry("paul");
        world.take_root(|root| {
            root.keys.insert(id, key);
            root.roles.get_mut(&owners()).unwrap().keys.push(id);
        });
    })
    .own(),
];

/// Version N + 1 with this change, rightly signed by the owner.
fn signed(world: &World, change: impl FnOnce(&mut TrustRoot)) -> Vec<u8> {
    let mut next = world.next_root();
    change(&mut next);
    world.authority.sign_root(&next, &["alice"])
}

fn with_root_key(world: &World, name: &str) -> TrustRoot {
    let mut next = world.next_root();
    let (id, key) = world.authority.entry(name);
    next.keys.insert(id, key);
    next.root = RoleKeys { keys: vec![id], threshold: 1 };
    next
}
