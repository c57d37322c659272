//! What follows by itself: orders, the next wave, a stop, the end.

use std::collections::BTreeMap;

use consign_common::{name::ServerName, time::UnixMs};

use super::{
    engine::{Command, end, set},
    state::{End, Kind, Phase, Rollout, ServerState, Stage, Stop, Told},
    strategy::OnStop,
    verdict::{Cause, Verdict, changed_and_not_back, is_intolerable},
};

/// Names in one line; the others are counted.
const NAMES: usize = 5;

pub(super) fn advance(rollout: &mut Rollout, now: UnixMs, commands: &mut Vec<Command>) {
    if !matches!(rollout.phase, Phase::Stopping { .. } | Phase::Aborting { .. }) {
        rollout.once_answer(commands);
    }
    while step(rollout, now, commands) == Onward::Again {}
}

#[derive(PartialEq)]
enum Onward {
    Again,
    /// Something must happen first.
    Wait,
}

fn step(rollout: &mut Rollout, now: UnixMs, commands: &mut Vec<Command>) -> Onward {
    match rollout.phase.clone() {
        Phase::Queued { .. } => Onward::Wait,
        Phase::Running { wave, stage } => {
            if let Some(because) = used_up(rollout) {
                rollout.phase = Phase::Stopping { because, stop: Stop::Budget };
                return Onward::Again;
            }
            running(rollout, wave, &stage, now, commands)
        }
        Phase::Stopping { because, stop } => {
            let told = format!("the rollout stopped: {because}");
            leave_out(rollout, &because);
            dismiss(rollout, &told, commands);
            finish(rollout, Cause::Stopped { because, stop }, commands)
        }
        Phase::Aborting { because } => {
            let told = because.clone();
            dismiss(rollout, &told, commands);
            finish(rollout, Cause::Aborted { because }, commands)
        }
        Phase::Ended { verdict } => {
            confirm(rollout, |_| true, commands);
            if !rollout.is_under_way() {
                rollout.phase = Phase::Ended { verdict: Verdict::of(rollout, verdict.cause) };
            }
            Onward::Wait
        }
    }
}

fn running(
    rollout: &mut Rollout,
    wave: u32,
    stage: &Stage,
    now: UnixMs,
    commands: &mut Vec<Command>,
) -> Onward {
    let next = match stage {
        Stage::Deploying => {
            if !is_deployed(rollout, wave) {
                return open(rollout, wave, now, commands);
            }
            let bakes = rollout.strategy.bake_ms > 0 && wave < rollout.last_wave() && changed(rollout, wave);
            let until = UnixMs(now.0.saturating_add(rollout.strategy.bake_ms));
            if bakes { Stage::Baking { until } } else { judge(rollout, wave, commands) }
        }
        Stage::Baking { until } if now < *until => return Onward::Wait,
        Stage::Baking { .. } => judge(rollout, wave, commands),
        Stage::Judging => return Onward::Wait,
        Stage::Confirming => {
            confirm(rollout, |of| of == wave, commands);
            if rollout.in_wave(wave).any(|member| member.state.end().is_none()) {
                return Onward::Wait;
            }
            if wave >= rollout.last_wave() {
                return finish(rollout, Cause::Finished, commands);
            }
            rollout.phase = Phase::Running { wave: wave + 1, stage: Stage::Deploying };
            return Onward::Again;
        }
    };
    rollout.phase = Phase::Running { wave, stage: next };
    Onward::Again
}

/// Every server of the wave took it, or did not; those that did may still wait to be confirmed.
fn is_deployed(rollout: &Rollout, wave: u32) -> bool {
    rollout.in_wave(wave).all(|member| match member.state {
        ServerState::Ended { .. } | ServerState::Confirming { .. } => true,
        ServerState::Pending
        | ServerState::Due { .. }
        | ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Returning => false,
    })
}

/// Whether there is anything to look at: a wave that ran it already, or in which nobody took it, is as it was.
fn changed(rollout: &Rollout, wave: u32) -> bool {
    rollout.in_wave(wave).any(|member| match &member.state {
        ServerState::Confirming { .. } | ServerState::Ended { end: End::Succeeded { .. } } => true,
        ServerState::Ended { .. }
        | ServerState::Pending
        | ServerState::Due { .. }
        | ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Returning => false,
    })
}

fn judge(rollout: &Rollout, wave: u32, commands: &mut Vec<Command>) -> Stage {
    if rollout.strategy.health.is_none() || rollout.kind == Kind::Return || !changed(rollout, wave) {
        return Stage::Confirming;
    }
    commands.push(Command::Probe { wave });
    Stage::Judging
}

/// Looks for servers of the wave, as many as may be out at once.
fn open(rollout: &mut Rollout, wave: u32, now: UnixMs, commands: &mut Vec<Command>) -> Onward {
    if rollout.paused.is_some() {
        return Onward::Wait;
    }
    let (members, down) = members_and_down(rollout);
    let must = rollout.strategy.min_healthy as usize;
    let mut room = if must == 0 { usize::MAX } else { members.saturating_sub(down).saturating_sub(must) };
    let mut under_way = rollout
        .in_wave(wave)
        .any(|member| member.state.end().is_none() && member.state != ServerState::Pending);
    // A way back goes on, one by one: staying on what is left helps nobody.
    if rollout.kind == Kind::Return && !under_way {
        room = room.max(1);
    }
    for member in rollout.members.iter_mut().filter(|member| member.wave == wave) {
        if member.state == ServerState::Pending && room > 0 {
            room -= 1;
            member.state = ServerState::Due { since: now };
            commands.push(Command::Find { server: member.server.clone() });
            under_way = true;
        }
    }
    if under_way {
        return Onward::Wait;
    }
    let because = format!("{must} of {members} servers must stay up, and {down} are not");
    rollout.phase = Phase::Stopping { because, stop: Stop::Capacity };
    Onward::Again
}

