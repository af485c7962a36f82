//! Changing an object: PUT, and the common part of all patches.
//!
//! Reads, computes, checks, writes if nobody was faster, else begins again. A change that changes nothing writes
//! nothing. Never here: how a patch is applied. Called by `server`, `patch`, `scale` and `delete`.

use http::{Response, StatusCode};
use serde_json::Value;

use super::create::{after_write, arrange_stored, refuse};
use super::{Call, input};
use crate::admission::{self, Operation};
use crate::core::Core;
use crate::kinds::Kind;
use crate::limits::UPDATE_ATTEMPTS_MAX;
use crate::reply::{self, Body, Cause, Refusal};
use crate::store::{Expect, Item, WriteError};
use crate::{clock, convert, defaults, form, object, patch, validate};

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let mut warnings = Vec::new();
    let form = form::Form::of(&call.headers)?;
    let mut body = input::object(call, &mut warnings)?;
    input::place(call, &mut body)?;
    patch::managed::drop_incoming(&mut body);
    if call.target.kind.custom().is_some()
        && call.target.subresource.is_empty()
        && object::text(&body, "/metadata/resourceVersion").is_empty()
        && stored(core, call).is_ok()
    {
        let mut cause = Cause::invalid("metadata.resourceVersion", &Value::Null, "must be specified for an update");
        cause.message = "Invalid value: 0x0: must be specified for an update".to_owned();
        return Err(Refusal::invalid(&call.target.kind, &call.target.name, &[cause]));
    }
    let value = change(core, call, &mut warnings, Recorded::Update, |_| Ok(body.clone())).await?;
    let mut response = form.object(&call.target.kind, &call.query, StatusCode::OK, &value)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Who keeps the record of managed fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// What changed belongs to the request's manager.
    Update,
    /// The change has set managedFields itself (server-side apply).
    Itself,
}

pub(crate) fn stored(core: &Core, call: &Call) -> Result<std::sync::Arc<Item>, Refusal> {
    let target = &call.target;
    core.store
        .get(&target.kind.storage, &target.namespace, &target.name)
        .ok_or_else(|| Refusal::not_found(&target.kind, &target.name))
}

/// Applies a change to the stored object until it holds; gives the object as stored, in the request's version.
pub(crate) async fn change(
    core: &Core,
    call: &Call,
    warnings: &mut Vec<String>,
    recorded: Recorded,
    compute: impl Fn(&Value) -> Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    let kind = &call.target.kind;
    let dry_run = call.dry_run()?;
    let said_before = warnings.len();
    for _ in 0..UPDATE_ATTEMPTS_MAX {
        // What an attempt that lost its race was warned of is said again by the next.
        warnings.truncate(said_before);
        let item = stored(core, call)?;
        let old = convert::view(kind, &item);
        let mut new = compute(&old)?;
        let wanted = object::text(&new, "/metadata/resourceVersion").to_owned();
        let bound = !wanted.is_empty() && wanted != object::text(&old, "/metadata/resourceVersion");
        if bound {
            return Err(Refusal::modified(kind, &call.target.name));
        }
        keep_server_fields(kind, call, &old, &mut new)?;
        let mut asked = admission::Ask::new(call, Operation::Update, dry_run);
        defaults::fill(kind, &mut new);
        defaults::on_update(kind, &old, &mut new);
        admission::mutate(core, &mut asked, &mut new, Some(&old)).await?;
        defaults::fill(kind, &mut new);
        warnings.append(&mut asked.warnings);
        finish_generation(kind, &old, &mut new);
        let causes = validate::check(kind, &new, Some(&old));
        if !causes.is_empty() {
            return Err(Refusal::invalid(kind, &call.target.name, &causes));
        }
        admission::validate(core, &mut asked, Some(&new), Some(&old)).await?;
        warnings.append(&mut asked.warnings);
        if recorded == Recorded::Update {
            patch::managed::record(kind, Some(&old), &mut new, &call.manager(), &call.target.subresource, clock::now());
        }
        let taken = defaults::allocate(core, kind, &mut new, Some(&old))?;
        input::arrange(kind, &mut new);
        if new == old || patch::managed::only_times_differ(&old, &new) {
            return Ok(old);
        }
        if dry_run {
            give_back(core, taken.as_ref(), &old);
            return Ok(new);
        }
        match write(core, kind, &item, &old, new).await {
            Ok(value) => {
                if kind.is("", "services") {
                    core.allocator.release(&old, Some(&value));
                }
                after_write(core, kind);
                return Ok(value);
            }
            // Someone was faster. A request that names a revision is refused by the next look at the object; any other
            // is computed anew from what is there then.
            Err(WriteError::Modified) => give_back(core, taken.as_ref(), &old),
            Err(error) => {
                give_back(core, taken.as_ref(), &old);
                return Err(refuse(kind, &call.target.name, &error));
            }
        }
    }
    Err(Refusal::modified(kind, &call.target.name))
}

