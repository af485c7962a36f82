//! Faults that a route injects: a wait, an answer instead of the upstream's.
//!
//! Never here: which requests a share means (`Percent::hits`). Called by `http::handle`.

use api::{spec::AbortWith, table::Rule};

use super::failure::Failure;
use crate::{access::Record, metrics::Flags, worker::Worker};

/// Waits or fails, where the route says so and the roll hits.
pub(super) async fn inject(rule: &Rule, worker: &Worker, record: &mut Record) -> Result<(), Failure> {
    let Some(fault) = &rule.spec().fault else { return Ok(()) };
    if let Some((delay, share)) = fault.delay
        && share.hits(worker.roll())
    {
        record.flag(Flags::DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    if let Some((with, share)) = fault.abort
        && share.hits(worker.roll())
    {
        return Err(match with {
            AbortWith::Http(status) => Failure::Aborted(status),
            AbortWith::Grpc(status) => Failure::AbortedGrpc(status),
        });
    }
    Ok(())
}
