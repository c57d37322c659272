//! What holds of rollouts: what is ordered, when, and what is said of it.

use std::collections::BTreeMap;

use consign_common::{
    deployment::DeploymentOutcome,
    name::{App, Id, ServerName},
    time::UnixMs,
    trust::{DecisionAction, Refusal},
};
use consign_coordinator::{
    rollout::{Command, End, Event, Final, Kind, Member, Phase, Rollout, ServerState, Verb},
    rollouts::{DeploymentRow, RolloutRow},
};

use super::{Oracle, Step};

impl Oracle {
    pub(crate) fn term(&mut self, app: &App, term: u64) {
        let known = self.terms.entry(app.clone()).or_default();
        let before = std::mem::replace(known, term);
        self.hold("I10", term > before, || format!("the term of {app} goes from {before} to {term}"));
    }

    pub(crate) fn held(&mut self, app: &App, at: UnixMs) {
        self.holds.insert(app.clone(), at);
    }

    pub(crate) fn lifted(&mut self, app: &App) {
        self.holds.remove(app);
    }

    /// The engine stepped.
    pub(crate) fn transition(
        &mut self,
        row: &RolloutRow,
        before: &Rollout,
        commands: &[Command],
        cause: &Step,
        now: UnixMs,
    ) {
        self.progress += 1;
        let after = &row.state;
        self.said(row, cause, now);
        self.frozen(row, before, cause);
        for command in commands {
            match command {
                Command::Order { server } => self.ordered(row, before, server),
                Command::Find { .. }
                | Command::Cancel { .. }
                | Command::Confirm { .. }
                | Command::Once { .. }
                | Command::Decide { .. }
                | Command::Probe { .. }
                | Command::RollBack { .. } => {}
            }
        }
        self.verdict(row, before, after);
    }

    /// Holds, and what people allow.
    fn said(&mut self, row: &RolloutRow, cause: &Step, now: UnixMs) {
        let hold = self.holds.get(&row.app).copied();
        match cause {
            Step::Event(Event::Begin) if row.state.kind == Kind::Deploy => {
                self.hold("hold", hold.is_none_or(|hold| row.asked > hold), || {
                    format!("rollout {} begins by itself in spite of a hold", row.id)
                });
            }
            Step::Event(Event::Converge { server, .. }) => {
                self.hold("hold", hold.is_none(), || {
                    format!("{server} converges to rollout {} in spite of a hold", row.id)
                });
            }
            Step::Event(Event::Begin | Event::Tick | Event::Server { .. } | Event::Health { .. }) => {}
            Step::Verb(Verb::Retry) => {
                let term = row.term;
                self.term(&row.app, term);
                self.retried.insert(row.id.clone(), self.now);
            }
            Step::Verb(Verb::Decide { step, action: DecisionAction::Again, .. }) => {
                self.allowed_again.insert((row.id.clone(), step.clone()), self.now);
            }
            Step::Verb(Verb::Decide { step, action: DecisionAction::Failed, .. }) => {
                // It counts as failed from here on, whatever it came to: a retry opens it again.
                let name = (row.id.clone(), step.clone());
                for ran in self.once.get_mut(&name).into_iter().flatten() {
                    ran.called_failed = true;
                }
            }
            Step::Verb(
                Verb::Pause
                | Verb::Resume
                | Verb::Abort
                | Verb::SkipServer { .. }
                | Verb::SkipStep { .. }
                | Verb::Decide { .. },
            ) => {}
        }
        let _ = now;
    }

    /// Membership and waves never change, and an end is final but for a person's word and what an agent says later.
    fn frozen(&mut self, row: &RolloutRow, before: &Rollout, cause: &Step) {
        let after = &row.state;
        let converges = matches!(cause, Step::Event(Event::Converge { .. }));
        let retries = matches!(cause, Step::Verb(Verb::Retry));
        let grown = after.members.len() == before.members.len()
            || (converges && after.members.len() == before.members.len() + 1);
        self.hold("I6", grown, || format!("rollout {} has other members", row.id));
        for old in &before.members {
            let Some(new) = after.member(&old.server) else {
                self.hold("I6", false, || format!("rollout {} has lost {}", row.id, old.server));
                continue;
            };
            self.hold("I6", new.wave == old.wave || retries, || format!("{} changes its wave", old.server));
            let Some(end) = old.state.end() else { continue };
            let skipped = matches!(cause, Step::Verb(Verb::SkipServer { server }) if *server == old.server);
            let may_change = match end {
                End::Unknown { .. } => true,
                End::Owed => converges || skipped,
                End::Succeeded { .. }
                | End::NoOp
                | End::Failed { .. }
                | End::Returned { .. }
                | End::Stopped { .. }
                | End::Cancelled { .. }
                | End::Refused { .. }
                | End::Offline
                | End::Skipped { .. }
                | End::NotReached { .. } => retries,
            };
            self.hold("I6", may_change || old.state == new.state, || {
                format!(
                    "rollout {}: {} was {end}, and is {:?} after {cause:?}",
                    row.id, old.server, new.state
                )
            });
        }
    }

