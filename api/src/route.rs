//! Which chain, which rule, which cluster, and what becomes of the path.
//!
//! [`chain`] chooses for a connection, [`select`] for a request, [`Targets::pick`] among clusters; [`path`] and
//! [`location`] say what a rewrite or redirect makes of a path. The first matching rule wins.
//! Never here: sending. Called by the proxy for every request, and by `meshctl why` with a listener.
//!
//! [`Targets::pick`]: crate::table::Targets::pick

use std::{borrow::Cow, sync::Arc};

use crate::{
    head::Head,
    spec::{Action, PathMatch, PathRewrite, Redirect},
    table::{Arrival, Chain, Listener, Routes, Rule},
    why::{Tried, Why},
};

/// The chain of a listener that serves a connection; none: the connection is closed.
pub fn chain<'l>(listener: &'l Listener, arrival: &Arrival<'_>) -> Option<&'l Arc<Chain>> {
    listener.find(arrival)
}

/// The rule for a request; none: 404 (flag `NR`).
pub fn select<'r, W: Why>(routes: &'r Routes, head: &Head<'_>, why: &mut W) -> Option<&'r Rule> {
    let host = routes.host(head.authority(), head.host())?;
    let rules = host.rules();
    let found = host.first(head);
    if W::LISTENS {
        let until = found.map_or(rules.len(), |rule| rule.index() + 1);
        for rule in rules.iter().take(until) {
            let (spec, index) = (rule.spec(), rule.index());
            let tried = Tried { of: &host.spec.name, index, name: &spec.name, origin: spec.origin.as_ref() };
            why.tried(tried, rule.miss(head));
        }
    }
    found
}

/// The path to send on, without the query.
pub fn path<'a>(rule: &'a Rule, head: &'a Head<'_>) -> Cow<'a, str> {
    let old = head.path();
    let Action::Forward(forward) = &rule.spec().action else { return Cow::Borrowed(old) };
    match &forward.path {
        None => Cow::Borrowed(old),
        Some(PathRewrite::Full(new)) => Cow::Borrowed(new),
        Some(PathRewrite::Prefix(new)) => Cow::Owned(with_prefix(rule, old, new)),
        Some(PathRewrite::Regex { substitution, .. }) => {
            let regex = rule.forward.as_ref().and_then(|forward| forward.rewrite.as_ref());
            let Some(regex) = regex else { return Cow::Borrowed(old) };
            let new = regex.replace_all(old.as_bytes(), |found: &regex::bytes::Captures<'_>| {
                substitute(substitution, |group| found.get(group).map_or(&[], |group| group.as_bytes()))
            });
            match new {
                Cow::Borrowed(_) => Cow::Borrowed(old),
                // What was text before is text after, unless a regex cut a letter in two.
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
            }
        }
    }
}

/// The path with what the rule matched of it replaced: all of it, unless the rule matches prefixes.
fn with_prefix(rule: &Rule, old: &str, new: &str) -> String {
    let rest = match &rule.spec().matches.path {
        PathMatch::Prefix(prefix) => old.get(prefix.len()..).unwrap_or_default(),
        PathMatch::SegmentPrefix(prefix) => {
            let rest = old.get(prefix.trim_end_matches('/').len()..).unwrap_or_default();
            if new.ends_with('/') { rest.strip_prefix('/').unwrap_or(rest) } else { rest }
        }
        PathMatch::Exact(_) | PathMatch::Regex(_) => "",
    };
    let joined = [new, rest].concat();
    if joined.starts_with('/') { joined } else { ["/", &joined].concat() }
}

/// RE2's substitution: `\0` to `\9` stand for groups, `\\` for a backslash.
fn substitute<'g>(text: &str, group: impl Fn(usize) -> &'g [u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, byte == b'\\') {
            (_, false) => out.push(byte),
            (_, true) => match bytes.next() {
                Some(digit) if digit.is_ascii_digit() => out.extend_from_slice(group(usize::from(digit - b'0'))),
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            },
        }
    }
    out
}

/// The value of `location` for a redirect.
pub fn location(rule: &Rule, redirect: &Redirect, head: &Head<'_>) -> String {
    let Redirect { status: _, scheme, authority, port, path, prefix } = redirect;
    let new_scheme = scheme.as_deref().unwrap_or_else(|| head.scheme().as_str());
    let host = authority.as_deref().unwrap_or_else(|| head.host());
    let default = if new_scheme == "https" { 443 } else { 80 };
    // A port that the client named stays, unless the host or scheme is another and the port with it.
    let kept = head.port().filter(|_| authority.is_none() && scheme.is_none());
    let port = port.or(kept).filter(|port| *port != default || kept == Some(*port));
    let old = head.path();
    let new_path = match (path, prefix) {
        (Some(path), _) => Cow::Borrowed(path.as_str()),
        (None, Some(prefix)) => Cow::Owned(with_prefix(rule, old, prefix)),
        (None, None) => Cow::Borrowed(old),
    };
    let mut out = [new_scheme, "://", host].concat();
    if let Some(port) = port {
        out.push(':');
        out.push_str(&port.to_string());
    }
    out.push_str(&new_path);
    if let Some(query) = head.query().filter(|_| !new_path.contains('?')) {
        out.push('?');
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests;
