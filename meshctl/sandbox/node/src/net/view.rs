//! Services and their endpoints, as rules, names and relays need them.
//!
//! Pure: keeps the stored objects, gives one view of all. Never here: watching, nft, sockets.
//! Fed by `services`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::rules::{Backends, Front, Rules, Transport};
use super::{API_ADDRESS, DNS_ADDRESS, GATEWAY_ADDRESS};

const AFFINITY_SECONDS: u32 = 10_800;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// How a Service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By its own address.
    Address(Ipv4Addr),
    /// By its endpoints' addresses.
    Headless,
    /// Under another name.
    External(String),
}

/// A Service with who answers for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) external: Vec<Ipv4Addr>,
    pub(crate) load_balancer: bool,
    /// The address that its status already has.
    pub(crate) balancer_address: Option<Ipv4Addr>,
    pub(crate) ports: Vec<Port>,
    pub(crate) ends: Vec<End>,
    pub(crate) affinity: Option<u32>,
}

/// One of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) transport: Transport,
    pub(crate) number: u16,
    pub(crate) node_port: Option<u16>,
    pub(crate) backends: Vec<(Ipv4Addr, u16)>,
}

/// An address that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) address: Ipv4Addr,
    pub(crate) hostname: Option<String>,
}

/// All stored Services and slices.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    services: BTreeMap<Key, Service>,
    slices: HashMap<Key, BTreeMap<String, EndpointSlice>>,
}

fn key(meta: &kube::api::ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

impl Objects {
    pub(crate) fn put_service(&mut self, service: Service) {
        self.services.insert(key(&service.metadata), service);
    }

    pub(crate) fn drop_service(&mut self, service: &Service) {
        self.services.remove(&key(&service.metadata));
    }

    pub(crate) fn put_slice(&mut self, slice: EndpointSlice) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        if let Some(service) = service_of(&slice) {
            self.slices.entry(service).or_default().insert(name, slice);
        }
    }

    pub(crate) fn drop_slice(&mut self, slice: &EndpointSlice) {
        if let (Some(service), Some(name)) = (service_of(slice), &slice.metadata.name)
            && let Some(slices) = self.slices.get_mut(&service)
        {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
    }

    /// Forgets the services, for a new list.
    pub(crate) fn clear_services(&mut self) {
        self.services.clear();
    }

    /// Forgets the slices, for a new list.
    pub(crate) fn clear_slices(&mut self) {
        self.slices.clear();
    }

    /// Every Service with its endpoints.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.services.iter().filter_map(|(key, service)| self.entry(key, service)).collect()
    }

    fn entry(&self, key: &Key, service: &Service) -> Option<Entry> {
        let spec = service.spec.as_ref()?;
        let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
        let kind = match (type_, spec.cluster_ip.as_deref()) {
            ("ExternalName", _) => Kind::External(spec.external_name.clone()?),
            (_, Some("None")) => Kind::Headless,
            (_, Some(address)) => Kind::Address(address.parse().ok()?),
            (_, None) => return None,
        };
        let slices: Vec<&EndpointSlice> =
            self.slices.get(key).map(|slices| slices.values().collect()).unwrap_or_default();
        let any_state = spec.publish_not_ready_addresses == Some(true);
        let serving = choose(&slices, any_state);
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let transport = match port.protocol.as_deref() {
                None | Some("TCP") => Transport::Tcp,
                Some("UDP") => Transport::Udp,
                Some(_) => return None,
            };
            let name = port.name.clone().unwrap_or_default();
            let backends = serving.iter().filter_map(|(slice, end)| {
                let found = slice.ports.iter().flatten().find(|found| {
                    found.name.as_deref().unwrap_or_default() == name
                        && found.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(&transport.to_string())
                })?;
                Some((address(end)?, u16::try_from(found.port?).ok()?))
            });
            let backends: BTreeSet<_> = backends.collect();
            Some(Port {
                name: name.clone(),
                transport,
                number: u16::try_from(port.port).ok()?,
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
                backends: backends.into_iter().collect(),
            })
        });
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            config.and_then(|client| u32::try_from(client.timeout_seconds?).ok()).unwrap_or(AFFINITY_SECONDS)
        });
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_ref()?.first()?.ip.as_deref()?.parse().ok());
        Some(Entry {
            key: key.clone(),
            kind,
            external: spec.external_ips.iter().flatten().filter_map(|address| address.parse().ok()).collect(),
            load_balancer: type_ == "LoadBalancer" && spec.load_balancer_class.is_none(),
            balancer_address: ingress,
            ports: ports.collect(),
            ends: serving
                .iter()
                .filter_map(|(_, end)| Some(End { address: address(end)?, hostname: end.hostname.clone() }))
                .collect(),
            affinity,
        })
    }
}

