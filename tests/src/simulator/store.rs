//! What the coordinator keeps through a crash: the tables of `coordinator/src/rollouts/store`, as its own rows.

use std::collections::BTreeMap;

use consign_common::{
    digest::Sha256,
    name::{App, Id, ServerName},
};
use consign_coordinator::rollouts::{
    DeploymentRow, Hold, RolloutRow,
    orders::shown_by,
    rows::{OrderRow, OrderTag, Pointers},
};

use super::queue::Key;

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// In the order in which they were added.
    pub(super) rollouts: Vec<RolloutRow>,
    pub(super) deployments: BTreeMap<Id, DeploymentRow>,
    /// The newest of every rollout and server.
    newest: BTreeMap<(Id, ServerName), Id>,
    pub(super) orders: Vec<Outgoing>,
    pub(super) terms: BTreeMap<App, u64>,
    pub(super) holds: BTreeMap<App, Hold>,
    pub(super) pointers: BTreeMap<(ServerName, App), Pointers>,
    pub(super) disabled: BTreeMap<ServerName, String>,
    pub(super) enrolled: Vec<ServerName>,
    pub(super) logs: BTreeMap<Key, u64>,
}

/// One row of the outbox.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) row: OrderRow,
    pub(super) answered: bool,
}

impl Store {
    pub(super) fn rollout(&self, id: &Id) -> Option<&RolloutRow> {
        self.rollouts.iter().find(|row| row.id == *id)
    }

    pub(super) fn save(&mut self, row: RolloutRow) {
        if let Some(kept) = self.rollouts.iter_mut().find(|kept| kept.id == row.id) {
            *kept = row;
        }
    }

    /// Queued and active ones, and ended ones that servers still converge to; oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = &RolloutRow> {
        self.rollouts.iter().filter(|row| !row.is_ended() || row.state.is_under_way())
    }

    pub(super) fn open_of(&self, app: &App) -> Vec<RolloutRow> {
        self.open().filter(|row| row.app == *app).cloned().collect()
    }

    pub(super) fn newest_of(&self, app: &App) -> Option<&RolloutRow> {
        self.rollouts.iter().rev().find(|row| row.app == *app)
    }

    pub(super) fn raise_term(&mut self, app: &App) -> u64 {
        let term = self.terms.entry(app.clone()).or_default();
        *term += 1;
        *term
    }

    pub(super) fn deployment_on(&self, rollout: &Id, server: &ServerName) -> Option<&DeploymentRow> {
        let id = self.newest.get(&(rollout.clone(), server.clone()))?;
        self.deployments.get(id)
    }

    pub(super) fn add_deployment(&mut self, row: DeploymentRow) {
        self.newest.insert((row.rollout.clone(), row.server.clone()), row.id.clone());
        self.deployments.insert(row.id.clone(), row);
    }

    pub(super) fn order(&self, id: &Id) -> Option<&OrderRow> {
        self.orders.iter().find(|order| order.row.id == *id).map(|order| &order.row)
    }

    pub(super) fn answer_order(&mut self, id: &Id) {
        if let Some(order) = self.orders.iter_mut().find(|order| order.row.id == *id) {
            order.answered = true;
        }
    }

    /// The orders that an agent shows to have by what it says.
    pub(super) fn answer(&mut self, deployment: &Id, event: &consign_common::deployment::Event) {
        let (order, kinds): (_, &[OrderTag]) = shown_by(event);
        if let Some(order) = order {
            self.answer_order(order);
        }
        self.answer_orders(deployment, kinds);
    }

    pub(super) fn answer_orders(&mut self, deployment: &Id, kinds: &[OrderTag]) {
        let of = self.orders.iter_mut().filter(|it| it.row.deployment == *deployment);
        of.filter(|it| kinds.contains(&it.row.kind)).for_each(|it| it.answered = true);
    }

    pub(super) fn is_newest(&self, row: &DeploymentRow) -> bool {
        self.deployment_on(&row.rollout, &row.server).is_some_and(|newest| newest.id == row.id)
    }

    pub(super) fn open_orders(&self, server: &ServerName) -> Vec<OrderRow> {
        let open = self.orders.iter().filter(|order| !order.answered && order.row.server == *server);
        open.map(|order| order.row.clone()).collect()
    }

    pub(super) fn pointers(&self, server: &ServerName, app: &App) -> Pointers {
        self.pointers.get(&(server.clone(), app.clone())).cloned().unwrap_or_default()
    }

    pub(super) fn became_good(&mut self, server: &ServerName, app: &App, digest: Sha256) {
        let pointers = self.pointers.entry((server.clone(), app.clone())).or_default();
        if pointers.good != Some(digest) {
            pointers.before = pointers.good.replace(digest);
        }
    }

    pub(super) fn went_back(&mut self, server: &ServerName, app: &App, digest: Sha256) {
        if let Some(pointers) = self.pointers.get_mut(&(server.clone(), app.clone())) {
            *pointers = Pointers { good: Some(digest), before: None };
        }
    }

    /// What is read back from the disk is what was written.
    pub(super) fn reread(&mut self) {
        for row in &mut self.rollouts {
            let text = serde_json::to_string(&row.state).unwrap();
            let read = serde_json::from_str(&text).unwrap();
            assert_eq!(row.state, read, "a rollout's state does not survive its own JSON");
            row.state = read;
        }
        for row in self.deployments.values_mut() {
            let text = serde_json::to_string(&row.view).unwrap();
            row.view = serde_json::from_str(&text).unwrap();
        }
    }
}
