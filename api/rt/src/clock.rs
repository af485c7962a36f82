//! The time of day and waiting, as a value that tests replace.
//!
//! [`Clock::system`] is the machine's; [`Clock::starting_at`] begins anywhere and moves with tokio's time, which a test
//! pauses and advances. Never here: formatting of dates. Given to everything that ages: certificates, tokens, back-off.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Longest single wait on the monotonic clock, so that a changed wall clock (or a machine that slept) is noticed.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// Where the time comes from.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Option<(SystemTime, Instant)>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { base: None }
    }

    /// A clock that shows `start` now and moves with tokio's time.
    pub fn starting_at(start: SystemTime) -> Self {
        Self { base: Some((start, Instant::now())) }
    }

    /// The time of day.
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    pub fn now(&self) -> SystemTime {
        match self.base {
            None => SystemTime::now(),
            Some((start, since)) => start + since.elapsed(),
        }
    }

    /// A point on the clock that never goes back, for measuring.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Seconds since 1970; 0 before it.
    pub fn unix(&self) -> u64 {
        self.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
    }

    /// Waits for a while.
    pub async fn sleep(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    /// Waits until the time of day is `then`, also when the clock is changed meanwhile.
    pub async fn sleep_until(&self, then: SystemTime) {
        while let Ok(left) = then.duration_since(self.now())
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(LONGEST_NAP)).await;
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_of_ones_own_moves_with_the_tests_time() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let clock = Clock::starting_at(start);
        clock.sleep_until(start + Duration::from_secs(7_200)).await;
        assert_eq!(clock.unix(), 8_200);
    }
}
