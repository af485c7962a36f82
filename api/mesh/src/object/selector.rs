//! How an Istio object says which workloads it is about.
//!
//! By labels (two historic spellings) or by naming another object. Field rules are kept beside the fields.
//! Never here: matching; `mesh` does that. Used by the group files.
//! Called by serde.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::shape::{cel, shapes};

shapes! {
    /// Chooses workloads by labels.
    pub struct Selector {
        /// Labels that a workload must all have.
        #[serde(default)]
        #[schemars(schema_with = "match_labels")]
        pub match_labels: BTreeMap<String, String>,
    }

    /// Chooses workloads by labels, in the spelling of networking.istio.io.
    pub struct WorkloadSelector {
        /// Labels that a workload must all have.
        #[serde(default)]
        #[schemars(schema_with = "workload_labels")]
        pub labels: BTreeMap<String, String>,
    }

    /// Names the object a policy is attached to.
    pub struct TargetRef {
        /// API group of the target; empty for the core group.
        #[schemars(length(max = 253), regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
        pub group: Option<String>,
        /// Kind of the target.
        #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
        pub kind: String,
        /// Name of the target.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
        /// Must stay empty: the target is in the policy's own namespace.
        #[schemars(extend("x-kubernetes-validations" = cel(&[
            ("cross namespace referencing is not currently supported", "self.size() == 0"),
        ])))]
        pub namespace: Option<String>,
    }
}

/// At most one of `selector`, `targetRef` and `targetRefs`.
pub(crate) const ONE_TARGET: (&str, &str) = (
    "only one of targetRefs or selector can be set",
    "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
);

fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 4096,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": cel(&[("wildcard not allowed in label value match", r#"!self.contains("*")"#)]),
        },
        "x-kubernetes-validations": cel(&[
            ("wildcard not allowed in label key match", r#"self.all(key, !key.contains("*"))"#),
            ("key must not be empty", "self.all(key, key.size() != 0)"),
        ]),
    })
}

fn workload_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": cel(&[("wildcard is not supported in selector", r#"!self.contains("*")"#)]),
        },
    })
}
