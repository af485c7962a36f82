//! What a client asks for by name, and which versions it has: all that is kept of a client for each resource.
//!
//! Sorted by name; an entry is the name, shared with all clients, and one word.
//! Never here: what is to be sent. Used by `watch`.

use std::{num::NonZeroU64, sync::Arc};

/// Bits of a version; the other bits of its word are marks. All of them: a version that is none of ours.
pub(crate) const VERSION_BITS: u64 = u64::MAX >> 2;

/// One name, as a client has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry(u64);

impl Entry {
    const ASKED: u64 = 1 << 63;
    const AGAIN: u64 = 1 << 62;

    fn set(&mut self, mark: u64, on: bool) {
        if on {
            self.0 |= mark;
        } else {
            self.0 &= !mark;
        }
    }

    /// Whether it is asked for by name.
    pub(super) fn asked(self) -> bool {
        self.0 & Self::ASKED != 0
    }

    pub(super) fn ask(&mut self, asked: bool) {
        self.set(Self::ASKED, asked);
    }

    /// Whether it is to be sent even if the client has it, or said to be absent.
    pub(super) fn again(self) -> bool {
        self.0 & Self::AGAIN != 0
    }

    pub(super) fn send_again(&mut self, again: bool) {
        self.set(Self::AGAIN, again);
    }

    /// The version that the client was last sent.
    pub(super) fn has(self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0 & VERSION_BITS)
    }

    pub(super) fn put(&mut self, version: Option<NonZeroU64>) {
        let version = version.map_or(0, NonZeroU64::get) & VERSION_BITS;
        self.0 = self.0 & !VERSION_BITS | version;
    }
}

/// Entries by name.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<(Arc<str>, Entry)>);

impl Held {
    fn find(&self, name: &str) -> Result<usize, usize> {
        // names mostly come in order
        if self.0.last().is_none_or(|(last, _)| **last < *name) {
            return Err(self.0.len());
        }
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    /// Adds entries of names that it does not have, in any order.
    pub(super) fn extend(&mut self, entries: impl Iterator<Item = (Arc<str>, Entry)>) {
        self.0.extend(entries);
        self.0.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.0.dedup_by(|(a, _), (b, _)| a == b);
    }

    pub(super) fn get(&self, name: &str) -> Option<Entry> {
        self.0.get(self.find(name).ok()?).map(|(_, entry)| *entry)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        let at = self.find(name).ok()?;
        self.0.get_mut(at).map(|(_, entry)| entry)
    }

    /// The entry of a name; an empty one where there was none.
    pub(super) fn entry(&mut self, name: &str, shared: impl FnOnce() -> Arc<str>) -> &mut Entry {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (shared(), Entry::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Arc<str>, &mut Entry) -> bool) {
        self.0.retain_mut(|(name, entry)| keep(name, entry));
    }

    /// Gives back room that is not used.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All, in order of name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Entry)> {
        self.0.iter().map(|(name, entry)| (name, *entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_whatever_order_they_came_in() {
        let mut held = Held::default();
        for name in ["b", "d", "a", "c", "d"] {
            held.entry(name, || name.into()).ask(true);
        }
        let names: String = held.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, "abcd");
        held.remove("c");
        assert!(held.get("c").is_none() && held.get("d").is_some_and(Entry::asked));
    }

    #[test]
    fn marks_and_version_do_not_touch_each_other() {
        let mut entry = Entry::default();
        entry.put(NonZeroU64::new(VERSION_BITS));
        assert!(!entry.asked() && !entry.again());
        entry.ask(true);
        entry.send_again(true);
        assert_eq!(entry.has(), NonZeroU64::new(VERSION_BITS));
        entry.put(None);
        assert!(entry.asked() && entry.again() && entry.has().is_none());
    }
}
