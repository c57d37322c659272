//! What may go: of each app all but the newest, and never what somebody needs.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::digest::Sha256;

use super::{Repository, RepositoryError, upload::remove};
use crate::store::column::parse;

/// Artifacts kept per app beyond those that are needed.
pub const KEEP: usize = 20;

/// Needed: what a server runs, ran before or can return to, as its agent said last; and what a rollout that has not
/// ended brings in, or a candidate that waits may.
const NEEDED: &str = "
    SELECT good FROM server_apps WHERE good IS NOT NULL
    UNION SELECT before FROM server_apps WHERE before IS NOT NULL
    UNION SELECT current FROM server_apps WHERE current IS NOT NULL
    UNION SELECT digest FROM rollouts WHERE standing <> 'ended'
    UNION SELECT digest FROM candidates WHERE standing = 'waiting'
    UNION SELECT d.digest FROM deployments d JOIN rollouts r ON r.id = d.rollout
          WHERE r.standing <> 'ended' AND d.digest IS NOT NULL";

impl Repository {
    /// Deletes all but the `keep` newest artifacts per app and those that are needed; what was deleted.
    pub async fn retain(&self, keep: usize) -> Result<Vec<Sha256>, RepositoryError> {
        let _changing = self.changing.lock().await;
        // In one writing transaction, which keeps out the beginning of a rollout.
        let mut write = self.store.write().await?;
        let needed: Vec<(String,)> = sqlx::query_as(NEEDED).fetch_all(&mut *write).await?;
        let needed: BTreeSet<String> = needed.into_iter().map(|(digest,)| digest).collect();
        let all: Vec<(String, String)> =
            sqlx::query_as("SELECT app, digest FROM artifacts ORDER BY epoch DESC, ms DESC, digest")
                .fetch_all(&mut *write)
                .await?;
        let mut newer: BTreeMap<String, usize> = BTreeMap::new();
        let mut gone = Vec::new();
        for (app, digest) in all {
            let newer = newer.entry(app).or_default();
            *newer += 1;
            if *newer > keep && !needed.contains(&digest) {
                sqlx::query("DELETE FROM artifacts WHERE digest = ?")
                    .bind(&digest)
                    .execute(&mut *write)
                    .await?;
                gone.push(parse(&digest)?);
            }
        }
        write.commit().await?;
        for digest in &gone {
            tracing::info!(%digest, "artifact deleted: neither new nor needed");
            remove(self.dir(*digest)).await?;
        }
        Ok(gone)
    }
}
