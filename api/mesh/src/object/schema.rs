//! Which fields each kind has, as JSON schema made from the types.
//!
//! Puts the derived schemas into the form that Kubernetes wants (structural, no references), drops nulls from objects
//! (they mean "not set") and lists fields that an Istio kind does not have.
//! Never here: bounds and rules, which stand beside the fields. Called by `from_json` and `crd`.

use std::sync::OnceLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::networking as net;
use super::{Kind, Status, extensions, security, telemetry};

/// Schemas of spec and status of one Istio kind.
pub(crate) struct Shape {
    pub(crate) spec: Value,
    pub(crate) status: Value,
}

/// The shape of an Istio kind; none for core kinds. Made once, from the types.
pub(crate) fn of(kind: Kind) -> Option<&'static Shape> {
    static ALL: OnceLock<Vec<Option<Shape>>> = OnceLock::new();
    let all = ALL.get_or_init(|| Kind::ALL.iter().map(|kind| derive(*kind)).collect());
    all.get(kind as usize)?.as_ref()
}

fn derive(kind: Kind) -> Option<Shape> {
    let spec = match kind {
        Kind::VirtualService => structural::<net::VirtualService>(),
        Kind::DestinationRule => structural::<net::DestinationRule>(),
        Kind::Gateway => structural::<net::Gateway>(),
        Kind::ServiceEntry => structural::<net::ServiceEntry>(),
        Kind::Sidecar => structural::<net::Sidecar>(),
        Kind::WorkloadEntry => structural::<net::WorkloadEntry>(),
        Kind::WorkloadGroup => structural::<net::WorkloadGroup>(),
        Kind::EnvoyFilter => structural::<net::EnvoyFilter>(),
        Kind::ProxyConfig => structural::<net::ProxyConfig>(),
        Kind::AuthorizationPolicy => structural::<security::AuthorizationPolicy>(),
        Kind::PeerAuthentication => structural::<security::PeerAuthentication>(),
        Kind::RequestAuthentication => structural::<security::RequestAuthentication>(),
        Kind::Telemetry => structural::<telemetry::Telemetry>(),
        Kind::WasmPlugin => structural::<extensions::WasmPlugin>(),
        Kind::TrafficExtension => structural::<extensions::TrafficExtension>(),
        Kind::Service
        | Kind::Endpoints
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::Namespace
        | Kind::Node
        | Kind::Secret
        | Kind::ConfigMap => return None,
    };
    Some(Shape { spec, status: structural::<Status>() })
}

/// A type's schema in Kubernetes' form.
pub(crate) fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    reshape(&mut schema);
    schema
}

fn reshape(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for word in ["$schema", "title", "default", "$defs"] {
        fields.remove(word);
    }
    unwrap_optional(fields);
    collapse_names(fields);
    reshape_number(fields);
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(reshape);
        properties.sort_keys();
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(word) {
            reshape(inner);
            without_description(inner);
        }
    }
    fields.sort_keys();
}

/// "This or null" is how an `Option` is derived; in objects, null means absent.
fn unwrap_optional(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_mut_slice() {
            let only = only.take();
            fields.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(choices)) = fields.get("anyOf") else { return };
    if let [inner, null] = choices.as_slice()
        && null == &json!({ "type": "null" })
        && let Value::Object(inner) = inner.clone()
    {
        fields.remove("anyOf");
        for (word, value) in inner {
            fields.entry(word).or_insert(value);
        }
    }
}

/// Names with a description each are derived as a choice of constants; Kubernetes wants one list.
fn collapse_names(fields: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = fields.get("oneOf") else { return };
    let names: Option<Vec<Value>> = choices.iter().map(|choice| choice.get("const").cloned()).collect();
    if let Some(names) = names {
        fields.remove("oneOf");
        fields.insert("type".into(), "string".into());
        fields.insert("enum".into(), names.into());
    }
}

/// Unsigned numbers have no format in Kubernetes, but bounds.
fn reshape_number(fields: &mut Map<String, Value>) {
    match fields.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            fields.remove("format");
            fields.entry("minimum").or_insert(json!(0));
            fields.entry("maximum").or_insert(json!(u32::MAX));
        }
        Some("uint64") => {
            fields.remove("format");
            fields.entry("minimum").or_insert(json!(0));
        }
        _ => {}
    }
}

fn without_description(schema: &mut Value) {
    if let Value::Object(fields) = schema {
        fields.remove("description");
    }
}

/// Drops nulls and returns the paths of unknown fields, for Istio's kinds; where those have no `spec`, an empty one is read.
pub(crate) fn tidy(kind: Kind, value: &mut Value) -> Vec<String> {
    drop_nulls(value);
    if let (true, Value::Object(fields)) = (kind.is_istio(), &mut *value) {
        fields.entry("spec").or_insert_with(|| json!({}));
    }
    let mut unknown = Vec::new();
    if let (Some(shape), Value::Object(fields)) = (of(kind), &*value) {
        for (name, field) in fields {
            match name.as_str() {
                "apiVersion" | "kind" | "metadata" => {}
                "spec" => find_unknown(field, &shape.spec, "spec", &mut unknown),
                "status" => find_unknown(field, &shape.status, "status", &mut unknown),
                other => unknown.push(other.to_owned()),
            }
        }
    }
    unknown
}

pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lists the fields that the schema does not have.
pub(crate) fn find_unknown(value: &Value, schema: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let rest = schema.get("additionalProperties");
            let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if properties.is_none() && rest.is_none() {
                return; // free form, or no object by its schema: then reading it says so
            }
            for (name, field) in fields {
                match properties.and_then(|p| p.get(name)).or(rest) {
                    Some(inner) => find_unknown(field, inner, &step(path, name), unknown),
                    None if open => {}
                    None => unknown.push(step(path, name)),
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.get("items") else { return };
            for (at, item) in items.iter().enumerate() {
                find_unknown(item, inner, &format!("{path}[{at}]"), unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn step(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
