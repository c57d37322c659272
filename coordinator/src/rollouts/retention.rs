//! What may go of rollouts: of each app and environment all but the newest that have ended, with their events, orders,
//! changes and logs.

use consign_common::name::Id;
use tokio::fs;

use super::{
    controller::{Controller, ControllerError},
    store,
};
use crate::candidates;

/// Ended rollouts kept per app and environment.
pub const KEEP: u32 = 200;

impl Controller {
    /// Deletes all but the `keep` newest of those that have ended; what was deleted.
    pub async fn retain(&self, keep: u32) -> Result<Vec<Id>, ControllerError> {
        let old = store::ended_beyond(self.store.read(), keep).await?;
        for rollout in &old {
            let deployments = store::deployments(self.store.read(), rollout).await?;
            // One transaction each: agents' events wait for it.
            let mut write = self.store.write().await?;
            store::delete_rollout(&mut write, rollout).await?;
            write.commit().await?;
            // A crash in between leaves files that nothing names, and no row without its file.
            for deployment in deployments {
                let path = self.store.state().logs().join(deployment.id.as_str());
                match fs::remove_dir_all(&path).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!(path = %path.display(), %error, "an old log cannot be removed");
                    }
                    Err(_) | Ok(()) => {}
                }
            }
        }
        let mut write = self.store.write().await?;
        candidates::retain(&mut write, keep).await?;
        write.commit().await?;
        if !old.is_empty() {
            tracing::info!(rollouts = old.len(), "old rollouts deleted");
        }
        Ok(old)
    }
}
