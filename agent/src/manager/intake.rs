//! From an order's bytes to an assignment, or a refusal with a name.

use std::{sync::Arc, time::Duration};

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{Id, StepName},
    plan::Kind,
    trust::{
        Foreseen, Order, OrderKind, Refusal, TrustRoot,
        authorize::{Documents, Intent, Memory, Preview, Work, authorize, authorize_approach, preview},
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    core::{Input, Misfit},
    executor::{
        Assignment, DocumentsError, Foresight, Origin, Rejected, Roots, Site, foresee, open_secrets,
        runs_already,
    },
    journal::{Accepted, JournalError, Pointer, Received},
    ports::{Fetch, FetchError, Papers},
    session::fraction,
};

/// How long a manifest that cannot be had is tried for: less than the patience of who asks what an order would come to.
const PATIENCE: Duration = Duration::from_secs(50);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

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
    #[error("as many words as are allowed wait for the deployment {deployment} to begin")]
    Crowded { deployment: Id },
    #[error("no deployment {deployment} goes on here")]
    NotRunning { deployment: Id },
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("step {step}: the plan foresaw {foreseen}, and here it comes to {found}")]
    PlanDrift { step: StepName, foreseen: &'static str, found: String },
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
            Self::Busy { .. } | Self::Crowded { .. } => "busy",
            Self::Cancelling { .. } => "cancelling",
            Self::NotRunning { .. } => "not-running",
            Self::Misfit(misfit) => misfit.code(),
            Self::PlanDrift { .. } => "plan-drift",
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

    /// Said once, kept, and said again whenever the order comes again. What only was in the way now may be asked for
    /// again; and of an equivocation the first order is kept, not the second.
    pub(super) fn is_kept(&self) -> bool {
        match self {
            Self::Rule(refusal) => refusal.code() != "equivocation",
            Self::PlanDrift { .. } => true,
            Self::Busy { .. }
            | Self::Crowded { .. }
            | Self::Cancelling { .. }
            | Self::NotRunning { .. }
            | Self::Misfit(_)
            | Self::Fetch { .. }
            | Self::Documents(_)
            | Self::Journal(_) => false,
        }
    }
}

impl From<Rejected> for Declined {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Misfit(misfit) => Self::Misfit(misfit),
            Rejected::Rule(refusal) => Self::Rule(refusal),
        }
    }
}

/// An order as it came, parsed.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) order: Order,
    pub(super) papers: Papers,
    /// Whom TLS authenticated.
    pub(super) connected: String,
}

/// All that an order is decided from, beside itself.
struct Before {
    memory: Memory,
    /// The manifest's bytes.
    bytes: Vec<u8>,
    root: Arc<TrustRoot>,
}

/// What is decided for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Order,
    Query,
}

/// What an order would come to.
#[derive(Debug)]
pub(super) struct Forecast {
    pub(super) coming: Coming,
    /// Why it would not be let through as it is.
    pub(super) held: Option<Refusal>,
}

#[derive(Debug)]
pub(super) enum Coming {
    NoOp,
    /// With the steps of a deployment.
    Work(Vec<Foresight>),
}

impl Incoming {
    pub(super) fn received<F, P, R: Roots>(
        &self,
        site: &Site<F, P, R>,
        trust_root_version: u64,
        decided: Vec<Sha256>,
    ) -> Received {
        let order = &self.order;
        Received {
            id: order.id.clone(),
            deployment: order.deployment.clone(),
            app: order.app.clone(),
            environment: order.environment.clone(),
            coordinator: order.coordinator.clone(),
            term: order.term,
            document: self.papers.document.clone(),
            statements: self.papers.statements.clone(),
            plan: self.papers.plan.clone(),
            sealed: self.papers.sealed.clone(),
            trust_root_version,
            decided,
            at: site.now(),
        }
    }

    /// The word to a deployment that runs; none in an order that begins one.
    pub(super) fn word(&self) -> Option<Input> {
        let order = self.order.id.clone();
        match self.order.order.clone() {
            OrderKind::Deploy { .. } | OrderKind::Return { .. } => None,
            OrderKind::Cancel { reason } => Some(Input::Cancel { order, because: reason }),
            OrderKind::Confirm {} => Some(Input::Confirm { order }),
            OrderKind::Decide { step, action, reason } => Some(Input::Decide { order, step, action, reason }),
            OrderKind::Once { step, word } => Some(Input::Once { order, step, word }),
        }
    }

