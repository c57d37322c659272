//! The orders' documents, as agents get them; and by which events agents show that they have them. Pure, but for the
//! ids.

use consign_common::{
    deployment::Event,
    digest::Sha256,
    json,
    name::Id,
    time::UnixMs,
    trust::{ORDER_FORMAT, Order, OrderKind},
};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    controller::ControllerError,
    rows::{Again, DeploymentRow, OrderRow, OrderTag, RolloutRow},
};
use crate::rollout::{End, Kind};

/// Orders that a cancel of their deployment takes the place of.
pub const WITHDRAWN: &[OrderTag] = &[OrderTag::Once, OrderTag::Confirm, OrderTag::Decide];

/// Orders of a deployment that a retry takes the place of. What was told to cancel is still to.
pub const REPLACED: &[OrderTag] =
    &[OrderTag::Deploy, OrderTag::Return, OrderTag::Once, OrderTag::Confirm, OrderTag::Decide];

/// 128 random bits.
pub(super) fn fresh_id() -> Result<Id, ControllerError> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| ControllerError::Random)?;
    Ok(Id::from_bytes(bits))
}

/// The order that begins a deployment: deploy or return.
pub fn work(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    manifest: Sha256,
    coordinator: String,
    id: Id,
    now: UnixMs,
) -> OrderRow {
    let skip = row.state.skips_on(&deployment.server);
    let (tag, order) = match row.state.kind {
        Kind::Deploy => {
            let pinned = row.pinned.as_ref().and_then(|pinned| pinned.servers.get(&deployment.server));
            let confirm_ms = Some(row.state.strategy.confirm_ms).filter(|ms| *ms > 0);
            let plan = pinned.cloned().unwrap_or_default();
            let force = row.again == Again::Force;
            // Once it has ended, servers come later to what the others run.
            let converge = row.is_ended();
            (OrderTag::Deploy, OrderKind::Deploy { manifest, force, skip, plan, confirm_ms, converge })
        }
        Kind::Return => (OrderTag::Return, OrderKind::Return { manifest, reason: row.reason.clone(), skip }),
    };
    compose(row, deployment, tag, Some(manifest), order, coordinator, id, now)
}

/// An order about a deployment that has begun.
pub fn control(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    order: OrderKind,
    coordinator: String,
    id: Id,
    now: UnixMs,
) -> OrderRow {
    let tag = match &order {
        OrderKind::Confirm {} => OrderTag::Confirm,
        OrderKind::Decide { .. } => OrderTag::Decide,
        OrderKind::Once { .. } => OrderTag::Once,
        OrderKind::Cancel { .. } => OrderTag::Cancel,
        // They begin a deployment: `work`.
        OrderKind::Deploy { .. } => OrderTag::Deploy,
        OrderKind::Return { .. } => OrderTag::Return,
    };
    // What people must sign is about the artifact.
    let manifest = deployment.digest.filter(|_| tag == OrderTag::Decide);
    compose(row, deployment, tag, manifest, order, coordinator, id, now)
}

#[expect(clippy::too_many_arguments, reason = "every one is a field of the document")]
fn compose(
    row: &RolloutRow,
    deployment: &DeploymentRow,
    kind: OrderTag,
    manifest: Option<Sha256>,
    order: OrderKind,
    coordinator: String,
    id: Id,
    now: UnixMs,
) -> OrderRow {
    let order = Order {
        format: ORDER_FORMAT.to_owned(),
        id,
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
    OrderRow { id: order.id, deployment: order.deployment, server: order.server, kind, manifest, document }
}

/// What an agent shows to have by what it says: the order that the event is the effect of, and all of the deployment of
/// these kinds.
pub fn shown_by(event: &Event) -> (Option<&Id>, &'static [OrderTag]) {
    const BEGUN: &[OrderTag] = &[OrderTag::Deploy, OrderTag::Return];
    const ALL: &[OrderTag] = &[
        OrderTag::Deploy,
        OrderTag::Return,
        OrderTag::Cancel,
        OrderTag::Confirm,
        OrderTag::Decide,
        OrderTag::Once,
    ];
    match event {
        Event::Ended { .. } => (None, ALL),
        Event::Cancelling { order, .. }
        | Event::Answered { order, .. }
        | Event::Decided { order, .. }
        | Event::Confirmed { order } => (Some(order), BEGUN),
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Staged { .. }
        | Event::Skipped { .. }
        | Event::Started { .. }
        | Event::Spawned { .. }
        | Event::Finished { .. }
        | Event::Awaiting { .. }
        | Event::Undecided { .. }
        | Event::Confirming { .. }
        | Event::Unconfirmed { .. }
        | Event::Returning { .. } => (None, BEGUN),
    }
}

/// Whether the deployment goes no further without a word from here: one that counts no more gets its cancel.
pub fn asks(event: &Event) -> bool {
    match event {
        Event::Awaiting { .. } | Event::Undecided { .. } | Event::Confirming { .. } => true,
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Staged { .. }
        | Event::Skipped { .. }
        | Event::Started { .. }
        | Event::Spawned { .. }
        | Event::Finished { .. }
        | Event::Answered { .. }
        | Event::Decided { .. }
        | Event::Confirmed { .. }
        | Event::Unconfirmed { .. }
        | Event::Cancelling { .. }
        | Event::Returning { .. }
        | Event::Ended { .. } => false,
    }
}

/// Why a server is not ordered to return.
pub fn nothing_before(row: &RolloutRow) -> End {
    End::Refused {
        code: "nothing-to-return-to".to_owned(),
        message: format!("there is no artifact of {} before {} on this server", row.app, row.version),
    }
}
