//! Ending on request: SIGTERM and SIGINT become one cancelled token.
//!
//! Whoever serves holds a child of the token and stops taking new work when it is cancelled.
//! Never here: which work is worth waiting for. Called by `main`, and by servers when they end.

use std::{io, pin::pin, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinError, JoinSet},
};
pub use tokio_util::sync::CancellationToken;

/// A token that SIGTERM or SIGINT cancels. Must be called within a tokio runtime.
///
/// # Errors
/// The system refuses signal handlers.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    // Lives as long as the runtime: it has nothing to clean up, and nobody could wait for it.
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "ending");
        token.cancel();
    });
    Ok(stop)
}

/// Waits for tasks that were told to end; those that take longer than this are cut.
pub async fn finish(mut tasks: JoinSet<()>, limit: Duration) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::info!(left = tasks.len(), ?limit, "what did not end in time is cut");
        tasks.shutdown().await;
    }
}

/// A part of a program is gone although nothing told it to end.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It ended.
    #[error("a part of the program ended before its time")]
    Early,
    /// It died.
    #[error("a part of the program died")]
    Died(#[source] JoinError),
}

/// Serves, beside the other parts of a program; ends these when serving ends, and waits for them.
///
/// # Errors
/// A part was lost; everything else was told to end then.
pub async fn beside<T>(
    serving: impl Future<Output = T>,
    mut parts: JoinSet<()>,
    stop: &CancellationToken,
) -> Result<T, Lost> {
    let mut lost = None;
    let mut serving = pin!(serving);
    let served = loop {
        tokio::select! {
            served = &mut serving => break served,
            Some(ended) = parts.join_next() => {
                if !stop.is_cancelled() {
                    lost = Some(ended.map_or_else(Lost::Died, |()| Lost::Early));
                    stop.cancel();
                }
            }
        }
    };
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        lost = lost.or(ended.err().map(Lost::Died));
    }
    lost.map_or(Ok(served), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_part_ends_the_program_and_is_told() {
        let stop = CancellationToken::new();
        let serve = || stop.clone().cancelled_owned();
        let mut parts = JoinSet::new();
        parts.spawn(std::future::ready(()));
        parts.spawn(serve());
        assert!(matches!(beside(serve(), parts, &stop).await, Err(Lost::Early)));
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn parts_end_when_serving_ends() {
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        parts.spawn(stop.clone().cancelled_owned());
        assert_eq!(beside(std::future::ready(7), parts, &stop).await.ok(), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        finish(tasks, Duration::from_secs(5)).await;
    }
}
