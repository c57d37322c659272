//! What goes beside an order: statements, and the plan document that its rollout is held to.

use consign_common::{
    digest::Sha256,
    name::{Environment, Id},
    trust::{Order, OrderKind, PlanDocument},
};

use super::{admission::NotStarted, controller::Controller, rows::OrderRow, store};
use crate::{
    fleet::Papers,
    repository::{Purpose, relevant},
};

impl Controller {
    /// The order with what goes beside it, as it is when it is sent: what was signed since it was made counts, too.
    pub(super) async fn papers(&self, order: &OrderRow) -> Result<Papers, NotStarted> {
        let mut papers = Papers { document: order.document.clone(), ..Papers::default() };
        let Some(manifest) = order.manifest else { return Ok(papers) };
        let parsed = Order::parse(&order.document)?;
        let config = self.config_with(order).await?;
        let evidence = self.evidence(&parsed.environment, manifest, &parsed.rollout).await?;
        papers.statements = config.among(evidence);
        papers.sealed = config.sealed;
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

    /// Of all that is signed of an artifact what may count in an environment, and for this rollout: as much as goes with
    /// one order.
    pub(super) async fn evidence(
        &self,
        environment: &Environment,
        manifest: Sha256,
        rollout: &Id,
    ) -> Result<Vec<Vec<u8>>, NotStarted> {
        let kept = self.repository.kept(manifest).await?;
        let chosen = relevant(&kept, &self.trust_roots.newest(), Purpose { environment, rollout });
        Ok(chosen.into_iter().map(|kept| kept.envelope.clone()).collect())
    }
}
