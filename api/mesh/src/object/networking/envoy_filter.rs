//! EnvoyFilter: patches to what Envoys are told.
//!
//! Never here: applying them. Used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use crate::object::selector::{TargetRef, WorkloadSelector};
use crate::object::shape::{PORT, cel, free_form, names, one_of, shapes};

shapes! {
    /// Patches for some proxies.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("only one of targetRefs or workloadSelector can be set",
         "(has(self.workloadSelector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1"),
    ])))]
    pub struct EnvoyFilter {
        /// Workloads it is for; absent: all of the namespace.
        pub workload_selector: Option<WorkloadSelector>,
        /// Objects it is attached to.
        #[serde(default)]
        #[schemars(length(max = 16))]
        pub target_refs: Vec<TargetRef>,
        /// The patches.
        #[serde(default)]
        pub config_patches: Vec<ConfigPatch>,
        /// Order among filters; smaller first.
        pub priority: Option<i32>,
    }

    /// One patch.
    pub struct ConfigPatch {
        /// What is patched.
        pub apply_to: Option<ApplyTo>,
        /// Which of them.
        #[serde(rename = "match")]
        pub matches: Option<PatchMatch>,
        /// How.
        pub patch: Option<Patch>,
    }

    /// Which objects are patched.
    #[schemars(extend(
        "oneOf" = one_of(&["listener", "routeConfiguration", "cluster", "waypoint"]),
        "x-kubernetes-validations" = cel(&[(
            "only support waypointMatch when context is WAYPOINT",
            r#"has(self.context) ? ((self.context == "WAYPOINT") ? has(self.waypoint) : !has(self.waypoint)) : !has(self.waypoint)"#,
        )]),
    ))]
    pub struct PatchMatch {
        /// On which side.
        pub context: Option<PatchContext>,
        /// On which proxies.
        pub proxy: Option<ProxyMatch>,
        /// Which listeners.
        pub listener: Option<ListenerMatch>,
        /// Which routes.
        pub route_configuration: Option<RouteConfigurationMatch>,
        /// Which clusters.
        pub cluster: Option<ClusterMatch>,
        /// Which part of a waypoint.
        pub waypoint: Option<WaypointMatch>,
    }

    /// On which proxies.
    pub struct ProxyMatch {
        /// Expression for the version.
        pub proxy_version: Option<String>,
        /// Metadata the proxy must have.
        #[serde(default)]
        pub metadata: BTreeMap<String, String>,
    }

    /// Which listeners.
    pub struct ListenerMatch {
        /// Port.
        pub port_number: Option<u32>,
        /// Name of the Service's port.
        pub port_name: Option<String>,
        /// Which filter chain.
        pub filter_chain: Option<FilterChainMatch>,
        /// Listener filter.
        pub listener_filter: Option<String>,
        /// Name.
        pub name: Option<String>,
    }

    /// Which filter chains.
    pub struct FilterChainMatch {
        /// Name.
        pub name: Option<String>,
        /// Server name.
        pub sni: Option<String>,
        /// `raw_buffer` or `tls`.
        pub transport_protocol: Option<String>,
        /// Kind of transport socket.
        pub transport_socket: Option<String>,
        /// Protocols, separated by commas.
        pub application_protocols: Option<String>,
        /// Which filter.
        pub filter: Option<FilterMatch>,
        /// Port the caller wanted.
        pub destination_port: Option<u32>,
    }

    /// Which filter.
    pub struct FilterMatch {
        /// Name.
        pub name: Option<String>,
        /// A filter inside it.
        pub sub_filter: Option<SubFilterMatch>,
    }

    /// Which filter inside a filter.
    pub struct SubFilterMatch {
        /// Name.
        pub name: Option<String>,
    }

    /// Which routes.
    pub struct RouteConfigurationMatch {
        /// Port.
        pub port_number: Option<u32>,
        /// Name of the Service's port.
        pub port_name: Option<String>,
        /// Gateway, as `namespace/name`.
        pub gateway: Option<String>,
        /// Which virtual host.
        pub vhost: Option<VirtualHostMatch>,
        /// Name.
        pub name: Option<String>,
    }

    /// Which virtual host.
    pub struct VirtualHostMatch {
        /// Name.
        pub name: Option<String>,
        /// A domain it has.
        pub domain_name: Option<String>,
        /// Which route of it.
        pub route: Option<RouteMatch>,
    }

    /// Which route.
    pub struct RouteMatch {
        /// Name.
        pub name: Option<String>,
        /// What it does.
        pub action: Option<RouteAction>,
    }

    /// Which clusters.
    pub struct ClusterMatch {
        /// Port.
        pub port_number: Option<u32>,
        /// Host.
        pub service: Option<String>,
        /// Subset.
        pub subset: Option<String>,
        /// Name.
        pub name: Option<String>,
    }

    /// Which part of a waypoint.
    pub struct WaypointMatch {
        /// Which filter.
        pub filter: Option<FilterMatch>,
        /// Which route.
        pub route: Option<WaypointRouteMatch>,
        /// Port.
        #[schemars(extend("x-kubernetes-validations" = cel(&[PORT])))]
        pub port_number: Option<u32>,
    }

    /// Which route of a waypoint.
    pub struct WaypointRouteMatch {
        /// Name.
        pub name: Option<String>,
    }

    /// A change.
    pub struct Patch {
        /// Which.
        pub operation: Option<PatchOperation>,
        /// The value that is merged or added.
        #[serde(default)]
        #[schemars(schema_with = "free_form_value")]
        pub value: Option<Value>,
        /// Where an added filter goes.
        pub filter_class: Option<FilterClass>,
    }
}

