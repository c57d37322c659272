//! Everybody whose signature counts for something on the attacked server, and the documents that they sign.

use std::{collections::BTreeMap, time::Duration};

use consign_common::{
    digest::Sha256,
    name::{App, Id, Owner},
    time::{Clock as _, SystemClock, UnixMs},
    tls::{Ca, Identity, Subject as Certified},
    trust::{
        APPROVAL, AppTrust, CoordinatorPin, Envelope, Gate, GateRule, Key, OrderingNumber, Predicate,
        RoleKeys, STATEMENT_TYPE, Scheme, Separation, Signature, SigningKey, Statement, Subject, TrustRoot,
        pae, sshsig,
    },
};

pub(super) const COORDINATOR: &str = "c0ffee";
/// Another identity of the same operator's, for what comes after a stolen one.
pub(super) const NEXT_COORDINATOR: &str = "decaf";
pub(super) const SERVER: &str = "web-1";
pub(super) const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
const DAYS_90: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Keys by a name of their own; most owners have one. `eve` is nobody.
const KEYS: [(&str, &str, Scheme); 13] = [
    ("alice", "alice", Scheme::Ed25519),
    ("ci", "ci", Scheme::Ed25519),
    ("blogger", "blogger", Scheme::Ed25519),
    ("pat", "pat", Scheme::Ed25519),
    ("pat-2", "pat", Scheme::Ed25519),
    ("paul", "paul", Scheme::Ed25519),
    ("sue", "sue", Scheme::Sshsig),
    ("quinn", "quinn", Scheme::Ed25519),
    ("rita", "rita", Scheme::Ed25519),
    ("carl", "carl", Scheme::Ed25519),
    ("erin", "erin", Scheme::Ed25519),
    ("alice-next", "alice", Scheme::Ed25519),
    ("eve", "eve", Scheme::Ed25519),
];

