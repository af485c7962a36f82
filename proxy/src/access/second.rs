//! The second in which requests began, as log lines show it, written anew once a second.
//!
//! Never here: reading a clock. Held by a worker's lines, used by `line`.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

/// The latest second that was written.
#[derive(Debug, Default)]
pub(crate) struct Seconds(RefCell<(u64, String)>);

impl Seconds {
    /// Gives a time as text to its second, and its milliseconds; none: it is before 1970 or beyond all calendars.
    pub(super) fn with<T>(&self, at: SystemTime, then: impl FnOnce(&[u8], u32) -> T) -> Option<T> {
        let since = at.duration_since(UNIX_EPOCH).ok()?;
        let mut latest = self.0.borrow_mut();
        if latest.0 != since.as_secs() || latest.1.is_empty() {
            let time = Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()?;
            *latest = (since.as_secs(), time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        }
        Some(then(latest.1.as_bytes(), since.subsec_millis()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_is_written_as_it_is_asked_for() {
        let seconds = Seconds::default();
        let check = |millis, text: &str, rest| {
            let at = UNIX_EPOCH + Duration::from_millis(millis);
            let told = seconds.with(at, |text, millis| (String::from_utf8(text.to_vec()).unwrap(), millis));
            assert_eq!(told, Some((text.to_owned(), rest)));
        };
        check(784_111_777_042, "1994-11-06T08:49:37", 42);
        check(784_111_777_999, "1994-11-06T08:49:37", 999);
        check(784_111_778_000, "1994-11-06T08:49:38", 0);
        check(0, "1970-01-01T00:00:00", 0);
        assert_eq!(seconds.with(UNIX_EPOCH - Duration::from_secs(1), |_, _| ()), None);
    }
}
