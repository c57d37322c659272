//! The statements that go with an order: they are chosen when it is sent, so that what was signed since goes along.

use consign_common::{
    name::{Environment, Id},
    trust::{Order, OrderKind},
};

use super::{
    controller::{Controller, ControllerError},
    rows::OrderRow,
    store,
};
use crate::{
    repository::{Kept, Purpose, relevant},
    store::StoreError,
};

impl Controller {
    pub(super) async fn statements_with(&self, row: &OrderRow) -> Result<Vec<Vec<u8>>, ControllerError> {
        let order = Order::parse(&row.document).map_err(StoreError::corrupt)?;
        let decides = match &order.order {
            OrderKind::Decide { .. } => true,
            OrderKind::Deploy { skip, .. } | OrderKind::Return { skip, .. } => !skip.is_empty(),
            OrderKind::Cancel { .. } | OrderKind::Confirm {} | OrderKind::Once { .. } => false,
        };
        // Decisions are about the rollout's artifact, which on a return is the one that is left.
        let about = match (decides, store::rollout(self.store.read(), &order.rollout).await?) {
            (true, Some(rollout)) => Some(rollout.digest),
            (true, None) | (false, _) => None,
        };
        let mut kept = Vec::new();
        if let Some(manifest) = row.manifest {
            kept = self.repository.kept(manifest).await?;
        }
        if let Some(about) = about.filter(|about| Some(*about) != row.manifest) {
            let others = self.repository.kept(about).await?;
            kept.extend(others.into_iter().filter(|kept| kept.is_about(&order.rollout)));
        }
        Ok(self.choose(&kept, &order.environment, &order.rollout))
    }

    /// Of what is kept about an artifact, what an order may carry and a server may count.
    pub(super) fn choose(&self, kept: &[Kept], environment: &Environment, rollout: &Id) -> Vec<Vec<u8>> {
        let root = self.trust_roots.newest();
        let chosen = relevant(kept, &root, Purpose { environment, rollout });
        chosen.into_iter().map(|kept| kept.envelope.clone()).collect()
    }
}
