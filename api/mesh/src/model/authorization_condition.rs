//! Reads the values of an AuthorizationPolicy: principals, addresses, ports, paths, and the conditions of `when`.
//!
//! Each function reads one list, or says at the value's path what is wrong with it.
//! Never here: what a rule is made of. Used by `authorization`.

use api::{
    pattern::Template,
    spec::{AuthorizationClause, AuthorizationOperation, AuthorizationSource, OperationTest, SourceTest},
};
use ipnet::IpNet;

use super::{base::Judge, text};
use crate::object::security;

/// Longest `namespace/name` of a service account, in bytes.
const ACCOUNT_BYTES_MAX: usize = 320;

/// Reads each value of a list.
fn each<T>(
    judge: &mut Judge<'_>,
    path: &str,
    raw: &[String],
    mut read: impl FnMut(&mut Judge<'_>, &str, &str) -> Option<T>,
) -> Vec<T> {
    let mut all = Vec::with_capacity(raw.len());
    for (index, value) in raw.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if value.is_empty() {
            judge.error(path, "must not be empty");
        } else {
            all.extend(read(judge, &path, value));
        }
    }
    all
}

/// Whether a text that is not `*` holds a star that is no wildcard.
fn plain_star(value: &str) -> bool {
    let inner = value.strip_prefix('*').unwrap_or_else(|| value.strip_suffix('*').unwrap_or(value));
    inner.contains('*')
}

