//! OpenAPI version 2, in protobuf: the only form that older clients read.
//!
//! Definitions (with merge keys) and a patch operation per kind. Never here: which schemas (see the parent).
//! Called by `openapi`.

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::object;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn message(&mut self, number: u64, inner: &Message) {
        self.bytes(number, &inner.0);
    }

    /// A named extension; its value is YAML, which JSON is.
    fn extension(&mut self, number: u64, name: &str, value: &Value) {
        let mut any = Message::default();
        any.text(2, &format!("{value}\n"));
        let mut named = Message::default();
        named.text(1, name);
        named.message(2, &any);
        self.message(number, &named);
    }
}

/// The document: `schemas` are those of version 3, by name.
pub(super) fn document(kinds: &[&Kind], paths: &[String], schemas: &Map<String, Value>) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, "Kubernetes");
    info.text(2, "v1.33.4");
    let mut all = Message::default();
    for (kind, path) in kinds.iter().zip(paths) {
        let mut item = Message::default();
        item.message(8, &patch(kind));
        let mut named = Message::default();
        named.text(1, path);
        named.message(2, &item);
        all.message(2, &named);
    }
    let mut definitions = Message::default();
    for (name, value) in schemas {
        definitions.message(1, &named_schema(name, value));
    }
    let mut document = Message::default();
    document.text(1, "2.0");
    document.message(2, &info);
    document.message(8, &all);
    document.message(9, &definitions);
    document.0
}

fn patch(kind: &Kind) -> Message {
    let mut operation = Message::default();
    for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
        let mut query = Message::default();
        query.text(2, "query");
        query.text(4, name);
        query.text(6, "string");
        // ParametersItem > Parameter > NonBodyParameter > QueryParameterSubSchema.
        let mut inner = query;
        for number in [3, 2, 1] {
            let mut outer = Message::default();
            outer.message(number, &inner);
            inner = outer;
        }
        operation.message(8, &inner);
    }
    operation.extension(13, "x-kubernetes-action", &"patch".into());
    let gvk = serde_json::json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
    operation.extension(13, "x-kubernetes-group-version-kind", &gvk);
    operation
}

fn named_schema(name: &str, value: &Value) -> Message {
    let mut named = Message::default();
    named.text(1, name);
    named.message(2, &schema(value));
    named
}

/// A reference, alone or wrapped as version 3 does it.
fn reference(value: &Value) -> &str {
    let direct = object::text(value, "/$ref");
    if direct.is_empty() { object::text(value, "/allOf/0/$ref") } else { direct }
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool) == Some(true)
}

/// What version 2 can say of a schema; where values may be of several types it says nothing of the type.
fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let to = reference(value);
    if let Some(name) = to.strip_prefix("#/components/schemas/") {
        out.text(1, &format!("#/definitions/{name}"));
        return out;
    }
    out.text(4, object::text(value, "/description"));
    let loose = flag(value, "nullable") || flag(value, "x-kubernetes-int-or-string");
    if !loose {
        out.text(2, object::text(value, "/format"));
        for name in object::items(value, "/required").iter().filter_map(Value::as_str) {
            out.text(19, name);
        }
        let kind = object::text(value, "/type");
        let open = flag(value, "x-kubernetes-preserve-unknown-fields");
        if let Some(inner) = value.get("additionalProperties").filter(|inner| inner.is_object())
            && !open
        {
            let mut item = Message::default();
            item.message(1, &schema(inner));
            out.message(21, &item);
        }
        if !kind.is_empty() {
            let mut item = Message::default();
            item.text(1, kind);
            out.message(22, &item);
        }
        if kind == "array" {
            let mut item = Message::default();
            item.message(1, &schema(value.get("items").unwrap_or(&Value::Null)));
            out.message(23, &item);
        }
        let properties = object::members(value, "/properties").filter(|map| !map.is_empty() && !open);
        if let Some(properties) = properties {
            let mut all = Message::default();
            for (name, inner) in properties {
                all.message(1, &named_schema(name, inner));
            }
            out.message(25, &all);
        }
    }
    for name in ["x-kubernetes-group-version-kind", "x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy"] {
        if let Some(inner) = value.get(name) {
            out.extension(31, name, inner);
        }
    }
    out
}
