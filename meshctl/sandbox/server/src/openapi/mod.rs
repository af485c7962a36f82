//! OpenAPI documents, as far as clients need them.
//!
//! Version 3 per group: schemas for `explain`, and a patch operation per kind with `fieldValidation` and `dryRun`.
//! Version 2 says the same of all groups, in protobuf (see `v2`). Never here: validation. Called by `dispatch`.

mod v2;

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::kinds::{Kind, Model, Served};
use crate::object;
use crate::reply::{self, Body, Refusal};
use crate::schema::{self, Field, FieldKind};
use crate::store::Store;

const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

pub(crate) fn answer(path: &str, served: &Served, store: &Store) -> Option<Result<Response<Body>, Refusal>> {
    let path = path.trim_end_matches('/');
    if path == "/openapi/v2" {
        return Some(Ok(reply::whole(StatusCode::OK, V2, whole(served, store))));
    }
    if path == "/openapi/v3" {
        return Some(Ok(reply::json_body(StatusCode::OK, &index(served))));
    }
    let group = path.strip_prefix("/openapi/v3/")?;
    let kinds: Vec<&Kind> =
        served.kinds().iter().map(|kind| &**kind).filter(|kind| group_path(kind) == group).collect();
    if kinds.is_empty() {
        return Some(Ok(reply::text(StatusCode::NOT_FOUND, "404 page not found\n")));
    }
    Some(Ok(reply::json_body(StatusCode::OK, &document(&kinds, store))))
}

fn group_path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn index(served: &Served) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for kind in served.kinds() {
        let path = group_path(kind);
        if paths.contains_key(&path) {
            continue;
        }
        // The hash changes when a CRD of the group does: clients cache by it.
        let mut digest = Sha256::new();
        for other in served.kinds().iter().filter(|other| group_path(other) == path) {
            digest.update(other.kind.as_bytes());
            if let Some(custom) = other.custom() {
                digest.update(custom.digest);
            }
        }
        let hash: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02X}")).collect();
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
    }
    json!({"paths": paths})
}

/// Version 2 of everything.
fn whole(served: &Served, store: &Store) -> Vec<u8> {
    let kinds: Vec<&Kind> = served.kinds().iter().map(|kind| &**kind).filter(|kind| !kind.review).collect();
    // Old Deployments need less than the type they share: nothing is said of them, so that nothing is missing.
    let described: Vec<&Kind> = kinds.iter().copied().filter(|kind| !kind.is_old_deployment()).collect();
    let mut schemas = Map::new();
    for kind in &described {
        add_root(kind, store, &mut schemas);
    }
    let paths: Vec<String> = kinds.iter().map(|kind| object_path(kind)).collect();
    v2::document(&kinds, &paths, &schemas)
}

fn object_path(kind: &Kind) -> String {
    let space = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{}/{space}{}/{{name}}", group_path(kind), kind.plural)
}

/// Adds a kind's schema and all that it refers to; gives its name.
fn add_root(kind: &Kind, store: &Store, schemas: &mut Map<String, Value>) -> String {
    let name = root_name(kind);
    let gvk = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
    let mut root = match &kind.model {
        Model::BuiltIn(root) => {
            add_type(root.name, schemas);
            schemas.get(&component(root.name)).cloned().unwrap_or_default()
        }
        Model::Custom(_) => {
            add_type("meta/v1.ObjectMeta", schemas);
            custom_root(stored_schema(kind, store))
        }
    };
    object::object(&mut root).insert("x-kubernetes-group-version-kind".to_owned(), gvk);
    schemas.insert(name.clone(), root);
    name
}

fn document(kinds: &[&Kind], store: &Store) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for kind in kinds {
        let name = add_root(kind, store, &mut schemas);
        paths.insert(object_path(kind), operations(kind, &name));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33.4"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operations(kind: &Kind, name: &str) -> Value {
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
    let operation = |action: &str, parameters: Vec<Value>| {
        json!({
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        })
    };
    let write = vec![query("dryRun"), query("fieldManager"), query("fieldValidation")];
    let mut patch = write.clone();
    patch.push(query("force"));
    json!({
        "get": operation("get", Vec::new()),
        "put": operation("put", write),
        "patch": operation("patch", patch),
        "delete": operation("delete", vec![query("dryRun")]),
    })
}

