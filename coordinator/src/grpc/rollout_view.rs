//! Rollouts as they are sent.

use consign_common::{plan::Phase, time::UnixMs};
use consign_proto::v1;

use super::{environments, settings};
use crate::{
    fleet::{Foreseeing, Held, Prospect},
    rollout::{self, Kind, Member, OnceState, ServerState},
    rollouts::{Bar, DeploymentRow, Foretold, HistoryRow, Preview, Shown, StepView, Timeline, What},
};

pub(super) fn rollout(shown: &Shown) -> v1::Rollout {
    let row = &shown.row;
    let (wave, stage) = match &row.state.phase {
        rollout::Phase::Running { wave, stage } => (*wave, stage.as_str()),
        rollout::Phase::Queued { .. }
        | rollout::Phase::Stopping { .. }
        | rollout::Phase::Aborting { .. }
        | rollout::Phase::Ended { .. } => (0, ""),
    };
    v1::Rollout {
        id: row.id.to_string(),
        kind: match row.state.kind {
            Kind::Deploy => "deploy".to_owned(),
            Kind::Return => "return".to_owned(),
        },
        app: row.app.to_string(),
        version: row.version.to_string(),
        environment: row.environment.to_string(),
        digest: row.digest.to_string(),
        state: shown.state().to_owned(),
        because: shown.because(),
        exit_code: shown.exit_code().into(),
        started_ms: row.started.0,
        ended_ms: row.ended.0,
        started_by: row.started_by.clone(),
        waves: row.waves.clone(),
        deployments: row.state.members.iter().map(|member| deployment(shown, member)).collect(),
        term: row.term,
        reason: row.reason.clone(),
        wave,
        last_wave: row.state.last_wave(),
        stage: stage.to_owned(),
        deadline_ms: row.state.wake().unwrap_or_default().0,
        paused: row.state.paused.as_ref().map(|pause| pause.because.clone()).unwrap_or_default(),
        hold: shown.hold.as_ref().map(environments::hold),
        once: row.state.once.iter().map(|(step, once)| once_step(step.as_str(), &once.state)).collect(),
        rolled_back_by: row.rolled_back_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        selector: row.selector.clone(),
        plan: row.pinned.as_ref().map(|pinned| pinned.digest.to_string()).unwrap_or_default(),
        skips: row
            .state
            .skips
            .iter()
            .map(|skip| v1::SkippedStep {
                step: skip.step.to_string(),
                server: skip.server.as_ref().map(ToString::to_string).unwrap_or_default(),
            })
            .collect(),
        settings: Some(settings::of_strategy(&row.state.strategy, &row.waves)),
    }
}

fn once_step(step: &str, state: &OnceState) -> v1::OnceStep {
    let (server, because) = match state {
        OnceState::Open => (String::new(), String::new()),
        OnceState::Granted { server, .. } | OnceState::Done { server } => (server.to_string(), String::new()),
        OnceState::Failed { server, because } | OnceState::Unknown { server, because } => {
            (server.to_string(), because.clone())
        }
    };
    v1::OnceStep { step: step.to_owned(), state: state.as_str().to_owned(), server, because }
}

