//! DestinationRule: how a service is reached, and which subsets it has.
//!
//! Never here: the policies themselves (`traffic_policy`), or whether they make sense. Used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use super::TrafficPolicy;
use crate::object::selector::Selector;
use crate::object::shape::shapes;

shapes! {
    /// Policy for calls to one service.
    pub struct DestinationRule {
        /// Name of the service; may begin with `*.`.
        pub host: String,
        /// Policy for all of it.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named parts of the service.
        #[serde(default)]
        pub subsets: Vec<Subset>,
        /// Namespaces that see it: `.`, `*` or a name.
        #[serde(default)]
        pub export_to: Vec<String>,
        /// Callers it is for; absent: all.
        pub workload_selector: Option<Selector>,
    }

    /// A named part of a service.
    pub struct Subset {
        /// Name that routes use.
        pub name: String,
        /// Labels of its endpoints.
        #[serde(default)]
        pub labels: BTreeMap<String, String>,
        /// Policy on top of the service's.
        pub traffic_policy: Option<TrafficPolicy>,
    }
}
