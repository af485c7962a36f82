//! `proxy agent`: gives a real Envoy what Istio's agent gives it.
//!
//! Keeps the identity, answers Envoy's secret requests (`default`, `ROOTCA`) on a Unix socket, writes the bootstrap that
//! points Envoy at pilot over mTLS with that identity, and runs Envoy where asked.
//! Never here: serving traffic. Called by `main`.

pub(crate) mod bootstrap;
pub(crate) mod sds;

use std::{path::PathBuf, process::ExitStatus};

use anyhow::Context;
use api::spec::ProxyKind;
use api_rt::{drain::on_signal, log, ready::Readiness};
use tokio::{net::UnixListener, process::Command};
use tokio_util::sync::CancellationToken;

use crate::{
    env::{Config, Source},
    identity,
    run::node,
};

/// What `proxy agent` was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) kind: ProxyKind,
    /// Folder for the socket and the bootstrap.
    folder: PathBuf,
    /// Envoy's program and arguments; none: the bootstrap is written and Envoy is someone else's.
    envoy: Option<Vec<String>>,
    /// Prints the bootstrap to standard output and ends.
    print_only: bool,
    /// What is read like the flags of a proxy.
    pub(crate) rest: Vec<String>,
}

impl Options {
    /// Reads `[sidecar|router] [--folder DIR] [--print] [flags…] [-- envoy …]`.
    ///
    /// # Errors
    /// A flag without its value.
    pub(crate) fn parse(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            kind: ProxyKind::Sidecar,
            folder: PathBuf::from("/etc/istio/proxy"),
            envoy: None,
            print_only: false,
            rest: Vec::new(),
        };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "sidecar" => options.kind = ProxyKind::Sidecar,
                "router" => options.kind = ProxyKind::Gateway,
                "--folder" => options.folder = rest.next().context("--folder: expected a value")?.into(),
                "--print" => options.print_only = true,
                "--" => {
                    let command: Vec<String> = rest.by_ref().cloned().collect();
                    anyhow::ensure!(!command.is_empty(), "--: expected Envoy's program");
                    options.envoy = Some(command);
                }
                _ => options.rest.push(arg.clone()),
            }
        }
        Ok(options)
    }
}

/// Runs until Envoy ends or we are told to.
pub(crate) fn run(options: Options, config: Config) -> anyhow::Result<()> {
    api_rt::tls::install();
    log::init(&config.log_level, if config.log_json { log::Format::Json } else { log::Format::Text })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(serve(options, config))
}

async fn serve(options: Options, config: Config) -> anyhow::Result<()> {
    let socket = options.folder.join("SDS");
    let Source::Pilot { address, tls, name } = &config.source else {
        anyhow::bail!("an Envoy is told by pilot what to serve; PROXY_SPEC is not for it");
    };
    let node = node(&config.node, false);
    let pilot = bootstrap::Pilot { address, tls: *tls, name };
    let text = bootstrap::make(&node, &config.node.metadata, &pilot, &socket, config.ports)?;
    if options.print_only {
        #[expect(clippy::print_stdout, reason = "asked for on the command line")]
        {
            println!("{text}");
        }
        return Ok(());
    }
    std::fs::create_dir_all(&options.folder).with_context(|| format!("could not make {}", options.folder.display()))?;
    let path = options.folder.join("envoy-bootstrap.json");
    std::fs::write(&path, &text).with_context(|| format!("could not write {}", path.display()))?;
    // A socket that an earlier run left behind would be in the way.
    if let Err(error) = std::fs::remove_file(&socket)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("could not remove {}", socket.display()));
    }
    let listener = UnixListener::bind(&socket).with_context(|| format!("could not listen on {}", socket.display()))?;

    let stop = on_signal().context("no signal handlers")?;
    let ready = Readiness::new();
    let done = CancellationToken::new();
    let (own, keeping) = identity::keep(&config.identity, &config.trust_domain, &config.node, &ready, done.clone())?;
    let keeping = tokio::spawn(keeping);
    let answering = tokio::spawn(sds::serve(listener, own.clone(), done.clone()));
    tracing::info!(bootstrap = %path.display(), socket = %socket.display(), "ready for Envoy");
    let ended = match &options.envoy {
        None => {
            stop.cancelled().await;
            Ok(None)
        }
        Some(command) => {
            own.wait().await;
            envoy(command, &path, &stop).await.map(Some)
        }
    };
    done.cancel();
    keeping.await.context("the identity's task died")?;
    answering.await.context("the secret service died")??;
    match ended? {
        Some(status) if !status.success() && !stop.is_cancelled() => anyhow::bail!("Envoy ended with {status}"),
        Some(_) | None => Ok(()),
    }
}

/// Runs Envoy; a request to end is passed on to it.
async fn envoy(
    command: &[String],
    bootstrap: &std::path::Path,
    stop: &CancellationToken,
) -> anyhow::Result<ExitStatus> {
    let (program, args) = command.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(args)
        .arg("-c")
        .arg(bootstrap)
        // As Istio's agent runs it: a pod's Envoy is never replaced in place.
        .args((!args.iter().any(|arg| arg == "--disable-hot-restart")).then_some("--disable-hot-restart"))
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not run {program}"))?;
    tokio::select! {
        ended = child.wait() => return Ok(ended?),
        () = stop.cancelled() => {}
    }
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM)?;
    }
    Ok(child.wait().await?)
}
