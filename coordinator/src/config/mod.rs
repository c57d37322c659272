//! Config as the coordinator keeps it: signed values, secrets that only their server can open, and the keys that they are
//! sealed to. It can withhold any of it and make none: agents check signature, sequence and commitments themselves.

mod keys;
mod orders;
mod put;
mod store;

pub use orders::{ForServer, InForce, among, for_rollout, lacks, pinned};
pub use put::{ConfigError, Put, SealedSecret};
pub use store::{SealedTo, ServerKeys, Version, note_sealing_key};

use std::sync::Arc;

use consign_common::time::Clock;

use crate::{store::Store, trust_roots::TrustRoots};

#[derive(Clone, Debug)]
pub struct Configs {
    store: Arc<Store>,
    trust_roots: Arc<TrustRoots>,
    clock: Arc<dyn Clock>,
}

impl Configs {
    pub fn new(store: Arc<Store>, trust_roots: Arc<TrustRoots>, clock: Arc<dyn Clock>) -> Self {
        Self { store, trust_roots, clock }
    }
}
