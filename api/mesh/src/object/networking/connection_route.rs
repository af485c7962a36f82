//! VirtualService's rules for connections: TLS that is passed through, and plain TCP.
//!
//! Never here: rules for HTTP (`virtual_service`), whether a rule makes sense. Read by `from_json`, used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use super::Destination;
use crate::object::shape::shapes;

shapes! {
    /// One rule for TLS passed through.
    pub struct TlsRoute {
        /// Conditions, any of which suffices.
        #[serde(rename = "match")]
        pub matches: Vec<TlsMatch>,
        /// Where connections go, by weight.
        #[serde(default)]
        pub route: Vec<RouteDestination>,
    }

    /// Conditions on a TLS connection that must all hold.
    pub struct TlsMatch {
        /// Server names; `*.` stands for any first label.
        pub sni_hosts: Vec<String>,
        /// Addresses the caller wanted.
        #[serde(default)]
        pub destination_subnets: Vec<String>,
        /// Port the caller wanted.
        pub port: Option<u32>,
        /// Labels of the caller.
        #[serde(default)]
        pub source_labels: BTreeMap<String, String>,
        /// Gateways this condition is for.
        #[serde(default)]
        pub gateways: Vec<String>,
        /// Namespace of the caller.
        pub source_namespace: Option<String>,
    }

    /// One rule for plain TCP.
    pub struct TcpRoute {
        /// Conditions, any of which suffices; none: every connection.
        #[serde(rename = "match", default)]
        pub matches: Vec<L4Match>,
        /// Where connections go, by weight.
        #[serde(default)]
        pub route: Vec<RouteDestination>,
    }

    /// Conditions on a connection that must all hold.
    pub struct L4Match {
        /// Addresses the caller wanted.
        #[serde(default)]
        pub destination_subnets: Vec<String>,
        /// Port the caller wanted.
        pub port: Option<u32>,
        /// Address of the caller.
        pub source_subnet: Option<String>,
        /// Labels of the caller.
        #[serde(default)]
        pub source_labels: BTreeMap<String, String>,
        /// Gateways this condition is for.
        #[serde(default)]
        pub gateways: Vec<String>,
        /// Namespace of the caller.
        pub source_namespace: Option<String>,
    }

    /// One destination of a rule for connections.
    pub struct RouteDestination {
        /// Where to.
        pub destination: Destination,
        /// Its share, relative to the sum of all weights.
        pub weight: Option<i32>,
    }
}
