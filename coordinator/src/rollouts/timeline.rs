//! When what happened on which server: the agents' own events as bars of time, with the attempts that a retry replaced.

use consign_common::{
    deployment::{Attempt, Event, StepOutcome},
    json,
    limits::EVENT_BYTES,
    name::{Id, ServerName},
    plan::Phase,
    time::UnixMs,
};

use super::{
    admission::NotStarted,
    controller::Controller,
    rows::{DeploymentRow, HistoryRow},
    show::Shown,
    store,
    view::{StepState, View},
};

#[derive(Clone, Debug)]
pub struct Timeline {
    pub shown: Shown,
    /// The rollout's own: its waves, bakes and pauses.
    pub waves: Vec<Bar>,
    /// By wave and name, each with its attempts.
    pub lines: Vec<Line>,
}

/// One attempt at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub server: ServerName,
    pub wave: u32,
    pub attempt: u32,
    pub state: &'static str,
    pub bars: Vec<Bar>,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    pub what: What,
    pub from: UnixMs,
    /// `None`: it goes on.
    pub to: Option<UnixMs>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// What the rollout was at.
    Milestone(String),
    Staging,
    Step {
        attempt: Attempt,
        name: String,
        state: StepState,
    },
    /// Before a `once` step.
    Awaiting {
        name: String,
    },
    /// A person is to say how a step ended.
    Undecided {
        name: String,
    },
    Confirming,
}

impl Controller {
    /// `given` is the rollout's id, or the beginning of it.
    pub async fn timeline(&self, given: &str) -> Result<Timeline, NotStarted> {
        let shown = self.show(given).await?;
        let history = self.history_of(&shown.row.id).await?;
        let mut lines = Vec::new();
        for member in &shown.row.state.members {
            let of_server = shown.deployments.iter().filter(|row| row.server == member.server);
            let newest = shown.deployment(member).map(|row| row.id.clone());
            for row in of_server {
                let bars = bars(&self.events(row).await?, &row.view);
                let is_newest = newest.as_ref() == Some(&row.id);
                lines.push(Line {
                    server: member.server.clone(),
                    wave: member.wave,
                    attempt: row.attempt,
                    state: if is_newest { member.state.as_str() } else { "replaced" },
                    bars,
                });
            }
        }
        let waves = milestones(&history, shown.row.started, shown.row.is_ended().then_some(shown.row.ended));
        Ok(Timeline { shown, waves, lines })
    }

    /// Who did what to the rollout, and what it did by itself, oldest first.
    pub async fn history(&self, given: &str) -> Result<(Id, Vec<HistoryRow>), NotStarted> {
        let id = self.show(given).await?.row.id;
        let history = self.history_of(&id).await?;
        Ok((id, history))
    }

    async fn history_of(&self, id: &Id) -> Result<Vec<HistoryRow>, NotStarted> {
        const LINES: u32 = 10_000;
        Ok(store::history(self.store.read(), id, LINES).await?)
    }

    async fn events(&self, row: &DeploymentRow) -> Result<Vec<(UnixMs, Event)>, NotStarted> {
        let events = store::events(self.store.read(), &row.id).await?;
        // All were read once before they were kept.
        let read = |(at, body): (UnixMs, Vec<u8>)| Some((at, json::from_slice(&body, EVENT_BYTES).ok()?));
        Ok(events.into_iter().filter_map(read).collect())
    }
}

/// What the rollout was at, from its history.
fn milestones(history: &[HistoryRow], started: UnixMs, ended: Option<UnixMs>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let mut open: Option<(String, UnixMs)> = Some(("queued".to_owned(), started));
    let close = |open: &mut Option<(String, UnixMs)>, at: UnixMs, bars: &mut Vec<Bar>| {
        if let Some((what, from)) = open.take().filter(|(_, from)| *from < at) {
            bars.push(Bar { what: What::Milestone(what), from, to: Some(at) });
        }
    };
    // What persons did has a line of its own; here is what followed.
    for row in history.iter().filter(|row| row.who.is_empty()) {
        let takes_time = row.what.starts_with("wave ")
            || matches!(row.what.as_str(), "queued" | "paused" | "stopping" | "aborting");
        if row.what.starts_with("converge ") || row.what == "decide" {
            continue;
        }
        close(&mut open, row.at, &mut bars);
        if takes_time {
            open = Some((row.what.clone(), row.at));
        }
    }
    match ended {
        Some(ended) => close(&mut open, ended, &mut bars),
        None => {
            let open = open.map(|(what, from)| Bar { what: What::Milestone(what), from, to: None });
            bars.extend(open);
        }
    }
    bars
}