/// `io.k8s.api.core.v1.Pod`, or for custom kinds their group turned round.
fn root_name(kind: &Kind) -> String {
    match &kind.model {
        Model::BuiltIn(root) if root.name.ends_with(&format!(".{}", kind.kind)) && !kind.is_old_deployment() => {
            component(root.name)
        }
        Model::BuiltIn(_) | Model::Custom(_) => {
            let mut parts: Vec<&str> = kind.group.split('.').collect();
            parts.reverse();
            format!("{}.{}.{}", parts.join("."), kind.version, kind.kind)
        }
    }
}

fn component(name: &str) -> String {
    let (package, kind) = name.rsplit_once('.').unwrap_or(("", name));
    let package = package.replace('/', ".");
    match package.split('.').next() {
        Some("meta") => format!("io.k8s.apimachinery.pkg.apis.{package}.{kind}"),
        Some("apiextensions") => format!("io.k8s.apiextensions-apiserver.pkg.apis.{package}.{kind}"),
        _ => format!("io.k8s.api.{package}.{kind}"),
    }
}

fn add_type(name: &str, schemas: &mut Map<String, Value>) {
    let key = component(name);
    let Some(kind) = schema::find(name) else { return };
    if schemas.contains_key(&key) {
        return;
    }
    schemas.insert(key.clone(), Value::Null);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &kind.fields {
        properties.insert(field.name.to_owned(), property(field, &field.kind, schemas));
        if field.required && field.name != "metadata" {
            required.push(Value::from(field.name));
        }
    }
    let mut value = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        object::object(&mut value).insert("required".to_owned(), required.into());
    }
    schemas.insert(key, value);
}

fn property(field: &Field, kind: &FieldKind, schemas: &mut Map<String, Value>) -> Value {
    match kind {
        FieldKind::String => json!({"type": "string"}),
        FieldKind::Bool => json!({"type": "boolean"}),
        FieldKind::Int => json!({"type": "integer"}),
        FieldKind::Float => json!({"type": "number"}),
        FieldKind::Bytes => json!({"type": "string", "format": "byte"}),
        FieldKind::Time | FieldKind::MicroTime => json!({"type": "string", "format": "date-time"}),
        FieldKind::Duration | FieldKind::Quantity => json!({"type": "string"}),
        FieldKind::IntOrString => json!({"type": "string", "format": "int-or-string"}),
        FieldKind::Fields | FieldKind::Raw => json!({"type": "object"}),
        FieldKind::Any => json!({}),
        FieldKind::Extra => json!({"type": "array", "items": {"type": "string"}}),
        FieldKind::Map(inner) => json!({"type": "object", "additionalProperties": property(field, inner, schemas)}),
        FieldKind::List(inner) => {
            let mut value = json!({"type": "array", "items": property(field, inner, schemas)});
            if let Some(key) = field.merge {
                let map = object::object(&mut value);
                map.insert("x-kubernetes-patch-strategy".to_owned(), "merge".into());
                if !key.is_empty() {
                    map.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
                }
            }
            value
        }
        FieldKind::Type(name) => {
            add_type(name, schemas);
            json!({"allOf": [{"$ref": format!("#/components/schemas/{}", component(name))}], "default": {}})
        }
    }
}

/// The schema as the CRD has it.
fn stored_schema(kind: &Kind, store: &Store) -> Value {
    let Some(item) = store.get("customresourcedefinitions.apiextensions.k8s.io", "", &kind.group_resource()) else {
        return Value::Null;
    };
    let crd = item.value();
    let version =
        object::items(&crd, "/spec/versions").iter().find(|version| object::text(version, "/name") == kind.version);
    version.and_then(|version| version.pointer("/schema/openAPIV3Schema")).cloned().unwrap_or_default()
}

fn custom_root(raw: Value) -> Value {
    let mut root = if raw.is_object() { raw } else { json!({"type": "object"}) };
    let properties = object::member(&mut root, "properties");
    properties.entry("apiVersion").or_insert_with(|| json!({"type": "string"}));
    properties.entry("kind").or_insert_with(|| json!({"type": "string"}));
    let reference = format!("#/components/schemas/{}", component("meta/v1.ObjectMeta"));
    properties.insert("metadata".to_owned(), json!({"allOf": [{"$ref": reference}]}));
    root
}
