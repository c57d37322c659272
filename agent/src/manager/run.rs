//! The loop: what comes from the session, what deployments come to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use consign_common::{
    deployment::DeploymentOutcome,
    limits::ORDER_BYTES,
    name::{App, Id},
    trust::{
        Order, OrderKind,
        authorize::{authorize_approach, authorize_control},
    },
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use super::{
    intake::{Declined, Incoming},
    pump::Pump,
    resume::resume,
};
use crate::{
    core::Input,
    executor::{Assignment, Deployment, Halt, Processes, Roots, Site},
    journal::{JournalError, Known},
    ports::{Fetch, Inbound, Outbound},
};

/// Cancels that one deployment is told of, each an event in the journal; more change nothing.
const CANCELS: u32 = 8;

/// The agent must end: what it did next would not be known after a restart.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error("a deployment's task ended by itself")]
    Task(#[from] JoinError),
}

/// One app's place: there is one deployment in it, or one that is being judged.
#[derive(Debug)]
struct Slot {
    deployment: Id,
    order: Id,
    /// Present once it runs.
    inbox: Option<mpsc::Sender<Input>>,
    /// Came before it ran.
    cancel: Option<Input>,
    /// Cancels that it was given.
    cancels: u32,
    /// The deployment has ended, and tidies up.
    ending: Arc<AtomicBool>,
    /// Came while it tidied up.
    next: Option<Box<Incoming>>,
}

impl Slot {
    fn new(deployment: Id, order: Id) -> Self {
        Self { deployment, order, inbox: None, cancel: None, cancels: 0, ending: Arc::default(), next: None }
    }
}

#[derive(Debug)]
enum Done {
    Judged { app: App, incoming: Box<Incoming>, result: Result<Box<Assignment>, Declined> },
    Ended { app: App, deployment: Id, result: Result<DeploymentOutcome, Halt> },
    Pumped(Result<(), JournalError>),
}

#[derive(Debug)]
pub struct Manager<F, P, R> {
    site: Arc<Site<F, P, R>>,
    slots: BTreeMap<App, Slot>,
    tasks: JoinSet<Done>,
    pump: Pump,
}

