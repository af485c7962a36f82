//! A hundred changes of one rule under load, each timed to the ACK that pilot has on record.
//!
//! Never here: faults. Called by the suite `resilience`.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    beside::Beside,
    bookinfo::{Bookinfo, whole},
    load::{self, Load},
    sandbox::until,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const CHANGES: u64 = 100;
const PER_SECOND: u32 = 50;
/// Longest time from the change to the ACK.
const ACK_LIMIT: Duration = Duration::from_secs(2);
/// Longest time until the gateway has come back to pilot.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// How often pilot is asked, at the most.
const PACE: Duration = Duration::from_millis(2);
const RULE: &str = "/apis/networking.istio.io/v1/namespaces/default/virtualservices/bookinfo";

/// What pilot has on record of the gateway's routes: the number of its last response, and whether it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    sent: u64,
    acknowledged: bool,
}

struct Pilot {
    debug: Beside,
    gateway: String,
}

impl Pilot {
    fn record(&self, runtime: &Runtime) -> Result<Record> {
        let (status, _, body) = runtime.block_on(load::fetch(self.debug.address, "/debug/syncz"))?;
        ensure!(status == 200, "{status} {body}");
        let all: Value = serde_json::from_str(&body)?;
        let is_gateway = |one: &&Value| one["proxy"].as_str().is_some_and(|name| name == self.gateway);
        let one = all.as_array().into_iter().flatten().find(is_gateway).context("pilot does not know the gateway")?;
        let nonce = |field: &str| one[field].as_str().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        // Virtual hosts travel by themselves to proxies that ask so, else within routes.
        let (routes, hosts) = (nonce("route_sent"), nonce("virtual_host_sent"));
        let acknowledged = routes == nonce("route_acked") && hosts == nonce("virtual_host_acked");
        let refused = ["RDS", "VHDS"].iter().any(|kind| one["status"][kind] == "ERROR");
        ensure!(!refused, "the gateway refused its routes: {one}");
        Ok(Record { sent: routes + hosts, acknowledged })
    }

    /// Waits until something newer than `before` was sent and taken.
    #[expect(clippy::disallowed_methods, reason = "how long a change takes is what is measured")]
    fn acknowledged(&self, runtime: &Runtime, before: Record) -> Result<Record> {
        let began = Instant::now();
        loop {
            let now = self.record(runtime)?;
            if now.sent > before.sent && now.acknowledged {
                return Ok(now);
            }
            if began.elapsed() > ACK_LIMIT {
                bail!("no ACK within {ACK_LIMIT:?}: {before:?}, now {now:?}");
            }
            std::thread::sleep(PACE);
        }
    }
}

/// Each change names itself in a reply header; no request that starts after the gateway's ACK of one is answered by an
/// older one. Only these changes touch the gateway's routes, so that the next response after a change is that change.
#[expect(clippy::disallowed_methods, reason = "which request started before which ACK is told by the clock")]
pub(crate) fn changes(b: &Bookinfo) -> Result<()> {
    let acknowledged = Arc::new(Mutex::new(Vec::<(Instant, u64)>::new()));
    let floors = Arc::clone(&acknowledged);
    let judge = move |status: u16, headers: &http::HeaderMap, body: &str, started: Instant| {
        let served = headers.get("x-change").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        let floors = floors.lock().ok()?;
        let floor = floors.iter().rev().find(|(at, _)| *at <= started).map_or(0, |(_, change)| *change);
        let old = (served < floor)
            .then(|| format!("served by change {served}, but {floor} was acknowledged before the request started"));
        whole(status, body).or(old)
    };

    let gateway = b.kubectl.within("istio-system").ok(&[
        "get",
        "pod",
        "-l",
        "istio=ingressgateway",
        "-o",
        "jsonpath={.items[0].metadata.name}.istio-system",
    ])?;
    let debug = Beside::forward(&b.kubectl.within("istio-system"), "deploy/istio-pilot", 15014)?;
    let pilot = Pilot { debug, gateway };
    let api = Beside::api(&b.kubectl)?;
    let rule: Value = serde_json::from_str(&b.kubectl.ok(&["get", "virtualservice", "bookinfo", "-o", "json"])?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A gateway that came back to a new pilot with all it needs was sent nothing: that is rest, too.
    let mut record = until("the gateway is at rest", REST_LIMIT, || {
        let record = pilot.record(&runtime)?;
        ensure!(record.acknowledged, "{record:?}");
        Ok(record)
    })?;

    let load = Load::start(b.gateway, "/productpage", PER_SECOND, Arc::new(judge));
    let mut times = Vec::new();
    for change in 1..=CHANGES {
        let mut http = rule["spec"]["http"].clone();
        http[0]["headers"] = json!({ "response": { "set": { "x-change": change.to_string() } } });
        let patch = json!({ "spec": { "http": http } }).to_string();
        let began = Instant::now();
        let (status, body) = runtime.block_on(load::patch(api.address, RULE, patch))?;
        ensure!(status == 200, "change {change}: {status} {body}");
        record = pilot.acknowledged(&runtime, record).with_context(|| format!("change {change}"))?;
        let now = Instant::now();
        times.push(now - began);
        if let Ok(mut acknowledged) = acknowledged.lock() {
            acknowledged.push((now, change));
        }
        let (_, headers, _) = runtime.block_on(load::fetch(b.gateway, "/productpage"))?;
        let served = headers.get("x-change").and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(served == change.to_string(), "acknowledged {change}, served by {served:?}");
    }
    let report = load.stop()?;
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("  change → ACK: median {median:?}, slowest {slowest:?}; {} requests", report.sent);
    report.all_well()
}
