//! Group extensions.istio.io: code of others that runs in proxies.
//!
//! Never here: meaning; none of it is run yet, and `model` refuses it. Read by `from_json`, used by `model`.
//! Called by serde.

use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::selector::{ONE_TARGET, Selector, TargetRef};
use super::shape::{cel, free_form, names, one_of, shapes};

shapes! {
    /// A WebAssembly filter for some workloads.
    #[schemars(extend("x-kubernetes-validations" = cel(&[ONE_TARGET])))]
    pub struct WasmPlugin {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// Object it is attached to, old spelling.
        pub target_ref: Option<TargetRef>,
        /// Objects it is attached to.
        #[serde(default)]
        #[schemars(length(max = 16))]
        pub target_refs: Vec<TargetRef>,
        /// Where the module is.
        #[schemars(length(min = 1), extend("x-kubernetes-validations" = cel(&[(
            "url must have schema one of [http, https, file, oci]",
            "isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"]) : (isURL(\"http://\" + self) &&\nurl(\"http://\" + self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"])",
        )])))]
        pub url: String,
        /// Hash of the module.
        #[schemars(regex(pattern = "(^$|^[a-f0-9]{64}$)"))]
        pub sha256: Option<String>,
        /// When it is pulled.
        pub image_pull_policy: Option<PullPolicy>,
        /// Secret for pulling.
        #[schemars(length(min = 1, max = 253))]
        pub image_pull_secret: Option<String>,
        /// Key for verifying; not used by Istio yet.
        pub verification_key: Option<String>,
        /// Settings handed to it.
        #[serde(default)]
        #[schemars(schema_with = "free_form_value")]
        pub plugin_config: Option<Value>,
        /// Its name inside Envoy.
        #[schemars(length(min = 1, max = 256))]
        pub plugin_name: Option<String>,
        /// Where in the chain it runs.
        pub phase: Option<PluginPhase>,
        /// Order within the phase; larger first.
        #[schemars(extend("nullable" = true))]
        pub priority: Option<i32>,
        /// What becomes of requests when it fails.
        pub fail_strategy: Option<FailStrategy>,
        /// Settings of its virtual machine.
        pub vm_config: Option<VmConfig>,
        /// Which traffic it sees.
        #[serde(rename = "match", default)]
        pub matches: Vec<TrafficSelector>,
        /// What it filters.
        #[serde(rename = "type")]
        pub kind: Option<PluginType>,
    }

    /// A WebAssembly or Lua filter for some workloads.
    #[schemars(extend(
        "oneOf" = one_of(&["wasm", "lua"]),
        "x-kubernetes-validations" = cel(&[
            ("only one of targetRefs or selector can be set",
             "(has(self.selector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1"),
            ("exactly one of wasm or lua must be set", "has(self.wasm) != has(self.lua)"),
        ]),
    ))]
    pub struct TrafficExtension {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// Objects it is attached to.
        #[serde(default)]
        #[schemars(length(max = 16))]
        pub target_refs: Vec<TargetRef>,
        /// Where in the chain it runs.
        pub phase: Option<ExtensionPhase>,
        /// Order within the phase; larger first.
        #[schemars(extend("nullable" = true))]
        pub priority: Option<i32>,
        /// Which traffic it sees.
        #[serde(rename = "match", default)]
        pub matches: Vec<TrafficSelector>,
        /// A WebAssembly module.
        pub wasm: Option<Wasm>,
        /// A Lua script.
        pub lua: Option<Lua>,
    }

    /// A Lua script.
    pub struct Lua {
        /// The script.
        #[schemars(length(min = 1, max = 65536))]
        pub inline_code: String,
    }

    /// A WebAssembly module.
    pub struct Wasm {
        /// Where the module is.
        #[schemars(length(min = 1), extend("x-kubernetes-validations" = cel(&[(
            "url must have schema one of [http, https, file, oci]",
            "isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"https\", \"file\", \"oci\"]) : (isURL(\"http://\" + self) &&\nurl(\"http://\" + self).getScheme() in [\"\", \"http\", \"https\", \"file\", \"oci\"])",
        )])))]
        pub url: String,
        /// Hash of the module.
        #[schemars(regex(pattern = "(^$|^[a-f0-9]{64}$)"))]
        pub sha256: Option<String>,
        /// When it is pulled.
        pub image_pull_policy: Option<PullPolicy>,
        /// Secret for pulling.
        #[schemars(length(min = 1, max = 253))]
        pub image_pull_secret: Option<String>,
        /// Key for verifying; not used by Istio yet.
        pub verification_key: Option<String>,
        /// Settings handed to it.
        #[serde(default)]
        #[schemars(schema_with = "free_form_value")]
        pub plugin_config: Option<Value>,
        /// Its name inside Envoy.
        #[schemars(length(min = 1, max = 256))]
        pub plugin_name: Option<String>,
        /// What becomes of requests when it fails.
        pub fail_strategy: Option<FailStrategy>,
        /// Settings of its virtual machine.
        pub vm_config: Option<VmConfig>,
        /// What it filters.
        #[serde(rename = "type")]
        pub kind: Option<PluginType>,
    }

    /// Which traffic a filter sees.
    pub struct TrafficSelector {
        /// Which direction.
        pub mode: Option<TrafficMode>,
        /// Which ports; none: all.
        #[serde(default)]
        #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"]))]
        pub ports: Vec<TrafficPort>,
    }

    /// A port.
    pub struct TrafficPort {
        /// Its number.
        #[schemars(range(min = 1, max = 65535))]
        pub number: u32,
    }

    /// Settings of a virtual machine.
    pub struct VmConfig {
        /// Its environment.
        #[serde(default)]
        #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
        pub env: Vec<VmEnv>,
    }

    /// A variable.
    #[schemars(extend("x-kubernetes-validations" = cel(&[(
        "value may only be set when valueFrom is INLINE",
        r#"(has(self.valueFrom) ? self.valueFrom : "") != "HOST" || !has(self.value)"#,
    )])))]
    pub struct VmEnv {
        /// Name.
        #[schemars(length(min = 1, max = 256))]
        pub name: String,
        /// Where its value comes from.
        pub value_from: Option<VmValueSource>,
        /// Its value.
        #[schemars(length(max = 2048))]
        pub value: Option<String>,
    }
}

