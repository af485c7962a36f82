//! The admin pages on 15000, in Envoy's shapes, as `istioctl` and people read them.
//!
//! Answers only on loopback. Private keys are shown to nobody.
//! Never here: changing what is served. Served on the control thread by `run`.

pub(crate) mod dump;
pub(crate) mod stats;

use std::sync::Arc;

use api_rt::{
    admin::{self, Admin, Ask},
    log::Log,
    ready::Readiness,
};
use http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    env::NodeConfig,
    pod::{guarded, own_metrics},
    worker::{Phase, Shared},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn wants_json(ask: &Ask) -> bool {
    ask.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "format=json"))
}

fn parameter<'a>(ask: &'a Ask, name: &str) -> Option<&'a str> {
    ask.uri().query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The pages of 15000.
pub(crate) fn pages(
    ready: &Readiness,
    shared: &Arc<Shared>,
    node: &NodeConfig,
    id: String,
    log: Log,
    stop: &CancellationToken,
) -> Admin {
    let quit = stop.clone();
    let [prom, stats, clusters, listeners, dump, spec, certs, info, drain] =
        std::array::from_fn(|_| Arc::clone(shared));
    let state = ready.clone();
    let node = node.clone();
    let about = move |shared: &Shared| {
        let state = match (*shared.phase.borrow(), state.is_ready()) {
            (Phase::Serving, true) => "LIVE",
            (Phase::Serving, false) => "INITIALIZING",
            (Phase::Draining | Phase::Closing, _) => "DRAINING",
        };
        let uptime = format!("{}s", shared.epoch.elapsed().as_secs());
        json!({
            "version": format!("{VERSION}/ferromesh"),
            "state": state,
            "hot_restart_version": "disabled",
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "node": { "id": id, "cluster": format!("{}.{}", node.workload, node.namespace), "metadata": node.metadata },
        })
    };
    let ok = |value: &serde_json::Value| std::future::ready(admin::json(StatusCode::OK, value));
    let plain = |page: String| std::future::ready(admin::text(StatusCode::OK, page));
    Admin::new("proxy", VERSION, ready)
        .logging(log)
        .metrics(move || own_metrics(&prom))
        .route("/stats", move |ask| {
            let page = if parameter(&ask, "format") == Some("prometheus") {
                Ok(own_metrics(&stats))
            } else {
                stats::text(&stats, parameter(&ask, "filter"))
            };
            std::future::ready(match page {
                Ok(page) => admin::text(StatusCode::OK, page),
                Err(error) => admin::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            })
        })
        .route("/clusters", move |ask| {
            let tables = clusters.tables.load_full();
            std::future::ready(if wants_json(&ask) {
                admin::json(StatusCode::OK, &dump::cluster_statuses(&tables))
            } else {
                admin::text(StatusCode::OK, dump::clusters_text(&tables))
            })
        })
        .route("/listeners", move |ask| {
            let tables = listeners.tables.load_full();
            std::future::ready(if wants_json(&ask) {
                admin::json(StatusCode::OK, &dump::listener_statuses(&tables))
            } else {
                admin::text(StatusCode::OK, dump::listeners_text(&tables))
            })
        })
        .route("/config_dump", move |_| ok(&dump::config(&dump.tables.load(), &dump.identity)))
        .route("/spec", move |_| ok(&dump::spec(&spec.tables.load())))
        .route("/certs", move |_| ok(&dump::certificates(&certs.identity, certs.clock.now())))
        .route("/server_info", move |_| ok(&about(&info)))
        .route("/help", move |_| {
            plain("/certs /clusters /config_dump /drain_listeners /listeners /logging /quitquitquit /ready /server_info /spec /stats /stats/prometheus\n".to_owned())
        })
        .route("/drain_listeners", move |ask| {
            std::future::ready(guarded(&ask, || {
                drain.phase.send_if_modified(|phase| std::mem::replace(phase, (*phase).max(Phase::Draining)) < Phase::Draining);
            }))
        })
        .route("/quitquitquit", move |ask| std::future::ready(guarded(&ask, || quit.cancel())))
}
