//! Load clients: wrk where it can, our own where it cannot.
//!
//! Each counts what was answered rightly and what was not; a shape with failures is reported as broken.
//! Never here: proxies. Called by `data`.

mod handshakes;
mod http2;
mod plain;
mod wrk;

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;

pub(super) use plain::{Plain, idle};

use super::shape::{Layout, Load, Side};

/// What a load came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    /// Requests, connections or bytes.
    pub(super) count: u64,
    /// Time that it took.
    pub(super) took: Duration,
    /// Latency in µs at the 50th and 99th percentile, where it is known.
    pub(super) latency: Option<(f64, f64)>,
    /// Requests without a right answer.
    pub(super) failed: u64,
}

impl Done {
    fn of(mut latencies: Vec<u32>, took: Duration, failed: u64) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get((latencies.len() * percent / 100).min(latencies.len().max(1) - 1));
        let latency = at(50).zip(at(99)).map(|(half, most)| (f64::from(*half), f64::from(*most)));
        Self { count: latencies.len() as u64, took, latency, failed }
    }
}

/// Where the load goes, and with which certificates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'t> {
    /// The proxy's address.
    pub(super) address: SocketAddr,
    /// The calling side's certificates.
    pub(super) certificates: &'t Path,
    /// Core of the client.
    pub(super) core: usize,
}

/// Asks once, to see whether the way is open.
pub(super) fn probe(target: Target<'_>, layout: Layout, grpc: bool) -> Result<()> {
    match layout {
        Layout::One | Layout::Two(Side::Http1, _) => Plain::connect(target.address)?.get(64),
        Layout::Two(..) => http2::probe(target.address, grpc),
        Layout::Serving => handshakes::probe(target),
        Layout::Bytes => plain::first_byte(target.address),
    }
}

/// Runs a load for a time. Idle connections are no load: `idle` holds them.
pub(super) fn run(target: Target<'_>, load: Load, length: Duration) -> Result<Done> {
    match load {
        Load::Wrk { connections, bytes } => wrk::run(target, connections, bytes, length),
        Load::Paced { rate, connections } => plain::paced(target.address, rate, connections, length),
        Load::Http2 { connections, streams, grpc } => http2::run(target.address, connections, streams, grpc, length),
        Load::Bytes { connections } => plain::bytes(target.address, connections, length),
        Load::Handshakes { at_once } => handshakes::run(target, at_once, length),
        Load::Idle { .. } => Ok(Done::default()),
    }
}
