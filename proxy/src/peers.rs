//! Who the other workload is, as sidecars tell each other: `x-envoy-peer-metadata` and its id.
//!
//! The value is a base64 protobuf struct (Istio's); it is decoded once for each id and worker. What a header says is
//! used for metrics only, never for a decision.
//! Never here: identities, which come from certificates. Used by `http::gate` and `http::rewrite`.

use std::{cell::RefCell, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use hashbrown::{Equivalent, HashMap};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};

use crate::{
    env::NodeConfig,
    metrics::{Metrics, Party, PartyId},
};

/// The id of the sender.
pub(crate) const METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");
/// What the sender is.
pub(crate) const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");

/// Peers remembered by one worker; past it all are forgotten.
const PEERS_MAX: usize = 10_000;
/// Longest value that is decoded.
const METADATA_BYTES_MAX: usize = 16 * 1024;

/// Peers by id and principal.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: RefCell<HashMap<(HeaderValue, Option<String>), PartyId, foldhash::fast::RandomState>>,
    by_principal: RefCell<HashMap<String, PartyId, foldhash::fast::RandomState>>,
}

/// A key of [`Peers::known`], borrowed.
#[derive(Hash)]
struct Said<'s>(&'s HeaderValue, Option<&'s String>);

impl Equivalent<(HeaderValue, Option<String>)> for Said<'_> {
    fn equivalent(&self, (id, principal): &(HeaderValue, Option<String>)) -> bool {
        self.0 == id && self.1 == principal.as_ref()
    }
}

impl Peers {
    /// Takes what the peer says of itself out of the headers; gives the party it is.
    pub(crate) fn read(&self, headers: &mut HeaderMap, principal: Option<&String>, metrics: &Metrics) -> PartyId {
        let metadata = headers.remove(METADATA);
        let Some(id) = headers.remove(METADATA_ID) else { return self.of_principal(principal, metrics) };
        if let Some(party) = self.known.borrow().get(&Said(&id, principal)) {
            return *party;
        }
        let party = metadata.and_then(|value| decode(&value)).unwrap_or_default();
        let named = principal.cloned().unwrap_or_default();
        let party = metrics.party(&Party { principal: named, ..party });
        let mut known = self.known.borrow_mut();
        if known.len() >= PEERS_MAX {
            known.clear();
        }
        known.insert((id, principal.cloned()), party);
        party
    }

    /// The party of a peer that proved who it is and says nothing more.
    pub(crate) fn of_principal(&self, principal: Option<&String>, metrics: &Metrics) -> PartyId {
        let Some(principal) = principal else { return PartyId::default() };
        if let Some(party) = self.by_principal.borrow().get(principal) {
            return *party;
        }
        let party = metrics.party(&Party { principal: principal.clone(), ..Party::default() });
        let mut known = self.by_principal.borrow_mut();
        if known.len() >= PEERS_MAX {
            known.clear();
        }
        known.insert(principal.clone(), party);
        party
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

/// What we say of ourselves.
pub(crate) fn encode(node: &NodeConfig) -> String {
    let labels: BTreeMap<String, Value> = node.labels.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    let fields = BTreeMap::from([
        ("CLUSTER_ID".to_owned(), text(&node.cluster_id)),
        ("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(Struct { fields: labels })) }),
        ("NAME".to_owned(), text(&node.name)),
        ("NAMESPACE".to_owned(), text(&node.namespace)),
        ("WORKLOAD_NAME".to_owned(), text(&node.workload)),
    ]);
    STANDARD.encode(Struct { fields }.encode_to_vec())
}

/// Ourselves, as labels show us.
pub(crate) fn own(node: &NodeConfig, principal: &str) -> Party {
    let label = |name: &str| node.labels.get(name).cloned();
    party(label, &node.workload, &node.namespace, &node.cluster_id, principal)
}

fn party(
    label: impl Fn(&str) -> Option<String>,
    workload: &str,
    namespace: &str,
    cluster: &str,
    principal: &str,
) -> Party {
    let app = label("app");
    let version = label("version");
    let canonical_service = label("service.istio.io/canonical-name").or_else(|| app.clone());
    let canonical_revision = label("service.istio.io/canonical-revision").or_else(|| version.clone());
    Party {
        canonical_service: canonical_service.unwrap_or_else(|| workload.to_owned()),
        canonical_revision: canonical_revision.unwrap_or_default(),
        workload: workload.to_owned(),
        namespace: namespace.to_owned(),
        principal: principal.to_owned(),
        app: app.unwrap_or_default(),
        version: version.unwrap_or_default(),
        cluster: cluster.to_owned(),
    }
}

fn decode(value: &HeaderValue) -> Option<Party> {
    if value.len() > METADATA_BYTES_MAX {
        return None;
    }
    let bytes = STANDARD.decode(value.as_bytes()).ok()?;
    let meta = Struct::decode(bytes.as_slice()).ok()?;
    let get = |name: &str| as_text(meta.fields.get(name)?);
    let labels = match meta.fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => labels.fields.clone(),
        _ => BTreeMap::new(),
    };
    let label = |name: &str| labels.get(name).and_then(as_text);
    let workload = get("WORKLOAD_NAME").or_else(|| get("NAME")).unwrap_or_default();
    Some(party(label, &workload, &get("NAMESPACE").unwrap_or_default(), &get("CLUSTER_ID").unwrap_or_default(), ""))
}

fn as_text(value: &Value) -> Option<String> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use api::spec::ProxyKind;

    use super::*;

    fn node() -> NodeConfig {
        NodeConfig {
            kind: ProxyKind::Sidecar,
            name: "web-1".into(),
            namespace: "shop".into(),
            service_account: "web".into(),
            address: IpAddr::from([10, 0, 0, 1]),
            domain: "cluster.local".into(),
            cluster_id: "east".into(),
            workload: "web-v1".into(),
            labels: BTreeMap::from([("app".into(), "web".into()), ("version".into(), "v1".into())]),
            proxy_header: false,
            metadata: serde_json::Map::new(),
        }
    }

    #[test]
    fn what_we_say_of_ourselves_reads_back() {
        let value = HeaderValue::from_str(&encode(&node())).unwrap();
        assert_eq!(decode(&value).unwrap(), own(&node(), ""));
    }

    #[test]
    fn the_headers_are_taken_out_and_decoded_once() {
        let (peers, metrics) = (Peers::default(), Metrics::default());
        let principal = "cluster.local/ns/shop/sa/web".to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(METADATA_ID, HeaderValue::from_static("a"));
        headers.insert(METADATA, HeaderValue::from_str(&encode(&node())).unwrap());
        let first = peers.read(&mut headers, Some(&principal), &metrics);
        assert!(headers.is_empty());
        headers.insert(METADATA_ID, HeaderValue::from_static("a"));
        assert_eq!(peers.read(&mut headers, Some(&principal), &metrics), first);
        assert_eq!(first, metrics.party(&own(&node(), &principal)));
    }

    #[test]
    fn nonsense_is_the_unknown_workload() {
        assert_eq!(decode(&HeaderValue::from_static("not base64!")), None);
    }
}
