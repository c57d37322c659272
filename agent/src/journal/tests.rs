use std::{fs, path::Path};

use consign_common::{
    config::{InForce, Values},
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome},
    digest::Sha256,
    name::Id,
    time::UnixMs,
    trust::{ORDER_FORMAT, Order, OrderKind, OrderingNumber, Refusal, authorize::Installed},
};
use tempfile::TempDir;

use super::{Accepted, Journal, JournalError, Known, Received};
use crate::{
    core::Pointers,
    ports::{Lost, Rewound},
};

fn id(byte: u8) -> Id {
    Id::from_bytes([byte; 16])
}

fn number(ms: u64) -> OrderingNumber {
    OrderingNumber { epoch: 0, ms: UnixMs(ms) }
}

fn order(byte: u8, order: OrderKind) -> Vec<u8> {
    let order = Order {
        format: ORDER_FORMAT.into(),
        id: id(byte),
        coordinator: "c1".into(),
        server: "web-1".parse().unwrap(),
        environment: "production".parse().unwrap(),
        app: "shop".parse().unwrap(),
        rollout: id(7),
        deployment: id(byte | 0x80),
        term: 1,
        issued: UnixMs(1),
        order,
    };
    order.to_vec()
}

fn document(byte: u8) -> Vec<u8> {
    order(byte, OrderKind::deploy(Sha256::of(b"m"), false))
}

fn received(byte: u8, term: u64) -> Received {
    Received {
        id: id(byte),
        deployment: id(byte | 0x80),
        app: "shop".parse().unwrap(),
        environment: "production".parse().unwrap(),
        coordinator: "c1".into(),
        term,
        document: document(byte),
        statements: vec![b"one".to_vec(), b"two".to_vec()],
        plan: Some(b"plan".to_vec()),
        sealed: None,
        trust_root_version: 7,
        decided: Vec::new(),
        at: UnixMs(5),
    }
}

fn first_event(byte: u8) -> Event {
    Event::Accepted {
        order: id(byte),
        app: "shop".parse().unwrap(),
        version: "1".parse().unwrap(),
        digest: Sha256::of(b"m"),
        previous: None,
        steps: vec![],
    }
}

async fn accept(journal: &Journal, byte: u8, term: u64, ms: u64) -> Id {
    let order = received(byte, term);
    let deployment = order.deployment.clone();
    let (manifest, number) = (Sha256::of(b"m"), Some(number(ms)));
    let accepted = Accepted { order, manifest, number, config_sequence: 0 };
    assert_eq!(journal.accept(&accepted, &first_event(byte)).await.unwrap(), 1);
    deployment
}

async fn open(dir: &TempDir) -> Journal {
    Journal::open(dir.path()).await.unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let deployment = accept(&journal, 1, 3, 100).await;
    let attempt = Attempt { phase: consign_common::plan::Phase::Deploy, step: 0, number: 1 };
    let started = Event::Started { attempt, boot_id: "b".into() };
    assert_eq!(journal.append(&deployment, UnixMs(6), &started, None).await.unwrap(), 2);
    // The files as a killed process leaves them: nothing is closed.
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let again = open(&copy).await;
    let events: Vec<_> = again.events(&deployment).await.unwrap().into_iter().map(|it| it.event).collect();
    assert_eq!(events, [first_event(1), started]);
    assert_eq!(again.open_deployments().await.unwrap(), std::slice::from_ref(&deployment));
    let kept = again.order_of(&deployment).await.unwrap().unwrap();
    assert_eq!((kept.document, kept.statements.len(), kept.trust_root_version), (document(1), 2, 7));
    assert_eq!((kept.plan.as_deref(), kept.sealed), (Some(&b"plan"[..]), None));
}

#[tokio::test]
async fn the_same_order_is_known_and_another_under_its_id_is_an_equivocation() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    assert_eq!(journal.known(&id(1), &document(1)).await.unwrap(), Ok(None));
    accept(&journal, 1, 1, 100).await;
    journal.refuse(&received(2, 1), "older", "too old").await.unwrap();
    assert_eq!(journal.known(&id(1), &document(1)).await.unwrap(), Ok(Some(Known::Accepted)));
    let refused = Known::Refused { code: "older".into(), message: "too old".into() };
    assert_eq!(journal.known(&id(2), &document(2)).await.unwrap(), Ok(Some(refused)));
    let equivocation = Err(Refusal::Equivocation { order: id(1) });
    assert_eq!(journal.known(&id(1), &[9]).await.unwrap(), equivocation);
}

