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
    let skip = row.state.skips_on(&deployment.server);
    let (tag, order) = match row.state.kind {
        Kind::Deploy => {
            let pinned = row.pinned.as_ref().and_then(|pinned| pinned.servers.get(&deployment.server));
            let confirm_ms = Some(row.state.strategy.confirm_ms).filter(|ms| *ms > 0);
            let plan = pinned.cloned().unwrap_or_default();
            let force = row.again == Again::Force;
            (OrderTag::Deploy, OrderKind::Deploy { manifest, force, skip, plan, confirm_ms })
        }
        Kind::Return => (OrderTag::Return, OrderKind::Return { manifest, reason: row.reason.clone(), skip }),
    };
    compose(row, deployment, tag, Some(manifest), order, coordinator, now)
}

/// An order about a deployment that has begun.
pub(super) fn control(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    order: OrderKind,
    coordinator: String,
    now: UnixMs,
) -> Result<OrderRow, ControllerError> {
    let tag = match &order {
        OrderKind::Confirm {} => OrderTag::Confirm,
        OrderKind::Decide { .. } => OrderTag::Decide,
        OrderKind::Once { .. } => OrderTag::Once,
        OrderKind::Cancel { .. } => OrderTag::Cancel,
        // They begin a deployment: `work`.
        OrderKind::Deploy { .. } => OrderTag::Deploy,
        OrderKind::Return { .. } => OrderTag::Return,
    };
    compose(row, deployment, tag, None, order, coordinator, now)
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
