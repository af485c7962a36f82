//! A change that streams watch for, and how it spread.
//!
//! Never here: how it is made (`mesh`). Set by `run`, told by `stream`.

use std::time::{Duration, Instant};

/// Which resource shows a change, and who has seen it.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Its type.
    type_url: &'static str,
    /// How its name ends.
    name: String,
    began: Instant,
    bytes: usize,
    seen: Vec<Duration>,
}

impl Awaited {
    /// A change made now.
    pub(crate) fn new(type_url: &'static str, name: impl Into<String>, began: Instant) -> Self {
        Self { type_url, name: name.into(), began, bytes: 0, seen: Vec::new() }
    }

    /// A stream has received a response.
    pub(crate) fn see(&mut self, type_url: &str, resources: &[(&str, &str)], bytes: usize, now: Instant) {
        self.bytes += bytes;
        if type_url == self.type_url && resources.iter().any(|(name, _)| name.ends_with(&self.name)) {
            self.seen.push(now.saturating_duration_since(self.began));
        }
    }

    /// How many streams have seen it.
    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }

    /// Bytes of all responses since it was made.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first, the middle and the last stream saw it.
    pub(crate) fn spread(&self) -> [Duration; 3] {
        let mut seen = self.seen.clone();
        seen.sort_unstable();
        let at = |part: usize| seen.get((seen.len().saturating_sub(1)) * part / 2).copied().unwrap_or_default();
        [at(0), at(1), at(2)]
    }
}
