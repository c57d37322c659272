//! Receipts: which deployments still lack one, and which ones the coordinator does not have yet.

use consign_common::{crash, json, limits::ORDER_BYTES, name::Id, trust::Order};

use super::{Journal, JournalError, column::parse};

/// A deployment that has ended and has no receipt.
#[derive(Clone, Debug)]
pub struct Unreceipted {
    pub deployment: Id,
    /// The order that began it.
    pub order: Order,
    pub manifest: consign_common::digest::Sha256,
}

impl Journal {
    /// Oldest first.
    pub async fn without_receipt(&self, limit: u32) -> Result<Vec<Unreceipted>, JournalError> {
        let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
            "SELECT deployments.id, manifest, document FROM deployments
             JOIN orders ON orders.id = deployments.order_id
             WHERE ended = 1 AND deployments.id NOT IN (SELECT deployment FROM receipts)
             ORDER BY deployments.rowid LIMIT ?",
        )
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        let one = |(deployment, manifest, document): (String, String, Vec<u8>)| {
            Ok(Unreceipted {
                deployment: parse(&deployment)?,
                manifest: parse(&manifest)?,
                order: json::from_slice(&document, ORDER_BYTES).map_err(JournalError::value)?,
            })
        };
        rows.into_iter().map(one).collect()
    }

    pub async fn put_receipt(&self, deployment: &Id, envelope: &[u8]) -> Result<(), JournalError> {
        crash::point("receipt-record-before");
        sqlx::query("INSERT OR IGNORE INTO receipts (deployment, envelope) VALUES (?, ?)")
            .bind(deployment.as_str())
            .bind(envelope)
            .execute(self.pool())
            .await?;
        crash::point("receipt-record-after");
        Ok(())
    }

    /// It has ended, and there will be none.
    pub async fn without_word(&self, deployment: &Id) -> Result<(), JournalError> {
        sqlx::query("INSERT OR IGNORE INTO receipts (deployment, acknowledged) VALUES (?, 1)")
            .bind(deployment.as_str())
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// What the coordinator does not have yet, oldest first.
    pub async fn pending_receipts(&self, limit: u32) -> Result<Vec<Vec<u8>>, JournalError> {
        let rows = sqlx::query_scalar(
            "SELECT envelope FROM receipts WHERE acknowledged = 0 AND envelope IS NOT NULL ORDER BY rowid LIMIT ?",
        )
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        Ok(rows)
    }

    pub async fn receipt_acknowledged(&self, deployment: &Id) -> Result<(), JournalError> {
        sqlx::query("UPDATE receipts SET acknowledged = 1 WHERE deployment = ?")
            .bind(deployment.as_str())
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
