//! Who there is: owners with fixed keys, so that what is signed is the same in every run.

use std::{collections::BTreeMap, fmt::Debug, str::FromStr, sync::LazyLock};

use consign_common::{
    digest::Sha256,
    time::UnixMs,
    trust::{
        AppTrust, CoordinatorPin, Envelope, Gate, GateRule, Key, OrderingNumber, RoleKeys, Scheme,
        Separation, Signature, SigningKey, TrustRoot, pae, sshsig,
    },
};
use ring::signature::{Ed25519KeyPair, KeyPair};

pub(super) const NOW: UnixMs = UnixMs(1_767_225_600_000);
pub(super) const COORDINATOR: &str = "c0ffee";

pub(super) struct Owners {
    /// Of the golden files.
    pub(super) alice: SigningKey,
    /// Publishes, also in the golden files.
    pub(super) ci: SigningKey,
    /// Signs as OpenSSH does.
    pub(super) carol: SigningKey,
    /// Alice's, too.
    pub(super) second: SigningKey,
    /// In no trust root.
    pub(super) stranger: SigningKey,
}

pub(super) static OWNERS: LazyLock<Owners> =
    LazyLock::new(|| Owners { alice: key(1), ci: key(2), carol: key(3), second: key(4), stranger: key(9) });

fn key(seed: u8) -> SigningKey {
    let seed = [seed; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    SigningKey::from_halves(&seed, pair.public_key().as_ref().try_into().unwrap()).unwrap()
}

pub(super) fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(super) fn entry(key: &SigningKey, owner: &str, scheme: Scheme) -> (Sha256, Key) {
    (key.public().id(), Key { scheme, public: key.public().to_base64(), owner: name(owner) })
}

pub(super) fn role(threshold: u32, of: &[&SigningKey]) -> RoleKeys {
    RoleKeys { keys: of.iter().map(|key| key.public().id()).collect(), threshold }
}

pub(super) fn number(ms: u64) -> OrderingNumber {
    OrderingNumber { epoch: 1, ms: UnixMs(ms) }
}

/// By keys of the scheme ed25519, and by Carol.
pub(super) fn signed(payload_type: &str, payload: &[u8], by: &[&SigningKey]) -> Envelope {
    let mut envelope = Envelope::unsigned(payload_type, payload.to_vec());
    for key in by {
        if key.public() == OWNERS.carol.public() {
            let message = pae(payload_type, payload);
            let signature = key.sign(&sshsig::to_sign(&message));
            envelope.add(Signature {
                key_id: key.public().id().to_string(),
                bytes: sshsig::blob(&key.public(), &signature),
            });
        } else {
            envelope.add_signature(key);
        }
    }
    envelope
}

/// `staging`: the publisher is enough. `production`: Alice approves, and a test result that CI signed has passed.
/// `vault`: Alice and Carol, neither of whom may have published.
pub(super) static ROOT: LazyLock<TrustRoot> = LazyLock::new(|| {
    let Owners { alice, ci, carol, second, .. } = &*OWNERS;
    let rule = |predicate: &str, role: &str, threshold, condition: Option<&str>| GateRule {
        predicate: predicate.into(),
        role: name(role),
        threshold,
        condition: condition.map(Into::into),
    };
    let approval = |role, threshold| rule("consign:approval/v1", role, threshold, None);
    let result = "https://in-toto.io/attestation/test-result/v0.1";
    let gate = |require, rearm, separation| Gate::Statements { require, rearm, separation };
    let production = gate(
        vec![approval("owners", 1), rule(result, "qa", 1, Some("predicate.result == 'PASSED'"))],
        vec![approval("owners", 1)],
        Separation::None,
    );
    let root = TrustRoot {
        version: 1,
        issued: UnixMs(1),
        expires: UnixMs(NOW.0 * 2),
        keys: BTreeMap::from([
            entry(alice, "alice", Scheme::Ed25519),
            entry(ci, "ci", Scheme::Ed25519),
            entry(carol, "carol", Scheme::Sshsig),
            entry(second, "alice", Scheme::Ed25519),
        ]),
        root: role(1, &[alice]),
        roles: BTreeMap::from([
            (name("owners"), role(1, &[alice, second])),
            (name("qa"), role(1, &[ci])),
            (name("both"), role(2, &[alice, carol, second])),
        ]),
        apps: BTreeMap::from([(
            name("shop"),
            AppTrust { publishers: role(1, &[ci]), epoch: 1, floor: number(0), config: Some(name("owners")) },
        )]),
        environments: BTreeMap::from([
            (name("staging"), Gate::PublisherOnly {}),
            (name("production"), production),
            (name("vault"), gate(vec![approval("both", 2)], vec![], Separation::All)),
        ]),
        coordinators: vec![CoordinatorPin { id: COORDINATOR.into(), ca_sha256: Sha256::of(b"ca") }],
        revoked: vec![Sha256::of(b"a bad artifact")],
        enrolment: None,
    };
    root.check().unwrap();
    root
});
