//! The admin pages on 15000, in Envoy's shapes, as `istioctl` and people read them.
//!
//! Answers only on loopback; what changes something takes POST only. Private keys are shown to nobody.
//! Never here: what is served. Served on the control thread by `run`.

pub(crate) mod config;
pub(crate) mod dump;
pub(crate) mod logging;
pub(crate) mod memory;
pub(crate) mod stats;

use std::{future::ready, sync::Arc};

use api_rt::{
    admin::{self, Admin, Ask, Reply},
    log::Log,
    ready::Readiness,
};
use http::{Method, StatusCode};
use regex::Regex;
use serde_json::{Value, json};

use crate::{
    env::NodeConfig,
    pod::{Ends, guarded, own_metrics},
    worker::{Phase, Shared},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pages: path, whether only POST is taken, and what it is for.
const PAGES: [(&str, bool, &str); 20] = [
    ("/certs", false, "certificates of this process"),
    ("/clusters", false, "upstream clusters; format=json"),
    ("/config_dump", false, "what is served; include_eds, resource=LIST, name_regex=REGEX"),
    ("/drain_listeners", true, "takes no new connections; with graceful, only tells peers to go elsewhere"),
    ("/healthcheck/fail", true, "makes readiness fail and peers go elsewhere"),
    ("/healthcheck/ok", true, "takes that back"),
    ("/help", false, "this page"),
    ("/listeners", false, "listeners and their addresses; format=json"),
    ("/logging", false, "levels of the log; POST changes them: level=LEVEL, NAME=LEVEL, paths=NAME:LEVEL,..."),
    ("/memory", false, "memory of the process"),
    ("/metrics", false, "metrics in Prometheus' format"),
    ("/quitquitquit", true, "ends the process gently"),
    ("/ready", false, "LIVE, or what is waited for"),
    ("/healthz/ready", false, "the same"),
    ("/reset_counters", true, "sets all counters to nought"),
    ("/server_info", false, "version, state, uptime and node"),
    ("/spec", false, "what is served, as meshctl reads it"),
    ("/stats", false, "all counters; format=json|prometheus, filter=REGEX, usedonly"),
    ("/stats/prometheus", false, "metrics in Prometheus' format"),
    ("/version", false, "version"),
];

fn parameter<'a>(ask: &'a Ask, name: &str) -> Option<&'a str> {
    ask.uri().query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Whether a word stands in the query, with or without a value.
fn says(ask: &Ask, name: &str) -> bool {
    let query = ask.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair.split_once('=').map_or(pair, |(key, _)| key) == name)
}

fn wants_json(ask: &Ask) -> bool {
    parameter(ask, "format") == Some("json")
}

/// A pattern of the query, or what is wrong with it.
fn regex(ask: &Ask, name: &str) -> Result<Option<Regex>, String> {
    parameter(ask, name).map(Regex::new).transpose().map_err(|error| format!("{name}: {error}\n"))
}

fn json_page(value: &Value) -> Reply {
    admin::json(StatusCode::OK, value)
}

fn text_page(page: impl Into<String>) -> Reply {
    admin::text(StatusCode::OK, page)
}

/// The state in Envoy's words.
fn state(shared: &Shared, readiness: &Readiness) -> &'static str {
    match (*shared.phase.borrow(), readiness.is_ready()) {
        (Phase::Serving, true) => "LIVE",
        (Phase::Serving, false) => "INITIALIZING",
        (Phase::Draining | Phase::Closing, _) => "DRAINING",
    }
}

/// `/ready`: Envoy's word first, then what is waited for.
pub(crate) fn readiness(shared: &Shared, readiness: &Readiness) -> Reply {
    let waiting = readiness.waiting_for();
    let word = state(shared, readiness);
    if waiting.is_empty() {
        return text_page(format!("{word}\n"));
    }
    admin::text(StatusCode::SERVICE_UNAVAILABLE, format!("{word}\nnot ready: {}\n", waiting.join("; ")))
}

fn stats_page(shared: &Shared, ask: &Ask) -> Reply {
    let names = match regex(ask, "filter") {
        Ok(names) => names,
        Err(wrong) => return admin::text(StatusCode::BAD_REQUEST, wrong),
    };
    let wanted = stats::Wanted { names, used_only: says(ask, "usedonly") };
    match parameter(ask, "format") {
        None | Some("text") => text_page(stats::text(shared, &wanted)),
        Some("json") => json_page(&stats::json(shared, &wanted)),
        Some("prometheus") => text_page(own_metrics(shared)),
        Some(_) => admin::text(StatusCode::BAD_REQUEST, "usage: /stats?format=json|prometheus|text\n"),
    }
}

fn clusters_page(shared: &Shared, ask: &Ask) -> Reply {
    let tables = shared.tables.load();
    if wants_json(ask) { json_page(&dump::cluster_statuses(&tables)) } else { text_page(dump::clusters_text(&tables)) }
}

