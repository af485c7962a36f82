//! Metrics of the control programs, in Prometheus' text format.
//!
//! Sets up the recorder behind the `metrics` macros, with bounded buckets, and prints it.
//! Never here: the proxy's metrics (it has a recorder of its own). Printed by `admin` at `/metrics`.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds, in seconds, of what the control programs measure.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// How often samples are folded into their buckets, so that they never pile up.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Sets up the recorder of this process; once.
///
/// # Errors
/// Another recorder is set up already.
pub fn install() -> Result<Metrics, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS)?;
    builder.install_recorder().map(Metrics)
}

impl Metrics {
    /// All metrics as text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the recorder small until the program ends.
    pub async fn upkeep(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
            self.0.run_upkeep();
        }
    }
}
