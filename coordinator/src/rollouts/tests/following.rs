//! Followers: every byte once, whatever the order of things.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consign_common::{
    deployment::{
        Attempt, Event, StepOutcome,
        log::{Decoder, Record, Stream, encode_into},
    },
    name::Id,
    plan::Phase,
    time::{SystemClock, UnixMs},
    trust::Order,
};

use super::{fixture::Agent, *};
use crate::logs::{Append, LogError, LogSettings, LogWriter};

const ATTEMPT: Attempt = Attempt { phase: Phase::Deploy, step: 0, number: 1 };

fn records(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, UnixMs(7), Stream::Stdout, text.as_bytes());
    out
}

fn writer(fixture: &Fixture, attempt_bytes: u64) -> LogWriter {
    let settings = LogSettings { attempt_bytes };
    LogWriter::start(Arc::clone(&fixture.store), fixture.feed.clone(), Arc::new(SystemClock), settings)
}

fn append(agent: &Agent, order: &Order, offset: u64, records: Vec<u8>) -> Append {
    let (server, deployment) = (agent.server.clone(), order.deployment.clone());
    Append { server, deployment, attempt: ATTEMPT, offset, records }
}

async fn write(logs: &LogWriter, chunk: Append) -> Result<u64, LogError> {
    logs.append(chunk).await?.await.unwrap()
}

fn finished(log_length: u64) -> Event {
    let result = StepOutcome::Succeeded;
    Event::Finished { attempt: ATTEMPT, result, log_length, duration_ms: 1, leftovers: Vec::new() }
}

/// What a person would have seen.
#[derive(Default)]
struct Seen {
    cursor: u64,
    bytes: BTreeMap<(Id, Attempt), Vec<u8>>,
    last_state: String,
}

impl Seen {
    fn take(&mut self, item: Followed) {
        assert!(item.cursor >= self.cursor);
        self.cursor = item.cursor;
        match item.update {
            Update::Rollout(shown) => self.last_state = shown.state().to_owned(),
            Update::Deployment(..) => {}
            Update::Log(part) => {
                let bytes = self.bytes.entry((part.deployment, part.attempt)).or_default();
                assert_eq!(bytes.len() as u64, part.offset, "a gap or a double");
                bytes.extend(part.records);
            }
        }
    }

    fn text(&self) -> String {
        let mut decoder = Decoder::at(0);
        for bytes in self.bytes.values() {
            decoder.push(bytes);
        }
        let mut text = Vec::new();
        while let Some(Record { data, .. }) = decoder.next_record().unwrap() {
            text.extend(data);
        }
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn a_follower_that_comes_back_sees_every_byte_exactly_once() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    one.tell(&order, &Event::Started { attempt: ATTEMPT, boot_id: "b".into() }).await;
    let logs = writer(&fixture, 1 << 20);

    let mut seen = Seen::default();
    let mut expected = String::new();
    let mut offset = 0;
    for round in 0..10 {
        // Each time another follower, from the last one's cursor; the one before left in the middle.
        let mut follower = fixture.controller.follow(id.as_str(), seen.cursor, Output::With).await.unwrap();
        for line in 0..3 {
            let text = format!("round {round} line {line}\n");
            expected.push_str(&text);
            offset = write(&logs, append(&one, &order, offset, records(&text))).await.unwrap();
        }
        for _ in 0..=round % 4 {
            seen.take(follower.recv().await.unwrap().unwrap());
        }
    }
    one.tell(&order, &finished(offset)).await;
    one.end(&order, succeeded()).await;
    let mut follower = fixture.controller.follow(id.as_str(), seen.cursor, Output::With).await.unwrap();
    while let Some(item) = follower.recv().await {
        seen.take(item.unwrap());
    }
    assert_eq!(seen.text(), expected);
    assert_eq!(seen.last_state, "succeeded");
}

#[tokio::test]
async fn following_ends_when_the_output_that_was_announced_is_here() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    one.tell(&order, &Event::Started { attempt: ATTEMPT, boot_id: "b".into() }).await;
    let late = records("last words\n");
    one.tell(&order, &finished(late.len() as u64)).await;
    let mut follower = fixture.controller.follow(id.as_str(), 0, Output::With).await.unwrap();
    one.end(&order, succeeded()).await;
    let mut seen = Seen::default();
    while seen.last_state != "succeeded" {
        seen.take(follower.recv().await.unwrap().unwrap());
    }
    let logs = writer(&fixture, 1 << 20);
    write(&logs, append(&one, &order, 0, late)).await.unwrap();
    while let Some(item) = follower.recv().await {
        seen.take(item.unwrap());
    }
    assert_eq!(seen.text(), "last words\n");
}

/// What comes next, in words.
async fn next(follower: &mut tokio::sync::mpsc::Receiver<Result<Followed, FollowError>>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(20), follower.recv()).await.expect("nothing came");
    match next.expect("the end").unwrap().update {
        Update::Rollout(shown) => format!("rollout {}", shown.state()),
        Update::Deployment(shown, id) => {
            let row = shown.deployments.iter().find(|row| row.id == id).unwrap();
            let state = shown.row.state.member(&row.server).unwrap().state.as_str();
            let steps: Vec<_> = row.view.steps.iter().map(|step| step.state.as_str()).collect();
            format!("server {state} {steps:?}")
        }
        Update::Log(part) => format!("output at {}", part.offset),
    }
}

async fn until(
    follower: &mut tokio::sync::mpsc::Receiver<Result<Followed, FollowError>>,
    wanted: &str,
) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != wanted) {
        seen.push(next(follower).await);
    }
    seen
}

