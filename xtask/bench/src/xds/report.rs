//! What a run measured, as text for people and as JSON.
//!
//! Never here: measuring. Used by `run`.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

/// The mesh is loaded and nobody is connected.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) ready_s: f64,
    pub(crate) rss_mb: f64,
}

/// All streams come at once.
#[derive(Debug, Serialize)]
pub(crate) struct Herd {
    /// First, middle and last stream.
    pub(crate) configured_s: [f64; 3],
    pub(crate) cpu_ms_each: f64,
    pub(crate) mb_each: f64,
    pub(crate) rss_mb: f64,
    pub(crate) peak_mb: f64,
    pub(crate) cut: usize,
    /// Connections that came to nothing.
    pub(crate) refused: usize,
}

/// One change, with all connected.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    /// Streams that are to be told.
    pub(crate) concerned: usize,
    pub(crate) first_s: f64,
    pub(crate) median_s: f64,
    pub(crate) last_s: f64,
    pub(crate) cpu_ms: f64,
    /// Over all streams.
    pub(crate) cpu_ms_each: f64,
    /// Over those concerned.
    pub(crate) kb_each: f64,
}

/// Pilot was killed and started again.
#[derive(Debug, Serialize)]
pub(crate) struct Restart {
    pub(crate) median_s: f64,
    pub(crate) last_s: f64,
    pub(crate) kb_each: f64,
    pub(crate) cpu_ms_each: f64,
    pub(crate) peak_mb: f64,
    pub(crate) cut: usize,
    /// Connections that came to nothing.
    pub(crate) refused: usize,
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) streams: usize,
    /// How streams ask.
    #[serde(rename = "as")]
    pub(crate) manner: &'static str,
    pub(crate) load: Load,
    pub(crate) herd: Herd,
    /// Over herd and changes.
    pub(crate) peak_mb: f64,
    pub(crate) endpoint: Spread,
    pub(crate) route: Spread,
    pub(crate) policy: Spread,
    pub(crate) restart: Restart,
}

/// A count for arithmetic.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// First, middle and last of some times, in seconds.
pub(crate) fn spread(times: &[Duration]) -> [f64; 3] {
    let mut times = times.to_vec();
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    [0, last / 2, last].map(|at| times.get(at).map_or(0.0, Duration::as_secs_f64))
}

/// Shows a run.
#[expect(clippy::print_stdout, reason = "a bench prints what it measured")]
pub(crate) fn show(outcome: &Outcome) {
    print!("{}", text(outcome));
}

/// A run as a table.
fn text(outcome: &Outcome) -> String {
    let Outcome { streams, manner, load, herd, peak_mb, endpoint, route, policy, restart } = outcome;
    let mut out = format!("{streams} streams as {manner}\n");
    let mut row = |name: &str, values: String| {
        // writing into a string cannot fail
        if writeln!(out, "  {name:<22}{values}").is_err() {}
    };
    row("loaded", format!("{:.2} s, {:.0} MB", load.ready_s, load.rss_mb));
    row(
        "all at once",
        format!(
            "first {:.2} s, middle {:.2} s, last {:.2} s; {:.2} ms CPU and {:.2} MB each; {:.0} MB now, {:.0} MB at most; {} cut, {} refused",
            herd.configured_s[0],
            herd.configured_s[1],
            herd.configured_s[2],
            herd.cpu_ms_each,
            herd.mb_each,
            herd.rss_mb,
            herd.peak_mb,
            herd.cut,
            herd.refused
        ),
    );
    for (name, change) in [("endpoint change", endpoint), ("route change", route), ("policy change", policy)] {
        row(
            name,
            format!(
                "first {:.3} s, middle {:.3} s, last {:.3} s of {}; {:.3} ms CPU each, {:.0} ms in all; {:.1} kB each",
                change.first_s,
                change.median_s,
                change.last_s,
                change.concerned,
                change.cpu_ms_each,
                change.cpu_ms,
                change.kb_each
            ),
        );
    }
    row("at most", format!("{peak_mb:.0} MB"));
    row(
        "restart",
        format!(
            "middle {:.2} s, last {:.2} s; {:.2} ms CPU and {:.1} kB each; {:.0} MB at most; {} cut, {} refused",
            restart.median_s,
            restart.last_s,
            restart.cpu_ms_each,
            restart.kb_each,
            restart.peak_mb,
            restart.cut,
            restart.refused
        ),
    );
    out
}
