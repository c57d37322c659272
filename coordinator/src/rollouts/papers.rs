//! What goes beside an order: statements, and the plan document that its rollout is held to.

use consign_common::{
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    name::{App, Environment},
    trust::{Envelope, Order, OrderKind, PlanDocument, Predicate, Statement},
};

use super::{admission::NotStarted, controller::Controller, rows::OrderRow, store};
use crate::fleet::Papers;

impl Controller {
    /// The order with what goes beside it, as it is when it is sent: what was signed since it was made counts, too.
    pub(super) async fn papers(&self, order: &OrderRow) -> Result<Papers, NotStarted> {
        let mut papers = Papers { document: order.document.clone(), ..Papers::default() };
        let Some(manifest) = order.manifest else { return Ok(papers) };
        let parsed = Order::parse(&order.document)?;
        papers.statements = self.evidence(&parsed.app, &parsed.environment, manifest).await?;
        let document = match &parsed.order {
            OrderKind::Deploy { .. } => store::plan_document_of(self.store.read(), &order.deployment).await?,
            OrderKind::Return { .. }
            | OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => None,
        };
        // A server that came later has no part in it.
        let has_it = |bytes: &Vec<u8>| {
            PlanDocument::parse(bytes).is_ok_and(|document| document.servers.contains_key(&order.server))
        };
        papers.plan = document.filter(has_it).unwrap_or_default();
        Ok(papers)
    }

    /// All that is signed of an artifact and may count in an environment, as many statements as go with one order.
    pub(super) async fn evidence(
        &self,
        app: &App,
        environment: &Environment,
        manifest: Sha256,
    ) -> Result<Vec<Vec<u8>>, NotStarted> {
        let mut statements = self.repository.statements(manifest).await?;
        statements.retain(|envelope| may_count(envelope, app, environment));
        Ok(statements)
    }
}

/// An approval for elsewhere counts for nothing here; there is only so much room beside an order.
fn may_count(envelope: &[u8], app: &App, environment: &Environment) -> bool {
    let Ok(envelope) = Envelope::parse(envelope, ENVELOPE_BYTES) else { return true };
    match Statement::parse(envelope.payload()).map(|statement| statement.predicate) {
        Ok(Predicate::Approval(approval)) => approval.app == *app && approval.environment == *environment,
        Ok(
            Predicate::Published(_)
            | Predicate::Config(_)
            | Predicate::Enrolled(_)
            | Predicate::Decision(_)
            | Predicate::Foreign { .. },
        )
        | Err(_) => true,
    }
}