fn address(end: &Endpoint) -> Option<Ipv4Addr> {
    end.addresses.first()?.parse().ok()
}

/// Ready endpoints; where there are none, those that still serve while they terminate.
fn choose<'a>(slices: &[&'a EndpointSlice], any_state: bool) -> Vec<(&'a EndpointSlice, &'a Endpoint)> {
    let all = || slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |end| (*slice, end)));
    let conditions = |end: &Endpoint| end.conditions.clone().unwrap_or_default();
    let ready: Vec<_> = all().filter(|(_, end)| any_state || conditions(end).ready.unwrap_or(true)).collect();
    if !ready.is_empty() {
        return ready;
    }
    all()
        .filter(|(_, end)| conditions(end).terminating == Some(true) && conditions(end).serving.unwrap_or(true))
        .collect()
}

/// What the packet filter is to know. The sandbox's own listeners answer for the API and for names.
pub(crate) fn rules(entries: &[Entry], pods: &BTreeSet<Ipv4Addr>) -> Rules {
    let mut rules = Rules::default();
    rules.pods.clone_from(pods);
    for entry in entries {
        for port in &entry.ports {
            let backends = Backends { ends: port.backends.clone(), affinity: entry.affinity };
            let mut put = |address, number| {
                let front = Front { address, transport: port.transport, port: number };
                rules.fronts.insert(front, backends.clone());
            };
            if let Kind::Address(address) = entry.kind
                && address != API_ADDRESS
                && address != DNS_ADDRESS
            {
                put(address, port.number);
            }
            for address in &entry.external {
                put(*address, port.number);
            }
            if let Some(number) = port.node_port {
                put(GATEWAY_ADDRESS, number);
            }
        }
    }
    rules
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases read better")]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn objects(service: Value, slices: &[Value]) -> Objects {
        let mut objects = Objects::default();
        objects.put_service(serde_json::from_value(service).unwrap());
        for slice in slices {
            objects.put_slice(serde_json::from_value(slice.clone()).unwrap());
        }
        objects
    }

    pub(crate) fn service(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    }

    pub(crate) fn slice(endpoints: Value) -> Value {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints})
    }

    fn check(endpoints: Value, expected: &[&str]) {
        let spec = json!({"clusterIP": "198.19.0.7", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        let entries = objects(service(spec), &[slice(endpoints)]).entries();
        let found: Vec<String> = entries[0].ports[0].backends.iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_ready_endpoints_answer() {
        check(
            json!([{"addresses": ["198.18.0.2"], "conditions": {"ready": true}},
                   {"addresses": ["198.18.0.3"], "conditions": {"ready": false}}]),
            &["198.18.0.2"],
        );
    }

    #[test]
    fn with_none_ready_a_terminating_one_still_serves() {
        check(
            json!([{"addresses": ["198.18.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
            &["198.18.0.2"],
        );
    }

    #[test]
    fn a_service_answers_under_each_of_its_addresses() {
        let spec = json!({"clusterIP": "198.19.0.7", "externalIPs": ["203.0.113.1"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        let entries = objects(service(spec), &[slice(json!([{"addresses": ["198.18.0.2"]}]))]).entries();
        let rules = rules(&entries, &BTreeSet::new());
        let fronts: Vec<String> = rules.fronts.keys().map(ToString::to_string).collect();
        assert_eq!(fronts, ["198.18.0.1 . tcp . 30080", "198.19.0.7 . tcp . 80", "203.0.113.1 . tcp . 80"]);
    }
}
