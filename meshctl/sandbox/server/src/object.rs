//! Reading and writing the metadata of an object that is JSON.
//!
//! Absent and empty mean the same, as in the real API. Never here: rules. Called by everything that touches objects.

use serde_json::{Map, Value};

/// The text at a JSON pointer, or "".
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(value: &Value) -> &str {
    text(value, "/metadata/name")
}

pub(crate) fn namespace(value: &Value) -> &str {
    text(value, "/metadata/namespace")
}

pub(crate) fn uid(value: &Value) -> &str {
    text(value, "/metadata/uid")
}

pub(crate) fn api_version(value: &Value) -> &str {
    text(value, "/apiVersion")
}

pub(crate) fn kind(value: &Value) -> &str {
    text(value, "/kind")
}

/// The items at a JSON pointer; empty when absent.
pub(crate) fn items<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The members at a JSON pointer.
pub(crate) fn members<'v>(value: &'v Value, pointer: &str) -> Option<&'v Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// The metadata, made when absent or null; the value becomes an object.
pub(crate) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    member(value, "metadata")
}

/// A member that is an object, made when absent or of another type; the value becomes an object.
pub(crate) fn member<'v>(value: &'v mut Value, name: &str) -> &'v mut Map<String, Value> {
    let inner = object(value).entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    object(inner)
}

/// The value as an object; made an empty one when it is something else.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // The lines above leave nothing else.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => unreachable!(),
    }
}

/// Puts a default where nothing is.
pub(crate) fn fill(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    if map.get(name).is_none_or(Value::is_null) {
        map.insert(name.to_owned(), value.into());
    }
}

/// Puts a default where nothing or an empty text is.
pub(crate) fn fill_text(map: &mut Map<String, Value>, name: &str, value: &str) {
    if map.get(name).is_none_or(|old| old.is_null() || old.as_str() == Some("")) {
        map.insert(name.to_owned(), Value::String(value.to_owned()));
    }
}

/// Removes a member and keeps the others' order.
pub(crate) fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    map.shift_remove(name)
}
