//! The least that a hop can cost: hyper, rustls and a pool, with no policy, metrics or log; and a bare application.
//!
//! One thread, so that it compares with one worker of a proxy.
//! Never here: anything a mesh needs. Run as `bench-floor` by the data-plane bench.

mod app;
mod hop;
pub(crate) mod tls;

pub(crate) use hop::Here;
pub(crate) use tls::NAME;

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};

use hop::{Inward, Outward};

const USAGE: &str = "usage:
  bench-floor app HTTP1 HTTP2 SOURCE
  bench-floor hop (h1|h2|tls) LISTEN (h1|h2|tls) UPSTREAM CERTIFICATES
  bench-floor tcp LISTEN UPSTREAM";

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("{text:?} is not an address"))
}

/// Runs until ended from outside.
///
/// # Errors
/// The arguments make no sense, or an address cannot be listened on.
pub fn run(args: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let set = tokio::task::LocalSet::new();
    match words.as_slice() {
        ["app", http1, http2, source] => {
            runtime.block_on(set.run_until(app::serve(address(http1)?, address(http2)?, address(source)?)))
        }
        ["hop", inward, listen, outward, upstream, certificates] => {
            let certificates = Path::new(certificates);
            let inward = match *inward {
                "h1" => Inward::Http1,
                "h2" => Inward::Http2,
                "tls" => Inward::Tls(Arc::new(tls::server(certificates)?).into()),
                _ => bail!("{USAGE}"),
            };
            let outward = match *outward {
                "h1" => Outward::Http1,
                "h2" => Outward::Http2,
                "tls" => Outward::Tls(Arc::new(tls::client(certificates, &["h2"])?).into(), tls::name()?),
                _ => bail!("{USAGE}"),
            };
            let (listen, upstream) = (address(listen)?, address(upstream)?);
            runtime.block_on(set.run_until(async { hop::serve(hop::listen(listen)?, inward, outward, upstream).await }))
        }
        ["tcp", listen, upstream] => runtime.block_on(set.run_until(hop::pass(address(listen)?, address(upstream)?))),
        _ => bail!("{USAGE}"),
    }
}
