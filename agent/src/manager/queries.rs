//! What orders would come to: judged beside the deployments, few at a time, and nothing of them is kept.

use std::{sync::Arc, time::Duration};

use consign_common::{
    limits::ORDER_BYTES,
    trust::{Order, OrderKind, Refusal},
};
use tokio::{task::JoinSet, time::timeout};

use super::intake::{Coming, Declined, Forecast, Incoming};
use crate::{
    executor::{Foresight, Roots, Site},
    ports::{Answer, Fetch, Foretold, Held, Outbound, Papers, PlannedStep},
};

/// At a time: each may hold two manifests.
const IN_FLIGHT: usize = 4;
/// Of one query, most of it for a manifest that must be fetched.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Queries {
    running: JoinSet<()>,
}

impl Queries {
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Once one of them has ended.
    pub(super) async fn ended(&mut self) {
        if let Some(Err(error)) = self.running.join_next().await {
            tracing::error!(%error, "a query was not answered");
        }
    }

    pub(super) fn ask<F, P, R>(
        &mut self,
        site: &Arc<Site<F, P, R>>,
        query: String,
        papers: Papers,
        connected: String,
    ) where
        F: Fetch + 'static,
        P: Send + Sync + 'static,
        R: Roots,
    {
        if self.running.len() >= IN_FLIGHT {
            let message = format!("{IN_FLIGHT} queries are being answered already");
            let answer = Answer::Refused { code: "busy".to_owned(), message };
            return site.tell(Outbound::Answer { query, answer });
        }
        let site = site.clone();
        self.running.spawn(async move {
            let judged = judge(&site, papers, connected);
            let answer = timeout(PATIENCE, judged).await.unwrap_or_else(|_| Answer::Refused {
                code: "timeout".to_owned(),
                message: format!("it could not be judged within {} s", PATIENCE.as_secs()),
            });
            // Without a session nobody waits for it.
            drop(site.outbound.send(Outbound::Answer { query, answer }).await);
        });
    }
}

async fn judge<F: Fetch, P, R: Roots>(
    site: &Arc<Site<F, P, R>>,
    papers: Papers,
    connected: String,
) -> Answer {
    match forecast(site, papers, connected).await {
        Ok(Forecast { coming, held }) => {
            let foretold = match coming {
                Coming::NoOp => Foretold::NoOp,
                Coming::Work(steps) => Foretold::Work { steps: steps.into_iter().map(planned).collect() },
            };
            let held =
                held.map(|refusal| Held { code: refusal.code().to_owned(), message: refusal.to_string() });
            Answer::Foretold { foretold, held }
        }
        Err(declined) => Answer::Refused { code: declined.code().to_owned(), message: declined.to_string() },
    }
}

async fn forecast<F: Fetch, P, R: Roots>(
    site: &Arc<Site<F, P, R>>,
    papers: Papers,
    connected: String,
) -> Result<Forecast, Declined> {
    let bytes = papers.document.len();
    if bytes > ORDER_BYTES {
        let why = format!("it has {bytes} bytes, at most {ORDER_BYTES} are allowed");
        return Err(Refusal::Malformed { what: "order", why }.into());
    }
    let order = Order::parse(&papers.document)?;
    match &order.order {
        OrderKind::Deploy { .. } | OrderKind::Return { .. } => {}
        OrderKind::Cancel { .. }
        | OrderKind::Confirm {}
        | OrderKind::Decide { .. }
        | OrderKind::Once { .. } => {
            let why = "it begins no deployment".to_owned();
            return Err(Refusal::Malformed { what: "order", why }.into());
        }
    }
    let incoming = Incoming { order, papers, connected };
    incoming.approach(site).await?;
    incoming.forecast(site).await
}

fn planned(step: Foresight) -> PlannedStep {
    PlannedStep {
        name: step.name.to_string(),
        kind: step.kind,
        decision: step.decision.as_str(),
        because: step.decision.because().to_owned(),
    }
}
