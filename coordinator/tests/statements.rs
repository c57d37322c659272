//! Statements about artifacts: which are kept, which are refused by name, and which take the place of which.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    DAY, Owner, World,
    packed::{begin, now, pack, statement, upload},
    start,
};
use consign_common::{
    digest::Sha256,
    name::Id,
    time::{Clock as _, SystemClock, UnixMs},
    trust::{
        APPROVAL, Approval, Decision, DecisionAction, Envelope, Gate, GateRule, Key, OrderingNumber,
        Predicate, RoleKeys, STATEMENT_TYPE, Scheme, Separation, SigningKey, Statement, Subject,
    },
};
use consign_coordinator::store::{StateDir, Store};
use consign_proto::v1::{
    self, ListStatementsRequest, PutStatementRequest, operators_client::OperatorsClient,
};
use tonic::{Code, Status, transport::Channel};

const TESTED: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// A coordinator whose production asks for an approval by a product owner and for tests by QA; one artifact is there.
struct Gated {
    world: World,
    pat: SigningKey,
    sam: SigningKey,
    qa: SigningKey,
    artifact: Sha256,
}

impl Gated {
    async fn new() -> Self {
        let mut owner = Owner::new();
        let [pat, sam, qa] = std::array::from_fn(|_| SigningKey::generate().unwrap());
        for (key, name) in [(&pat, "pat"), (&sam, "sam"), (&qa, "quinn")] {
            let public = key.public();
            let key =
                Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: name.parse().unwrap() };
            owner.root.keys.insert(public.id(), key);
        }
        let role = |keys: &[&SigningKey]| RoleKeys {
            keys: keys.iter().map(|key| key.public().id()).collect(),
            threshold: 1,
        };
        owner.root.roles.insert("product-owners".parse().unwrap(), role(&[&pat, &sam]));
        owner.root.roles.insert("qa".parse().unwrap(), role(&[&qa]));
        let rule = |predicate: &str, role: &str, condition: Option<&str>| GateRule {
            predicate: predicate.to_owned(),
            role: role.parse().unwrap(),
            threshold: 1,
            condition: condition.map(ToOwned::to_owned),
        };
        let passed = Some("predicate.result == 'PASSED'");
        let require = vec![rule(APPROVAL, "product-owners", None), rule(TESTED, "qa", passed)];
        let gate = Gate::Statements { require, rearm: Vec::new(), separation: Separation::None };
        owner.root.environments.insert("production".parse().unwrap(), gate);
        let world = World::of(owner).await;
        let mut client = world.admin().await;
        let packed = pack("1.0", b"one");
        let signed = statement(&packed, "1.0", now(), &world.owner.publisher);
        let begun = begin(&mut client, &packed, signed).await.unwrap();
        assert!(upload(&mut client, &begun, &packed.pack).await.unwrap().complete);
        Self { world, pat, sam, qa, artifact: Sha256::of(&packed.manifest) }
    }

    fn approval(&self, environment: &str, ms: u64) -> Approval {
        Approval {
            app: "shop".parse().unwrap(),
            environment: environment.parse().unwrap(),
            number: OrderingNumber { epoch: 1, ms: UnixMs(ms) },
            start_by: SystemClock.now().plus(DAY),
            converge_until: SystemClock.now().plus(DAY * 30),
            config_sha256: None,
            plan_sha256: None,
            reason: None,
        }
    }

    fn sign(&self, predicate: Predicate, key: &SigningKey) -> Vec<u8> {
        let subject = Subject { name: "shop@1.0".into(), sha256: self.artifact };
        let statement = Statement { subject, predicate };
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()
    }

    fn tested(&self, result: &str, key: &SigningKey) -> Vec<u8> {
        let value = serde_json::json!({ "result": result });
        self.sign(Predicate::Foreign { predicate_type: TESTED.to_owned(), value }, key)
    }

    async fn listed(&self) -> Vec<v1::Statement> {
        let request = ListStatementsRequest { digest: self.artifact.to_string() };
        self.world.admin().await.list_statements(request).await.unwrap().into_inner().statements
    }
}

/// The newest by the time that they say, in whatever order they come.
#[tokio::test(flavor = "multi_thread")]
async fn of_test_results_that_say_when_the_newest_stands_in_whatever_order_they_come() {
    let gated = Gated::new().await;
    let mut client = gated.world.admin().await;
    let at = |result: &str, ms: u64| {
        let value = serde_json::json!({ "result": result, "timeCreated": UnixMs(ms).to_string() });
        gated.sign(Predicate::Foreign { predicate_type: TESTED.to_owned(), value }, &gated.qa)
    };
    let failed = at("FAILED", now());
    assert_eq!(put(&mut client, failed.clone()).await.unwrap().novelty, "new");
    // It was made before, and was kept back until now.
    assert_eq!(put(&mut client, at("PASSED", now() - 60_000)).await.unwrap().novelty, "outdated");
    assert!(gated.listed().await.iter().any(|statement| statement.envelope == failed));
    let far = put(&mut client, at("PASSED", now() + 11 * 60_000)).await.unwrap_err();
    assert!(far.message().starts_with("far-future"), "{far}");
    assert_eq!(put(&mut client, at("PASSED", now() + 2000)).await.unwrap().novelty, "new");
    assert!(!gated.listed().await.iter().any(|statement| statement.envelope == failed));
}