    /// An order goes out: only when it may.
    fn ordered(&mut self, row: &RolloutRow, before: &Rollout, server: &ServerName) {
        let after = &row.state;
        let Some(member) = after.member(server) else {
            return self.hold("I6", false, || format!("rollout {} orders {server}, no member", row.id));
        };
        self.hold("paused", before.paused.is_none(), || {
            format!("rollout {} is paused and orders {server}", row.id)
        });
        let newest = self.terms.get(&row.app).copied().unwrap_or(0);
        let term = row.term;
        let drives = matches!(before.phase, Phase::Running { .. });
        let begun = self.begun_terms.get(&row.app).copied().unwrap_or(0).max(term);
        self.begun_terms.insert(row.app.clone(), begun);
        self.hold("I10", !drives || term >= begun, || {
            format!(
                "rollout {} orders {server} under term {term}, after {begun}; given out: {newest}",
                row.id
            )
        });
        let wave = match &before.phase {
            Phase::Running { wave, .. } => *wave,
            // Servers that converge to what went through.
            Phase::Ended { verdict } => {
                let green = matches!(verdict.state, Final::Succeeded | Final::Partial);
                return self.hold("ended", green && before.kind == Kind::Deploy, || {
                    format!("rollout {} has ended ({:?}) and orders {server}", row.id, verdict.state)
                });
            }
            Phase::Queued { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } => {
                return self.hold("ended", false, || {
                    format!("rollout {} is {} and orders {server}", row.id, before.as_str())
                });
            }
        };
        self.hold("waves", member.wave == wave, || {
            format!("{server} is ordered in wave {wave}, not its own")
        });
        let earlier = before.members.iter().find(|it| it.wave < wave && it.state.end().is_none());
        let earlier = earlier.map(|member| member.server.clone());
        self.hold("waves", earlier.is_none(), || {
            format!("rollout {} orders {server} of wave {wave} before {earlier:?} has ended", row.id)
        });
        if before.kind == Kind::Deploy {
            self.budget(row, before, server);
        }
        let must = before.strategy.min_healthy as usize;
        let all = before.members.iter().filter(|member| member.wave > 0).count();
        let out = before
            .members
            .iter()
            .filter(|member| member.wave > 0 && (is_out(&member.state) || member.server == *server));
        let out = out.count();
        // A way back goes on, one by one, also where too few are up.
        let flying = before.members.iter().any(|it| it.wave == wave && it.state.is_ordered());
        let one_by_one = before.kind == Kind::Return && !flying;
        self.hold("min-healthy", must == 0 || out + must <= all || one_by_one, || {
            format!("rollout {} orders {server}: {out} of {all} are out then, {must} must stay up", row.id)
        });
    }

    fn budget(&mut self, row: &RolloutRow, before: &Rollout, server: &ServerName) {
        let failed: Vec<(&Member, &End)> = before
            .members
            .iter()
            .filter_map(|member| Some((member, member.state.end().filter(|end| has_failed(end))?)))
            .collect();
        let mut groups: BTreeMap<&str, u32> = BTreeMap::new();
        for (member, _) in &failed {
            *groups.entry(&member.group).or_default() += 1;
        }
        let tolerated = before.strategy.failures as usize;
        let in_groups = before
            .strategy
            .group
            .as_ref()
            .is_none_or(|group| groups.values().all(|failed| *failed <= group.failures));
        let gate = failed.iter().any(|(_, end)| match end {
            End::Unknown { .. } => true,
            End::Refused { code, .. } => Refusal::TRUST_CODES.contains(&code.as_str()),
            End::Succeeded { .. }
            | End::NoOp
            | End::Failed { .. }
            | End::Returned { .. }
            | End::Stopped { .. }
            | End::Cancelled { .. }
            | End::Offline
            | End::Owed
            | End::Skipped { .. }
            | End::NotReached { .. } => false,
        });
        let count = failed.len();
        self.hold("budget", count <= tolerated && in_groups && !gate, || {
            format!("rollout {} orders {server} after {count} failures, {tolerated} tolerated", row.id)
        });
    }

    fn verdict(&mut self, row: &RolloutRow, before: &Rollout, after: &Rollout) {
        let Some(verdict) = after.verdict() else { return };
        if before.verdict().is_none() {
            let open = after.members.iter().find(|member| member.state.end().is_none());
            let open = open.map(|member| member.server.clone());
            self.hold("I6", open.is_none(), || format!("rollout {} ends before {open:?}", row.id));
        }
        let planned = |member: &&Member| member.joined == consign_coordinator::rollout::Joined::Planned;
        let pale = after
            .members
            .iter()
            .filter(planned)
            .find(|member| !matches!(member.state.end(), Some(End::Succeeded { .. } | End::NoOp)));
        let pale = pale.map(|member| (member.server.clone(), member.state.clone()));
        let green = verdict.state == Final::Succeeded && !after.is_under_way();
        self.hold("I6", !green || pale.is_none(), || {
            format!("rollout {} is called succeeded, and there is {pale:?}", row.id)
        });
    }