#[tokio::test]
async fn a_step_ends_after_its_output() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    one.tell(&order, &Event::Started { attempt: ATTEMPT, boot_id: "b".into() }).await;
    let logs = writer(&fixture, 1 << 20);
    let (first, last) = (records("first\n"), records("last\n"));
    let middle = write(&logs, append(&one, &order, 0, first.clone())).await.unwrap();
    let mut follower = fixture.controller.follow(id.as_str(), 0, Output::With).await.unwrap();
    until(&mut follower, "output at 0").await;
    one.tell(&order, &finished(middle + last.len() as u64)).await;
    one.end(&order, succeeded()).await;
    write(&logs, append(&one, &order, middle, last)).await.unwrap();
    assert_eq!(next(&mut follower).await, format!("output at {middle}"));
    assert_eq!(next(&mut follower).await, "server succeeded [\"succeeded\"]");
    assert_eq!(next(&mut follower).await, "rollout succeeded");
    assert!(follower.recv().await.is_none());
}

#[tokio::test]
async fn output_that_does_not_come_holds_nothing_up() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    one.tell(&order, &Event::Started { attempt: ATTEMPT, boot_id: "b".into() }).await;
    let mut follower = fixture.controller.follow(id.as_str(), 0, Output::With).await.unwrap();
    until(&mut follower, "server running [\"running\"]").await;
    one.tell(&order, &finished(1000)).await;
    one.end(&order, succeeded()).await;
    assert_eq!(next(&mut follower).await, "server succeeded [\"succeeded\"]");
    assert_eq!(next(&mut follower).await, "rollout succeeded");
}

#[tokio::test]
async fn a_log_takes_each_byte_once_and_only_whole_records_of_its_own_server() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let mut two = fixture.connect("web-2").await;
    fixture.start(&[]).await.unwrap();
    let (order, theirs) = (one.order().await, two.order().await);
    let logs = writer(&fixture, 1 << 20);
    let (a, b) = (records("a\n"), records("bb\n"));
    let after_a = write(&logs, append(&one, &order, 0, a.clone())).await.unwrap();
    assert_eq!(after_a, a.len() as u64);
    assert_eq!(write(&logs, append(&one, &order, 0, a.clone())).await.unwrap(), after_a, "sent twice");
    let both = [a.clone(), b.clone()].concat();
    let after_b = write(&logs, append(&one, &order, 0, both.clone())).await.unwrap();
    assert_eq!(after_b, both.len() as u64, "only what is new was added");
    let gap = write(&logs, append(&one, &order, after_b + 5, a.clone())).await.unwrap_err();
    assert!(matches!(gap, LogError::Gap { expected, .. } if expected == after_b), "{gap}");
    let torn = write(&logs, append(&one, &order, after_b, b[..b.len() - 1].to_vec())).await.unwrap_err();
    assert!(matches!(torn, LogError::Torn { .. }), "{torn}");
    let mut flipped = b.clone();
    flipped[20 - 4] ^= 1;
    let corrupt = write(&logs, append(&one, &order, after_b, flipped)).await.unwrap_err();
    assert!(matches!(corrupt, LogError::Corrupt(_)), "{corrupt}");
    let foreign = write(&logs, append(&one, &theirs, 0, a)).await.unwrap_err();
    assert!(matches!(foreign, LogError::NotYours { .. }), "{foreign}");
}

#[tokio::test]
async fn beyond_its_quota_a_log_is_acknowledged_and_not_kept() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let order = one.order().await;
    let line = records("0123456789\n");
    let length = line.len() as u64;
    let logs = writer(&fixture, length * 2);
    let mut offset = 0;
    for _ in 0..5 {
        offset = write(&logs, append(&one, &order, offset, line.clone())).await.unwrap();
    }
    assert_eq!(offset, length * 5);
    let query = LogQuery { rollout: id.to_string(), server: None, step: None, since: 0, until: Until::Now };
    let mut parts = fixture.controller.read_logs(query).await.unwrap();
    let part = parts.recv().await.unwrap().unwrap();
    assert_eq!(part.records, [line.clone(), line].concat());
    assert!(parts.recv().await.is_none());
}

#[tokio::test]
async fn logs_are_read_by_server_and_step_from_an_offset() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let mut two = fixture.connect("web-2").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let logs = writer(&fixture, 1 << 20);
    let mut lengths = Vec::new();
    for agent in [&mut one, &mut two] {
        let order = agent.order().await;
        agent.accept(&order).await;
        let first = write(&logs, append(agent, &order, 0, records("first\n"))).await.unwrap();
        write(&logs, append(agent, &order, first, records("second\n"))).await.unwrap();
        lengths.push(first);
    }
    let query = |server: Option<&str>, step: &str, since| LogQuery {
        rollout: id.to_string(),
        server: server.map(|name| name.parse().unwrap()),
        step: Some(step.to_owned()),
        since,
        until: Until::Now,
    };
    let mut parts = fixture.controller.read_logs(query(Some("web-2"), "migrate", lengths[1])).await.unwrap();
    let part = parts.recv().await.unwrap().unwrap();
    assert_eq!((part.server.as_str(), part.step.as_str()), ("web-2", "migrate"));
    assert_eq!(part.records, records("second\n"));
    assert!(parts.recv().await.is_none());

    let mut none = fixture.controller.read_logs(query(None, "restart", 0)).await.unwrap();
    assert!(none.recv().await.is_none());
    let mut ambiguous = fixture.controller.read_logs(query(None, "migrate", 5)).await.unwrap();
    let error = ambiguous.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, FollowError::SinceAmbiguous { matching: 2 }), "{error}");
    let mut inside = fixture.controller.read_logs(query(Some("web-1"), "migrate", 3)).await.unwrap();
    let error = inside.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, FollowError::SinceInside { .. }), "{error}");
}
