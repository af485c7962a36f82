//! What is to be looked at next: each object at most once at a time, failures after a pause.
//!
//! Holds as many entries as there are objects at most. Never here: what a task does.
//! Called by `world` (something changed) and `work` (which takes tasks).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexSet;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::resource::Key;
use crate::limits::{RETRY_PAUSE_FIRST, RETRY_PAUSE_MAX};

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Task {
    Deployment(Key),
    ReplicaSet(Key),
    DaemonSet(Key),
    Job(Key),
    /// Endpoints and slices of a Service, there or gone.
    Endpoints(Key),
    Namespace(String),
    /// An unbound Pod.
    Schedule(Key),
    /// Whether the object of this uid may stay.
    Garbage(String),
}

pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: IndexSet<Task>,
    running: HashSet<Task>,
    again: HashSet<Task>,
    later: BTreeMap<(Instant, u64), Task>,
    due: HashMap<Task, (Instant, u64)>,
    failures: HashMap<Task, u32>,
    number: u64,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a look soon; asking twice is one look.
    pub(crate) fn push(&self, task: Task) {
        self.state().push(task);
        self.changed.notify_one();
    }

    /// Asks for a look after a while, unless one is due earlier.
    pub(crate) fn push_after(&self, task: Task, pause: Duration) {
        let when = Instant::now() + pause;
        self.state().push_at(task, when);
        self.changed.notify_one();
    }

    /// The next task; it is this caller's until [`Self::done`].
    pub(crate) async fn next(&self) -> Task {
        loop {
            let earliest = {
                let mut state = self.state();
                state.wake(Instant::now());
                if let Some(task) = state.ready.shift_remove_index(0) {
                    state.running.insert(task.clone());
                    return task;
                }
                state.later.first_key_value().map(|((when, _), _)| *when)
            };
            match earliest {
                Some(when) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(when) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Gives a task back: well done, or to be tried again after a pause that grows with each failure.
    pub(crate) fn done(&self, task: Task, well: bool) {
        let mut state = self.state();
        state.running.remove(&task);
        let again = state.again.remove(&task);
        if well {
            state.failures.remove(&task);
            if again {
                state.push(task);
            }
        } else {
            let count = state.failures.entry(task.clone()).or_insert(0);
            let pause = RETRY_PAUSE_FIRST.saturating_mul(1 << (*count).min(9)).min(RETRY_PAUSE_MAX);
            *count = count.saturating_add(1);
            state.push_at(task, Instant::now() + pause);
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    fn push(&mut self, task: Task) {
        if self.running.contains(&task) {
            self.again.insert(task);
        } else {
            self.ready.insert(task);
        }
    }

    fn push_at(&mut self, task: Task, when: Instant) {
        if let Some(known) = self.due.get(&task).copied() {
            if known.0 <= when {
                return;
            }
            self.later.remove(&known);
        }
        self.number = self.number.wrapping_add(1);
        self.due.insert(task.clone(), (when, self.number));
        self.later.insert((when, self.number), task);
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let task = entry.remove();
            self.due.remove(&task);
            self.push(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> Task {
        Task::Namespace(name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_runs_once_at_a_time_and_again_if_asked_meanwhile() {
        let queue = Queue::new();
        queue.push(task("a"));
        queue.push(task("a"));
        let a = queue.next().await;
        queue.push(task("a"));
        queue.push(task("b"));
        assert_eq!(queue.next().await, task("b"));
        queue.done(a, true);
        assert_eq!(queue.next().await, task("a"));
        assert!(queue.state().ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::new();
        queue.push(task("a"));
        for pause in [10, 20, 40] {
            let a = queue.next().await;
            let before = Instant::now();
            queue.done(a, false);
            let again = queue.next().await;
            assert_eq!(before.elapsed().as_millis(), pause);
            queue.state().running.remove(&again);
            queue.state().push(again);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_time_counts() {
        let queue = Queue::new();
        queue.push_after(task("a"), Duration::from_secs(60));
        queue.push_after(task("a"), Duration::from_secs(5));
        queue.push_after(task("a"), Duration::from_secs(30));
        let before = Instant::now();
        queue.next().await;
        assert_eq!(before.elapsed().as_secs(), 5);
        assert!(queue.state().later.is_empty());
    }
}
