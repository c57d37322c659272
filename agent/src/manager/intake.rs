//! From an order's bytes to an assignment, or a refusal with a name.

use std::sync::Arc;

use consign_common::{
    digest::Sha256,
    name::Id,
    trust::{
        Order, OrderKind, Refusal,
        authorize::{Documents, Intent, authorize},
    },
};

use crate::{
    executor::{Assignment, DocumentsError, Origin, Roots, Site},
    journal::{Accepted, JournalError, Received},
    ports::{Fetch, FetchError},
};

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Declined {
    /// A rule: said once, kept, and said again whenever the order comes again.
    #[error(transparent)]
    Rule(#[from] Refusal),
    #[error("{app} is being deployed already (deployment {deployment})")]
    Busy { app: String, deployment: Id },
    #[error("the deployment {deployment} has been cancelled often enough")]
    Cancelling { deployment: Id },
    #[error("there is no deployment {deployment} to cancel on this server")]
    NotRunning { deployment: Id },
    #[error("the manifest {digest} could not be fetched: {source}")]
    Fetch { digest: Sha256, source: FetchError },
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Declined {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Rule(refusal) => refusal.code(),
            Self::Busy { .. } => "busy",
            Self::Cancelling { .. } => "cancelling",
            Self::NotRunning { .. } => "not-running",
            Self::Fetch { .. } => "fetch-failed",
            Self::Documents(DocumentsError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                "disk-full"
            }
            Self::Journal(error) if error.is_full() => "disk-full",
            Self::Documents(_) | Self::Journal(_) => "state-failed",
        }
    }
}

/// An order as it came, parsed.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) order: Order,
    pub(super) document: Vec<u8>,
    pub(super) statements: Vec<Vec<u8>>,
    /// Whom TLS authenticated.
    pub(super) connected: String,
}

impl Incoming {
    pub(super) fn received<F, P, R: Roots>(&self, site: &Site<F, P, R>, trust_root_version: u64) -> Received {
        let order = &self.order;
        Received {
            id: order.id.clone(),
            deployment: order.deployment.clone(),
            app: order.app.clone(),
            environment: order.environment.clone(),
            coordinator: order.coordinator.clone(),
            term: order.term,
            document: self.document.clone(),
            statements: self.statements.clone(),
            trust_root_version,
            at: site.now(),
        }
    }

    /// Fetches what the order names and decides on it. Nothing is journalled yet.
    pub(super) async fn judge<F: Fetch, P, R: Roots>(
        &self,
        site: &Arc<Site<F, P, R>>,
    ) -> Result<Assignment, Declined> {
        let order = &self.order;
        let digest = match &order.order {
            OrderKind::Deploy { manifest, .. } | OrderKind::Return { manifest, .. } => *manifest,
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => {
                let why = "it carries no artifact".to_owned();
                return Err(Refusal::Malformed { what: "order", why }.into());
            }
        };
        let bytes = match site.documents().manifest(digest)? {
            Some(bytes) => bytes,
            None => {
                let fetched = site.fetch.manifest(digest).await;
                fetched.map_err(|source| Declined::Fetch { digest, source })?
            }
        };
        let memory = site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        let root = site.roots.current();
        let intent = Intent::Order { order, connected: &self.connected };
        let documents = Documents { manifest: &bytes, statements: &self.statements };
        let work = authorize(intent, documents, &root, site.host(), &memory, site.now())?;
        // Only now is it known to be what somebody signed.
        site.documents().keep(&bytes)?;
        let is_deploy = matches!(order.order, OrderKind::Deploy { .. });
        let accepted = Accepted {
            order: self.received(site, root.version),
            manifest: digest,
            number: is_deploy.then(|| work.get().number),
        };
        Ok(Assignment {
            deployment: order.deployment.clone(),
            order: order.clone(),
            work,
            memory,
            origin: Origin::Order(Box::new(accepted)),
        })
    }
}
