//! The sandbox's network as the daemon sees it: Services, names, relays.
//!
//! Fixed addresses live here. Never here: namespaces and links (the keeper's).
//! Called by `node`; `rules`, `names` and `view` are pure.

use std::net::Ipv4Addr;

pub(crate) mod dns;
pub(crate) mod names;
pub(crate) mod relay;
pub(crate) mod rules;
pub(crate) mod services;
pub(crate) mod view;

/// The sandbox's own address, which every Pod has as gateway; also the node's.
pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Where the API server answers inside (Service `default/kubernetes`).
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Where names are answered inside.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
/// All ClusterIPs.
pub(crate) const SERVICE_PREFIX: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 19, 0, 0), 16);