    /// The rules that the order alone decides: an app that is not this server's takes no place and fetches nothing.
    pub(super) async fn approach<F, P, R: Roots>(&self, site: &Site<F, P, R>) -> Result<(), Declined> {
        let order = &self.order;
        let memory = site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        Ok(authorize_approach(order, &self.connected, &site.roots.current(), &site.word, &memory)?)
    }

    /// The artifact that it begins with; none in a word about a deployment.
    pub(super) fn manifest(&self) -> Option<Sha256> {
        match &self.order.order {
            OrderKind::Deploy { manifest, .. } | OrderKind::Return { manifest, .. } => Some(*manifest),
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => None,
        }
    }

    /// Fetches what the order names and decides on it. Nothing is journalled yet.
    pub(super) async fn judge<F: Fetch, P, R: Roots>(
        &self,
        site: &Arc<Site<F, P, R>>,
    ) -> Result<Assignment, Declined> {
        let before = self.before(site).await?;
        let Before { memory, bytes, root } = &before;
        let intent = Intent::Order { order: &self.order, connected: &self.connected };
        let verified = authorize(intent, self.documents(bytes), root, site.host(), memory, site.now())?;
        let work = verified.get();
        let coming = self.look_ahead(site, Purpose::Order, work, memory).await?;
        self.check_secrets(site, work, &coming).await?;
        // Only now is it known to be what somebody signed.
        site.documents().keep(bytes)?;
        let order = &self.order;
        let is_deploy = matches!(order.order, OrderKind::Deploy { .. });
        let accepted = Accepted {
            order: self.received(site, root.version, work.decided.clone()),
            manifest: work.digest,
            number: is_deploy.then_some(work.number),
            config_sequence: if is_deploy { work.config_sequence } else { 0 },
        };
        Ok(Assignment {
            deployment: order.deployment.clone(),
            order: order.clone(),
            work: verified,
            memory: before.memory,
            origin: Origin::Order(Box::new(accepted)),
        })
    }

    /// What it would come to, of which nothing is kept; also where its gate is not met yet.
    pub(super) async fn forecast<F: Fetch, P, R: Roots>(
        &self,
        site: &Arc<Site<F, P, R>>,
    ) -> Result<Forecast, Declined> {
        let Before { memory, bytes, root } = self.before(site).await?;
        let documents = self.documents(&bytes);
        let Preview { work, held } =
            preview(&self.order, &self.connected, documents, &root, site.host(), &memory, site.now())?;
        let coming = self.look_ahead(site, Purpose::Query, &work, &memory).await?;
        self.check_secrets(site, &work, &coming).await?;
        Ok(Forecast { coming, held })
    }

    /// Every secret is here and is the one that was signed, before anything begins. A way back has what it ran with.
    async fn check_secrets<F, P, R: Roots>(
        &self,
        site: &Site<F, P, R>,
        work: &Work,
        coming: &Coming,
    ) -> Result<(), Declined> {
        if matches!(coming, Coming::NoOp) {
            return Ok(());
        }
        let order = &self.order;
        let sealed = match &order.order {
            OrderKind::Return { .. } => {
                site.journal.sealed(&order.app, &order.environment, Pointer::Before).await?
            }
            OrderKind::Deploy { .. }
            | OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => self.papers.sealed.clone(),
        };
        open_secrets(site, work, sealed.as_deref())?;
        Ok(())
    }

    async fn before<F: Fetch, P, R: Roots>(&self, site: &Arc<Site<F, P, R>>) -> Result<Before, Declined> {
        let order = &self.order;
        let Some(digest) = self.manifest() else {
            let why = "it carries no artifact".to_owned();
            return Err(Refusal::Malformed { what: "order", why }.into());
        };
        // Sent again, the order that began it is answered from the journal.
        if site.journal.begun_by(&order.deployment).await?.is_some_and(|begun| begun != order.id) {
            return Err(Refusal::DeploymentReused { deployment: order.deployment.clone() }.into());
        }
        let bytes = manifest(site, digest).await?;
        let memory = site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        Ok(Before { memory, bytes, root: site.roots.current() })
    }

