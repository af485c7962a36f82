//! The way of the process to its end: telling peers to go elsewhere, taking nothing new, waiting for what is under way.
//!
//! Readiness is shut as soon as peers should go elsewhere. The times are Istio's: `terminationDrainDuration`, or with
//! `EXIT_ON_ZERO_ACTIVE_CONNECTIONS` at least `MINIMUM_DRAIN_DURATION`; `drainDuration` bounds the last wait.
//! Never here: what a connection does when it is told (`listen`, `http::codec`). Called by `run` and the pages.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api_rt::ready::{Gate, Readiness};
use tokio::sync::watch;

use crate::{env::Drain, worker::Phase};

/// Pause between looks at whether the last connection has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Who keeps readiness shut.
#[derive(Debug, Default)]
struct Shut {
    draining: Option<Gate>,
    /// An operator said that the health check should fail.
    failed: Option<Gate>,
}

/// The steps towards the end; all handles of one process share it.
#[derive(Debug)]
pub(crate) struct Ending {
    phase: watch::Sender<Phase>,
    ready: Readiness,
    shut: Mutex<Shut>,
}

impl Ending {
    pub(crate) fn new(phase: watch::Sender<Phase>, ready: Readiness) -> Self {
        Self { phase, ready, shut: Mutex::default() }
    }

    fn shut(&self) -> MutexGuard<'_, Shut> {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, at_least: Phase) {
        self.phase.send_if_modified(|phase| {
            let before = *phase;
            *phase = before.max(at_least);
            before != *phase
        });
    }

    /// Still takes connections and requests, and tells peers to go elsewhere. There is no way back.
    pub(crate) fn drain(&self) {
        self.shut().draining.get_or_insert_with(|| self.ready.blocked_by("draining"));
        self.reach(Phase::Draining);
    }

    /// Takes nothing new; what is under way ends.
    pub(crate) fn close(&self) {
        self.drain();
        self.reach(Phase::Closing);
    }

    /// Tells peers to go elsewhere until [`Ending::pass`] is called.
    pub(crate) fn fail(&self) {
        self.shut().failed.get_or_insert_with(|| self.ready.blocked_by("told to fail the health check"));
        self.reach(Phase::Draining);
    }

    /// Takes [`Ending::fail`] back.
    pub(crate) fn pass(&self) {
        let mut shut = self.shut();
        if let Some(gate) = shut.failed.take() {
            gate.open();
        }
        if shut.draining.is_none() {
            self.phase.send_if_modified(|phase| {
                let back = *phase == Phase::Draining;
                if back {
                    *phase = Phase::Serving;
                }
                back
            });
        }
    }

    /// Ends gently: `connections` are those that are open, `done` says whether the workers have finished.
    pub(crate) async fn run(&self, times: Drain, connections: impl Fn() -> u64, done: impl Fn() -> bool) {
        tracing::info!("draining");
        self.drain();
        if times.on_zero_connections {
            tokio::time::sleep(times.minimum).await;
            if !within(times.connections, || connections() == 0).await {
                tracing::warn!(connections = connections(), "connections are left at the limit of draining");
            }
        } else {
            tokio::time::sleep(times.termination).await;
        }
        self.close();
        if !within(times.connections, done).await {
            tracing::warn!(connections = connections(), "ending with connections open");
        }
    }
}

/// Waits until it holds; false: it did not in time.
async fn within(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(limit, waiting).await.is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn ending() -> (Ending, watch::Receiver<Phase>, Readiness) {
        let ready = Readiness::new();
        let phase = watch::Sender::new(Phase::Serving);
        let seen = phase.subscribe();
        (Ending::new(phase, ready.clone()), seen, ready)
    }

    const TIMES: Drain = Drain {
        termination: Duration::from_secs(5),
        connections: Duration::from_secs(45),
        on_zero_connections: false,
        minimum: Duration::from_secs(7),
    };

    /// Seconds until the end, where the last connection ends after so many, and the phases with their seconds.
    async fn check(times: Drain, last_ends_after: u64, want: &[(u64, Phase)], ends_after: u64) {
        let (ending, mut seen, ready) = ending();
        let began = Instant::now();
        let open = move || u64::from(began.elapsed() < Duration::from_secs(last_ends_after));
        let watching = async {
            let mut phases = Vec::new();
            while phases.len() < want.len() && seen.changed().await.is_ok() {
                phases.push((began.elapsed().as_secs(), *seen.borrow_and_update()));
            }
            phases
        };
        let (phases, ()) = tokio::join!(watching, ending.run(times, open, || open() == 0));
        assert_eq!(phases, want);
        assert_eq!(began.elapsed().as_secs(), ends_after);
        assert_eq!(ready.waiting_for(), ["draining"]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_last_connection_does_or_at_the_limit() {
        check(TIMES, 0, &[(0, Phase::Draining), (5, Phase::Closing)], 5).await;
        check(TIMES, 9, &[(0, Phase::Draining), (5, Phase::Closing)], 9).await;
        check(TIMES, 900, &[(0, Phase::Draining), (5, Phase::Closing)], 50).await;
    }

    #[tokio::test(start_paused = true)]
    async fn with_exit_on_zero_connections_it_serves_until_the_last_has_gone() {
        let times = Drain { on_zero_connections: true, ..TIMES };
        check(times, 0, &[(0, Phase::Draining), (7, Phase::Closing)], 7).await;
        check(times, 30, &[(0, Phase::Draining), (30, Phase::Closing)], 30).await;
        check(times, 900, &[(0, Phase::Draining), (52, Phase::Closing)], 97).await;
    }

    #[test]
    fn a_failed_health_check_may_pass_again_but_draining_stays() {
        let (ending, seen, ready) = ending();
        ending.fail();
        assert_eq!((*seen.borrow(), ready.is_ready()), (Phase::Draining, false));
        ending.fail();
        ending.pass();
        assert_eq!((*seen.borrow(), ready.is_ready()), (Phase::Serving, true));
        ending.fail();
        ending.drain();
        ending.pass();
        assert_eq!((*seen.borrow(), ready.waiting_for()), (Phase::Draining, vec!["draining".to_owned()]));
        ending.close();
        ending.drain();
        assert_eq!(*seen.borrow(), Phase::Closing);
    }
}
