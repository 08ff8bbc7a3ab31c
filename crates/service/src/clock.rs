//! Pauses and ids: what a service makes of time and chance.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use millstream_log::Clock;

/// Pauses between attempts: exponential, with full jitter, so that tasks which failed together do not come back
/// together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// The longest pause.
    pub(crate) const CAP: Duration = Duration::from_secs(30);

    pub(crate) fn new() -> Self {
        Self { base: Duration::from_millis(20), cap: Self::CAP, attempts: 0 }
    }

    /// The next pause: between nothing and `base * 2^attempts`, at most the cap.
    pub(crate) fn pause(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempts.min(16)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(chance())
    }

    /// Something succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A number from 0 to 1. `RandomState` has fresh random keys for each call, which is all that jitter needs.
fn chance() -> f64 {
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// An id that no other call returns: the time and 64 random bits.
pub(crate) fn unique_id(clock: &dyn Clock) -> String {
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:x}-{bits:016x}", clock.now_us())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_anew() {
        let mut backoff = Backoff::new();
        for _ in 0..40 {
            assert!(backoff.pause() <= Backoff::CAP);
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(20));
    }
}
