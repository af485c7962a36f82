//! Small things that many kinds write the same way: regular expressions, durations, headers, numbers.
//!
//! Each reads one value, or says why not at the field's path.
//! Never here: fields of one kind. Used by the files that parse kinds.

use std::time::Duration;

use api::{
    name::{Host, Port},
    spec::HeaderOps,
};

use super::base::{Judge, Labels};
use crate::object;

/// Longest regular expression that is taken, in bytes.
const REGEX_BYTES_MAX: usize = 1024;

/// A regular expression in RE2's syntax, which ours accepts nearly all of.
pub(crate) fn regex(judge: &mut Judge<'_>, path: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        judge.error(path, "a regular expression must not be empty");
        return None;
    }
    if text.len() > REGEX_BYTES_MAX {
        judge.error(path, format!("a regular expression must not be longer than {REGEX_BYTES_MAX} bytes"));
        return None;
    }
    judge.read(path, api::pattern::whole(text)).map(|_| text.to_owned())
}

/// A duration that is not negative, in whole milliseconds.
pub(crate) fn duration(judge: &mut Judge<'_>, path: &str, raw: object::Duration) -> Option<Duration> {
    match raw.to_std() {
        Some(span) if span.subsec_nanos() % 1_000_000 == 0 => Some(span),
        Some(_) => {
            judge.error(path, format!("{raw} must be a whole number of milliseconds"));
            None
        }
        None => {
            judge.error(path, format!("{raw} must not be negative"));
            None
        }
    }
}

/// A duration of at least a millisecond.
pub(crate) fn positive_duration(judge: &mut Judge<'_>, path: &str, raw: object::Duration) -> Option<Duration> {
    let span = duration(judge, path, raw)?;
    if span < Duration::from_millis(1) {
        judge.error(path, format!("{raw} must be at least 1ms"));
        return None;
    }
    Some(span)
}

/// A number that is not negative.
pub(crate) fn count(judge: &mut Judge<'_>, path: &str, raw: i64) -> Option<u32> {
    match u32::try_from(raw) {
        Ok(number) => Some(number),
        Err(_) => {
            judge.error(path, format!("{raw} must be 0 to {}", u32::MAX));
            None
        }
    }
}

/// A port, 1 to 65535.
pub(crate) fn port(judge: &mut Judge<'_>, path: &str, raw: i64) -> Option<u16> {
    judge.read(path, Port::try_from(raw)).map(Port::get)
}

/// A host as written in an object of that namespace, made full.
pub(crate) fn host(judge: &mut Judge<'_>, path: &str, raw: &str, namespace: &str, domain: &str) -> Option<Host> {
    Some(judge.read(path, raw.parse::<Host>())?.qualify(namespace, domain))
}

/// Whether a text may stand in a label's key (`prefix/name`) or value.
fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric())
        && text.bytes().last().is_none_or(|b| b.is_ascii_alphanumeric())
}

/// Labels whose keys and values Kubernetes would take.
pub(crate) fn labels(judge: &mut Judge<'_>, path: &str, raw: &Labels) -> Labels {
    for (key, value) in raw {
        let name = key.rsplit('/').next().unwrap_or_default();
        if name.is_empty() || !is_label_text(name) {
            judge.error(format!("{path}[{key}]"), format!("{key:?} is not a label's key"));
        }
        if !is_label_text(value) {
            judge.error(format!("{path}[{key}]"), format!("{value:?} is not a label's value"));
        }
    }
    raw.clone()
}

/// Labels in a selector: no wildcards, no empty keys.
pub(crate) fn selector(judge: &mut Judge<'_>, path: &str, raw: &Labels) -> Labels {
    for (key, value) in raw {
        if key.is_empty() {
            judge.error(path, "a label's key must not be empty");
        }
        if key.contains('*') || value.contains('*') {
            judge.error(format!("{path}[{key}]"), "wildcards are not allowed in selectors");
        }
    }
    raw.clone()
}

/// Whether a text is a header's name.
pub(crate) fn is_header_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    http::HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// Changes to headers; pseudo-headers other than `:authority` are dropped as Istio drops them.
pub(crate) fn header_ops(
    judge: &mut Judge<'_>,
    path: &str,
    raw: Option<&HeaderOpsRaw<'_>>,
    request: bool,
) -> HeaderOps {
    let Some(raw) = raw else { return HeaderOps::default() };
    let mut pairs = |field: &str, map: &Labels| {
        let mut out = Vec::with_capacity(map.len());
        for (name, value) in map {
            let at = format!("{path}.{field}[{name}]");
            if !is_header_name(name) {
                judge.error(at, format!("{name:?} is not a header name"));
                continue;
            }
            if http::HeaderValue::from_str(value).is_err() {
                judge.error(at, format!("{value:?} is not a header value"));
                continue;
            }
            let lower = name.to_ascii_lowercase();
            let authority = request && field == "set" && lower == ":authority";
            if lower.starts_with(':') && !authority {
                judge.warn(at, format!("{name} cannot be changed and stays as it is"));
                continue;
            }
            out.push((lower, value.clone()));
        }
        out
    };
    let (set, add) = (pairs("set", raw.set), pairs("add", raw.add));
    let mut remove = Vec::with_capacity(raw.remove.len());
    for (index, name) in raw.remove.iter().enumerate() {
        let at = format!("{path}.remove[{index}]");
        if name.is_empty() || !is_header_name(name) {
            judge.error(at, format!("{name:?} is not a header name"));
        } else if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            judge.warn(at, format!("{name} cannot be removed and stays as it is"));
        } else {
            remove.push(name.to_ascii_lowercase());
        }
    }
    HeaderOps { set, add, remove }
}

/// Header changes as stored, whatever kind they are in.
pub(crate) struct HeaderOpsRaw<'a> {
    pub(crate) set: &'a Labels,
    pub(crate) add: &'a Labels,
    pub(crate) remove: &'a [String],
}

/// An address or a range of them.
pub(crate) fn subnet(judge: &mut Judge<'_>, path: &str, text: &str) -> Option<ipnet::IpNet> {
    let read = text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
    match read {
        Ok(net) => Some(net),
        Err(_) => {
            judge.error(path, format!("{text:?} is not an address or a range of addresses"));
            None
        }
    }
}
