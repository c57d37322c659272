//! What a person may do to a rollout, and when. A verb that is not legal now changes nothing.

use std::fmt;

use consign_common::{
    name::{ServerName, StepName},
    time::UnixMs,
    trust::DecisionAction,
};

use super::{
    advance::{advance, leave_out},
    engine::{Command, end},
    state::{End, Pause, Phase, Rollout, ServerState, Skip, Stage, Told},
    verdict::{Cause, Verdict},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// No new orders; what runs goes on.
    Pause,
    Resume,
    Abort,
    /// Servers that did not take it, and those that were not reached, once more.
    Retry,
    /// Leave a server out that has not been ordered, or is owed.
    SkipServer {
        server: ServerName,
    },
    /// Leave a step out, on one server or on all, where it has not begun.
    SkipStep {
        step: StepName,
        server: Option<ServerName>,
    },
    /// How a step is to be taken whose outcome nobody knows.
    Decide {
        server: ServerName,
        step: StepName,
        action: DecisionAction,
    },
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause | Self::Resume | Self::Abort | Self::Retry => f.write_str(self.as_str()),
            Self::SkipServer { server } => write!(f, "skip {server}"),
            Self::SkipStep { step, server: None } => write!(f, "skip step {step}"),
            Self::SkipStep { step, server: Some(server) } => write!(f, "skip step {step} on {server}"),
            Self::Decide { server, step, action } => {
                let action = match action {
                    DecisionAction::Skip => "skipped",
                    DecisionAction::Done => "done",
                    DecisionAction::Failed => "failed",
                    DecisionAction::Again => "again",
                };
                write!(f, "decide step {step} on {server}: {action}")
            }
        }
    }
}

impl Verb {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::SkipServer { .. } | Self::SkipStep { .. } => "skip",
            Self::Decide { .. } => "decide",
        }
    }
}

/// Why a verb is not legal now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    #[error("cannot {verb}: the rollout is {state}; it must be {legal}")]
    State { verb: &'static str, state: &'static str, legal: &'static str },
    #[error("nothing to retry: {why}")]
    NothingToRetry { why: &'static str },
    #[error("{server} is not in this rollout")]
    NoMember { server: ServerName },
    #[error(
        "cannot leave {server} out: it is {state}; only a server that was not ordered, or is owed, can be"
    )]
    Ordered { server: ServerName, state: &'static str },
    #[error("nothing to decide: the outcome of step {step} on {server} is not unknown ({server} is {state})")]
    NotUnknown { server: ServerName, step: StepName, state: &'static str },
    #[error("{server} waits for a decision on step {undecided}, not on {step}")]
    OtherStep { server: ServerName, step: StepName, undecided: StepName },
}

impl Rollout {
    /// The phase's name for people and for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match &self.phase {
            Phase::Queued { .. } => "queued",
            Phase::Running { .. } if self.paused.is_some() => "paused",
            Phase::Running { .. } => "running",
            Phase::Stopping { .. } => "stopping",
            Phase::Aborting { .. } => "aborting",
            Phase::Ended { verdict } => verdict.state.as_str(),
        }
    }
}

/// The rollout after a person's word, at `now`, and what is to be done about it. `because` says who and why, in one line.
pub fn press(
    mut rollout: Rollout,
    verb: Verb,
    because: &str,
    now: UnixMs,
) -> Result<(Rollout, Vec<Command>), Illegal> {
    let mut commands = Vec::new();
    match verb {
        Verb::Pause => pause(&mut rollout, because)?,
        Verb::Resume => resume(&mut rollout, &mut commands)?,
        Verb::Abort => abort(&mut rollout, because, &mut commands)?,
        Verb::Retry => retry(&mut rollout)?,
        Verb::SkipServer { server } => skip_server(&mut rollout, &server, because)?,
        Verb::SkipStep { step, server } => skip_step(&mut rollout, step, server, because, &mut commands)?,
        Verb::Decide { server, step, action } => {
            decide(&mut rollout, server, step, action, because, &mut commands)?;
        }
    }
    advance(&mut rollout, now, &mut commands);
    Ok((rollout, commands))
}