/// A coordinator takes nothing that it could not send.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_go_with_an_order_is_refused_when_it_is_brought() {
    let gated = Gated::new().await;
    let mut client = gated.world.admin().await;
    let long = "x".repeat(185_000);
    let tested = |key: &SigningKey| {
        let value = serde_json::json!({ "result": "PASSED", "log": long });
        gated.sign(Predicate::Foreign { predicate_type: TESTED.to_owned(), value }, key)
    };
    let approved = |key: &SigningKey| {
        let approval = Approval { reason: Some(long.clone()), ..gated.approval("production", now()) };
        gated.sign(Predicate::Approval(approval), key)
    };
    for envelope in [
        tested(&gated.pat),
        tested(&gated.sam),
        tested(&gated.qa),
        approved(&gated.pat),
        approved(&gated.sam),
    ] {
        assert_eq!(put(&mut client, envelope).await.unwrap().novelty, "new");
    }
    let decision = Decision {
        environment: "production".parse().unwrap(),
        rollout: Id::from_bytes([1; 16]),
        server: None,
        step: "warm".parse().unwrap(),
        action: DecisionAction::Skip,
        at: UnixMs(now()),
        reason: long.clone(),
    };
    let before = gated.listed().await.len();
    let large = gated.sign(Predicate::Decision(decision.clone()), &gated.pat);
    let refused = put(&mut client, large).await.unwrap_err();
    assert!(refused.message().starts_with("statements-too-large"), "{refused}");
    assert!(refused.message().contains("production"), "{refused}");
    assert_eq!(gated.listed().await.len(), before, "nothing of it is kept");
    let small = Decision { reason: "cold".into(), ..decision };
    let small = gated.sign(Predicate::Decision(small), &gated.pat);
    assert_eq!(put(&mut client, small).await.unwrap().novelty, "new");
}