#[tokio::test]
async fn a_refusal_takes_no_id_and_no_more_room_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    accept(&journal, 1, 1, 100).await;
    // Another order took the id while this one was judged.
    let second = Received { document: vec![9], ..received(1, 1) };
    journal.refuse(&second, "older", "too old").await.unwrap();
    assert_eq!(journal.known(&id(1), &document(1)).await.unwrap(), Ok(Some(Known::Accepted)));
    for count in 0u32..1200 {
        let mut bits = [7; 16];
        bits[..4].copy_from_slice(&count.to_le_bytes());
        let order = Received { id: Id::from_bytes(bits), ..received(2, 1) };
        journal.refuse(&order, "older", "too old").await.unwrap();
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM orders WHERE refused_code IS NOT NULL")
        .fetch_one(journal.pool())
        .await
        .unwrap();
    assert_eq!(kept, 1000);
    assert_eq!(
        journal.known(&id(1), &document(1)).await.unwrap(),
        Ok(Some(Known::Accepted)),
        "what was accepted stays"
    );
}

/// Whatever byte of the file is not what was written: the journal is not opened, a value that cannot be is told, or it
/// was a byte that nothing is read from. Never a panic.
#[tokio::test]
async fn a_flipped_byte_panics_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let deployment = accept(&journal, 1, 1, 100).await;
    journal.close().await;
    let whole = fs::read(dir.path().join("journal.db")).unwrap();
    let (mut refused, mut read) = (0, 0);
    for at in (0..whole.len()).step_by(211) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("journal.db"), bytes).unwrap();
        let Ok(journal) = Journal::open(copy.path()).await else {
            refused += 1;
            continue;
        };
        drop(journal.events(&deployment).await);
        drop(journal.order_of(&deployment).await);
        drop(journal.open_deployments().await);
        drop(journal.memory(&"shop".parse().unwrap(), &"production".parse().unwrap(), "c1").await);
        journal.close().await;
        read += 1;
    }
    assert!(refused > 0 && read > 0, "{refused} {read}");
}

#[tokio::test]
async fn numbers_and_terms_never_go_down() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    accept(&journal, 1, 5, 100).await;
    accept(&journal, 2, 4, 90).await;
    journal.refuse(&received(3, 99), "older", "").await.unwrap();
    let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
    let memory = journal.memory(&app, &environment, "c1").await.unwrap();
    assert_eq!((memory.highest, memory.term), (Some(number(100)), 5), "a refused order raises nothing");
    assert_eq!(journal.memory(&app, &environment, "c2").await.unwrap().term, 0);
}

#[tokio::test]
async fn pointers_move_with_the_end_of_the_deployment() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let deployment = accept(&journal, 1, 1, 100).await;
    let good = Installed {
        manifest: Sha256::of(b"m"),
        version: "1".parse().unwrap(),
        published: number(99),
        release: "1-abc".into(),
        config: Some(config(4)),
    };
    let pointers = Pointers { good: Some(good.clone()), before: None, succeeded: Some(number(100)) };
    let environment = "production".parse().unwrap();
    let end = Event::Ended { result: DeploymentOutcome::Succeeded { tolerated: vec![] } };
    let change = Some((&environment, &pointers));
    journal.append(&deployment, UnixMs(9), &end, change).await.unwrap();
    let memory = journal.memory(&"shop".parse().unwrap(), &environment, "c1").await.unwrap();
    assert_eq!((memory.good, memory.before, memory.succeeded), (Some(good), None, Some(number(100))));
    assert!(journal.open_deployments().await.unwrap().is_empty());
    assert_eq!(journal.app_reports("c1").await.unwrap()[0].good_version, "1");
}

fn config(workers: i64) -> InForce {
    let values = format!("{{\"workers\":{workers}}}");
    InForce { sequence: 2, values: Values::parse(values.as_bytes()).unwrap() }
}

#[tokio::test]
async fn a_config_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
    for (byte, sequence, highest) in [(1, 0, 0), (2, 3, 3), (3, 2, 3)] {
        let (manifest, number) = (Sha256::of(b"m"), None);
        let accepted = Accepted { order: received(byte, 1), manifest, number, config_sequence: sequence };
        journal.accept(&accepted, &first_event(byte)).await.unwrap();
        let memory = journal.memory(&app, &environment, "c1").await.unwrap();
        assert_eq!(memory.config_sequence, highest);
    }
    journal.refuse(&received(4, 1), "older", "too old").await.unwrap();
    let nowhere = journal.memory(&app, &"staging".parse().unwrap(), "c1").await.unwrap();
    assert_eq!(nowhere.config_sequence, 0);
}

