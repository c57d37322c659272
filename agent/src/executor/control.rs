//! What a deployment that runs hears from outside, and how it stands for those who would send it something.

use consign_common::trust::Refusal;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    core::{Input, Misfit},
    journal::Received,
};

/// What comes to a deployment.
#[derive(Debug)]
pub(super) enum Message {
    /// The end of what it had begun.
    Input(Input),
    Control(Box<Control>),
}

/// A word from outside.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) input: Input,
    /// Made durable first; absent where it is already, or need not be.
    pub(super) order: Option<Received>,
    pub(super) reply: oneshot::Sender<Result<(), Rejected>>,
}

/// Why a word about a deployment was not taken: nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(transparent)]
    Rule(#[from] Refusal),
}

/// The way to a deployment.
#[derive(Clone, Debug)]
pub struct Inbox(mpsc::Sender<Message>);

/// The answer to a word; `None` once the deployment has ended without one.
#[derive(Debug)]
pub struct Reply(oneshot::Receiver<Result<(), Rejected>>);

impl Inbox {
    pub(super) fn new(sender: mpsc::Sender<Message>) -> Self {
        Self(sender)
    }

    /// Says it; in the order in which it is called. The order, if any, is made durable before it counts. Waits only
    /// where the deployment itself is stuck on the disk.
    pub async fn say(&self, input: Input, order: Option<Received>) -> Reply {
        let (reply, answer) = oneshot::channel();
        let control = Control { input, order, reply };
        // A deployment that has ended drops it, and with it the answer.
        drop(self.0.send(Message::Control(Box::new(control))).await);
        Reply(answer)
    }
}

impl Reply {
    pub async fn answer(self) -> Option<Result<(), Rejected>> {
        self.0.await.ok()
    }
}

/// How a deployment stands, for whoever has another order for its app.
#[derive(Debug)]
pub struct Standing(watch::Sender<Stand>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Busy,
    Undecided,
    Ending,
}

impl Default for Standing {
    fn default() -> Self {
        Self(watch::Sender::new(Stand::Busy))
    }
}

impl Standing {
    pub(super) fn is_busy(&self) {
        self.set(Stand::Busy);
    }

    /// It waits for a decision: another order ends it.
    pub(super) fn is_undecided(&self) {
        self.set(Stand::Undecided);
    }

    /// It has ended, and tidies up.
    pub(super) fn is_ending(&self) {
        self.set(Stand::Ending);
    }

    pub fn undecided(&self) -> bool {
        *self.0.borrow() == Stand::Undecided
    }

    pub fn ending(&self) -> bool {
        *self.0.borrow() == Stand::Ending
    }

    /// Until it waits for a decision, or has ended.
    pub async fn no_longer_busy(&self) {
        // Never closed: the sender is our own.
        drop(self.0.subscribe().wait_for(|stand| *stand != Stand::Busy).await);
    }

    fn set(&self, standing: Stand) {
        self.0.send_if_modified(|stand| std::mem::replace(stand, standing) != standing);
    }
}
