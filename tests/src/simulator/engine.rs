//! The engine, with a bug around it where one is switched on: what goes in or what comes out is altered, the engine itself
//! never.

use consign_common::time::UnixMs;
use consign_coordinator::rollout::{
    self, Command, End, Event, Illegal, Kind, OnceState, Phase, Rollout, ServerState, Verb,
};

use super::bug::Bug;

pub(super) fn apply(
    bug: Option<Bug>,
    rollout: Rollout,
    event: Event,
    now: UnixMs,
) -> (Rollout, Vec<Command>) {
    let Some(bug) = bug else { return rollout::apply(rollout, event, now) };
    let (altered, restore) = alter(bug, rollout);
    let event = mistaken(bug, event);
    let (next, commands) = rollout::apply(altered, event, now);
    (spoil(bug, restore(next)), commands)
}

pub(super) fn press(
    bug: Option<Bug>,
    rollout: Rollout,
    verb: Verb,
    because: &str,
    now: UnixMs,
) -> Result<(Rollout, Vec<Command>), Illegal> {
    let Some(bug) = bug else { return rollout::press(rollout, verb, because, now) };
    let retries = verb == Verb::Retry;
    let (altered, restore) = alter(bug, rollout);
    let (next, commands) = rollout::press(altered, verb, because, now)?;
    let mut next = spoil(bug, restore(next));
    if bug == Bug::RetryForgetsOnce && retries {
        next.once.values_mut().for_each(|once| *once = rollout::Once::default());
    }
    Ok((next, commands))
}

type Restore = Box<dyn FnOnce(Rollout) -> Rollout>;

/// What the engine is shown instead of the rollout, and how that is undone.
fn alter(bug: Bug, mut rollout: Rollout) -> (Rollout, Restore) {
    let wave = match rollout.phase {
        Phase::Running { wave, .. } => wave,
        Phase::Queued { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } | Phase::Ended { .. } => 0,
    };
    if bug == Bug::BudgetPerWave && wave > 1 {
        let own = rollout.strategy.clone();
        let earlier = rollout.members.iter().filter(|member| member.wave < wave);
        let failed = earlier.filter(|member| member.state.end().is_some_and(End::is_failure)).count();
        rollout.strategy.failures += u32::try_from(failed).unwrap_or(0);
        rollout.strategy.group = None;
        return (rollout, Box::new(move |next| Rollout { strategy: own, ..next }));
    }
    if bug == Bug::MinHealthyForgetsFlight {
        let own = rollout.strategy.clone();
        let flying = rollout.members.iter().filter(|member| member.wave > 0 && in_flight(&member.state));
        let flying = u32::try_from(flying.count()).unwrap_or(0);
        if rollout.strategy.min_healthy > 0 {
            rollout.strategy.min_healthy = rollout.strategy.min_healthy.saturating_sub(flying).max(1);
        }
        return (rollout, Box::new(move |next| Rollout { strategy: own, ..next }));
    }
    if bug == Bug::OrderWhilePaused {
        let paused = rollout.paused.take();
        let restore = move |next: Rollout| match next.phase {
            Phase::Running { .. } => Rollout { paused: next.paused.clone().or(paused), ..next },
            Phase::Queued { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } | Phase::Ended { .. } => {
                next
            }
        };
        return (rollout, Box::new(restore));
    }
    (rollout, Box::new(|next| next))
}

fn in_flight(state: &ServerState) -> bool {
    matches!(state, ServerState::Due { .. }) || state.is_ordered()
}

fn mistaken(bug: Bug, event: Event) -> Event {
    use consign_coordinator::rollout::News;
    match (bug, event) {
        (Bug::GoneIsFailed, Event::Server { server, news: News::Absent | News::Lost { .. } }) => {
            let because = "it is not there".to_owned();
            Event::Server { server, news: News::Ended(End::Failed { because }) }
        }
        (_, event) => event,
    }
}

fn spoil(bug: Bug, mut next: Rollout) -> Rollout {
    if bug == Bug::GreenTooEarly
        && next.kind == Kind::Deploy
        && let Phase::Ended { verdict } = &mut next.phase
    {
        let open = |end: &End| matches!(end, End::Owed | End::Unknown { .. });
        if next.members.iter().any(|member| member.state.end().is_some_and(open)) {
            verdict.state = rollout::Final::Succeeded;
        }
    }
    for once in next.once.values_mut() {
        let forgotten = match once.state.clone() {
            OnceState::Granted { server, .. } if bug == Bug::TwoGrants => Some(server),
            OnceState::Unknown { server, .. } if bug == Bug::GrantAfterUnknown => Some(server),
            OnceState::Granted { .. }
            | OnceState::Unknown { .. }
            | OnceState::Open
            | OnceState::Done { .. }
            | OnceState::Failed { .. } => None,
        };
        if let Some(server) = forgotten {
            once.passed.insert(server);
            once.state = OnceState::Open;
        }
    }
    next
}
