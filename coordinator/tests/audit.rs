//! The audit log over the wire: what is in it, what it says of refusals, and what somebody with the database cannot hide.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    World,
    agent::{self, Agent, hello},
    fleet::{Server, until},
};
use consign_common::{
    audit::{About, Entry, Fault, Head, Outcome, Verifier},
    digest::Sha256,
    json,
    tls::Identity,
    trust::{Receipt, ReceiptKey, SigningKey},
};
use consign_proto::v1::{
    self, AcceptAuditRequest, AuditHeadsRequest, ReadAuditRequest, StatusRequest, agent_message,
    coordinator_message::Kind, operators_client::OperatorsClient,
};
use sqlx::{Connection as _, SqliteConnection};
use tonic::{Code, transport::Channel};

type Kept = (Vec<u8>, Sha256);

async fn chain(client: &mut OperatorsClient<Channel>) -> Vec<Kept> {
    let mut stream = client.read_audit(ReadAuditRequest::default()).await.unwrap().into_inner();
    let mut chain = Vec::new();
    while let Some(entry) = stream.message().await.unwrap() {
        let hash = Sha256::from_bytes(<[u8; 32]>::try_from(&*entry.hash).unwrap());
        chain.push((entry.entry.to_vec(), hash));
    }
    chain
}

fn parse((bytes, _): &Kept) -> Entry {
    json::from_slice(bytes, 1 << 20).unwrap()
}

async fn entries(world: &World) -> Vec<Entry> {
    chain(&mut world.admin().await).await.iter().map(parse).collect()
}

fn verify(chain: &[Kept], remembered: &[(Head, &str)]) -> Result<(Head, usize), Fault> {
    let mut verifier =
        Verifier::new(remembered.iter().map(|(head, who)| (*head, (*who).to_owned())).collect());
    for (bytes, hash) in chain {
        verifier.take(bytes, *hash);
    }
    verifier.end()
}

fn whats(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.what.as_str()).collect()
}

fn head_at(chain: &[Kept], sequence: u64) -> Head {
    Head { sequence, hash: chain[usize::try_from(sequence).unwrap() - 1].1 }
}

