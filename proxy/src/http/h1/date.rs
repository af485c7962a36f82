//! The `date` of replies, written anew once a second.
//!
//! Never here: reading a clock. Held by a worker, used by `answer`.

use std::cell::RefCell;

use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

/// The latest date that was written.
#[derive(Debug, Default)]
pub(crate) struct Dates(RefCell<(u64, String)>);

impl Dates {
    /// Gives the date of a second since 1970 (RFC 9110, 5.6.7).
    pub(crate) fn with<T>(&self, second: u64, then: impl FnOnce(&[u8]) -> T) -> T {
        let mut latest = self.0.borrow_mut();
        if latest.0 != second || latest.1.is_empty() {
            let written = i64::try_from(second)
                .ok()
                .and_then(|second| Timestamp::from_second(second).ok())
                .and_then(|time| DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok());
            *latest = (second, written.unwrap_or_default());
        }
        then(latest.1.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_wants_it() {
        let dates = Dates::default();
        let text = |second| dates.with(second, |text| String::from_utf8(text.to_vec()).unwrap());
        assert_eq!(text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
