//! Puts a proxy beside an application: Pod in, Pod with sidecar out, as Istio's injection does it.
//!
//! [`decide`] says whether a Pod gets one, [`inject`] makes the Pod, [`workload`] does both for anything that holds a Pod
//! template. What an annotation asks and we do not do is told in a note; an annotation that cannot be read refuses the Pod.
//! Never here: admission reviews, files, YAML of objects. Called by the injector's webhook and by `meshctl kube-inject`.

mod annotations;
mod config;
mod decide;
mod gateway;
mod overrides;
mod pod;
mod probes;
mod sidecar;
mod workload;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use annotations::AnnotationError;
pub use config::{ConfigError, InjectConfig, Selector};
pub use decide::{Decision, decide};
pub use workload::workload;

/// Label on a Pod that wants, or does not want, a sidecar; as an annotation it is an older way to say so.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// Annotation on a Pod that has a sidecar: what was added.
pub const STATUS: &str = "sidecar.istio.io/status";

/// Who owns a Pod, as its metadata tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// `apiVersion` of the owner, for example `apps/v1`.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
}

/// What is known of a Pod besides the Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Its namespace.
    pub namespace: String,
    /// Its workload, where the caller knows it; else it is read from the Pod's owner references.
    pub owner: Option<Owner>,
    /// Variables the caller puts into the proxy's environment (`/inject/cluster/NAME/net/NAME` of the webhook's path).
    pub extra_env: Vec<(String, String)>,
}

/// A Pod with its proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The Pod (or the object that holds its template).
    pub object: Value,
    /// What its writer should know.
    pub notes: Vec<String>,
}

/// Why a Pod is refused.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// An annotation cannot be read.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A template that is not offered.
    #[error("annotation inject.istio.io/templates: {name:?} is not offered; there are \"sidecar\" and \"gateway\"")]
    Template {
        /// Its name.
        name: String,
    },
    /// Not a Pod.
    #[error("{field} is missing or of the wrong type")]
    Shape {
        /// Path of the field.
        field: &'static str,
    },
}

/// Adds the proxy to a Pod that [`decide`] said should have one.
///
/// # Errors
/// An annotation cannot be read, or the value is no Pod.
pub fn inject(pod: &Value, placement: &Placement, config: &InjectConfig) -> Result<Injected, InjectError> {
    pod::inject(pod, placement, config)
}
