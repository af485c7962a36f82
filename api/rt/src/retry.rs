//! How long to wait before trying again.
//!
//! Doubling waits with a random part, up to a limit, so that many clients do not return at once.
//! Never here: what is tried. Used wherever a program waits for another.

use std::time::Duration;

use rand::RngExt as _;

/// Waits that grow.
#[derive(Debug, Clone)]
pub struct BackOff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl BackOff {
    /// The first wait and the longest.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// It worked: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now; between half and all of the doubled wait.
    pub fn next_wait(&mut self) -> Duration {
        self.after(rand::rng().random_range(0.5..=1.0))
    }

    fn after(&mut self, share: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let mut waits = BackOff::new(Duration::from_millis(100), Duration::from_secs(1));
        let lengths: Vec<u128> = (0..6).map(|_| waits.after(1.0).as_millis()).collect();
        assert_eq!(lengths, [100, 200, 400, 800, 1000, 1000]);
        waits.reset();
        assert!(waits.next_wait() <= Duration::from_millis(100));
    }
}
