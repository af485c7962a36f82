//! The time of day and waiting, as a value that tests replace.
//!
//! [`Clock::system`] is the machine's; [`Clock::starting_at`] begins anywhere and moves with tokio's time, which a test
//! pauses and advances; [`Clock::jumping`] is also set to another time of day on the way.
//! Never here: formatting of dates. Given to everything that ages: certificates, tokens, back-off.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Where the time comes from.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Option<Base>,
}

#[derive(Debug, Clone, Copy)]
struct Base {
    start: SystemTime,
    since: Instant,
    jumps: &'static [Jump],
}

/// Someone sets the clock.
#[derive(Debug, Clone, Copy)]
pub struct Jump {
    /// So long after the clock began.
    pub after: Duration,
    /// By so many seconds, on top of the jumps before.
    pub seconds: i64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { base: None }
    }

    /// A clock that shows `start` now and moves with tokio's time.
    pub fn starting_at(start: SystemTime) -> Self {
        Self::jumping(start, &[])
    }

    /// The same, but its time of day jumps; what is measured and waited for does not.
    pub fn jumping(start: SystemTime, jumps: &'static [Jump]) -> Self {
        Self { base: Some(Base { start, since: Instant::now(), jumps }) }
    }

    /// The time of day.
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    pub fn now(&self) -> SystemTime {
        match self.base {
            None => SystemTime::now(),
            Some(base) => base.now(),
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
}

impl Base {
    fn now(&self) -> SystemTime {
        let passed = self.since.elapsed();
        let set: i64 = self.jumps.iter().filter(|jump| jump.after <= passed).map(|jump| jump.seconds).sum();
        let by = Duration::from_secs(set.unsigned_abs());
        if set < 0 { self.start + passed - by } else { self.start + passed + by }
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
        clock.sleep(Duration::from_secs(7_200)).await;
        assert_eq!(clock.unix(), 8_200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_measures_on() {
        const JUMPS: &[Jump] = &[
            Jump { after: Duration::from_secs(10), seconds: 3_600 },
            Jump { after: Duration::from_secs(20), seconds: -7_200 },
        ];
        let clock = Clock::jumping(SystemTime::UNIX_EPOCH + Duration::from_secs(10_000), JUMPS);
        let began = clock.instant();
        for shown in [13_610, 6_420] {
            clock.sleep(Duration::from_secs(10)).await;
            assert_eq!(clock.unix(), shown);
        }
        assert_eq!(clock.instant() - began, Duration::from_secs(20));
    }
}
