//! Reads the process's environment and arguments, once, into checked values.
//!
//! All mistakes are reported together, before any port is bound. The names are those that Istio's injection sets, so the
//! same environment also runs the proxy without Kubernetes: two namespaces, a token file and a root certificate suffice.
//! Never here: what a value is used for.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `POD_NAME`, `POD_NAMESPACE`, `SERVICE_ACCOUNT` | who we are | host name, `default`, `default` |
//! | `INSTANCE_IP` | our address | the first address of the machine that is not loopback |
//! | `PROXY_CONFIG` | mesh settings of this pod, JSON | `{}` |
//! | `PILOT_ADDR` | pilot; overrides `discoveryAddress` | `istiod.istio-system.svc:15012` |
//! | `CA_ADDR` | citadel | `istio-citadel.istio-system.svc:8060` |
//! | `PILOT_TLS` | `false`: talk to pilot in the clear (port 15010) | by the port |
//! | `TRUST_DOMAIN` | trust domain of the mesh | `cluster.local` |
//! | `ISTIO_META_*` | node metadata; `CLUSTER_ID`, `WORKLOAD_NAME`, `OWNER`, … | |
//! | `ISTIO_METAJSON_LABELS` | more labels, JSON | `{}` |
//! | `ISTIO_KUBE_APP_PROBERS` | probes to answer for the application, JSON | `{}` |
//! | `ISTIO_PROMETHEUS_ANNOTATIONS` | where the application's metrics are, JSON | none |
//! | `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`, `MINIMUM_DRAIN_DURATION` | how to end | `false`, `5s` |
//! | `PROXY_SPEC` | file to run from instead of pilot: an `api::spec::Spec` as JSON, read again when it changes | none |
//! | `PROXY_PLAINTEXT` | `true`: run without an identity (no citadel, no mTLS) | `false` |
//! | `PILOT_SAN`, `CA_SAN` | DNS names that pilot and citadel must prove | the hosts of their addresses |
//! | `FILE_MOUNTED_CERTS`, `PROV_CERT` | `true`: identity from files in this folder, not from citadel | `false`, `/etc/certs` |
//! | `TOKEN_FILE`, `CA_ROOT_FILE`, `POD_LABELS_FILE` | mounted files | Istio's paths |
//!
//! Never here: opening sockets, or deciding what to do. Called by `main`; tests pass a map.

pub(crate) mod flags;
pub(crate) mod probers;
pub(crate) mod values;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use api::spec::ProxyKind;
use serde_json::{Map, Value};

use flags::ProxyFlags;
use probers::{AppMetrics, Prober};
use values::Reader;

/// What one proxy process needs to know; each part goes to the module that uses it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) node: NodeConfig,
    pub(crate) source: Source,
    pub(crate) identity: IdentityConfig,
    pub(crate) trust_domain: String,
    pub(crate) ports: Ports,
    pub(crate) drain: Drain,
    pub(crate) workers: usize,
    pub(crate) probers: BTreeMap<String, Prober>,
    pub(crate) app_metrics: Vec<AppMetrics>,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
}

/// Who we are, as pilot is told.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    pub(crate) kind: ProxyKind,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) address: IpAddr,
    pub(crate) domain: String,
    pub(crate) cluster_id: String,
    pub(crate) workload: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Connections begin with a header of the PROXY protocol.
    pub(crate) proxy_header: bool,
    /// The whole node metadata, as Istio's agent sends it.
    pub(crate) metadata: Map<String, Value>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// From pilot.
    Pilot {
        /// `HOST:PORT`.
        address: String,
        /// Whether the connection is TLS.
        tls: bool,
        /// DNS name that it must prove.
        name: String,
    },
    /// From a file.
    File(PathBuf),
}

/// Where our certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentityConfig {
    /// From citadel, against a token.
    Citadel {
        /// `HOST:PORT`.
        address: String,
        /// DNS name that it must prove; none: the host of its address.
        name: Option<String>,
        /// Token file.
        token: PathBuf,
        /// Roots that citadel's and pilot's certificates chain to.
        roots: PathBuf,
    },
    /// From files, read again when they change.
    Files {
        /// Holds `cert-chain.pem`, `key.pem` and `root-cert.pem`.
        folder: PathBuf,
    },
    /// None: no mTLS.
    Nothing,
}