names! {
    /// When a module is pulled.
    pub enum PullPolicy {
        /// By its tag.
        Unspecified = "UNSPECIFIED_POLICY",
        /// Where it is not there.
        IfNotPresent = "IfNotPresent",
        /// Each time.
        Always = "Always",
    }

    /// Where in the chain a WasmPlugin runs.
    pub enum PluginPhase {
        /// At the end, before the router.
        Unspecified = "UNSPECIFIED_PHASE",
        /// Before authentication.
        Authn = "AUTHN",
        /// Before authorization.
        Authz = "AUTHZ",
        /// Before statistics.
        Stats = "STATS",
    }

    /// Where in the chain a TrafficExtension runs.
    pub enum ExtensionPhase {
        /// At the end, before the router.
        Unspecified = "UNSPECIFIED",
        /// Before authentication.
        Authn = "AUTHN",
        /// Before authorization.
        Authz = "AUTHZ",
        /// Before statistics.
        Stats = "STATS",
    }

    /// What becomes of requests when a filter fails.
    pub enum FailStrategy {
        /// Refused.
        Close = "FAIL_CLOSE",
        /// Passed on without it.
        Open = "FAIL_OPEN",
        /// Refused until it is loaded again.
        Reload = "FAIL_RELOAD",
    }

    /// What a module filters.
    pub enum PluginType {
        /// HTTP.
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE",
        /// Requests.
        Http = "HTTP",
        /// Connections.
        Network = "NETWORK",
    }

    /// A direction of traffic.
    pub enum TrafficMode {
        /// Both.
        Undefined = "UNDEFINED",
        /// Calls of the workload.
        Client = "CLIENT",
        /// Calls to the workload.
        Server = "SERVER",
        /// Both, said so.
        ClientAndServer = "CLIENT_AND_SERVER",
    }

    /// Where a variable's value comes from.
    pub enum VmValueSource {
        /// From `value`.
        Inline = "INLINE",
        /// From the proxy's environment.
        Host = "HOST",
    }
}

fn free_form_value(_: &mut SchemaGenerator) -> Schema {
    free_form()
}
