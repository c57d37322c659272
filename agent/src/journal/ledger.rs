//! What the session asks: acknowledgements of logs, and the state that `Hello` tells.

use consign_common::{crash, deployment::Attempt, name::Id};

use super::{
    Journal, JournalError,
    column::{from_u64, parse, to_u64},
};
use crate::ports::{AppReport, Lost, PendingLog, Rewound};

impl Journal {
    /// Every attempt's log that the coordinator does not have to its end, oldest first.
    pub async fn pending_logs(&self) -> Result<Vec<PendingLog>, JournalError> {
        let rows: Vec<(String, String, Option<i64>, i64)> = sqlx::query_as(
            "SELECT deployment, attempt, length, acknowledged FROM logs
             WHERE length IS NULL OR acknowledged < length ORDER BY rowid",
        )
        .fetch_all(self.pool())
        .await?;
        let pending = |(deployment, attempt, length, acknowledged): (String, String, Option<i64>, i64)| {
            let deployment: Id = parse(&deployment)?;
            let attempt: Attempt = parse(&attempt)?;
            Ok(PendingLog {
                path: self.deployments().join(deployment.as_str()).join(format!("{attempt}.log")),
                deployment,
                attempt,
                acknowledged: to_u64(acknowledged)?,
                length: length.map(to_u64).transpose()?,
            })
        };
        rows.into_iter().map(pending).collect()
    }

    /// The coordinator has everything before `offset`. May come twice and out of order: the highest stands.
    pub async fn log_acknowledged(
        &self,
        deployment: &Id,
        attempt: Attempt,
        offset: u64,
    ) -> Result<(), JournalError> {
        crash::point("log-ack-record-before");
        sqlx::query(
            "UPDATE logs SET acknowledged = max(acknowledged, ?) WHERE deployment = ? AND attempt = ?",
        )
        .bind(from_u64(offset))
        .bind(deployment.as_str())
        .bind(attempt.to_string())
        .execute(self.pool())
        .await?;
        crash::point("log-ack-record-after");
        Ok(())
    }

    /// A coordinator that was restored from a backup lost what it had acknowledged. With events come the logs, as far as
    /// they have not been removed here: which of them it has, it says when they come.
    pub async fn rewind(&self, deployment: &Id, lost: Lost) -> Result<Rewound, JournalError> {
        let mut write = self.write().await?;
        if let Lost::EventsAfter(sequence) = lost {
            let sequence = from_u64(sequence);
            let rewound =
                sqlx::query("UPDATE deployments SET acknowledged = ?1 WHERE id = ?2 AND acknowledged > ?1")
                    .bind(sequence)
                    .bind(deployment.as_str())
                    .execute(&mut *write)
                    .await?;
            if rewound.rows_affected() == 0 {
                return Ok(Rewound::Nothing);
            }
        }
        if self.deployments().join(deployment.as_str()).exists() {
            sqlx::query("UPDATE logs SET acknowledged = 0 WHERE deployment = ?")
                .bind(deployment.as_str())
                .execute(&mut *write)
                .await?;
        }
        write.commit().await?;
        Ok(Rewound::Some)
    }

    /// What `Hello` says of every app to this coordinator, but for `current`, which the journal does not know.
    pub async fn app_reports(&self, coordinator: &str) -> Result<Vec<AppReport>, JournalError> {
        let mut reports = Vec::new();
        for (app, environment) in self.known_apps().await? {
            let memory = self.memory(&app, &environment, coordinator).await?;
            reports.push(AppReport {
                good: memory.good.as_ref().map(|good| good.manifest),
                good_version: memory.good.map(|good| good.version.to_string()).unwrap_or_default(),
                before: memory.before.map(|before| before.manifest),
                current: None,
                highest: memory.highest.unwrap_or_default(),
                term: memory.term,
                failed: memory.failed,
                config_sequence: memory.config_sequence,
                app: Some(app),
                environment: Some(environment),
            });
        }
        Ok(reports)
    }
}
