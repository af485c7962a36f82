//! All tests: unit and doc tests first, then the whole mesh with optimised programs.
//!
//! A test whose judge (kubectl, Envoy, …) or data is absent prints *not run* with the reason; the last lines count them.
//! Never here: a test. Called as `cargo xtask test [FILTER]` and by `ci`.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// Programs that the whole-mesh tests run.
pub(crate) const PROGRAMS: [&str; 6] = ["meshctl", "proxy", "pilot", "citadel", "injector", "examples"];

/// Builds the programs as the demo and the whole-mesh tests run them.
pub(crate) fn build_programs() -> Result<()> {
    sh::cargo(["build", "--profile", "demo"]).args(PROGRAMS.iter().flat_map(|package| ["-p", package])).run()
}

/// Runs all tests, or the whole-mesh tests that a filter names.
#[expect(clippy::disallowed_methods, reason = "CI says by its environment that every judge must be there")]
pub(crate) fn run(filter: &[&str]) -> Result<()> {
    if filter.is_empty() {
        sh::cargo(["test", "--workspace", "--exclude", "e2e"]).run()?;
    }
    build_programs()?;
    let target = sh::target();
    let missing = target.join("not-run.txt");
    fs::write(&missing, "").with_context(|| format!("could not write {}", missing.display()))?;
    // One run tells of every suite that fails.
    let tested = sh::cargo(["test", "-p", "e2e", "--no-fail-fast"])
        .args(filter)
        .args(["--", "--test-threads=1"])
        .env("FERROMESH_BIN", target.join("demo"))
        .env("FERROMESH_NOT_RUN", &missing)
        .run();
    let not_run = fs::read_to_string(&missing).context("the list of tests not run is gone")?;
    for line in not_run.lines() {
        eprintln!("not run: {line}");
    }
    eprintln!("{} tests not run", not_run.lines().count());
    tested?;
    if std::env::var("FERROMESH_ALL_JUDGES").is_ok() && !not_run.is_empty() {
        bail!("tests were not run although every judge should be installed here");
    }
    Ok(())
}
