//! Group networking.istio.io: its kinds as they are stored.
//!
//! Never here: meaning. Used by kind.
//! Called by serde.

use super::shape::shapes;

shapes! {
    /// A VirtualService.
    pub struct VirtualService {}
    /// A DestinationRule.
    pub struct DestinationRule {}
    /// A Gateway.
    pub struct Gateway {}
    /// A ServiceEntry.
    pub struct ServiceEntry {}
    /// A Sidecar.
    pub struct Sidecar {}
    /// A WorkloadEntry.
    pub struct WorkloadEntry {}
    /// A WorkloadGroup.
    pub struct WorkloadGroup {}
    /// A EnvoyFilter.
    pub struct EnvoyFilter {}
    /// A ProxyConfig.
    pub struct ProxyConfig {}
}
