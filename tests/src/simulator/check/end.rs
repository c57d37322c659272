//! What holds once faults and operators have stopped, and everything that could happen has: nothing is stuck without a
//! word, and what agents know the coordinator knows.

use consign_coordinator::{
    rollout::{End, OnceState, Phase, Rollout, ServerState, Told as Word},
    rollouts::{
        RolloutRow,
        succession::{is_active, owes},
    },
};

use super::Oracle;
use crate::simulator::{around::Around, coordinator::Coordinator, host::Server};

/// Whether people have said all that they were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum People {
    /// Rollouts may wait for them.
    Silent,
    /// Nothing waits for anybody any more.
    Spoke,
}

impl Oracle {
    pub(crate) fn settled(
        &mut self,
        around: &Around,
        coordinator: &Coordinator,
        servers: &[Server],
        people: People,
    ) {
        self.at(around.now);
        for server in servers {
            self.agent(around, coordinator, server);
        }
        for row in &coordinator.store.rollouts {
            self.rollout(around, coordinator, row, people);
        }
    }

    /// It goes on and on, and comes to nothing.
    pub(crate) fn restless(&mut self) {
        self.hold("I17", false, || "the run never comes to rest".to_owned());
    }

    /// The coordinator has all that the agent journalled, and every open deployment waits for somebody.
    fn agent(&mut self, around: &Around, coordinator: &Coordinator, server: &Server) {
        let store = &coordinator.store;
        for (id, deployment) in &server.disk.deployments {
            let row = store.deployments.get(id);
            let stored = row.map_or(0, |row| row.sequence);
            self.hold("I7", stored == deployment.written, || {
                format!("{id}: {} events on {}, {stored} here", deployment.written, server.name)
            });
            if deployment.ended {
                continue;
            }
            let waits = row.and_then(|row| store.rollout(&row.rollout)).is_some_and(|rollout| {
                let newest = store.deployment_on(&rollout.id, &server.name);
                newest.is_some_and(|newest| newest.id == *id) && waits(&rollout.state, &server.name)
            });
            self.hold("I17", waits, || {
                let last = server.disk.events(id).pop();
                format!("{id} on {} goes nowhere, and nobody is asked: {last:?}", server.name)
            });
        }
        for (key, log) in &server.disk.logs {
            let stored = store.logs.get(key).copied().unwrap_or(0);
            self.hold("I8", stored == log.length, || {
                format!("the log of {key:?} has {}, and {stored} are here", log.length)
            });
        }
        let _ = around;
    }

    fn rollout(&mut self, around: &Around, coordinator: &Coordinator, row: &RolloutRow, people: People) {
        let state = &row.state;
        let store = &coordinator.store;
        let asks = state.members.iter().any(|member| waits(state, &member.server));
        let explained = consign_coordinator::rollout::explain(state, around.unix());
        let fine = match &state.phase {
            Phase::Ended { .. } => !state.is_under_way() || asks,
            Phase::Running { .. } => state.paused.is_some() || asks,
            Phase::Stopping { .. } | Phase::Aborting { .. } => asks,
            Phase::Queued { .. } => {
                let behind = store.open_of(&row.app).iter().any(is_active);
                behind || store.holds.get(&row.app).is_some_and(|hold| row.asked <= hold.at)
            }
        };
        self.hold("I17", fine, || {
            format!("rollout {} ({}) is stuck: {explained}", row.id, state.milestone())
        });
        self.hold("I17", !explained.is_empty(), || format!("rollout {} does not say why", row.id));
        let over = row.is_ended() && !state.is_under_way();
        self.hold("I17", people == People::Silent || over, || {
            format!("rollout {} has not ended, though nothing waits for anybody: {explained}", row.id)
        });
        for member in &state.members {
            let told =
                store.deployment_on(&row.id, &member.server).and_then(|it| self.deployments.get(&it.id));
            let outcome = told.and_then(|told| told.ended.clone());
            // Given up, and heard of again: its own word is the truth.
            if let Some(End::Unknown { step: None, .. }) = member.state.end() {
                let unknown = matches!(
                    outcome,
                    None | Some(consign_common::deployment::DeploymentOutcome::Unknown { .. })
                );
                self.hold("I6", unknown, || {
                    format!(
                        "rollout {}: {} is unknown here; its agent says {outcome:?}",
                        row.id, member.server
                    )
                });
            }
            let newest = store.newest_of(&row.app).is_some_and(|newest| newest.id == row.id);
            let alone = store.open_of(&row.app).is_empty() && !store.holds.contains_key(&row.app);
            let able =
                !store.disabled.contains_key(&member.server) && coordinator.is_online(around, &member.server);
            let labels = around.labels(&member.server);
            if newest && alone && able {
                let owed = owes(row, &member.server, &labels);
                self.hold("I17", !owed, || {
                    format!(
                        "rollout {}: {} is connected and owed, and nothing happens",
                        row.id, member.server
                    )
                });
            }
        }
    }
}

/// Whether the server waits for a person's word: its own step of unknown outcome, or another server's `once` step.
fn waits(state: &Rollout, server: &consign_common::name::ServerName) -> bool {
    let Some(member) = state.member(server) else { return false };
    match &member.state {
        ServerState::Ended { end: End::Unknown { step: Some(_), .. } } => true,
        ServerState::Awaiting { step, told: Word::NotYet } => match state
            .once
            .get(step)
            .map(|once| &once.state)
        {
            Some(OnceState::Unknown { .. }) => true,
            // It waits for one that waits.
            Some(OnceState::Granted { server: holder, .. }) => holder != server && waits(state, holder),
            Some(OnceState::Open) => state.members.iter().any(|before| {
                before.server != *server
                    && matches!(before.state, ServerState::Ended { end: End::Unknown { step: Some(_), .. } })
            }),
            Some(OnceState::Done { .. } | OnceState::Failed { .. }) | None => false,
        },
        ServerState::Pending
        | ServerState::Due { .. }
        | ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Confirming { .. }
        | ServerState::Returning
        | ServerState::Ended { .. } => false,
    }
}
