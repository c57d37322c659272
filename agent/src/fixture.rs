//! For tests: an operator's keys, a CA, and the documents made with them.

use std::{sync::Arc, time::Duration};

use consign_common::{
    name::Id,
    time::{Clock as _, SystemClock},
    tls::{Ca, Identity, Subject},
    trust::{
        CoordinatorPin, Envelope, Gate, Key, RoleKeys, Scheme, SigningKey, TRUST_ROOT_TYPE, TrustRoot,
        TrustRootPin,
    },
};

pub(crate) const COORDINATOR: &str = "c0ffee";
pub(crate) const DAYS_90: Duration = Duration::from_secs(90 * 24 * 60 * 60);

pub(crate) struct Authority {
    key: SigningKey,
    pub(crate) ca: Ca,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let ca = Ca::generate(COORDINATOR, SystemClock.now()).unwrap();
        Self { key: SigningKey::generate().unwrap(), ca }
    }

    /// The envelope of this version.
    pub(crate) fn root(&self, version: u64) -> Vec<u8> {
        let public = self.key.public();
        let issued = consign_common::time::UnixMs(1_700_000_000_000);
        let keys = RoleKeys { keys: vec![public.id()], threshold: 1 };
        let key =
            Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "alice".parse().unwrap() };
        let root = TrustRoot {
            version,
            issued,
            expires: issued.plus(DAYS_90 * 400),
            keys: [(public.id(), key)].into(),
            root: keys,
            roles: [].into(),
            apps: [].into(),
            environments: [("staging".parse().unwrap(), Gate::PublisherOnly {})].into(),
            coordinators: vec![CoordinatorPin { id: COORDINATOR.into(), ca_sha256: self.ca.pin() }],
            revoked: Vec::new(),
            enrolment: None,
        };
        Envelope::sign(TRUST_ROOT_TYPE, root.to_payload(), &[&self.key]).to_vec()
    }

    pub(crate) fn pin(&self) -> TrustRootPin {
        TrustRootPin { version: 1, sha256: TrustRoot::pin(&self.root(1)).unwrap() }
    }

    pub(crate) fn coordinator(&self) -> Identity {
        let subject = Subject::Coordinator { id: COORDINATOR.into() };
        self.ca.issue_identity(&subject, SystemClock.now(), DAYS_90).unwrap()
    }

    pub(crate) fn agent(&self) -> Arc<Identity> {
        let subject = Subject::Agent { server: "web-1".parse().unwrap(), uid: Id::from_bytes([7; 16]) };
        Arc::new(self.ca.issue_identity(&subject, SystemClock.now(), DAYS_90).unwrap())
    }
}