fn bars(events: &[(UnixMs, Event)], view: &View) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let name = |phase, step| view.step_name(Attempt { phase, step, number: 1 });
    for (at, event) in events {
        let at = *at;
        match event {
            Event::Accepted { .. } => bars.push(Bar { what: What::Staging, from: at, to: None }),
            Event::Staging { .. } | Event::Spawned { .. } | Event::Skipped { .. } => {}
            Event::Staged { .. }
            | Event::Answered { .. }
            | Event::Decided { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Cancelling { .. } => close_waiting(&mut bars, at),
            Event::Started { attempt, .. } => {
                close_waiting(&mut bars, at);
                let name = view.step_name(*attempt);
                let what = What::Step { attempt: *attempt, name, state: StepState::Running };
                bars.push(Bar { what, from: at, to: None });
            }
            Event::Finished { attempt, result, .. } => {
                close_step(&mut bars, |other| other == *attempt, end_of(result), at);
            }
            Event::Awaiting { step } => {
                close_waiting(&mut bars, at);
                let what = What::Awaiting { name: name(Phase::Deploy, *step) };
                bars.push(Bar { what, from: at, to: None });
            }
            Event::Undecided { phase, step, .. } => {
                let same = |other: Attempt| (other.phase, other.step) == (*phase, *step);
                close_step(&mut bars, same, StepState::Unknown, at);
                bars.push(Bar { what: What::Undecided { name: name(*phase, *step) }, from: at, to: None });
            }
            Event::Confirming { .. } => {
                close_waiting(&mut bars, at);
                bars.push(Bar { what: What::Confirming, from: at, to: None });
            }
            Event::Returning { .. } => close_waiting(&mut bars, at),
            Event::Ended { .. } => {
                close_waiting(&mut bars, at);
                close_step(&mut bars, |_| true, StepState::Unknown, at);
            }
        }
    }
    bars
}

/// What is no step ends when anything else begins.
fn close_waiting(bars: &mut [Bar], at: UnixMs) {
    for bar in bars.iter_mut().filter(|bar| bar.to.is_none()) {
        match bar.what {
            What::Milestone(_)
            | What::Staging
            | What::Awaiting { .. }
            | What::Undecided { .. }
            | What::Confirming => bar.to = Some(at.max(bar.from)),
            What::Step { .. } => {}
        }
    }
}

fn close_step(bars: &mut [Bar], meant: impl Fn(Attempt) -> bool, end: StepState, at: UnixMs) {
    for bar in bars.iter_mut().filter(|bar| bar.to.is_none()) {
        if let What::Step { attempt, state, .. } = &mut bar.what
            && meant(*attempt)
        {
            *state = end;
            bar.to = Some(at.max(bar.from));
        }
    }
}

fn end_of(result: &StepOutcome) -> StepState {
    match result {
        StepOutcome::Succeeded => StepState::Succeeded,
        StepOutcome::Skipped { .. } => StepState::Skipped,
        StepOutcome::Failed { .. } => StepState::Failed,
        StepOutcome::Unknown { .. } => StepState::Unknown,
        StepOutcome::Cancelled => StepState::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &[(u64, &str, &str)]) -> Vec<HistoryRow> {
        let row = |(at, who, what): &(u64, &str, &str)| HistoryRow {
            at: UnixMs(*at),
            who: (*who).to_owned(),
            what: (*what).to_owned(),
            because: String::new(),
        };
        lines.iter().map(row).collect()
    }

    #[test]
    fn a_rollouts_bars_follow_from_its_history() {
        let history = history(&[
            (100, "ada", "start"),
            (150, "", "wave 1"),
            (300, "", "wave 1: bake"),
            (350, "ada", "pause"),
            (350, "", "paused"),
            (400, "ada", "resume"),
            (400, "", "wave 2"),
            (450, "", "converge web-9"),
            (500, "", "succeeded"),
        ]);
        let told: Vec<_> = milestones(&history, UnixMs(100), Some(UnixMs(500)))
            .into_iter()
            .map(|bar| {
                let What::Milestone(what) = bar.what else { panic!("{bar:?}") };
                (what, bar.from.0, bar.to.unwrap().0)
            })
            .collect();
        let expected = [
            ("queued", 100, 150),
            ("wave 1", 150, 300),
            ("wave 1: bake", 300, 350),
            ("paused", 350, 400),
            ("wave 2", 400, 500),
        ];
        assert_eq!(told, expected.map(|(what, from, to)| (what.to_owned(), from, to)));
    }

    #[test]
    fn a_step_that_never_ended_has_no_end_of_its_own() {
        let attempt = |number| Attempt { phase: Phase::Deploy, step: 0, number };
        let started = |number| Event::Started { attempt: attempt(number), boot_id: "b".into() };
        let undecided = Event::Undecided { phase: Phase::Deploy, step: 0, because: "power".into() };
        let events = [(UnixMs(1), started(1)), (UnixMs(5), undecided), (UnixMs(9), started(2))];
        let bars = bars(&events, &View::default());
        let ends: Vec<_> = bars.iter().map(|bar| (bar.from.0, bar.to.map(|to| to.0))).collect();
        assert_eq!(ends, [(1, Some(5)), (5, Some(9)), (9, None)]);
        assert!(matches!(bars[0].what, What::Step { state: StepState::Unknown, .. }), "{bars:?}");
    }
}
