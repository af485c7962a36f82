//! A steady load on one page: a fixed number of requests a second, each judged by status and content.
//!
//! Open loop: a slow answer does not slow the next request down. Never here: what is right; the caller says it.
//! Called by the suites that change something under load.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::MissedTickBehavior};

use crate::sandbox::until;

const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long some more requests may take.
const MORE_LIMIT: Duration = Duration::from_secs(60);
const BODY_BYTES_MAX: usize = 1024 * 1024;
const UNDER_WAY_MAX: usize = 2000;
const FAILURES_KEPT: usize = 20;

/// Says what is wrong with an answer; `None`: nothing. Given status, headers, body, and when the request started.
pub type Judge = Arc<dyn Fn(u16, &http::HeaderMap, &str, Instant) -> Option<String> + Send + Sync>;

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Those that failed.
    pub failed: u64,
    /// The first of them, with seconds since the start.
    pub failures: Vec<String>,
    /// Longest answer time.
    pub slowest: Duration,
}

impl Report {
    /// Fails when any request failed.
    ///
    /// # Errors
    /// The first failures, in words.
    pub fn all_well(&self) -> Result<()> {
        if self.failed == 0 && self.sent > 0 {
            return Ok(());
        }
        bail!("{} of {} requests failed:\n{}", self.failed, self.sent, self.failures.join("\n"))
    }
}

/// A load under way; it ends when it is stopped or dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    worker: Option<JoinHandle<Result<Report>>>,
}

impl Load {
    /// Starts one.
    pub fn start(address: SocketAddr, path: &str, per_second: u32, judge: Judge) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, path) = (Arc::clone(&stop), Arc::clone(&ended), path.to_owned());
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
            Ok(runtime.block_on(drive(address, &path, per_second, &judge, &stopped, &counted)))
        });
        Self { stop, ended, worker: Some(worker) }
    }

    /// Waits until so many more requests have ended, well or not.
    ///
    /// # Errors
    /// They take too long.
    pub fn goes_on(&self, requests: u64) -> Result<()> {
        let wanted = self.ended.load(Ordering::Relaxed) + requests;
        until("the load goes on", MORE_LIMIT, || {
            let ended = self.ended.load(Ordering::Relaxed);
            ensure!(ended >= wanted, "{ended} requests have ended, not {wanted}");
            Ok(())
        })
    }

    /// Ends it, once every request under way has its answer.
    ///
    /// # Errors
    /// The load itself broke.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().context("stopped before")?;
        worker.join().map_err(|_| anyhow::anyhow!("the load panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "a load is measured by the clock")]
async fn drive(
    address: SocketAddr,
    path: &str,
    per_second: u32,
    judge: &Judge,
    stop: &AtomicBool,
    ended: &Arc<AtomicU64>,
) -> Report {
    let began = Instant::now();
    let report = Arc::new(Mutex::new(Report::default()));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= UNDER_WAY_MAX {
            note(&report, began, "too many requests under way");
            continue;
        }
        let (report, judge, path) = (Arc::clone(&report), Arc::clone(judge), path.to_owned());
        let ended = Arc::clone(ended);
        under_way.spawn(async move {
            let started = Instant::now();
            let failure = match fetch(address, &path).await {
                Ok((status, headers, body)) => judge(status, &headers, &body, started),
                Err(error) => Some(format!("{error:#}")),
            };
            if let Ok(mut report) = report.lock() {
                report.sent += 1;
                report.slowest = report.slowest.max(started.elapsed());
            }
            if let Some(failure) = failure {
                note(&report, began, &failure);
            }
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }
    while under_way.join_next().await.is_some() {}
    report.lock().map(|report| report.clone()).unwrap_or_default()
}

fn note(report: &Mutex<Report>, began: Instant, failure: &str) {
    if let Ok(mut report) = report.lock() {
        report.failed += 1;
        if report.failures.len() < FAILURES_KEPT {
            report.failures.push(format!("  after {:.1} s: {failure}", began.elapsed().as_secs_f64()));
        }
    }
}

/// One GET on a connection of its own.
///
/// # Errors
/// No connection, or no whole answer.
pub async fn fetch(address: SocketAddr, path: &str) -> Result<(u16, http::HeaderMap, String)> {
    send(address, http::Request::get(path).header("host", "bookinfo.example.com").body(Full::default())?).await
}

/// One JSON merge patch on a connection of its own.
///
/// # Errors
/// No connection, or no whole answer.
pub async fn patch(address: SocketAddr, path: &str, patch: String) -> Result<(u16, String)> {
    let request = http::Request::patch(path).header("host", address.to_string());
    let request = request.header("content-type", "application/merge-patch+json").body(Full::from(patch))?;
    let (status, _, body) = send(address, request).await?;
    Ok((status, body))
}

async fn send(address: SocketAddr, request: http::Request<Full<Bytes>>) -> Result<(u16, http::HeaderMap, String)> {
    tokio::time::timeout(ANSWER_LIMIT, answer(address, request))
        .await
        .with_context(|| format!("no answer within {ANSWER_LIMIT:?}"))?
}

async fn answer(
    address: SocketAddr,
    mut request: http::Request<Full<Bytes>>,
) -> Result<(u16, http::HeaderMap, String)> {
    let socket = TcpStream::connect(address).await.context("could not connect")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    request.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    let answered = async {
        let answer = sender.send_request(request).await.context("no answer")?;
        let (parts, body) = answer.into_parts();
        let body =
            Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok((parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(answered);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => { ended?; answered.await }
    }
}
