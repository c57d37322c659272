//! What a server keeps through a crash: its journal, its releases, `current`. A write is either whole and durable, or not
//! there: that is what SQLite with `synchronous=FULL` and a rename give, and what the agent's code rests on.

use std::collections::{BTreeMap, BTreeSet};

use consign_agent::core::Pointers;
use consign_common::{
    deployment::Event,
    digest::Sha256,
    json,
    name::{App, Id},
    time::UnixMs,
    trust::{Order, OrderingNumber, Refusal, authorize::Memory, gate::Rearming},
};

use super::queue::{Key, Moment};

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) orders: BTreeMap<Id, Kept>,
    pub(super) deployments: BTreeMap<Id, Deployment>,
    /// Deployments in the order in which they began.
    pub(super) begun: Vec<Id>,
    /// Events of all deployments, in the order in which they were written.
    pub(super) records: Vec<Record>,
    pub(super) memories: BTreeMap<App, Memory>,
    pub(super) manifests: BTreeSet<Sha256>,
    pub(super) releases: BTreeMap<(App, String), Release>,
    pub(super) current: BTreeMap<App, String>,
    pub(super) logs: BTreeMap<Key, LogFile>,
    /// Nothing can be written before this moment.
    pub(super) full_until: Moment,
    staged: u64,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) document: Vec<u8>,
    pub(super) statements: Vec<Vec<u8>>,
    pub(super) refused: Option<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) order: Order,
    pub(super) acknowledged: u64,
    pub(super) written: u64,
    pub(super) ended: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) deployment: Id,
    pub(super) sequence: u64,
    pub(super) at: UnixMs,
    pub(super) event: Event,
    pub(super) body: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    pub(super) digest: Sha256,
    /// The larger, the younger.
    pub(super) age: u64,
}

/// An attempt's output, of which only the length is modelled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogFile {
    pub(super) length: u64,
    pub(super) acknowledged: u64,
}

/// What the journal says of an order's id (`agent/src/journal/orders.rs`, `known`).
#[derive(Debug)]
pub(super) enum Known {
    New,
    Accepted,
    Refused { code: String, message: String },
}

impl Disk {
    pub(super) fn is_full(&self, now: Moment) -> bool {
        now < self.full_until
    }

    pub(super) fn known(&self, id: &Id, document: &[u8]) -> Result<Known, Refusal> {
        let Some(kept) = self.orders.get(id) else { return Ok(Known::New) };
        if kept.document != document {
            return Err(Refusal::Equivocation { order: id.clone() });
        }
        Ok(match kept.refused.clone() {
            Some((code, message)) => Known::Refused { code, message },
            None => Known::Accepted,
        })
    }

    pub(super) fn memory(&self, app: &App) -> Memory {
        self.memories.get(app).cloned().unwrap_or_default()
    }

    /// `accept_control`, and what `accept` does for every order: the id, and the term.
    pub(super) fn keep(&mut self, order: &Order, document: Vec<u8>, statements: Vec<Vec<u8>>) {
        let kept = Kept { document, statements, refused: None };
        self.orders.insert(order.id.clone(), kept);
        let memory = self.memories.entry(order.app.clone()).or_default();
        memory.term = memory.term.max(order.term);
    }

    pub(super) fn refuse(&mut self, order: &Order, document: Vec<u8>, code: &str, message: &str) {
        let refused = Some((code.to_owned(), message.to_owned()));
        let kept = Kept { document, statements: Vec::new(), refused };
        self.orders.entry(order.id.clone()).or_insert(kept);
    }

    /// A deployment begins; its first event follows in the same transaction.
    pub(super) fn accept(
        &mut self,
        order: &Order,
        document: Vec<u8>,
        statements: Vec<Vec<u8>>,
        number: Option<OrderingNumber>,
        config_sequence: u64,
    ) {
        self.keep(order, document, statements);
        let memory = self.memories.entry(order.app.clone()).or_default();
        memory.highest = memory.highest.max(number);
        memory.config_sequence = memory.config_sequence.max(config_sequence);
        let deployment = Deployment { order: order.clone(), acknowledged: 0, written: 0, ended: false };
        self.deployments.insert(order.deployment.clone(), deployment);
        self.begun.push(order.deployment.clone());
    }

    pub(super) fn append(&mut self, id: &Id, at: UnixMs, event: &Event, pointers: Option<&Pointers>) {
        let Some(deployment) = self.deployments.get_mut(id) else { return };
        deployment.written += 1;
        deployment.ended |= matches!(event, Event::Ended { .. });
        let (sequence, app) = (deployment.written, deployment.order.app.clone());
        if let Event::Ended { result } = event {
            let started = |record: &Record| matches!(record.event, Event::Started { .. });
            let begun = self.records.iter().any(|record| record.deployment == *id && started(record));
            let memory = self.memories.entry(app.clone()).or_default();
            let highest = memory.highest.unwrap_or_default();
            match Rearming::of(&deployment.order.order, result) {
                Rearming::OnIfBegun if !begun => {}
                Rearming::On | Rearming::OnIfBegun => {
                    memory.failed = Some(OrderingNumber { ms: highest.ms.max(at), ..highest });
                }
                Rearming::Off => memory.failed = None,
                Rearming::Unchanged => {}
            }
        }
        let (deployment, event, body) = (id.clone(), event.clone(), json::to_vec(event));
        self.records.push(Record { deployment, sequence, at, event, body });
        if let Some(pointers) = pointers {
            let memory = self.memories.entry(app).or_default();
            memory.good.clone_from(&pointers.good);
            memory.before.clone_from(&pointers.before);
            memory.succeeded = pointers.succeeded.or(memory.succeeded);
        }
    }

    /// What has not happened yet cannot be acknowledged.
    pub(super) fn acknowledge(&mut self, id: &Id, sequence: u64) {
        if let Some(deployment) = self.deployments.get_mut(id) {
            deployment.acknowledged = deployment.acknowledged.max(sequence.min(deployment.written));
        }
    }

    pub(super) fn events(&self, id: &Id) -> Vec<Event> {
        self.records.iter().filter(|record| record.deployment == *id).map(|it| it.event.clone()).collect()
    }

    pub(super) fn open_deployments(&self) -> Vec<Id> {
        let open = |id: &&Id| self.deployments.get(*id).is_some_and(|deployment| !deployment.ended);
        self.begun.iter().filter(open).cloned().collect()
    }

    pub(super) fn stage(&mut self, app: &App, release: &str, digest: Sha256) {
        self.staged += 1;
        let release = (app.clone(), release.to_owned());
        self.releases.insert(release, Release { digest, age: self.staged });
    }

    /// As `agent/src/stage/layout.rs`, `prune`: those that stay in any case count first, then the youngest.
    pub(super) fn prune(&mut self, app: &App, keep: u32, protected: &[String]) {
        let mut of_app: Vec<(bool, std::cmp::Reverse<u64>, String)> = self
            .releases
            .iter()
            .filter(|((of, _), _)| of == app)
            .map(|((_, name), release)| {
                (!protected.contains(name), std::cmp::Reverse(release.age), name.clone())
            })
            .collect();
        of_app.sort();
        for (unprotected, _, name) in of_app.into_iter().skip(keep as usize) {
            if unprotected {
                self.releases.remove(&(app.clone(), name));
            }
        }
    }
}
