//! Names of kinds and objects, and the URLs they have.
//!
//! Never here: requests. Used by every controller to say what a write is about.
//! Called by `write` and `watch`.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use serde_json::Value;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Empty for cluster-wide kinds.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub(crate) fn of<K: kube::Resource>(object: &K) -> Self {
        Self::of_meta(object.meta())
    }

    /// The key in an object's metadata.
    pub(crate) fn of_meta(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A kind with the version and name that its URLs have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
}

impl Resource {
    pub(crate) fn new(api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced,
        }
    }

    /// A built-in kind that a controller writes; none for others.
    pub(crate) fn builtin(kind: &str) -> Option<Self> {
        let (api_version, plural) = match kind {
            "Pod" => ("v1", "pods"),
            "Event" => ("v1", "events"),
            "ConfigMap" => ("v1", "configmaps"),
            "ServiceAccount" => ("v1", "serviceaccounts"),
            "Endpoints" => ("v1", "endpoints"),
            "Namespace" => return Some(Self::new("v1", kind, "namespaces", false)),
            "Deployment" => ("apps/v1", "deployments"),
            "ReplicaSet" => ("apps/v1", "replicasets"),
            "DaemonSet" => ("apps/v1", "daemonsets"),
            "Job" => ("batch/v1", "jobs"),
            "EndpointSlice" => ("discovery.k8s.io/v1", "endpointslices"),
            _ => return None,
        };
        Some(Self::new(api_version, kind, plural, true))
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The URL of a collection; an empty namespace means all of them.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if namespace.is_empty() || !self.namespaced {
            format!("{root}/{}", self.plural)
        } else {
            format!("{root}/namespaces/{namespace}/{}", self.plural)
        }
    }

    /// The URL of an object, or of a part of it.
    pub(crate) fn object(&self, key: &Key, part: &str) -> String {
        let collection = self.collection(&key.namespace);
        if part.is_empty() { format!("{collection}/{}", key.name) } else { format!("{collection}/{}/{part}", key.name) }
    }

    /// The same as `kube` has it.
    pub(crate) fn to_api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version: self.api_version(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        }
    }
}

/// A resource version as a number: the server counts them, so a larger one is a later one.
pub(crate) fn version_number(version: Option<&str>) -> u64 {
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Text at a pointer of an object; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
