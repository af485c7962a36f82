//! The `scale` subresource: replicas seen through `autoscaling/v1` Scale.
//!
//! Never here: creating Pods. Called by `server`.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Call;
use super::update::{self, Recorded};
use crate::body;
use crate::convert;
use crate::core::Core;
use crate::kinds::Kind;
use crate::object;
use crate::patch;
use crate::reply::{Body, Cause, Refusal, json_body};

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let kind = &call.target.kind;
    let wanted: Wanted = match call.target.verb {
        "get" => {
            let item = update::stored(core, call)?;
            return Ok(json_body(StatusCode::OK, &scale(kind, &convert::view(kind, &item))));
        }
        "update" => {
            let body = body::decode(body::format(&call.headers)?, &call.body).map_err(Refusal::bad_request)?.value;
            Box::new(move |_| Ok(body.clone()))
        }
        "patch" => patch(call)?,
        _ => return Err(Refusal::method_not_allowed()),
    };
    let path = paths(kind).0;
    // Computed from the object of each attempt: a client that names no revision loses no race.
    let value = update::change(core, call, &mut Vec::new(), Recorded::Update, |old| {
        let wanted = wanted(&scale(kind, old))?;
        let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let cause = Cause::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
            return Err(Refusal::invalid_as("Scale", "autoscaling", &call.target.name, &[cause]));
        }
        let mut new = old.clone();
        set(&mut new, &path, replicas.into());
        let revision = object::text(&wanted, "/metadata/resourceVersion");
        if !revision.is_empty() {
            object::metadata(&mut new).insert("resourceVersion".to_owned(), revision.into());
        }
        Ok(new)
    })
    .await?;
    Ok(json_body(StatusCode::OK, &scale(kind, &value)))
}

/// From the present Scale to the wanted one.
type Wanted = Box<dyn Fn(&Value) -> Result<Value, Refusal> + Send + Sync>;

fn patch(call: &Call) -> Result<Wanted, Refusal> {
    Ok(match body::media_type(&call.headers) {
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            let change: Value = serde_json::from_slice(&call.body)
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
            Box::new(move |current| Ok(patch::merge::apply(current, &change)))
        }
        "application/json-patch+json" => {
            let change = patch::json::parse(&call.body)?;
            Box::new(move |current| patch::json::apply(&change, current))
        }
        "application/apply-patch+yaml" => {
            let config = body::yaml(&call.body).map_err(Refusal::bad_request)?;
            Box::new(move |current| Ok(patch::merge::apply(current, &config)))
        }
        _ => {
            return Err(Refusal::new(415, "UnsupportedMediaType", "the body of the request was in an unknown format"));
        }
    })
}

/// JSON pointers of wanted replicas, present replicas and selector.
fn paths(kind: &Kind) -> (String, String, String) {
    let pointer = |path: &str| path.replace('.', "/");
    match kind.custom().and_then(|custom| custom.scale.as_ref()) {
        Some(scale) => (
            pointer(object::text(scale, "/specReplicasPath")),
            pointer(object::text(scale, "/statusReplicasPath")),
            pointer(object::text(scale, "/labelSelectorPath")),
        ),
        None => ("/spec/replicas".to_owned(), "/status/replicas".to_owned(), "/spec/selector".to_owned()),
    }
}

fn set(value: &mut Value, pointer: &str, new: Value) {
    let mut parts: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    let Some(last) = parts.pop() else { return };
    let mut map = object::object(value);
    for part in parts {
        map = object::object(map.entry(part.to_owned()).or_insert_with(|| json!({})));
    }
    map.insert(last.to_owned(), new);
}

fn scale(kind: &Kind, value: &Value) -> Value {
    let (wanted, present, selector) = paths(kind);
    let mut metadata = serde_json::Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(inner) = value.pointer(&format!("/metadata/{name}")) {
            metadata.insert(name.to_owned(), inner.clone());
        }
    }
    let mut status = json!({"replicas": value.pointer(&present).and_then(Value::as_i64).unwrap_or(0)});
    let selector = match value.pointer(&selector) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(inner @ Value::Object(_)) => Some(selector_text(inner)),
        _ => None,
    };
    if let Some(selector) = selector {
        object::object(&mut status).insert("selector".to_owned(), selector.into());
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": value.pointer(&wanted).and_then(Value::as_i64).unwrap_or(0)}, "status": status,
    })
}

/// A `LabelSelector` in the form of queries; a plain map (ReplicationController) counts as `matchLabels`.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    let labels = match object::members(selector, "/matchLabels") {
        Some(labels) => Some(labels),
        None if selector.get("matchExpressions").is_none() => selector.as_object(),
        None => None,
    };
    for (key, value) in labels.into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    parts.sort();
    for expression in object::items(selector, "/matchExpressions") {
        let key = object::text(expression, "/key");
        let values: Vec<&str> = object::items(expression, "/values").iter().filter_map(Value::as_str).collect();
        parts.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}
