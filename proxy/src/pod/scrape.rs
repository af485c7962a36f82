//! The application's own metrics, added to ours, so that one scrape sees the whole pod.
//!
//! An application that does not answer leaves its part out and counts as a failed scrape.
//! Never here: our own counters. Called by `pod`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::{
    env::probers::AppMetrics,
    limits::{SCRAPE_BYTES_MAX, SCRAPE_TIMEOUT},
    upstream::{
        connect::{Options, connect},
        live::Place,
    },
};

static SCRAPES: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Our page with the application's after it.
pub(crate) async fn merged(mut own: String, apps: &[AppMetrics]) -> String {
    SCRAPES.fetch_add(1, Relaxed);
    let mut pages = Vec::new();
    for answer in futures::future::join_all(apps.iter().map(scrape_soon)).await {
        match answer {
            Ok(page) => pages.push(page),
            Err(error) => {
                FAILED.fetch_add(1, Relaxed);
                tracing::debug!(%error, "the application's metrics could not be read");
            }
        }
    }
    own.push_str("# TYPE istio_agent_scrapes_total counter\n");
    own.push_str(&format!("istio_agent_scrapes_total {}\n", SCRAPES.load(Relaxed)));
    own.push_str("# TYPE istio_agent_scrape_failures_total counter\n");
    own.push_str(&format!("istio_agent_scrape_failures_total{{type=\"application\"}} {}\n", FAILED.load(Relaxed)));
    for theirs in pages {
        own.push_str(&theirs);
        if !own.ends_with('\n') {
            own.push('\n');
        }
    }
    own
}

async fn scrape_soon(app: &AppMetrics) -> anyhow::Result<String> {
    tokio::time::timeout(SCRAPE_TIMEOUT, scrape(app)).await?
}

async fn scrape(app: &AppMetrics) -> anyhow::Result<String> {
    let address = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), app.port);
    let options = Options { timeout: SCRAPE_TIMEOUT, bind: None, keepalive: None, header: None };
    let (io, _) = connect(&Place::Socket(address), options, None).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let request = Request::get(&app.path)
        .header(header::HOST, address.to_string())
        .header(header::ACCEPT, "text/plain;version=0.0.4,*/*;q=0.1")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::new()))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        anyhow::ensure!(response.status().is_success(), "it answered {}", response.status());
        let body = Limited::new(response.into_body(), SCRAPE_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| anyhow::anyhow!("its page could not be read: {error}"))?.to_bytes();
        Ok(String::from_utf8(bytes.to_vec())?)
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        page = &mut answer => page,
        _ = &mut connection => answer.await,
    }
}
