//! Orders, verbatim: what was taken up, what was refused, and why.

use super::{
    Journal, JournalError,
    column::{from_u64, parse, to_u64},
    database::Write,
    events,
};
use consign_common::{
    deployment::Event,
    digest::Sha256,
    name::{App, Environment, Id},
    time::UnixMs,
    trust::{OrderingNumber, Refusal},
};

/// Of the newest orders those that were refused are kept.
const REFUSALS_KEPT: i64 = 1000;

/// An order as it came, and under which trust root it was judged.
#[derive(Clone, Debug)]
pub struct Received {
    pub id: Id,
    pub deployment: Id,
    pub app: App,
    pub environment: Environment,
    pub coordinator: String,
    pub term: u64,
    pub document: Vec<u8>,
    pub statements: Vec<Vec<u8>>,
    /// The plan document that it is bound to.
    pub plan: Option<Vec<u8>>,
    /// What is sealed to this server, as it came.
    pub sealed: Option<Vec<u8>>,
    pub trust_root_version: u64,
    /// The statements that decided something of it; none counts for anything else afterwards.
    pub decided: Vec<Sha256>,
    pub at: UnixMs,
}

/// An accepted order as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub document: Vec<u8>,
    pub statements: Vec<Vec<u8>>,
    pub plan: Option<Vec<u8>>,
    pub sealed: Option<Vec<u8>>,
    pub trust_root_version: u64,
}

/// What an accepted order begins.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub order: Received,
    pub manifest: Sha256,
    /// What it is ordered by in time; absent for a return, which goes no further up.
    pub number: Option<OrderingNumber>,
    /// Of the config that it came with; 0 for none, and for a return, which takes the one that it goes back to.
    pub config_sequence: u64,
}

/// What the journal says of an order's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Accepted,
    Refused { code: String, message: String },
}

impl Journal {
    /// Looks an order up by its id. Another document under the same id is an equivocation.
    pub async fn known(
        &self,
        id: &Id,
        document: &[u8],
    ) -> Result<Result<Option<Known>, Refusal>, JournalError> {
        let row: Option<(Vec<u8>, Option<String>, Option<String>)> =
            sqlx::query_as("SELECT document, refused_code, refused_message FROM orders WHERE id = ?")
                .bind(id.as_str())
                .fetch_optional(self.pool())
                .await?;
        let Some((stored, code, message)) = row else { return Ok(Ok(None)) };
        if stored != document {
            return Ok(Err(Refusal::Equivocation { order: id.clone() }));
        }
        Ok(Ok(Some(match (code, message) {
            (Some(code), Some(message)) => Known::Refused { code, message },
            (None, _) | (Some(_), None) => Known::Accepted,
        })))
    }

    /// A deployment begins: its order, its first event and what the app's memory gains, all or nothing.
    pub async fn accept(&self, accepted: &Accepted, event: &Event) -> Result<u64, JournalError> {
        let order = &accepted.order;
        let mut write = self.write().await?;
        insert(&mut write, order, None).await?;
        sqlx::query("INSERT INTO deployments (id, order_id, app, manifest) VALUES (?, ?, ?, ?)")
            .bind(order.deployment.as_str())
            .bind(order.id.as_str())
            .bind(order.app.as_str())
            .bind(accepted.manifest.to_string())
            .execute(&mut *write)
            .await?;
        sqlx::query("INSERT INTO apps (app, environment) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(order.app.as_str())
            .bind(order.environment.as_str())
            .execute(&mut *write)
            .await?;
        if let Some(number) = accepted.number {
            let (epoch, ms) = (from_u64(number.epoch), from_u64(number.ms.0));
            sqlx::query(
                "UPDATE apps SET highest_epoch = ?1, highest_ms = ?2 WHERE app = ?3 AND environment = ?4
                 AND (highest_epoch IS NULL OR (highest_epoch, highest_ms) < (?1, ?2))",
            )
            .bind(epoch)
            .bind(ms)
            .bind(order.app.as_str())
            .bind(order.environment.as_str())
            .execute(&mut *write)
            .await?;
        }
        sqlx::query(
            "UPDATE apps SET config_sequence = max(config_sequence, ?) WHERE app = ? AND environment = ?",
        )
        .bind(from_u64(accepted.config_sequence))
        .bind(order.app.as_str())
        .bind(order.environment.as_str())
        .execute(&mut *write)
        .await?;
        let appended = events::append(&mut write, &order.deployment, order.at, event).await?;
        write.commit().await?;
        self.has_appended(&appended);
        Ok(appended.sequence)
    }

    /// An order about a deployment was verified: it is the agent's now. The same one again, still under way when it came,
    /// changes nothing; another document under its id is an equivocation.
    pub async fn accept_control(&self, order: &Received) -> Result<Result<(), Refusal>, JournalError> {
        let mut write = self.write().await?;
        let stored: Option<Vec<u8>> = sqlx::query_scalar("SELECT document FROM orders WHERE id = ?")
            .bind(order.id.as_str())
            .fetch_optional(&mut *write)
            .await?;
        match stored {
            None => insert(&mut write, order, None).await?,
            Some(document) if document == order.document => return Ok(Ok(())),
            Some(_) => return Ok(Err(Refusal::Equivocation { order: order.id.clone() })),
        }
        write.commit().await?;
        Ok(Ok(()))
    }

    /// Keeps why an order was refused, so that the same answer is given when it is sent again. Of one that another took
    /// the id of while it was judged nothing is kept. Only the newest are: whoever sends orders that are refused does not
    /// fill the disk with them.
    pub async fn refuse(&self, order: &Received, code: &str, message: &str) -> Result<(), JournalError> {
        let mut write = self.write().await?;
        let taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM orders WHERE id = ?)")
            .bind(order.id.as_str())
            .fetch_one(&mut *write)
            .await?;
        if taken {
            return Ok(());
        }
        insert(&mut write, order, Some((code, message))).await?;
        sqlx::query(
            "DELETE FROM orders WHERE refused_code IS NOT NULL AND rowid <= (SELECT max(rowid) FROM orders) - ?",
        )
        .bind(REFUSALS_KEPT)
        .execute(&mut *write)
        .await?;
        write.commit().await
    }

