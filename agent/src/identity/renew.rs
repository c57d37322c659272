//! Renewal: a new key and a new certificate at a third of the old one's life, so that months of outage lock nobody out.
//! Where they did, an expired certificate still reaches this one call.

use std::{path::PathBuf, sync::Arc, time::Duration};

use consign_common::{
    time::{Clock as _, SystemClock, UnixMs},
    tls::{CertificateDer, Identity, Peer, TlsError},
};
use tokio::sync::watch;

use super::{
    TrustRoots,
    enroll::{EnrollError, checked_peer},
};
use crate::session::{
    dial::{DialError, Dialer},
    fraction, unary,
};

/// Looked at so often, because the clock may jump and the machine may sleep.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// After a try that failed; there are weeks left.
const RETRY: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub struct Renewal {
    pub dialer: Dialer,
    pub roots: Arc<TrustRoots>,
    pub path: PathBuf,
    pub identity: watch::Sender<Arc<Identity>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the coordinator refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Answer(#[from] EnrollError),
    #[error("the new certificate is for another server: {0}")]
    OtherServer(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Renewal {
    /// Until the future is dropped.
    pub async fn run(self) {
        // Fixed for the life of the process: drawn anew at every look, the earliest would win.
        let jitter = fraction();
        loop {
            let now = SystemClock.now();
            let wait = match self.identity.borrow().peer() {
                Ok(peer) => due(&peer, jitter).since(now),
                Err(error) => {
                    tracing::error!(%error, "this server's own certificate cannot be read");
                    LOOK
                }
            };
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(LOOK)).await;
                continue;
            }
            match self.renew().await {
                Ok(peer) => {
                    tracing::info!(expires = %peer.not_after, key = %peer.spki_sha256, "certificate renewed")
                }
                Err(error) => {
                    tracing::warn!(%error, "certificate not renewed, trying again");
                    tokio::time::sleep(RETRY.mul_f64(0.5 + fraction() / 2.0)).await;
                }
            }
        }
    }

    /// A new key each time; nothing changes here before the new certificate is checked and durable.
    pub async fn renew(&self) -> Result<Peer, RenewError> {
        let old = self.identity.borrow().clone();
        let connection = self.dialer.dial(Some(&old)).await?;
        self.dialer.check_named(&connection, &self.roots.current())?;
        let (csr, key_pkcs8) = Identity::generate_csr()?;
        let certificate = unary::renew(connection.channel, csr).await.map_err(RenewError::Refused)?;
        let new = Identity { certificate: CertificateDer::from(certificate), key_pkcs8 };
        let peer = checked_peer(&new, self.dialer.ca)?;
        if peer.subject != old.peer()?.subject {
            return Err(RenewError::OtherServer(peer.subject.uri()));
        }
        new.write(&self.path)?;
        self.identity.send_replace(Arc::new(new));
        Ok(peer)
    }
}

/// At a third of its life, and up to a thirtieth later, so that servers enrolled together do not renew together.
fn due(peer: &Peer, jitter: f64) -> UnixMs {
    let life = peer.not_after.since(peer.not_before);
    peer.not_before.plus(life / 3).plus(life.mul_f64(jitter / 30.0))
}

#[cfg(test)]
mod tests {
    use consign_common::{digest::Sha256, tls::Subject};

    use super::*;

    #[test]
    fn a_third_of_its_life_and_a_little_later() {
        let day = Duration::from_secs(24 * 60 * 60);
        let peer = Peer {
            subject: Subject::Coordinator { id: "x".into() },
            spki_sha256: Sha256::of(b""),
            not_before: UnixMs(0),
            not_after: UnixMs(0).plus(90 * day),
        };
        assert_eq!(due(&peer, 0.0), UnixMs(0).plus(30 * day));
        assert_eq!(due(&peer, 1.0), UnixMs(0).plus(33 * day));
    }
}
