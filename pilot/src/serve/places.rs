//! Places for streams that are told much at once: taken oldest first, given back when one is done, or taken back in time.
//!
//! A stream is not asked for anything while its client takes nothing, so those who wait take back what is held too long.
//! Never here: who needs a place. Used by `stream`.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    limits::{PLACE_QUIET, STREAMS_MAX},
    session::Progress,
};

/// When a place is taken back, and its number.
type Held = (Instant, u64);

#[derive(Debug, Default)]
struct State {
    held: BTreeSet<Held>,
    /// Who waits, in the order they came.
    waiting: VecDeque<oneshot::Sender<Held>>,
    last: u64,
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    limit: Duration,
    state: Mutex<State>,
}

/// One place, held until it is dropped, or taken back.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Places>,
    held: Held,
    /// When it is given back if nothing happens any more.
    pub(super) quiet: Instant,
    /// True: something was told since it was taken.
    pub(super) used: bool,
}

impl Places {
    /// So many places, each held no longer than this.
    pub(super) fn new(most: usize, limit: Duration) -> Arc<Self> {
        Arc::new(Self { most, limit, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        let mut turn = self.stand_in_line();
        let held = loop {
            let next = self.pass_on(Instant::now());
            tokio::select! {
                biased;
                given = &mut turn => match given {
                    Ok(held) => break held,
                    Err(_) => turn = self.stand_in_line(),
                },
                () = tokio::time::sleep_until(next) => {}
            }
        };
        Place { of: Arc::clone(self), held, quiet: Instant::now() + PLACE_QUIET, used: false }
    }

    fn stand_in_line(&self) -> oneshot::Receiver<Held> {
        let (turn, given) = oneshot::channel();
        let mut state = self.state();
        if state.waiting.len() >= STREAMS_MAX {
            state.waiting.retain(|turn| !turn.is_closed());
        }
        state.waiting.push_back(turn);
        given
    }

    /// Takes back what is held too long and gives what is free to those who wait; when to do so again.
    fn pass_on(&self, now: Instant) -> Instant {
        let mut state = self.state();
        while state.held.first().is_some_and(|(until, _)| *until <= now) {
            state.held.pop_first();
        }
        while state.held.len() < self.most
            && let Some(turn) = state.waiting.pop_front()
        {
            state.last += 1;
            let held = (now + self.limit, state.last);
            if turn.send(held).is_ok() {
                state.held.insert(held); // else it does not wait any more
            }
        }
        state.held.first().map_or(now + self.limit, |(until, _)| *until)
    }
}

impl Place {
    /// When to look whether it is to be given back.
    pub(super) fn ends(&self, progress: Progress) -> Instant {
        let (until, _) = self.held;
        match progress {
            Progress::Busy => until,
            Progress::Waiting | Progress::Configured => until.min(self.quiet),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.state().held.remove(&self.held);
        self.of.pass_on(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, poll};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_when_it_is_dropped_and_goes_to_the_oldest() {
        let places = Places::new(1, LIMIT);
        let first = places.take().await;
        let (mut second, mut third) = (pin!(places.take()), pin!(places.take()));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(first);
        assert!(poll!(&mut third).is_pending());
        drop(second.as_mut().now_or_never().expect("it is the oldest"));
        assert!(poll!(&mut third).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_takes_back_what_is_held_too_long() {
        let places = Places::new(1, LIMIT);
        let first = places.take().await;
        let began = Instant::now();
        let second = places.take().await;
        assert_eq!(began.elapsed(), LIMIT);
        drop(first); // it is not the place of the second
        assert!(places.take().now_or_never().is_none());
        drop(second);
        assert!(places.take().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_any_more_is_passed_over() {
        let places = Places::new(1, LIMIT);
        let first = places.take().await;
        assert!(places.take().now_or_never().is_none());
        let mut third = pin!(places.take());
        assert!(poll!(&mut third).is_pending());
        drop(first);
        assert!(poll!(&mut third).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_given_a_place_and_does_not_come_for_it_loses_it() {
        let places = Places::new(1, LIMIT);
        let first = places.take().await;
        let mut second = pin!(places.take());
        assert!(poll!(&mut second).is_pending());
        drop(first);
        let began = Instant::now();
        drop(places.take().await);
        assert_eq!(began.elapsed(), LIMIT);
    }
}