pub(super) fn deployment(shown: &Shown, member: &Member) -> v1::Deployment {
    let state = member.state.as_str().to_owned();
    let row = shown.deployment(member);
    v1::Deployment {
        id: row.filter(|_| state != "pending").map(|row| row.id.to_string()).unwrap_or_default(),
        server: member.server.to_string(),
        wave: member.wave,
        because: because(&member.state, row),
        state,
        steps: row.map(|row| row.view.steps.iter().map(step).collect()).unwrap_or_default(),
        release_before: row
            .and_then(|row| row.view.previous.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        attempt: row.map_or(0, |row| row.attempt),
        confirm_until_ms: row.and_then(|row| row.view.confirm_until).unwrap_or_default().0,
    }
}

/// The engine's word, but for what only the server knows: how far it is, and until when it waits.
fn because(state: &ServerState, row: Option<&DeploymentRow>) -> String {
    let progress = row.map(|row| row.view.progress.clone()).unwrap_or_default();
    let from_server = match state {
        ServerState::Pending | ServerState::Due { .. } | ServerState::Ended { .. } => false,
        ServerState::Confirming { .. } => !progress.is_empty(),
        ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Returning => state.because().is_empty(),
    };
    if from_server { progress } else { state.because() }
}

fn step(step: &StepView) -> v1::StepView {
    let UnixMs(started_ms) = step.started;
    let UnixMs(ended_ms) = step.ended;
    v1::StepView {
        phase: step.phase.as_str().to_owned(),
        index: step.index,
        name: step.name.to_string(),
        kind: step.kind.clone(),
        state: step.state.as_str().to_owned(),
        because: step.because.clone(),
        attempts: u32::try_from(step.attempts.len()).unwrap_or(u32::MAX),
        started_ms,
        ended_ms,
        log_bytes: step.attempts.values().flatten().sum(),
    }
}

pub(super) fn happening(row: HistoryRow) -> v1::Happening {
    v1::Happening { at_ms: row.at.0, who: row.who, what: row.what, because: row.because }
}

pub(super) fn timeline(timeline: &Timeline) -> v1::Timeline {
    let servers = timeline
        .lines
        .iter()
        .map(|line| v1::TimelineServer {
            server: line.server.to_string(),
            wave: line.wave,
            attempt: line.attempt,
            state: line.state.to_owned(),
            bars: line.bars.iter().map(bar).collect(),
        })
        .collect();
    v1::Timeline {
        rollout: Some(v1::Rollout { deployments: Vec::new(), ..rollout(&timeline.shown) }),
        now_ms: timeline.shown.now.0,
        waves: timeline.waves.iter().map(bar).collect(),
        servers,
    }
}

fn bar(bar: &Bar) -> v1::Bar {
    let wire = v1::Bar { from_ms: bar.from.0, to_ms: bar.to.unwrap_or_default().0, ..v1::Bar::default() };
    match &bar.what {
        What::Milestone(what) => v1::Bar { what: what.clone(), ..wire },
        What::Staging => v1::Bar { what: "staging".to_owned(), ..wire },
        What::Confirming => v1::Bar { what: "confirming".to_owned(), ..wire },
        What::Awaiting { name } => v1::Bar { what: "awaiting".to_owned(), step: name.clone(), ..wire },
        What::Undecided { name } => v1::Bar { what: "undecided".to_owned(), step: name.clone(), ..wire },
        What::Step { attempt, name, state } => v1::Bar {
            what: "step".to_owned(),
            phase: match attempt.phase {
                Phase::Deploy => "deploy".to_owned(),
                Phase::Return => "return".to_owned(),
            },
            index: attempt.step,
            step: name.clone(),
            attempt: attempt.number,
            state: state.as_str().to_owned(),
            ..wire
        },
    }
}

pub(super) fn plan(preview: &Preview) -> v1::Plan {
    v1::Plan {
        digest: preview.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        app: preview.app.to_string(),
        version: preview.version.to_string(),
        environment: preview.environment.to_string(),
        artifact: preview.artifact.to_string(),
        made_ms: preview.made.0,
        servers: preview
            .servers
            .iter()
            .map(|(server, foretold)| {
                let planned = planned(foretold);
                v1::PlannedServer { server: server.to_string(), ..planned }
            })
            .collect(),
    }
}

fn planned(foretold: &Foretold) -> v1::PlannedServer {
    let of = |state: &str, because: &str| v1::PlannedServer {
        state: state.to_owned(),
        because: because.to_owned(),
        ..v1::PlannedServer::default()
    };
    match foretold {
        Foretold::Answered(Prospect::Steps { steps, held }) => {
            let Held { code, message } = held.clone().unwrap_or_default();
            let steps = steps.iter().map(planned_step).collect();
            v1::PlannedServer { code, steps, ..of("planned", &message) }
        }
        Foretold::Answered(Prospect::NoOp { .. }) => of("no-op", "it runs this already"),
        Foretold::Answered(Prospect::Refused { code, message }) => {
            v1::PlannedServer { code: code.clone(), ..of("refused", message) }
        }
        Foretold::Disabled { because } => of("disabled", because),
        Foretold::NotConnected => of("not-connected", "it is not connected"),
        Foretold::Silent => of("silent", "it did not answer in time"),
    }
}

fn planned_step(foreseeing: &Foreseeing) -> v1::PlannedStep {
    v1::PlannedStep {
        name: foreseeing.step.to_string(),
        kind: foreseeing.kind.clone(),
        decision: foreseeing.decision.as_str().to_owned(),
        because: foreseeing.decision.because().to_owned(),
    }
}
