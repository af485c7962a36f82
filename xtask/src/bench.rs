//! Benches: builds what is measured and the load clients, then hands over.
//!
//! `xds …` goes to the control plane's bench, anything else to the data plane's.
//! Never here: a measurement. Called as `cargo xtask bench [xds] [OPTIONS]`.

use anyhow::Result;

use crate::sh;

/// Builds and runs a bench with these arguments. The data plane is measured as it is released: its bar is in µs.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (bench, measured, profile, args) = match args {
        ["xds", rest @ ..] => ("bench-xds", "pilot", "demo", rest),
        all => ("bench-data", "proxy", "release", all),
    };
    sh::cargo(["build", "--profile", profile, "-p", measured, "-p", "bench"]).run()?;
    let programs = sh::target().join(profile);
    sh::program(programs.join(bench)).args(args).env("FERROMESH_BIN", &programs).run()
}
