//! `meshctl ls`: written with the sandbox's node.
//!
//! Never here yet: the sandbox. Called by `main`.

use std::process::ExitCode;

/// Flags of `ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs.
pub(crate) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the sandbox is not part of this build")
}
