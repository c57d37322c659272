//! The engine: exhaustively on small fleets, by chance on larger ones, and by example.

mod budget;
mod exhaustive;
mod once;
mod stages;
mod verbs;
mod waves;

use std::collections::BTreeSet;

use consign_common::{name::ServerName, time::UnixMs};

use super::*;

pub(super) fn server(number: usize) -> ServerName {
    format!("web-{number}").parse().unwrap()
}

pub(super) fn request(kind: Kind, servers: usize, waves: &[&str], strategy: Strategy) -> Request {
    let candidate = |n: usize| Candidate {
        server: server(n),
        presence: Presence::Enabled,
        place: Place::Fleet,
        group: if n.is_multiple_of(2) { "even".into() } else { "odd".into() },
    };
    Request {
        kind,
        targets: waves.iter().map(|text| text.parse().unwrap()).collect(),
        canaries: None,
        strategy,
        candidates: (1..=servers).map(candidate).collect(),
        once: BTreeSet::new(),
        not_before: UnixMs(0),
    }
}

pub(super) fn planned(kind: Kind, servers: usize, waves: &[&str]) -> Rollout {
    plan(request(kind, servers, waves, Strategy::default())).unwrap()
}

pub(super) fn with(strategy: Strategy, servers: usize, waves: &[&str]) -> Rollout {
    plan(request(Kind::Deploy, servers, waves, strategy)).unwrap()
}

pub(super) fn good() -> End {
    End::Succeeded { tolerated: Vec::new() }
}

pub(super) fn failed() -> End {
    End::Failed { because: "exit code 1".into() }
}

pub(super) fn returned() -> End {
    End::Returned { because: "healthy: timed out".into() }
}

pub(super) fn about(n: usize, news: News) -> Event {
    Event::Server { server: server(n), news }
}

pub(super) fn ended(n: usize, end: End) -> Event {
    about(n, News::Ended(end))
}

/// A ready server that takes it, and ends like this.
pub(super) fn through(n: usize, end: End) -> [Event; 2] {
    [about(n, News::Ready), ended(n, end)]
}

pub(super) fn run_at(
    mut rollout: Rollout,
    now: u64,
    events: impl IntoIterator<Item = Event>,
) -> (Rollout, Vec<Command>) {
    let mut commands = Vec::new();
    for event in events {
        let (next, more) = apply(rollout, event, UnixMs(now));
        rollout = next;
        commands.extend(more);
    }
    (rollout, commands)
}

pub(super) fn run(rollout: Rollout, events: impl IntoIterator<Item = Event>) -> (Rollout, Vec<Command>) {
    run_at(rollout, 0, events)
}

pub(super) fn pressed(rollout: Rollout, verb: Verb) -> (Rollout, Vec<Command>) {
    press(rollout, verb, "asked by ann", UnixMs(0)).unwrap()
}

pub(super) fn states(rollout: &Rollout) -> Vec<&'static str> {
    rollout.members.iter().map(|member| member.state.as_str()).collect()
}

pub(super) fn verdict(rollout: &Rollout) -> (Final, &str) {
    let verdict = rollout.verdict().expect("it has not ended");
    (verdict.state, verdict.because.as_str())
}

pub(super) fn find(n: usize) -> Command {
    Command::Find { server: server(n) }
}

pub(super) fn order(n: usize) -> Command {
    Command::Order { server: server(n) }
}
