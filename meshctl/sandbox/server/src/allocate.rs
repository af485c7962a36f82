//! ClusterIPs and NodePorts: which are free.
//!
//! Never here: when a Service needs one (see `defaults::service`). Called by `verb` around writes of Services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::object;

/// Addresses at the start of the range that are only given on request (`kubernetes`, DNS).
const RESERVED: u32 = 16;

#[derive(Default)]
struct Used {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

pub(crate) struct Allocator {
    services: Ipv4Net,
    ports: RangeInclusive<u16>,
    /// Where the search for a free port begins: sandboxes of one machine share its loopback.
    first_port: u16,
    used: Mutex<Used>,
}

/// Why an address or port was not given; the words are the API's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AllocateError {
    #[error("failed to allocate IP {0}: provided IP is already allocated")]
    AddressTaken(Ipv4Addr),
    #[error("failed to allocate IP {0}: the provided IP is not in the valid range. The range of valid IPs is {1}")]
    AddressOutside(String, Ipv4Net),
    #[error("failed to allocate a serviceIP: range is full")]
    AddressesFull,
    #[error("provided port is already allocated")]
    PortTaken(u16),
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    PortOutside(u16, u16),
    #[error("failed to allocate a nodePort: range is full")]
    PortsFull,
}

impl Allocator {
    pub(crate) fn new(services: Ipv4Net, ports: RangeInclusive<u16>, first_port: u16) -> Self {
        let first_port = first_port.clamp(*ports.start(), *ports.end());
        Self { services, ports, first_port, used: Mutex::new(Used::default()) }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn address(&self, wanted: Option<&str>) -> Result<Ipv4Addr, AllocateError> {
        let mut used = self.used();
        if let Some(text) = wanted {
            let outside = || AllocateError::AddressOutside(text.to_owned(), self.services);
            let address: Ipv4Addr = text.parse().map_err(|_| outside())?;
            if !self.services.contains(&address)
                || address == self.services.network()
                || address == self.services.broadcast()
            {
                return Err(outside());
            }
            return if used.addresses.insert(address) {
                Ok(address)
            } else {
                Err(AllocateError::AddressTaken(address))
            };
        }
        let base = u32::from(self.services.network());
        let last = u32::from(self.services.broadcast());
        let free = (base + RESERVED..last).map(Ipv4Addr::from).find(|address| !used.addresses.contains(address));
        let address = free.ok_or(AllocateError::AddressesFull)?;
        used.addresses.insert(address);
        Ok(address)
    }

    pub(crate) fn port(&self, wanted: Option<u16>) -> Result<u16, AllocateError> {
        let mut used = self.used();
        if let Some(port) = wanted {
            if !self.ports.contains(&port) {
                return Err(AllocateError::PortOutside(*self.ports.start(), *self.ports.end()));
            }
            return if used.ports.insert(port) { Ok(port) } else { Err(AllocateError::PortTaken(port)) };
        }
        let after = self.first_port..=*self.ports.end();
        let mut ports = after.chain(*self.ports.start()..self.first_port);
        let port = ports.find(|port| !used.ports.contains(port)).ok_or(AllocateError::PortsFull)?;
        used.ports.insert(port);
        Ok(port)
    }

    /// Whether a Service has this address.
    pub(crate) fn is_given(&self, address: Ipv4Addr) -> bool {
        self.used().addresses.contains(&address)
    }

    /// Marks what a stored Service has.
    pub(crate) fn adopt(&self, service: &Value) {
        let mut used = self.used();
        used.addresses.extend(addresses(service));
        used.ports.extend(node_ports(service));
    }

    /// Frees what `service` has and `kept` has not.
    pub(crate) fn release(&self, service: &Value, kept: Option<&Value>) {
        let mut used = self.used();
        let kept_addresses: Vec<Ipv4Addr> = kept.map(addresses).unwrap_or_default();
        let kept_ports: Vec<u16> = kept.map(node_ports).unwrap_or_default();
        for address in addresses(service).iter().filter(|address| !kept_addresses.contains(address)) {
            used.addresses.remove(address);
        }
        for port in node_ports(service).iter().filter(|port| !kept_ports.contains(port)) {
            used.ports.remove(port);
        }
    }
}

fn addresses(service: &Value) -> Vec<Ipv4Addr> {
    object::text(service, "/spec/clusterIP").parse().into_iter().collect()
}

fn node_ports(service: &Value) -> Vec<u16> {
    object::items(service, "/spec/ports")
        .iter()
        .map(|port| port.get("nodePort"))
        .chain([service.pointer("/spec/healthCheckNodePort")])
        .filter_map(|port| u16::try_from(port?.as_u64()?).ok())
        .filter(|port| *port != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once() {
        let allocator = Allocator::new("198.19.0.0/16".parse().unwrap(), 30000..=30001, 30000);
        assert_eq!(allocator.address(Some("198.19.0.10")).unwrap().to_string(), "198.19.0.10");
        assert!(matches!(allocator.address(Some("198.19.0.10")), Err(AllocateError::AddressTaken(_))));
        assert!(matches!(allocator.address(Some("10.0.0.1")), Err(AllocateError::AddressOutside(..))));
        assert_eq!(allocator.address(None).unwrap().to_string(), "198.19.0.16");
        assert_eq!(allocator.port(None).unwrap(), 30000);
        assert_eq!(allocator.port(None).unwrap(), 30001);
        assert_eq!(allocator.port(None), Err(AllocateError::PortsFull));
        assert_eq!(allocator.port(Some(80)), Err(AllocateError::PortOutside(30000, 30001)));
    }
}
