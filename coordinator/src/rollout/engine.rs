//! What happens, and what follows from it.

use consign_common::{
    name::{ServerName, StepName},
    time::UnixMs,
    trust::{DecisionAction, OnceWord},
};

use super::{
    advance::{advance, is_crowded},
    state::{End, Joined, Kind, Member, Pause, Phase, Rollout, ServerState, Stage, Stop, Told},
    strategy::Offline,
    verdict::Final,
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing else runs for this app and environment.
    Begin,
    /// The time that [`Rollout::wake`] named has come.
    Tick,
    Server {
        server: ServerName,
        news: News,
    },
    /// The answer to [`Command::Probe`].
    Health {
        wave: u32,
        health: Health,
        because: String,
    },
    /// The server is connected, owes this rollout or is new, and nothing newer is meant for it.
    Converge {
        server: ServerName,
        group: String,
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
    /// An attempt of a step began.
    StepStarted {
        step: StepName,
    },
    StepEnded {
        step: StepName,
        how: StepEnd,
    },
    /// It waits before a `once` step.
    Awaiting {
        step: StepName,
    },
    /// It was told about the `once` step that it waited for.
    Answered,
    /// Nobody knows how the step ended, and the server waits for a decision.
    Undecided {
        step: StepName,
        because: String,
    },
    Decided {
        step: StepName,
        action: DecisionAction,
        because: String,
    },
    /// It waits to be confirmed.
    Confirming,
    Returning,
    Ended(End),
    /// It was told to cancel, and knows of nothing that it could.
    Lost {
        because: String,
    },
}

/// How an attempt of a step ended, as far as others are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    Succeeded,
    Failed { because: String },
    Skipped,
}

/// What is said of a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Pass,
    Fail,
    /// Nobody can say: a person must look.
    Inconclusive,
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
    Confirm {
        server: ServerName,
    },
    Once {
        server: ServerName,
        step: StepName,
        word: OnceWord,
    },
    Decide {
        server: ServerName,
        step: StepName,
        action: DecisionAction,
        because: String,
    },
    /// Ask how the wave is, and answer with [`Event::Health`].
    Probe {
        wave: u32,
    },
    /// Begin the rollout of returns from what this one brought.
    RollBack {
        because: String,
    },
}

/// The rollout after `event`, at `now`, and what is to be done about it. An event that does not fit (late, doubled, of a
/// server that is not a member) changes nothing.
pub fn apply(mut rollout: Rollout, event: Event, now: UnixMs) -> (Rollout, Vec<Command>) {
    let mut commands = Vec::new();
    match event {
        Event::Begin => {
            if let Phase::Queued { .. } = rollout.phase {
                // After a retry the waves before are done.
                let pending = rollout.members.iter().filter(|member| member.state == ServerState::Pending);
                let wave = pending.map(|member| member.wave).min();
                rollout.phase = Phase::Running { wave: wave.unwrap_or(1), stage: Stage::Deploying };
            }
        }
        Event::Tick => expire(&mut rollout, now),
        Event::Server { server, news } => take(&mut rollout, &server, news, &mut commands),
        Event::Health { wave, health, because } => judged(&mut rollout, wave, health, because),
        Event::Converge { server, group } => converge(&mut rollout, server, group, now, &mut commands),
    }
    advance(&mut rollout, now, &mut commands);
    (rollout, commands)
}

impl Rollout {
    /// When it wants to be woken by a [`Event::Tick`].
    pub fn wake(&self) -> Option<UnixMs> {
        match &self.phase {
            Phase::Queued { not_before } => (not_before.0 > 0).then_some(*not_before),
            Phase::Running { stage: Stage::Baking { until }, .. } => Some(*until),
            Phase::Running { .. } => self.members.iter().filter_map(|member| self.waits_until(member)).min(),
            Phase::Stopping { .. } | Phase::Aborting { .. } | Phase::Ended { .. } => None,
        }
    }

    /// What was said once and may have been lost with the process that was to do it.
    pub fn unfinished(&self) -> Vec<Command> {
        let due = self.members.iter().filter(|member| matches!(member.state, ServerState::Due { .. }));
        let mut commands: Vec<Command> =
            due.map(|member| Command::Find { server: member.server.clone() }).collect();
        if let Phase::Running { wave, stage: Stage::Judging } = self.phase
            && self.paused.is_none()
        {
            commands.push(Command::Probe { wave });
        }
        commands
    }

    fn waits_until(&self, member: &Member) -> Option<UnixMs> {
        match (&member.state, &self.strategy.offline) {
            (ServerState::Due { since }, Offline::Wait { ms }) => Some(UnixMs(since.0.saturating_add(*ms))),
            (ServerState::Due { .. }, Offline::Fail | Offline::Owe)
            | (
                ServerState::Pending
                | ServerState::Ordered
                | ServerState::Running
                | ServerState::Awaiting { .. }
                | ServerState::Confirming { .. }
                | ServerState::Returning
                | ServerState::Ended { .. },
                _,
            ) => None,
        }
    }
}