#[tokio::test]
async fn what_does_not_succeed_is_remembered_until_something_does() {
    let because = String::new;
    let failed = || DeploymentOutcome::Failed { because: because() };
    let stopped = || DeploymentOutcome::Stopped { because: because() };
    let returned = || DeploymentOutcome::Returned { because: because() };
    let unknown = || DeploymentOutcome::Unknown { step: "x".into(), because: because() };
    let cancelled = || DeploymentOutcome::Cancelled { because: because() };
    let succeeded = || DeploymentOutcome::Succeeded { tolerated: vec![] };
    let deploy = || OrderKind::deploy(Sha256::of(b"m"), false);
    let back = || OrderKind::back(Sha256::of(b"m"), "rollback");
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let (app, environment) = ("shop".parse().unwrap(), "production".parse().unwrap());
    let ends = [
        (deploy(), succeeded(), 500, None),
        (deploy(), failed(), 501, Some(501)),
        (deploy(), DeploymentOutcome::NoOp, 502, Some(501)),
        (deploy(), cancelled(), 503, Some(501)),
        (deploy(), succeeded(), 504, None),
        (deploy(), cancelled(), 505, None),
        (deploy(), DeploymentOutcome::NoOp, 506, None),
        (deploy(), returned(), 507, Some(507)),
        (deploy(), stopped(), 508, Some(508)),
        (deploy(), succeeded(), 509, None),
        (deploy(), stopped(), 510, Some(510)),
        (deploy(), succeeded(), 511, None),
        (deploy(), unknown(), 512, Some(512)),
        (deploy(), succeeded(), 513, None),
        // A way back that was ordered is a judgement on what it left.
        (back(), succeeded(), 514, Some(514)),
        (deploy(), succeeded(), 515, None),
        (back(), stopped(), 516, Some(516)),
        (deploy(), succeeded(), 517, None),
        // A clock that is behind what was approved.
        (deploy(), failed(), 90, Some(100)),
    ];
    for (byte, (kind, outcome, at, expected)) in (1..).zip(ends) {
        let given = Received { document: order(byte, kind), ..received(byte, 1) };
        let deployment = given.deployment.clone();
        let manifest = Sha256::of(b"m");
        let accepted = Accepted { order: given, manifest, number: Some(number(100)), config_sequence: 0 };
        journal.accept(&accepted, &first_event(byte)).await.unwrap();
        let result = outcome.clone();
        journal.append(&deployment, UnixMs(at), &Event::Ended { result }, None).await.unwrap();
        let memory = journal.memory(&app, &environment, "c1").await.unwrap();
        assert_eq!(memory.failed, expected.map(number), "{byte}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let deployment = accept(&journal, 1, 1, 100).await;
    let attempt: Attempt = "deploy-0-1".parse().unwrap();
    let started = Event::Started { attempt, boot_id: "b".into() };
    journal.append(&deployment, UnixMs(6), &started, None).await.unwrap();
    assert_eq!(journal.pending_logs().await.unwrap()[0].length, None);
    journal.acknowledge(&deployment, 2).await.unwrap();
    journal.acknowledge(&deployment, 1).await.unwrap();
    assert!(journal.unacknowledged_after(0, 10).await.unwrap().is_empty());

    let result = StepOutcome::Succeeded;
    let finished = Event::Finished { attempt, result, log_length: 40, duration_ms: 1, leftovers: vec![] };
    journal.append(&deployment, UnixMs(7), &finished, None).await.unwrap();
    assert_eq!(journal.unacknowledged_after(0, 10).await.unwrap()[0].1.sequence, 3);
    journal.log_acknowledged(&deployment, attempt, 30).await.unwrap();
    let pending = journal.pending_logs().await.unwrap();
    assert_eq!((pending[0].acknowledged, pending[0].length), (30, Some(40)));
    assert!(pending[0].path.ends_with(Path::new(deployment.as_str()).join("deploy-0-1.log")));
    journal.log_acknowledged(&deployment, attempt, 40).await.unwrap();
    assert!(journal.pending_logs().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_journal_that_cannot_be_trusted_stops_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal.db"), vec![b'x'; 8192]).unwrap();
    let error = Journal::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");

    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("deployments/x")).unwrap();
    let error = Journal::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Missing { .. }), "{error}");
    fs::write(dir.path().join("journal.db"), b"").unwrap();
    assert!(matches!(Journal::open(dir.path()).await, Err(JournalError::Missing { .. })));

    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9000, 'from the future', 1, x'00', 0)",
    )
    .execute(journal.pool())
    .await
    .unwrap();
    journal.close().await;
    let error = Journal::open(dir.path()).await.unwrap_err();
    assert!(error.to_string().contains("newer version of consign-agent"), "{error}");
}

