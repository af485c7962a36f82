//! ServiceEntry and WorkloadEntry: services and workloads that Kubernetes does not know.
//!
//! Never here: whether an entry makes sense beyond its CRD's rules. Used by `model`; WorkloadGroup shares the workload.
//! Called by serde.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::object::selector::WorkloadSelector;
use crate::object::shape::{PORT, cel, names, shapes};

shapes! {
    /// A service, mostly outside the cluster.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("only one of WorkloadSelector or Endpoints can be set",
         "(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1"),
        ("CIDR addresses are allowed only for NONE/STATIC resolution types",
         r#"!((has(self.addresses) ? self.addresses : []).exists(k, k.contains("/")) && !((has(self.resolution) ? self.resolution : "NONE") in ["STATIC", "NONE"]))"#),
        ("NONE mode cannot set endpoints",
         r#"((has(self.resolution) ? self.resolution : "NONE") == "NONE") ? !has(self.endpoints) : true"#),
        ("DNS_ROUND_ROBIN mode cannot have multiple endpoints",
         r#"((has(self.resolution) ? self.resolution : "") == "DNS_ROUND_ROBIN") ? ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true"#),
    ])))]
    pub struct ServiceEntry {
        /// Its names.
        #[schemars(schema_with = "hosts")]
        pub hosts: Vec<String>,
        /// Its addresses, single or CIDR.
        #[serde(default)]
        #[schemars(length(max = 256), inner(length(max = 64)))]
        pub addresses: Vec<String>,
        /// Its ports.
        #[serde(default)]
        #[schemars(length(max = 256), extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = cel(&[
                ("port number cannot be duplicated", "self.all(l1, self.exists_one(l2, l1.number == l2.number))"),
            ]),
        ))]
        pub ports: Vec<ServicePort>,
        /// Whether it is part of the mesh.
        pub location: Option<Location>,
        /// How its endpoints are found.
        pub resolution: Option<Resolution>,
        /// Its endpoints, given in place.
        #[serde(default)]
        #[schemars(length(max = 4096))]
        pub endpoints: Vec<WorkloadEntry>,
        /// Its endpoints, by labels of Pods and WorkloadEntries.
        pub workload_selector: Option<WorkloadSelector>,
        /// Namespaces that see it: `.`, `*` or a name.
        #[serde(default)]
        pub export_to: Vec<String>,
        /// Names its endpoints may prove.
        #[serde(default)]
        pub subject_alt_names: Vec<String>,
    }

    /// A port of such a service.
    pub struct ServicePort {
        /// Number.
        #[schemars(extend("x-kubernetes-validations" = cel(&[PORT])))]
        pub number: u32,
        /// Protocol, as in the name of a Service's port.
        #[schemars(length(max = 256))]
        pub protocol: Option<String>,
        /// Name.
        #[schemars(length(max = 256))]
        pub name: String,
        /// Port of the endpoints; absent: the same.
        #[schemars(extend("x-kubernetes-validations" = cel(&[PORT])))]
        pub target_port: Option<u32>,
    }

    /// A workload, mostly a virtual machine.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("Address is required", "has(self.address) || has(self.network)"),
        UDS_WITHOUT_PORTS,
    ])))]
    pub struct WorkloadEntry {
        /// IP address, name, or `unix://` path.
        #[schemars(length(max = 256), extend("x-kubernetes-validations" = cel(&[
            ("UDS must be an absolute path or abstract socket",
             r#"self.startsWith("unix://") ? (self.substring(7, 8) == "/" || self.substring(7, 8) == "@") : true"#),
            ("UDS may not be a dir", r#"self.startsWith("unix://") ? !self.endsWith("/") : true"#),
        ])))]
        pub address: Option<String>,
        /// Its ports by the names of the service's ports.
        #[serde(default)]
        #[schemars(schema_with = "workload_ports")]
        pub ports: BTreeMap<String, u32>,
        /// Its labels.
        #[serde(default)]
        #[schemars(extend("maxProperties" = 256))]
        pub labels: BTreeMap<String, String>,
        /// Network it is in; others reach it through a gateway.
        #[schemars(length(max = 2048))]
        pub network: Option<String>,
        /// Where it is: `region/zone/sub-zone`.
        #[schemars(length(max = 2048))]
        pub locality: Option<String>,
        /// Its share, relative to the others.
        pub weight: Option<u32>,
        /// Identity of the workload.
        #[schemars(length(max = 253))]
        pub service_account: Option<String>,
    }
}

names! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        /// Outside: no mutual TLS.
        MeshExternal = "MESH_EXTERNAL",
        /// Inside.
        MeshInternal = "MESH_INTERNAL",
    }

    /// How endpoints are found.
    pub enum Resolution {
        /// The address the caller asked for.
        None = "NONE",
        /// Those listed.
        Static = "STATIC",
        /// By DNS, all answers.
        Dns = "DNS",
        /// By DNS, the first answer for each new connection.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// By DNS at each request, for wildcard hosts.
        DynamicDns = "DYNAMIC_DNS",
    }
}

/// A path has no ports.
pub(crate) const UDS_WITHOUT_PORTS: (&str, &str) = (
    "UDS may not include ports",
    r#"(has(self.address) ? self.address : "").startsWith("unix://") ? !has(self.ports) : true"#,
);

fn hosts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 256,
        "items": {
            "type": "string",
            "x-kubernetes-validations": cel(&[("hostname cannot be wildcard", r#"self != "*""#)]),
        },
    })
}

fn workload_ports(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 128,
        "additionalProperties": {
            "type": "integer",
            "format": "uint32",
            "x-kubernetes-validations": cel(&[PORT]),
        },
        "x-kubernetes-validations": cel(&[(
            "port name must be valid",
            r#"self.all(key, size(key) < 63 && key.matches("^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$"))"#,
        )]),
    })
}
