//! Changes of headers, compiled: names and plain values parsed once.
//!
//! Removing comes first, then setting, then adding. Values with Envoy's command operators (`%REQ(x)%`) stay text.
//! Never here: expanding an operator, which needs the request's record. Applied by the proxy.

use http::{HeaderName, HeaderValue};

use crate::spec::HeaderOps;

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// As it stands.
    Text(HeaderValue),
    /// Holds command operators; the writer expands them.
    Format(Box<str>),
}

/// Changes to the headers of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names that go, all lines of each.
    pub remove: Box<[HeaderName]>,
    /// Names that are replaced.
    pub set: Box<[(HeaderName, Value)]>,
    /// Lines that are added.
    pub add: Box<[(HeaderName, Value)]>,
    /// New authority: what `set` says of `:authority` or `host`.
    pub authority: Option<Box<str>>,
}

/// Changes to a request and its reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To the request.
    pub request: Edits,
    /// To the reply.
    pub response: Edits,
}

impl Edits {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty() && self.authority.is_none()
    }

    /// Compiles changes; the names and values that no header may have are told to `bad` and left out.
    pub(super) fn compile(ops: &HeaderOps, bad: &mut dyn FnMut(String)) -> Self {
        let HeaderOps { set, add, remove } = ops;
        let is_authority = |raw: &str| raw == ":authority" || raw.eq_ignore_ascii_case("host");
        Self {
            remove: remove.iter().filter_map(|raw| name(raw, bad)).collect(),
            set: set.iter().filter(|(raw, _)| !is_authority(raw)).filter_map(|line| edit(line, bad)).collect(),
            add: add.iter().filter(|(raw, _)| !is_authority(raw)).filter_map(|line| edit(line, bad)).collect(),
            authority: set.iter().rev().find(|(raw, _)| is_authority(raw)).map(|(_, text)| text.as_str().into()),
        }
    }
}

fn name(raw: &str, bad: &mut dyn FnMut(String)) -> Option<HeaderName> {
    let read = HeaderName::from_bytes(raw.as_bytes()).ok();
    if read.is_none() {
        bad(format!("{raw:?} is not a header name"));
    }
    read
}

fn edit((raw, text): &(String, String), bad: &mut dyn FnMut(String)) -> Option<(HeaderName, Value)> {
    let name = name(raw, bad)?;
    if text.contains('%') {
        return Some((name, Value::Format(text.as_str().into())));
    }
    let value = HeaderValue::from_str(text).ok();
    if value.is_none() {
        bad(format!("{text:?} is not a header value"));
    }
    Some((name, Value::Text(value?)))
}
