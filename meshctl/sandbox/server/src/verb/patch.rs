//! PATCH: which kind of patch it is, and what it makes of the object.
//!
//! Never here: the patches' own rules (see `crate::patch`). Called by `server`.

use http::{Response, StatusCode};
use serde_json::Value;

use super::input::{self, FieldValidation};
use super::update::{self, Recorded};
use super::{Call, create};
use crate::core::Core;
use crate::kinds::Model;
use crate::reply::{self, Body, Cause, Refusal};
use crate::{body, clock, form, object, patch};

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let kind = &call.target.kind;
    let form = form::Form::of(&call.headers)?;
    let mut warnings = Vec::new();
    let mut status = StatusCode::OK;
    let media = body::media_type(&call.headers);
    if media != "application/apply-patch+yaml" && call.query.filled("force").is_some() {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(Refusal::invalid_as("PatchOptions", "meta.k8s.io", "", &[cause]));
    }
    let value = match media {
        "application/json-patch+json" => {
            let change = patch::json::parse(&call.body)?;
            patched(core, call, &mut warnings, |old| patch::json::apply(&change, old)).await?
        }
        "application/merge-patch+json" => {
            let change = parse(&call.body)?;
            patched(core, call, &mut warnings, |old| Ok(patch::merge::apply(old, &change))).await?
        }
        "application/strategic-merge-patch+json" => {
            let Model::BuiltIn(root) = &kind.model else {
                return Err(unsupported(&[
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/apply-patch+yaml",
                ]));
            };
            let change = parse(&call.body)?;
            patched(core, call, &mut warnings, |old| patch::strategic::apply(root, old, &change)).await?
        }
        "application/apply-patch+yaml" => {
            let (value, created) = apply(core, call, &mut warnings).await?;
            if created {
                status = StatusCode::CREATED;
            }
            value
        }
        _ => {
            let mut all =
                vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
            if kind.custom().is_none() {
                all.insert(2, "application/strategic-merge-patch+json");
            }
            return Err(unsupported(&all));
        }
    };
    let mut response = form.object(kind, &call.query, status, &value)?;
    warnings.dedup();
    reply::warn(&mut response, &warnings);
    Ok(response)
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Refusal::bad_request(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
        ))
    }
}

fn unsupported(types: &[&str]) -> Refusal {
    Refusal::new(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            types.join(", ")
        ),
    )
}

async fn patched(
    core: &Core,
    call: &Call,
    warnings: &mut Vec<String>,
    compute: impl Fn(&Value) -> Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    let validation = FieldValidation::of(call)?;
    let kind = &call.target.kind;
    let unknown = std::sync::Mutex::new(Vec::new());
    let value = update::change(core, call, warnings, Recorded::Update, |old| {
        let mut new = compute(old)?;
        let mut found = Vec::new();
        input::same_kind(kind, &new)?;
        input::tidy(kind, &mut new, validation, &[], &mut found)?;
        *unknown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = found;
        input::place(call, &mut new)?;
        Ok(new)
    })
    .await;
    warnings.append(&mut unknown.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    value
}

/// Server-side apply; says whether the object was made.
async fn apply(core: &Core, call: &Call, warnings: &mut Vec<String>) -> Result<(Value, bool), Refusal> {
    let kind = &call.target.kind;
    if call.query.filled("fieldManager").is_none() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(Refusal::invalid_as("PatchOptions", "meta.k8s.io", "", &[cause]));
    }
    let manager = call.manager();
    let force = call.query.flag("force");
    let mut config =
        body::yaml(&call.body).map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    input::same_kind(kind, &config)?;
    if object::api_version(&config).is_empty() {
        object::object(&mut config).insert("apiVersion".to_owned(), kind.api_version().into());
    }
    input::place(call, &mut config)?;
    if config.pointer("/metadata/managedFields").is_some() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    if FieldValidation::of(call)? == FieldValidation::Strict {
        let mut checked = config.clone();
        input::tidy(kind, &mut checked, FieldValidation::Strict, &[], &mut Vec::new())?;
    }
    patch::apply::declared(kind, &config)?;
    let subresource = call.target.subresource.clone();
    let attempt = update::change(core, call, warnings, Recorded::Itself, |old| {
        patch::apply::apply(kind, Some(old), &config, &manager, &subresource, force, clock::now())
    })
    .await;
    match attempt {
        Err(refusal) if refusal.code == 404 && subresource.is_empty() => {
            let mut new = config.clone();
            patch::merge::drop_nulls(&mut new);
            let value = create::store_applied(core, call, new, warnings).await?;
            Ok((value, true))
        }
        other => Ok((other?, false)),
    }
}