    fn documents<'a>(&'a self, manifest: &'a [u8]) -> Documents<'a> {
        let Papers { statements, plan, .. } = &self.papers;
        Documents { manifest, statements, plan: plan.as_deref() }
    }

    /// What it comes to here; refused where that is not what the operator was shown, or wanted.
    async fn look_ahead<F: Fetch, P, R: Roots>(
        &self,
        site: &Arc<Site<F, P, R>>,
        purpose: Purpose,
        work: &Work,
        memory: &Memory,
    ) -> Result<Coming, Declined> {
        match &self.order.order {
            OrderKind::Deploy { force, skip, .. } => {
                let plan = &work.pinned;
                check_skips(work, skip)?;
                if !force && runs_already(site, memory, work).await? {
                    return Ok(Coming::NoOp);
                }
                // Nothing to compare with: what is good now need not be readable to be replaced.
                if purpose == Purpose::Order && plan.is_empty() {
                    return Ok(Coming::Work(Vec::new()));
                }
                let previous = match &memory.good {
                    None => None,
                    Some(good) => Some(read(good.manifest, &manifest(site, good.manifest).await?)?),
                };
                let steps = foresee(site, work, previous.as_ref(), skip);
                // What the order itself leaves out is no drift.
                for step in steps.iter().filter(|step| !skip.contains(&step.name)) {
                    check_foreseen(step, plan.get(&step.name).copied())?;
                }
                Ok(Coming::Work(steps))
            }
            OrderKind::Return { skip, .. } => {
                check_skips(work, skip)?;
                Ok(Coming::Work(Vec::new()))
            }
            OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => Ok(Coming::Work(Vec::new())),
        }
    }
}

/// The manifest's bytes, from this server's disk or from the coordinator; not kept. A coordinator that cannot be reached
/// is tried again for a while: a refusal would be the end of the order.
async fn manifest<F: Fetch, P, R: Roots>(site: &Site<F, P, R>, digest: Sha256) -> Result<Vec<u8>, Declined> {
    if let Some(bytes) = site.documents().manifest(digest)? {
        return Ok(bytes);
    }
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let source = match site.fetch.manifest(digest).await {
            Ok(bytes) => return Ok(bytes),
            Err(source) => source,
        };
        match &source {
            FetchError::Unreachable(_) if began.elapsed() + pause < PATIENCE => {
                tracing::info!(error = %source, artifact = %digest.short(), "its manifest is asked for again");
                sleep(pause.mul_f64(0.5 + fraction() / 2.0)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            FetchError::Unreachable(_)
            | FetchError::NotFound(_)
            | FetchError::OutOfRange(_)
            | FetchError::Malformed(_)
            | FetchError::TooLong(_)
            | FetchError::Io { .. } => return Err(Declined::Fetch { digest, source }),
        }
    }
}

fn read(digest: Sha256, bytes: &[u8]) -> Result<Manifest, Declined> {
    if Sha256::of(bytes) != digest {
        return Err(Refusal::ManifestDigest { expected: digest }.into());
    }
    json::from_slice(bytes, ArtifactLimits::default().manifest_bytes)
        .map_err(|error| Refusal::Malformed { what: "manifest", why: error.to_string() }.into())
}

fn check_skips(work: &Work, skip: &[StepName]) -> Result<(), Misfit> {
    for name in skip {
        let step = work.plan.steps.iter().find(|step| step.name == *name);
        let step = step.ok_or_else(|| Misfit::StepUnknown { step: name.clone() })?;
        if step.kind == Kind::Activate {
            return Err(Misfit::NotSkippable { step: name.clone() });
        }
    }
    Ok(())
}

fn check_foreseen(step: &Foresight, pinned: Option<Foreseen>) -> Result<(), Declined> {
    let (Some(pinned), Some(found)) = (pinned, step.decision.foreseen()) else { return Ok(()) };
    if pinned == found {
        return Ok(());
    }
    let foreseen = match pinned {
        Foreseen::Run => "run",
        Foreseen::Skip => "skip",
    };
    let found = match step.decision.because() {
        "" => step.decision.as_str().to_owned(),
        because => format!("{}: {because}", step.decision.as_str()),
    };
    Err(Declined::PlanDrift { step: step.name.clone(), foreseen, found })
}
