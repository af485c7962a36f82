//! Benches: builds what is measured and the load clients, then hands over.
//!
//! `xds …` goes to the control plane's bench, anything else to the data plane's.
//! Never here: a measurement. Called as `cargo xtask bench [xds] [OPTIONS]`.

use anyhow::Result;

use crate::sh;

/// Builds and runs a bench with these arguments; what is measured is built as it is released.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (bench, measured, args) = match args {
        ["xds", rest @ ..] => ("bench-xds", "pilot", rest),
        all => ("bench-data", "proxy", all),
    };
    sh::cargo(["build", "--release", "-p", measured, "-p", "bench"]).run()?;
    let programs = sh::target().join("release");
    sh::program(programs.join(bench)).args(args).env("FERROMESH_BIN", &programs).run()
}
