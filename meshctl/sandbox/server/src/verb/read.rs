//! Getting and listing objects.
//!
//! Never here: watching, how a client wants to see them (see `form`). Called by `server`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Call;
use crate::core::Core;
use crate::kinds::Kind;
use crate::reply::{self, Body, Cause, Refusal};
use crate::selector::{Fields, Labels};
use crate::store::Item;
use crate::{convert, form};

pub(crate) fn get(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let form = form::Form::of(&call.headers)?;
    let item = super::update::stored(core, call)?;
    if form.is_plain() {
        return Ok(reply::whole(StatusCode::OK, "application/json", convert::view_bytes(&call.target.kind, &item)));
    }
    form.object(&call.target.kind, &call.query, StatusCode::OK, &convert::view(&call.target.kind, &item))
}

/// Which objects of a collection are meant.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    labels: Labels,
    fields: Fields,
    namespace: Option<String>,
    name: Option<String>,
}

impl Selection {
    pub(crate) fn of(call: &Call) -> Result<Self, Refusal> {
        let kind = &call.target.kind;
        let labels = Labels::parse(call.query.get("labelSelector").unwrap_or_default())?;
        let fields = Fields::parse(call.query.get("fieldSelector").unwrap_or_default(), kind)?;
        let namespace = (kind.namespaced && !call.target.namespace.is_empty()).then(|| call.target.namespace.clone());
        let name = if call.target.name.is_empty() { fields.name() } else { Some(call.target.name.as_str()) };
        let name = name.map(str::to_owned);
        Ok(Self { labels, fields, namespace, name })
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether the object is meant; the text is read only when a selector needs it.
    pub(crate) fn matches(&self, item: &Item) -> bool {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != &*item.namespace)
            || self.name.as_deref().is_some_and(|name| name != &*item.name)
        {
            return false;
        }
        if self.labels.is_empty() && self.fields.is_empty() {
            return true;
        }
        let value = item.value();
        self.labels.matches_object(&value) && self.fields.matches(&value)
    }
}

/// What `resourceVersion` and `resourceVersionMatch` of a list demand.
fn check_revision(core: &Core, call: &Call) -> Result<(), Refusal> {
    let wanted = call.query.filled("resourceVersion");
    if let Some(mode) = call.query.filled("resourceVersionMatch") {
        let options = |cause| Err(Refusal::invalid_as("ListOptions", "meta.k8s.io", "", &[cause]));
        if !matches!(mode, "Exact" | "NotOlderThan") {
            let shown = mode.into();
            return options(Cause::unsupported("resourceVersionMatch", &shown, &["Exact", "NotOlderThan", ""]));
        }
        if wanted.is_none() {
            return options(Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
    }
    revision(core, wanted).map(drop)
}

/// A revision that a client names; too large a one is refused.
pub(crate) fn revision(core: &Core, wanted: Option<&str>) -> Result<u64, Refusal> {
    let Some(text) = wanted else { return Ok(0) };
    let wanted: u64 = text.parse().map_err(|_| {
        let cause = Cause::invalid(
            "resourceVersion",
            &text.into(),
            format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        );
        Refusal::invalid_as("ListOptions", "meta.k8s.io", "", &[cause])
    })?;
    let current = core.store.revision();
    if wanted > current {
        let mut refusal =
            Refusal::new(504, "Timeout", format!("Timeout: Too large resource version: {wanted}, current: {current}"));
        refusal.details = Some(Box::new(
            json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}),
        ));
        refusal.retry_after = Some(1);
        return Err(refusal);
    }
    Ok(wanted)
}

pub(crate) fn list(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let kind = &call.target.kind;
    let form = form::Form::of(&call.headers)?;
    check_revision(core, call)?;
    if call.query.filled("continue").is_some() {
        return Err(Refusal::bad_request("continue key is not valid: this server answers every list whole"));
    }
    let selection = Selection::of(call)?;
    let (items, revision) = core.store.list(&kind.storage, selection.namespace());
    let items: Vec<Arc<Item>> = items.into_iter().filter(|item| selection.matches(item)).collect();
    if form.is_plain() {
        return Ok(reply::whole(StatusCode::OK, "application/json", plain_list(kind, &items, revision)));
    }
    let values: Vec<Value> = items.iter().map(|item| convert::view(kind, item)).collect();
    form.list(kind, &call.query, &values, revision)
}

fn plain_list(kind: &Kind, items: &[Arc<Item>], revision: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(items.iter().map(|item| item.json.len() + 1).sum::<usize>() + 128);
    out.put_slice(
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"items\":[",
            kind.list_kind,
            kind.api_version()
        )
        .as_bytes(),
    );
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&convert::view_bytes(kind, item));
    }
    out.put_slice(b"]}");
    out.freeze()
}
