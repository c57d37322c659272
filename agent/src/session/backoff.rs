//! How long to wait before the next try: full jitter, so that a fleet cut off together does not come back together.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A random time below `0.5 s * 2^failures`, at most 30 s.
    pub(super) fn next_delay(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fraction())
    }

    /// After a session that was welcomed.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number from 0 to 1. Where the system has no randomness, 1: late is better than all at once.
pub fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_begins_again_after_a_good_session() {
        let mut backoff = Backoff::default();
        for failures in 0..100 {
            let ceiling = if failures < 6 { 500 << failures } else { 30_000 };
            let delay = backoff.next_delay();
            assert!(delay <= Duration::from_millis(ceiling), "try {failures}: {delay:?}");
        }
        let late = (0..50).map(|_| backoff.next_delay()).max().unwrap();
        assert!(late > Duration::from_secs(10), "spread over the whole range: {late:?}");
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }
}
