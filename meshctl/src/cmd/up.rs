//! `meshctl up`: written with the sandbox's node.
//!
//! Never here yet: the sandbox. Called by `main`.

use std::process::ExitCode;

use crate::cluster::Target;

/// Flags of `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs.
pub(crate) fn run(_target: &Target, _args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the sandbox is not part of this build")
}

/// The kubeconfig of a sandbox of this machine.
pub(crate) fn kubeconfig_of(name: &str) -> anyhow::Result<std::path::PathBuf> {
    anyhow::bail!("there is no sandbox {name}")
}
