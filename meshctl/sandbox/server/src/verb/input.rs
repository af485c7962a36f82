//! An object that comes in: decoded, checked against the request, unknown fields dropped or refused.
//!
//! Never here: defaults, admission, storing. Called by create, update and patch.

use serde_json::Value;

use super::Call;
use crate::body;
use crate::kinds::{Kind, Model};
use crate::object;
use crate::reply::Refusal;
use crate::schema::strict;

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(crate) fn of(call: &Call) -> Result<Self, Refusal> {
        match call.query.filled("fieldValidation") {
            None | Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => {
                let cause = crate::reply::Cause::unsupported(
                    "fieldValidation",
                    &other.into(),
                    &["", "Ignore", "Strict", "Warn"],
                );
                Err(Refusal::invalid_as("CreateOptions", "meta.k8s.io", "", &[cause]))
            }
        }
    }
}

/// Reads the request's body as an object of its kind; warnings are appended.
pub(crate) fn object(call: &Call, warnings: &mut Vec<String>) -> Result<Value, Refusal> {
    let kind = &call.target.kind;
    let format = body::format(&call.headers)?;
    if format == body::Format::Protobuf && kind.custom().is_some() {
        return Err(Refusal::new(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
        ));
    }
    let decoded = body::decode(format, &call.body).map_err(|error| cannot_handle(kind, &error))?;
    let mut value = decoded.value;
    same_kind(kind, &value)?;
    tidy(kind, &mut value, FieldValidation::of(call)?, &decoded.duplicates, warnings)?;
    Ok(value)
}

fn cannot_handle(kind: &Kind, why: &str) -> Refusal {
    let name = &kind.kind;
    Refusal::bad_request(format!("{name} in version \"{}\" cannot be handled as a {name}: {why}", kind.version))
}

/// The body's apiVersion and kind must be the path's; absent ones are taken from it.
pub(crate) fn same_kind(kind: &Kind, value: &Value) -> Result<(), Refusal> {
    if !value.is_object() {
        return Err(cannot_handle(kind, "couldn't get version/kind; json parse error: the body is no object"));
    }
    let (version, name) = (object::api_version(value), object::kind(value));
    if version.is_empty() && name.is_empty() && kind.custom().is_none() {
        return Ok(());
    }
    if name.is_empty() {
        return Err(Refusal::bad_request(format!(
            "Object 'Kind' is missing in '{}'",
            value.to_string().chars().take(200).collect::<String>()
        )));
    }
    let wanted = kind.api_version();
    if version != wanted {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        )));
    }
    if name != kind.kind {
        return Err(cannot_handle(
            kind,
            &format!(
                "no kind \"{name}\" is registered for version \"{wanted}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            ),
        ));
    }
    Ok(())
}

/// Drops unknown fields and nulls; complains as asked.
pub(crate) fn tidy(
    kind: &Kind,
    value: &mut Value,
    validation: FieldValidation,
    duplicates: &[String],
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let mut unknown = Vec::new();
    match &kind.model {
        Model::BuiltIn(root) => {
            strict::decode(root, value, &mut unknown).map_err(|error| cannot_handle(kind, &error.to_string()))?;
        }
        Model::Custom(custom) => {
            if let Some(meta) = crate::schema::find("meta/v1.ObjectMeta")
                && let Some(metadata) = value.get_mut("metadata")
            {
                let mut dropped = Vec::new();
                strict::decode(meta, metadata, &mut dropped)
                    .map_err(|error| cannot_handle(kind, &error.to_string()))?;
                unknown.extend(dropped.into_iter().map(|path| format!("metadata.{path}")));
            }
            custom.schema.prune_root(value, &mut unknown);
        }
    }
    let complaints: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .chain(unknown.iter().map(|path| format!("unknown field \"{path}\"")))
        .collect();
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            Err(cannot_handle(kind, &format!("strict decoding error: {}", complaints.join(", "))))
        }
        FieldValidation::Warn => {
            warnings.extend(complaints);
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}

/// Puts apiVersion, kind and metadata first; the store relies on it.
pub(crate) fn arrange(kind: &Kind, value: &mut Value) {
    let map = object::object(value);
    let mut rest = std::mem::take(map);
    map.insert("apiVersion".to_owned(), kind.api_version().into());
    map.insert("kind".to_owned(), kind.kind.clone().into());
    object::take(&mut rest, "apiVersion");
    object::take(&mut rest, "kind");
    if let Some(metadata) = object::take(&mut rest, "metadata") {
        map.insert("metadata".to_owned(), metadata);
    }
    map.extend(rest);
}

/// The namespace and name of the body must be the request's.
pub(crate) fn place(call: &Call, value: &mut Value) -> Result<(), Refusal> {
    let target = &call.target;
    let metadata = object::metadata(value);
    let text = |metadata: &serde_json::Map<String, Value>, name: &str| -> String {
        metadata.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let namespace = text(metadata, "namespace");
    if target.kind.namespaced {
        if namespace.is_empty() {
            metadata.insert("namespace".to_owned(), target.namespace.clone().into());
        } else if namespace != target.namespace {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else {
        object::take(metadata, "namespace");
    }
    let name = text(metadata, "name");
    if !target.name.is_empty() {
        if name.is_empty() {
            metadata.insert("name".to_owned(), target.name.clone().into());
        } else if name != target.name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
    }
    Ok(())
}
