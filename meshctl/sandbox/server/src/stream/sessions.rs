//! Connections that a request took over (exec, attach, port-forward), and who owns their tasks.
//!
//! Each ends with the listener it came through. Never here: what is said on them (see `exec`, `forward`).
//! Made by `serve`, filled by the handlers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Request;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio::task::{JoinError, JoinSet};

/// The tasks of all connections that were taken over.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<JoinSet<()>>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let mut all = self.all();
        while let Some(ended) = all.try_join_next() {
            report(ended);
        }
        all.spawn(session);
    }

    /// Ends them, and waits until they have ended.
    pub(crate) async fn end(&self) {
        let mut all = std::mem::take(&mut *self.all());
        all.abort_all();
        while let Some(ended) = all.join_next().await {
            report(ended);
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session's task failed");
    }
}

/// The connection of a request that asks to take it over.
#[derive(Clone)]
pub(crate) struct Upgrade {
    connection: OnUpgrade,
    sessions: Sessions,
}

impl Upgrade {
    /// That of this request, for these sessions.
    pub(crate) fn of(request: &mut Request<Incoming>, sessions: &Sessions) -> Self {
        Self { connection: hyper::upgrade::on(request), sessions: sessions.clone() }
    }

    /// Takes the connection over once the 101 has been sent.
    pub(super) fn carry<S>(self, session: impl FnOnce(Upgraded) -> S + Send + 'static)
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let Self { connection, sessions } = self;
        sessions.spawn(async move {
            match connection.await {
                Ok(upgraded) => session(upgraded).await,
                Err(error) => tracing::debug!(%error, "an upgrade failed"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_still_runs_ends_with_its_owner() {
        let sessions = Sessions::default();
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        sessions.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        sessions.end().await;
        assert!(ended.await.is_err(), "dropped with its task");
    }
}
