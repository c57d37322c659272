//! The orders' documents, as agents get them.

use consign_common::{
    digest::Sha256,
    json,
    name::Id,
    time::UnixMs,
    trust::{Order, OrderKind},
};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    controller::ControllerError,
    rows::{Again, DeploymentRow, OrderRow, OrderTag, RolloutRow},
};
use crate::rollout::Kind;

const FORMAT: &str = "consign-order-v1";

/// 128 random bits.
pub(super) fn fresh_id() -> Result<Id, ControllerError> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| ControllerError::Random)?;
    Ok(Id::from_bytes(bits))
}

/// The order that begins a deployment: deploy or return.
pub(super) fn work(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    manifest: Sha256,
    coordinator: String,
    now: UnixMs,
) -> Result<OrderRow, ControllerError> {
    let (tag, order) = match row.state.kind {
        Kind::Deploy => (OrderTag::Deploy, OrderKind::deploy(manifest, row.again == Again::Force)),
        Kind::Return => (OrderTag::Return, OrderKind::back(manifest, row.reason.clone())),
    };
    compose(row, deployment, tag, Some(manifest), order, coordinator, now)
}

pub(super) fn cancel(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    reason: String,
    coordinator: String,
    now: UnixMs,
) -> Result<OrderRow, ControllerError> {
    compose(row, deployment, OrderTag::Cancel, None, OrderKind::Cancel { reason }, coordinator, now)
}

fn compose(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    kind: OrderTag,
    manifest: Option<Sha256>,
    order: OrderKind,
    coordinator: String,
    now: UnixMs,
) -> Result<OrderRow, ControllerError> {
    let order = Order {
        format: FORMAT.to_owned(),
        id: fresh_id()?,
        coordinator,
        server: deployment.server.clone(),
        environment: row.environment.clone(),
        app: row.app.clone(),
        rollout: row.id.clone(),
        deployment: deployment.id.clone(),
        term: row.term,
        issued: now,
        order,
    };
    let document = json::to_vec(&order);
    Ok(OrderRow {
        id: order.id,
        deployment: order.deployment,
        server: order.server,
        kind,
        manifest,
        document,
    })
}
