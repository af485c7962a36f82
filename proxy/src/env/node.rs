//! Who we are: read from the pod's variables, its labels file and the metadata that Istio's agent would send.
//!
//! Never here: what pilot makes of it. Called by `env`.

use std::{collections::BTreeMap, net::IpAddr};

use api::spec::ProxyKind;
use serde_json::{Map, Value};

use super::{
    flags::ProxyFlags,
    parse_json,
    values::{self, Reader},
};

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

/// What the node's metadata is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata<'a> {
    /// The process's variables.
    pub(super) all: &'a BTreeMap<String, String>,
    /// Those of the mesh settings; the process's own win.
    pub(super) nested: &'a BTreeMap<String, String>,
    /// The mesh settings.
    pub(super) mesh: &'a Map<String, Value>,
}

/// The labels as the downward API writes them.
pub(super) const LABELS_FILE: &str = "/etc/istio/pod/labels";

impl Metadata<'_> {
    /// What variables say of it.
    fn read(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        for (key, value) in self.nested.iter().chain(self.all) {
            if let Some(key) = key.strip_prefix("ISTIO_META_") {
                metadata.insert(key.to_owned(), Value::String(value.clone()));
            } else if let Some(key) = key.strip_prefix("ISTIO_METAJSON_")
                && let Ok(value) = serde_json::from_str(value)
            {
                metadata.insert(key.to_owned(), value);
            }
        }
        metadata
    }
}

fn address(flags: &ProxyFlags, read: &mut Reader<'_>) -> IpAddr {
    let unknown = IpAddr::from([127, 0, 0, 1]);
    match read.text("INSTANCE_IP") {
        Some(text) => text.parse().unwrap_or_else(|_| {
            read.errors.push(format!("INSTANCE_IP: {text:?} is not an IP address"));
            unknown
        }),
        None => flags.machine_address.unwrap_or(unknown),
    }
}

fn labels(read: &mut Reader<'_>, file: &impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let labels_file = read.text("POD_LABELS_FILE").unwrap_or_else(|| LABELS_FILE.to_owned());
    let mut labels = file(&labels_file).map(|text| values::downward_labels(&text)).unwrap_or_default();
    if let Some(more) = parse_json("ISTIO_METAJSON_LABELS", read.text("ISTIO_METAJSON_LABELS"), read.errors) {
        labels.extend(more.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))));
    }
    labels
}

/// The domain of the mesh: what follows `.svc.` in the proxy's own.
fn domain(flags: &ProxyFlags) -> String {
    flags
        .domain
        .as_deref()
        .and_then(|d| d.split_once(".svc.").map(|(_, domain)| domain.to_owned()))
        .filter(|d| !d.is_empty())
        .unwrap_or_else(|| "cluster.local".to_owned())
}

/// Reads who we are.
pub(super) fn read(
    flags: &ProxyFlags,
    read: &mut Reader<'_>,
    from: &Metadata<'_>,
    file: &impl Fn(&str) -> Option<String>,
) -> NodeConfig {
    let name = read.text("POD_NAME").or_else(|| file("/etc/hostname").map(|h| h.trim().to_owned()));
    let name = name.filter(|n| !n.is_empty()).unwrap_or_else(|| "proxy".to_owned());
    let namespace = read.text("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned());
    let service_account = read.text("SERVICE_ACCOUNT").unwrap_or_else(|| "default".to_owned());
    let address = address(flags, read);
    let labels = labels(read, file);
    let mut metadata = from.read();
    let meta_text = |metadata: &Map<String, Value>, key: &str| {
        metadata.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    let cluster_id = meta_text(&metadata, "CLUSTER_ID").unwrap_or_else(|| "Kubernetes".to_owned());
    let workload = meta_text(&metadata, "WORKLOAD_NAME")
        .or_else(|| labels.get("service.istio.io/workload-name").cloned())
        .unwrap_or_else(|| name.clone());
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
    let label_values: Map<String, Value> = labels.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
    metadata.insert("LABELS".to_owned(), Value::Object(label_values));
    metadata.insert("PROXY_CONFIG".to_owned(), Value::Object(from.mesh.clone()));
    let topology = from.mesh.get("gatewayTopology");
    NodeConfig {
        kind: flags.kind,
        name,
        namespace,
        service_account,
        address,
        domain: domain(flags),
        cluster_id,
        workload,
        labels,
        proxy_header: topology.and_then(|at| at.get("proxyProtocol")).is_some_and(|v| !v.is_null()),
        metadata,
    }
}
