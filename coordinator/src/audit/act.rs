//! What somebody is doing, from the call to the transaction that makes it so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use consign_common::{
    audit::{About, Outcome, Who},
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    time::UnixMs,
    trust::{Envelope, RoleKeys, TrustRoot},
};

use crate::grpc::{Caller, Peer};

/// Characters of a reason, and of what a verb is about.
const REASON: usize = 1000;
const TEXT: usize = 300;
/// Documents that one act names.
const DOCUMENTS: usize = 64;

/// An entry that is not in the log yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub at: UnixMs,
    pub who: Who,
    pub from: String,
    pub what: String,
    pub about: BTreeMap<About, String>,
    pub reason: String,
    pub documents: Vec<Sha256>,
    pub outcome: Outcome,
}

impl Act {
    pub fn new(what: &str, caller: &Caller, peer: Option<&Peer>, at: UnixMs) -> Self {
        let who = Who { identity: caller.identity.to_string(), role: caller.role.as_str().to_owned() };
        Self { who, from: from(peer), ..Self::by_itself(what, at) }
    }

    /// What the coordinator does without being asked.
    pub fn by_itself(what: &str, at: UnixMs) -> Self {
        Self {
            at,
            who: Who { identity: "coordinator".to_owned(), role: "coordinator".to_owned() },
            from: "coordinator".to_owned(),
            what: what.to_owned(),
            about: BTreeMap::new(),
            reason: String::new(),
            documents: Vec::new(),
            outcome: Outcome::Done {},
        }
    }

    /// What is empty is not about anything.
    pub fn about(&mut self, about: About, text: impl ToString) -> &mut Self {
        let text = cut(&text.to_string(), TEXT);
        if !text.is_empty() {
            self.about.insert(about, text);
        }
        self
    }

    /// Where it is not about a rollout yet: what that one is.
    pub fn fill(&mut self, of_rollout: Vec<(About, String)>) {
        if !self.about.contains_key(&About::Rollout) {
            for (about, text) in of_rollout {
                self.about(about, text);
            }
        }
    }

    pub fn because(&mut self, reason: &str) -> &mut Self {
        self.reason = cut(reason, REASON);
        self
    }

    pub fn by(&mut self, document: Sha256) -> &mut Self {
        if self.documents.len() < DOCUMENTS && !self.documents.contains(&document) {
            self.documents.push(document);
        }
        self
    }

    pub fn refused(&mut self, code: &str, message: &str) -> &mut Self {
        self.outcome = Outcome::Refused { code: cut(code, 64), message: cut(message, REASON) };
        self
    }
}

/// Whose keys signed what was handed in, of those that the trust root knows: owners with the beginnings of their keys.
pub fn note_signers(envelope: &[u8], root: &TrustRoot) {
    let Ok(parsed) = Envelope::parse(envelope, ENVELOPE_BYTES) else { return };
    let everybody = RoleKeys { keys: root.keys.keys().copied().collect(), threshold: 1 };
    let signers = parsed.signers(&everybody, &root.keys);
    let names: Vec<String> =
        signers.iter().map(|(key, known)| format!("{} {}", known.owner, key.id().short())).collect();
    note(|act| {
        act.by(Sha256::of(envelope)).about(About::Key, names.join(", "));
    });
}

fn from(peer: Option<&Peer>) -> String {
    match peer {
        Some(Peer::Anonymous { address } | Peer::Certified { address, .. }) => address.to_string(),
        Some(Peer::Local { .. }) => "socket".to_owned(),
        None => "nowhere".to_owned(),
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

type Pending = Arc<Mutex<Option<Act>>>;

tokio::task_local! {
    static ACT: Pending;
}

/// Runs `work` as this act. Gives back the act too, if no transaction carried it into the log: then nothing was done.
pub async fn acting<T>(act: Act, work: impl Future<Output = T>) -> (T, Option<Act>) {
    let pending: Pending = Arc::new(Mutex::new(Some(act)));
    let done = ACT.scope(Arc::clone(&pending), work).await;
    (done, take(&pending))
}

/// A part of the act that is a verb of its own, with an effect of its own.
pub async fn aside<T>(what: &str, work: impl Future<Output = T>) -> T {
    let act = ACT.try_with(|pending| lock(pending).clone()).ok().flatten();
    match act {
        Some(act) => {
            let part = Act { what: what.to_owned(), about: BTreeMap::new(), documents: Vec::new(), ..act };
            acting(part, work).await.0
        }
        None => work.await,
    }
}

/// Says more of the act; nothing where no act is under way, or it is in the log already.
pub fn note(more: impl FnOnce(&mut Act)) {
    // Outside of an act: the coordinator's own doing, or a test's.
    let Ok(pending) = ACT.try_with(Arc::clone) else { return };
    if let Some(act) = lock(&pending).as_mut() {
        more(act);
    }
}

/// The act, once.
pub(super) fn taken() -> Option<Act> {
    ACT.try_with(take).ok().flatten()
}

fn take(pending: &Pending) -> Option<Act> {
    lock(pending).take()
}

fn lock(pending: &Pending) -> std::sync::MutexGuard<'_, Option<Act>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