fn illegal(rollout: &Rollout, verb: &Verb, legal: &'static str) -> Illegal {
    Illegal::State { verb: verb.as_str(), state: rollout.as_str(), legal }
}

fn pause(rollout: &mut Rollout, because: &str) -> Result<(), Illegal> {
    if !matches!(rollout.phase, Phase::Running { .. }) || rollout.paused.is_some() {
        return Err(illegal(rollout, &Verb::Pause, "running"));
    }
    rollout.paused = Some(Pause { because: because.to_owned() });
    Ok(())
}

fn resume(rollout: &mut Rollout, commands: &mut Vec<Command>) -> Result<(), Illegal> {
    if rollout.paused.take().is_none() {
        return Err(illegal(rollout, &Verb::Resume, "paused"));
    }
    // What was asked before the pause was not listened to.
    if let Phase::Running { wave, stage: Stage::Judging } = rollout.phase {
        commands.push(Command::Probe { wave });
    }
    Ok(())
}

fn abort(rollout: &mut Rollout, because: &str, commands: &mut Vec<Command>) -> Result<(), Illegal> {
    let converges = matches!(rollout.phase, Phase::Ended { .. }) && rollout.is_under_way();
    match rollout.phase {
        Phase::Queued { .. } | Phase::Running { .. } | Phase::Stopping { .. } => {}
        Phase::Ended { .. } if converges => {}
        // Asked twice, by two people perhaps: it is under way.
        Phase::Aborting { .. } => return Ok(()),
        Phase::Ended { .. } => {
            return Err(illegal(rollout, &Verb::Abort, "queued, running, paused or stopping"));
        }
    }
    for member in &mut rollout.members {
        match &mut member.state {
            // A server on its way back by itself goes on: half a way back is the worst place to be.
            ServerState::Returning if rollout.kind == super::Kind::Deploy => continue,
            ServerState::Awaiting { told, .. } | ServerState::Confirming { told } => *told = Told::Ordered,
            ServerState::Ordered | ServerState::Running | ServerState::Returning => {}
            ServerState::Pending | ServerState::Due { .. } | ServerState::Ended { .. } => continue,
        }
        commands.push(Command::Cancel { server: member.server.clone(), because: because.to_owned() });
    }
    rollout.paused = None;
    leave_out(rollout, because);
    if converges {
        return Ok(());
    }
    let was_queued = matches!(rollout.phase, Phase::Queued { .. });
    rollout.phase = Phase::Aborting { because: because.to_owned() };
    if was_queued {
        let verdict = Verdict::of(rollout, Cause::Aborted { because: because.to_owned() });
        rollout.phase = Phase::Ended { verdict };
    }
    Ok(())
}

fn retry(rollout: &mut Rollout) -> Result<(), Illegal> {
    if !matches!(rollout.phase, Phase::Ended { .. }) || rollout.is_under_way() {
        return Err(illegal(rollout, &Verb::Retry, "ended"));
    }
    if rollout.members.iter().any(|member| waits_for_decision(&member.state)) {
        return Err(Illegal::NothingToRetry {
            why: "a server waits for a decision; `consign rollout decide` comes first",
        });
    }
    let again: Vec<ServerName> = rollout
        .members
        .iter()
        .filter(|member| member.state.end().is_some_and(may_be_tried_again))
        .map(|member| member.server.clone())
        .collect();
    if again.is_empty() {
        return Err(Illegal::NothingToRetry { why: "no server failed or was not reached" });
    }
    // Who joined later comes last.
    let last = rollout.last_wave().max(1);
    for server in &again {
        rollout.once_rejoins(server);
        if let Some(member) = rollout.member_mut(server) {
            member.wave = if member.wave == 0 { last } else { member.wave };
            member.state = ServerState::Pending;
        }
    }
    rollout.members.sort_by(|a, b| (a.wave, &a.server).cmp(&(b.wave, &b.server)));
    rollout.once_reopen();
    rollout.phase = Phase::Queued { not_before: UnixMs(0) };
    Ok(())
}

