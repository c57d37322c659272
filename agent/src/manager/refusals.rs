//! Refusals to the session. Unlike events they are in no journal that is sent again: until its order comes with the next
//! session, nobody would hear of one that is lost. So they wait for a line that is behind, beside the manager.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};

use crate::ports::Outbound;

/// Refusals that wait for the session.
const QUEUE: usize = 256;
/// How long the manager waits for a place among them: whoever floods it with orders is not read any faster.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Refusals(mpsc::Sender<Outbound>);

/// What hands them on.
#[derive(Debug)]
pub(super) struct Forwarding(mpsc::Receiver<Outbound>);

impl Refusals {
    pub(super) fn new() -> (Self, Forwarding) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), Forwarding(receiver))
    }

    pub(super) async fn tell(&self, refused: Outbound) {
        if timeout(PATIENCE, self.0.send(refused)).await.is_err() {
            tracing::warn!("the session is far behind: a refusal is lost until its order comes again");
        }
    }
}

impl Forwarding {
    /// Until either end is closed. Without a session what comes out is discarded, so that it never waits for one.
    pub(super) async fn run(mut self, outbound: mpsc::Sender<Outbound>) {
        while let Some(refused) = self.0.recv().await {
            if outbound.send(refused).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use consign_common::name::Id;

    use super::*;

    #[tokio::test]
    async fn a_session_that_is_behind_loses_none() {
        let refused = |number: u8| Outbound::Refused {
            order: Id::from_bytes([number; 16]),
            code: "busy".into(),
            message: String::new(),
        };
        let (refusals, forwarding) = Refusals::new();
        let (outbound, mut session) = mpsc::channel(1);
        let forwarding = tokio::spawn(forwarding.run(outbound));
        for number in 0..100 {
            refusals.tell(refused(number)).await;
        }
        for number in 0..100 {
            let Some(Outbound::Refused { order, .. }) = session.recv().await else { panic!("lost") };
            assert_eq!(order, Id::from_bytes([number; 16]));
        }
        drop(session);
        refusals.tell(refused(0)).await;
        forwarding.await.unwrap();
    }
}
