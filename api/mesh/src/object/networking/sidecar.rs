//! Sidecar: what the proxies of a namespace listen for and may reach.
//!
//! Never here: whether it makes sense. Used by `model`.
//! Called by serde.

use super::{ConnectionPool, Destination, ServerTls};
use crate::object::selector::WorkloadSelector;
use crate::object::shape::{names, shapes};

shapes! {
    /// What some proxies see.
    pub struct Sidecar {
        /// Workloads it is for; absent: all of the namespace.
        pub workload_selector: Option<WorkloadSelector>,
        /// Listeners for calls to the workload; none: by its Services.
        #[serde(default)]
        pub ingress: Vec<IngressListener>,
        /// What the workload may call; none: everything exported to it.
        #[serde(default)]
        pub egress: Vec<EgressListener>,
        /// Limits of calls to the workload.
        pub inbound_connection_pool: Option<ConnectionPool>,
        /// What becomes of calls to unknown hosts.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }

    /// A listener for calls to the workload.
    pub struct IngressListener {
        /// Port.
        pub port: SidecarPort,
        /// Address to listen on.
        pub bind: Option<String>,
        /// How calls get here.
        pub capture_mode: Option<CaptureMode>,
        /// Where the workload listens: address and port, or `unix://` path.
        pub default_endpoint: Option<String>,
        /// TLS of the listener.
        pub tls: Option<ServerTls>,
        /// Limits.
        pub connection_pool: Option<ConnectionPool>,
    }

    /// Hosts the workload may call, maybe by a listener of their own.
    pub struct EgressListener {
        /// Port; absent: the port of each service.
        pub port: Option<SidecarPort>,
        /// Address to listen on.
        pub bind: Option<String>,
        /// How calls get here.
        pub capture_mode: Option<CaptureMode>,
        /// Hosts, each `namespace/name` with `*`, `.` and `~`.
        pub hosts: Vec<String>,
    }

    /// A port of a sidecar's listener.
    pub struct SidecarPort {
        /// Number.
        pub number: Option<u32>,
        /// Protocol.
        pub protocol: Option<String>,
        /// Name.
        pub name: Option<String>,
        /// Not used by Istio any more.
        pub target_port: Option<u32>,
    }

    /// What becomes of calls to unknown hosts.
    pub struct OutboundTrafficPolicy {
        /// Which way.
        pub mode: Option<OutboundTrafficPolicyMode>,
        /// Where such calls are led.
        pub egress_proxy: Option<Destination>,
    }
}

names! {
    /// How calls get to a listener.
    pub enum CaptureMode {
        /// As the proxy is set up.
        Default = "DEFAULT",
        /// By redirect rules.
        Iptables = "IPTABLES",
        /// The caller connects to it.
        None = "NONE",
    }

    /// What becomes of calls to unknown hosts.
    pub enum OutboundTrafficPolicyMode {
        /// Refused.
        RegistryOnly = "REGISTRY_ONLY",
        /// Passed on.
        AllowAny = "ALLOW_ANY",
    }
}
