//! Requests on kept connections from the client's host: as many as can be, or so many a second.
//!
//! Never here: what happens meanwhile. Called by the suite `soak`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::rig::{self, Rig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

const CONNECTIONS: u32 = 16;
/// A request that takes longer has failed.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
const FAILURES_KEPT: usize = 5;

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// The first of them, with seconds since the start.
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
    /// How often the version in the replies was another than before, over all connections.
    pub(crate) versions: u64,
}

/// A load under way; it ends when it is stopped or dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Result<Report>>>>,
}

impl Load {
    /// Starts one; without a number a second, each connection asks as soon as it is answered.
    pub(crate) fn start(rig: &Rig, per_second: Option<u32>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = rig.wire.thread("client", move || -> Result<Report> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drive(per_second, &ends))
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, once every request under way has its answer.
    pub(crate) fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("stopped before")?;
        thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

async fn drive(per_second: Option<u32>, stop: &Arc<AtomicBool>) -> Result<Report> {
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let pace = per_second.map(|count| Duration::from_secs(1) * CONNECTIONS / count.max(1));
        all.spawn(connection(pace, Arc::clone(stop)));
    }
    let mut total = Report::default();
    while let Some(one) = all.join_next().await {
        let Report { sent, failed, failures, slowest, versions } = one?;
        total.sent += sent;
        total.failed += failed;
        total.failures.extend(failures);
        total.slowest = total.slowest.max(slowest);
        total.versions += versions;
    }
    Ok(total)
}

/// Asks on one connection until it is told to stop; a new one is made where it has ended.
async fn connection(pace: Option<Duration>, stop: Arc<AtomicBool>) -> Report {
    let began = Instant::now();
    let (mut report, mut socket, mut version) = (Report::default(), None, None);
    let mut ticks = pace.map(|pace| {
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    while !stop.load(Relaxed) {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let asked = Instant::now();
        let answer = tokio::time::timeout(REPLY_LIMIT, ask(&mut socket)).await.context("no reply in time");
        match answer.and_then(|answer| answer) {
            Ok(served) => {
                report.versions += u64::from(version.is_some() && served != version);
                version = served;
            }
            Err(error) => {
                socket = None;
                report.failed += 1;
                if report.failures.len() < FAILURES_KEPT {
                    report.failures.push(format!("after {:.1} s: {error:#}", began.elapsed().as_secs_f64()));
                }
            }
        }
        report.sent += 1;
        report.slowest = report.slowest.max(asked.elapsed());
    }
    report
}

/// One request; gives the version of the rule that it was served by.
async fn ask(socket: &mut Option<TcpStream>) -> Result<Option<String>> {
    let mut open = match socket.take() {
        Some(open) => open,
        None => TcpStream::connect(rig::service()).await.context("could not connect")?,
    };
    open.write_all(rig::request("/size/64").as_bytes()).await?;
    let mut reply = Vec::new();
    let head = loop {
        ensure!(open.read_buf(&mut reply).await? > 0, "the connection ended in a reply");
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end.filter(|end| reply.len() >= end + 4 + 64) {
            break String::from_utf8_lossy(reply.get(..end).unwrap_or_default()).to_ascii_lowercase();
        }
        ensure!(end.is_none() || reply.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&reply));
    };
    ensure!(head.starts_with("http/1.1 200 "), "{head}");
    ensure!(reply.ends_with(&[b'x'; 64]), "another body than was asked for");
    if !head.contains("connection: close") {
        *socket = Some(open);
    }
    Ok(head.lines().find_map(|line| line.strip_prefix("x-change: ")).map(str::to_owned))
}
