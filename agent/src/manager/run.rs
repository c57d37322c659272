//! The loop: what comes from the session, what deployments come to.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::{
    deployment::DeploymentOutcome,
    limits::ORDER_BYTES,
    name::{App, Id},
    trust::{Order, authorize::authorize_control},
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use super::{
    intake::{Declined, Incoming},
    pump::Pump,
    queries::Queries,
    resume::resume,
};
use crate::{
    core::Input,
    executor::{Assignment, Deployment, Halt, Inbox, Processes, Rejected, Reply, Roots, Site, Standing},
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
    inbox: Option<Inbox>,
    /// Came before it ran.
    cancel: Option<Input>,
    /// Cancels that it was given.
    cancels: u32,
    standing: Arc<Standing>,
    /// Came while it tidied up, or waited for a decision.
    next: Option<Box<Incoming>>,
}

impl Slot {
    fn new(deployment: Id, order: Id) -> Self {
        let standing = Arc::default();
        Self { deployment, order, inbox: None, cancel: None, cancels: 0, standing, next: None }
    }
}

impl Slot {
    /// Its deployment waits for a decision, and no order waits for its end yet.
    fn gives_way(&self) -> bool {
        self.standing.undecided() && self.next.is_none()
    }
}

#[derive(Debug)]
enum Done {
    Judged {
        app: App,
        incoming: Box<Incoming>,
        result: Result<Box<Assignment>, Declined>,
    },
    /// A word reached its deployment; `None` where that ended without an answer.
    Heard {
        incoming: Box<Incoming>,
        answer: Option<Result<(), Rejected>>,
    },
    /// The deployment in the app's place was told to give way to another order.
    ToldToGiveWay {
        app: App,
        deployment: Id,
        answer: Option<Result<(), Rejected>>,
    },
    Ended {
        app: App,
        deployment: Id,
        result: Result<DeploymentOutcome, Halt>,
    },
    Pumped(Result<(), JournalError>),
}

#[derive(Debug)]
pub struct Manager<F, P, R> {
    site: Arc<Site<F, P, R>>,
    slots: BTreeMap<App, Slot>,
    tasks: JoinSet<Done>,
    pump: Pump,
    queries: Queries,
}

