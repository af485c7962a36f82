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
mod node;
pub(crate) mod probers;
pub(crate) mod values;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

use flags::ProxyFlags;
use node::Metadata;
pub(crate) use node::NodeConfig;
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

        let node = node::read(flags, &mut read, &Metadata { all, nested: &nested, mesh: &mesh }, &file);
        let source = Source::read(&mut read, &mesh);
        let identity = IdentityConfig::read(&mut read);
        let ports = Ports::read(&mut read, &mesh);
        let drain = Drain::read(&mut read, &mesh);
        let workers = workers(flags, &mut read, &mesh);
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

impl Source {
    fn read(read: &mut Reader<'_>, mesh: &Map<String, Value>) -> Self {
        if let Some(path) = read.text("PROXY_SPEC") {
            return Self::File(path.into());
        }
        let address = read
            .text("PILOT_ADDR")
            .or_else(|| mesh.get("discoveryAddress").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| "istiod.istio-system.svc:15012".to_owned());
        let tls = read.flag("PILOT_TLS").unwrap_or(!address.ends_with(":15010"));
        let name = read.text("PILOT_SAN").unwrap_or_else(|| host_of(&address).to_owned());
        Self::Pilot { address, tls, name }
    }
}

impl IdentityConfig {
    fn read(read: &mut Reader<'_>) -> Self {
        if read.flag("PROXY_PLAINTEXT").unwrap_or(false) {
            Self::Nothing
        } else if read.flag("FILE_MOUNTED_CERTS").unwrap_or(false) {
            Self::Files { folder: read.path("PROV_CERT", "/etc/certs") }
        } else {
            Self::Citadel {
                address: read.text("CA_ADDR").unwrap_or_else(|| "istio-citadel.istio-system.svc:8060".to_owned()),
                name: read.text("CA_SAN"),
                token: read.path("TOKEN_FILE", TOKEN_FILE),
                roots: read.path("CA_ROOT_FILE", CA_ROOT_FILE),
            }
        }
    }
}

impl Ports {
    fn read(read: &mut Reader<'_>, mesh: &Map<String, Value>) -> Self {
        let mesh_port = |name: &str, default: u16| {
            mesh.get(name).and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(default)
        };
        Self {
            admin: read.number("PROXY_ADMIN_PORT").unwrap_or_else(|| mesh_port("proxyAdminPort", 15000)),
            status: read.number("PROXY_STATUS_PORT").unwrap_or_else(|| mesh_port("statusPort", 15020)),
            ready: read.number("PROXY_READY_PORT").unwrap_or(15021),
            metrics: read.number("ENVOY_PROMETHEUS_PORT").unwrap_or(15090),
        }
    }
}

impl Drain {
    fn read(read: &mut Reader<'_>, mesh: &Map<String, Value>) -> Self {
        let mut mesh_time = |name: &str, default: Duration| match mesh.get(name).and_then(Value::as_str) {
            None => default,
            Some(text) => values::duration(text).unwrap_or_else(|| {
                read.errors.push(format!("PROXY_CONFIG: {name}: {text:?} is not a duration such as 5s"));
                default
            }),
        };
        let termination = mesh_time("terminationDrainDuration", Duration::from_secs(5));
        let connections = mesh_time("drainDuration", Duration::from_secs(45));
        Self {
            termination: read.duration("TERMINATION_DRAIN_DURATION_SECONDS").unwrap_or(termination),
            connections,
            on_zero_connections: read.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS").unwrap_or(false),
            minimum: read.duration("MINIMUM_DRAIN_DURATION").unwrap_or(Duration::from_secs(5)),
        }
    }
}

/// How many workers there are: what is asked for, else Istio's rule: as many as the CPU limit allows, else two.
fn workers(flags: &ProxyFlags, read: &mut Reader<'_>, mesh: &Map<String, Value>) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match flags.concurrency.or_else(|| mesh.get("concurrency").and_then(Value::as_u64)) {
        Some(0) => cpus,
        Some(n) => usize::try_from(n).unwrap_or(1).clamp(1, 64),
        None => read.number::<usize>("ISTIO_CPU_LIMIT").filter(|n| *n > 0).unwrap_or(2).min(cpus).max(1),
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

#[cfg(test)]
mod tests {
    use api::spec::ProxyKind;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let all: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let flags = ProxyFlags::parse(ProxyKind::Sidecar, &["--domain".into(), "shop.svc.mesh.test".into()]);
        Config::read(
            &flags,
            |name| all.get(name).cloned(),
            &all,
            |path| (path == node::LABELS_FILE).then(|| "app=\"reviews\"\nversion=\"v1\"\n".to_owned()),
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
