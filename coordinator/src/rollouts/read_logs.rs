//! Reading logs: each that matches from its beginning to what there is of it, and on, if that is wanted, to its end.

use std::{collections::HashMap, sync::Arc};

use consign_common::{deployment::Attempt, name::Id};
use tokio::sync::mpsc;

use super::{
    controller::Controller,
    follow::{FollowError, LogPart, LogQuery, Output, Until},
    output::{Rest, Stop, part, woken},
    rows::DeploymentRow,
    store,
};

pub(super) struct LogReader {
    pub(super) controller: Arc<Controller>,
    pub(super) id: Id,
    pub(super) query: LogQuery,
    pub(super) sender: mpsc::Sender<Result<LogPart, FollowError>>,
}

impl LogReader {
    pub(super) async fn run(&self) -> Result<(), Stop> {
        let mut feed = self.controller.feed.subscribe();
        let mut positions: HashMap<(Id, Attempt), u64> = HashMap::new();
        let mut rest = Rest::default();
        loop {
            feed.mark_unchanged();
            let ended = self.controller.show_exactly(&self.id).await?.row.is_ended();
            let mut delivered = false;
            for (row, attempt, kept) in self.matching().await? {
                let place = (row.id.clone(), attempt);
                let mut position = positions.get(&place).copied().unwrap_or(self.query.since);
                while position < kept {
                    let records = self.controller.records(&row.id, attempt, position, kept).await?;
                    if records.is_empty() {
                        break;
                    }
                    let next = position.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
                    let item = part(&row, attempt, position, records);
                    self.sender.send(Ok(item)).await.map_err(|_| Stop::ReaderGone)?;
                    position = next;
                    delivered = true;
                }
                positions.insert(place, position);
            }
            if self.query.until == Until::Now {
                return Ok(());
            }
            if delivered {
                continue;
            }
            if ended && rest.is_over(&self.controller, &self.id, Output::With).await? {
                return Ok(());
            }
            woken(&mut feed, &self.sender, ended.then(Rest::patience)).await?;
        }
    }

    /// The attempts that are asked for, with the bytes there are of each.
    async fn matching(&self) -> Result<Vec<(DeploymentRow, Attempt, u64)>, FollowError> {
        let mut found = Vec::new();
        for row in store::deployments(self.controller.store.read(), &self.id).await? {
            if self.query.server.as_ref().is_some_and(|server| *server != row.server) {
                continue;
            }
            for (attempt, log) in store::logs(self.controller.store.read(), &row.id).await? {
                let name = row.view.step_name(attempt);
                if self.query.step.as_ref().is_none_or(|step| *step == name) {
                    found.push((row.clone(), attempt, log.kept));
                }
            }
        }
        if self.query.since > 0 && found.len() > 1 {
            return Err(FollowError::SinceAmbiguous { matching: found.len() });
        }
        Ok(found)
    }
}
