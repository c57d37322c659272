//! What a transaction leaves to do once it is durable: sending orders, looking for servers, waiting for those that are
//! away. All of it may be lost at any instant, and is brought back by [`Controller::resume`] and by agents that connect.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use consign_common::{
    limits::CLOCK_SKEW_MS,
    name::{Environment, Id, ServerName},
};

use super::{
    controller::{Controller, ControllerError},
    orders::nothing_before,
    rows::{OrderRow, RolloutRow},
    store,
};
use crate::{
    fleet::{RegistryError, Sent, ToAgent},
    rollout::{Command, End, Event, Kind, News},
    store::StoreError,
};

/// What is left to do when the transaction is durable.
#[derive(Debug, Default)]
pub(super) struct After {
    pub(super) find: VecDeque<(Id, ServerName)>,
    /// Waves whose health is to be asked for.
    pub(super) probe: Vec<(Id, u32)>,
    pub(super) send: Vec<OrderRow>,
    /// A rollout of this environment has ended: servers that came while it ran may owe it.
    pub(super) idle: Vec<Environment>,
    /// Servers that were told to cancel: if they are not there, they get a last chance.
    pub(super) cancelled: Vec<(Id, ServerName)>,
    /// Servers whose end a rollout waits for that has stopped: if they are not there, not for ever.
    pub(super) awaited: Vec<(Id, ServerName)>,
    /// Rollouts that have ended: candidates may have waited for them, or there are new ones.
    pub(super) ended: Vec<Id>,
}

impl After {
    /// What a former process was told and may not have done.
    pub(super) fn again(&mut self, rollout: &Id, command: Command) {
        match command {
            Command::Find { server } => self.find.push_back((rollout.clone(), server)),
            Command::Probe { wave } => self.probe.push((rollout.clone(), wave)),
            // In the outbox.
            Command::Order { .. }
            | Command::Cancel { .. }
            | Command::Confirm { .. }
            | Command::Once { .. }
            | Command::Decide { .. }
            | Command::RollBack { .. } => {}
        }
    }
}

impl Controller {
    /// Does what a durable transaction left to do, until nothing is left.
    pub(super) async fn perform(self: &Arc<Self>, mut after: After) -> Result<(), ControllerError> {
        loop {
            self.feed.wake();
            self.alarm.notify_one();
            if !std::mem::take(&mut after.ended).is_empty() {
                self.reconsider();
            }
            for (rollout, wave) in std::mem::take(&mut after.probe) {
                self.judge(rollout, wave);
            }
            for order in std::mem::take(&mut after.send) {
                self.send(order).await;
            }
            for (rollout, server) in std::mem::take(&mut after.cancelled) {
                if !self.sessions.is_online(&server) {
                    self.expect_back(rollout, server, self.patience.cancel);
                }
            }
            for (rollout, server) in std::mem::take(&mut after.awaited) {
                if !self.sessions.is_online(&server) {
                    self.expect_back(rollout, server, self.patience.stopping);
                }
            }
            let mut found = Vec::new();
            for (rollout, server) in std::mem::take(&mut after.find) {
                match self.look_for(&rollout, &server).await? {
                    Some(news) => found.push((rollout, Event::Server { server, news })),
                    None => {
                        let patience = self.patience_with(&server).await?;
                        self.expect_back(rollout, server, patience);
                    }
                }
            }
            if found.is_empty() {
                break;
            }
            let idle = std::mem::take(&mut after.idle);
            after = self.happened(found).await?;
            after.idle.extend(idle);
        }
        for environment in after.idle {
            Box::pin(self.converge_all(&environment)).await?;
        }
        Ok(())
    }

    /// What can be said of a server whose turn has come; `None` if it is not connected.
    async fn look_for(&self, rollout: &Id, server: &ServerName) -> Result<Option<News>, ControllerError> {
        let known = match self.registry.get(server).await {
            Ok(known) => known,
            Err(RegistryError::Unknown { .. }) => {
                return Ok(Some(News::Disabled { because: "removed from the fleet".to_owned() }));
            }
            Err(error @ RegistryError::Store(_)) => return Err(error.into()),
        };
        if let Some(because) = known.kept_out() {
            return Ok(Some(News::Disabled { because }));
        }
        if let Some(row) = store::rollout(self.store.read(), rollout).await?
            && row.state.kind == Kind::Return
        {
            let pointers = store::pointers(self.store.read(), server, &row.app).await?;
            if pointers.good != Some(row.digest) {
                return Ok(Some(match self.left_between(&row, server).await? {
                    Some(because) => News::Impossible(End::Stopped { because }),
                    None => News::NothingToDo,
                }));
            }
            if pointers.before.is_none() {
                return Ok(Some(News::Impossible(nothing_before(&row))));
            }
        }
        let Some(offset) = self.sessions.clock_offset_ms(server) else { return Ok(None) };
        if offset.unsigned_abs() > CLOCK_SKEW_MS {
            let direction = if offset < 0 { "behind" } else { "ahead of" };
            let seconds = offset.unsigned_abs() / 1000;
            let message =
                format!("its clock is {seconds} s {direction} the coordinator's; no deploy order was sent");
            return Ok(Some(News::ClockSkew { message }));
        }
        Ok(Some(News::Ready))
    }

