//! What is proven of approvals and receipts, and what is only told.

use std::collections::BTreeMap;

use consign_common::{
    deployment::DeploymentOutcome,
    digest::Sha256,
    name::Id,
    time::UnixMs,
    tls::{Ca, Subject as Certified},
    trust::{
        APPROVAL, Approval, CoordinatorPin, Enrolled, Envelope, Gate, GateRule, Key, OrderingNumber,
        Predicate, RECEIPT_FORMAT, Receipt, ReceiptKey, RoleKeys, STATEMENT_TYPE, Scheme, Separation,
        SigningKey, Statement, Subject, TrustRoot,
    },
};
use consign_proto::v1;

use super::{approvals, receipts::Checked};

/// Pat approves with one of her keys; the other one is no approver's. Ada has the root key.
struct People {
    ada: SigningKey,
    pat: SigningKey,
    pats_other: SigningKey,
    root: TrustRoot,
}

impl People {
    fn new() -> Self {
        let [ada, pat, pats_other] = std::array::from_fn(|_| SigningKey::generate().unwrap());
        let entry = |key: &SigningKey, owner: &str| {
            let public = key.public();
            let owner = owner.parse().unwrap();
            (public.id(), Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner })
        };
        let role = |key: &SigningKey| RoleKeys { keys: vec![key.public().id()], threshold: 1 };
        let rule = GateRule {
            predicate: APPROVAL.into(),
            role: "product-owners".parse().unwrap(),
            threshold: 1,
            condition: None,
        };
        let gate = Gate::Statements { require: vec![rule], rearm: Vec::new(), separation: Separation::None };
        let root = TrustRoot {
            version: 1,
            issued: UnixMs(0),
            expires: UnixMs(u64::MAX),
            keys: [entry(&ada, "ada"), entry(&pat, "pat"), entry(&pats_other, "pat")].into(),
            root: role(&ada),
            roles: [("product-owners".parse().unwrap(), role(&pat))].into(),
            apps: BTreeMap::new(),
            environments: [("production".parse().unwrap(), gate)].into(),
            coordinators: vec![CoordinatorPin { id: "main".into(), ca_sha256: Sha256::of(b"ca") }],
            revoked: Vec::new(),
            enrolment: None,
        };
        Self { ada, pat, pats_other, root }
    }
}

fn manifest() -> Sha256 {
    Sha256::of(b"manifest")
}

fn approval(environment: &str, about: Sha256, key: &SigningKey) -> v1::Statement {
    let approval = Approval {
        app: "shop".parse().unwrap(),
        environment: environment.parse().unwrap(),
        number: OrderingNumber { epoch: 1, ms: UnixMs(7000) },
        start_by: UnixMs(8000),
        converge_until: UnixMs(9000),
        config_sha256: None,
        plan_sha256: None,
        reason: Some("release 12".into()),
    };
    let subject = Subject { name: "shop".into(), sha256: about };
    let statement = Statement { subject, predicate: Predicate::Approval(approval) };
    v1::Statement {
        predicate: APPROVAL.into(),
        environment: environment.into(),
        envelope: Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec().into(),
        added_ms: 7001,
        ..Default::default()
    }
}

#[test]
fn an_approval_is_proven_by_a_key_that_the_gate_asks_and_by_no_other() {
    let people = People::new();
    let line = |told: &v1::Statement| approvals::line(told, manifest(), &people.root);
    let proven = line(&approval("production", manifest(), &people.pat));
    assert_eq!((proven.proof.mark, proven.proof.by, proven.at_ms), ("proven", vec!["pat".to_owned()], 7000));
    assert_eq!(proven.reason, "release 12");
    let mut forged = approval("production", manifest(), &people.pat);
    forged.envelope = Envelope::parse(&forged.envelope, 1 << 20)
        .map(|envelope| Envelope::unsigned(STATEMENT_TYPE, envelope.payload().to_vec()).to_vec().into())
        .unwrap();
    for told in [
        approval("production", manifest(), &people.pats_other),
        approval("production", manifest(), &people.ada),
        approval("production", manifest(), &SigningKey::generate().unwrap()),
        approval("production", Sha256::of(b"another"), &people.pat),
        approval("staging", manifest(), &people.pat),
        forged,
    ] {
        let line = line(&told);
        assert_eq!((line.proof.mark, line.reason.as_str()), ("told", ""), "{told:?}");
    }
}