async fn put(client: &mut OperatorsClient<Channel>, envelope: Vec<u8>) -> Result<v1::Statement, Status> {
    let request = PutStatementRequest { envelope: envelope.into() };
    client.put_statement(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gates_ask_for_is_kept_and_the_newest_word_of_a_signer_stands() {
    let gated = Gated::new().await;
    let mut client = gated.world.admin().await;
    let first = gated.sign(Predicate::Approval(gated.approval("production", now())), &gated.pat);
    let kept = put(&mut client, first.clone()).await.unwrap();
    assert_eq!((kept.predicate.as_str(), kept.environment.as_str()), (APPROVAL, "production"));
    assert_eq!((kept.helps.as_slice(), kept.novelty.as_str()), (&["production".to_owned()][..], "new"));
    assert_eq!(kept.signers.iter().map(|signer| signer.owner.as_str()).collect::<Vec<_>>(), ["pat"]);
    assert_eq!(kept.added_by, "ada");
    // Twice is once.
    assert_eq!(put(&mut client, first.clone()).await.unwrap().novelty, "known");
    assert_eq!(gated.listed().await.len(), 2);

    // A newer one of the same signer takes its place, and an older one comes too late; another signer's stands beside it.
    let second = gated.sign(Predicate::Approval(gated.approval("production", now() + 5)), &gated.pat);
    assert_eq!(put(&mut client, second).await.unwrap().novelty, "new");
    assert_eq!(put(&mut client, first).await.unwrap().novelty, "outdated");
    let other = gated.sign(Predicate::Approval(gated.approval("production", now())), &gated.sam);
    put(&mut client, other).await.unwrap();
    assert_eq!(gated.listed().await.len(), 3);

    // A test that failed later is not hidden behind the one that passed.
    let passed = gated.tested("PASSED", &gated.qa);
    assert_eq!(put(&mut client, passed.clone()).await.unwrap().helps, ["production"]);
    let failed = gated.tested("FAILED", &gated.qa);
    assert!(put(&mut client, failed.clone()).await.unwrap().helps.is_empty());
    let listed = gated.listed().await;
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().any(|statement| statement.envelope == failed));
    // Nor is it, when the one that passed is brought again: in the same envelope, or in another.
    assert_eq!(put(&mut client, passed.clone()).await.unwrap().novelty, "outdated");
    let mut unhinted: serde_json::Value = serde_json::from_slice(&passed).unwrap();
    unhinted["signatures"][0]["keyid"] = "".into();
    let unhinted = serde_json::to_vec(&unhinted).unwrap();
    assert_eq!(put(&mut client, unhinted).await.unwrap().novelty, "outdated");
    assert!(gated.listed().await.iter().any(|statement| statement.envelope == failed));

    // A statement that no gate asks for, by somebody it knows.
    let note = Predicate::Foreign { predicate_type: "https://example.com/note".into(), value: 1.into() };
    let kept = put(&mut client, gated.sign(note, &gated.world.owner.publisher)).await.unwrap();
    assert!(kept.helps.is_empty());

    // All of it is there after a restart.
    let before = gated.listed().await;
    let gated = Gated { world: gated.world.restarted().await, ..gated };
    assert_eq!(gated.listed().await, before);
    gated.world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_count_is_refused_by_name() {
    let gated = Gated::new().await;
    let mut client = gated.world.admin().await;
    let stranger = SigningKey::generate().unwrap();
    let approval = |environment: &str| gated.approval(environment, now());
    let sign = |approval: Approval, key: &SigningKey| gated.sign(Predicate::Approval(approval), key);
    let other_app = Approval { app: "blog".parse().unwrap(), ..approval("production") };
    let expired =
        Approval { start_by: UnixMs(now() - 1), converge_until: UnixMs(now() - 1), ..approval("production") };
    let ahead = gated.approval("production", now() + 3_600_000);
    let epoch = Approval { number: OrderingNumber { epoch: 7, ms: UnixMs(now()) }, ..approval("production") };
    let cases = [
        (sign(approval("production"), &stranger), "signer-unknown", "which the trust root does not name"),
        (sign(approval("production"), &gated.qa), "signer-unknown", "by quinn does not count: pat, sam may"),
        (sign(approval("staging"), &gated.pat), "not-asked", "staging"),
        (sign(approval("elsewhere"), &gated.pat), "environment-unknown", "elsewhere"),
        (sign(other_app, &gated.pat), "wrong-statement", "app"),
        (sign(expired, &gated.pat), "wrong-statement", "expired"),
        (sign(ahead, &gated.pat), "far-future", "ten minutes"),
        (sign(epoch, &gated.pat), "wrong-epoch", "7"),
        (gated.tested("PASSED", &stranger), "signer-unknown", "which the trust root does not name"),
        (
            statement(&pack("1.0", b"one"), "1.0", now(), &gated.world.owner.publisher),
            "wrong-statement",
            "artifact publish",
        ),
    ];
    for (envelope, name, words) in cases {
        let refused = put(&mut client, envelope).await.unwrap_err();
        assert!(refused.message().starts_with(name), "{name}: {refused}");
        assert!(refused.message().contains(words), "{words}: {refused}");
    }
    let elsewhere = Gated { artifact: Sha256::of(b"no such artifact"), ..gated };
    let refused = put(&mut client, elsewhere.tested("PASSED", &elsewhere.qa)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    elsewhere.world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_brings_approvals_and_nothing_else() {
    let gated = Gated::new().await;
    let viewer = gated.world.enrol("vic", "viewer").await;
    let mut client = gated.world.operators(&viewer).await;
    let approval = gated.sign(Predicate::Approval(gated.approval("production", now())), &gated.pat);
    assert_eq!(put(&mut client, approval).await.unwrap().added_by, "vic");
    let refused = put(&mut client, gated.tested("PASSED", &gated.qa)).await.unwrap_err();
    assert!(refused.message().contains("approvals only"), "{refused}");
    gated.world.coordinator.stop().await;
}

/// So a publication that was interrupted there is ended, and what was published before there were rows is read.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_lie_beside_an_artifact_are_taken_in_at_the_start() {
    let gated = Gated::new().await;
    let published = gated.listed().await.remove(0);
    let World { owner, coordinator, dir, clock } = gated.world;
    coordinator.stop().await;
    let state = dir.path().join("state");
    let store = Store::open(StateDir::open(&state).unwrap()).await.unwrap();
    let mut write = store.write().await.unwrap();
    sqlx::query("DELETE FROM statements").execute(&mut *write).await.unwrap();
    write.commit().await.unwrap();
    store.close().await;
    drop(store);
    let beside = state.join("artifacts").join(gated.artifact.to_string()).join("statements");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("one.json"), &published.envelope).unwrap();
    std::fs::write(beside.join("torn.json"), b"{").unwrap();

    let coordinator = start(&owner.options(dir.path()), &clock).await.unwrap();
    let gated = Gated { world: World { owner, clock, coordinator, dir }, ..gated };
    let listed = gated.listed().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].envelope, published.envelope);
    assert_eq!(listed[0].signers, published.signers);
    assert!(!beside.exists());
    gated.world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_gate_asks_for_has_a_bound() {
    let gated = Gated::new().await;
    let mut client = gated.world.admin().await;
    let note = |n: usize| {
        let predicate_type = format!("https://example.com/{n}");
        gated.sign(Predicate::Foreign { predicate_type, value: 1.into() }, &gated.world.owner.publisher)
    };
    for n in 0..64 {
        put(&mut client, note(n)).await.unwrap();
    }
    let refused = put(&mut client, note(64)).await.unwrap_err();
    assert!(refused.message().starts_with("statements-full"), "{refused}");
    // What a gate asks for has its place.
    put(&mut client, gated.tested("PASSED", &gated.qa)).await.unwrap();
    gated.world.clock.advance(Duration::from_secs(1));
    put(&mut client, gated.sign(Predicate::Approval(gated.approval("production", now())), &gated.pat))
        .await
        .unwrap();
    gated.world.coordinator.stop().await;
}