fn waits_for_decision(state: &ServerState) -> bool {
    matches!(state.end(), Some(End::Unknown { step: Some(_), .. }))
}

fn may_be_tried_again(end: &End) -> bool {
    match end {
        End::Failed { .. }
        | End::Returned { .. }
        | End::Stopped { .. }
        | End::Unknown { .. }
        | End::Cancelled { .. }
        | End::Refused { .. }
        | End::Offline
        | End::NotReached { .. } => true,
        // An owed server converges by itself; who was left out by a person stays out.
        End::Succeeded { .. } | End::NoOp | End::Owed | End::Skipped { .. } => false,
    }
}

fn skip_server(rollout: &mut Rollout, server: &ServerName, because: &str) -> Result<(), Illegal> {
    let member = rollout.member(server).ok_or_else(|| Illegal::NoMember { server: server.clone() })?;
    let may = matches!(
        member.state,
        ServerState::Pending | ServerState::Due { .. } | ServerState::Ended { end: End::Owed }
    );
    if !may {
        return Err(Illegal::Ordered { server: server.clone(), state: member.state.as_str() });
    }
    end(rollout, server, End::Skipped { because: because.to_owned() });
    Ok(())
}

fn skip_step(
    rollout: &mut Rollout,
    step: StepName,
    server: Option<ServerName>,
    because: &str,
    commands: &mut Vec<Command>,
) -> Result<(), Illegal> {
    let verb = Verb::SkipStep { step: step.clone(), server: server.clone() };
    match rollout.phase {
        Phase::Queued { .. } | Phase::Running { .. } | Phase::Stopping { .. } => {}
        Phase::Aborting { .. } | Phase::Ended { .. } => {
            return Err(illegal(rollout, &verb, "queued, running, paused or stopping"));
        }
    }
    if let Some(server) = server.as_ref().filter(|server| rollout.member(server).is_none()) {
        return Err(Illegal::NoMember { server: server.clone() });
    }
    for member in &rollout.members {
        let meant = server.as_ref().is_none_or(|only| *only == member.server);
        if meant && member.state.is_ordered() {
            commands.push(Command::Decide {
                server: member.server.clone(),
                step: step.clone(),
                action: DecisionAction::Skip,
                because: because.to_owned(),
            });
        }
    }
    let skip = Skip { step, server };
    if !rollout.skips.contains(&skip) {
        rollout.skips.push(skip);
    }
    Ok(())
}

fn decide(
    rollout: &mut Rollout,
    server: ServerName,
    step: StepName,
    action: DecisionAction,
    because: &str,
    commands: &mut Vec<Command>,
) -> Result<(), Illegal> {
    let member = rollout.member(&server).ok_or_else(|| Illegal::NoMember { server: server.clone() })?;
    let state = member.state.clone();
    if let Some(End::Unknown { step: Some(undecided), .. }) = state.end() {
        if *undecided != step {
            return Err(Illegal::OtherStep { server, step, undecided: undecided.clone() });
        }
        commands.push(Command::Decide { server, step, action, because: because.to_owned() });
        return Ok(());
    }
    let lost = rollout.once.get(&step).is_some_and(|once| {
        matches!(&once.state, super::once::OnceState::Unknown { server: holder, .. } if *holder == server)
    });
    if !lost {
        return Err(Illegal::NotUnknown { server, step, state: state.as_str() });
    }
    // Its agent is gone: what is decided is told to the others. If it comes back, it is not to run the step after all;
    // what it was ordered since is another matter.
    rollout.once_lost(&step, action, because);
    if matches!(state.end(), Some(End::Unknown { step: None, .. })) {
        commands.push(Command::Cancel { server, because: because.to_owned() });
    }
    Ok(())
}