/// Ports of the pod itself; zero turns one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) admin: u16,
    pub(crate) status: u16,
    pub(crate) ready: u16,
    pub(crate) metrics: u16,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// After SIGTERM, how long it goes on serving.
    pub(crate) termination: Duration,
    /// Longest time for connections to end, once told to.
    pub(crate) connections: Duration,
    /// Whether it waits for the last connection instead of `termination`.
    pub(crate) on_zero_connections: bool,
    /// The shortest wait in that case.
    pub(crate) minimum: Duration,
}

/// Everything wrong with the environment and arguments.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct ConfigError(pub(crate) Vec<String>);

const TOKEN_FILE: &str = "/var/run/secrets/tokens/istio-token";
const CA_ROOT_FILE: &str = "/var/run/secrets/istio/root-cert.pem";
const LABELS_FILE: &str = "/etc/istio/pod/labels";

impl Config {
    /// Reads the whole configuration.
    ///
    /// # Errors
    /// Every value that is not what it should be, each with its variable's name.
    pub(crate) fn read(
        flags: &ProxyFlags,
        var: impl Fn(&str) -> Option<String>,
        all: &BTreeMap<String, String>,
        file: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut errors = flags.errors.clone();
        let mesh: Map<String, Value> = parse_json("PROXY_CONFIG", var("PROXY_CONFIG"), &mut errors).unwrap_or_default();
        // `proxyMetadata` of the mesh settings stands for environment variables; the process's own win.
        let nested: BTreeMap<String, String> = mesh
            .get("proxyMetadata")
            .and_then(Value::as_object)
            .map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
            .unwrap_or_default();
        let lookup = |name: &str| var(name).filter(|v| !v.is_empty()).or_else(|| nested.get(name).cloned());
        let mut read = Reader { var: &lookup, errors: &mut errors };

        let node = read_node(flags, &mut read, all, &nested, &mesh, &file);
        let source = match read.text("PROXY_SPEC") {
            Some(path) => Source::File(path.into()),
            None => {
                let address = read
                    .text("PILOT_ADDR")
                    .or_else(|| mesh.get("discoveryAddress").and_then(Value::as_str).map(str::to_owned))
                    .unwrap_or_else(|| "istiod.istio-system.svc:15012".to_owned());
                let tls = read.flag("PILOT_TLS").unwrap_or(!address.ends_with(":15010"));
                let name = read.text("PILOT_SAN").unwrap_or_else(|| host_of(&address).to_owned());
                Source::Pilot { address, tls, name }
            }
        };
        let identity = if read.flag("PROXY_PLAINTEXT").unwrap_or(false) {
            IdentityConfig::Nothing
        } else if read.flag("FILE_MOUNTED_CERTS").unwrap_or(false) {
            IdentityConfig::Files { folder: read.path("PROV_CERT", "/etc/certs") }
        } else {
            IdentityConfig::Citadel {
                address: read.text("CA_ADDR").unwrap_or_else(|| "istio-citadel.istio-system.svc:8060".to_owned()),
                name: read.text("CA_SAN"),
                token: read.path("TOKEN_FILE", TOKEN_FILE),
                roots: read.path("CA_ROOT_FILE", CA_ROOT_FILE),
            }
        };
        let mesh_port = |name: &str, default: u16| {
            mesh.get(name).and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(default)
        };
        let ports = Ports {
            admin: read.number("PROXY_ADMIN_PORT").unwrap_or_else(|| mesh_port("proxyAdminPort", 15000)),
            status: read.number("PROXY_STATUS_PORT").unwrap_or_else(|| mesh_port("statusPort", 15020)),
            ready: read.number("PROXY_READY_PORT").unwrap_or(15021),
            metrics: read.number("ENVOY_PROMETHEUS_PORT").unwrap_or(15090),
        };
        let mut mesh_time = |name: &str, default: Duration| match mesh.get(name).and_then(Value::as_str) {
            None => default,
            Some(text) => values::duration(text).unwrap_or_else(|| {
                read.errors.push(format!("PROXY_CONFIG: {name}: {text:?} is not a duration such as 5s"));
                default
            }),
        };
        let termination = mesh_time("terminationDrainDuration", Duration::from_secs(5));
        let connections = mesh_time("drainDuration", Duration::from_secs(45));
        let drain = Drain {
            termination: read.duration("TERMINATION_DRAIN_DURATION_SECONDS").unwrap_or(termination),
            connections,
            on_zero_connections: read.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS").unwrap_or(false),
            minimum: read.duration("MINIMUM_DRAIN_DURATION").unwrap_or(Duration::from_secs(5)),
        };
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = match flags.concurrency.or_else(|| mesh.get("concurrency").and_then(Value::as_u64)) {
            Some(0) => cpus,
            Some(n) => usize::try_from(n).unwrap_or(1).clamp(1, 64),
            // Istio's rule: as many as the CPU limit allows, else two.
            None => read.number::<usize>("ISTIO_CPU_LIMIT").filter(|n| *n > 0).unwrap_or(2).min(cpus).max(1),
        };
        let probers = probers::read(read.text("ISTIO_KUBE_APP_PROBERS").as_deref(), read.errors);
        let app_metrics = probers::read_metrics(read.text("ISTIO_PROMETHEUS_ANNOTATIONS").as_deref(), read.errors);
        let trust_domain = read.text("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".to_owned());
        let config = Self {
            node,
            source,
            identity,
            trust_domain,
            ports,
            drain,
            workers,
            probers,
            app_metrics,
            log_level: flags.log_level.clone(),
            log_json: flags.log_json,
        };
        if errors.is_empty() { Ok(config) } else { Err(ConfigError(errors)) }
    }
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']'])
}