fn listeners_page(shared: &Shared, ask: &Ask) -> Reply {
    let tables = shared.tables.load();
    if wants_json(ask) {
        json_page(&dump::listener_statuses(&tables))
    } else {
        text_page(dump::listeners_text(&tables))
    }
}

fn config_page(shared: &Shared, bootstrap: &Value, ask: &Ask) -> Reply {
    let names = match regex(ask, "name_regex") {
        Ok(names) => names,
        Err(wrong) => return admin::text(StatusCode::BAD_REQUEST, wrong),
    };
    let resource = parameter(ask, "resource").map(str::to_owned);
    let wanted = config::Wanted { endpoints: says(ask, "include_eds"), resource, names };
    match config::dump(&shared.tables.load(), &shared.identity, bootstrap, &wanted) {
        Ok(dump) => json_page(&dump),
        Err(error) => admin::text(StatusCode::NOT_FOUND, format!("{error}\n")),
    }
}

fn logging_page(log: &Log, ask: &Ask) -> Reply {
    if ask.method() != Method::POST && ask.method() != Method::PUT && ask.uri().query().is_some() {
        return admin::text(StatusCode::METHOD_NOT_ALLOWED, "levels are changed by POST only\n");
    }
    let body = String::from_utf8_lossy(ask.body());
    let asked = match (ask.uri().query(), body.trim()) {
        (Some(query), _) => logging::changed(&log.levels(), query),
        (None, "") => return text_page(logging::page(&log.levels())),
        (None, body) => Ok(body.to_owned()),
    };
    match asked.and_then(|levels| log.set(&levels).map_err(|error| format!("{error}\n"))) {
        Ok(()) => text_page(logging::page(&log.levels())),
        Err(error) => admin::text(StatusCode::BAD_REQUEST, error),
    }
}

fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    for (path, post, text) in PAGES {
        let post = if post { " (POST)" } else { "" };
        out.push_str(&format!("  {path}{post}: {text}\n"));
    }
    out
}

/// The pages of 15000.
pub(crate) fn pages(
    readiness: &Readiness,
    shared: &Arc<Shared>,
    node: &NodeConfig,
    id: &str,
    log: Log,
    ends: &Ends,
) -> Admin {
    let about =
        json!({ "id": id, "cluster": format!("{}.{}", node.workload, node.namespace), "metadata": node.metadata });
    let bootstrap = json!({ "node": about });
    let state_of = readiness.clone();
    let server_info = move |shared: &Shared| {
        let uptime = format!("{}s", shared.epoch.elapsed().as_secs());
        json!({
            "version": format!("{VERSION}/ferromesh"),
            "state": state(shared, &state_of),
            "hot_restart_version": "disabled",
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "node": about,
        })
    };
    let [prom, numbers, clusters, listeners, dump, spec, certs, info, reset, live] =
        std::array::from_fn(|_| Arc::clone(shared));
    let (live_of, health_of) = (readiness.clone(), readiness.clone());
    let health = Arc::clone(&live);
    let [drain, fail, pass] = std::array::from_fn(|_| Arc::clone(&ends.ending));
    let quit = ends.stop.clone();
    Admin::new("proxy", VERSION, readiness)
        .metrics(move || own_metrics(&prom))
        .route("/ready", move |_| ready(self::readiness(&live, &live_of)))
        .route("/healthz/ready", move |_| ready(self::readiness(&health, &health_of)))
        .route("/logging", move |ask| ready(logging_page(&log, &ask)))
        .route("/stats", move |ask| ready(stats_page(&numbers, &ask)))
        .route("/clusters", move |ask| ready(clusters_page(&clusters, &ask)))
        .route("/listeners", move |ask| ready(listeners_page(&listeners, &ask)))
        .route("/config_dump", move |ask| ready(config_page(&dump, &bootstrap, &ask)))
        .route("/spec", move |_| ready(json_page(&dump::spec(&spec.tables.load()))))
        .route("/certs", move |_| ready(json_page(&dump::certificates(&certs.identity, certs.clock.now()))))
        .route("/server_info", move |_| ready(json_page(&server_info(&info))))
        .route("/memory", move |_| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            ready(json_page(&memory::page(&status)))
        })
        .route("/help", move |_| ready(text_page(help())))
        .route("/", move |_| ready(text_page(help())))
        .route("/reset_counters", move |ask| ready(guarded(&ask, || stats::reset(&reset))))
        .route("/healthcheck/fail", move |ask| ready(guarded(&ask, || fail.fail())))
        .route("/healthcheck/ok", move |ask| ready(guarded(&ask, || pass.pass())))
        .route("/drain_listeners", move |ask| {
            // Envoy's: gracefully it goes on to accept, else it stops at once.
            let gracefully = says(&ask, "graceful");
            ready(guarded(&ask, || if gracefully { drain.drain() } else { drain.close() }))
        })
        .route("/quitquitquit", move |ask| ready(guarded(&ask, || quit.cancel())))
}
