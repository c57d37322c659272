//! Config at the coordinator: what it takes, from whom, and in which order; what goes with orders.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{
    World,
    agent::{Agent, hello},
    spki,
};
use consign_common::{
    digest::Sha256,
    name::StepName,
    sealing::{Given, Salt, SealingKey, Secret},
    time::UnixMs,
    trust::{
        Config, ConfigValue, Enrolled, Envelope, Predicate, STATEMENT_TYPE, SigningKey, Statement, Subject,
        values_digest,
    },
};
use consign_proto::v1;
use tonic::{Code, Status};

fn config(sequence: u64, environment: &str, values: &[(&str, ConfigValue)], key: &SigningKey) -> Vec<u8> {
    let values = values.iter().map(|(name, value)| (name.parse().unwrap(), value.clone())).collect();
    let config =
        Config { app: "shop".parse().unwrap(), environment: environment.parse().unwrap(), sequence, values };
    let subject = Subject { name: "config".into(), sha256: values_digest(&config) };
    let statement = Statement { subject, predicate: Predicate::Config(config) };
    Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()
}

fn put(envelope: Vec<u8>, sealed: Vec<v1::SealedSecret>) -> v1::PutConfigRequest {
    v1::PutConfigRequest { envelope: envelope.into(), sealed }
}

fn secret() -> Secret {
    Secret::new(Salt::random().unwrap(), "correct horse".into())
}