pub(super) struct Authority {
    pub(super) ca: Ca,
    keys: BTreeMap<&'static str, SigningKey>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let ca = Ca::generate(COORDINATOR, SystemClock.now()).unwrap();
        let keys = KEYS.iter().map(|(name, _, _)| (*name, SigningKey::generate().unwrap())).collect();
        Self { ca, keys }
    }

    pub(super) fn id_of(&self, name: &str) -> Sha256 {
        self.keys[name].public().id()
    }

    pub(super) fn role(&self, threshold: u32, names: &[&str]) -> RoleKeys {
        RoleKeys { keys: names.iter().map(|name| self.id_of(name)).collect(), threshold }
    }

    pub(super) fn entry(&self, name: &str) -> (Sha256, Key) {
        let (_, owner, scheme) = KEYS.iter().find(|(known, _, _)| *known == name).unwrap();
        let public = self.keys[name].public();
        let key = Key { scheme: *scheme, public: public.to_base64(), owner: owner.parse().unwrap() };
        (public.id(), key)
    }

    /// Production takes what two product owners have approved and QA has passed; after a failure rita, too. Whoever
    /// published counts for no rule. `ci` is a product owner as well, so that this matters.
    pub(super) fn root(&self) -> TrustRoot {
        let now = SystemClock.now();
        let named =
            KEYS.iter().map(|(name, _, _)| *name).filter(|name| !["eve", "alice-next"].contains(name));
        let rule = |predicate: &str, role: &str, threshold: u32, condition: Option<&str>| GateRule {
            predicate: predicate.into(),
            role: role.parse().unwrap(),
            threshold,
            condition: condition.map(str::to_owned),
        };
        let app = |publisher: &str, config: Option<&str>| AppTrust {
            publishers: self.role(1, &[publisher]),
            epoch: 0,
            floor: OrderingNumber::default(),
            config: config.map(|role| role.parse().unwrap()),
        };
        let gate = Gate::Statements {
            require: vec![
                rule(APPROVAL, "product-owners", 2, None),
                rule(TEST_RESULT, "qa", 1, Some("predicate.result == \"PASSED\"")),
            ],
            rearm: vec![rule(APPROVAL, "release-managers", 1, None)],
            separation: Separation::Publisher,
        };
        let pin = |id: &str| CoordinatorPin { id: id.into(), ca_sha256: self.ca.pin() };
        TrustRoot {
            version: 1,
            issued: now,
            expires: now.plus(DAYS_90 * 4),
            keys: named.map(|name| self.entry(name)).collect(),
            root: self.role(1, &["alice"]),
            roles: [
                ("product-owners", self.role(1, &["pat", "pat-2", "paul", "sue", "ci"])),
                ("qa", self.role(1, &["quinn"])),
                ("release-managers", self.role(1, &["rita"])),
                ("config-keepers", self.role(1, &["carl"])),
            ]
            .into_iter()
            .map(|(name, role)| (name.parse().unwrap(), role))
            .collect(),
            apps: [
                ("shop".parse().unwrap(), app("ci", Some("config-keepers"))),
                ("blog".parse().unwrap(), app("blogger", None)),
            ]
            .into(),
            environments: [
                ("production".parse().unwrap(), gate),
                ("staging".parse().unwrap(), Gate::PublisherOnly {}),
            ]
            .into(),
            coordinators: vec![pin(COORDINATOR)],
            revoked: Vec::new(),
            enrolment: Some(self.role(1, &["erin"])),
        }
    }

    pub(super) fn sign_root(&self, root: &TrustRoot, names: &[&str]) -> Vec<u8> {
        self.envelope(root.payload_type(), root.to_payload(), names)
    }

    /// Each key signs in its own scheme.
    pub(super) fn envelope(&self, payload_type: &str, payload: Vec<u8>, names: &[&str]) -> Vec<u8> {
        let message = pae(payload_type, &payload);
        let mut envelope = Envelope::unsigned(payload_type, payload);
        for name in names {
            let (id, key) = self.entry(name);
            let bytes = match key.scheme {
                Scheme::Ed25519 => self.raw(name, &message),
                Scheme::Sshsig => self.ssh(name, &message),
            };
            envelope.add(Signature { key_id: id.to_string(), bytes });
        }
        envelope.to_vec()
    }

    pub(super) fn raw(&self, name: &str, message: &[u8]) -> Vec<u8> {
        self.keys[name].sign(message)
    }

    fn ssh(&self, name: &str, message: &[u8]) -> Vec<u8> {
        let key = &self.keys[name];
        sshsig::blob(&key.public(), &key.sign(&sshsig::to_sign(message)))
    }

    /// As `ssh-keygen -Y sign -n git` makes it.
    pub(super) fn ssh_for_git(&self, name: &str, message: &[u8]) -> Vec<u8> {
        let key = &self.keys[name];
        let (ours, gits) = (b"\0\0\0\x07consign", b"\0\0\0\x03git");
        let swap = |bytes: &[u8]| {
            let at = bytes.windows(ours.len()).position(|window| window == ours).unwrap();
            [&bytes[..at], gits, &bytes[at + ours.len()..]].concat()
        };
        swap(&sshsig::blob(&key.public(), &key.sign(&swap(&sshsig::to_sign(message)))))
    }

    pub(super) fn statement(&self, names: &[&str], subject: Sha256, predicate: Predicate) -> Vec<u8> {
        let subject = Subject { name: "shop".into(), sha256: subject };
        self.envelope(STATEMENT_TYPE, Statement { subject, predicate }.to_payload(), names)
    }

    pub(super) fn coordinator(&self, id: &str) -> Identity {
        let subject = Certified::Coordinator { id: id.into() };
        self.ca.issue_identity(&subject, SystemClock.now(), DAYS_90).unwrap()
    }

    pub(super) fn agent(&self) -> Identity {
        let subject = Certified::Agent { server: SERVER.parse().unwrap(), uid: Id::from_bytes([7; 16]) };
        self.ca.issue_identity(&subject, SystemClock.now(), DAYS_90).unwrap()
    }
}

pub(super) fn shop() -> App {
    "shop".parse().unwrap()
}

pub(super) fn owners() -> Owner {
    "product-owners".parse().unwrap()
}

pub(super) fn now() -> UnixMs {
    SystemClock.now()
}
