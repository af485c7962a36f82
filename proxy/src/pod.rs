//! What the pod is asked about itself: readiness, the application's probes, metrics of both, drain and quit.
//!
//! 15021 answers readiness, 15020 probes and merged metrics, 15090 the proxy's own metrics.
//! Never here: the data plane. Served on the control thread by `run`.

pub(crate) mod probe;
pub(crate) mod scrape;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use api_rt::{
    admin::{self, Admin, Ask, Reply},
    ready::Readiness,
};
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::{
    ending::Ending,
    env::probers::{AppMetrics, Prober},
    worker::Shared,
};

/// What the pages can do to the process.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// Ends it.
    pub(crate) stop: CancellationToken,
    /// Leads it towards its end.
    pub(crate) ending: Arc<Ending>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pages of 15021.
pub(crate) fn readiness(ready: &Readiness) -> Admin {
    Admin::new("proxy", VERSION, ready)
}

/// The proxy's own metrics.
pub(crate) fn own_metrics(shared: &Shared) -> String {
    let mut out = String::with_capacity(64 * 1024);
    shared.metrics.print(&mut out);
    shared.stats.print(&mut out);
    crate::admin::stats::print_clusters(&shared.tables.load(), &mut out);
    out
}

/// The pages of 15090.
pub(crate) fn metrics(ready: &Readiness, shared: &Arc<Shared>) -> Admin {
    let shared = Arc::clone(shared);
    Admin::new("proxy", VERSION, ready).route("/stats/prometheus", move |_| {
        std::future::ready(admin::body(StatusCode::OK, TEXT_FORMAT, own_metrics(&shared)))
    })
}

fn from_this_machine(ask: &Ask) -> bool {
    ask.extensions().get::<SocketAddr>().is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// Only by POST, and only from the pod itself.
pub(crate) fn guarded(ask: &Ask, act: impl FnOnce()) -> Reply {
    if ask.method() != Method::POST {
        return admin::text(StatusCode::METHOD_NOT_ALLOWED, "this page takes POST only\n");
    }
    if !from_this_machine(ask) {
        return admin::text(StatusCode::FORBIDDEN, "this page answers the pod itself only\n");
    }
    act();
    admin::text(StatusCode::OK, "OK\n")
}

/// The pages of 15020.
pub(crate) fn status(
    ready: &Readiness,
    shared: &Arc<Shared>,
    probers: BTreeMap<String, Prober>,
    apps: Vec<AppMetrics>,
    address: IpAddr,
    ends: &Ends,
) -> Admin {
    let merged = Arc::clone(shared);
    let (quit, draining) = (ends.stop.clone(), Arc::clone(&ends.ending));
    let apps: Arc<[AppMetrics]> = apps.into();
    let merge = move |_: Ask| {
        let (shared, apps) = (Arc::clone(&merged), Arc::clone(&apps));
        async move {
            let page = scrape::merged(own_metrics(&shared), &apps).await;
            admin::body(StatusCode::OK, TEXT_FORMAT, page)
        }
    };
    let mut pages = Admin::new("proxy", VERSION, ready)
        .route("/stats/prometheus", merge.clone())
        .route("/metrics", merge)
        .route("/quitquitquit", move |ask| std::future::ready(guarded(&ask, || quit.cancel())))
        .route("/drain", move |ask| std::future::ready(guarded(&ask, || draining.drain())));
    for (path, prober) in probers {
        let prober = Arc::new(prober);
        pages = pages.route(&path, move |ask: Ask| {
            let prober = Arc::clone(&prober);
            async move {
                match probe::run(&prober, address, ask.headers()).await {
                    Ok(status) => admin::text(status, ""),
                    Err(error) => admin::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                }
            }
        });
    }
    pages
}