/// Frees what was allocated for a write that did not happen.
fn give_back(core: &Core, taken: Option<&Value>, old: &Value) {
    if let Some(service) = taken {
        core.allocator.release(service, Some(old));
    }
}

async fn write(core: &Core, kind: &Kind, item: &Item, old: &Value, new: Value) -> Result<Value, WriteError> {
    let mut stored = new.clone();
    convert::to_storage(kind, &mut stored);
    let served = core.registry.served();
    arrange_stored(served.stored_at(&kind.storage).map_or(kind, |storage| storage), kind, &mut stored);
    if completes_deletion(kind, old, &new) {
        let (_, revision) = core.store.remove(&kind.storage, &item.namespace, &item.name, item.revision).await?;
        let mut gone = new;
        object::metadata(&mut gone).insert("resourceVersion".to_owned(), revision.to_string().into());
        super::delete::after_removal(core, kind, &gone).await;
        return Ok(gone);
    }
    let item =
        core.store.put(&kind.storage, &item.namespace, &item.name, Expect::Revision(item.revision), stored).await?;
    Ok(convert::view(kind, &item))
}

/// The last finalizer of an object under deletion is gone.
fn completes_deletion(kind: &Kind, old: &Value, new: &Value) -> bool {
    let pending = |value: &Value| {
        !object::items(value, "/metadata/finalizers").is_empty()
            || kind.is("", "namespaces") && !object::items(value, "/spec/finalizers").is_empty()
    };
    let grace = new.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    !object::text(new, "/metadata/deletionTimestamp").is_empty() && pending(old) && !pending(new) && grace == 0
}

/// Puts back what a client cannot change, and for subresources all that they do not cover.
fn keep_server_fields(kind: &Kind, call: &Call, old: &Value, new: &mut Value) -> Result<(), Refusal> {
    let subresource = call.target.subresource.as_str();
    let uid = object::uid(new).to_owned();
    if !uid.is_empty() && uid != object::uid(old) {
        if subresource.is_empty() && kind.custom().is_none() {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(old));
            return Err(Refusal::conflict(kind, &call.target.name, &why));
        }
        let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
        return Err(Refusal::invalid(kind, &call.target.name, &[cause]));
    }
    match subresource {
        "status" => {
            let mut kept = old.clone();
            let status = object::take(object::object(new), "status");
            match status {
                Some(status) => object::object(&mut kept).insert("status".to_owned(), status),
                None => object::take(object::object(&mut kept), "status"),
            };
            if kind.custom().is_none() {
                for name in ["labels", "annotations", "finalizers"] {
                    copy_member(new, &mut kept, name);
                }
            }
            copy_member(new, &mut kept, "managedFields");
            *new = kept;
        }
        "finalize" => {
            let mut kept = old.clone();
            let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
            object::member(&mut kept, "spec").insert("finalizers".to_owned(), finalizers);
            *new = kept;
        }
        "ephemeralcontainers" => {
            let mut kept = old.clone();
            if let Some(list) = new.pointer("/spec/ephemeralContainers") {
                object::member(&mut kept, "spec").insert("ephemeralContainers".to_owned(), list.clone());
            }
            *new = kept;
        }
        _ => {
            if kind.has("status") {
                let map = object::object(new);
                object::take(map, "status");
                if let Some(status) = old.get("status") {
                    map.insert("status".to_owned(), status.clone());
                }
            }
            if kind.is("", "namespaces")
                && let Some(finalizers) = old.pointer("/spec/finalizers")
            {
                object::member(new, "spec").insert("finalizers".to_owned(), finalizers.clone());
            }
        }
    }
    keep_metadata(old, new);
    Ok(())
}

/// Puts back the metadata that only the server sets.
fn keep_metadata(old: &Value, new: &mut Value) {
    let old_metadata = object::members(old, "/metadata").cloned().unwrap_or_default();
    let metadata = object::metadata(new);
    for name in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match old_metadata.get(name) {
            Some(kept) => metadata.insert(name.to_owned(), kept.clone()),
            None => object::take(metadata, name),
        };
    }
    object::take(metadata, "selfLink");
}

fn copy_member(from: &Value, to: &mut Value, name: &str) {
    let value = from.pointer(&format!("/metadata/{name}")).cloned();
    let metadata = object::metadata(to);
    match value {
        Some(value) => metadata.insert(name.to_owned(), value),
        None => object::take(metadata, name),
    };
}

/// The generation counts changes of anything but metadata and status.
fn finish_generation(kind: &Kind, old: &Value, new: &mut Value) {
    if !defaults::has_generation(kind) {
        return;
    }
    let wanted = |value: &Value| -> Value {
        let mut value = value.clone();
        let map = object::object(&mut value);
        for name in ["apiVersion", "kind", "metadata", "status"] {
            object::take(map, name);
        }
        value
    };
    if wanted(old) != wanted(new) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        object::metadata(new).insert("generation".to_owned(), generation.into());
    }
}
