//! Logs: whole, in order, once.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use consign_common::{deployment::log, time::UnixMs};
use tokio::time::timeout;

use super::world::{Acks, LogSink, PATIENCE, TestLedger, World, deployment};
use crate::ports::PendingLog;

/// A finished attempt's log, and a ledger that knows it.
fn log_of(world: &World, bytes: usize) -> (Vec<u8>, Arc<TestLedger>, PathBuf) {
    let mut records = Vec::new();
    for (number, data) in vec![b'x'; bytes].chunks(3000).enumerate() {
        log::encode_into(&mut records, UnixMs(number as u64), log::Stream::Stdout, data);
    }
    let path = world.dir.path().join("deploy-0-1.log");
    std::fs::write(&path, &records).unwrap();
    let ledger = TestLedger::default();
    ledger.logs.lock().unwrap().push(PendingLog {
        deployment: deployment(),
        attempt: "deploy-0-1".parse().unwrap(),
        path: path.clone(),
        acknowledged: 0,
        length: Some(records.len() as u64),
    });
    (records, Arc::new(ledger), path)
}

#[tokio::test]
async fn a_log_arrives_whole_over_a_break_and_with_doubled_acknowledgements() {
    let world = World::new(|coordinator| {
        let sink = LogSink { break_after: Some(4), acks: Acks::Twice, ..LogSink::default() };
        coordinator.logs = Arc::new(Mutex::new(sink));
    })
    .await;
    let (records, ledger, _) = log_of(&world, 3 << 20);
    let _agent = world.start(ledger.clone());
    ledger.all_acknowledged().await;
    let sink = world.coordinator.logs.lock().unwrap();
    assert!(sink.bytes == records, "{} of {} bytes", sink.bytes.len(), records.len());
    assert!(
        sink.offsets.iter().filter(|offset| **offset == 0).count() == 1,
        "what was acknowledged is not sent again"
    );
}

#[tokio::test]
async fn without_acknowledgements_no_more_than_a_mebibyte_is_on_its_way() {
    let mut world = World::new(|coordinator| {
        coordinator.logs = Arc::new(Mutex::new(LogSink { acks: Acks::Lost, ..LogSink::default() }));
        coordinator.heartbeat_seconds = 1;
    })
    .await;
    let (records, ledger, _) = log_of(&world, 3 << 20);
    let _agent = world.start(ledger.clone());
    world.hello().await;
    // The silent line is given up after three intervals; by then everything that would come has come.
    while world.heard().await.is_some() {}
    let sent = {
        let mut sink = world.coordinator.logs.lock().unwrap();
        sink.acks = Acks::Each;
        sink.bytes.len()
    };
    assert!((1 << 20..=(1 << 20) + (64 << 10)).contains(&sent), "{sent}");
    ledger.all_acknowledged().await;
    assert!(world.coordinator.logs.lock().unwrap().bytes == records, "and all of it once they come");
}

#[tokio::test]
async fn a_growing_log_is_followed_and_a_torn_record_waited_for() {
    let world = World::new(|_| {}).await;
    let (records, ledger, path) = log_of(&world, 9000);
    let (half, rest) = records.split_at(4000);
    std::fs::write(&path, half).unwrap();
    ledger.logs.lock().unwrap()[0].length = None;
    let _agent = world.start(ledger.clone());
    let arrived = |bytes: usize| {
        let logs = world.coordinator.logs.clone();
        timeout(PATIENCE, async move {
            let mut look = tokio::time::interval(Duration::from_millis(5));
            while logs.lock().unwrap().bytes.len() != bytes {
                look.tick().await;
            }
        })
    };
    arrived(3017).await.expect("the first record, and not the torn one");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, rest).unwrap();
    arrived(records.len()).await.expect("the rest as it is written");
    ledger.logs.lock().unwrap()[0].length = Some(records.len() as u64);
    ledger.all_acknowledged().await;
}
