//! What changed lately, for watchers.
//!
//! A watcher keeps only the revision it has seen; it reads the rest from the bounded history, or learns that it is
//! too late. Never here: selectors, JSON. Called by `store` and `verb::watch`.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Item, Store};
use crate::limits::{CHANGES_BYTES_MAX, CHANGES_MAX};

/// One write.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) old: Option<Arc<Item>>,
    /// `None`: deleted.
    pub(crate) new: Option<Arc<Item>>,
}

impl Change {
    fn bytes(&self) -> usize {
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |item| item.json.len())
    }
}

#[derive(Debug)]
pub(super) struct Feed {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Changes up to this revision are no longer here.
    dropped: u64,
    head: watch::Sender<u64>,
}

impl Feed {
    pub(super) fn new(revision: u64) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, dropped: revision, head: watch::Sender::new(revision) }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        let revision = change.revision;
        self.changes.push_back(change);
        while self.changes.len() > CHANGES_MAX || (self.bytes > CHANGES_BYTES_MAX && self.changes.len() > 1) {
            if let Some(old) = self.changes.pop_front() {
                self.bytes -= old.bytes();
                self.dropped = old.revision;
            }
        }
        self.head.send_replace(revision);
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn since(&self, revision: u64) -> Option<Vec<Change>> {
        if revision < self.dropped {
            return None;
        }
        let from = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.changes.range(from..).cloned().collect())
    }
}

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Changes in order (perhaps none), and the store's revision up to which they are complete.
    Changes(Vec<Change>, u64),
    /// The history no longer reaches back so far.
    TooOld { wanted: u64, current: u64 },
}

/// One watcher's place in a resource's history.
pub(crate) struct Watch {
    store: Arc<Store>,
    resource: String,
    after: u64,
    head: watch::Receiver<u64>,
}

impl Watch {
    pub(super) fn new(store: Arc<Store>, resource: String, after: u64, head: watch::Receiver<u64>) -> Self {
        Self { store, resource, after, head }
    }

    /// What there is now, without waiting.
    pub(crate) fn now(&mut self) -> Seen {
        self.head.mark_unchanged();
        let mut state = self.store.state();
        let current = state.revision;
        let seen = state.shelf(&self.resource).feed.since(self.after);
        match seen {
            Some(changes) => {
                // A watch that begins in the future stays silent until then.
                self.after = self.after.max(current);
                Seen::Changes(changes, current)
            }
            None => Seen::TooOld { wanted: self.after, current },
        }
    }

    /// Waits until something changed. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> Seen {
        loop {
            match self.now() {
                Seen::Changes(changes, _) if changes.is_empty() => {}
                seen @ (Seen::Changes(..) | Seen::TooOld { .. }) => return seen,
            }
            if self.head.changed().await.is_err() {
                // The shelf lives as long as the store, which this watch keeps.
                std::future::pending::<()>().await;
            }
        }
    }
}
