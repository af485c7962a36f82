//! What must be green before a change lands: format, lints, dependencies, generated files, tidy, and then all tests.
//!
//! Never here: installing anything; `.ci/run` does that. Called as `cargo xtask ci`.

use anyhow::{Result, bail};

use crate::{generate, sh, test, tidy};

/// Runs all of it; the first failure ends it.
pub(crate) fn run() -> Result<()> {
    sh::cargo(["fmt", "--all", "--check"]).run()?;
    tidy::run()?;
    sh::cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()?;
    if !sh::found("cargo-deny") {
        bail!("cargo-deny is missing; install it with: cargo install --locked cargo-deny");
    }
    sh::cargo(["deny", "--all-features", "check", "bans", "licenses", "sources"]).run()?;
    generate::run(generate::Mode::Check)?;
    test::run(&[])
}
