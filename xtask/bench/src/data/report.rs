//! Medians and spread of the passes: as a table, as JSON, and against an older JSON.
//!
//! Never here: a verdict; whoever reads compares with `design.md`. Called by `data`.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::measure::Figures;

/// Figures: name, heading, digits after the point.
pub(super) const COLUMNS: [(&str, &str, usize); 10] = [
    ("per_s", "per s", 0),
    ("gib_s", "GiB/s", 2),
    ("p50_us", "p50 µs", 0),
    ("p99_us", "p99 µs", 0),
    ("cpu_us", "CPU µs/hop", 2),
    ("cpu_us_a", "first", 2),
    ("cpu_us_b", "second", 2),
    ("cpu_s_gib", "CPU s/GiB", 3),
    ("kib_each", "KiB each", 2),
    ("rss_mib", "RSS MiB", 1),
];

/// One figure over all passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    median: f64,
    /// Distance of the extremes, in percent of the median.
    spread: f64,
    passes: Vec<f64>,
}

impl Figure {
    fn of(passes: Vec<f64>) -> Self {
        let mut sorted = passes.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.as_slice() {
            [] => 0.0,
            all if all.len() % 2 == 1 => all[middle],
            all => f64::midpoint(all[middle - 1], all[middle]),
        };
        let width = sorted.last().zip(sorted.first()).map_or(0.0, |(most, least)| most - least);
        let spread = if median == 0.0 { 0.0 } else { 100.0 * width / median };
        Self { median, spread, passes }
    }
}

/// One contender in one shape.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    shape: String,
    contender: String,
    /// Why there is nothing to compare.
    broken: Option<String>,
    figures: BTreeMap<String, Figure>,
}

impl Row {
    /// Gathers the passes of one contender.
    pub(super) fn of(shape: &str, contender: String, passes: &[Figures], broken: Option<String>) -> Self {
        let names = COLUMNS.iter().map(|(name, ..)| *name);
        let figures = names
            .filter_map(|name| {
                let values: Vec<f64> = passes.iter().filter_map(|figures| figures.get(name).copied()).collect();
                (!values.is_empty() && broken.is_none()).then(|| (name.to_owned(), Figure::of(values)))
            })
            .collect();
        Self { shape: shape.to_owned(), contender, broken, figures }
    }
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Cores of the machine.
    pub(super) cores: usize,
    /// Length of a measurement.
    pub(super) seconds: u64,
    /// Measurements of each.
    pub(super) passes: usize,
    /// What was measured.
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// Reads an older one.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Writes it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// The table of one shape, each figure with its spread, and its change since an older run.
    pub(super) fn table(&self, shape: &str, older: Option<&Self>) -> String {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.shape == shape).collect();
        let columns: Vec<_> =
            COLUMNS.iter().filter(|(name, ..)| rows.iter().any(|row| row.figures.contains_key(*name))).collect();
        let mut text = String::from("|  |");
        for (_, heading, _) in &columns {
            let _written = write!(text, " {heading} |");
        }
        text += "\n|---|";
        text += &"---|".repeat(columns.len());
        text += "\n";
        for row in rows {
            let _written = write!(text, "| {} |", row.contender);
            if let Some(reason) = &row.broken {
                let _written = writeln!(text, " broken: {} |", reason.lines().next().unwrap_or_default());
                continue;
            }
            let old = older.and_then(|older| {
                older.rows.iter().find(|old| old.shape == row.shape && old.contender == row.contender)
            });
            for (name, _, digits) in &columns {
                text += &cell(row.figures.get(*name), old.and_then(|old| old.figures.get(*name)), *digits);
            }
            text += "\n";
        }
        text
    }
}

fn cell(figure: Option<&Figure>, old: Option<&Figure>, digits: usize) -> String {
    let Some(figure) = figure else { return " |".to_owned() };
    let change = match old {
        Some(old) if old.median != 0.0 => format!(", {:+.1} %", 100.0 * (figure.median / old.median - 1.0)),
        Some(_) | None => String::new(),
    };
    format!(" {:.digits$} (±{:.0} %{change}) |", figure.median, figure.spread / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Row {
        let passes: Vec<Figures> = values.iter().map(|value| Figures::from([("cpu_us", *value)])).collect();
        Row::of("s", "c".to_owned(), &passes, None)
    }

    fn report(values: &[f64]) -> Report {
        Report { rows: vec![row(values)], ..Report::default() }
    }

    #[test]
    fn the_median_stands_with_half_the_spread() {
        let table = report(&[10.0, 30.0, 20.0]).table("s", None);
        assert_eq!(table, "|  | CPU µs/hop |\n|---|---|\n| c | 20.00 (±50 %) |\n");
    }

    #[test]
    fn a_change_is_shown_against_the_older_median() {
        let table = report(&[15.0]).table("s", Some(&report(&[10.0])));
        assert!(table.contains("15.00 (±0 %, +50.0 %)"), "{table}");
    }

    #[test]
    fn what_is_broken_has_no_figures() {
        let passes = [Figures::from([("cpu_us", 1.0)])];
        let row = Row::of("s", "c".to_owned(), &passes, Some("3 of 9 failed".to_owned()));
        let report = Report { rows: vec![row], ..Report::default() };
        assert!(report.table("s", None).contains("| c | broken: 3 of 9 failed |"));
    }
}
