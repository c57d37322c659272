//! Deployments that nobody confirmed in time, taken back while no agent runs: from the journal and the disk alone.

use std::sync::Arc;

use consign_common::{
    deployment::{DeploymentOutcome, Event},
    name::{App, Id},
};

use super::{resume::resume, run::ManagerError};
use crate::{
    executor::{Deployment, Processes, Roots, Site, boot_ms},
    journal::Waits,
    ports::Fetch,
};

/// What became of an overdue deployment.
#[derive(Debug)]
pub struct TakenBack {
    pub app: App,
    pub deployment: Id,
    /// Absent: its return waits for a decision.
    pub outcome: Option<DeploymentOutcome>,
}

/// Drives every overdue deployment to its end, one after the other; all others are left as they are. The caller holds
/// the state directory's lock.
pub async fn take_back<F, P, R>(site: &Arc<Site<F, P, R>>) -> Result<Vec<TakenBack>, ManagerError>
where
    F: Fetch + 'static,
    P: Processes,
    R: Roots,
{
    let mut taken = Vec::new();
    for deployment in site.journal.open_deployments().await? {
        let records = site.journal.events(&deployment).await?;
        let events: Vec<&Event> = records.iter().map(|record| &record.event).collect();
        if !is_overdue(&events, &site.boot_id, boot_ms()) {
            continue;
        }
        let Some((app, assignment)) = resume(site, &deployment).await? else { continue };
        let outcome = Deployment::begin(site.clone(), assignment).await?.drive_alone().await?;
        taken.push(TakenBack { app, deployment, outcome });
    }
    Ok(taken)
}

/// Also one whose way back has begun, or was ordered by a cancel, and that a crash interrupted.
fn is_overdue(events: &[&Event], boot_id: &str, boot_ms: u64) -> bool {
    match Waits::of(events.iter().copied()) {
        Some(Waits::Confirmation { boot_id: of, deadline_boot_ms, .. }) => {
            of != boot_id || deadline_boot_ms <= boot_ms
        }
        Some(Waits::Once { .. } | Waits::Decision { .. }) => false,
        None => {
            let any = |is: fn(&Event) -> bool| events.iter().any(|event| is(event));
            any(|event| matches!(event, Event::Confirming { .. }))
                && !any(|event| matches!(event, Event::Confirmed { .. }))
        }
    }
}

#[cfg(test)]
mod tests {
    use consign_common::time::UnixMs;

    use super::*;

    #[test]
    fn overdue_is_past_the_deadline_or_of_another_boot() {
        let confirming =
            Event::Confirming { boot_id: "a".into(), deadline_boot_ms: 100, deadline: UnixMs(1) };
        let unconfirmed = Event::Unconfirmed { because: String::new() };
        let cancelling = Event::Cancelling { order: Id::from_bytes([2; 16]), because: String::new() };
        let confirmed = Event::Confirmed { order: Id::from_bytes([1; 16]) };
        for (events, boot_id, now, overdue) in [
            (vec![&confirming], "a", 99, false),
            (vec![&confirming], "a", 100, true),
            (vec![&confirming], "b", 0, true),
            (vec![&confirming, &confirmed], "b", 200, false),
            (vec![&confirming, &unconfirmed], "a", 100, true),
            (vec![&confirming, &cancelling], "a", 99, true),
            (vec![&cancelling], "a", 200, false),
        ] {
            assert_eq!(is_overdue(&events, boot_id, now), overdue, "{events:?} in {boot_id} at {now}");
        }
    }
}