#[tokio::test]
async fn what_a_restored_coordinator_lost_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let deployment = accept(&journal, 1, 1, 100).await;
    let attempt = Attempt { phase: consign_common::plan::Phase::Deploy, step: 0, number: 1 };
    let started = Event::Started { attempt, boot_id: "b".into() };
    journal.append(&deployment, UnixMs(6), &started, None).await.unwrap();
    fs::create_dir_all(journal.deployments().join(deployment.as_str())).unwrap();
    journal.acknowledge(&deployment, 2).await.unwrap();
    journal.log_acknowledged(&deployment, attempt, 700).await.unwrap();

    let unacknowledged = async || journal.unacknowledged_after(0, 10).await.unwrap().len();
    assert_eq!(journal.rewind(&deployment, Lost::EventsAfter(2)).await.unwrap(), Rewound::Nothing);
    assert_eq!(journal.rewind(&id(9), Lost::EventsAfter(0)).await.unwrap(), Rewound::Nothing);
    assert_eq!((unacknowledged().await, journal.pending_logs().await.unwrap()[0].acknowledged), (0, 700));
    assert_eq!(journal.rewind(&deployment, Lost::EventsAfter(1)).await.unwrap(), Rewound::Some);
    assert_eq!((unacknowledged().await, journal.pending_logs().await.unwrap()[0].acknowledged), (1, 0));
    journal.log_acknowledged(&deployment, attempt, 700).await.unwrap();
    assert_eq!(journal.rewind(&deployment, Lost::Logs).await.unwrap(), Rewound::Some);
    assert_eq!(journal.pending_logs().await.unwrap()[0].acknowledged, 0);
}

#[tokio::test]
async fn its_mark_is_its_own_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let new = journal.mark();
    assert_eq!((new.id.len(), new.position), (32, 0));
    let deployment = accept(&journal, 1, 1, 100).await;
    let event = Event::Cancelling { order: id(9), because: "x".into() };
    journal.append(&deployment, UnixMs(6), &event, None).await.unwrap();
    assert_eq!(journal.mark().position, 2);
    // Whatever is pruned one day: what was written stays counted.
    sqlx::query("DELETE FROM events").execute(journal.pool()).await.unwrap();
    journal.close().await;
    let again = open(&dir).await;
    assert_eq!((again.mark().id, again.mark().position), (new.id.clone(), 2));
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(&other).await.mark().id, new.id);
}

/// A journal of the version before has events already, and they count.
#[tokio::test]
async fn an_older_journal_gets_a_mark_that_counts_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    accept(&journal, 1, 1, 100).await;
    for undo in ["DROP TABLE journal", "DELETE FROM _sqlx_migrations WHERE version = 2"] {
        sqlx::query(undo).execute(journal.pool()).await.unwrap();
    }
    journal.close().await;
    assert_eq!(open(&dir).await.mark().position, 1);
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let deployment = accept(&journal, 1, 1, 100).await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(journal.pool()).await.unwrap();
    // PRAGMA takes no parameter; the text is made of a number only.
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::raw_sql(limit).execute(journal.pool()).await.unwrap();
    let because = "x".repeat(200_000);
    let event = Event::Cancelling { order: id(9), because };
    let error = journal.append(&deployment, UnixMs(6), &event, None).await.unwrap_err();
    assert!(error.is_full(), "{error:?}");
    assert_eq!(journal.events(&deployment).await.unwrap().len(), 1);
    // There is space again: the connection that met the full disk is in nobody's way.
    let event = Event::Cancelling { order: id(9), because: "short".into() };
    journal.append(&deployment, UnixMs(7), &event, None).await.unwrap();
    assert_eq!(journal.events(&deployment).await.unwrap().len(), 2);
}

/// The schema as the file has it, so that a change of it is seen: it must come as a new migration.
#[tokio::test]
async fn the_schema_is_the_golden_one() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_sqlx%' ESCAPE '\\'
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
    )
    .fetch_all(journal.pool())
    .await
    .unwrap();
    let schema = tables.join(";\n\n") + ";\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal-schema.sql");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &schema).unwrap();
    }
    assert_eq!(schema, fs::read_to_string(golden).unwrap());
}
