//! What a deployment is about, for its run.

use std::time::Duration;

use consign_common::{
    config::InForce,
    digest::Sha256,
    trust::{
        Order, OrderKind,
        authorize::{Memory, Work},
    },
};

use super::Site;
use crate::{
    core::{Setting, Way},
    journal::JournalError,
    stage::AppDirectory,
};

pub(super) fn setting(
    order: &Order,
    work: &Work,
    memory: &Memory,
    current: Option<Sha256>,
    boot_id: &str,
) -> Setting {
    Setting {
        order: order.id.clone(),
        app: order.app.clone(),
        digest: work.digest,
        version: work.manifest.version.clone(),
        way: match &order.order {
            OrderKind::Return { reason, .. } => Way::Return { because: reason.clone() },
            OrderKind::Deploy { force, confirm_ms, .. } => Way::Deploy {
                steps: work.plan.steps.clone(),
                // With another config there is something to do, too.
                force: *force || !memory.good.as_ref().is_some_and(|good| good.is_as(work)),
                published: work.published,
                number: work.number,
                config: InForce { sequence: work.config_sequence, values: work.config.clone() },
                pinned: work.pinned.clone(),
                confirm: window(work.plan.confirm, *confirm_ms),
            },
            // Carry no artifact; `authorize` gives no work for them.
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => Way::Return { because: String::new() },
        },
        good: memory.good.clone(),
        before: memory.before.clone(),
        current,
        skips: match &order.order {
            OrderKind::Deploy { skip, .. } | OrderKind::Return { skip, .. } => skip.clone(),
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => Vec::new(),
        },
        boot_id: boot_id.to_owned(),
    }
}

/// How long a success waits to be confirmed: as the plan says, or as the order shortens it.
fn window(plan: Option<Duration>, order_ms: Option<u64>) -> Option<Duration> {
    let plan = plan?;
    Some(order_ms.map(Duration::from_millis).map_or(plan, |order| order.min(plan)))
}

/// Whether a deployment of this would change nothing.
pub async fn runs_already<F, P, R>(
    site: &Site<F, P, R>,
    memory: &Memory,
    work: &Work,
) -> Result<bool, JournalError> {
    let is_good = memory.good.as_ref().is_some_and(|good| good.is_as(work));
    Ok(is_good && current(site, memory, work).await? == Some(work.digest))
}

/// The artifact that `current` points at, as far as this server knows it.
pub(super) async fn current<F, P, R>(
    site: &Site<F, P, R>,
    memory: &Memory,
    work: &Work,
) -> Result<Option<Sha256>, JournalError> {
    let app = &work.manifest.app;
    let link = AppDirectory::open(site.apps(), app).ok().and_then(|app| app.current().ok().flatten());
    let Some(release) = link else { return Ok(None) };
    let installed = [&memory.good, &memory.before].into_iter().flatten();
    match installed.into_iter().find(|installed| installed.release == release) {
        Some(installed) => Ok(Some(installed.manifest)),
        None => site.journal.artifact_in(app, &release).await,
    }
}
