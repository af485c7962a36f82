//! Creating an object.
//!
//! Decode → defaults → admission → validation → store, in the real server's order. Never here: what each step does.
//! Called by `server` for POST, by server-side apply for absent objects, and by `bootstrap`.

use http::{Response, StatusCode};
use rand::RngExt as _;
use serde_json::Value;

use super::{Call, input};
use crate::admission::{self, Operation};
use crate::core::Core;
use crate::kinds::Kind;
use crate::limits::GENERATE_ATTEMPTS_MAX;
use crate::reply::{self, Body, Cause, Refusal};
use crate::store::{Expect, WriteError};
use crate::{clock, convert, defaults, form, object, patch, validate};

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let mut warnings = Vec::new();
    let form = form::Form::of(&call.headers)?;
    let mut value = input::object(call, &mut warnings)?;
    input::place(call, &mut value)?;
    let value = store_new(core, call, value, &mut warnings).await.map_err(|mut refusal| {
        refusal.warnings.append(&mut warnings.clone());
        refusal
    })?;
    let mut response = form.object(&call.target.kind, &call.query, StatusCode::CREATED, &value)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Everything after decoding; gives the object as stored, in the request's version.
pub(crate) async fn store_new(
    core: &Core,
    call: &Call,
    value: Value,
    warnings: &mut Vec<String>,
) -> Result<Value, Refusal> {
    store_as(core, call, value, warnings, None).await
}

/// As `store_new` for server-side apply: the manager owns just what it has sent.
pub(crate) async fn store_applied(
    core: &Core,
    call: &Call,
    value: Value,
    warnings: &mut Vec<String>,
) -> Result<Value, Refusal> {
    let config = value.clone();
    store_as(core, call, value, warnings, Some(&config)).await
}

async fn store_as(
    core: &Core,
    call: &Call,
    mut value: Value,
    warnings: &mut Vec<String>,
    applied: Option<&Value>,
) -> Result<Value, Refusal> {
    let kind = &call.target.kind;
    let dry_run = call.dry_run()?;
    if !object::text(&value, "/metadata/resourceVersion").is_empty() {
        return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    if let Some(custom) = kind.custom()
        && let Some(warning) = &custom.deprecated
    {
        warnings.push(warning.clone());
    }
    let generated = begin(kind, &call.target.namespace, &mut value)?;
    patch::managed::drop_incoming(&mut value);
    defaults::on_create(core, kind, &mut value);
    let mut asked = admission::Ask::new(call, Operation::Create, dry_run);
    admission::mutate(core, &mut asked, &mut value, None).await?;
    defaults::fill(kind, &mut value);
    warnings.append(&mut asked.warnings);
    let causes = validate::check(kind, &value, None);
    if !causes.is_empty() {
        return Err(Refusal::invalid(kind, shown_name(&value), &causes));
    }
    admission::validate(core, &mut asked, Some(&value), None).await?;
    warnings.append(&mut asked.warnings);
    admission::namespace_still_there(core, &asked, &value)?;
    match applied {
        Some(config) => patch::apply::own(kind, config, &mut value, &call.manager(), clock::now()),
        None => patch::managed::record(kind, None, &mut value, &call.manager(), &call.target.subresource, clock::now()),
    }
    let taken = defaults::allocate(core, kind, &mut value, None)?;
    if dry_run {
        if let Some(service) = taken {
            core.allocator.release(&service, None);
        }
        if core.store.get(&kind.storage, object::namespace(&value), object::name(&value)).is_some() {
            return Err(Refusal::exists(kind, object::name(&value)));
        }
        input::arrange(kind, &mut value);
        return Ok(value);
    }
    let stored = insert(core, kind, &mut value, generated).await;
    match stored {
        Ok(stored) => {
            after_write(core, kind);
            Ok(stored)
        }
        Err(refusal) => {
            if let Some(service) = taken {
                core.allocator.release(&service, None);
            }
            Err(refusal)
        }
    }
}

/// What must follow a write of this kind.
pub(crate) fn after_write(core: &Core, kind: &Kind) {
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        core.reload_crds();
    }
}

fn shown_name(value: &Value) -> &str {
    object::name(value)
}

/// Where an object's name is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Given,
    Generated,
}

/// Fills the metadata that only the server sets.
fn begin(kind: &Kind, namespace: &str, value: &mut Value) -> Result<Name, Refusal> {
    if kind.has("status") && kind.storage != "nodes" {
        object::take(object::object(value), "status");
    }
    let generated = generated_name(value);
    let metadata = object::metadata(value);
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        object::take(metadata, name);
    }
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let origin = if generated.is_some() { Name::Generated } else { Name::Given };
    if let Some(name) = generated {
        metadata.insert("name".to_owned(), name.into());
    }
    if metadata.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(Refusal::invalid(kind, "", &[cause]));
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), clock::seconds(clock::now()).into());
    if defaults::has_generation(kind) {
        metadata.insert("generation".to_owned(), 1.into());
    }
    Ok(origin)
}

fn generated_name(value: &Value) -> Option<String> {
    if !object::name(value).is_empty() {
        return None;
    }
    let base = object::text(value, "/metadata/generateName");
    if base.is_empty() {
        return None;
    }
    let base: String = base.chars().take(58).collect();
    Some(format!("{base}{}", suffix()))
}

/// Five characters without vowels and look-alikes.
pub(crate) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

async fn insert(core: &Core, kind: &Kind, value: &mut Value, origin: Name) -> Result<Value, Refusal> {
    for attempt in 1.. {
        let mut stored = value.clone();
        convert::to_storage(kind, &mut stored);
        let storage_kind = core.registry.served().stored_at(&kind.storage).cloned();
        arrange_stored(storage_kind.as_deref().unwrap_or(kind), kind, &mut stored);
        let (namespace, name) = (object::namespace(value).to_owned(), object::name(value).to_owned());
        match core.store.put(&kind.storage, &namespace, &name, Expect::Absent, stored).await {
            Ok(item) => return Ok(convert::view(kind, &item)),
            Err(WriteError::Exists) if origin == Name::Generated && attempt < GENERATE_ATTEMPTS_MAX => {
                let base = object::text(value, "/metadata/generateName").to_owned();
                object::metadata(value).insert("name".to_owned(), format!("{base}{}", suffix()).into());
            }
            Err(error) => return Err(refuse(kind, &name, &error)),
        }
    }
    Err(Refusal::exists(kind, object::name(value)))
}

/// Stored form: apiVersion of the storage version, then kind, then metadata.
pub(crate) fn arrange_stored(storage: &Kind, kind: &Kind, value: &mut Value) {
    input::arrange(storage, value);
    object::object(value).insert("apiVersion".to_owned(), convert::storage_version(kind).into());
}

/// A failed write in the API's words.
pub(crate) fn refuse(kind: &Kind, name: &str, error: &WriteError) -> Refusal {
    match error {
        WriteError::Exists => Refusal::exists(kind, name),
        WriteError::Gone => Refusal::not_found(kind, name),
        WriteError::Modified => Refusal::modified(kind, name),
        WriteError::TooLarge { .. } => Refusal::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {}", crate::limits::OBJECT_BYTES_MAX),
        ),
        WriteError::Disk => Refusal::internal(error.to_string()),
    }
}
