//! A recorded rollout, drawn.

use consign_common::{
    deployment::log::{Stream, encode_into},
    time::UnixMs,
};
use consign_proto::v1::{Deployment, FollowEvent, LogPart, Rollout, StepView, follow_event::Kind};

use super::{
    live::{self, Size},
    plain,
    result::result_servers,
    run::after_way_back,
    view::{Event, View},
};
use crate::cli::failure::Exit;

const T0: u64 = 1_700_000_000_000;

fn event(cursor: u64, after_ms: u64, kind: Kind) -> Event {
    Event::from_wire(FollowEvent { cursor, at_ms: T0 + after_ms, kind: Some(kind) }).unwrap()
}

fn rollout(state: &str, ended: Option<(u64, u32)>) -> Kind {
    let (ended_ms, exit_code) = ended.map_or((0, 0), |(after, code)| (T0 + after, code));
    Kind::Rollout(Rollout {
        id: "0a1b2c3d".repeat(4),
        kind: "deploy".into(),
        app: "shop".into(),
        version: "1.4.0".into(),
        environment: "staging".into(),
        state: state.into(),
        because: if state == "stopped" { "web-2 failed".into() } else { String::new() },
        started_ms: T0,
        ended_ms,
        exit_code,
        ..Default::default()
    })
}

fn deployment(server: &str, wave: u32, state: &str, because: &str, steps: Vec<StepView>) -> Kind {
    Kind::Deployment(Deployment {
        server: server.into(),
        wave,
        state: state.into(),
        because: because.into(),
        steps,
        ..Default::default()
    })
}

fn step(index: u32, name: &str, state: &str, because: &str, from_to: (u64, u64)) -> StepView {
    let at = |after| if after == 0 { 0 } else { T0 + after };
    StepView {
        phase: "deploy".into(),
        index,
        name: name.into(),
        kind: "run".into(),
        state: state.into(),
        because: because.into(),
        attempts: u32::from(state != "pending" && state != "skipped"),
        started_ms: at(from_to.0),
        ended_ms: at(from_to.1),
        log_bytes: 0,
    }
}

fn log(server: &str, step: &str, after_ms: u64, offset: u64, stream: Stream, data: &[u8]) -> Kind {
    let mut records = Vec::new();
    encode_into(&mut records, UnixMs(T0 + after_ms), stream, data);
    Kind::Log(LogPart {
        server: server.into(),
        deployment: format!("d-{server}"),
        attempt: "deploy-0-1".into(),
        step: step.into(),
        offset,
        records: records.into(),
    })
}

const SKIP: &str = "changed('migrations/**') is false";

fn recorded() -> Vec<Event> {
    vec![
        event(1, 0, rollout("running", None)),
        event(2, 0, deployment("web-1", 1, "pending", "", vec![])),
        event(3, 0, deployment("web-2", 2, "pending", "", vec![])),
        event(4, 10, deployment("web-1", 1, "ordered", "", vec![])),
        event(
            5,
            30,
            deployment(
                "web-1",
                1,
                "running",
                "",
                vec![step(0, "build", "running", "", (30, 0)), step(1, "migrate", "pending", "", (0, 0))],
            ),
        ),
        event(6, 40, log("web-1", "build", 40, 0, Stream::Stdout, b"compiling \x1b[31mshop\n")),
        event(7, 50, log("web-1", "build", 50, 37, Stream::Stderr, b"warning: old\nhalf a line")),
        event(
            8,
            1530,
            deployment(
                "web-1",
                1,
                "succeeded",
                "",
                vec![
                    step(0, "build", "succeeded", "", (30, 1530)),
                    step(1, "migrate", "skipped", SKIP, (0, 1530)),
                ],
            ),
        ),
        event(
            9,
            2000,
            deployment("web-2", 2, "running", "", vec![step(0, "build", "running", "", (2000, 0))]),
        ),
        event(
            10,
            2500,
            deployment(
                "web-2",
                2,
                "failed",
                "step build: exit code 1",
                vec![step(0, "build", "failed", "exit code 1", (2000, 2500))],
            ),
        ),
        event(11, 2600, rollout("stopped", Some((2600, 3)))),
    ]
}

fn plain_lines(view: &mut View, events: Vec<Event>) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        lines.extend(view.apply(event, |_| {}).iter().map(plain::line));
    }
    lines.extend(view.finish().iter().map(plain::line));
    lines
}