fn expire(rollout: &mut Rollout, now: UnixMs) {
    let over: Vec<ServerName> = rollout
        .members
        .iter()
        .filter(|member| rollout.waits_until(member).is_some_and(|until| until <= now))
        .map(|member| member.server.clone())
        .collect();
    for server in over {
        end(rollout, &server, End::Offline);
    }
}

fn take(rollout: &mut Rollout, server: &ServerName, news: News, commands: &mut Vec<Command>) {
    let Some(member) = rollout.member(server) else { return };
    match member.state.clone() {
        ServerState::Pending => {}
        ServerState::Due { .. } => found(rollout, server, news, commands),
        ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Confirming { .. }
        | ServerState::Returning => progressed(rollout, server, news),
        ServerState::Ended { end: End::Unknown { step: Some(step), .. } } => {
            resumed(rollout, server, &step, news);
        }
        ServerState::Ended { .. } => late(rollout, server, &news, commands),
    }
}

/// The answer to `Find`.
fn found(rollout: &mut Rollout, server: &ServerName, news: News, commands: &mut Vec<Command>) {
    let kind = rollout.kind;
    let runs = matches!(rollout.phase, Phase::Running { .. });
    let waits = runs && (rollout.paused.is_some() || is_crowded(rollout, server));
    let outcome = match (news, kind) {
        (News::Ready, _) | (News::ClockSkew { .. }, Kind::Return) if waits => {
            return set(rollout, server, ServerState::Pending);
        }
        (News::Ready, _) | (News::ClockSkew { .. }, Kind::Return) => {
            commands.push(Command::Order { server: server.clone() });
            return set(rollout, server, ServerState::Ordered);
        }
        (News::ClockSkew { message }, Kind::Deploy) => {
            End::Refused { code: "clock-skew".to_owned(), message }
        }
        (News::Absent, _) => match (&rollout.phase, &rollout.strategy.offline) {
            (Phase::Ended { .. }, _) | (_, Offline::Owe) => End::Owed,
            (_, Offline::Fail) => End::Offline,
            (_, Offline::Wait { .. }) => return,
        },
        (News::NothingToDo, _) => End::NoOp,
        (News::Impossible(end), _) => end,
        (News::Disabled { because }, _) => End::Skipped { because: format!("disabled: {because}") },
        (
            News::Accepted
            | News::StepStarted { .. }
            | News::StepEnded { .. }
            | News::Awaiting { .. }
            | News::Answered
            | News::Undecided { .. }
            | News::Decided { .. }
            | News::Confirming
            | News::Returning
            | News::Ended(_)
            | News::Lost { .. },
            _,
        ) => return,
    };
    end(rollout, server, outcome);
}

/// What an ordered server says.
fn progressed(rollout: &mut Rollout, server: &ServerName, news: News) {
    match news {
        News::Accepted => {
            if rollout.member(server).is_some_and(|member| member.state == ServerState::Ordered) {
                set(rollout, server, ServerState::Running);
            }
        }
        News::Answered => set(rollout, server, ServerState::Running),
        News::StepStarted { step } => rollout.once_started(server, &step),
        News::StepEnded { step, how } => rollout.once_ended(server, &step, &how),
        // Nobody could answer for a step that the plan does not have as `once`: it is not heard.
        News::Awaiting { step } if !rollout.once.contains_key(&step) => {}
        News::Awaiting { step } => {
            rollout.once_beyond(server);
            set(rollout, server, ServerState::Awaiting { step, told: Told::NotYet });
        }
        News::Undecided { step, because } => {
            rollout.once_undecided(server, &step, &because);
            set(rollout, server, ServerState::ended(End::Unknown { because, step: Some(step) }));
        }
        News::Decided { step, action, because } => rollout.once_decided(server, &step, action, &because),
        News::Confirming => {
            rollout.once_beyond(server);
            set(rollout, server, ServerState::Confirming { told: Told::NotYet });
        }
        News::Returning => {
            rollout.once_beyond(server);
            set(rollout, server, ServerState::Returning);
        }
        News::Ended(outcome) => {
            let outcome = as_asked(rollout.kind, outcome);
            end(rollout, server, outcome);
        }
        // What is to end cannot wait for ever for a server that is gone, and nobody knows what it does.
        News::Absent if rollout.gives_up() => {
            let because = "it is not connected, so nobody knows whether it stopped".to_owned();
            end(rollout, server, End::Unknown { because, step: None });
        }
        News::Lost { because } if rollout.gives_up() => {
            end(rollout, server, End::Unknown { because, step: None });
        }
        News::Absent
        | News::Lost { .. }
        | News::Ready
        | News::Disabled { .. }
        | News::ClockSkew { .. }
        | News::NothingToDo
        | News::Impossible(_) => {}
    }
}