fn parse_json(name: &str, text: Option<String>, errors: &mut Vec<String>) -> Option<Map<String, Value>> {
    let text = text.filter(|t| !t.trim().is_empty())?;
    match serde_json::from_str(&text) {
        Ok(map) => Some(map),
        Err(error) => {
            errors.push(format!("{name}: not a JSON object: {error}"));
            None
        }
    }
}

fn read_node(
    flags: &ProxyFlags,
    read: &mut Reader<'_>,
    all: &BTreeMap<String, String>,
    nested: &BTreeMap<String, String>,
    mesh: &Map<String, Value>,
    file: &impl Fn(&str) -> Option<String>,
) -> NodeConfig {
    let name = read.text("POD_NAME").or_else(|| file("/etc/hostname").map(|h| h.trim().to_owned()));
    let name = name.filter(|n| !n.is_empty()).unwrap_or_else(|| "proxy".to_owned());
    let namespace = read.text("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned());
    let service_account = read.text("SERVICE_ACCOUNT").unwrap_or_else(|| "default".to_owned());
    let address = match read.text("INSTANCE_IP") {
        Some(text) => text.parse().unwrap_or_else(|_| {
            read.errors.push(format!("INSTANCE_IP: {text:?} is not an IP address"));
            IpAddr::from([127, 0, 0, 1])
        }),
        None => flags.machine_address.unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    let labels_file = read.text("POD_LABELS_FILE").unwrap_or_else(|| LABELS_FILE.to_owned());
    let mut labels = file(&labels_file).map(|text| values::downward_labels(&text)).unwrap_or_default();
    if let Some(more) = parse_json("ISTIO_METAJSON_LABELS", read.text("ISTIO_METAJSON_LABELS"), read.errors) {
        labels.extend(more.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))));
    }
    let mut metadata = Map::new();
    for (key, value) in nested.iter().chain(all) {
        if let Some(key) = key.strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), Value::String(value.clone()));
        } else if let Some(key) = key.strip_prefix("ISTIO_METAJSON_")
            && let Ok(value) = serde_json::from_str(value)
        {
            metadata.insert(key.to_owned(), value);
        }
    }
    let meta_text = |metadata: &Map<String, Value>, key: &str| {
        metadata.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    let cluster_id = meta_text(&metadata, "CLUSTER_ID").unwrap_or_else(|| "Kubernetes".to_owned());
    let workload = meta_text(&metadata, "WORKLOAD_NAME")
        .or_else(|| labels.get("service.istio.io/workload-name").cloned())
        .unwrap_or_else(|| name.clone());
    let label_values: Map<String, Value> = labels.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
    for (key, value) in [
        ("NAME", name.as_str()),
        ("NAMESPACE", &namespace),
        ("SERVICE_ACCOUNT", &service_account),
        ("CLUSTER_ID", &cluster_id),
        ("WORKLOAD_NAME", &workload),
        ("INSTANCE_IPS", &address.to_string()),
        ("ISTIO_VERSION", env!("CARGO_PKG_VERSION")),
        ("PROXY_VERSION", concat!("ferromesh-", env!("CARGO_PKG_VERSION"))),
    ] {
        metadata.insert(key.to_owned(), Value::String(value.to_owned()));
    }
    metadata.insert("LABELS".to_owned(), Value::Object(label_values));
    metadata.insert("PROXY_CONFIG".to_owned(), Value::Object(mesh.clone()));
    let domain = flags
        .domain
        .as_deref()
        .and_then(|d| d.split_once(".svc.").map(|(_, domain)| domain.to_owned()))
        .filter(|d| !d.is_empty())
        .unwrap_or_else(|| "cluster.local".to_owned());
    NodeConfig {
        kind: flags.kind,
        name,
        namespace,
        service_account,
        address,
        domain,
        cluster_id,
        workload,
        labels,
        proxy_header: mesh.get("gatewayTopology").and_then(|at| at.get("proxyProtocol")).is_some_and(|v| !v.is_null()),
        metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let all: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let flags = ProxyFlags::parse(ProxyKind::Sidecar, &["--domain".into(), "shop.svc.mesh.test".into()]);
        Config::read(
            &flags,
            |name| all.get(name).cloned(),
            &all,
            |path| (path == LABELS_FILE).then(|| "app=\"reviews\"\nversion=\"v1\"\n".to_owned()),
        )
    }

    #[test]
    fn an_injected_pod_is_understood() {
        let config = read(&[
            ("POD_NAME", "reviews-1"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "reviews"),
            ("INSTANCE_IP", "198.18.0.7"),
            ("CA_ADDR", "citadel:8060"),
            ("PROXY_CONFIG", r#"{"discoveryAddress":"pilot:15012","terminationDrainDuration":"7s","concurrency":1}"#),
            ("ISTIO_META_CLUSTER_ID", "east"),
            ("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
            ("ISTIO_KUBE_APP_PROBERS", r#"{"/app-health/app/livez":{"httpGet":{"path":"/live","port":9080}}}"#),
        ])
        .unwrap();
        assert_eq!(config.source, Source::Pilot { address: "pilot:15012".into(), tls: true, name: "pilot".into() });
        assert_eq!(config.drain.termination, Duration::from_secs(7));
        assert_eq!(config.node.labels["version"], "v1");
        assert_eq!((config.node.cluster_id.as_str(), config.node.workload.as_str()), ("east", "reviews-v1"));
        assert_eq!(config.node.domain, "mesh.test");
        assert_eq!(config.node.metadata["LABELS"]["app"], "reviews");
        assert_eq!(config.probers.len(), 1);
        assert_eq!(config.workers, 1);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error =
            read(&[("INSTANCE_IP", "x"), ("PROXY_CONFIG", "["), ("MINIMUM_DRAIN_DURATION", "soon")]).unwrap_err();
        assert_eq!(error.0.len(), 3, "{error}");
    }

    #[test]
    fn mesh_metadata_stands_for_variables_and_the_process_wins() {
        let nested = r#"{"proxyMetadata":{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS":"true","TRUST_DOMAIN":"a"}}"#;
        let config = read(&[("PROXY_CONFIG", nested), ("TRUST_DOMAIN", "b")]).unwrap();
        assert!(config.drain.on_zero_connections);
        assert_eq!(config.trust_domain, "b");
    }
}