#[test]
fn in_ci_every_happening_is_a_line() {
    let mut view = View::default();
    let lines = plain_lines(&mut view, recorded()).join("\n");
    insta::assert_snapshot!(format!("{lines}\n{}", result_servers(&view.whole())));
    assert_eq!(Exit::of_rollout(view.whole().exit_code), Exit::Stopped);
}

#[test]
fn on_a_terminal_output_scrolls_over_the_servers() {
    let mut view = View::default();
    let mut scrolled = Vec::new();
    for event in recorded().into_iter().take(9) {
        scrolled.extend(view.apply(event, |_| {}).iter().filter_map(live::scrolled));
    }
    let size = Size { columns: 80, rows: 24 };
    let standing = live::standing(&view, UnixMs(T0 + 2300), size);
    insta::assert_snapshot!(format!("{}\n--------\n{}", scrolled.join("\n"), standing.join("\n")));
}

#[test]
fn a_small_terminal_shows_first_where_something_happens() {
    let mut view = View::default();
    view.apply(event(1, 0, rollout("running", None)), |_| {});
    for number in 0..50 {
        let state = if number == 42 { "running" } else { "pending" };
        view.apply(event(2, 0, deployment(&format!("web-{number}"), 1, state, "", vec![])), |_| {});
    }
    let lines = live::standing(&view, UnixMs(T0), Size { columns: 40, rows: 20 });
    assert!(lines.len() <= 12, "{lines:?}");
    assert!(lines[2].contains("web-42"), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("  … and 43 more"));
    assert!(lines.iter().all(|line| line.chars().count() < 40), "{lines:?}");
}

#[test]
fn after_a_reconnect_nothing_is_told_twice() {
    let mut view = View::default();
    let once = plain_lines(&mut view, recorded());
    let mut view = View::default();
    let mut twice = Vec::new();
    for event in recorded().into_iter().take(7).chain(recorded()) {
        twice.extend(view.apply(event, |_| {}).iter().map(plain::line));
    }
    twice.extend(view.finish().iter().map(plain::line));
    assert_eq!(once, twice);
    assert_eq!(view.cursor(), 11);
}

#[test]
fn a_script_gets_each_record_and_each_state() {
    let mut view = View::default();
    let mut lines = Vec::new();
    for event in recorded() {
        view.apply(event, |line| lines.push(serde_json::to_string(&line).unwrap()));
    }
    let outputs: Vec<&String> = lines.iter().filter(|line| line.contains(r#""event":"output""#)).collect();
    assert_eq!(outputs.len(), 2);
    assert!(
        outputs[1].contains(r#""stream":"stderr","offset":37,"text":"warning: old\nhalf a line""#),
        "{outputs:?}"
    );
    assert!(lines.last().unwrap().contains(r#""exit_code":3"#));
}

#[test]
fn a_rollout_that_rolled_itself_back_ends_as_the_way_back_did() {
    assert_eq!(after_way_back(Exit::Stopped, Exit::Done), Exit::Returned);
    assert_eq!(after_way_back(Exit::Partial, Exit::Done), Exit::Returned);
    assert_eq!(after_way_back(Exit::Refused, Exit::Done), Exit::Refused, "a gate's word is told first");
    assert_eq!(after_way_back(Exit::Stopped, Exit::Stopped), Exit::Stopped);
    assert_eq!(after_way_back(Exit::Stopped, Exit::Partial), Exit::Partial);
}

#[test]
fn time_that_passes_is_shown_without_news() {
    let mut view = View::default();
    let Kind::Rollout(wire) = rollout("running", None) else { panic!("not a rollout") };
    let baking = Rollout {
        stage: "baking".into(),
        wave: 1,
        last_wave: 3,
        deadline_ms: T0 + 300_000,
        because: "waiting for wave 2 of 3: bake 5m00s left".into(),
        ..wire
    };
    view.apply(event(1, 0, Kind::Rollout(baking)), |_| {});
    let because = |after_ms| view.current(UnixMs(T0 + after_ms)).because;
    assert_eq!(because(0), "waiting for wave 2 of 3: bake 5 min 0 s left");
    assert_eq!(because(290_000), "waiting for wave 2 of 3: bake 10 s left");
}
