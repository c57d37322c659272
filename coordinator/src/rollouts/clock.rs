//! Wakes rollouts when their time has come: a bake that is over, a server that was waited for, a start that was planned.

use std::{sync::Arc, time::Duration};

use consign_common::time::UnixMs;
use tokio::time;

use super::{
    after::After,
    controller::{Controller, ControllerError},
    store,
};
use crate::rollout::{Event, Phase};

/// Looked at again at the latest then, whatever the clock did meanwhile.
const LONGEST: Duration = Duration::from_secs(60);
/// After the store failed.
const PAUSE: Duration = Duration::from_secs(5);

impl Controller {
    /// For as long as the coordinator runs.
    pub async fn keep_time(self: Arc<Self>) {
        loop {
            let wait = match self.tick().await {
                Ok(next) => next.map_or(LONGEST, |next| self.until(next)),
                Err(error) => {
                    tracing::error!(%error, "rollouts that wait cannot be looked at");
                    PAUSE
                }
            };
            tokio::select! {
                () = time::sleep(wait) => {}
                () = self.alarm.notified() => {}
            }
        }
    }

    /// Wakes those whose time has come; when the next one wants to be woken.
    async fn tick(self: &Arc<Self>) -> Result<Option<UnixMs>, ControllerError> {
        let now = self.clock.now();
        let mut next: Option<UnixMs> = None;
        let mut due = Vec::new();
        for row in store::open(self.store.read()).await? {
            match row.state.wake() {
                Some(wake) if wake <= now => due.push(row),
                Some(wake) => next = Some(next.map_or(wake, |next| next.min(wake))),
                None => {}
            }
        }
        // Each in a transaction of its own, so that one that cannot be kept holds up no other.
        for row in due {
            let mut after = After::default();
            let mut write = self.store.write().await?;
            let event = match row.state.phase {
                Phase::Queued { .. } => {
                    let next = self.next_to_begin(&mut write, &row.app, &row.environment).await?;
                    if next.as_ref() != Some(&row.id) {
                        continue;
                    }
                    Event::Begin
                }
                Phase::Running { .. }
                | Phase::Stopping { .. }
                | Phase::Aborting { .. }
                | Phase::Ended { .. } => Event::Tick,
            };
            self.drive(&mut write, [(row.id, event)].into(), &mut after).await?;
            write.commit().await?;
            self.perform(after).await?;
        }
        Ok(next)
    }

    fn until(&self, next: UnixMs) -> Duration {
        Duration::from_millis(next.0.saturating_sub(self.clock.now().0))
            .clamp(Duration::from_millis(1), LONGEST)
    }
}