/// What a server says that waits for a decision.
fn resumed(rollout: &mut Rollout, server: &ServerName, undecided: &StepName, news: News) {
    match news {
        News::Decided { step, action, because } if step == *undecided => {
            rollout.once_decided(server, &step, action, &because);
            set(rollout, server, ServerState::Running);
        }
        // A newer order ended it, or it was cancelled. What is unknown stays unknown, but nobody waits any more.
        News::Ended(End::Unknown { because, .. }) => {
            set(rollout, server, ServerState::ended(End::Unknown { because, step: None }));
        }
        News::Ended(outcome) => {
            let outcome = as_asked(rollout.kind, outcome);
            set(rollout, server, ServerState::ended(outcome));
        }
        News::Ready
        | News::Absent
        | News::Disabled { .. }
        | News::ClockSkew { .. }
        | News::NothingToDo
        | News::Impossible(_)
        | News::Accepted
        | News::StepStarted { .. }
        | News::StepEnded { .. }
        | News::Awaiting { .. }
        | News::Answered
        | News::Undecided { .. }
        | News::Decided { .. }
        | News::Confirming
        | News::Returning
        | News::Lost { .. } => {}
    }
}

/// A server that was given up, and is heard of again: its own word is the truth.
fn late(rollout: &mut Rollout, server: &ServerName, news: &News, commands: &mut Vec<Command>) {
    let unknown = rollout
        .member(server)
        .is_some_and(|member| matches!(member.state.end(), Some(End::Unknown { step: None, .. })));
    if !unknown {
        return;
    }
    match news {
        News::StepStarted { step } => rollout.once_started(server, step),
        News::StepEnded { step, how } => rollout.once_ended(server, step, how),
        News::Ended(outcome) => {
            let outcome = as_asked(rollout.kind, outcome.clone());
            end(rollout, server, outcome);
        }
        News::Undecided { step, because } => {
            rollout.once_undecided(server, step, because);
            let step = Some(step.clone());
            set(rollout, server, ServerState::ended(End::Unknown { because: because.clone(), step }));
        }
        // Nobody counts on it any more: what it waits for it would wait for in vain, and be busy until then.
        News::Awaiting { .. } | News::Confirming => {
            let because = "the rollout has given it up".to_owned();
            commands.push(Command::Cancel { server: server.clone(), because });
        }
        News::Ready
        | News::Absent
        | News::Disabled { .. }
        | News::ClockSkew { .. }
        | News::NothingToDo
        | News::Impossible(_)
        | News::Accepted
        | News::Answered
        | News::Decided { .. }
        | News::Returning
        | News::Lost { .. } => {}
    }
}

/// In a rollout of returns a server that returned did what it was asked.
fn as_asked(kind: Kind, end: End) -> End {
    match (kind, end) {
        (Kind::Return, End::Returned { .. }) => End::Succeeded { tolerated: Vec::new() },
        (Kind::Return | Kind::Deploy, end) => end,
    }
}

pub(super) fn set(rollout: &mut Rollout, server: &ServerName, state: ServerState) {
    if let Some(member) = rollout.member_mut(server) {
        member.state = state;
    }
}

pub(super) fn end(rollout: &mut Rollout, server: &ServerName, end: End) {
    rollout.once_left(server, &end);
    set(rollout, server, ServerState::ended(end));
}

fn judged(rollout: &mut Rollout, wave: u32, health: Health, because: String) {
    let Phase::Running { wave: current, stage } = &mut rollout.phase else { return };
    if *current != wave || *stage != Stage::Judging || rollout.paused.is_some() {
        return;
    }
    match health {
        Health::Pass => *stage = Stage::Confirming,
        Health::Fail => {
            let because = format!("the health of wave {wave} failed: {because}");
            rollout.phase = Phase::Stopping { because, stop: Stop::Health };
        }
        Health::Inconclusive => {
            let because = format!("the health of wave {wave} is inconclusive: {because}");
            rollout.paused = Some(Pause { because });
        }
    }
}

/// An owed or new server gets what its environment runs.
fn converge(
    rollout: &mut Rollout,
    server: ServerName,
    group: String,
    now: UnixMs,
    commands: &mut Vec<Command>,
) {
    let Phase::Ended { verdict } = &rollout.phase else { return };
    let green = matches!(verdict.state, Final::Succeeded | Final::Partial);
    if !green || rollout.kind == Kind::Return {
        return;
    }
    let due = ServerState::Due { since: now };
    match rollout.member_mut(&server) {
        Some(member) if member.state == ServerState::ended(End::Owed) => member.state = due,
        Some(_) => return,
        None => {
            let member = Member { server: server.clone(), wave: 0, group, joined: Joined::Later, state: due };
            let place = rollout.members.partition_point(|other| (other.wave, &other.server) < (0, &server));
            rollout.members.insert(place, member);
        }
    }
    rollout.once_rejoins(&server);
    commands.push(Command::Find { server });
}
