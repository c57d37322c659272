//! The task behind one follower: reads the changes after its cursor, and delivers what they say.

use std::sync::Arc;

use consign_common::{name::Id, time::UnixMs};
use tokio::sync::mpsc;

use super::{
    controller::Controller,
    follow::{FollowError, Followed, Output, Update},
    output::{Rest, Stop, part, woken},
    rows::{Change, Changed},
    show::Shown,
    store,
};

/// Changes read at once.
const CHANGES: u32 = 256;

pub(super) struct Follower {
    pub(super) controller: Arc<Controller>,
    pub(super) id: Id,
    pub(super) output: Output,
    pub(super) sender: mpsc::Sender<Result<Followed, FollowError>>,
}

impl Follower {
    pub(super) async fn run(&self, shown: Shown, mut cursor: u64) -> Result<(), Stop> {
        let mut feed = self.controller.feed.subscribe();
        let at = self.controller.clock.now();
        self.send(cursor, at, Update::Rollout(Box::new(shown))).await?;
        let mut rest = Rest::default();
        loop {
            feed.mark_unchanged();
            // Asked before the changes are read: what ends it is among them then.
            let ended = self.controller.show_exactly(&self.id).await?.row.is_ended();
            let changes = store::changes(self.controller.store.read(), &self.id, cursor, CHANGES).await?;
            if changes.is_empty() {
                if ended && rest.is_over(&self.controller, &self.id, self.output).await? {
                    return Ok(());
                }
                woken(&mut feed, &self.sender, ended.then(Rest::patience)).await?;
                continue;
            }
            for change in changes {
                cursor = change.cursor;
                self.deliver(change).await?;
            }
        }
    }

    async fn deliver(&self, change: Change) -> Result<(), Stop> {
        let update = match change.what {
            Changed::Rollout => {
                let shown = self.controller.show_exactly(&self.id).await?;
                if shown.row.changed != change.cursor {
                    return Ok(());
                }
                Update::Rollout(Box::new(shown))
            }
            Changed::Deployment(id) => {
                let row = store::deployment(self.controller.store.read(), &id).await?;
                // A newer row comes later and carries the newest state; this one is skipped.
                if row.is_none_or(|row| row.changed != change.cursor) {
                    return Ok(());
                }
                Update::Deployment(Box::new(self.controller.show_exactly(&self.id).await?), id)
            }
            Changed::Log { deployment, attempt, start, length } => match self.output {
                Output::Without => return Ok(()),
                Output::With => {
                    let end = start.saturating_add(length);
                    let records = self.controller.records(&deployment, attempt, start, end).await?;
                    if records.is_empty() {
                        return Ok(());
                    }
                    let row = store::deployment(self.controller.store.read(), &deployment).await?;
                    let Some(row) = row else { return Ok(()) };
                    Update::Log(part(&row, attempt, start, records))
                }
            },
        };
        self.send(change.cursor, change.at, update).await
    }

    async fn send(&self, cursor: u64, at: UnixMs, update: Update) -> Result<(), Stop> {
        let item = Followed { cursor, at, update };
        self.sender.send(Ok(item)).await.map_err(|_| Stop::ReaderGone)
    }
}
