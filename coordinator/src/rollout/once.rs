//! `once` steps: one server of the rollout runs it, the others are told how it went.
//!
//! The first server in the order of the rollout whose condition is true is told to run it; servers before it that are
//! under way and have not come to the step yet are waited for, so that the choice does not depend on who is faster.
//! When it failed the others are told so, and only a retry by a person opens it again. When nobody knows how it ended,
//! nobody else is told anything until a person decides: never two.

use std::collections::BTreeSet;

use consign_common::{
    name::{ServerName, StepName},
    trust::{DecisionAction, OnceWord},
};
use serde::{Deserialize, Serialize};

use super::{
    engine::{Command, StepEnd},
    state::{End, Rollout, ServerState, Told},
};

/// One such step, over the whole rollout with its retries and owed servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Once {
    pub state: OnceState,
    /// Servers that will not ask for it any more.
    pub passed: BTreeSet<ServerName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum OnceState {
    #[default]
    Open,
    Granted {
        server: ServerName,
        progress: Progress,
    },
    Done {
        server: ServerName,
    },
    Failed {
        server: ServerName,
        because: String,
    },
    Unknown {
        server: ServerName,
        because: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "lowercase", deny_unknown_fields)]
pub enum Progress {
    Told,
    Started,
    /// An attempt failed. Another one may follow; anything else that follows says that it was the last.
    Failed {
        because: String,
    },
}

impl OnceState {
    /// The state's name for people and for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Granted { .. } => "granted",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
        }
    }
}

impl Once {
    /// Who may be running it.
    pub fn holder(&self) -> Option<&ServerName> {
        match &self.state {
            OnceState::Granted { server, .. } | OnceState::Unknown { server, .. } => Some(server),
            OnceState::Open | OnceState::Done { .. } | OnceState::Failed { .. } => None,
        }
    }

    fn progress_of(&self, holder: &ServerName) -> Option<&Progress> {
        match &self.state {
            OnceState::Granted { server, progress } if server == holder => Some(progress),
            OnceState::Granted { .. }
            | OnceState::Open
            | OnceState::Done { .. }
            | OnceState::Failed { .. }
            | OnceState::Unknown { .. } => None,
        }
    }

    /// The server began an attempt of the step, also after its outcome was unknown for a while.
    fn started(&mut self, by: &ServerName) {
        if self.holder() == Some(by) {
            self.state = OnceState::Granted { server: by.clone(), progress: Progress::Started };
        }
    }

    fn ended(&mut self, by: &ServerName, how: &StepEnd) {
        let holds = self.holder() == Some(by);
        match how {
            StepEnd::Succeeded if holds => self.state = OnceState::Done { server: by.clone() },
            StepEnd::Failed { because } if holds => {
                let progress = Progress::Failed { because: because.clone() };
                self.state = OnceState::Granted { server: by.clone(), progress };
            }
            // Told to run it, and an operator had it left out there: it is for the next one.
            StepEnd::Skipped if holds => self.state = OnceState::Open,
            StepEnd::Succeeded | StepEnd::Failed { .. } | StepEnd::Skipped => {}
        }
        if !matches!(how, StepEnd::Failed { .. }) {
            self.passed.insert(by.clone());
        }
    }

    /// The server is past the step: what failed stays failed.
    fn beyond(&mut self, server: &ServerName) {
        if let Some(Progress::Failed { because }) = self.progress_of(server) {
            self.state = OnceState::Failed { server: server.clone(), because: because.clone() };
        }
    }

    fn undecided(&mut self, server: &ServerName, because: &str) {
        if self.holder() == Some(server) {
            self.state = OnceState::Unknown { server: server.clone(), because: because.to_owned() };
        }
    }

    fn left(&mut self, server: &ServerName, end: &End) {
        self.passed.insert(server.clone());
        self.state = match (self.progress_of(server), end) {
            (None, _) => return,
            (Some(Progress::Told), End::Unknown { because, step: None })
            | (Some(Progress::Started), End::Unknown { because, .. }) => {
                OnceState::Unknown { server: server.clone(), because: because.clone() }
            }
            (Some(Progress::Told), _) => OnceState::Open,
            (Some(Progress::Started), end) => {
                OnceState::Failed { server: server.clone(), because: end.to_string() }
            }
            (Some(Progress::Failed { because }), _) => {
                OnceState::Failed { server: server.clone(), because: because.clone() }
            }
        };
    }

