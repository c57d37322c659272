//! The session's view of the journal, and of the one thing that the journal does not know: what `current` points at.

use std::path::{Component, Path, PathBuf};

use consign_common::{
    audit::Head,
    deployment::{Attempt, Event},
    name::Id,
    time::{Clock as _, SystemClock},
};

use crate::{
    journal::{Journal, JournalError, Waits},
    ports::{AppReport, Heard, JournalMark, Ledger, Lost, PendingLog, Rewound},
    status::{AuditView, DeploymentView},
};

/// Receipts that are sent at once.
const RECEIPTS: u32 = 50;

/// A journal that cannot be read is told in the log and answers with nothing: the session stays open, so that the
/// coordinator sees the server.
#[derive(Debug)]
pub struct DiskLedger {
    journal: Journal,
    apps: PathBuf,
}

impl DiskLedger {
    pub fn new(journal: Journal, apps: &Path) -> Self {
        Self { journal, apps: apps.into() }
    }

    /// Every open deployment, and what it waits for.
    pub async fn deployments(&self) -> Vec<DeploymentView> {
        let mut views = Vec::new();
        for id in self.open_deployments().await {
            let records = answer(self.journal.events(&id).await);
            let events = || records.iter().map(|record| &record.event);
            let app = events().find_map(|event| {
                let Event::Accepted { app, .. } = event else { return None };
                Some(app.to_string())
            });
            views.push(DeploymentView {
                app: app.unwrap_or_default(),
                waits: Waits::of(events()),
                id: id.into(),
            });
        }
        views
    }

    /// What is remembered of coordinators' audit logs.
    pub async fn audit(&self) -> Vec<AuditView> {
        answer(self.journal.audit_heads().await).into_iter().map(AuditView::from).collect()
    }

    async fn with_current(&self, mut report: AppReport) -> AppReport {
        if let Some(app) = &report.app
            && let Some(release) = current_release(&self.apps.join(app.as_str()))
        {
            report.current = answer(self.journal.artifact_in(app, &release).await);
        }
        report
    }
}

impl Ledger for DiskLedger {
    async fn apps(&self, coordinator: &str) -> Vec<AppReport> {
        let mut reports = Vec::new();
        for report in answer(self.journal.app_reports(coordinator).await) {
            reports.push(self.with_current(report).await);
        }
        reports
    }

    fn journal(&self) -> JournalMark {
        self.journal.mark()
    }

    async fn open_deployments(&self) -> Vec<Id> {
        answer(self.journal.open_deployments().await)
    }

    async fn rewind(&self, deployment: &Id, lost: Lost) -> Rewound {
        self.journal.rewind(deployment, lost).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what the coordinator lost cannot be told again");
            Rewound::Nothing
        })
    }

    async fn pending_logs(&self) -> Vec<PendingLog> {
        answer(self.journal.pending_logs().await)
    }

    async fn log_acknowledged(&self, deployment: &Id, attempt: Attempt, offset: u64) {
        match self.journal.log_acknowledged(deployment, attempt, offset).await {
            // Unrecorded it is only sent again; and on a full disk a line for each would make it worse.
            Err(error) if error.is_full() => {}
            recorded => answer(recorded),
        }
    }

    async fn audit_head(&self, coordinator: &str) -> Option<Head> {
        answer(self.journal.audit_head(coordinator).await).map(|remembered| remembered.head)
    }

    async fn hear_audit_head(&self, coordinator: &str, told: Head) -> Heard {
        let heard = self.journal.hear_audit_head(coordinator, told, SystemClock.now()).await;
        heard.unwrap_or_else(|error| {
            // Unrecorded it is heard again.
            tracing::debug!(%error, "the end of the audit log is not remembered");
            Heard::GoesOn
        })
    }

    async fn pending_receipts(&self) -> Vec<Vec<u8>> {
        answer(self.journal.pending_receipts(RECEIPTS).await)
    }

    async fn receipt_acknowledged(&self, deployment: &Id) {
        answer(self.journal.receipt_acknowledged(deployment).await);
    }
}

fn answer<T: Default>(result: Result<T, JournalError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::error!(%error, "the journal cannot be used");
        T::default()
    })
}

/// The release that `current` points at; a link that leads anywhere else is none of ours.
fn current_release(app: &Path) -> Option<String> {
    let target = std::fs::read_link(app.join("current")).ok()?;
    let mut parts = target.components();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Component::Normal(releases)), Some(Component::Normal(release)), None)
            if releases == "releases" =>
        {
            release.to_str().map(str::to_owned)
        }
        (Some(_) | None, _, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_a_release_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (target, expected) in [
            ("releases/1.0-abc", Some("1.0-abc")),
            ("/etc", None),
            ("../releases/x", None),
            ("releases", None),
            ("releases/a/b", None),
        ] {
            let app = tempfile::tempdir_in(dir.path()).unwrap();
            std::os::unix::fs::symlink(target, app.path().join("current")).unwrap();
            assert_eq!(current_release(app.path()).as_deref(), expected, "{target}");
        }
    }
}
