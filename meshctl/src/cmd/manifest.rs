//! `meshctl manifest generate|chart`: prints what would be installed.
//!
//! Never here: a cluster. `cargo xtask gen` writes `deploy/manifests` and `deploy/charts` with it.

use std::process::ExitCode;

use crate::{fail, install, render};

/// What to print.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print the objects of a profile as YAML.
    Generate {
        /// NAME=VALUE; `profile=demo` chooses a profile.
        #[arg(short = 's', long = "set")]
        set: Vec<install::Setting>,
        /// Namespace of the mesh.
        #[arg(long = "mesh-namespace", default_value = "istio-system")]
        mesh_namespace: String,
        /// Leave the CRDs out.
        #[arg(long)]
        without_crds: bool,
    },
    /// Print the files of the Helm chart, each behind a line with its name.
    #[command(hide = true)]
    Chart,
    /// List the profiles.
    Profiles,
}

/// Prints it.
pub(crate) fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Generate { set, mesh_namespace, without_crds } => {
            let crds = if without_crds { install::Crds::Without } else { install::Crds::With };
            let profile = install::Profile::from_settings(&mesh_namespace, &set)
                .map_err(|error| fail::coded(fail::USAGE, error.to_string()))?;
            render::print(&install::manifest(&profile, crds))?;
        }
        Verb::Chart => {
            for (name, text) in install::chart() {
                render::print(&format!("#### file: {name}\n{text}"))?;
            }
        }
        Verb::Profiles => render::print(&(install::Profile::NAMES.join("\n") + "\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}