/// Whether the server's turn came too early: meanwhile others went down, and with it too few stay up. A way back goes on
/// one by one in any case.
pub(super) fn is_crowded(rollout: &Rollout, server: &ServerName) -> bool {
    let (members, down) = members_and_down(rollout);
    let must = rollout.strategy.min_healthy as usize;
    let waits = |state: &ServerState| matches!(state, ServerState::Pending | ServerState::Due { .. });
    let others = rollout.members.iter().filter(|member| member.server != *server);
    let alone = others.into_iter().all(|member| member.state.end().is_some() || waits(&member.state));
    must > 0 && down + must > members && !(rollout.kind == Kind::Return && alone)
}

/// Servers that are in a wave, and those of them that may not serve now.
fn members_and_down(rollout: &Rollout) -> (usize, usize) {
    let members = rollout.members.iter().filter(|member| member.wave > 0);
    let down = members.clone().filter(|member| is_out(&member.state)).count();
    (members.count(), down)
}

/// Whether the server may not serve now.
fn is_out(state: &ServerState) -> bool {
    match state {
        ServerState::Due { .. }
        | ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Returning => true,
        ServerState::Ended { end } => end.is_down(),
        ServerState::Pending | ServerState::Confirming { .. } => false,
    }
}

/// Why the rollout may not go on: counted over all of it, never over a wave.
pub(super) fn used_up(rollout: &Rollout) -> Option<String> {
    if rollout.kind == Kind::Return {
        return None;
    }
    let failed: Vec<_> = rollout
        .members
        .iter()
        .filter_map(|member| Some((member, member.state.end().filter(|end| end.is_failure())?)))
        .collect();
    if let Some((member, end)) = failed.iter().find(|(_, end)| is_intolerable(end)) {
        return Some(format!("{} is {}: {}", member.server, end.as_str(), end.told()));
    }
    let servers = |failed: &[&ServerName]| {
        let few: Vec<&str> = failed.iter().take(NAMES).map(|server| server.as_str()).collect();
        let more = failed.len().saturating_sub(NAMES);
        let few = few.join(", ");
        if more > 0 { format!("{few} and {more} more") } else { few }
    };
    let all: Vec<&ServerName> = failed.iter().map(|(member, _)| &member.server).collect();
    let tolerated = rollout.strategy.failures;
    if let ([(member, end)], 0) = (failed.as_slice(), tolerated) {
        return Some(format!("1 failed, 0 tolerated: {} {end}", member.server));
    }
    if all.len() > tolerated as usize {
        return Some(format!("{} failed, {tolerated} tolerated: {}", all.len(), servers(&all)));
    }
    let budget = rollout.strategy.group.as_ref()?;
    let mut groups: BTreeMap<&str, Vec<&ServerName>> = BTreeMap::new();
    for (member, _) in &failed {
        groups.entry(&member.group).or_default().push(&member.server);
    }
    let (group, over) = groups.into_iter().find(|(_, over)| over.len() > budget.failures as usize)?;
    Some(format!(
        "{} failed with {}={group}, {} tolerated: {}",
        over.len(),
        budget.label,
        budget.failures,
        servers(&over)
    ))
}

/// Servers that were not ordered will not be.
pub(super) fn leave_out(rollout: &mut Rollout, because: &str) {
    let left: Vec<ServerName> = rollout
        .members
        .iter()
        .filter(|member| matches!(member.state, ServerState::Pending | ServerState::Due { .. }))
        .map(|member| member.server.clone())
        .collect();
    for server in left {
        end(rollout, &server, End::NotReached { because: format!("not reached: {because}") });
    }
}

/// Servers that wait for our word get this one.
fn dismiss(rollout: &mut Rollout, because: &str, commands: &mut Vec<Command>) {
    for member in &mut rollout.members {
        match &mut member.state {
            ServerState::Awaiting { told, .. } | ServerState::Confirming { told } => {
                if *told == Told::NotYet {
                    *told = Told::Ordered;
                    let because = because.to_owned();
                    commands.push(Command::Cancel { server: member.server.clone(), because });
                }
            }
            ServerState::Pending
            | ServerState::Due { .. }
            | ServerState::Ordered
            | ServerState::Running
            | ServerState::Returning
            | ServerState::Ended { .. } => {}
        }
    }
}

fn confirm(rollout: &mut Rollout, waves: impl Fn(u32) -> bool, commands: &mut Vec<Command>) {
    let waiting: Vec<ServerName> = rollout
        .members
        .iter()
        .filter(|member| waves(member.wave) && member.state == ServerState::Confirming { told: Told::NotYet })
        .map(|member| member.server.clone())
        .collect();
    for server in waiting {
        set(rollout, &server, ServerState::Confirming { told: Told::Ordered });
        commands.push(Command::Confirm { server });
    }
}

fn finish(rollout: &mut Rollout, cause: Cause, commands: &mut Vec<Command>) -> Onward {
    if rollout.is_under_way() {
        return Onward::Wait;
    }
    let rolls_back = rollout.kind == Kind::Deploy
        && rollout.strategy.on_stop == OnStop::Rollback
        && rollout.members.iter().any(|member| member.state.end().is_some_and(changed_and_not_back));
    if let Cause::Stopped { because, .. } = &cause
        && rolls_back
    {
        commands.push(Command::RollBack { because: because.clone() });
    }
    rollout.paused = None;
    rollout.phase = Phase::Ended { verdict: Verdict::of(rollout, cause) };
    Onward::Wait
}
