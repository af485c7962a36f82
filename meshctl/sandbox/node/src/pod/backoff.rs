//! How long to wait before a crashed container, or an absent image, is tried again.
//!
//! Kubernetes' numbers: at once, then 10 s doubling to 5 min, forgotten after 10 min of running well.
//! Pure. Never here: waiting. Used by `container`.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// The wait before the next try.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    next: Option<Duration>,
    fresh: bool,
}

impl Backoff {
    /// For restarts: the first comes at once.
    pub(crate) fn restarts() -> Self {
        Self { next: None, fresh: true }
    }

    /// For images: waits from the first time on.
    pub(crate) fn images() -> Self {
        Self { next: None, fresh: false }
    }

    /// The wait after something that ran for `ran`.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= FORGET_AFTER {
            self.next = None;
            self.fresh = true;
        }
        if std::mem::take(&mut self.fresh) {
            return Duration::ZERO;
        }
        let wait = self.next.unwrap_or(FIRST);
        self.next = Some((wait * 2).min(LONGEST));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.after(Duration::from_secs(1)).as_secs()).collect()
    }

    #[test]
    fn restarts_double_up_to_five_minutes() {
        assert_eq!(waits(&mut Backoff::restarts(), 8), [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn running_well_forgets() {
        let mut backoff = Backoff::restarts();
        waits(&mut backoff, 4);
        assert_eq!(backoff.after(Duration::from_secs(600)), Duration::ZERO);
        assert_eq!(waits(&mut backoff, 1), [10]);
    }

    #[test]
    fn images_wait_at_once() {
        assert_eq!(waits(&mut Backoff::images(), 2), [10, 20]);
    }
}
