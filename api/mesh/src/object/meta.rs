//! What every stored object carries besides its own fields: metadata, and the status of Istio's kinds.
//!
//! Never here: fields of one kind only. Used by every file of `object`.
//! Called by `kind` when an object is read, and by `model` for names, labels and age.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::scalar::IntOrString;
use super::shape::shapes;

/// An object of a kind that has `spec` and `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object<S, T = Status> {
    /// Name, labels, age.
    pub metadata: Metadata,
    /// What the user asked for.
    #[serde(default)]
    pub spec: S,
    /// What was found out about it.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub status: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

/// The part of Kubernetes' object metadata that a mesh reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name, unique among objects of its kind in its namespace.
    pub name: String,
    /// Prefix that the server made the name from; tells a Pod's workload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// Namespace; empty for cluster-wide kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Identity that no later object of the same name has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Version of the stored object; opaque.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was created: Istio's older-wins rules go by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Set while it waits for finalizers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// Who made it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// An object that this one belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the same namespace.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether this owner is the one that manages the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
}

shapes! {
    /// Status of every Istio kind.
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub struct Status {
        /// What holds of the object now.
        #[serde(default)]
        pub conditions: Vec<Condition>,
        /// Generation that was looked at last.
        pub observed_generation: Option<IntOrString>,
        /// What analysis had to say.
        #[serde(default)]
        pub validation_messages: Vec<ValidationMessage>,
    }

    /// One statement about an object.
    pub struct Condition {
        /// When it was last looked at.
        #[schemars(extend("format" = "date-time"))]
        pub last_probe_time: Option<String>,
        /// When it last changed.
        #[schemars(extend("format" = "date-time"))]
        pub last_transition_time: Option<String>,
        /// Explanation for a reader.
        pub message: Option<String>,
        /// Generation the statement is about.
        pub observed_generation: Option<IntOrString>,
        /// Explanation for a program.
        pub reason: Option<String>,
        /// True, False or Unknown.
        pub status: Option<String>,
        /// What is stated.
        #[serde(rename = "type")]
        pub kind: Option<String>,
    }

    /// One finding of analysis.
    pub struct ValidationMessage {
        /// Page that explains it.
        pub documentation_url: Option<String>,
        /// How much it matters.
        #[schemars(extend("enum" = ["UNKNOWN", "ERROR", "WARNING", "INFO"]))]
        pub level: Option<String>,
        /// Which finding it is.
        #[serde(rename = "type")]
        pub kind: Option<ValidationMessageType>,
    }

    /// Name of a finding.
    pub struct ValidationMessageType {
        /// Code such as `IST0101`.
        pub code: Option<String>,
        /// Name for a reader.
        pub name: Option<String>,
    }
}
