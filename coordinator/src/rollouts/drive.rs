//! The engine's step: reads a rollout, applies what happened, and writes the new state, the orders that follow and the
//! feed's rows; all in the caller's one transaction.

use std::{collections::VecDeque, sync::Arc};

use consign_common::{
    deployment::Event as AgentEvent,
    name::{Id, ServerName},
    time::UnixMs,
    trust::{OrderKind, gate::Rearming},
};

use super::{
    after::After,
    controller::{Controller, ControllerError},
    orders::{self, fresh_id},
    rows::{Changed, DeploymentRow, HistoryRow, OrderRow, RolloutRow},
    store::{self, Write},
    succession::{is_active, open_of},
    view::{self, View},
};
use crate::{
    candidates, config,
    rollout::{self, Command, End, Event, Final, Kind, News, Phase, Rollout, Verb},
};

/// What is still to be applied in the same transaction.
pub(super) type Happened = VecDeque<(Id, Event)>;

impl Controller {
    /// Something happened to rollouts.
    pub(super) async fn happened(
        self: &Arc<Self>,
        happened: Vec<(Id, Event)>,
    ) -> Result<After, ControllerError> {
        let mut after = After::default();
        let mut write = self.store.write().await?;
        self.drive(&mut write, happened.into(), &mut after).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Folds one event of an agent into all that follows from it.
    pub(super) async fn take(
        self: &Arc<Self>,
        write: &mut Write,
        mut row: DeploymentRow,
        event: &AgentEvent,
        at: UnixMs,
    ) -> Result<After, ControllerError> {
        let now = self.clock.now();
        let mut after = After::default();
        let Some(rollout) = store::rollout(&mut **write, &row.rollout).await? else {
            return Ok(after);
        };
        row.view.fold(rollout.state.kind, event, at);
        store::save_deployment(write, &row).await?;
        store::add_change(write, &row.rollout, now, &Changed::Deployment(row.id.clone())).await?;
        answer(write, &row.id, event, now).await?;
        if matches!((event, rollout.state.kind), (AgentEvent::Accepted { .. }, Kind::Deploy))
            && let Some(sequence) = config::pinned(&mut **write, &rollout.id).await?
        {
            store::config_accepted(write, &row.server, &rollout.app, sequence).await?;
        }
        if let (AgentEvent::Ended { result }, Some(digest)) = (event, &row.digest) {
            match (rollout.state.kind, view::end(result)) {
                (Kind::Deploy, End::Succeeded { .. }) => {
                    store::became_good(write, &row.server, &rollout.app, digest, &rollout.version).await?;
                }
                (Kind::Return, End::Succeeded { .. } | End::Returned { .. }) => {
                    store::went_back(write, &row.server, &rollout.app, digest).await?;
                }
                (Kind::Deploy | Kind::Return, _) => {}
            }
        }
        if let AgentEvent::Ended { result } = event {
            match Rearming::of(&order_of(&rollout), result) {
                Rearming::OnIfBegun if !row.view.has_begun() => {}
                Rearming::On | Rearming::OnIfBegun => {
                    store::failed(write, &row.server, &rollout.app, at).await?;
                }
                Rearming::Off => store::failed_no_more(write, &row.server, &rollout.app, at).await?,
                Rearming::Unchanged => {}
            }
        }
        // A deployment that a retry has replaced is heard to its end, and decides nothing any more.
        if store::is_newest(&mut **write, &row).await? {
            let news = row.view.news(&rollout.state, event);
            let server = &row.server;
            let happened = news
                .into_iter()
                .map(|news| (row.rollout.clone(), Event::Server { server: server.clone(), news }));
            self.drive(write, happened.collect(), &mut after).await?;
        } else if orders::asks(event) {
            let reason = "a retry has replaced this deployment".to_owned();
            let (order, coordinator) = (OrderKind::Cancel { reason }, self.coordinator.clone());
            let order = orders::control(&rollout, &row, order, coordinator, fresh_id()?, now);
            store::add_order(write, &order, now).await?;
            after.send.push(order);
        }
        Ok(after)
    }

    /// Applies until nothing is left. A rollout that ends lets the one that waited for it begin.
    pub(super) async fn drive(
        &self,
        write: &mut Write,
        mut happened: Happened,
        after: &mut After,
    ) -> Result<(), ControllerError> {
        while let Some((id, event)) = happened.pop_front() {
            let Some(row) = store::rollout(&mut **write, &id).await? else { continue };
            let (next, commands) = rollout::apply(row.state.clone(), event, self.clock.now());
            if next == row.state && commands.is_empty() {
                continue;
            }
            self.settle(write, row, next, commands, after, &mut happened).await?;
        }
        Ok(())
    }

    /// Makes the rollout's next state durable, with all that its commands leave to do. One that has ended and goes on by a
    /// server's word, since a decision took its time to get there, has no place beside one that began meanwhile.
    pub(super) async fn settle(
        &self,
        write: &mut Write,
        mut row: RolloutRow,
        mut next: Rollout,
        mut commands: Vec<Command>,
        after: &mut After,
        happened: &mut Happened,
    ) -> Result<(), ControllerError> {
        let now = self.clock.now();
        if row.state.verdict().is_some() && !row.state.is_under_way() && next.is_under_way() {
            let open = open_of(write, &row.app, &row.environment).await?;
            let because = "another rollout has begun since";
            if open.iter().any(is_active)
                && let Ok((ending, more)) = rollout::press(next.clone(), Verb::Abort, because, now)
            {
                next = ending;
                commands.extend(more);
            }
        }
        // Terms are given out when rollouts are asked for, and not every one begins in its turn: servers that have seen a
        // newer one would refuse the orders of what begins after all.
        if takes_over(&row.state, &next, &commands)
            && row.term < store::term(&mut **write, &row.app, &row.environment).await?
        {
            row.term = store::raise_term(write, &row.app, &row.environment).await?;
        }
        let before = std::mem::replace(&mut row.state, next);
        let ends = row.is_ended() && before.verdict().is_none();
        if ends {
            row.ended = now;
        } else if !row.is_ended() {
            row.ended = UnixMs(0);
        }
        for command in commands {
            match command {
                Command::Find { server } => after.find.push_back((row.id.clone(), server)),
                Command::Probe { wave } => after.probe.push((row.id.clone(), wave)),
                Command::Order { server } => match self.order(write, &row, &server, now).await? {
                    Ok(order) => after.send.push(order),
                    Err(end) => {
                        happened
                            .push_back((row.id.clone(), Event::Server { server, news: News::Ended(end) }));
                    }
                },
                Command::Cancel { server, because } => {
                    let order = OrderKind::Cancel { reason: because };
                    after.send.extend(self.control(write, &row, &server, order, now).await?);
                    after.cancelled.push((row.id.clone(), server));
                }
                Command::Confirm { server } => {
                    after.send.extend(self.control(write, &row, &server, OrderKind::Confirm {}, now).await?);
                }
                Command::Once { server, step, word } => {
                    let order = OrderKind::Once { step, word };
                    after.send.extend(self.control(write, &row, &server, order, now).await?);
                }
                Command::Decide { server, step, action, because } => {
                    let order = OrderKind::Decide { step, action, reason: because };
                    after.send.extend(self.control(write, &row, &server, order, now).await?);
                }
                Command::RollBack { because } => {
                    row.rolled_back_by = self.roll_back(write, &row, &because).await?;
                }
            }
        }
        if !before.gives_up() && row.state.gives_up() {
            let ordered = row.state.members.iter().filter(|member| member.state.is_ordered());
            after.awaited.extend(ordered.map(|member| (row.id.clone(), member.server.clone())));
        }
        store::save_rollout(write, &row).await?;
        self.announce(write, &row, &before, now).await?;
        if ends {
            tracing::info!(rollout = %row.id, app = %row.app, environment = %row.environment,
                state = row.state.as_str(), "rollout ended");
        }
        if row.state.kind == Kind::Deploy
            && is_green(&row.state)
            && !is_green(&before)
            && row.selector.is_empty()
        {
            candidates::succeeded(write, &row.environment, row.digest, &row.id, now).await?;
        }
        if ends || (before.is_under_way() && !row.state.is_under_way()) {
            after.ended.push(row.id.clone());
            match self.next_to_begin(write, &row.app, &row.environment).await? {
                Some(next) => happened.push_back((next, Event::Begin)),
                // Servers that came while it ran were told nothing then.
                None => after.idle.push(row.environment),
            }
        }
        Ok(())
    }

    /// Tells the feed which servers' lines, and whether the rollout's own, have changed; and keeps what happened to it.
    async fn announce(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        before: &Rollout,
        now: UnixMs,
    ) -> Result<(), ControllerError> {
        for new in &row.state.members {
            if before.member(&new.server) != Some(new)
                && let Some(deployment) = store::deployment_on(&mut **write, &row.id, &new.server).await?
            {
                store::add_change(write, &row.id, now, &Changed::Deployment(deployment.id)).await?;
            }
        }
        let what = row.state.milestone();
        if before.phase != row.state.phase || before.paused != row.state.paused {
            store::add_change(write, &row.id, now, &Changed::Rollout).await?;
        }
        if before.milestone() != what {
            let because = rollout::explain(&row.state, now);
            let line = HistoryRow { at: now, who: String::new(), what, because };
            store::add_history(write, &row.id, &line).await?;
        }
        Ok(())
    }

    async fn order(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        server: &ServerName,
        now: UnixMs,
    ) -> Result<Result<OrderRow, End>, ControllerError> {
        let Some(mut deployment) = store::deployment_on(&mut **write, &row.id, server).await? else {
            let code = "not-planned".to_owned();
            return Ok(Err(End::Refused { code, message: "the rollout has no row for it".to_owned() }));
        };
        if row.state.kind == Kind::Return {
            deployment.digest = store::pointers(&mut **write, server, &row.app).await?.before;
            store::save_deployment(write, &deployment).await?;
        }
        let Some(manifest) = deployment.digest else {
            return Ok(Err(orders::nothing_before(row)));
        };
        let coordinator = self.coordinator.clone();
        let order = orders::work(row, &deployment, manifest, coordinator, fresh_id()?, now);
        store::add_order(write, &order, now).await?;
        Ok(Ok(order))
    }

    /// An order about the server's deployment; none where it never had one.
    async fn control(
        &self,
        write: &mut Write,
        row: &RolloutRow,
        server: &ServerName,
        order: OrderKind,
        now: UnixMs,
    ) -> Result<Option<OrderRow>, ControllerError> {
        let Some(deployment) = store::deployment_on(&mut **write, &row.id, server).await? else {
            return Ok(None);
        };
        if let OrderKind::Cancel { .. } = order {
            // It takes the place of what the server was told and has not heard: a server that comes back must not begin
            // what somebody else was given meanwhile.
            store::answer_orders(write, &deployment.id, orders::WITHDRAWN, now).await?;
        }
        let order = orders::control(row, &deployment, order, self.coordinator.clone(), fresh_id()?, now);
        store::add_order(write, &order, now).await?;
        Ok(Some(order))
    }
}

/// The kind of order that its servers got; all that counts for `rearm`.
fn order_of(rollout: &RolloutRow) -> OrderKind {
    let manifest = rollout.digest;
    match rollout.state.kind {
        Kind::Deploy => OrderKind::deploy(manifest, false),
        Kind::Return => OrderKind::Return { manifest, reason: String::new(), skip: Vec::new() },
    }
}

/// Whether it went through on every server.
fn is_green(state: &Rollout) -> bool {
    state.verdict().is_some_and(|verdict| verdict.state == Final::Succeeded)
}

/// Whether it begins, or servers begin to converge to it: from here on its orders are the newest there are.
pub fn takes_over(before: &Rollout, next: &Rollout, commands: &[Command]) -> bool {
    let begins = matches!(before.phase, Phase::Queued { .. }) && matches!(next.phase, Phase::Running { .. });
    let converges =
        before.verdict().is_some() && commands.iter().any(|command| matches!(command, Command::Find { .. }));
    begins || converges
}

/// The rollout's row for a server that is to be deployed to, for the first time or again.
pub(super) async fn add_deployment(
    write: &mut Write,
    row: &RolloutRow,
    server: &ServerName,
) -> Result<(), ControllerError> {
    let before = store::deployment_on(&mut **write, &row.id, server).await?;
    let deployment = DeploymentRow {
        id: fresh_id()?,
        rollout: row.id.clone(),
        server: server.clone(),
        attempt: before.map_or(1, |before| before.attempt.saturating_add(1)),
        digest: match row.state.kind {
            Kind::Deploy => Some(row.digest),
            Kind::Return => None,
        },
        sequence: 0,
        view: View::default(),
        changed: 0,
    };
    Ok(store::add_deployment(write, &deployment).await?)
}

/// The orders that an agent shows to have by what it says.
async fn answer(
    write: &mut Write,
    deployment: &Id,
    event: &AgentEvent,
    now: UnixMs,
) -> Result<(), ControllerError> {
    let (order, kinds) = orders::shown_by(event);
    if let Some(order) = order {
        store::answer_order(write, order, now).await?;
    }
    Ok(store::answer_orders(write, deployment, kinds, now).await?)
}
