//! After a restart: every open deployment again, under the documents and the trust root that it was accepted with.

use std::sync::Arc;

use consign_common::{
    deployment::{DeploymentOutcome, Event},
    name::{App, Id},
    trust::{
        Order, OrderKind, Refusal,
        authorize::{Documents, Intent, authorize},
    },
};

use crate::{
    executor::{Assignment, Origin, Processes, Roots, Site},
    journal::{JournalError, Kept, Record},
};

/// Why an open deployment cannot go on.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the trust root {0} that it was accepted under is not on this server any more")]
    NoRoot(u64),
    #[error("its manifest is not on this server any more")]
    NoManifest,
    #[error(transparent)]
    Documents(#[from] crate::executor::DocumentsError),
}

/// The assignment of an open deployment. One that may not go on ends here, in words, with nothing of it left running.
pub(super) async fn resume<F, P: Processes, R: Roots>(
    site: &Arc<Site<F, P, R>>,
    deployment: &Id,
) -> Result<Option<(App, Assignment)>, JournalError> {
    let Some(kept) = site.journal.order_of(deployment).await? else {
        return Ok(None);
    };
    let records = site.journal.events(deployment).await?;
    let order = Order::parse(&kept.document).map_err(JournalError::value)?;
    let app = order.app.clone();
    match assignment(site, order, &kept, records.clone()).await? {
        Ok(assignment) => Ok(Some((app, assignment))),
        Err(stuck) => {
            give_up(site, deployment, &records, &stuck).await?;
            Ok(None)
        }
    }
}

async fn assignment<F, P: Processes, R: Roots>(
    site: &Arc<Site<F, P, R>>,
    order: Order,
    kept: &Kept,
    records: Vec<Record>,
) -> Result<Result<Assignment, Stuck>, JournalError> {
    let memory = site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
    let judged = || {
        let digest = match &order.order {
            OrderKind::Deploy { manifest, .. } | OrderKind::Return { manifest, .. } => *manifest,
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => {
                return Err(Stuck::NoManifest);
            }
        };
        let version = kept.trust_root_version;
        let root = site.roots.version(version).ok_or(Stuck::NoRoot(version))?;
        let bytes = site.documents().manifest(digest)?.ok_or(Stuck::NoManifest)?;
        let documents =
            Documents { manifest: &bytes, statements: &kept.statements, plan: kept.plan.as_deref() };
        Ok(authorize(Intent::Resume { order: &order }, documents, &root, site.host(), &memory, site.now())?)
    };
    Ok(judged().map(|work| Assignment {
        deployment: order.deployment.clone(),
        order: order.clone(),
        work,
        memory: memory.clone(),
        origin: Origin::Journal(records),
    }))
}

async fn give_up<F, P: Processes, R: Roots>(
    site: &Arc<Site<F, P, R>>,
    deployment: &Id,
    records: &[Record],
    stuck: &Stuck,
) -> Result<(), JournalError> {
    let directory = site.deployment_directory(deployment);
    let started = records.iter().rev().find_map(|record| match &record.event {
        Event::Started { attempt, .. } => Some(*attempt),
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Staged { .. }
        | Event::Skipped { .. }
        | Event::Spawned { .. }
        | Event::Finished { .. }
        | Event::Returning { .. }
        | Event::Cancelling { .. }
        | Event::Awaiting { .. }
        | Event::Answered { .. }
        | Event::Undecided { .. }
        | Event::Decided { .. }
        | Event::Confirming { .. }
        | Event::Confirmed { .. }
        | Event::Unconfirmed { .. }
        | Event::Ended { .. } => None,
    });
    if let Some(attempt) = started {
        site.processes.cancel(&directory, attempt).await;
    }
    site.processes.shut_down(&directory).await;
    let because = format!("after a restart of the agent this deployment may not go on: {stuck}");
    tracing::error!(%deployment, because);
    let result = DeploymentOutcome::Stopped { because };
    site.journal.append(deployment, site.now(), &Event::Ended { result }, None).await?;
    Ok(())
}
