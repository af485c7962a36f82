//! Getting and listing objects.
//!
//! Never here: watching, how a client wants to see them (see `form`). Called by `server`.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Call;
use super::page::{self, Page};
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

    /// Whether all objects of the collection are meant.
    pub(crate) fn is_whole(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
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
    let page = page::of(core, call, &Selection::of(call)?)?;
    if form.is_plain() {
        return Ok(reply::whole(StatusCode::OK, "application/json", plain_list(kind, &page)));
    }
    let values: Vec<Value> = page.items.iter().map(|item| convert::view(kind, item)).collect();
    form.list(kind, &call.query, &values, page.metadata)
}

fn plain_list(kind: &Kind, page: &Page) -> Bytes {
    let Page { items, metadata } = page;
    let mut out = BytesMut::with_capacity(items.iter().map(|item| item.json.len() + 1).sum::<usize>() + 128);
    out.put_slice(
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
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