    fn decided(&mut self, server: &ServerName, action: DecisionAction, because: &str) {
        if self.holder() != Some(server) {
            return;
        }
        let server = server.clone();
        self.state = match action {
            DecisionAction::Done | DecisionAction::Skip => OnceState::Done { server },
            DecisionAction::Failed => OnceState::Failed { server, because: because.to_owned() },
            DecisionAction::Again => OnceState::Granted { server, progress: Progress::Told },
        };
    }
}

impl Rollout {
    pub(super) fn once_started(&mut self, server: &ServerName, step: &StepName) {
        for (name, once) in &mut self.once {
            if name == step { once.started(server) } else { once.beyond(server) }
        }
    }

    pub(super) fn once_ended(&mut self, server: &ServerName, step: &StepName, how: &StepEnd) {
        for (name, once) in &mut self.once {
            if name == step { once.ended(server, how) } else { once.beyond(server) }
        }
    }

    /// The server waits, or goes another way: it will not try a step again that failed.
    pub(super) fn once_beyond(&mut self, server: &ServerName) {
        self.once.values_mut().for_each(|once| once.beyond(server));
    }

    pub(super) fn once_undecided(&mut self, server: &ServerName, step: &StepName, because: &str) {
        if let Some(once) = self.once.get_mut(step) {
            once.undecided(server, because);
        }
    }

    pub(super) fn once_decided(
        &mut self,
        server: &ServerName,
        step: &StepName,
        action: DecisionAction,
        because: &str,
    ) {
        if let Some(once) = self.once.get_mut(step) {
            once.decided(server, action, because);
        }
    }

    /// A person calls the outcome on a server that is lost. `again`: another one may run it.
    pub(super) fn once_lost(&mut self, step: &StepName, action: DecisionAction, because: &str) {
        let Some(once) = self.once.get_mut(step) else { return };
        let Some(server) = once.holder().cloned() else { return };
        match action {
            DecisionAction::Again => once.state = OnceState::Open,
            DecisionAction::Done | DecisionAction::Skip | DecisionAction::Failed => {
                once.decided(&server, action, because);
            }
        }
    }

    pub(super) fn once_left(&mut self, server: &ServerName, end: &End) {
        self.once.values_mut().for_each(|once| once.left(server, end));
    }

    /// The server will come to the steps again.
    pub(super) fn once_rejoins(&mut self, server: &ServerName) {
        for once in self.once.values_mut() {
            once.passed.remove(server);
        }
    }

    /// A person lets servers try again, and with them what failed on one of them.
    pub(super) fn once_reopen(&mut self) {
        for once in self.once.values_mut().filter(|once| matches!(once.state, OnceState::Failed { .. })) {
            once.state = OnceState::Open;
        }
    }

    /// Tells those that wait what can be told.
    pub(super) fn once_answer(&mut self, commands: &mut Vec<Command>) {
        let steps: Vec<StepName> = self.once.keys().cloned().collect();
        for step in steps {
            while let Some((server, word)) = self.once_next(&step) {
                if let (OnceWord::Run {}, Some(once)) = (&word, self.once.get_mut(&step)) {
                    once.state = OnceState::Granted { server: server.clone(), progress: Progress::Told };
                }
                if let Some(member) = self.member_mut(&server) {
                    member.state = ServerState::Awaiting { step: step.clone(), told: Told::Ordered };
                }
                commands.push(Command::Once { server, step: step.clone(), word });
            }
        }
    }

    fn once_next(&self, step: &StepName) -> Option<(ServerName, OnceWord)> {
        let once = self.once.get(step)?;
        let waits = |state: &ServerState| matches!(state, ServerState::Awaiting { step: own, told: Told::NotYet } if own == step);
        let first = self.members.iter().position(|member| waits(&member.state))?;
        let word = match &once.state {
            OnceState::Granted { .. } | OnceState::Unknown { .. } => return None,
            OnceState::Done { server } => OnceWord::Done { server: server.clone() },
            OnceState::Failed { server, because } => {
                OnceWord::Failed { server: server.clone(), because: because.clone() }
            }
            OnceState::Open => {
                let before = self.members.iter().take(first);
                let mut unsure = before
                    .filter(|member| member.state.is_ordered() && !once.passed.contains(&member.server));
                if unsure.next().is_some() {
                    return None;
                }
                OnceWord::Run {}
            }
        };
        self.members.get(first).map(|member| (member.server.clone(), word))
    }
}
