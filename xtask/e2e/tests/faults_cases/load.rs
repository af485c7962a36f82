//! A steady load on one kept connection from the client's host, of which no request may fail.
//!
//! Never here: what happens meanwhile. Called by tests of the suite `faults`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use e2e::rig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::Faults;

const PATH: &str = "/size/64";
const PAUSE: Duration = Duration::from_millis(10);
/// A request that takes longer has failed.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// Fewer requests are no load.
const REQUESTS_MIN: u32 = 20;

/// Does something under load: nothing of it may fail.
pub(crate) fn under(f: &Faults, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let load = f.rig.borrow().wire.thread("client", move || -> Result<_> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(steady(PAUSE, |sent| sent < REQUESTS_MIN || !ends.load(Relaxed)))
    })?;
    let acted = act();
    over.store(true, Relaxed);
    let (sent, failures) = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))???;
    eprintln!("  {sent} requests, {} failed", failures.len());
    acted?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// So many requests, one after the other; the first failure is the error.
pub(crate) async fn requests(count: u32) -> Result<()> {
    let (_, failures) = steady(Duration::ZERO, |sent| sent < count).await?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Asks again and again on one connection (a new one where it ends); how often, and what failed.
async fn steady(pause: Duration, goes_on: impl Fn(u32) -> bool) -> Result<(u32, Vec<String>)> {
    let (mut sent, mut failures, mut socket) = (0, Vec::new(), None);
    while goes_on(sent) {
        match tokio::time::timeout(REPLY_LIMIT, ask(&mut socket)).await {
            Ok(Ok(Next::SameConnection)) => {}
            Ok(Ok(Next::NewConnection)) => socket = None,
            Ok(Err(error)) => {
                failures.push(format!("request {sent}: {error:#}"));
                socket = None;
            }
            Err(_) => {
                failures.push(format!("request {sent}: no reply"));
                socket = None;
            }
        }
        sent += 1;
        tokio::time::sleep(pause).await;
    }
    Ok((sent, failures))
}

enum Next {
    SameConnection,
    NewConnection,
}

async fn ask(socket: &mut Option<TcpStream>) -> Result<Next> {
    if socket.is_none() {
        *socket = Some(TcpStream::connect(rig::service()).await?);
    }
    let Some(open) = socket else { bail!("not open") };
    open.write_all(rig::request(PATH).as_bytes()).await?;
    let mut reply = Vec::new();
    while !whole(&reply) {
        ensure!(open.read_buf(&mut reply).await? > 0, "the connection ended in a reply");
    }
    let text = String::from_utf8_lossy(&reply).to_ascii_lowercase();
    ensure!(text.starts_with("http/1.1 200 "), "{}", text.lines().next().unwrap_or_default());
    Ok(if text.contains("connection: close") { Next::NewConnection } else { Next::SameConnection })
}

/// Whether a reply with `content-length` is all there.
pub(crate) fn whole(reply: &[u8]) -> bool {
    let Some(end) = reply.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(reply.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    reply.len() >= end + 4 + length.unwrap_or(0)
}
