//! What a request asks for: its path and query as the API means them.
//!
//! Never here: bodies, answers. Called by `server` first of all; `auth` decides on the result.

use std::sync::Arc;

use http::Method;

use crate::kinds::{Kind, Served};
use crate::reply::Refusal;

/// Query parameters in order, decoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        Self(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name, true), decode(value, true))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As `get`, but empty counts as absent.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Go's `strconv.ParseBool`, with an empty value as true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Percent-decodes; in queries `+` is a space. Broken escapes stay as they are.
pub(crate) fn decode(raw: &str, plus: bool) -> String {
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = raw.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, escape) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
                continue;
            }
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A request for a resource.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: Arc<Kind>,
    /// Empty for cluster-scoped kinds and for lists over all namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// The API's verb.
    pub(crate) verb: &'static str,
}

/// A path under `/api/v1` or `/apis/GROUP/VERSION`, split.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) rest: Vec<String>,
}

/// `None`: not a resource path (discovery, health, …).
pub(crate) fn resource_path(path: &str) -> Option<ResourcePath> {
    let mut parts: Vec<String> = path.trim_matches('/').split('/').map(|part| decode(part, false)).collect();
    let skip = match parts.first().map(String::as_str) {
        Some("api") if parts.len() > 2 => 1,
        Some("apis") if parts.len() > 3 => 2,
        _ => return None,
    };
    let rest = parts.split_off(skip + 1);
    let version = parts.pop()?;
    let group = if skip == 2 { parts.pop()? } else { String::new() };
    Some(ResourcePath { group, version, rest })
}

/// Finds the kind and what is to be done with it.
pub(crate) fn target(path: ResourcePath, method: &Method, query: &Query, served: &Served) -> Result<Target, Refusal> {
    let ResourcePath { group, version, rest } = path;
    let mut rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let mut watch = query.flag("watch");
    if rest.first() == Some(&"watch") {
        rest.remove(0);
        watch = true;
    }
    let mut namespace = String::new();
    if let ["namespaces", space, plural, ..] = rest[..]
        && !(matches!(plural, "status" | "finalize") && rest.len() == 3)
    {
        space.clone_into(&mut namespace);
        rest.drain(..2);
    }
    let [plural, tail @ ..] = &rest[..] else { return Err(Refusal::unknown_resource()) };
    let kind = served.find(&group, &version, plural).ok_or_else(Refusal::unknown_resource)?;
    let (name, subresource) = match tail {
        [] => ("", ""),
        [name] => (*name, ""),
        [name, subresource] => (*name, *subresource),
        _ => return Err(Refusal::unknown_resource()),
    };
    if kind.namespaced && namespace.is_empty() && !name.is_empty() || !kind.namespaced && !namespace.is_empty() {
        return Err(Refusal::unknown_resource());
    }
    if !subresource.is_empty() && !kind.has(subresource) {
        return Err(Refusal::unknown_resource());
    }
    let verb = match *method {
        Method::GET | Method::HEAD if watch && subresource.is_empty() => "watch",
        Method::GET | Method::HEAD if name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => return Err(Refusal::method_not_allowed()),
    };
    Ok(Target { kind: Arc::clone(kind), namespace, name: name.to_owned(), subresource: subresource.to_owned(), verb })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Registry;

    #[track_caller]
    fn check(method: &str, uri: &str, want: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let served = Registry::new().served();
        let got = match resource_path(path) {
            None => "none".to_owned(),
            Some(path) => {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                match target(path, &method, &Query::parse(query), &served) {
                    Ok(t) => {
                        format!("{} {} {}/{}/{}", t.verb, t.kind.group_resource(), t.namespace, t.name, t.subresource)
                    }
                    Err(refusal) => refusal.code.to_string(),
                }
            }
        };
        assert_eq!(got, want);
    }

    #[test]
    fn paths() {
        check("GET", "/api/v1/pods", "list pods //");
        check("GET", "/api/v1/pods?&watch=1", "watch pods //");
        check("GET", "/api/v1/namespaces/d/pods/a/log", "get pods d/a/log");
        check("GET", "/api/v1/namespaces/d", "get namespaces /d/");
        check("PUT", "/api/v1/namespaces/d/finalize", "update namespaces /d/finalize");
        check("DELETE", "/apis/apps/v1/namespaces/d/deployments", "deletecollection deployments.apps d//");
        check("GET", "/api/v1/watch/namespaces/d/pods", "watch pods d//");
        check("GET", "/apis/apps/v1", "none");
        check("GET", "/api/v1", "none");
        check("GET", "/api/v1/nothing", "404");
        check("GET", "/api/v1/pods/a", "404");
    }

    #[test]
    fn queries() {
        let query = Query::parse("&labelSelector=a%3Db%2Cc+d&command=x&command=y&stdin");
        assert_eq!(query.get("labelSelector"), Some("a=b,c d"));
        assert_eq!(query.all("command"), ["x", "y"]);
        assert!(query.flag("stdin") && !query.flag("tty"));
    }
}