    /// The order that began a deployment, if one did.
    pub async fn begun_by(&self, deployment: &Id) -> Result<Option<Id>, JournalError> {
        let order: Option<String> = sqlx::query_scalar("SELECT order_id FROM deployments WHERE id = ?")
            .bind(deployment.as_str())
            .fetch_optional(self.pool())
            .await?;
        order.map(|order| parse(&order)).transpose()
    }

    /// The order that began a deployment, with all that came with it.
    pub async fn order_of(&self, deployment: &Id) -> Result<Option<Kept>, JournalError> {
        type Row = (String, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>, i64);
        let row: Option<Row> = sqlx::query_as(
            "SELECT orders.id, document, plan, sealed, trust_root_version FROM orders
             JOIN deployments ON deployments.order_id = orders.id WHERE deployments.id = ?",
        )
        .bind(deployment.as_str())
        .fetch_optional(self.pool())
        .await?;
        let Some((id, document, plan, sealed, version)) = row else { return Ok(None) };
        let statements =
            sqlx::query_scalar("SELECT envelope FROM statements WHERE order_id = ? ORDER BY position")
                .bind(id)
                .fetch_all(self.pool())
                .await?;
        Ok(Some(Kept { document, statements, plan, sealed, trust_root_version: to_u64(version)? }))
    }
}

async fn insert(
    write: &mut Write,
    order: &Received,
    refused: Option<(&str, &str)>,
) -> Result<(), JournalError> {
    sqlx::query(
        "INSERT INTO orders
           (id, deployment, coordinator, document, received_ms, trust_root_version, refused_code, refused_message)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(order.id.as_str())
    .bind(order.deployment.as_str())
    .bind(&order.coordinator)
    .bind(&order.document)
    .bind(from_u64(order.at.0))
    .bind(from_u64(order.trust_root_version))
    .bind(refused.map(|(code, _)| code))
    .bind(refused.map(|(_, message)| message))
    .execute(&mut **write)
    .await?;
    if refused.is_some() {
        return Ok(());
    }
    sqlx::query("UPDATE orders SET plan = ?, sealed = ? WHERE id = ?")
        .bind(&order.plan)
        .bind(&order.sealed)
        .bind(order.id.as_str())
        .execute(&mut **write)
        .await?;
    for (position, envelope) in (0i64..).zip(&order.statements) {
        sqlx::query("INSERT INTO statements (order_id, position, envelope) VALUES (?, ?, ?)")
            .bind(order.id.as_str())
            .bind(position)
            .bind(envelope)
            .execute(&mut **write)
            .await?;
    }
    for statement in &order.decided {
        sqlx::query(
            "INSERT INTO decided (app, environment, statement) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(order.app.as_str())
        .bind(order.environment.as_str())
        .bind(statement.to_string())
        .execute(&mut **write)
        .await?;
    }
    sqlx::query(
        "INSERT INTO terms (app, environment, coordinator, term) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET term = max(term, excluded.term)",
    )
    .bind(order.app.as_str())
    .bind(order.environment.as_str())
    .bind(&order.coordinator)
    .bind(from_u64(order.term))
    .execute(&mut **write)
    .await?;
    Ok(())
}