names! {
    /// What is patched.
    pub enum ApplyTo {
        /// Nothing; refused.
        Invalid = "INVALID",
        /// Listeners.
        Listener = "LISTENER",
        /// Filter chains.
        FilterChain = "FILTER_CHAIN",
        /// Network filters.
        NetworkFilter = "NETWORK_FILTER",
        /// HTTP filters.
        HttpFilter = "HTTP_FILTER",
        /// Route configurations.
        RouteConfiguration = "ROUTE_CONFIGURATION",
        /// Virtual hosts.
        VirtualHost = "VIRTUAL_HOST",
        /// Routes.
        HttpRoute = "HTTP_ROUTE",
        /// Clusters.
        Cluster = "CLUSTER",
        /// Extension configurations.
        ExtensionConfig = "EXTENSION_CONFIG",
        /// The bootstrap.
        Bootstrap = "BOOTSTRAP",
        /// Listener filters.
        ListenerFilter = "LISTENER_FILTER",
    }

    /// On which side a patch applies.
    pub enum PatchContext {
        /// Everywhere.
        Any = "ANY",
        /// Calls to a sidecar's workload.
        SidecarInbound = "SIDECAR_INBOUND",
        /// Calls of a sidecar's workload.
        SidecarOutbound = "SIDECAR_OUTBOUND",
        /// Gateways.
        Gateway = "GATEWAY",
        /// Waypoints.
        Waypoint = "WAYPOINT",
    }

    /// What a route does.
    pub enum RouteAction {
        /// Anything.
        Any = "ANY",
        /// Forwards.
        Route = "ROUTE",
        /// Redirects.
        Redirect = "REDIRECT",
        /// Answers itself.
        DirectResponse = "DIRECT_RESPONSE",
    }

    /// Where an added filter goes.
    pub enum FilterClass {
        /// By the other settings.
        Unspecified = "UNSPECIFIED",
        /// After Istio's authentication.
        Authn = "AUTHN",
        /// After Istio's authorization.
        Authz = "AUTHZ",
        /// Before Istio's statistics.
        Stats = "STATS",
    }

    /// Which change is made.
    pub enum PatchOperation {
        /// None; refused.
        Invalid = "INVALID",
        /// Merges.
        Merge = "MERGE",
        /// Adds at the end.
        Add = "ADD",
        /// Removes.
        Remove = "REMOVE",
        /// Adds before the matched one.
        InsertBefore = "INSERT_BEFORE",
        /// Adds after the matched one.
        InsertAfter = "INSERT_AFTER",
        /// Adds at the start.
        InsertFirst = "INSERT_FIRST",
        /// Puts it in place of the matched one.
        Replace = "REPLACE",
        /// Merges, but replaces lists.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST",
    }
}

fn free_form_value(_: &mut SchemaGenerator) -> Schema {
    free_form()
}
