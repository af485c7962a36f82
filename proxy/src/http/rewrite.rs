//! Makes the request that goes upstream out of the one that came.
//!
//! Never here: choosing what to change (`select`, `api::route`). Called by `http::handle`.

use api::table::Edits;
use http::{HeaderValue, header::HOST, request::Parts, uri::PathAndQuery};

use super::{
    Conn,
    headers::{self, ORIGINAL_PATH},
    select::Way,
};
use crate::access::Record;

/// Applies the way's path, host and header changes.
pub(super) fn request(conn: &Conn, way: &Way<'_>, parts: &mut Parts, record: &mut Record) {
    if let Some(path) = &way.path {
        if way.rewritten {
            let before = parts.uri.path_and_query().cloned();
            if let Some(value) = before.as_ref().and_then(|p: &PathAndQuery| HeaderValue::from_str(p.as_str()).ok()) {
                parts.headers.insert(ORIGINAL_PATH, value);
            }
            if let Some(asked) = &mut record.asked {
                asked.original_path = before;
            }
        }
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.path_and_query = Some(path.clone());
        if uri.authority.is_none() {
            uri.scheme = None;
        }
        // Its pieces were each parsed: putting them together cannot fail.
        parts.uri = http::Uri::from_parts(uri).unwrap_or_default();
        if let Some(asked) = &mut record.asked {
            asked.path = Some(path.clone());
        }
    }
    if let Some(authority) = &way.authority {
        parts.headers.insert(HOST, authority.clone());
    }
    for edits in [&way.rule.changes.request, &way.target.changes.request] {
        if !edits.is_empty() {
            headers::apply(edits, &mut parts.headers, record, &conn.worker.formats);
            new_authority(edits, parts);
        }
    }
    if let Some(asked) = &mut record.asked {
        asked.authority = parts.headers.get(HOST).cloned();
    }
}

fn new_authority(edits: &Edits, parts: &mut Parts) {
    if let Some(value) = edits.authority.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
        parts.headers.insert(HOST, value);
    }
}
