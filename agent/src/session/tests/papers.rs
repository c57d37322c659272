//! What an agent remembers of the coordinator's audit log, and its receipts.

use std::{sync::Arc, time::Duration};

use consign_common::{audit::Head, digest::Sha256, name::Id, trust::ReceiptKey};
use consign_proto::v1::{
    AuditHead, Heartbeat, ReceiptAck, agent_message::Kind as Said, coordinator_message::Kind,
};

use super::world::{TestLedger, World};
use crate::fixture::COORDINATOR;

#[tokio::test]
async fn says_what_it_has_seen_before_it_hears_more() {
    let mut world = World::new(|_| {}).await;
    let ledger = Arc::new(TestLedger::default());
    let seen = Head { sequence: 5, hash: Sha256::of(b"five") };
    ledger.heads.lock().unwrap().insert(COORDINATOR.into(), seen);
    let agent = world.start(ledger.clone());
    let hello = world.hello().await;
    assert_eq!(hello.audit, Some(AuditHead { sequence: 5, hash: seen.hash.as_bytes().to_vec().into() }));
    let endorsed = ReceiptKey::open(&hello.receipt_key).unwrap();
    assert_eq!(
        endorsed.spki,
        agent.identity.borrow().peer().unwrap().spki_sha256,
        "by its certificate's key"
    );

    let heard = async |sequence: u64| {
        while ledger.heads.lock().unwrap().get(COORDINATOR).map(|head| head.sequence) != Some(sequence) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    heard(7).await;
    let audit = Some(AuditHead { sequence: 8, hash: vec![8; 32].into() });
    world.say(Kind::Heartbeat(Heartbeat { now_ms: 1, echo: 0, audit })).await;
    heard(8).await;
    // What is no head is passed over, and ends nothing.
    let audit = Some(AuditHead { sequence: 9, hash: vec![9; 3].into() });
    world.say(Kind::Heartbeat(Heartbeat { now_ms: 1, echo: 0, audit })).await;
    let audit = Some(AuditHead { sequence: 10, hash: vec![10; 32].into() });
    world.say(Kind::Heartbeat(Heartbeat { now_ms: 1, echo: 0, audit })).await;
    heard(10).await;
}

#[tokio::test]
async fn sends_each_receipt_once_in_a_session_until_it_is_acknowledged() {
    let mut world = World::new(|_| {}).await;
    let ledger = Arc::new(TestLedger::default());
    let id = |byte: u8| Id::from_bytes([byte; 16]);
    for byte in [1, 2] {
        ledger.receipts.lock().unwrap().insert(id(byte), vec![byte]);
    }
    let mut agent = world.start(ledger.clone());
    world.hello().await;
    agent.told().await;
    let mut receipt = async || {
        let Said::Receipt(receipt) = world.news().await else { panic!() };
        receipt.envelope.to_vec()
    };
    assert_eq!((receipt().await, receipt().await), (vec![1], vec![2]));
    world.say(Kind::ReceiptAck(ReceiptAck { deployment: id(1).to_string() })).await;
    while ledger.receipts.lock().unwrap().contains_key(&id(1)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.hang_up();
    while world.heard().await.is_some() {}
    // The next session begins with what is left.
    let Some(Said::Hello(_)) = world.heard().await.unwrap().kind else { panic!() };
    let Said::Receipt(receipt) = world.news().await else { panic!() };
    assert_eq!(&*receipt.envelope, [2]);
}