#[test]
fn a_receipts_key_is_proven_where_somebody_vouched_for_a_certificate_of_that_server() {
    let people = People::new();
    let now = UnixMs(1_700_000_000_000);
    let ca = Ca::generate("main", now).unwrap();
    let certified = |byte: u8| {
        let subject = Certified::Agent { server: "web-1".parse().unwrap(), uid: Id::from_bytes([byte; 16]) };
        ca.issue_identity(&subject, now, std::time::Duration::from_secs(60)).unwrap()
    };
    let (old, new) = (certified(1), certified(2));
    let key = SigningKey::generate().unwrap();
    let endorse = |identity: &consign_common::tls::Identity| {
        let identity = SigningKey::from_pkcs8(&identity.key_pkcs8).unwrap();
        ReceiptKey::endorse(&"web-1".parse().unwrap(), &identity, &key.public()).to_vec()
    };
    let receipt = Receipt {
        format: RECEIPT_FORMAT.into(),
        server: "web-1".parse().unwrap(),
        environment: "production".parse().unwrap(),
        order: Id::from_bytes([1; 16]),
        rollout: Id::from_bytes([2; 16]),
        deployment: Id::from_bytes([3; 16]),
        app: "shop".parse().unwrap(),
        manifest: manifest(),
        result: DeploymentOutcome::NoOp,
        steps: Vec::new(),
        started: UnixMs(1),
        ended: UnixMs(2),
        boot_id: "boot".into(),
    };
    let stored = v1::StoredReceipt {
        envelope: receipt.sign(&key).to_vec().into(),
        server: "web-1".into(),
        received_ms: 3,
        keys: vec![endorse(&new).into(), endorse(&old).into()],
        accepted: Vec::new(),
    };
    let checked = Checked::of(&stored).unwrap();
    let accepted = |server: &str, spki: Sha256, signer: &SigningKey| {
        let enrolled = Enrolled {
            server: server.parse().unwrap(),
            environment: "production".parse().unwrap(),
            at: now,
            sealing_key: None,
        };
        let subject = Subject { name: server.into(), sha256: spki };
        let statement = Statement { subject, predicate: Predicate::Enrolled(enrolled) };
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[signer]).to_vec()
    };
    let spki = |identity: &consign_common::tls::Identity| identity.peer().unwrap().spki_sha256;
    // Somebody vouched for the certificate before; the line to the receipt holds.
    let proof = checked.proof(&[accepted("web-1", spki(&old), &people.ada)], &people.root);
    assert_eq!((proof.mark, proof.by), ("proven", vec!["ada".to_owned()]));
    for accepted in [
        accepted("web-1", Sha256::of(b"another key"), &people.ada),
        accepted("web-2", spki(&old), &people.ada),
        accepted("web-1", spki(&old), &people.pat),
    ] {
        assert_eq!(checked.proof(&[accepted], &people.root).mark, "told");
    }
    assert_eq!(checked.proof(&[] as &[Vec<u8>], &people.root).mark, "told");

    // A key that no certificate of the server endorses signs nothing.
    let stranger = SigningKey::generate().unwrap();
    let forged = v1::StoredReceipt { envelope: receipt.sign(&stranger).to_vec().into(), ..stored.clone() };
    assert!(Checked::of(&forged).is_err());
    let of_other = v1::StoredReceipt { server: "web-2".into(), ..stored };
    assert!(Checked::of(&of_other).is_err());
}
