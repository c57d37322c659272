//! The loop: what comes from the session, what deployments come to.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::{
    deployment::DeploymentOutcome,
    limits::ORDER_BYTES,
    name::{App, Id},
    trust::{
        Order, OrderKind,
        authorize::{Deciding, authorize_control},
    },
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use super::{
    intake::{Declined, Incoming},
    pump::Pump,
    queries::Queries,
    refusals::Refusals,
    resume::resume,
    slot::{Ear, Next, Slot, Word, Words},
};
use crate::{
    core::Input,
    executor::{Assignment, Deployment, Halt, Processes, Rejected, Reply, Roots, Site},
    journal::{JournalError, Known},
    ports::{Fetch, Inbound, Outbound, Papers},
};

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
    /// The deployment in the app's place, which an order waits for, waits for a decision or has ended.
    NoLongerBusy {
        app: App,
        deployment: Id,
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
    refusals: Refusals,
    queries: Queries,
}

impl<F, P, R> Manager<F, P, R>
where
    F: Fetch + 'static,
    P: Processes,
    R: Roots,
{
    /// Inside of the runtime that it will run in.
    pub fn new(site: Arc<Site<F, P, R>>) -> Self {
        let pump = Pump::new(site.journal.appended());
        let (refusals, forwarding) = Refusals::new();
        let (mut tasks, outbound) = (JoinSet::new(), site.outbound.clone());
        tasks.spawn(async move {
            forwarding.run(outbound).await;
            Done::Pumped(Ok(()))
        });
        Self { site, slots: BTreeMap::new(), tasks, pump, refusals, queries: Queries::default() }
    }

    /// Goes on with what is open, then serves `inbound` until it is closed. What runs then goes on under its supervisor.
    pub async fn run(mut self, mut inbound: mpsc::Receiver<Inbound>) -> Result<(), ManagerError> {
        let (pump, journal, outbound) =
            (self.pump.clone(), self.site.journal.clone(), self.site.outbound.clone());
        self.tasks.spawn(async move { Done::Pumped(pump.run(journal, outbound).await) });
        for deployment in self.site.journal.open_deployments().await? {
            if let Some((app, assignment)) = resume(&self.site, &deployment).await? {
                self.slots.insert(app.clone(), Slot::resumed(&assignment));
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
            Inbound::Order { papers, connected } => self.order(papers, connected).await,
            Inbound::Query { query, papers, connected } => {
                self.queries.ask(&self.site, query, papers, connected);
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

    async fn order(&mut self, papers: Papers, connected: String) -> Result<(), ManagerError> {
        if papers.document.len() > ORDER_BYTES {
            tracing::warn!(bytes = papers.document.len(), "an order that is too long was dropped");
            return Ok(());
        }
        let order = match Order::parse(&papers.document) {
            Ok(order) => order,
            Err(refusal) => {
                // Without an id there is nobody to answer to.
                tracing::warn!(%refusal, "an order that cannot be read was dropped");
                return Ok(());
            }
        };
        let incoming = Incoming { order, papers, connected };
        match self.site.journal.known(&incoming.order.id, &incoming.papers.document).await? {
            Err(refusal) => self.decline(&incoming, &Declined::Rule(refusal)).await?,
            Ok(Some(Known::Refused { code, message })) => {
                let order = incoming.order.id.clone();
                self.refusals.tell(Outbound::Refused { order, code, message }).await;
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

    /// Takes the app's place for the order, or lets it wait for a deployment that leaves it.
    async fn judge(&mut self, incoming: Incoming) -> Result<(), ManagerError> {
        let app = incoming.order.app.clone();
        let Some(slot) = self.slots.get_mut(&app) else {
            self.occupy(Next { incoming, words: Words::default() });
            return Ok(());
        };
        let known = |next: &Next| next.incoming.order.id == incoming.order.id;
        if slot.order == incoming.order.id || slot.next.as_deref().is_some_and(known) {
            return Ok(());
        }
        if slot.is_leaving() || (slot.inbox.is_some() && slot.gives_way()) {
            slot.next = Some(Box::new(Next { incoming, words: Words::default() }));
            self.make_way(&app).await;
            return Ok(());
        }
        let deployment = slot.deployment.clone();
        self.decline(&incoming, &Declined::Busy { app: app.to_string(), deployment }).await
    }

    /// Takes the app's place, which is free, and judges the order beside the loop: its manifest may have to be fetched.
    fn occupy(&mut self, next: Next) {
        let Next { incoming, words } = next;
        let app = incoming.order.app.clone();
        let (deployment, order) = (incoming.order.deployment.clone(), incoming.order.id.clone());
        let slot = Slot::new(deployment, order, incoming.manifest(), words);
        self.slots.insert(app.clone(), slot);
        let site = self.site.clone();
        self.tasks.spawn(async move {
            let result = incoming.judge(&site).await.map(Box::new);
            Done::Judged { app, incoming: Box::new(incoming), result }
        });
    }

    /// Tells a deployment that waits for a decision that an order waits for its end. One that is cancelled ends by
    /// itself, unless it comes to wait for one, too.
    async fn make_way(&mut self, app: &App) {
        let Some(slot) = self.slots.get(app).filter(|slot| slot.next.is_some()) else { return };
        let Some(inbox) = slot.inbox.clone() else { return };
        let (app, deployment, standing) = (app.clone(), slot.deployment.clone(), slot.standing.clone());
        if standing.undecided() {
            let reply = inbox.say(Input::GiveUp, None).await;
            self.tasks
                .spawn(async move { Done::ToldToGiveWay { app, deployment, answer: reply.answer().await } });
        } else if !standing.ending() {
            self.tasks.spawn(async move {
                standing.no_longer_busy().await;
                Done::NoLongerBusy { app, deployment }
            });
        }
    }

    /// The place is free: of what waited for it, the words have nobody to go to, and the order is judged.
    async fn vacate(&mut self, app: &App) -> Result<(), ManagerError> {
        let Some(mut slot) = self.slots.remove(app) else { return Ok(()) };
        self.forget(slot.words.take()).await?;
        if let Some(next) = slot.next {
            self.occupy(*next);
        }
        Ok(())
    }

    /// An order that waited for a place does not get it.
    async fn turn_away(&self, next: Next, declined: &Declined) -> Result<(), ManagerError> {
        let Next { incoming, mut words } = next;
        self.decline(&incoming, declined).await?;
        self.forget(words.take()).await
    }

    async fn forget(&self, words: Vec<Word>) -> Result<(), ManagerError> {
        for Word { incoming, .. } in words {
            let deployment = incoming.order.deployment.clone();
            self.decline(&incoming, &Declined::NotRunning { deployment }).await?;
        }
        Ok(())
    }

    /// A word about a deployment that runs. It is kept for one that is still being judged, or waits for its place.
    async fn control(&mut self, incoming: Incoming, word: Input) -> Result<(), ManagerError> {
        let order = &incoming.order;
        let memory = self.site.journal.memory(&order.app, &order.environment, &order.coordinator).await?;
        let root = self.site.roots.current();
        let manifest = self.slots.get(&order.app).and_then(|slot| slot.artifact_of(&order.deployment));
        if manifest.is_none() && matches!(order.order, OrderKind::Decide { .. }) {
            let deployment = order.deployment.clone();
            return self.decline(&incoming, &Declined::NotRunning { deployment }).await;
        }
        let deciding = Deciding { manifest, statements: &incoming.papers.statements, now: self.site.now() };
        let (connected, word_of_root) = (&incoming.connected, &self.site.word);
        let decided = match authorize_control(order, connected, &root, word_of_root, &memory, deciding) {
            Ok(decided) => decided,
            Err(refusal) => return self.decline(&incoming, &Declined::Rule(refusal)).await,
        };
        let received = incoming.received(&self.site, root.version, decided);
        let (deployment, is_cancel) = (order.deployment.clone(), word.is_cancel());
        let slot = self.slots.get_mut(&order.app);
        let is_here = slot.as_ref().is_some_and(|slot| slot.deployment == deployment);
        let Some((slot, full)) = slot.and_then(|slot| {
            let full = match slot.ear(&deployment)? {
                Ear::Running(_) => false,
                Ear::Judged(words) => words.is_full(),
            };
            Some((slot, full))
        }) else {
            return self.decline(&incoming, &Declined::NotRunning { deployment }).await;
        };
        if full {
            return self.decline(&incoming, &Declined::Crowded { deployment }).await;
        }
        if is_cancel && is_here && !slot.cancel() {
            return self.decline(&incoming, &Declined::Cancelling { deployment }).await;
        }
        let declined = match slot.ear(&deployment) {
            None => Declined::NotRunning { deployment },
            Some(Ear::Running(inbox)) => {
                let reply = inbox.say(word, Some(received)).await;
                self.hear(incoming, reply);
                return Ok(());
            }
            Some(Ear::Judged(words)) => match self.site.journal.accept_control(&received).await {
                Ok(Ok(())) => {
                    words.keep(Word { incoming, input: word });
                    return Ok(());
                }
                Ok(Err(refusal)) => Declined::Rule(refusal),
                Err(error) if error.is_full() => error.into(),
                Err(error) => return Err(error.into()),
            },
        };
        if is_cancel && is_here {
            slot.uncancel();
        }
        self.decline(&incoming, &declined).await
    }

    /// One that was taken before: it counts once, whatever becomes of it now.
    async fn pass_on(&mut self, incoming: Incoming, word: Input) {
        let order = &incoming.order;
        let Some(slot) = self.slots.get_mut(&order.app) else { return };
        if word.is_cancel() && slot.deployment == order.deployment {
            slot.cancel_again();
        }
        match slot.ear(&order.deployment) {
            Some(Ear::Running(inbox)) => {
                let reply = inbox.say(word, None).await;
                self.hear(incoming, reply);
            }
            Some(Ear::Judged(words)) if !words.is_full() => words.keep(Word { incoming, input: word }),
            Some(Ear::Judged(_)) | None => {}
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
                        self.decline(&incoming, &Declined::Journal(error)).await?;
                        self.vacate(&app).await
                    }
                }
            }
            Done::Judged { app, result: Err(declined), incoming } => {
                self.decline(&incoming, &declined).await?;
                self.vacate(&app).await
            }
            Done::Heard { answer: Some(Ok(())), .. } => Ok(()),
            Done::Heard { incoming, answer: Some(Err(rejected)) } => {
                self.decline(&incoming, &rejected.into()).await?;
                self.goes_on(&incoming).await
            }
            Done::Heard { incoming, answer: None } => {
                let deployment = incoming.order.deployment.clone();
                self.decline(&incoming, &Declined::NotRunning { deployment }).await
            }
            // Where it gives way, its end is what counts.
            Done::ToldToGiveWay { answer: Some(Ok(())) | None, .. } => Ok(()),
            Done::ToldToGiveWay { app, deployment, answer: Some(Err(_)) }
            | Done::NoLongerBusy { app, deployment } => self.next_waits_on(&app, &deployment).await,
            Done::Ended { app, deployment, result } => {
                let outcome = result?;
                tracing::info!(%app, %deployment, outcome = outcome.as_str(), "deployment ended");
                self.vacate(&app).await
            }
            Done::Pumped(result) => Ok(result?),
        }
    }

    /// A word was not taken: if it was the only cancel, nothing ends the deployment soon.
    async fn goes_on(&mut self, word: &Incoming) -> Result<(), ManagerError> {
        if !word.word().is_some_and(|word| word.is_cancel()) {
            return Ok(());
        }
        let (app, deployment) = (&word.order.app, &word.order.deployment);
        let slot = self.slots.get_mut(app).filter(|slot| slot.deployment == *deployment);
        slot.into_iter().for_each(Slot::uncancel);
        self.next_waits_on(app, deployment).await
    }

    /// Whether the order that waits for this deployment's end still may.
    async fn next_waits_on(&mut self, app: &App, deployment: &Id) -> Result<(), ManagerError> {
        let Some(slot) = self.slots.get_mut(app).filter(|slot| slot.deployment == *deployment) else {
            return Ok(());
        };
        if slot.is_cancelled() || slot.standing.undecided() || slot.standing.ending() {
            self.make_way(app).await;
            return Ok(());
        }
        match slot.next.take() {
            // It was decided in the meantime, and goes on.
            Some(next) => {
                let busy = Declined::Busy { app: app.to_string(), deployment: deployment.clone() };
                self.turn_away(*next, &busy).await
            }
            None => Ok(()),
        }
    }

    async fn begin(&mut self, app: App, assignment: Assignment) -> Result<(), JournalError> {
        let id = assignment.deployment.clone();
        tracing::info!(%app, deployment = %id, version = %assignment.work.get().manifest.version, "deployment");
        let deployment = Deployment::begin(self.site.clone(), assignment).await?;
        let mut heard = Vec::new();
        if let Some(slot) = self.slots.get_mut(&app) {
            let inbox = deployment.inbox();
            for Word { incoming, input } in slot.words.take() {
                // The first messages of a channel that is empty; each was made durable when it came.
                heard.push((incoming, inbox.say(input, None).await));
            }
            slot.inbox = Some(inbox);
            slot.standing = deployment.standing();
        }
        for (incoming, reply) in heard {
            self.hear(incoming, reply);
        }
        self.make_way(&app).await;
        self.tasks
            .spawn(async move { Done::Ended { app, deployment: id, result: deployment.drive().await } });
        Ok(())
    }

    async fn decline(&self, incoming: &Incoming, declined: &Declined) -> Result<(), ManagerError> {
        let (code, message) = (declined.code(), declined.to_string());
        tracing::warn!(order = %incoming.order.id, code, message, "order refused");
        if declined.is_kept() {
            let received = incoming.received(&self.site, self.site.roots.current().version, Vec::new());
            unless_full(self.site.journal.refuse(&received, code, &message).await)?;
        }
        let order = incoming.order.id.clone();
        self.refusals.tell(Outbound::Refused { order, code: code.to_owned(), message }).await;
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
