//! A user's own `istio-proxy` or `istio-init` container: what it says goes over what the template says.
//!
//! Maps are merged; lists of named things (variables, ports, mounts) by their key; all else is replaced. Image `auto` says
//! nothing. Never here: the template. Called by `pod`.

use serde_json::{Map, Value};

/// The container without image `auto`, as it is kept in an annotation.
pub(super) fn to_save(own: &Value) -> Value {
    let mut own = own.clone();
    if let Some(fields) = own.as_object_mut()
        && fields.get("image").and_then(Value::as_str) == Some("auto")
    {
        fields.remove("image");
    }
    own
}

/// Puts the user's container over ours.
pub(super) fn apply(ours: &mut Value, own: &Value) {
    if let (Value::Object(ours), Value::Object(own)) = (ours, to_save(own)) {
        merge(ours, own);
    }
}

/// The field that tells entries of a list apart, where it is such a list.
fn key_of(list: &str) -> Option<&'static str> {
    match list {
        "env" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

fn merge(ours: &mut Map<String, Value>, own: Map<String, Value>) {
    for (field, value) in own {
        match (ours.get_mut(&field), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) if key_of(&field).is_some() => {
                let key = key_of(&field).unwrap_or_default();
                for item in new {
                    match old.iter_mut().find(|entry| entry[key] == item[key]) {
                        Some(entry) => *entry = item,
                        None => old.push(item),
                    }
                }
            }
            (_, Value::Null) => {}
            (_, value) => {
                ours.insert(field, value);
            }
        }
    }
}