impl<F, P, R> Manager<F, P, R>
where
    F: Fetch + 'static,
    P: Processes,
    R: Roots,
{
    pub fn new(site: Arc<Site<F, P, R>>) -> Self {
        let pump = Pump::new(site.journal.appended());
        Self { site, slots: BTreeMap::new(), tasks: JoinSet::new(), pump, queries: Queries::default() }
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
                () = self.queries.ended(), if !self.queries.is_empty() => {}
            }
        }
    }

    async fn take(&mut self, message: Inbound) -> Result<(), ManagerError> {
        match message {
            Inbound::Order { document, statements, connected } => {
                self.order(document, statements, connected).await
            }
            Inbound::Query { query, document, statements, connected } => {
                self.queries.ask(&self.site, query, document, statements, connected);
                Ok(())
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
            // Everything about it that is not acknowledged goes up with the next session anyway. But a word about a
            // deployment may have been taken by an agent that died before the deployment heard of it.
            Ok(Some(Known::Accepted)) => {
                if let Some(word) = incoming.word() {
                    self.pass_on(incoming, word).await;
                }
            }
            Ok(None) => match incoming.word() {
                None => self.approach(incoming).await?,
                Some(word) => self.control(incoming, word).await?,
            },
        }
        Ok(())
    }

    /// What the order alone decides comes first: an app that is not this server's takes no place and fetches nothing.
    async fn approach(&mut self, incoming: Incoming) -> Result<(), ManagerError> {
        match incoming.approach(&self.site).await {
            Ok(()) => self.judge(incoming).await,
            Err(Declined::Journal(error)) => Err(error.into()),
            Err(declined) => self.decline(&incoming, &declined).await,
        }
    }

    /// Takes the app's place for the order, and judges it beside the loop: its manifest may have to be fetched.
    async fn judge(&mut self, incoming: Incoming) -> Result<(), ManagerError> {
        let app = incoming.order.app.clone();
        if let Some(slot) = self.slots.get_mut(&app) {
            let known = |next: &Incoming| next.order.id == incoming.order.id;
            if slot.order == incoming.order.id || slot.next.as_deref().is_some_and(known) {
                return Ok(());
            }
            if slot.standing.ending() && slot.next.is_none() {
                slot.next = Some(Box::new(incoming));
            } else if let Some(inbox) = slot.inbox.clone().filter(|_| slot.gives_way()) {
                slot.next = Some(Box::new(incoming));
                let deployment = slot.deployment.clone();
                let reply = inbox.say(Input::GiveUp, None).await;
                self.tasks.spawn(async move {
                    Done::ToldToGiveWay { app, deployment, answer: reply.answer().await }
                });
            } else {
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

    /// A word about a deployment that runs. A cancel is kept for one that is still being judged.
    async fn control(&mut self, incoming: Incoming, word: Input) -> Result<(), ManagerError> {
        let order = &incoming.order;
        let memory = self.site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        let root = self.site.roots.current();
        if let Err(refusal) = authorize_control(order, &incoming.connected, &root, &self.site.word, &memory) {
            return self.decline(&incoming, &Declined::Rule(refusal)).await;
        }
        let received = incoming.received(&self.site, root.version);
        let deployment = order.deployment.clone();
        let is_cancel = matches!(word, Input::Cancel { .. });
        let slot = self.slots.get_mut(&order.app).filter(|slot| slot.deployment == deployment);
        let Some(slot) = slot.filter(|slot| slot.inbox.is_some() || is_cancel) else {
            return self.decline(&incoming, &Declined::NotRunning { deployment }).await;
        };
        if is_cancel && slot.cancels >= CANCELS {
            return self.decline(&incoming, &Declined::Cancelling { deployment }).await;
        }
        slot.cancels += u32::from(is_cancel);
        if let Some(inbox) = slot.inbox.clone() {
            let reply = inbox.say(word, Some(received)).await;
            self.hear(incoming, reply);
            return Ok(());
        }
        match self.site.journal.accept_control(&received).await {
            Err(error) if error.is_full() => self.decline(&incoming, &error.into()).await,
            Err(error) => Err(error.into()),
            Ok(Err(refusal)) => self.decline(&incoming, &Declined::Rule(refusal)).await,
            Ok(Ok(())) => {
                slot.cancel = Some(word);
                Ok(())
            }
        }
    }

    /// One that was taken before: it counts once, whatever becomes of it now.
    async fn pass_on(&mut self, incoming: Incoming, word: Input) {
        let order = &incoming.order;
        let slot = self.slots.get_mut(&order.app).filter(|slot| slot.deployment == order.deployment);
        let Some(slot) = slot else { return };
        if let Some(inbox) = slot.inbox.clone() {
            let reply = inbox.say(word, None).await;
            self.hear(incoming, reply);
        } else if matches!(word, Input::Cancel { .. }) {
            slot.cancel = Some(word);
        }
    }

    fn hear(&mut self, incoming: Incoming, reply: Reply) {
        let incoming = Box::new(incoming);
        self.tasks.spawn(async move { Done::Heard { incoming, answer: reply.answer().await } });
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
            Done::Heard { answer: Some(Ok(())), .. } => Ok(()),
            Done::Heard { incoming, answer: Some(Err(rejected)) } => {
                self.decline(&incoming, &rejected.into()).await
            }
            Done::Heard { incoming, answer: None } => {
                let deployment = incoming.order.deployment.clone();
                self.decline(&incoming, &Declined::NotRunning { deployment }).await
            }
            // Where it gives way, its end is what counts.
            Done::ToldToGiveWay { answer: Some(Ok(())) | None, .. } => Ok(()),
            Done::ToldToGiveWay { app, deployment, answer: Some(Err(_)) } => {
                let slot = self.slots.get_mut(&app).filter(|slot| slot.deployment == deployment);
                match slot.and_then(|slot| slot.next.take()) {
                    // It was decided in the meantime, and goes on.
                    Some(incoming) => {
                        self.decline(&incoming, &Declined::Busy { app: app.to_string(), deployment }).await
                    }
                    None => Ok(()),
                }
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
                // The first message of a channel that is empty; it was made durable when it came.
                drop(inbox.say(cancel, None).await);
            }
            slot.inbox = Some(inbox);
            slot.standing = deployment.standing();
        }
        self.tasks
            .spawn(async move { Done::Ended { app, deployment: id, result: deployment.drive().await } });
        Ok(())
    }

    async fn decline(&self, incoming: &Incoming, declined: &Declined) -> Result<(), ManagerError> {
        let (code, message) = (declined.code(), declined.to_string());
        tracing::warn!(order = %incoming.order.id, code, message, "order refused");
        if declined.is_kept() {
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
