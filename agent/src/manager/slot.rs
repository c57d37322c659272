//! An app's place: the deployment in it, the order that waits for it, and words that came before their deployment ran.

use std::sync::Arc;

use consign_common::{deployment::Event, digest::Sha256, name::Id};

use super::intake::Incoming;
use crate::{
    core::Input,
    executor::{Assignment, Inbox, Origin, Standing},
};

/// Cancels that one deployment is told of, each an event in the journal; more change nothing.
const CANCELS: u32 = 8;
/// Words that wait for a deployment to begin: they fit into its inbox before it hears the first one.
const WORDS: usize = 8;

/// One app's place: there is one deployment in it, or one that is being judged.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) deployment: Id,
    pub(super) order: Id,
    /// What its order names.
    manifest: Option<Sha256>,
    /// Present once it runs.
    pub(super) inbox: Option<Inbox>,
    /// Came before it ran.
    pub(super) words: Words,
    /// Cancels that it was given.
    cancels: u32,
    pub(super) standing: Arc<Standing>,
    /// Came while it tidied up, was cancelled, or waited for a decision.
    pub(super) next: Option<Box<Next>>,
}

/// An order that is judged once the place is free, and what was said about it meanwhile.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) incoming: Incoming,
    pub(super) words: Words,
}

/// Words that are durable, for a deployment that does not run yet; each order's once.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<Word>);

#[derive(Debug)]
pub(super) struct Word {
    pub(super) incoming: Incoming,
    pub(super) input: Input,
}

/// Where a word about a deployment goes.
pub(super) enum Ear<'a> {
    Running(Inbox),
    Judged(&'a mut Words),
}

impl Slot {
    pub(super) fn new(deployment: Id, order: Id, manifest: Option<Sha256>, words: Words) -> Self {
        let cancels = words.0.iter().filter(|word| word.input.is_cancel()).count();
        let cancels = u32::try_from(cancels).unwrap_or(u32::MAX);
        Self {
            deployment,
            order,
            manifest,
            inbox: None,
            words,
            cancels,
            standing: Arc::default(),
            next: None,
        }
    }

    /// Of a deployment that an agent before this one began.
    pub(super) fn resumed(assignment: &Assignment) -> Self {
        let (deployment, order) = (assignment.deployment.clone(), assignment.order.id.clone());
        let manifest = Some(assignment.work.get().digest);
        let mut slot = Self::new(deployment, order, manifest, Words::default());
        if let Origin::Journal(records) = &assignment.origin {
            let cancelling = records.iter().filter(|record| matches!(record.event, Event::Cancelling { .. }));
            slot.cancels = u32::try_from(cancelling.count()).unwrap_or(u32::MAX);
        }
        slot
    }

    /// The artifact of the deployment in the place, or of the one that waits for it.
    pub(super) fn artifact_of(&self, deployment: &Id) -> Option<Sha256> {
        if self.deployment == *deployment {
            return self.manifest;
        }
        let next = self.next.as_ref().filter(|next| next.incoming.order.deployment == *deployment)?;
        next.incoming.manifest()
    }

    /// Its end is near, and no order waits for it yet.
    pub(super) fn is_leaving(&self) -> bool {
        (self.standing.ending() || self.is_cancelled()) && self.next.is_none()
    }

    /// Its deployment waits for a decision, and no order waits for its end yet.
    pub(super) fn gives_way(&self) -> bool {
        self.standing.undecided() && self.next.is_none()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancels > 0
    }

    /// Counts a cancel; `false` where it was cancelled often enough.
    pub(super) fn cancel(&mut self) -> bool {
        let allowed = self.cancels < CANCELS;
        self.cancels += u32::from(allowed);
        allowed
    }

    /// A cancel that was taken before this agent lived.
    pub(super) fn cancel_again(&mut self) {
        self.cancels = self.cancels.max(1);
    }

    /// A cancel was not taken.
    pub(super) fn uncancel(&mut self) {
        self.cancels = self.cancels.saturating_sub(1);
    }

    /// For words about this deployment, if it is here or waits for the place.
    pub(super) fn ear(&mut self, deployment: &Id) -> Option<Ear<'_>> {
        if self.deployment == *deployment {
            return Some(match &self.inbox {
                Some(inbox) => Ear::Running(inbox.clone()),
                None => Ear::Judged(&mut self.words),
            });
        }
        let next = self.next.as_deref_mut();
        next.filter(|next| next.incoming.order.deployment == *deployment)
            .map(|next| Ear::Judged(&mut next.words))
    }
}

impl Words {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= WORDS
    }

    /// Keeps it, unless it is here already.
    pub(super) fn keep(&mut self, word: Word) {
        if !self.0.iter().any(|kept| kept.incoming.order.id == word.incoming.order.id) {
            self.0.push(word);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Word> {
        std::mem::take(&mut self.0)
    }
}
