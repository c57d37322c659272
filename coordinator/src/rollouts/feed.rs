//! Wakes followers. It carries no data: whoever wakes reads the store from its own cursor, so a slow reader costs
//! nothing and misses nothing.

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct Feed {
    turns: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { turns: watch::Sender::new(0) }
    }
}

impl Feed {
    /// Something became durable.
    pub fn wake(&self) {
        self.turns.send_modify(|turns| *turns = turns.wrapping_add(1));
    }

    /// Sees every waking from now on: subscribe before reading the store.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }
}
