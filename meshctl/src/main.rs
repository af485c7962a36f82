//! The command line: one verb a file below `cmd`, dispatched here.
//!
//! `up` must begin before any thread exists (its keeper is forked from a single-threaded process), so the runtime is
//! started per verb. Under the name `istioctl` the same program speaks Istio's names.
//! Never here: decisions about the mesh; those are `api`'s. Run by people and scripts.

mod cluster;
mod cmd;
mod fail;
mod install;
mod render;
mod sandbox;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Ferromesh: install and look at a service mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, propagate_version = true, disable_version_flag = true)]
struct Cli {
    #[command(flatten)]
    target: cluster::Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a sandbox: a small Kubernetes on this machine, without root.
    Up(cmd::up::Args),
    /// Stop a sandbox and remove what it left.
    Down(cmd::down::Args),
    /// Print the environment that points kubectl and meshctl at a sandbox.
    Env(cmd::env::Args),
    /// Open a shell, or run a command, inside a sandbox's network.
    Shell(cmd::shell::Args),
    /// List the sandboxes of this machine.
    Ls(cmd::ls::Args),
    /// Install the mesh.
    Install(cmd::install::Args),
    /// Remove the mesh.
    Uninstall(cmd::uninstall::Args),
    /// Print what would be installed.
    #[command(subcommand)]
    Manifest(cmd::manifest::Verb),
    /// Print the objects of a file with a proxy in every Pod.
    #[command(name = "kube-inject")]
    KubeInject(cmd::kube_inject::Args),
    /// List objects of the mesh.
    Get(cmd::get::Args),
    /// Show which proxies have the configuration they should have.
    #[command(visible_aliases = ["proxy-status", "ps"])]
    Status(cmd::status::Args),
    /// Show a proxy's configuration.
    #[command(name = "proxy-config", visible_alias = "pc")]
    ProxyConfig(cmd::proxy_config::Args),
    /// Print the versions of this program, the control plane and the proxies.
    Version(cmd::version::Args),
}

fn main() -> ExitCode {
    let args: Vec<OsString> = cmd::shell::spell(std::env::args_os().collect());
    let called = args.first().map(Path::new).and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let istioctl = called.as_deref() == Some("istioctl");
    let command = Cli::command().name(if istioctl { "istioctl" } else { "meshctl" });
    let cli = match command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let shown = error.print();
            let usage = if error.use_stderr() { fail::USAGE } else { 0 };
            return ExitCode::from(if shown.is_ok() { usage } else { fail::FAILED });
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => fail::tell(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let target = cli.target;
    match cli.verb {
        Verb::Up(args) => cmd::up::run(&target, args),
        Verb::Down(args) => cmd::down::run(&target, &args),
        Verb::Env(args) => cmd::env::run(&target, &args),
        Verb::Shell(args) => cmd::shell::run(&target, args),
        Verb::Ls(args) => cmd::ls::run(&args),
        Verb::Install(args) => block_on(cmd::install::run(&target, args)),
        Verb::Uninstall(args) => block_on(cmd::uninstall::run(&target, args)),
        Verb::Manifest(verb) => cmd::manifest::run(verb),
        Verb::KubeInject(args) => block_on(cmd::kube_inject::run(&target, args)),
        Verb::Get(args) => block_on(cmd::get::run(&target, args)),
        Verb::Status(args) => block_on(cmd::status::run(&target, args)),
        Verb::ProxyConfig(args) => block_on(cmd::proxy_config::run(&target, args)),
        Verb::Version(args) => block_on(cmd::version::run(&target, args)),
    }
}

fn block_on(verb: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    api_rt::tls::install();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(verb)
}