fn sealed(server: &str, secret: &Secret, key: &SealingKey) -> v1::SealedSecret {
    let (app, environment) = ("shop".parse().unwrap(), "staging".parse().unwrap());
    let name: StepName = "token".parse().unwrap();
    let given = Given { app: &app, environment: &environment, name: &name };
    v1::SealedSecret {
        server: server.into(),
        name: name.to_string(),
        commitment: secret.commitment().commitment.to_string(),
        recipient: key.recipient().to_string(),
        file: given.seal(secret, &key.recipient()).unwrap().into(),
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

/// A server whose agent said that this is its key.
async fn server(world: &World, name: &str) -> SealingKey {
    let identity = world.enrol(name, "agent").await;
    let key = SealingKey::generate();
    let hello = v1::Hello { sealing_key: key.recipient().to_string(), ..hello("staging") };
    drop(Agent::greet(world, &identity, hello).await.unwrap());
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_come_one_after_the_other_from_who_may_sign_them() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let (publisher, stranger) = (&world.owner.publisher, SigningKey::generate().unwrap());
    let workers = |number| [("workers", ConfigValue::Int(number))];

    let first = config(1, "staging", &workers(1), publisher);
    let (status, why) =
        code(admin.put_config(put(config(1, "staging", &workers(1), &stranger), vec![])).await);
    assert_eq!(status, Code::FailedPrecondition);
    assert!(why.contains("signature-invalid"), "{why}");
    let (_, why) = code(admin.put_config(put(config(1, "nowhere", &workers(1), publisher), vec![])).await);
    assert!(why.contains("environment-unknown"), "{why}");
    for early in [2, 9] {
        let (_, why) =
            code(admin.put_config(put(config(early, "staging", &workers(1), publisher), vec![])).await);
        assert!(why.contains("does not follow 0"), "{why}");
    }
    let answer = admin.put_config(put(first.clone(), vec![])).await.unwrap().into_inner();
    assert_eq!((answer.sequence, answer.again), (1, false));
    let again = admin.put_config(put(first.clone(), vec![])).await.unwrap().into_inner();
    assert_eq!((again.sequence, again.again), (1, true));
    // Two operators at once: the second one's does not overwrite the first one's.
    let (_, why) = code(admin.put_config(put(config(1, "staging", &workers(2), publisher), vec![])).await);
    assert!(why.contains("does not follow 1") && why.contains("faster"), "{why}");
    admin.put_config(put(config(2, "staging", &workers(2), publisher), vec![])).await.unwrap();

    let show = v1::ShowConfigRequest { app: "shop".into(), environment: "staging".into(), sequence: 0 };
    let shown = admin.show_config(show.clone()).await.unwrap().into_inner();
    assert_eq!(shown.config.unwrap().sequence, 2);
    assert_eq!(shown.history.iter().map(|one| one.sequence).collect::<Vec<_>>(), [2, 1]);
    let older =
        admin.show_config(v1::ShowConfigRequest { sequence: 1, ..show.clone() }).await.unwrap().into_inner();
    assert_eq!(older.config.unwrap().envelope, first);
    assert_eq!(
        code(admin.show_config(v1::ShowConfigRequest { sequence: 7, ..show }).await).0,
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_belongs_to_the_config_and_to_the_servers_own_key() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let key = server(&world, "web-1").await;
    let (secret, other) = (secret(), secret());
    let envelope = config(
        1,
        "staging",
        &[("token", ConfigValue::Commitment(secret.commitment()))],
        &world.owner.publisher,
    );
    let good = sealed("web-1", &secret, &key);
    for (bad, word) in [
        (sealed("web-1", &other, &key), "no such value"),
        (v1::SealedSecret { server: "web-9".into(), ..good.clone() }, "no server web-9"),
        (sealed("web-1", &secret, &SealingKey::generate()), "the key that its agent has now"),
        (v1::SealedSecret { file: vec![0; 200 << 10].into(), ..good.clone() }, "at most"),
        (v1::SealedSecret { name: "other".into(), ..good.clone() }, "no such value of other"),
    ] {
        let (_, why) = code(admin.put_config(put(envelope.clone(), vec![bad])).await);
        assert!(why.contains(word), "{why}");
    }
    let show = v1::ShowConfigRequest { app: "shop".into(), environment: "staging".into(), sequence: 0 };
    assert!(admin.show_config(show.clone()).await.unwrap().into_inner().config.is_none(), "nothing was kept");
    admin.put_config(put(envelope, vec![good])).await.unwrap();
    let shown = admin.show_config(show.clone()).await.unwrap().into_inner();
    assert_eq!(shown.sealed.iter().map(|one| one.server.as_str()).collect::<Vec<_>>(), ["web-1"]);

    // Enrolled anew it has another key, and what was sealed to the old one counts no more.
    world.enrol_anew("web-1", "agent").await;
    assert!(admin.show_config(show).await.unwrap().into_inner().sealed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_accepted_with_the_keys_that_it_has() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let identity = world.enrol("web-1", "agent").await;
    let key = SealingKey::generate();
    let first = v1::Hello { sealing_key: key.recipient().to_string(), ..hello("staging") };
    drop(Agent::greet(&world, &identity, first).await.unwrap());
    let broken = v1::Hello { sealing_key: "age1nonsense".into(), ..hello("staging") };
    assert!(Agent::greet(&world, &identity, broken).await.is_err());

    let accept = |server: &str, environment: &str, spki: Sha256, key: &SealingKey, signer: &SigningKey| {
        let statement = Statement {
            subject: Subject { name: server.into(), sha256: spki },
            predicate: Predicate::Enrolled(Enrolled {
                server: server.parse().unwrap(),
                environment: environment.parse().unwrap(),
                at: UnixMs(1),
                sealing_key: Some(key.recipient().to_string()),
            }),
        };
        let envelope = Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[signer]).to_vec();
        v1::AcceptServerRequest { envelope: envelope.into() }
    };
    let (owner, own, other) = (&world.owner.root_key, spki(&identity), SealingKey::generate());
    for (bad, word) in [
        (accept("web-1", "staging", own, &key, &world.owner.publisher), "signature-invalid"),
        (accept("web-1", "staging", own, &other, owner), "the key that its agent has now"),
        (accept("web-1", "staging", Sha256::of(b"x"), &key, owner), "the key that its agent has now"),
        (accept("web-1", "production", own, &key, owner), "no server web-1 in production"),
        (accept("web-9", "staging", own, &key, owner), "no server web-9"),
    ] {
        let (_, why) = code(admin.accept_server(bad).await);
        assert!(why.contains(word), "{why}");
    }
    let keys =
        admin.accept_server(accept("web-1", "staging", own, &key, owner)).await.unwrap().into_inner().keys;
    assert!(!keys.unwrap().enrolled.is_empty());
    let listed = admin.list_servers(v1::ListServersRequest::default()).await.unwrap().into_inner().servers;
    assert_eq!(listed[0].keys.as_ref().unwrap().sealing_key, key.recipient().to_string());

    // Another agent under the same name has nobody's word.
    world.enrol_anew("web-1", "agent").await;
    let keys =
        admin.list_sealing_keys(v1::ListSealingKeysRequest::default()).await.unwrap().into_inner().servers;
    assert_eq!((keys[0].sealing_key.as_str(), keys[0].enrolled.len()), ("", 0));
}
