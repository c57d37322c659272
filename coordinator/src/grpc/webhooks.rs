//! What operators ask of webhooks.

use std::sync::Arc;

use consign_common::{audit::About, time::Clock};
use consign_proto::v1;
use tokio::sync::Notify;
use tonic::Status;

use crate::{
    audit,
    store::{Store, StoreError},
    webhooks::{Deliverer, Event, EventKind, Told, Wanted, store},
};

#[derive(Clone, Debug)]
pub struct WebhookService {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    all: Arc<[Known]>,
}

/// One of the running coordinator's file.
#[derive(Debug)]
struct Known {
    name: String,
    place: String,
    wanted: Wanted,
    now: Arc<Notify>,
}

impl WebhookService {
    pub fn new(store: &Arc<Store>, clock: &Arc<dyn Clock>, deliverers: &[Deliverer]) -> Self {
        let known = |deliverer: &Deliverer| Known {
            name: deliverer.webhook.name.clone(),
            place: deliverer.webhook.place(),
            wanted: deliverer.webhook.wanted.clone(),
            now: Arc::clone(&deliverer.now),
        };
        Self {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            all: deliverers.iter().map(known).collect(),
        }
    }

    pub(super) async fn list(&self) -> Result<v1::ListWebhooksResponse, Status> {
        let mut webhooks = Vec::new();
        for known in self.all.iter() {
            webhooks.push(self.shown(known).await?);
        }
        Ok(v1::ListWebhooksResponse { webhooks })
    }

    /// A message that tells of nothing.
    pub(super) async fn test(&self, request: v1::WebhookRequest) -> Result<v1::Webhook, Status> {
        let known = self.find(&request.name)?;
        let because = Some("somebody asked for it: consign webhook test".to_owned());
        let about = Told { because, ..Told::default() };
        let event = Event { kind: EventKind::Test, at: self.clock.now(), about };
        let mut write = self.store.write().await?;
        store::emit_to(&mut write, &known.name, &event).await?;
        write.commit().await?;
        known.now.notify_one();
        Ok(self.shown(known).await?)
    }

    /// What waits goes now, what was given up waits again.
    pub(super) async fn retry(&self, request: v1::WebhookRequest) -> Result<v1::Webhook, Status> {
        let known = self.find(&request.name)?;
        let mut write = self.store.write().await?;
        store::retry(&mut write, &known.name, self.clock.now()).await?;
        write.commit().await?;
        known.now.notify_one();
        Ok(self.shown(known).await?)
    }

    fn find(&self, name: &str) -> Result<&Known, Status> {
        audit::note(|act| {
            act.about(About::Webhook, name);
        });
        self.all.iter().find(|known| known.name == name).ok_or_else(|| {
            let name: String = name.chars().take(80).collect();
            Status::not_found(format!(
                "there is no webhook {name}; `consign webhook list` shows those there are"
            ))
        })
    }

    async fn shown(&self, known: &Known) -> Result<v1::Webhook, StoreError> {
        let standing = store::standing(self.store.read(), &known.name).await?;
        let Known { name, place, wanted, .. } = known;
        Ok(v1::Webhook {
            name: name.clone(),
            host: place.clone(),
            events: wanted.events.iter().cloned().collect(),
            apps: wanted.apps.iter().cloned().collect(),
            environments: wanted.environments.iter().cloned().collect(),
            waiting: standing.waiting,
            delivered: standing.delivered,
            given_up: standing.given_up,
            lost: standing.lost,
            error: standing.error,
            next_ms: standing.next.0,
            delivered_ms: standing.delivered_last.0,
        })
    }
}