impl<F, P, R> Manager<F, P, R>
where
    F: Fetch + 'static,
    P: Processes,
    R: Roots,
{
    pub fn new(site: Arc<Site<F, P, R>>) -> Self {
        let pump = Pump::new(site.journal.appended());
        Self { site, slots: BTreeMap::new(), tasks: JoinSet::new(), pump }
    }

    /// Goes on with what is open, then serves `inbound` until it is closed. What runs then goes on under its supervisor.
    pub async fn run(mut self, mut inbound: mpsc::Receiver<Inbound>) -> Result<(), ManagerError> {
        let (pump, journal, outbound) =
            (self.pump.clone(), self.site.journal.clone(), self.site.outbound.clone());
        self.tasks.spawn(async move { Done::Pumped(pump.run(journal, outbound).await) });
        for deployment in self.site.journal.open_deployments().await? {
            if let Some((app, assignment)) = resume(&self.site, &deployment).await? {
                let order = assignment.order.id.clone();
                self.slots.insert(app.clone(), Slot::new(deployment, order));
                self.begin(app, assignment).await?;
            }
        }
        loop {
            tokio::select! {
                message = inbound.recv() => match message {
                    Some(message) => self.take(message).await?,
                    None => return Ok(()),
                },
                Some(done) = self.tasks.join_next() => self.done(done?).await?,
            }
        }
    }

    async fn take(&mut self, message: Inbound) -> Result<(), ManagerError> {
        match message {
            Inbound::Order { document, statements, connected } => {
                self.order(document, statements, connected).await
            }
            Inbound::EventAck { deployment, sequence } => {
                // Unrecorded it is only sent again.
                Ok(unless_full(self.site.journal.acknowledge(&deployment, sequence).await)?)
            }
            Inbound::Connected => {
                self.pump.restart();
                Ok(())
            }
        }
    }

    async fn order(
        &mut self,
        document: Vec<u8>,
        statements: Vec<Vec<u8>>,
        connected: String,
    ) -> Result<(), ManagerError> {
        if document.len() > ORDER_BYTES {
            tracing::warn!(bytes = document.len(), "an order that is too long was dropped");
            return Ok(());
        }
        let order = match Order::parse(&document) {
            Ok(order) => order,
            Err(refusal) => {
                // Without an id there is nobody to answer to.
                tracing::warn!(%refusal, "an order that cannot be read was dropped");
                return Ok(());
            }
        };
        let incoming = Incoming { order, document, statements, connected };
        match self.site.journal.known(&incoming.order.id, &incoming.document).await? {
            Err(refusal) => self.decline(&incoming, &Declined::Rule(refusal)).await?,
            Ok(Some(Known::Refused { code, message })) => {
                let order = incoming.order.id.clone();
                self.site.tell(Outbound::Refused { order, code, message });
            }
            // Everything about it that is not acknowledged goes up with the next session anyway. But a cancel may have
            // been taken by an agent that died before the deployment heard of it.
            Ok(Some(Known::Accepted)) => {
                if let OrderKind::Cancel { reason } = &incoming.order.order {
                    let because = reason.clone();
                    self.cancel(&incoming, because).await;
                }
            }
            Ok(None) => match &incoming.order.order {
                OrderKind::Deploy { .. } | OrderKind::Return { .. } => self.approach(incoming).await?,
                OrderKind::Cancel { reason } => {
                    let because = reason.clone();
                    self.control(incoming, because).await?;
                }
                OrderKind::Confirm {} | OrderKind::Decide { .. } | OrderKind::Once { .. } => {
                    self.control(incoming, String::new()).await?;
                }
            },
        }
        Ok(())
    }

    /// What the order alone decides comes first: an app that is not this server's takes no place and fetches nothing.
    async fn approach(&mut self, incoming: Incoming) -> Result<(), ManagerError> {
        let order = &incoming.order;
        let memory = self.site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        let root = self.site.roots.current();
        let connected = &incoming.connected;
        match authorize_approach(order, connected, &root, &self.site.word, &memory) {
            Ok(()) => self.judge(incoming).await,
            Err(refusal) => self.decline(&incoming, &Declined::Rule(refusal)).await,
        }
    }

    /// Takes the app's place for the order, and judges it beside the loop: its manifest may have to be fetched.
    async fn judge(&mut self, incoming: Incoming) -> Result<(), ManagerError> {
        let app = incoming.order.app.clone();
        if let Some(slot) = self.slots.get_mut(&app) {
            if slot.ending.load(Ordering::Acquire) && slot.next.is_none() {
                slot.next = Some(Box::new(incoming));
            } else if slot.order != incoming.order.id {
                let deployment = slot.deployment.clone();
                let busy = Declined::Busy { app: app.to_string(), deployment };
                self.decline(&incoming, &busy).await?;
            }
            return Ok(());
        }
        let (deployment, order) = (incoming.order.deployment.clone(), incoming.order.id.clone());
        self.slots.insert(app.clone(), Slot::new(deployment, order));
        let site = self.site.clone();
        self.tasks.spawn(async move {
            let result = incoming.judge(&site).await.map(Box::new);
            Done::Judged { app, incoming: Box::new(incoming), result }
        });
        Ok(())
    }

    /// Cancel; confirm and decide are refused by name.
    async fn control(&mut self, incoming: Incoming, because: String) -> Result<(), ManagerError> {
        let order = &incoming.order;
        let memory = self.site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        let root = self.site.roots.current();
        if let Err(refusal) = authorize_control(order, &incoming.connected, &root, &self.site.word, &memory) {
            return self.decline(&incoming, &Declined::Rule(refusal)).await;
        }
        let deployment = order.deployment.clone();
        match self.slots.get(&order.app).filter(|slot| slot.deployment == deployment) {
            None => return self.decline(&incoming, &Declined::NotRunning { deployment }).await,
            Some(slot) if slot.cancels >= CANCELS => {
                return self.decline(&incoming, &Declined::Cancelling { deployment }).await;
            }
            Some(_) => {}
        }
        let received = incoming.received(&self.site, root.version);
        match self.site.journal.accept_control(&received).await {
            Err(error) if error.is_full() => return self.decline(&incoming, &error.into()).await,
            accepted => accepted?,
        }
        self.cancel(&incoming, because).await;
        Ok(())
    }

    async fn cancel(&mut self, incoming: &Incoming, because: String) {
        let order = &incoming.order;
        let slot = self.slots.get_mut(&order.app).filter(|slot| slot.deployment == order.deployment);
        let Some(slot) = slot.filter(|slot| slot.cancels < CANCELS) else { return };
        slot.cancels += 1;
        let input = Input::Cancel { order: order.id.clone(), because };
        match &slot.inbox {
            // Full only while the deployment itself is stuck on the disk; then the cancel waits, as all does.
            Some(inbox) => drop(inbox.send(input).await),
            None => slot.cancel = Some(input),
        }
    }

    async fn done(&mut self, done: Done) -> Result<(), ManagerError> {
        match done {
            Done::Judged { app, result: Ok(assignment), incoming } => {
                match self.begin(app.clone(), *assignment).await {
                    Ok(()) => Ok(()),
                    // Nothing has begun: an order that cannot be made durable is refused.
                    Err(error) => {
                        self.slots.remove(&app);
                        self.decline(&incoming, &Declined::Journal(error)).await
                    }
                }
            }
            Done::Judged { app, result: Err(declined), incoming } => {
                self.slots.remove(&app);
                self.decline(&incoming, &declined).await
            }
            Done::Ended { app, deployment, result } => {
                let next = self.slots.remove(&app).and_then(|slot| slot.next);
                let outcome = result?;
                tracing::info!(%app, %deployment, outcome = outcome.as_str(), "deployment ended");
                match next {
                    Some(incoming) => self.judge(*incoming).await,
                    None => Ok(()),
                }
            }
            Done::Pumped(result) => Ok(result?),
        }
    }

    async fn begin(&mut self, app: App, assignment: Assignment) -> Result<(), JournalError> {
        let id = assignment.deployment.clone();
        tracing::info!(%app, deployment = %id, version = %assignment.work.get().manifest.version, "deployment");
        let deployment = Deployment::begin(self.site.clone(), assignment).await?;
        if let Some(slot) = self.slots.get_mut(&app) {
            let inbox = deployment.inbox();
            if let Some(cancel) = slot.cancel.take() {
                // The first message of a channel that is empty.
                drop(inbox.send(cancel).await);
            }
            slot.inbox = Some(inbox);
            slot.ending = deployment.ending();
        }
        self.tasks
            .spawn(async move { Done::Ended { app, deployment: id, result: deployment.drive().await } });
        Ok(())
    }

    async fn decline(&self, incoming: &Incoming, declined: &Declined) -> Result<(), ManagerError> {
        let (code, message) = (declined.code(), declined.to_string());
        tracing::warn!(order = %incoming.order.id, code, message, "order refused");
        // What a rule says stays said. What only was in the way now may be asked for again; and of an equivocation the
        // first order is kept, not the second.
        if let Declined::Rule(refusal) = declined
            && refusal.code() != "equivocation"
        {
            let received = incoming.received(&self.site, self.site.roots.current().version);
            unless_full(self.site.journal.refuse(&received, code, &message).await)?;
        }
        let order = incoming.order.id.clone();
        self.site.tell(Outbound::Refused { order, code: code.to_owned(), message });
        Ok(())
    }
}

/// What a full disk may keep from being written: nothing rests on it.
fn unless_full(written: Result<(), JournalError>) -> Result<(), JournalError> {
    match written {
        Err(error) if error.is_full() => {
            tracing::error!(%error, "the disk is full");
            Ok(())
        }
        other => other,
    }
}
