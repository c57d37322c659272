//! Planning, and what follows from what happened.

use consign_common::name::ServerName;

use super::{
    state::{End, Kind, Member, Phase, Rollout, ServerState},
    verdict::Verdict,
    waves::{InvalidWaves, Target, cumulative},
};

/// A server that the selector chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub server: ServerName,
    pub presence: Presence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Enabled,
    Disabled { because: String },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing else runs for this app and environment.
    Begin,
    Abort {
        because: String,
    },
    Server {
        server: ServerName,
        news: News,
    },
}

/// What happened on, or became known of, one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Connected, enabled, clocks agree.
    Ready,
    /// Not connected, and the grace is over.
    Absent,
    Disabled {
        because: String,
    },
    /// Connected, but its clock and ours are too far apart.
    ClockSkew {
        message: String,
    },
    /// It is where it was to be brought.
    NothingToDo,
    /// It cannot be ordered, for this reason.
    Impossible(End),
    Accepted,
    Returning,
    Ended(End),
    /// It was told to cancel, and knows of nothing that it could.
    Lost {
        because: String,
    },
}

/// What is to be done. Written down with the state that it came with before it is done; doing it twice is harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Look for the server, and answer with any of the first six `News`.
    Find {
        server: ServerName,
    },
    /// Order the deployment or the return.
    Order {
        server: ServerName,
    },
    Cancel {
        server: ServerName,
        because: String,
    },
}

/// Freezes the membership. Servers go in the order of their names; waves are counted over those that are enabled, so
/// that a first wave of one is a server that really tries.
pub fn plan(kind: Kind, targets: &[Target], mut candidates: Vec<Candidate>) -> Result<Rollout, InvalidWaves> {
    candidates.sort_by(|a, b| a.server.cmp(&b.server));
    candidates.dedup_by(|a, b| a.server == b.server);
    if candidates.is_empty() {
        return Err(InvalidWaves::NoServer);
    }
    let enabled = candidates.iter().filter(|candidate| candidate.presence == Presence::Enabled).count();
    let waves = match u32::try_from(enabled) {
        Ok(0) => Vec::new(),
        Ok(enabled) => cumulative(targets, enabled)?,
        Err(_) => return Err(InvalidWaves::TooMuch { given: enabled.to_string() }),
    };
    let mut place = 0_u32;
    let members = candidates
        .into_iter()
        .map(|Candidate { server, presence }| match presence {
            Presence::Enabled => {
                let before = waves.iter().take_while(|reached| **reached <= place).count();
                place += 1;
                let wave = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
                Member { server, wave, state: ServerState::Pending }
            }
            Presence::Disabled { because } => {
                let end = End::Skipped { because: format!("disabled: {because}") };
                Member { server, wave: 0, state: ServerState::Ended { end } }
            }
        })
        .collect();
    Ok(Rollout { kind, phase: Phase::Queued, members })
}

/// The rollout after `event`, and what is to be done about it. An event that does not fit (late, doubled, of a server
/// that is not a member) changes nothing.
pub fn apply(mut rollout: Rollout, event: Event) -> (Rollout, Vec<Command>) {
    let mut commands = Vec::new();
    match event {
        Event::Begin => {
            if rollout.phase == Phase::Queued {
                rollout.phase = Phase::Running;
            }
        }
        Event::Abort { because } => abort(&mut rollout, because, &mut commands),
        Event::Server { server, news } => take(&mut rollout, &server, news, &mut commands),
    }
    advance(&mut rollout, &mut commands);
    (rollout, commands)
}

fn abort(rollout: &mut Rollout, because: String, commands: &mut Vec<Command>) {
    match rollout.phase {
        Phase::Queued | Phase::Running | Phase::Stopping => {}
        Phase::Aborting { .. } | Phase::Ended { .. } => return,
    }
    for member in &rollout.members {
        match member.state {
            // A server on its way back goes on: half a way back is the worst place to be.
            ServerState::Returning if rollout.kind == Kind::Deploy => {}
            ServerState::Ordered | ServerState::Running | ServerState::Returning => {
                commands.push(Command::Cancel { server: member.server.clone(), because: because.clone() });
            }
            ServerState::Pending | ServerState::Due | ServerState::Ended { .. } => {}
        }
    }
    leave_out(rollout, "the rollout was aborted before its turn");
    rollout.phase = Phase::Aborting { because };
}