    /// What the coordinator says of a server is what that server's agent said, or that it does not know.
    pub(crate) fn member(&mut self, row: &RolloutRow, member: &Member, deployment: Option<&DeploymentRow>) {
        let Some(end) = member.state.end() else { return };
        let told = deployment.and_then(|deployment| self.deployments.get(&deployment.id));
        let outcome = told.and_then(|told| told.ended.as_ref());
        let fits = match (end, outcome) {
            (End::Succeeded { .. }, Some(DeploymentOutcome::Succeeded { .. })) => true,
            (End::Succeeded { .. }, Some(DeploymentOutcome::Returned { .. })) => {
                row.state.kind == Kind::Return
            }
            (End::Succeeded { .. }, _) => false,
            (End::NoOp, Some(outcome)) => *outcome == DeploymentOutcome::NoOp,
            (End::NoOp, None) => told.is_none(),
            (End::Failed { .. }, outcome) => matches!(outcome, Some(DeploymentOutcome::Failed { .. })),
            (End::Returned { .. }, outcome) => matches!(outcome, Some(DeploymentOutcome::Returned { .. })),
            (End::Stopped { .. }, Some(outcome)) => matches!(outcome, DeploymentOutcome::Stopped { .. }),
            // A way back that cannot be ordered: what is current there was never good.
            (End::Stopped { .. }, None) => row.state.kind == Kind::Return && told.is_none(),
            (End::Cancelled { .. }, outcome) => matches!(outcome, Some(DeploymentOutcome::Cancelled { .. })),
            (End::Unknown { step: Some(step), .. }, _) => {
                told.is_some_and(|told| told.ever_undecided.contains(step))
            }
            (End::Unknown { step: None, .. }, _) => true,
            (End::Refused { code, .. }, Some(DeploymentOutcome::Refused { code: own, .. })) => code == own,
            // The agent refused the order that was to begin it, or it was never ordered.
            (End::Refused { .. }, None) => told.is_none(),
            (End::Refused { .. }, Some(_)) => false,
            (End::Offline | End::Owed | End::Skipped { .. } | End::NotReached { .. }, _) => told.is_none(),
        };
        let (server, outcome) = (&member.server, if fits { None } else { outcome.cloned() });
        self.hold("I6", fits, || {
            format!("rollout {}: {server} is said to be {end}; its agent says {outcome:?}", row.id)
        });
    }

    /// One rollout of an app and environment drives its servers; another one's may only come to their ends.
    pub(crate) fn beside(&mut self, row: &RolloutRow, commands: &[Command], other: Option<Id>) {
        for command in commands {
            let (server, onward) = match command {
                Command::Order { server } | Command::Confirm { server } | Command::Once { server, .. } => {
                    (server, true)
                }
                Command::Cancel { server, .. } => (server, false),
                // Looking is no act; a decision is a person's.
                Command::Find { .. }
                | Command::Probe { .. }
                | Command::RollBack { .. }
                | Command::Decide { .. } => continue,
            };
            let told = (row.id.clone(), server.clone());
            if !onward {
                self.cancelled.insert(told);
                continue;
            }
            if matches!(command, Command::Order { .. }) {
                self.cancelled.remove(&told);
            }
            let ends = self.cancelled.contains(&told);
            self.hold("one-active", other.is_none() || ends, || {
                format!("rollout {}: {command:?} beside {other:?}, which is active", row.id)
            });
        }
        let runs = matches!(row.state.phase, Phase::Running { .. } | Phase::Stopping { .. });
        self.hold("one-active", !runs || other.is_none(), || {
            format!("rollouts {} and {other:?} run at once", row.id)
        });
    }
}

/// Whether the server may not serve: by this table's own count, not by the engine's.
fn is_out(state: &ServerState) -> bool {
    match state {
        ServerState::Ordered
        | ServerState::Running
        | ServerState::Awaiting { .. }
        | ServerState::Returning => true,
        ServerState::Ended { end } => {
            matches!(end, End::Stopped { .. } | End::Unknown { .. } | End::Offline | End::Owed)
        }
        ServerState::Pending | ServerState::Due { .. } | ServerState::Confirming { .. } => false,
    }
}

fn has_failed(end: &End) -> bool {
    match end {
        End::Failed { .. }
        | End::Returned { .. }
        | End::Stopped { .. }
        | End::Unknown { .. }
        | End::Cancelled { .. }
        | End::Refused { .. }
        | End::Offline => true,
        End::Succeeded { .. } | End::NoOp | End::Owed | End::Skipped { .. } | End::NotReached { .. } => false,
    }
}
