//! Reads who asks from an xDS node, and writes it.
//!
//! A node id is `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`; the rest is Istio's metadata keys (`LABELS`,
//! `SERVICE_ACCOUNT`, `CLUSTER_ID`, `WORKLOAD_NAME`, `GENERATOR`) and two of ours.
//! Never here: whether the caller may be who it says; pilot asks its certificate. Called by pilot (read) and proxy (write).

use std::{collections::BTreeMap, net::IpAddr};

use api::spec::{Node, ProxyKind};
use prost_types::{Struct, Value, value::Kind};

use crate::discovery;

/// Metadata key of our own proxies: the version of the private protocol between them.
pub const OURS: &str = "FERROMESH";
/// Metadata key: virtual hosts are taken as resources of their own.
pub const ON_DEMAND_HOSTS: &str = "FERROMESH_ON_DEMAND_HOSTS";

/// Why a node cannot be read; the client is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The id has another form.
    #[error("node id {0:?} is not KIND~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN")]
    Form(String),
    /// Kinds that are not served here.
    #[error("node id {id:?}: kind {kind:?} is not served; expected sidecar or router")]
    Kind {
        /// The id.
        id: String,
        /// The kind in it.
        kind: String,
    },
    /// The second part is no address.
    #[error("node id {0:?}: the second part is not an IP address")]
    Address(String),
}

/// Who the node says it is.
///
/// # Errors
/// The node id is not of Istio's form.
pub fn read(node: &discovery::Node) -> Result<Node, NodeError> {
    let form = || NodeError::Form(node.id.clone());
    let parts: Vec<&str> = node.id.split('~').collect();
    let [kind, address, pod, domain] = parts.as_slice() else { return Err(form()) };
    let kind = match *kind {
        "sidecar" => ProxyKind::Sidecar,
        "router" => ProxyKind::Gateway,
        other => return Err(NodeError::Kind { id: node.id.clone(), kind: other.to_owned() }),
    };
    let address: IpAddr = address.parse().map_err(|_| NodeError::Address(node.id.clone()))?;
    let (name, namespace) = pod.rsplit_once('.').ok_or_else(form)?;
    if name.is_empty() || namespace.is_empty() {
        return Err(form());
    }
    let meta = |key: &str| node.metadata.as_ref().and_then(|meta| meta.fields.get(key));
    let text = |key: &str| meta(key).and_then(as_text);
    let namespace = text("NAMESPACE").unwrap_or_else(|| namespace.to_owned());
    let domain = domain.strip_prefix(&format!("{namespace}.svc.")).filter(|rest| !rest.is_empty());
    let name = text("NAME").unwrap_or_else(|| name.to_owned());
    Ok(Node {
        kind,
        id: node.id.clone(),
        service_account: service_account(node).unwrap_or_else(|| "default".to_owned()),
        address,
        labels: meta("LABELS").map(as_map).unwrap_or_default(),
        domain: domain.unwrap_or("cluster.local").to_owned(),
        cluster_id: text("CLUSTER_ID").unwrap_or_else(|| "Kubernetes".to_owned()),
        workload: text("WORKLOAD_NAME").unwrap_or_else(|| name.clone()),
        on_demand_hosts: text(ON_DEMAND_HOSTS).is_some_and(|value| value == "true"),
        ours: text(OURS).is_some(),
        proxy_header: meta("PROXY_CONFIG")
            .and_then(|config| part(part(config, "gatewayTopology")?, "proxyProtocol"))
            .is_some_and(|value| !matches!(value.kind, None | Some(Kind::NullValue(_)))),
        proxyless: text("GENERATOR").is_some_and(|value| value == "grpc") || node.user_agent_name.starts_with("gRPC"),
        name,
        namespace,
    })
}

