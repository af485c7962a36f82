//! Group networking.istio.io: routes, destinations, gateways, services outside, and what a sidecar sees.
//!
//! One file for each kind, all re-exported here; what several of them share is in the file of the kind that it comes from.
//! Never here: meaning. Read by `from_json`, used by `model`.
//! Called by serde.

mod connection_route;
mod destination_rule;
mod envoy_filter;
mod gateway;
mod service_entry;
mod sidecar;
mod traffic_policy;
mod virtual_service;
mod workload_group;

pub use self::connection_route::*;
pub use self::destination_rule::*;
pub use self::envoy_filter::*;
pub use self::gateway::*;
pub use self::service_entry::*;
pub use self::sidecar::*;
pub use self::traffic_policy::*;
pub use self::virtual_service::*;
pub use self::workload_group::*;
