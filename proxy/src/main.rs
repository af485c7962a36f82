//! The data plane: sidecar and gateway, traffic capture, and identity for a real Envoy.
//!
//! One program, one subcommand a job; the arguments are those of Istio's agent, so that its pod specs work as they are.
//! Never here: anything but choosing the job. The start of everything.

mod access;
mod admin;
mod agent;
mod capture;
mod control;
mod ending;
mod env;
mod http;
mod identity;
mod io;
mod limits;
mod listen;
mod metrics;
mod overload;
mod peers;
mod pod;
mod proxy_header;
mod request;
mod run;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod upstream;
mod worker;
mod xds;

use std::{collections::BTreeMap, error::Error, process::ExitCode};

use api::spec::ProxyKind;
use env::{Config, ConfigError, flags::ProxyFlags};

const HELP: &str = "\
the data plane of the mesh

usage: proxy <command> [flags]

  sidecar    serve beside one workload (also: proxy sidecar, pilot-agent's own words)
  router     serve as a gateway
  iptables   make the pod's traffic pass through the proxy; flags of istio-iptables
  agent      give a real Envoy its identity and bootstrap
  wait       wait until the proxy is ready
  request    send a request to the proxy's admin pages: proxy request GET /stats
  version    print the version

The environment is described in the documentation of `proxy/src/env.rs`.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `pilot-agent proxy sidecar …`: the word that Istio's agent is called with.
    let args = match args.split_first() {
        Some((first, rest)) if first == "proxy" => rest,
        Some(_) | None => &args,
    };
    let Some((command, rest)) = args.split_first() else { return say(HELP, ExitCode::FAILURE) };
    let done = match command.as_str() {
        "sidecar" => serve(ProxyKind::Sidecar, rest),
        "router" => serve(ProxyKind::Gateway, rest),
        "agent" => agent(rest),
        "iptables" | "istio-iptables" => iptables(rest),
        "wait" => request::wait(rest).map_err(Into::into),
        "request" => request::send(rest, print).map_err(Into::into),
        "version" | "--version" => return say(concat!("proxy ", env!("CARGO_PKG_VERSION"), "\n"), ExitCode::SUCCESS),
        "help" | "--help" | "-h" => return say(HELP, ExitCode::SUCCESS),
        other => Err(anyhow::anyhow!("{other:?} is no command; there are: sidecar router iptables agent wait request")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause: Option<&dyn Error> = error.source();
            while let Some(next) = cause {
                let says = next.to_string();
                if !text.contains(&says) {
                    text = format!("{text}: {says}");
                }
                cause = next.source();
            }
            #[expect(clippy::print_stderr, reason = "the log may not be there yet")]
            {
                eprintln!("proxy: {text}");
            }
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the rim of the program")]
fn print(text: &str) {
    print!("{text}");
}

fn say(text: &str, code: ExitCode) -> ExitCode {
    print(text);
    code
}

/// The whole environment, read once.
fn config(kind: ProxyKind, args: &[String]) -> Result<(ProxyFlags, Config), ConfigError> {
    let all: BTreeMap<String, String> = std::env::vars().collect();
    let mut flags = ProxyFlags::parse(kind, args);
    flags.machine_address = run::machine_address();
    let file = |path: &str| std::fs::read_to_string(path).ok();
    let config = Config::read(&flags, |name| all.get(name).cloned(), &all, file)?;
    Ok((flags, config))
}

fn serve(kind: ProxyKind, args: &[String]) -> anyhow::Result<()> {
    let (flags, config) = config(kind, args)?;
    run::run(config, &flags)
}

fn agent(args: &[String]) -> anyhow::Result<()> {
    let options = agent::Options::parse(args)?;
    let (_, config) = config(options.kind, &options.rest)?;
    agent::run(options, config)
}

fn iptables(args: &[String]) -> anyhow::Result<()> {
    let uid_map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let request = capture::parse(args, capture::ids_usable(&uid_map))?;
    Ok(capture::run(&request, print)?)
}
