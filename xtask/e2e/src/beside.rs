//! A kubectl that goes on beside a test and listens on loopback: `port-forward` or `proxy`.
//!
//! Never here: what is asked over it. Called by suites that talk to one Pod, or to the API server without kubectl.

use std::{
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Stdio},
    thread,
};

use anyhow::{Context as _, Result};

use crate::kubectl::Kubectl;

/// The running program; it ends when this is dropped.
pub struct Beside {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Beside {
    /// Forwards a port of loopback to a port of `target`, as in `deploy/istio-pilot`.
    ///
    /// # Errors
    /// kubectl does not say where it listens.
    pub fn forward(kubectl: &Kubectl, target: &str, port: u16) -> Result<Self> {
        Self::start(kubectl, &["port-forward", "--address", "127.0.0.1", target, &format!(":{port}")])
    }

    /// Serves the API server on loopback, without TLS and with kubectl's own rights.
    ///
    /// # Errors
    /// kubectl does not say where it listens.
    pub fn api(kubectl: &Kubectl) -> Result<Self> {
        Self::start(kubectl, &["proxy", "--port=0"])
    }

    fn start(kubectl: &Kubectl, args: &[&str]) -> Result<Self> {
        let mut child = kubectl.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        output.read_line(&mut line)?;
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.with_context(|| format!("no port in {line:?}"))?));
        // kubectl writes a line for each connection, and stands still when nobody reads them.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(Self { child, address })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("kubectl is already gone");
        }
    }
}
