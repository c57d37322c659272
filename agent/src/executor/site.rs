//! What is the same for every deployment on this server.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use consign_common::{
    name::Id,
    plan::HostFacts,
    sealing::SealingKey,
    time::{Clock, UnixMs},
    trust::{Privilege, ServersWord, TrustRoot, authorize::Host},
};
use tokio::sync::mpsc;

use super::{ConfirmTimer, Documents};
use crate::{journal::Journal, ports::Outbound};

/// The trust roots that this server has taken, each checked against the one before.
pub trait Roots: Send + Sync + fmt::Debug + 'static {
    /// The newest: what new work is decided under.
    fn current(&self) -> Arc<TrustRoot>;

    /// The one that a deployment was accepted under.
    fn version(&self, version: u64) -> Option<Arc<TrustRoot>>;
}

#[derive(Debug)]
pub struct Site<F, P, R> {
    pub state: PathBuf,
    pub apps: PathBuf,
    pub journal: Journal,
    pub fetch: F,
    pub processes: P,
    pub roots: R,
    /// Opens what was sealed to this server.
    pub sealing_key: Arc<SealingKey>,
    pub word: ServersWord,
    pub privilege: Privilege,
    /// As `linux-x86_64`.
    pub platform: String,
    pub facts: HostFacts,
    pub boot_id: String,
    pub clock: Arc<dyn Clock>,
    pub confirm_timer: ConfirmTimer,
    /// Bytes of one attempt's log.
    pub log_limit: u64,
    pub outbound: mpsc::Sender<Outbound>,
}

impl<F, P, R> Site<F, P, R> {
    pub fn host(&self) -> Host<'_> {
        Host { word: &self.word, privilege: &self.privilege, platform: &self.platform }
    }

    pub fn now(&self) -> UnixMs {
        self.clock.now()
    }

    pub fn documents(&self) -> Documents {
        Documents::new(&self.state)
    }

    /// Where a deployment's logs and its supervisor's files lie.
    pub fn deployment_directory(&self, deployment: &Id) -> PathBuf {
        self.state.join("deployments").join(deployment.as_str())
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.state.join("downloads")
    }

    pub fn apps(&self) -> &Path {
        &self.apps
    }

    /// To the session, if one is open; what is lost here is sent again from the journal.
    pub(crate) fn tell(&self, message: Outbound) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outbound.try_send(message) {
            tracing::debug!("the session is behind; the journal has what it misses");
        }
    }
}
