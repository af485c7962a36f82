//! The admin pages over a connection, as tools read them.
//!
//! Never here: what the pages say of single resources (`admin::dump`). Run by `cargo test`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use api::spec::ProxyKind;
use api_rt::{log, ready::Readiness};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{app, ask, get, local, ok, proxy, spec::to};
use crate::{admin, ending::Ending, env::NodeConfig, pod::Ends, worker::Phase};

fn node() -> NodeConfig {
    NodeConfig {
        kind: ProxyKind::Sidecar,
        name: "web-1".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        address: [10, 0, 0, 1].into(),
        domain: "cluster.local".into(),
        cluster_id: "Kubernetes".into(),
        workload: "web".into(),
        labels: BTreeMap::new(),
        proxy_header: false,
        metadata: serde_json::Map::new(),
    }
}

/// Status and body of a page.
async fn page(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

/// The pages of a proxy.
struct Pages(SocketAddr);

impl Pages {
    async fn check(&self, method: &str, path: &str, status: u16, part: &str) {
        let (found, body) = page(self.0, method, path).await;
        assert!(found == status && body.contains(part), "{method} {path}: {found}\n{body}");
    }

    /// Of a proxy that has served one request.
    async fn show_what_serves(&self) {
        self.check("GET", "/ready", 200, "LIVE\n").await;
        self.check("GET", "/help", 200, "/config_dump: ").await;
        self.check("GET", "/server_info", 200, r#""state":"LIVE""#).await;
        self.check("GET", "/memory", 200, r#""total_physical_bytes":""#).await;
        self.check("GET", "/clusters", 200, "c::default_priority::max_connections::").await;
        self.check("GET", "/clusters?format=json", 200, r#""cluster_statuses":[{"name":"c""#).await;
        self.check("GET", "/listeners", 200, "l::0.0.0.0:80\n").await;
        self.check("GET", "/listeners?format=json", 200, r#""port_value":80"#).await;
        self.check("GET", "/certs", 200, r#""certificates":["#).await;
        self.check("GET", "/stats?filter=cluster.c.upstream_rq_total", 200, "cluster.c.upstream_rq_total: 1\n").await;
        self.check("GET", "/stats?format=json&usedonly&filter=rq_total", 200, r#""value":1"#).await;
        self.check("GET", "/stats?filter=(", 400, "filter").await;
        self.check("GET", "/stats?format=xml", 400, "usage").await;
        self.check("GET", "/stats/prometheus", 200, "istio_requests_total{").await;
    }

    async fn change_levels(&self) {
        self.check("GET", "/logging", 200, "active loggers:\n").await;
        self.check("POST", "/logging?http=debug", 200, "  http: debug\n").await;
        self.check("POST", "/logging?http=loud", 400, "usage: /logging").await;
        self.check("GET", "/logging?http=debug", 405, "POST").await;
        self.check("POST", "/logging?level=error", 200, "  http: error\n").await;
    }

    async fn dump_in_order(&self) {
        self.check("GET", "/config_dump?resource=nothing", 404, "nothing not found in config dump").await;
        self.check("GET", "/config_dump?resource=dynamic_listeners&name_regex=x", 200, r#"{"configs":[]}"#).await;

        let (_, dump) = page(self.0, "GET", "/config_dump?include_eds").await;
        let dump: Value = serde_json::from_str(&dump).unwrap();
        let kinds: Vec<&str> = dump["configs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|config| config["@type"].as_str().unwrap().rsplit('.').next().unwrap())
            .collect();
        let want = ["Bootstrap", "Clusters", "Endpoints", "Listeners", "Routes", "Secrets"];
        assert_eq!(kinds, want.map(|kind| format!("{kind}ConfigDump")));
        assert_eq!(dump["configs"][0]["bootstrap"]["node"]["id"], "sidecar~10.0.0.1~web-1.shop~x");
        let endpoint = &dump["configs"][2]["dynamic_endpoint_configs"][0]["endpoint_config"];
        assert_eq!(endpoint["cluster_name"], "c");
    }
}

#[test]
fn tools_find_what_they_read_from_envoy() {
    local(async {
        let app = app(|_| ok("x")).await;
        let (proxy, address) = proxy(&to(&[app])).await;
        assert!(ask(address, &get("/")).await.ends_with('x'));
        let shared = &proxy.worker.shared;
        let ready = Readiness::new();
        let stop = CancellationToken::new();
        let ending = Arc::new(Ending::new(shared.phase.clone(), ready.clone()));
        let ends = Ends { stop: stop.clone(), ending };
        let log = log::init("info", log::Format::Text).unwrap();
        let pages = admin::pages(&ready, shared, &node(), "sidecar~10.0.0.1~web-1.shop~x", log, &ends);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let over = CancellationToken::new();
        let serving = tokio::task::spawn_local(pages.serve(listener, over.clone()));

        let pages = Pages(at);
        pages.show_what_serves().await;
        pages.change_levels().await;
        pages.dump_in_order().await;

        pages.check("GET", "/reset_counters", 405, "POST").await;
        pages.check("POST", "/reset_counters", 200, "OK\n").await;
        pages.check("GET", "/stats?filter=cluster.c.upstream_rq_total", 200, "cluster.c.upstream_rq_total: 0\n").await;
        pages.check("POST", "/healthcheck/fail", 200, "OK\n").await;
        pages.check("GET", "/ready", 503, "DRAINING\nnot ready: told to fail the health check\n").await;
        assert!(ask(address, &get("/")).await.contains("connection: close\r\n"));
        pages.check("POST", "/healthcheck/ok", 200, "OK\n").await;
        pages.check("GET", "/ready", 200, "LIVE\n").await;
        pages.check("POST", "/drain_listeners?graceful", 200, "OK\n").await;
        assert_eq!(*shared.phase.borrow(), Phase::Draining);
        pages.check("GET", "/ready", 503, "not ready: draining\n").await;
        pages.check("POST", "/drain_listeners", 200, "OK\n").await;
        assert_eq!(*shared.phase.borrow(), Phase::Closing);
        pages.check("GET", "/quitquitquit", 405, "POST").await;
        assert!(!stop.is_cancelled());
        pages.check("POST", "/quitquitquit", 200, "OK\n").await;
        assert!(stop.is_cancelled());
        over.cancel();
        serving.await.unwrap();
    });
}
