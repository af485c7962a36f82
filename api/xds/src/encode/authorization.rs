//! Layers of authorization as RBAC filters, one filter a layer.
//!
//! Every clause of a caller or operation is one `or` of its values under one `and`, negated ones under a `not`, as Istio
//! writes them. A host in a policy also takes the host with a port; a real Envoy is told so in so many words.
//! Never here: deciding. Called by `http` and `listener`.

use std::collections::HashMap;

use api::{
    authz,
    pattern::Template,
    spec::{
        Authorization, AuthorizationAction, AuthorizationClause, AuthorizationOperation, AuthorizationRule,
        AuthorizationSource, OperationTest, SourceTest,
    },
};
use envoy_types::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        rbac::v3::{self as pb, Permission, Policy, Principal, permission, principal, rbac::Action},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    extensions::{
        filters::{http::rbac::v3 as http, network::rbac::v3 as network},
        path::r#match::uri_template::v3::UriTemplateMatchConfig,
    },
    r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern},
};

use super::{EncodeError, Out, wire};
use crate::Dialect;

pub(super) fn for_http(out: Out<'_>, path: &str, layer: &Authorization) -> Result<http::Rbac, EncodeError> {
    Ok(http::Rbac { rules: Some(rules(out, path, layer)?), ..http::Rbac::default() })
}

pub(super) fn for_tcp(out: Out<'_>, path: &str, layer: &Authorization) -> Result<network::Rbac, EncodeError> {
    Ok(network::Rbac {
        rules: Some(rules(out, path, &authz::for_tcp(layer))?),
        stat_prefix: "tcp.".to_owned(),
        ..network::Rbac::default()
    })
}

fn rules(out: Out<'_>, path: &str, layer: &Authorization) -> Result<pb::Rbac, EncodeError> {
    let Authorization { action, rules } = layer;
    let mut policies = HashMap::with_capacity(rules.len());
    for AuthorizationRule { name, from, to, origin: _ } in rules {
        let policy = Policy {
            permissions: if to.is_empty() {
                vec![permit(permission::Rule::Any(true))]
            } else {
                to.iter().map(|clauses| operation(out.dialect, clauses)).collect()
            },
            principals: if from.is_empty() {
                vec![identify(principal::Identifier::Any(true))]
            } else {
                from.iter().map(source).collect()
            },
            ..Policy::default()
        };
        if policies.insert(name.clone(), policy).is_some() {
            return out.bad(format!("{path}.rules"), format!("two rules are named {name:?}"));
        }
    }
    let action = match action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
    };
    Ok(pb::Rbac { action: action.into(), policies, ..pb::Rbac::default() })
}

fn permit(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn identify(identifier: principal::Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

/// The text notation of policies as a matcher; `*` takes whatever is there.
fn text(value: &str, before: &str, ignore_case: bool) -> StringMatcher {
    let pattern = match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => MatchPattern::SafeRegex(wire::regex(".+")),
        (Some(end), _) => MatchPattern::Suffix(end.to_owned()),
        (None, Some(start)) => MatchPattern::Prefix(format!("{before}{start}")),
        (None, None) => MatchPattern::Exact(format!("{before}{value}")),
    };
    let regex = matches!(pattern, MatchPattern::SafeRegex(_));
    wire::matcher(pattern, ignore_case && !regex)
}

fn header(name: &str, value: HeaderMatchSpecifier) -> HeaderMatcher {
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(value), ..HeaderMatcher::default() }
}

/// A value of a header; `*` takes an empty one, too.
fn value_text(value: &str) -> HeaderMatchSpecifier {
    if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(text(value, "", false))
    }
}

/// The values of a clause, any of which suffices, or none of which may match.
fn permission(dialect: Dialect, clause: &AuthorizationClause<OperationTest>) -> Permission {
    let AuthorizationClause { test, not } = clause;
    let rules: Vec<Permission> = match test {
        OperationTest::Hosts(values) => values.iter().flat_map(|value| host(dialect, value)).collect(),
        OperationTest::Methods(values) => {
            values.iter().map(|value| permit(named(":method", text(value, "", false)))).collect()
        }
        OperationTest::Paths(values) => values.iter().map(|value| permit(path_rule(value))).collect(),
        OperationTest::Ports(values) => {
            values.iter().map(|value| permit(permission::Rule::DestinationPort((*value).into()))).collect()
        }
        OperationTest::Addresses(values) => {
            values.iter().map(|net| permit(permission::Rule::DestinationIp(wire::range(*net)))).collect()
        }
        OperationTest::ServerNames(values) => {
            let name = |value: &String| permit(permission::Rule::RequestedServerName(text(value, "", true)));
            values.iter().map(name).collect()
        }
    };
    let any = permit(permission::Rule::OrRules(permission::Set { rules }));
    if *not { permit(permission::Rule::NotRule(Box::new(any))) } else { any }
}

