//! One try after the other, of each webhook beside the others. Whatever becomes of them, nothing waits for it.

use std::{path::Path, sync::Arc, time::Duration};

use consign_common::time::Clock;
use tokio::{
    sync::Notify,
    time::{self, MissedTickBehavior},
};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::{
    Webhook, signature,
    store::{self, Message},
};
use crate::{
    rollouts::Feed,
    store::{Store, StoreError},
};

/// Where the system keeps the certificates of those who certify: of Debian and its like, of Red Hat and its like.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How long a try takes at most, and when the next one comes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub request: Duration,
    /// After the first try that failed; twice as long after each other one.
    pub first: Duration,
    pub longest: Duration,
    /// After this a message is given up.
    pub give_up: Duration,
    /// Looked at so often without a word.
    pub look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(15),
            first: Duration::from_secs(5),
            longest: Duration::from_secs(30 * 60),
            give_up: Duration::from_secs(24 * 60 * 60),
            look: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// 5 s, 10 s, 20 s, ... half an hour.
    fn after(self, tries: u32) -> Duration {
        self.first.saturating_mul(1 << tries.min(16)).min(self.longest)
    }
}

#[derive(Debug)]
pub struct Deliverer {
    pub store: Arc<Store>,
    pub feed: Feed,
    pub clock: Arc<dyn Clock>,
    pub webhook: Webhook,
    pub pace: Pace,
    /// Told when something is to be tried at once.
    pub now: Arc<Notify>,
}

impl Deliverer {
    /// Until the future is dropped.
    pub async fn run(self) {
        let agent = Arc::new(client(self.pace.request, self.webhook.authorities.as_deref()));
        let mut changes = self.feed.subscribe();
        let mut look = time::interval(self.pace.look);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.deliver_all(&agent).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(webhook = self.webhook.name, %error, "the queue cannot be used")
                }
            }
            tokio::select! {
                _ = look.tick() => {}
                () = self.now.notified() => {}
                // An error: there is no feed any more, and the interval is left.
                changed = changes.changed() => if changed.is_err() { look.tick().await; },
            }
        }
    }

    /// As long as what comes next may go.
    async fn deliver_all(&self, agent: &Arc<ureq::Agent>) -> Result<(), StoreError> {
        while let Some(message) = store::next(self.store.read(), &self.webhook.name).await? {
            if message.next > self.clock.now() {
                return Ok(());
            }
            let (number, tries) = (message.number, message.tries);
            let expires = message.created.plus(self.pace.give_up);
            let tried = self.send(agent, message).await;
            let now = self.clock.now();
            let mut write = self.store.write().await?;
            match tried {
                Ok(()) => store::delivered(&mut write, number, now).await?,
                Err(error) if now >= expires => {
                    tracing::error!(webhook = self.webhook.name, error, "a message is given up");
                    store::give_up(&mut write, number, &error, now).await?;
                }
                Err(error) => {
                    if tries == 0 {
                        tracing::warn!(webhook = self.webhook.name, error, "not delivered, trying again");
                    }
                    store::failed(&mut write, number, &error, now.plus(self.pace.after(tries))).await?;
                }
            }
            write.commit().await?;
        }
        Ok(())
    }

    async fn send(&self, agent: &Arc<ureq::Agent>, message: Message) -> Result<(), String> {
        let timestamp = self.clock.now().0 / 1000;
        let signature = signature(&self.webhook.secrets, &message.id, timestamp, &message.body);
        let (agent, url) = (Arc::clone(agent), self.webhook.url.clone());
        let sending = tokio::task::spawn_blocking(move || {
            let sent = agent
                .post(&url)
                .header("content-type", "application/json")
                .header("user-agent", concat!("consign/", env!("CARGO_PKG_VERSION")))
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", timestamp.to_string())
                .header("webhook-signature", signature)
                .send(message.body.as_bytes());
            match sent {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(format!("it answered {}", answer.status().as_u16())),
                // Without the address: it may hold a secret.
                Err(error) => Err(error.to_string()),
            }
        });
        sending.await.unwrap_or_else(|error| Err(format!("it could not be tried: {error}")))
    }
}

/// No redirect is followed: what is signed for one place does not go to another.
fn client(request: Duration, own: Option<&[u8]>) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(own.map_or_else(machines, authorities))
        .build();
    ureq::Agent::config_builder()
        .timeout_global(Some(request))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls)
        .build()
        .into()
}

/// Whom this machine trusts to certify others.
fn machines() -> RootCerts {
    let read = |path: &str| std::fs::read(Path::new(path)).ok();
    authorities(&AUTHORITIES.into_iter().find_map(read).unwrap_or_default())
}

fn authorities(pem: &[u8]) -> RootCerts {
    let certificates = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    });
    RootCerts::from(certificates.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_more_and_more_rarely() {
        let pace = Pace::default();
        let seconds = |tries| pace.after(tries).as_secs();
        assert_eq!([seconds(0), seconds(1), seconds(2), seconds(3)], [5, 10, 20, 40]);
        assert_eq!([seconds(9), seconds(40), seconds(u32::MAX)], [1800, 1800, 1800]);
    }
}
