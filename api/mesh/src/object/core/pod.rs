//! Pods: what they ask for, what runs in them, and what became of them.
//!
//! Never here: meaning. Read by `from_json`, used by `model` and `inject`.
//! Called by serde.

use serde::{Deserialize, Serialize};

use super::CoreCondition;

core! {
    /// What a Pod asks for.
    pub struct PodSpec {
        /// Identity of its processes.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub service_account_name: String,
        /// Node it is bound to.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub node_name: String,
        /// Whether it shares the node's network.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub host_network: Option<bool>,
        /// Its own name under a headless Service.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub hostname: String,
        /// The headless Service that name is under.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subdomain: String,
        /// Containers.
        pub containers: Vec<Container>,
        /// Containers that run first; with `restartPolicy: Always`, that keep running beside the others.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub init_containers: Vec<Container>,
        /// Settings of the Pod's processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub security_context: Option<PodSecurityContext>,
    }

    /// Settings of a Pod's processes.
    pub struct PodSecurityContext {
        /// Uid they run as.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub run_as_user: Option<i64>,
    }

    /// A container.
    pub struct Container {
        /// Name.
        pub name: String,
        /// Image.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub image: String,
        /// Ports it says it listens on.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ports: Vec<ContainerPort>,
        /// Environment with values given in place.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub env: Vec<EnvVar>,
        /// `Always` for an init container that keeps running.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub restart_policy: Option<String>,
        /// Settings of its processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub security_context: Option<PodSecurityContext>,
    }

    /// One environment variable; `value` is absent where it comes from elsewhere.
    pub struct EnvVar {
        /// Name.
        pub name: String,
        /// Value.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub value: Option<String>,
    }

    /// A port of a container.
    pub struct ContainerPort {
        /// Name, for a Service's `targetPort`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// Number.
        pub container_port: u16,
        /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub protocol: String,
    }

    /// What became of a Pod.
    pub struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub phase: String,
        /// First address.
        #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
        pub pod_ip: String,
        /// All addresses.
        #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
        pub pod_ips: Vec<PodIp>,
        /// Address of its node.
        #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
        pub host_ip: String,
        /// What holds of it, `Ready` among them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub conditions: Vec<CoreCondition>,
    }

    /// One address of a Pod.
    pub struct PodIp {
        /// The address.
        pub ip: String,
    }
}
