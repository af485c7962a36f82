//! WorkloadGroup and ProxyConfig: templates for workloads outside Kubernetes, and settings of some proxies.
//!
//! Never here: whether they make sense beyond their CRDs' rules. Used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::WorkloadEntry;
use super::service_entry::UDS_WITHOUT_PORTS;
use crate::object::selector::Selector;
use crate::object::shape::{PORT, cel, one_of, shapes};

shapes! {
    /// Template for workloads that register themselves.
    pub struct WorkloadGroup {
        /// Labels and annotations of the entries made.
        pub metadata: Option<WorkloadGroupMetadata>,
        /// Their spec.
        #[schemars(extend("x-kubernetes-validations" = cel(&[UDS_WITHOUT_PORTS])))]
        pub template: WorkloadEntry,
        /// How their health is found out.
        pub probe: Option<ReadinessProbe>,
    }

    /// Labels and annotations of entries made.
    pub struct WorkloadGroupMetadata {
        /// Labels.
        #[serde(default)]
        #[schemars(extend("maxProperties" = 256))]
        pub labels: BTreeMap<String, String>,
        /// Annotations.
        #[serde(default)]
        #[schemars(extend("maxProperties" = 256))]
        pub annotations: BTreeMap<String, String>,
    }

    /// How a workload's health is found out: one of the four ways.
    #[schemars(extend("oneOf" = one_of(&["httpGet", "tcpSocket", "exec", "grpc"])))]
    pub struct ReadinessProbe {
        /// Wait before the first probe.
        #[schemars(range(min = 0))]
        pub initial_delay_seconds: Option<i32>,
        /// Limit for one probe.
        #[schemars(range(min = 0))]
        pub timeout_seconds: Option<i32>,
        /// Time between probes.
        #[schemars(range(min = 0))]
        pub period_seconds: Option<i32>,
        /// Good answers until ready.
        #[schemars(range(min = 0))]
        pub success_threshold: Option<i32>,
        /// Bad answers until not ready.
        #[schemars(range(min = 0))]
        pub failure_threshold: Option<i32>,
        /// By HTTP.
        pub http_get: Option<HttpHealthCheck>,
        /// By connecting.
        pub tcp_socket: Option<TcpHealthCheck>,
        /// By a command.
        pub exec: Option<ExecHealthCheck>,
        /// By gRPC's health service.
        pub grpc: Option<GrpcHealthCheck>,
    }

    /// A probe by HTTP.
    pub struct HttpHealthCheck {
        /// Path.
        pub path: Option<String>,
        /// Port.
        #[schemars(extend("x-kubernetes-validations" = cel(&[PORT])))]
        pub port: u32,
        /// Host to ask.
        pub host: Option<String>,
        /// `HTTP` or `HTTPS`.
        #[schemars(extend("x-kubernetes-validations" = cel(&[
            ("scheme must be one of [HTTP, HTTPS]", r#"self in ["", "HTTP", "HTTPS"]"#),
        ])))]
        pub scheme: Option<String>,
        /// Headers to send.
        #[serde(default)]
        pub http_headers: Vec<HttpHeader>,
    }

    /// A header.
    pub struct HttpHeader {
        /// Name.
        #[schemars(regex(pattern = "^[-_A-Za-z0-9]+$"))]
        pub name: Option<String>,
        /// Value.
        pub value: Option<String>,
    }

    /// A probe by connecting.
    pub struct TcpHealthCheck {
        /// Host to connect to.
        pub host: Option<String>,
        /// Port.
        #[schemars(extend("x-kubernetes-validations" = cel(&[PORT])))]
        pub port: u32,
    }

    /// A probe by a command; status 0 is good.
    pub struct ExecHealthCheck {
        /// The command and its arguments.
        #[schemars(inner(length(min = 1)))]
        pub command: Vec<String>,
    }

    /// A probe by gRPC's health service.
    pub struct GrpcHealthCheck {
        /// Port.
        #[schemars(extend("x-kubernetes-validations" = cel(&[PORT])))]
        pub port: Option<u32>,
        /// Service to ask about.
        pub service: Option<String>,
    }

    /// Settings of some proxies.
    pub struct ProxyConfig {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// Worker threads; 0: one for each core.
        #[schemars(range(min = 0), extend("nullable" = true))]
        pub concurrency: Option<i32>,
        /// Environment of the proxy.
        #[serde(default)]
        #[schemars(schema_with = "environment")]
        pub environment_variables: BTreeMap<String, String>,
        /// Image of the proxy.
        pub image: Option<ProxyImage>,
    }

    /// Image of a proxy.
    pub struct ProxyImage {
        /// `default`, `debug` or `distroless`.
        pub image_type: Option<String>,
    }
}

fn environment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": 2048 } })
}
