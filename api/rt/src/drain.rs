//! Ending on request: SIGTERM and SIGINT become one cancelled token.
//!
//! Whoever serves holds a child of the token and stops taking new work when it is cancelled.
//! Never here: how long to wait for work under way. Called once, from `main`.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
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