fn on_the_wire(head: Head) -> Option<v1::AuditHead> {
    Some(v1::AuditHead { sequence: head.sequence, hash: head.hash.as_bytes().to_vec().into() })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_is_there_with_who_from_where_and_what_about() {
    let world = World::new().await;
    let (digest, _) = agent::publish(&world, "1.0").await;
    let mut server = Server::new(&world, "web-1", &[]).await;
    let mut admin = world.admin().await;
    let asked = v1::StartRolloutRequest { reason: "spring\nsale".replace('\n', " "), ..agent::start("1.0") };
    let rollout = admin.start_rollout(asked).await.unwrap().into_inner();
    let order = server.order().await;
    server.succeed(&order).await;
    until(&world, &rollout.id, |rollout| rollout.state == "succeeded").await;
    let disable = v1::SetServerRequest { name: "web-1".into(), enabled: false, reason: "disk".into() };
    world.local().await.set_server(disable).await.unwrap();

    let entries = entries(&world).await;
    assert_eq!(
        whats(&entries),
        [
            "audit begin",
            "artifact publish",
            "token create",
            "enroll",
            "rollout start",
            "rollout: wave 1",
            "rollout: succeeded",
            "server disable"
        ]
    );
    assert!(entries.iter().enumerate().all(|(at, entry)| entry.sequence == at as u64 + 1));
    assert!(entries.iter().all(|entry| entry.outcome == Outcome::Done {}));
    let about = |entry: &Entry, about: About| entry.about.get(&about).cloned().unwrap_or_default();

    let publish = &entries[1];
    assert_eq!((about(publish, About::App), about(publish, About::Version)), ("shop".into(), "1.0".into()));
    assert!(
        publish.documents.contains(&digest) && publish.documents.len() == 2,
        "the manifest, its statement"
    );
    let enroll = &entries[3];
    assert_eq!((enroll.who.identity.as_str(), enroll.who.role.as_str()), ("server web-1", "anonymous"));
    assert!(enroll.from.starts_with("127.0.0.1:"), "{}", enroll.from);
    let start = &entries[4];
    assert_eq!((start.who.role.as_str(), start.reason.as_str()), ("admin", "spring sale"));
    assert_eq!(
        (about(start, About::Rollout), about(start, About::Environment)),
        (rollout.id, "staging".into())
    );
    let own = &entries[5];
    assert_eq!((own.who.identity.as_str(), own.from.as_str()), ("coordinator", "coordinator"));
    assert_eq!(about(own, About::Rollout), about(start, About::Rollout));
    let disable = &entries[7];
    assert_eq!((disable.from.as_str(), disable.reason.as_str()), ("socket", "disk"));
    assert!(disable.who.identity.starts_with("local user"), "{:?}", disable.who);

    let chain = chain(&mut admin).await;
    assert_eq!(verify(&chain, &[]), Ok((head_at(&chain, 8), 0)));
    // What asks changes nothing.
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.audit, on_the_wire(head_at(&chain, 8)));
    let mine = ReadAuditRequest { app: "shop".into(), after: 2, ..Default::default() };
    let mut some = admin.read_audit(mine).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(entry) = some.message().await.unwrap() {
        found.push(entry.sequence);
    }
    assert_eq!(found, [5, 6, 7]);
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_by_role_and_by_rule_are_there_and_bounded() {
    let world = World::new().await;
    let viewer = world.enrol("vi", "viewer").await;
    let mut vi = world.operators(&viewer).await;
    let refused = vi.start_rollout(agent::start("1.0")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut admin = world.admin().await;
    let unknown =
        v1::LiftHoldRequest { app: "shop".into(), environment: "staging".into(), reason: String::new() };
    assert!(admin.lift_hold(unknown.clone()).await.is_err(), "there is no hold");
    // What is not understood was not refused.
    assert_eq!(
        admin
            .lift_hold(v1::LiftHoldRequest { app: "../".into(), ..unknown.clone() })
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    // Asking is no verb.
    vi.status(StatusRequest {}).await.unwrap();

    let entries = entries(&world).await;
    let refusals: Vec<_> = entries
        .iter()
        .filter_map(|entry| match &entry.outcome {
            Outcome::Done {} => None,
            Outcome::Refused { code, .. } => {
                Some((entry.who.identity.as_str(), entry.what.as_str(), code.as_str()))
            }
        })
        .collect();
    let admin_name = world.owner.bundle().operator.name.to_string();
    assert_eq!(
        refusals,
        [("vi", "rollout start", "role"), (admin_name.as_str(), "env lift-hold", "no-hold")]
    );

    // Whoever is refused all the time does not fill the disk.
    for _ in 0..100 {
        vi.lift_hold(unknown.clone()).await.unwrap_err();
    }
    let before = chain(&mut admin).await.len();
    assert!(before < entries.len() + 70, "{before}");
    world.clock.advance(Duration::from_secs(61));
    vi.lift_hold(unknown).await.unwrap_err();
    let last = parse(chain(&mut admin).await.last().unwrap());
    assert!(last.reason.contains("more refusals before this one"), "{}", last.reason);
    world.coordinator.stop().await;
}

/// What somebody does who has the database: the triggers are no obstacle to him.
async fn tamper(world: World, statements: &[&str]) -> World {
    let World { owner, clock, coordinator, dir } = world;
    coordinator.stop().await;
    let path = owner.options(dir.path()).state.join("consign.db");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    for refused in
        ["DELETE FROM audit", "UPDATE audit SET entry = ''", "INSERT INTO audit VALUES (999, '', '')"]
    {
        assert!(sqlx::raw_sql(refused).execute(&mut database).await.is_err(), "{refused}");
    }
    for trigger in ["audit_grows_at_its_end", "audit_is_not_altered", "audit_is_not_deleted"] {
        let drop = sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}"));
        sqlx::raw_sql(drop).execute(&mut database).await.unwrap();
    }
    for statement in statements {
        let statement = sqlx::AssertSqlSafe((*statement).to_owned());
        sqlx::raw_sql(statement).execute(&mut database).await.unwrap();
    }
    database.close().await.unwrap();
    let coordinator = common::start(&owner.options(dir.path()), &clock).await.unwrap();
    World { owner, clock, coordinator, dir }
}

/// A log of eight entries and more.
async fn with_a_past() -> (World, Vec<Kept>) {
    let world = World::new().await;
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        world.enrol(name, "agent").await;
    }
    let chain = chain(&mut world.admin().await).await;
    assert_eq!(chain.len(), 9);
    (world, chain)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_one_entry_and_two_places_are_found() {
    for (statements, fault) in [
        (
            vec![
                "UPDATE audit SET entry = replace(entry, '\"server\":\"web-2\"', '\"server\":\"web-9\"') WHERE sequence = 5",
            ],
            Fault::Altered { sequence: 5 },
        ),
        (vec!["DELETE FROM audit WHERE sequence = 4"], Fault::Removed { sequence: 4, found: 5 }),
        (
            // Also where what follows is moved up to close the gap.
            vec![
                "DELETE FROM audit WHERE sequence = 4",
                "UPDATE audit SET sequence = -(sequence - 1) WHERE sequence > 4 AND 0",
            ],
            Fault::Removed { sequence: 4, found: 5 },
        ),
        (
            vec![
                "CREATE TABLE held AS SELECT entry, hash FROM audit WHERE sequence = 3",
                "UPDATE audit SET entry = (SELECT entry FROM audit WHERE sequence = 6), \
                 hash = (SELECT hash FROM audit WHERE sequence = 6) WHERE sequence = 3",
                "UPDATE audit SET entry = (SELECT entry FROM held), hash = (SELECT hash FROM held) WHERE sequence = 6",
                "DROP TABLE held",
            ],
            Fault::Reordered { sequence: 3, found: 6 },
        ),
    ] {
        let (world, _) = with_a_past().await;
        let world = tamper(world, &statements).await;
        let chain = chain(&mut world.admin().await).await;
        assert_eq!(verify(&chain, &[]), Err(fault));
        world.coordinator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_was_cut_off_is_found_by_who_remembers_it() {
    let (world, before) = with_a_past().await;
    let world = tamper(world, &["DELETE FROM audit WHERE sequence > 6"]).await;
    let mut admin = world.admin().await;
    let now = chain(&mut admin).await;
    assert!(verify(&now, &[]).is_ok(), "in itself it is whole");
    let seen = [(head_at(&before, 5), "web-1"), (head_at(&before, 9), "me")];
    assert_eq!(verify(&now, &seen), Err(Fault::CutOff { end: 6, seen: 9, who: "me".into() }));
    world.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_made_anew_is_found_by_agents_and_said_until_a_person_says_why() {
    let (world, before) = with_a_past().await;
    let one = world.enrol_anew("web-1", "agent").await;
    let old = head_at(&before, 9);
    // The agent connects with what it has seen: all is well.
    let with = |head: Head| v1::Hello { audit: on_the_wire(head), ..hello("staging") };
    drop(Agent::greet(&world, &one, with(old)).await.unwrap());
    let mut admin = world.admin().await;
    let heads = admin.audit_heads(AuditHeadsRequest {}).await.unwrap().into_inner();
    assert_eq!((heads.seen.len(), heads.disputes.len()), (1, 0));
    assert_eq!(heads.seen[0].head, on_the_wire(old));

    // Somebody makes the chain anew from its middle on.
    let whole = chain(&mut admin).await;
    let mut head = head_at(&whole, 4);
    let mut statements = vec!["DELETE FROM audit WHERE sequence > 4".to_owned()];
    for kept in &whole[4..] {
        let mut entry = parse(kept);
        if entry.sequence == 5 {
            entry.who.identity = "mallory".into();
        }
        let bytes = json::to_vec(&entry);
        head = head.with(&bytes);
        let text = String::from_utf8(bytes).unwrap().replace('\'', "''");
        statements.push(format!("INSERT INTO audit VALUES ({}, '{text}', '{}')", head.sequence, head.hash));
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let world = tamper(world, &statements).await;
    let mut admin = world.admin().await;
    let anew = chain(&mut admin).await;
    assert!(verify(&anew, &[]).is_ok(), "in itself it is whole");
    assert_eq!(verify(&anew, &[(old, "web-1")]), Err(Fault::Rewritten { sequence: 9, who: "web-1".into() }));

    // The agent comes back, and the coordinator says that its own log is not the one it was.
    drop(Agent::greet(&world, &one, with(old)).await.unwrap());
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.audit_disputes.len(), 1);
    assert_eq!(
        (status.audit_disputes[0].server.as_str(), &status.audit_disputes[0].seen),
        ("web-1", &on_the_wire(old))
    );
    assert_eq!(&*status.audit_disputes[0].found, head_at(&anew, 9).hash.as_bytes());
    let servers = admin.list_servers(v1::ListServersRequest::default()).await.unwrap().into_inner().servers;
    let disputed: Vec<_> = servers.iter().filter(|server| server.audit_dispute.is_some()).collect();
    assert_eq!(disputed.len(), 1);
    let last = parse(chain(&mut admin).await.last().unwrap());
    assert_eq!(last.what, "audit rewritten");
    assert!(last.reason.contains("web-1 has seen entry 9"), "{}", last.reason);
    // Once is enough.
    let length = chain(&mut admin).await.len();
    drop(Agent::greet(&world, &one, with(old)).await.unwrap());
    assert_eq!(chain(&mut admin).await.len(), length);

    assert_eq!(
        admin.accept_audit(AcceptAuditRequest { reason: " ".into() }).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let why = AcceptAuditRequest { reason: "restored the backup of Monday".into() };
    let accepted = admin.accept_audit(why).await.unwrap().into_inner();
    assert_eq!(accepted.disputes.len(), 1);
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.audit_disputes.is_empty());
    let last = parse(chain(&mut admin).await.last().unwrap());
    assert_eq!((last.what.as_str(), last.reason.as_str()), ("audit accept", "restored the backup of Monday"));
    world.coordinator.stop().await;
}

/// An agent that has a key for its receipts.
struct Signer {
    agent: Agent,
    key: SigningKey,
}

impl Signer {
    async fn connect(world: &World, identity: &Identity, key: SigningKey) -> Self {
        let certified = SigningKey::from_pkcs8(&identity.key_pkcs8).unwrap();
        let endorsement = ReceiptKey::endorse(&"web-1".parse().unwrap(), &certified, &key.public());
        let hello = v1::Hello { receipt_key: endorsement.to_vec().into(), ..hello("staging") };
        Self { agent: Agent::greet(world, identity, hello).await.unwrap(), key }
    }

    async fn send(&mut self, envelope: Vec<u8>) -> Option<v1::ReceiptAck> {
        self.agent.send(agent_message::Kind::Receipt(v1::Receipt { envelope: envelope.into() })).await;
        let next = tokio::time::timeout(Duration::from_secs(2), self.agent.next()).await;
        match next {
            Ok(Ok(Kind::ReceiptAck(ack))) => Some(ack),
            Ok(other) => panic!("not an acknowledgement: {other:?}"),
            Err(_) => None,
        }
    }
}

fn of(number: u16) -> consign_common::name::Id {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [0xee; 16];
    bytes[..2].copy_from_slice(&[high, low]);
    consign_common::name::Id::from_bytes(bytes)
}

fn receipt(server: &str, deployment: u8) -> Receipt {
    use consign_common::{deployment::DeploymentOutcome, name::Id, time::UnixMs, trust::RECEIPT_FORMAT};
    Receipt {
        format: RECEIPT_FORMAT.into(),
        server: server.parse().unwrap(),
        environment: "staging".parse().unwrap(),
        order: Id::from_bytes([1; 16]),
        rollout: Id::from_bytes([2; 16]),
        deployment: Id::from_bytes([deployment; 16]),
        app: "shop".parse().unwrap(),
        manifest: Sha256::of(b"manifest"),
        result: DeploymentOutcome::NoOp,
        steps: Vec::new(),
        started: UnixMs(1),
        ended: UnixMs(2),
        boot_id: "boot".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_kept_where_the_servers_own_key_signed_it() {
    let world = World::new().await;
    let identity = world.enrol("web-1", "agent").await;
    let mut one = Signer::connect(&world, &identity, SigningKey::generate().unwrap()).await;
    let good = receipt("web-1", 3).sign(&one.key).to_vec();
    let ack = one.send(good.clone()).await.expect("not acknowledged");
    assert_eq!(ack.deployment, receipt("web-1", 3).deployment.to_string());
    assert!(one.send(good.clone()).await.is_some(), "sent again it is acknowledged again");
    let stranger = SigningKey::generate().unwrap();
    assert_eq!(one.send(receipt("web-1", 4).sign(&stranger).to_vec()).await, None);
    let of_other = receipt("web-2", 5).sign(&one.key).to_vec();
    assert_eq!(one.send(of_other).await, None);
    assert!(one.send(receipt("web-1", 6).sign(&one.key).to_vec()).await.is_some(), "the session goes on");

    let mut admin = world.admin().await;
    let mut stream = admin.list_receipts(v1::ListReceiptsRequest::default()).await.unwrap().into_inner();
    let mut kept = Vec::new();
    while let Some(stored) = stream.message().await.unwrap() {
        assert_eq!((stored.server.as_str(), stored.keys.len()), ("web-1", 1));
        kept.push(stored.envelope.to_vec());
    }
    assert_eq!(kept.len(), 2);
    let entries = entries(&world).await;
    let named: Vec<_> = entries.iter().filter(|entry| entry.what == "receipt").collect();
    assert_eq!(named.len(), 2, "the log names each, once");
    assert_eq!(named[0].documents, [Sha256::of(&kept[0])]);
    assert_eq!((named[0].who.identity.as_str(), named[0].who.role.as_str()), ("server web-1", "agent"));

    // Deployments that nobody ordered here are taken on trust, up to a limit.
    let many: Vec<_> =
        (0..999u16).map(|number| Receipt { deployment: of(number), ..receipt("web-1", 3) }).collect();
    let mut taken = 0;
    for receipt in &many {
        taken += usize::from(one.send(receipt.sign(&one.key).to_vec()).await.is_some());
    }
    assert_eq!(taken, 998, "with the two before a thousand");
    assert!(one.send(good).await.is_some(), "one that is kept is acknowledged all the same");

    // An endorsement by another key than the one that the agent shows is not taken.
    drop(one);
    let other = world.enrol("web-2", "agent").await;
    let mut two = Signer::connect(&world, &other, SigningKey::generate().unwrap()).await;
    assert_eq!(two.send(receipt("web-2", 7).sign(&two.key).to_vec()).await, None, "it endorsed as web-1");
    world.coordinator.stop().await;
}
