//! Benches: builds what is measured and the load clients, then hands over.
//!
//! `xds …` goes to the control plane's bench, anything else to the data plane's.
//! Never here: a measurement. Called as `cargo xtask bench [xds] [OPTIONS]`.

use anyhow::Result;

use crate::sh;

/// Builds and runs a bench with these arguments.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (bench, args) = match args {
        ["xds", rest @ ..] => ("bench-xds", rest),
        all => ("bench-data", all),
    };
    sh::cargo(["build", "--profile", "demo", "-p", "pilot", "-p", "proxy", "-p", "bench"]).run()?;
    let programs = sh::target().join("demo");
    sh::program(programs.join(bench)).args(args).env("FERROMESH_BIN", &programs).run()
}
