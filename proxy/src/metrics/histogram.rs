//! A histogram with fixed buckets, counted without locks.
//!
//! Never here: names and labels. Held by a series of `metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets, Envoy's.
pub(crate) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Counts of values by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one holds what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Sum in thousandths.
    thousandths: AtomicU64,
}

impl Histogram {
    /// Counts a value given in thousandths (milliseconds as microseconds).
    pub(crate) fn count_thousandths(&self, value: u64) {
        // Exact below 2^53 thousandths, which is 285 years of microseconds.
        #[expect(clippy::cast_precision_loss, reason = "compared with a bound, not kept")]
        let shown = value as f64 / 1000.0;
        let at = BOUNDS.partition_point(|bound| *bound < shown);
        self.buckets[at].fetch_add(1, Relaxed);
        self.thousandths.fetch_add(value, Relaxed);
    }

    /// Counts a whole value.
    pub(crate) fn count(&self, value: u64) {
        self.count_thousandths(value.saturating_mul(1000));
    }

    /// Prints it in Prometheus' text format; `labels` without braces.
    pub(crate) fn print(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS.iter().map(Some).chain([None])) {
            total += bucket.load(Relaxed);
            out.push_str(&match bound {
                Some(bound) => format!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}\n"),
                None => format!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}\n"),
            });
        }
        let sum = self.thousandths.load(Relaxed);
        let (whole, part) = (sum / 1000, sum % 1000);
        out.push_str(&if part == 0 {
            format!("{name}_sum{{{labels}}} {whole}\n")
        } else {
            format!("{name}_sum{{{labels}}} {whole}.{part:03}\n")
        });
        out.push_str(&format!("{name}_count{{{labels}}} {total}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_holds_them() {
        let histogram = Histogram::default();
        for thousandths in [500, 501, 1_000, 4_000_000_000] {
            histogram.count_thousandths(thousandths);
        }
        histogram.count(7);
        let mut out = String::new();
        histogram.print(&mut out, "m", "a=\"b\"");
        assert!(out.contains("m_bucket{a=\"b\",le=\"0.5\"} 1\n"), "{out}");
        assert!(out.contains("m_bucket{a=\"b\",le=\"1\"} 3\n"), "{out}");
        assert!(out.contains("m_bucket{a=\"b\",le=\"10\"} 4\n"), "{out}");
        assert!(out.contains("m_bucket{a=\"b\",le=\"+Inf\"} 5\n"), "{out}");
        assert!(out.contains("m_sum{a=\"b\"} 4000009.001\n"), "{out}");
    }
}
