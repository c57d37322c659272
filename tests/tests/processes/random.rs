//! Randomness of a printed seed: the same seed, the same test.

/// xorshift64
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Of `CONSIGN_TEST_SEED`, or of a seed of its own.
    pub(crate) fn from_environment() -> Self {
        let given = std::env::var("CONSIGN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) * 7919);
        Self { seed, state: seed | 1 }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap();
            items.swap(last, other);
        }
    }
}