/// Texts: exact, `prefix*`, `*suffix` or `*`.
pub(super) fn texts(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<String> {
    each(judge, path, raw, |judge, path, value| {
        if plain_star(value) {
            judge.warn(path, format!("{value:?}: only one star, first or last, is a wildcard"));
        }
        Some(value.to_owned())
    })
}

/// Parts of an identity (namespaces, trust domains): like texts, but what no part can be is refused.
pub(super) fn parts(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<String> {
    each(judge, path, raw, |judge, path, value| {
        if plain_star(value) || value.contains('/') {
            judge
                .error(path, format!("{value:?} never matches: it holds a slash, or a star that is not first or last"));
            return None;
        }
        Some(value.to_owned())
    })
}

/// Principals, as they are written without `spiffe://`.
pub(super) fn principals(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<String> {
    for (index, value) in raw.iter().enumerate() {
        if value.starts_with("spiffe://") {
            judge.warn(format!("{path}[{index}]"), "never matches: principals are written without spiffe://");
        }
    }
    texts(judge, path, raw)
}

/// Service accounts `[namespace/]name`, as principals of any trust domain.
pub(super) fn service_accounts(judge: &mut Judge<'_>, path: &str, raw: &[String], namespace: &str) -> Vec<String> {
    each(judge, path, raw, |judge, path, value| {
        let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
        let part = |text: &str| !text.is_empty() && !text.contains(['*', '/']);
        if value.len() > ACCOUNT_BYTES_MAX || !part(namespace) || !part(name) {
            judge.error(path, format!("{value:?} is not a service account: expected NAME or NAMESPACE/NAME, no stars"));
            return None;
        }
        Some(format!("*/ns/{namespace}/sa/{name}"))
    })
}

/// Addresses and ranges of them.
pub(super) fn blocks(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<IpNet> {
    each(judge, path, raw, |judge, path, value| text::subnet(judge, path, value).map(|net| net.trunc()))
}

/// Ports.
pub(super) fn ports(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<u16> {
    each(judge, path, raw, |judge, path, value| match value.parse::<i64>() {
        Ok(number) => text::port(judge, path, number),
        Err(_) => {
            judge.error(path, format!("{value:?} is not a port"));
            None
        }
    })
}

/// Paths, with operators or without.
pub(super) fn paths(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<String> {
    each(judge, path, raw, |judge, path, value| {
        judge.read(path, Template::read(value))?;
        if !Template::is_one(value) && plain_star(value) {
            judge.warn(path, format!("{value:?}: only one star, first or last, is a wildcard"));
        }
        Some(value.to_owned())
    })
}

/// An attribute that a condition can ask for.
enum Attribute<'k> {
    Header(&'k str),
    SourceIp,
    Namespace,
    Principal,
    ServiceAccount,
    TrustDomain,
    DestinationIp,
    DestinationPort,
    ServerName,
    /// Known to Istio.
    NotEnforced,
    Unknown,
}

impl<'k> Attribute<'k> {
    fn of(key: &'k str) -> Self {
        let in_brackets = |start: &str| key.strip_prefix(start)?.strip_suffix(']');
        if let Some(name) = in_brackets("request.headers[") {
            return Self::Header(name);
        }
        if in_brackets("request.auth.claims[").is_some() || key.starts_with("experimental.envoy.filters.") {
            return Self::NotEnforced;
        }
        match key {
            "source.ip" => Self::SourceIp,
            "source.namespace" => Self::Namespace,
            "source.principal" => Self::Principal,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.trustDomain" => Self::TrustDomain,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::ServerName,
            "remote.ip" | "request.auth.principal" | "request.auth.audiences" | "request.auth.presenter" => {
                Self::NotEnforced
            }
            _ => Self::Unknown,
        }
    }
}

/// One list of a condition.
enum Test {
    Source(SourceTest),
    Operation(OperationTest),
}

impl Attribute<'_> {
    fn test(&self, judge: &mut Judge<'_>, path: &str, list: &[String], namespace: &str) -> Option<Test> {
        Some(match self {
            Self::Header(name) => Test::Source(SourceTest::Header(name.to_ascii_lowercase(), texts(judge, path, list))),
            Self::SourceIp => Test::Source(SourceTest::Addresses(blocks(judge, path, list))),
            Self::Namespace => Test::Source(SourceTest::Namespaces(parts(judge, path, list))),
            Self::Principal => Test::Source(SourceTest::Principals(principals(judge, path, list))),
            Self::ServiceAccount => {
                Test::Source(SourceTest::Principals(service_accounts(judge, path, list, namespace)))
            }
            Self::TrustDomain => Test::Source(SourceTest::TrustDomains(parts(judge, path, list))),
            Self::DestinationIp => Test::Operation(OperationTest::Addresses(blocks(judge, path, list))),
            Self::DestinationPort => Test::Operation(OperationTest::Ports(ports(judge, path, list))),
            Self::ServerName => Test::Operation(OperationTest::ServerNames(texts(judge, path, list))),
            Self::NotEnforced | Self::Unknown => return None,
        })
    }
}

/// Reads one condition of `when`: clauses of the caller (request headers among them) and of the operation.
pub(super) fn read(
    judge: &mut Judge<'_>,
    path: &str,
    raw: &security::AuthorizationCondition,
    namespace: &str,
) -> (AuthorizationSource, AuthorizationOperation) {
    let security::AuthorizationCondition { key, values, not_values } = raw;
    if values.is_empty() && not_values.is_empty() {
        judge.error(path, "values and notValues must not both be empty");
    }
    let attribute = Attribute::of(key);
    let key_path = format!("{path}.key");
    match attribute {
        Attribute::NotEnforced => {
            judge.error(key_path, format!("not enforced yet: {key} is refused rather than ignored"));
        }
        Attribute::Unknown => judge.error(key_path, format!("{key:?} is not an attribute")),
        Attribute::Header(name) if !text::is_header_name(name) => {
            judge.error(key_path, format!("{name:?} is not a header name"));
        }
        Attribute::Header(_)
        | Attribute::SourceIp
        | Attribute::Namespace
        | Attribute::Principal
        | Attribute::ServiceAccount
        | Attribute::TrustDomain
        | Attribute::DestinationIp
        | Attribute::DestinationPort
        | Attribute::ServerName => {}
    }
    let (mut sources, mut operations) = (AuthorizationSource::new(), AuthorizationOperation::new());
    for (field, list, not) in [("values", values, false), ("notValues", not_values, true)] {
        if list.is_empty() {
            continue;
        }
        match attribute.test(judge, &format!("{path}.{field}"), list, namespace) {
            Some(Test::Source(test)) => sources.push(AuthorizationClause { test, not }),
            Some(Test::Operation(test)) => operations.push(AuthorizationClause { test, not }),
            None => {}
        }
    }
    (sources, operations)
}