fn operation(dialect: Dialect, clauses: &AuthorizationOperation) -> Permission {
    let rules = if clauses.is_empty() {
        vec![permit(permission::Rule::Any(true))]
    } else {
        clauses.iter().map(|clause| permission(dialect, clause)).collect()
    };
    permit(permission::Rule::AndRules(permission::Set { rules }))
}

fn named(name: &str, value: StringMatcher) -> permission::Rule {
    permission::Rule::Header(header(name, HeaderMatchSpecifier::StringMatch(value)))
}

fn host(dialect: Dialect, value: &str) -> Vec<Permission> {
    let mut all = vec![permit(named(":authority", text(value, "", true)))];
    if dialect != Dialect::Ours && !value.contains(':') && !value.ends_with('*') {
        all.push(permit(named(":authority", with_port(value))));
    }
    all
}

fn path_rule(value: &str) -> permission::Rule {
    if Template::is_one(value) {
        let path_template = value.replace("{**}", "**").replace("{*}", "*");
        return permission::Rule::UriTemplate(TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(wire::any(&UriTemplateMatchConfig { path_template })),
        });
    }
    permission::Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(text(value, "", false))) })
}

fn plain(text: &str) -> String {
    text.chars().flat_map(escaped).collect()
}

/// A host with any port after it: Envoy compares the whole authority.
fn with_port(host: &str) -> StringMatcher {
    let start = match host.strip_prefix('*') {
        Some(end) => format!(".*{}", plain(end)),
        None => plain(host),
    };
    wire::matcher(MatchPattern::SafeRegex(wire::regex(&format!("(?i){start}:[0-9]+"))), false)
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let plain = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/') || !c.is_ascii();
    (!plain).then_some('\\').into_iter().chain([c])
}

/// The part of an identity between slashes.
fn part(value: &str) -> String {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => "[^/]+".to_owned(),
        (Some(end), _) => format!("[^/]*{}", plain(end)),
        (None, Some(start)) => format!("{}[^/]*", plain(start)),
        (None, None) => plain(value),
    }
}

fn authenticated(name: StringMatcher) -> Principal {
    identify(principal::Identifier::Authenticated(principal::Authenticated { principal_name: Some(name) }))
}

fn by_regex(regex: &str) -> Principal {
    authenticated(wire::matcher(MatchPattern::SafeRegex(wire::regex(regex)), false))
}

/// The values of a clause, any of which suffices, or none of which may match.
fn principal(clause: &AuthorizationClause<SourceTest>) -> Principal {
    let AuthorizationClause { test, not } = clause;
    let ids: Vec<Principal> = match test {
        SourceTest::Principals(values) => {
            values.iter().map(|value| authenticated(text(value, "spiffe://", false))).collect()
        }
        SourceTest::Namespaces(values) => {
            values.iter().map(|value| by_regex(&format!(".*/ns/{}/.*", part(value)))).collect()
        }
        SourceTest::TrustDomains(values) => {
            values.iter().map(|value| by_regex(&format!("spiffe://{}/.*", part(value)))).collect()
        }
        SourceTest::Addresses(values) => {
            values.iter().map(|net| identify(principal::Identifier::DirectRemoteIp(wire::range(*net)))).collect()
        }
        SourceTest::Header(name, values) => {
            let one = |value: &String| identify(principal::Identifier::Header(header(name, value_text(value))));
            values.iter().map(one).collect()
        }
    };
    let any = identify(principal::Identifier::OrIds(principal::Set { ids }));
    if *not { identify(principal::Identifier::NotId(Box::new(any))) } else { any }
}

fn source(clauses: &AuthorizationSource) -> Principal {
    let ids = if clauses.is_empty() {
        vec![identify(principal::Identifier::Any(true))]
    } else {
        clauses.iter().map(principal).collect()
    };
    identify(principal::Identifier::AndIds(principal::Set { ids }))
}
