//! Waits that have a limit: for a peer to say something, and for it to take something.
//!
//! A limit is moved on with every sign of life, and that must cost nothing: timers are moved only when they go off too early.
//! Never here: the limits (`limits`). Held by `wire`; used by `waiting` and `answer`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A wait that is put off again and again.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Ready when `deadline` has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// Whether a peer takes what is written to it.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Bytes that had left when the peer took no more, and since when it has not.
    blocked: Option<(u64, Instant)>,
    patience: Patience,
}

impl Stall {
    /// A write came to this. The clock is read only where the peer begins to keep us waiting.
    pub(super) fn saw(&mut self, waits: bool, sent: u64) {
        self.blocked = match self.blocked {
            _ if !waits => None,
            Some((before, since)) if before == sent => Some((before, since)),
            Some(_) | None => Some((sent, Instant::now())),
        };
    }

    /// Ready when the peer has kept us waiting for as long as `limit`.
    pub(super) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        match self.blocked {
            Some((_, since)) => self.patience.poll(cx, since + limit),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const STEP: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_put_off_ends_at_its_latest_deadline() {
        let mut patience = Patience::default();
        let began = Instant::now();
        let early = poll_fn(|cx| Poll::Ready(patience.poll(cx, began + STEP))).await;
        assert!(early.is_pending());
        poll_fn(|cx| patience.poll(cx, began + STEP * 3)).await;
        assert_eq!(began.elapsed(), STEP * 3);
        poll_fn(|cx| patience.poll(cx, began + STEP)).await;
        assert_eq!(began.elapsed(), STEP * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_has_its_time_again() {
        let mut stall = Stall::default();
        let began = Instant::now();
        stall.saw(true, 5);
        tokio::time::advance(STEP).await;
        stall.saw(true, 5);
        tokio::time::advance(STEP).await;
        stall.saw(true, 6);
        poll_fn(|cx| stall.poll(STEP * 3, cx)).await;
        assert_eq!(began.elapsed(), STEP * 5);
        stall.saw(false, 7);
        assert!(poll_fn(|cx| Poll::Ready(stall.poll(STEP, cx))).await.is_pending());
    }
}
