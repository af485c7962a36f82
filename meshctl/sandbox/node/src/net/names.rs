//! What the sandbox's DNS answers: cluster names, and nothing else.
//!
//! Pure: from the view of Services to records. Never here: sockets, the wire format.
//! Called by `dns`.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use super::view::{Entry, Key, Kind};

/// The zone.
pub(crate) const ZONE: &str = "cluster.local";

/// Records of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has these addresses (perhaps none right now).
    Addresses(Vec<Ipv4Addr>),
    /// It stands for another name.
    Alias(String),
    /// Ports of hosts.
    Ports(Vec<(u16, String)>),
    /// The name of an address.
    Pointer(String),
    /// It exists, as a branch or with other records only.
    Empty,
}

/// All names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: HashMap<String, Found>,
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

impl Names {
    /// Names of these Services.
    pub(crate) fn new(entries: &[Entry]) -> Self {
        let mut names = HashMap::new();
        for namespace in entries.iter().map(|entry| entry.key.0.as_str()).collect::<BTreeSet<_>>() {
            names.insert(format!("{namespace}.svc.{ZONE}"), Found::Empty);
        }
        names.insert(format!("svc.{ZONE}"), Found::Empty);
        names.insert(ZONE.to_owned(), Found::Empty);
        for entry in entries {
            put(&mut names, entry);
        }
        Self { names }
    }

    /// What stands under a lower-case name without its last dot; `None`: there is no such name.
    pub(crate) fn find(&self, name: &str) -> Option<Found> {
        if let Some(found) = self.names.get(name) {
            return Some(found.clone());
        }
        let (pod, rest) = name.split_once('.')?;
        rest.strip_suffix(&format!(".pod.{ZONE}")).filter(|namespace| !namespace.contains('.'))?;
        let address: Ipv4Addr = pod.replace('-', ".").parse().ok()?;
        Some(Found::Addresses(vec![address]))
    }

    /// Whether this server knows all there is to know about the name.
    pub(crate) fn ours(name: &str) -> bool {
        name == ZONE || name.ends_with(&format!(".{ZONE}"))
    }
}

fn host(key: &Key) -> String {
    format!("{}.{}.svc.{ZONE}", key.1, key.0)
}

fn put(names: &mut HashMap<String, Found>, entry: &Entry) {
    let host = host(&entry.key);
    match &entry.kind {
        Kind::External(name) => {
            let target = name.trim_end_matches('.').to_ascii_lowercase();
            let found = target.parse().map_or(Found::Alias(target), |address| Found::Addresses(vec![address]));
            names.insert(host, found);
            return;
        }
        Kind::Address(address) => {
            names.insert(host.clone(), Found::Addresses(vec![*address]));
            names.insert(reverse(*address), Found::Pointer(host.clone()));
        }
        Kind::Headless => {
            let addresses: BTreeSet<Ipv4Addr> = entry.ends.iter().map(|end| end.address).collect();
            names.insert(host.clone(), Found::Addresses(addresses.into_iter().collect()));
            for end in &entry.ends {
                let name = format!("{}.{host}", end.hostname.clone().unwrap_or_else(|| dashed(end.address)));
                names.insert(reverse(end.address), Found::Pointer(name.clone()));
                names.insert(name, Found::Addresses(vec![end.address]));
            }
        }
    }
    for port in entry.ports.iter().filter(|port| !port.name.is_empty()) {
        let targets = match entry.kind {
            Kind::Headless => entry
                .ends
                .iter()
                .zip(port.backends.iter().map(|(_, number)| *number).chain(std::iter::repeat(port.number)))
                .map(|(end, number)| {
                    (number, format!("{}.{host}", end.hostname.clone().unwrap_or_else(|| dashed(end.address))))
                })
                .collect(),
            Kind::Address(_) | Kind::External(_) => vec![(port.number, host.clone())],
        };
        names.insert(format!("_{}._{}.{host}", port.name, port.transport), Found::Ports(targets));
        names.entry(format!("_{}.{host}", port.transport)).or_insert(Found::Empty);
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases read better")]
mod tests {
    use super::super::view::tests::{objects, service, slice};
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, name: &str, expected: Option<Found>) {
        let ends = json!([{"addresses": ["198.18.0.2"], "hostname": "web-0"}, {"addresses": ["198.18.0.3"]}]);
        let names = Names::new(&objects(service(spec), &[slice(ends)]).entries());
        assert_eq!(names.find(name), expected);
    }

    fn plain() -> Value {
        json!({"clusterIP": "198.19.0.7", "ports": [{"name": "http", "port": 80}]})
    }

    fn headless() -> Value {
        json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]})
    }

    fn addresses(last: &[u8]) -> Option<Found> {
        Some(Found::Addresses(last.iter().map(|last| Ipv4Addr::new(198, 18, 0, *last)).collect()))
    }

    #[test]
    fn a_service_has_its_address() {
        let address = Found::Addresses(vec![Ipv4Addr::new(198, 19, 0, 7)]);
        check(plain(), "web.shop.svc.cluster.local", Some(address));
    }

    #[test]
    fn a_headless_service_has_its_pods() {
        check(headless(), "web.shop.svc.cluster.local", addresses(&[2, 3]));
    }

    #[test]
    fn a_pod_of_a_headless_service_has_a_name() {
        check(headless(), "web-0.web.shop.svc.cluster.local", addresses(&[2]));
        check(headless(), "198-18-0-3.web.shop.svc.cluster.local", addresses(&[3]));
    }

    #[test]
    fn an_external_name_is_an_alias() {
        let spec = json!({"type": "ExternalName", "externalName": "Example.com"});
        check(spec, "web.shop.svc.cluster.local", Some(Found::Alias("example.com".to_owned())));
    }

    #[test]
    fn ports_are_found_by_name() {
        let ports = Found::Ports(vec![(80, "web.shop.svc.cluster.local".to_owned())]);
        check(plain(), "_http._tcp.web.shop.svc.cluster.local", Some(ports));
    }

    #[test]
    fn an_address_has_its_name() {
        let pointer = Found::Pointer("web.shop.svc.cluster.local".to_owned());
        check(plain(), "7.0.19.198.in-addr.arpa", Some(pointer));
    }

    #[test]
    fn a_pods_address_is_a_name_too() {
        check(plain(), "198-18-0-9.shop.pod.cluster.local", addresses(&[9]));
    }

    #[test]
    fn unknown_names_are_unknown() {
        check(plain(), "other.shop.svc.cluster.local", None);
        check(plain(), "example.com", None);
    }
}