fn take(rollout: &mut Rollout, server: &ServerName, news: News, commands: &mut Vec<Command>) {
    let aborting = matches!(rollout.phase, Phase::Aborting { .. });
    let kind = rollout.kind;
    let Some(member) = rollout.members.iter_mut().find(|member| member.server == *server) else {
        return;
    };
    let next = match &member.state {
        ServerState::Pending | ServerState::Ended { .. } => None,
        ServerState::Due => found(kind, news),
        ServerState::Ordered | ServerState::Running | ServerState::Returning => {
            progressed(kind, &member.state, news, aborting)
        }
    };
    if let Some(next) = next {
        if next == ServerState::Ordered {
            commands.push(Command::Order { server: server.clone() });
        }
        member.state = next;
    }
}

/// The answer to `Find`.
fn found(kind: Kind, news: News) -> Option<ServerState> {
    let end = match (news, kind) {
        (News::Ready, _) | (News::ClockSkew { .. }, Kind::Return) => return Some(ServerState::Ordered),
        (News::ClockSkew { message }, Kind::Deploy) => {
            End::Refused { code: "clock-skew".to_owned(), message }
        }
        (News::Absent, _) => End::Offline,
        (News::NothingToDo, _) => End::NoOp,
        (News::Impossible(end), _) => end,
        (News::Disabled { because }, _) => End::Skipped { because: format!("disabled: {because}") },
        (News::Accepted | News::Returning | News::Ended(_) | News::Lost { .. }, _) => return None,
    };
    Some(ServerState::Ended { end })
}

/// What an ordered server says.
fn progressed(kind: Kind, state: &ServerState, news: News, aborting: bool) -> Option<ServerState> {
    match news {
        News::Accepted => (*state == ServerState::Ordered).then_some(ServerState::Running),
        News::Returning => Some(ServerState::Returning),
        News::Ended(end) => Some(ServerState::Ended { end: as_asked(kind, end) }),
        // Whoever aborts cannot wait for ever for a server that is gone, and nobody knows what it does.
        News::Absent if aborting => {
            let because = "it is not connected, so nobody knows whether it stopped".to_owned();
            Some(ServerState::Ended { end: End::Unknown { because } })
        }
        News::Lost { because } if aborting => Some(ServerState::Ended { end: End::Unknown { because } }),
        News::Absent
        | News::Lost { .. }
        | News::Ready
        | News::Disabled { .. }
        | News::ClockSkew { .. }
        | News::NothingToDo
        | News::Impossible(_) => None,
    }
}

/// In a rollout of returns a server that returned did what it was asked.
fn as_asked(kind: Kind, end: End) -> End {
    match (kind, end) {
        (Kind::Return, End::Returned { .. }) => End::Succeeded { tolerated: Vec::new() },
        (Kind::Return | Kind::Deploy, end) => end,
    }
}

/// Stops, opens the next wave, or ends.
fn advance(rollout: &mut Rollout, commands: &mut Vec<Command>) {
    if rollout.phase == Phase::Running && rollout.kind == Kind::Deploy {
        let stopper =
            rollout.members.iter().find(|member| member.state.end().is_some_and(End::stops)).map(|member| {
                format!(
                    "not reached: {} is {}",
                    member.server,
                    member.state.end().map_or("", |end| end.as_str())
                )
            });
        if let Some(because) = stopper {
            leave_out(rollout, &because);
            rollout.phase = Phase::Stopping;
        }
    }
    if rollout.phase == Phase::Running {
        let open = rollout.members.iter().filter(|member| member.state.end().is_none());
        let wave = open.map(|member| member.wave).min();
        for member in &mut rollout.members {
            if Some(member.wave) == wave && member.state == ServerState::Pending {
                member.state = ServerState::Due;
                commands.push(Command::Find { server: member.server.clone() });
            }
        }
    }
    let all_ended = rollout.members.iter().all(|member| member.state.end().is_some());
    match rollout.phase {
        Phase::Running | Phase::Stopping | Phase::Aborting { .. } if all_ended => {
            rollout.phase = Phase::Ended { verdict: Verdict::of(rollout) };
        }
        Phase::Queued | Phase::Running | Phase::Stopping | Phase::Aborting { .. } | Phase::Ended { .. } => {}
    }
}

/// Servers that were not ordered will not be.
fn leave_out(rollout: &mut Rollout, because: &str) {
    for member in &mut rollout.members {
        match member.state {
            ServerState::Pending | ServerState::Due => {
                member.state = ServerState::Ended { end: End::Skipped { because: because.to_owned() } };
            }
            ServerState::Ordered
            | ServerState::Running
            | ServerState::Returning
            | ServerState::Ended { .. } => {}
        }
    }
}