    /// Why a server may run what is left although it was never good there: the deployment that brought it stopped
    /// halfway, or nobody knows how it ended.
    async fn left_between(
        &self,
        back: &RolloutRow,
        server: &ServerName,
    ) -> Result<Option<String>, StoreError> {
        let (app, environment) = (Some(&back.app), Some(&back.environment));
        let rows = store::list(self.store.read(), app, environment, 100).await?;
        let brought = rows.iter().filter(|row| row.state.kind == Kind::Deploy && row.digest == back.digest);
        let end = brought.filter_map(|row| row.state.member(server)?.state.end()).next();
        Ok(match end {
            Some(end @ (End::Stopped { .. } | End::Unknown { .. })) => Some(format!(
                "{} may be current there and was never good ({end}); decide it, or deploy another artifact",
                back.version
            )),
            Some(_) | None => None,
        })
    }

    /// How long a server is waited for whose turn has come.
    async fn patience_with(&self, server: &ServerName) -> Result<Duration, ControllerError> {
        if self.sessions.has_been_online(server) {
            return Ok(self.patience.turn);
        }
        let came_before = match self.registry.get(server).await {
            Ok(known) => known.last_seen.is_some(),
            Err(RegistryError::Unknown { .. }) => false,
            Err(error @ RegistryError::Store(_)) => return Err(error.into()),
        };
        let rest = self.patience.restart.saturating_sub(self.began.elapsed());
        Ok(if came_before { self.patience.turn.max(rest) } else { self.patience.turn })
    }

    /// Gives an absent server this long.
    pub(super) fn expect_back(self: &Arc<Self>, rollout: Id, server: ServerName, patience: Duration) {
        let controller = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let Some(controller) = controller.upgrade() else { return };
            if controller.sessions.is_online(&server) {
                return;
            }
            let event = Event::Server { server: server.clone(), news: News::Absent };
            let outcome = match controller.happened(vec![(rollout, event)]).await {
                Ok(after) => Box::pin(controller.perform(after)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::error!(%server, %error, "an absent server could not be recorded");
            }
        });
    }

    /// Gives the end of a deployment that could not be cancelled this long to come in.
    pub(super) fn expect_end(self: &Arc<Self>, rollout: Id, server: ServerName, order: Id, because: String) {
        let (controller, patience) = (Arc::downgrade(self), self.patience.cancel);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let Some(controller) = controller.upgrade() else { return };
            if let Err(error) = controller.lost(rollout, &server, &order, because).await {
                tracing::error!(%server, %error, "a lost deployment could not be recorded");
            }
        });
    }

    async fn lost(
        self: &Arc<Self>,
        rollout: Id,
        server: &ServerName,
        order: &Id,
        because: String,
    ) -> Result<(), ControllerError> {
        let mut after = After::default();
        let mut write = self.store.write().await?;
        store::answer_order(&mut write, order, self.clock.now()).await?;
        let about = match store::order(&mut *write, order).await? {
            Some(order) => store::deployment(&mut *write, &order.deployment).await?,
            None => None,
        };
        // Of one that a retry has replaced nothing is waited for.
        if let Some(about) = about
            && store::is_newest(&mut *write, &about).await?
        {
            let event = Event::Server { server: server.clone(), news: News::Lost { because } };
            self.drive(&mut write, [(rollout, event)].into(), &mut after).await?;
        }
        write.commit().await?;
        Box::pin(self.perform(after)).await
    }

    /// Sends an order that is durable. If it cannot be sent now, the agent gets it when it connects.
    async fn send(&self, order: OrderRow) {
        match store::held(self.store.read(), &order).await {
            Ok(None) => {}
            Ok(Some(why)) => {
                tracing::info!(order = %order.id, server = %order.server, ?why, "kept until a person lifts it");
                return;
            }
            Err(error) => {
                tracing::error!(order = %order.id, %error, "whether an order may be sent cannot be read");
                return;
            }
        }
        let papers = match self.papers(&order).await {
            Ok(papers) => papers,
            Err(error) => {
                tracing::error!(order = %order.id, %error, "what goes with an order cannot be read");
                return;
            }
        };
        match self.sessions.send(&order.server, ToAgent::Order(papers)) {
            Sent::Queued => {}
            Sent::NotConnected => {
                tracing::info!(order = %order.id, server = %order.server, "kept until it connects")
            }
        }
    }
}