/// The node as our proxy sends it. `version` is that of the program.
pub fn write(node: &Node, version: &str) -> discovery::Node {
    let mut fields = BTreeMap::new();
    let mut put = |key: &str, value: Kind| fields.insert(key.to_owned(), Value { kind: Some(value) });
    let text = |text: &str| Kind::StringValue(text.to_owned());
    put("NAME", text(&node.name));
    put("NAMESPACE", text(&node.namespace));
    put("SERVICE_ACCOUNT", text(&node.service_account));
    put("CLUSTER_ID", text(&node.cluster_id));
    put("WORKLOAD_NAME", text(&node.workload));
    put("INSTANCE_IPS", text(&node.address.to_string()));
    put("ISTIO_VERSION", text(version));
    let labels = node.labels.iter().map(|(key, value)| (key.clone(), Value { kind: Some(text(value)) })).collect();
    put("LABELS", Kind::StructValue(Struct { fields: labels }));
    if node.ours {
        put(OURS, text("1"));
    }
    if node.proxy_header {
        let holding = |name: &str, kind| Value {
            kind: Some(Kind::StructValue(Struct { fields: [(name.to_owned(), kind)].into() })),
        };
        let empty = Value { kind: Some(Kind::StructValue(Struct::default())) };
        put(
            "PROXY_CONFIG",
            Kind::StructValue(Struct {
                fields: [("gatewayTopology".to_owned(), holding("proxyProtocol", empty))].into(),
            }),
        );
    }
    if node.on_demand_hosts {
        put(ON_DEMAND_HOSTS, text("true"));
    }
    if node.proxyless {
        put("GENERATOR", text("grpc"));
    }
    discovery::Node {
        id: node.id.clone(),
        cluster: format!("{}.{}", node.workload, node.namespace),
        metadata: Some(Struct { fields }),
        locality: None,
        user_agent_name: if node.ours { "ferromesh".to_owned() } else { String::new() },
        user_agent_version: version.to_owned(),
        client_features: Vec::new(),
    }
}

/// The service account that the node says it has; Kubernetes' `default` where it says nothing.
pub fn service_account(node: &discovery::Node) -> Option<String> {
    node.metadata.as_ref().and_then(|meta| meta.fields.get("SERVICE_ACCOUNT")).and_then(as_text)
}

/// The version of the program that the node says it runs: `ISTIO_VERSION`, else that of its user agent.
pub fn version(node: &discovery::Node) -> String {
    let stated = node.metadata.as_ref().and_then(|meta| meta.fields.get("ISTIO_VERSION")).and_then(as_text);
    stated.unwrap_or_else(|| node.user_agent_version.clone())
}

fn as_text(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Kind::BoolValue(value) => Some(value.to_string()),
        Kind::NumberValue(value) => Some(value.to_string()),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    }
}

/// A field of a value that is an object.
fn part<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value.kind.as_ref()? {
        Kind::StructValue(fields) => fields.fields.get(name),
        Kind::NullValue(_) | Kind::NumberValue(_) | Kind::StringValue(_) | Kind::BoolValue(_) | Kind::ListValue(_) => {
            None
        }
    }
}

fn as_map(value: &Value) -> BTreeMap<String, String> {
    match &value.kind {
        Some(Kind::StructValue(map)) => {
            map.fields.iter().filter_map(|(key, value)| Some((key.clone(), as_text(value)?))).collect()
        }
        Some(
            Kind::NullValue(_) | Kind::NumberValue(_) | Kind::StringValue(_) | Kind::BoolValue(_) | Kind::ListValue(_),
        )
        | None => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> discovery::Node {
        discovery::Node { id: id.to_owned(), ..Default::default() }
    }

    #[test]
    fn what_our_proxy_writes_reads_back() {
        let mut ours = read(&node("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local")).unwrap();
        ours.service_account = "web".into();
        ours.labels.insert("app".into(), "web".into());
        ours.workload = "web-v1".into();
        ours.ours = true;
        ours.on_demand_hosts = true;
        ours.proxy_header = true;
        let written = write(&ours, "0.1.0");
        assert_eq!(read(&written).unwrap(), ours);
        assert_eq!(version(&written), "0.1.0");
    }

    #[test]
    fn the_id_alone_is_enough() {
        let read = read(&node("router~10.0.0.1~a.b.istio-system~istio-system.svc.example.org")).unwrap();
        assert_eq!(
            (read.kind, read.name.as_str(), read.namespace.as_str()),
            (ProxyKind::Gateway, "a.b", "istio-system")
        );
        assert_eq!((read.domain.as_str(), read.service_account.as_str()), ("example.org", "default"));
    }

    #[test]
    fn ids_of_another_form_are_refused() {
        for bad in [
            "",
            "sidecar~10.0.0.1~web.shop",
            "sidecar~x~web.shop~d",
            "ztunnel~10.0.0.1~web.shop~d",
            "sidecar~::1~web~d",
        ] {
            assert!(read(&node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grpc_client_is_proxyless() {
        let mut theirs = node("sidecar~10.0.0.1~web.shop~shop.svc.cluster.local");
        theirs.user_agent_name = "gRPC C-core linux".into();
        assert!(read(&theirs).unwrap().proxyless);
    }
}
