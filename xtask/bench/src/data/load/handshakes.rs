//! New connections as fast as they come: TCP, a full mutual handshake, one request, close.
//!
//! Never here: resumption; each connection is a stranger. Called by `load`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};
use tokio_rustls::TlsConnector;

use super::{Done, Target};
use crate::floor::tls;

fn connector(target: Target<'_>) -> Result<TlsConnector> {
    // What Istio's clients offer; others choose `http/1.1`.
    let config = tls::client(target.certificates, &["istio-http/1.1", "istio", "http/1.1"])?;
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn once(target: std::net::SocketAddr, connector: &TlsConnector) -> Result<()> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(tls::name()?, stream).await?;
    stream.write_all(b"GET /64 HTTP/1.1\r\nHost: reviews\r\n\r\n").await?;
    let mut buf = [0; 4096];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buf[filled..]).await?;
        ensure!(count > 0, "the connection ended");
        filled += count;
        let end = buf[..filled].windows(4).position(|window| window == b"\r\n\r\n");
        if end.is_some_and(|end| filled >= end + 4 + 64) {
            break;
        }
    }
    ensure!(buf.starts_with(b"HTTP/1.1 200"), "not 200");
    stream.shutdown().await?;
    Ok(())
}

fn local<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(task))
}

/// One connection.
pub(super) fn probe(target: Target<'_>) -> Result<()> {
    let connector = connector(target)?;
    local(async { tokio::time::timeout(Duration::from_secs(2), once(target.address, &connector)).await? })
}

/// As many as it can.
#[expect(clippy::disallowed_methods, reason = "a load client takes the time")]
pub(super) fn run(target: Target<'_>, at_once: usize, length: Duration) -> Result<Done> {
    let connector = connector(target)?;
    let address = target.address;
    local(async {
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let connector = connector.clone();
            tasks.spawn_local(async move {
                let mut latencies = Vec::new();
                let mut failed = 0;
                while began.elapsed() < length {
                    let from = Instant::now();
                    match once(address, &connector).await {
                        Ok(()) => latencies.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX)),
                        Err(_) => failed += 1,
                    }
                }
                (latencies, failed)
            });
        }
        let done = tasks.join_all().await;
        let failed = done.iter().map(|(_, failed)| failed).sum();
        Ok(Done::of(done.into_iter().flat_map(|(latencies, _)| latencies).collect(), began.elapsed(), failed))
    })
}
