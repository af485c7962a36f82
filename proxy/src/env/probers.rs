//! Reads the probes and the metrics address that the injector moved from the application to us.
//!
//! `ISTIO_KUBE_APP_PROBERS` maps `/app-health/CONTAINER/KIND` to a Kubernetes probe; `ISTIO_PROMETHEUS_ANNOTATIONS` holds
//! the pod's own `prometheus.io/*` annotations.
//! Never here: probing. Called by `env`; used by `pod`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

/// One probe to answer for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prober {
    pub(crate) check: Check,
    pub(crate) timeout: Duration,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// GET; any status that the kubelet takes as good.
    Http { tls: bool, port: u16, path: String, host: Option<String>, headers: Vec<(String, String)> },
    /// A connection.
    Tcp { port: u16 },
    /// gRPC health check.
    Grpc { port: u16, service: String },
}

/// Where the application's own metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppMetrics {
    pub(crate) port: u16,
    pub(crate) path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProber {
    http_get: Option<RawHttp>,
    tcp_socket: Option<RawTcp>,
    grpc: Option<RawGrpc>,
    #[serde(default)]
    timeout_seconds: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    #[serde(default)]
    path: String,
    port: Value,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<RawHeader>,
}

#[derive(Deserialize)]
struct RawHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct RawTcp {
    port: Value,
}

#[derive(Deserialize)]
struct RawGrpc {
    port: Value,
    #[serde(default)]
    service: Option<String>,
}

fn port(raw: &Value) -> Option<u16> {
    match raw {
        Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
    .filter(|p| *p != 0)
}

/// Reads `ISTIO_KUBE_APP_PROBERS`.
pub(crate) fn read(text: Option<&str>, errors: &mut Vec<String>) -> BTreeMap<String, Prober> {
    const NAME: &str = "ISTIO_KUBE_APP_PROBERS";
    let mut probers = BTreeMap::new();
    let Some(text) = text else { return probers };
    let raw: BTreeMap<String, RawProber> = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            errors.push(format!("{NAME}: not a map of probes: {error}"));
            return probers;
        }
    };
    for (path, raw) in raw {
        let mut bad = |field: &str| errors.push(format!("{NAME}: {path}: {field}: expected a port number"));
        let check = if let Some(http) = raw.http_get {
            let Some(port) = port(&http.port) else {
                bad("httpGet.port");
                continue;
            };
            let slash = if http.path.starts_with('/') { "" } else { "/" };
            Check::Http {
                tls: http.scheme.eq_ignore_ascii_case("https"),
                port,
                path: format!("{slash}{}", http.path),
                host: Some(http.host).filter(|h| !h.is_empty()),
                headers: http.http_headers.into_iter().map(|h| (h.name, h.value)).collect(),
            }
        } else if let Some(tcp) = raw.tcp_socket {
            let Some(port) = port(&tcp.port) else {
                bad("tcpSocket.port");
                continue;
            };
            Check::Tcp { port }
        } else if let Some(grpc) = raw.grpc {
            let Some(port) = port(&grpc.port) else {
                bad("grpc.port");
                continue;
            };
            Check::Grpc { port, service: grpc.service.unwrap_or_default() }
        } else {
            errors.push(format!("{NAME}: {path}: expected httpGet, tcpSocket or grpc"));
            continue;
        };
        let timeout = Duration::from_secs(raw.timeout_seconds.clamp(1, 600));
        probers.insert(path, Prober { check, timeout });
    }
    probers
}

#[derive(Deserialize)]
struct RawMetrics {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    path: String,
    /// Where there is more than one place to scrape; the first is `port` and `path` again.
    #[serde(default)]
    targets: Vec<RawTarget>,
}

#[derive(Deserialize)]
struct RawTarget {
    port: String,
    #[serde(default)]
    path: String,
}

/// Reads `ISTIO_PROMETHEUS_ANNOTATIONS`: `{"scrape":"true","path":"/metrics","port":"9080"}`.
pub(crate) fn read_metrics(text: Option<&str>, errors: &mut Vec<String>) -> Vec<AppMetrics> {
    const NAME: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
    let Some(text) = text else { return Vec::new() };
    let raw: RawMetrics = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            errors.push(format!("{NAME}: not what the injector writes: {error}"));
            return Vec::new();
        }
    };
    if raw.scrape != "true" {
        return Vec::new();
    }
    let only = RawTarget { port: raw.port, path: raw.path };
    let targets = if raw.targets.is_empty() { vec![only] } else { raw.targets };
    let mut found = Vec::new();
    for RawTarget { port, path } in targets {
        let number = if port.is_empty() { "80" } else { &port };
        let Ok(number) = number.parse() else {
            errors.push(format!("{NAME}: port: {port:?} is not a port"));
            continue;
        };
        let path = if path.is_empty() { "/metrics" } else { &path };
        let slash = if path.starts_with('/') { "" } else { "/" };
        found.push(AppMetrics { port: number, path: format!("{slash}{path}") });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_kinds_of_probe_are_read() {
        let text = r#"{"/app-health/a/livez":{"httpGet":{"path":"x","port":80,"scheme":"HTTPS"},"timeoutSeconds":3},
            "/app-health/a/readyz":{"tcpSocket":{"port":"90"}},"/app-health/a/startupz":{"grpc":{"port":7}}}"#;
        let mut errors = Vec::new();
        let probers = read(Some(text), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let http = &probers["/app-health/a/livez"];
        assert_eq!(http.timeout, Duration::from_secs(3));
        assert!(matches!(&http.check, Check::Http { tls: true, port: 80, path, .. } if path == "/x"));
        assert_eq!(probers["/app-health/a/readyz"].check, Check::Tcp { port: 90 });
    }

    #[test]
    fn a_named_port_is_refused_with_its_path() {
        let mut errors = Vec::new();
        read(Some(r#"{"/app-health/a/livez":{"httpGet":{"port":"web"}}}"#), &mut errors);
        assert!(errors[0].contains("/app-health/a/livez: httpGet.port"), "{errors:?}");
    }

    #[test]
    fn metrics_are_scraped_only_where_the_pod_says_so() {
        let mut errors = Vec::new();
        assert!(read_metrics(Some(r#"{"scrape":"false"}"#), &mut errors).is_empty());
        let found = read_metrics(Some(r#"{"scrape":"true","port":"9080"}"#), &mut errors);
        assert_eq!(found, [AppMetrics { port: 9080, path: "/metrics".into() }]);
        let several =
            r#"{"scrape":"true","port":"1","path":"","targets":[{"port":"1","path":"a"},{"port":"2","path":"/b"}]}"#;
        let found = read_metrics(Some(several), &mut errors);
        assert_eq!(found.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
        assert!(errors.is_empty(), "{errors:?}");
    }
}
