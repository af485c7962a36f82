//! `meshctl env`: what to evaluate so that kubectl talks to a sandbox.
//!
//! Never here: changing the environment; a child cannot. Called by `main`.

use std::process::ExitCode;

use crate::cluster::Target;
use crate::render;
use crate::sandbox::place::Base;

/// Flags of `env`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    base: Base,
}

/// Runs.
pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let place = args.base.place(target.name.as_deref())?;
    place.running()?;
    render::print(&format!("export KUBECONFIG={}\n", quoted(&place.kubeconfig().display().to_string())))?;
    Ok(ExitCode::SUCCESS)
}

/// As a shell reads it back; plain where nothing needs quoting.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strange_paths_are_quoted() {
        assert_eq!(quoted("/home/me/kubeconfig"), "/home/me/kubeconfig");
        assert_eq!(quoted("/a b's"), "'/a b'\\''s'");
    }
}
