//! Layers of authorization as RBAC filters, one filter a layer.
//!
//! Every part of a caller or operation is one `or` of its values under one `and`, negated parts under a `not`, as Istio
//! writes them. A host in a policy also takes the host with a port; a real Envoy is told so in so many words.
//! Never here: deciding. Called by `http` and `listener`.

use std::collections::HashMap;

use api::{
    authz,
    spec::{Authorization, AuthorizationAction, AuthorizationOperation, AuthorizationRule, AuthorizationSource},
};
use envoy_types::pb::envoy::{
    config::{
        rbac::v3::{self as pb, Permission, Policy, Principal, permission, principal, rbac::Action},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    extensions::filters::{http::rbac::v3 as http, network::rbac::v3 as network},
    r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern},
};
use ipnet::IpNet;

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
                to.iter().map(|operation| permission(out.dialect, operation)).collect()
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

fn header(name: &str, text: StringMatcher) -> permission::Rule {
    permission::Rule::Header(HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text)),
        ..HeaderMatcher::default()
    })
}

fn permission(dialect: Dialect, operation: &AuthorizationOperation) -> Permission {
    let AuthorizationOperation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths } =
        operation;
    let host = |value: &String| {
        let mut all = vec![permit(header(":authority", text(value, "", true)))];
        if dialect != Dialect::Ours && !value.contains(':') && !value.ends_with('*') {
            all.push(permit(header(":authority", with_port(value))));
        }
        all
    };
    let method = |value: &String| vec![permit(header(":method", text(value, "", false)))];
    let url = |value: &String| {
        let rule = Some(path_matcher::Rule::Path(text(value, "", false)));
        vec![permit(permission::Rule::UrlPath(PathMatcher { rule }))]
    };
    let port = |value: &u16| vec![permit(permission::Rule::DestinationPort((*value).into()))];
    let mut all = Vec::new();
    add_permission(&mut all, hosts.iter().flat_map(host), false);
    add_permission(&mut all, not_hosts.iter().flat_map(host), true);
    add_permission(&mut all, methods.iter().flat_map(method), false);
    add_permission(&mut all, not_methods.iter().flat_map(method), true);
    add_permission(&mut all, paths.iter().flat_map(url), false);
    add_permission(&mut all, not_paths.iter().flat_map(url), true);
    add_permission(&mut all, ports.iter().flat_map(port), false);
    add_permission(&mut all, not_ports.iter().flat_map(port), true);
    if all.is_empty() {
        all.push(permit(permission::Rule::Any(true)));
    }
    permit(permission::Rule::AndRules(permission::Set { rules: all }))
}

fn add_permission(all: &mut Vec<Permission>, values: impl Iterator<Item = Permission>, negate: bool) {
    let rules: Vec<Permission> = values.collect();
    if !rules.is_empty() {
        let any = permit(permission::Rule::OrRules(permission::Set { rules }));
        all.push(if negate { permit(permission::Rule::NotRule(Box::new(any))) } else { any });
    }
}

/// A host with any port after it: Envoy compares the whole authority.
fn with_port(host: &str) -> StringMatcher {
    let plain = |text: &str| text.chars().flat_map(escaped).collect::<String>();
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

fn source(source: &AuthorizationSource) -> Principal {
    let AuthorizationSource { principals, not_principals, namespaces, not_namespaces, ip_blocks, not_ip_blocks } =
        source;
    let authenticated = |name: StringMatcher| {
        identify(principal::Identifier::Authenticated(principal::Authenticated { principal_name: Some(name) }))
    };
    let of_principal = |value: &String| authenticated(text(value, "spiffe://", false));
    let of_namespace = |value: &String| {
        let plain = |text: &str| text.chars().flat_map(escaped).collect::<String>();
        let name = match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(""), _) => "[^/]+".to_owned(),
            (Some(end), _) => format!("[^/]*{}", plain(end)),
            (None, Some(start)) => format!("{}[^/]*", plain(start)),
            (None, None) => plain(value),
        };
        authenticated(wire::matcher(MatchPattern::SafeRegex(wire::regex(&format!(".*/ns/{name}/.*"))), false))
    };
    let of_block = |net: &IpNet| identify(principal::Identifier::DirectRemoteIp(wire::range(*net)));
    let mut all = Vec::new();
    add_principal(&mut all, principals.iter().map(of_principal), false);
    add_principal(&mut all, not_principals.iter().map(of_principal), true);
    add_principal(&mut all, namespaces.iter().map(of_namespace), false);
    add_principal(&mut all, not_namespaces.iter().map(of_namespace), true);
    add_principal(&mut all, ip_blocks.iter().map(of_block), false);
    add_principal(&mut all, not_ip_blocks.iter().map(of_block), true);
    if all.is_empty() {
        all.push(identify(principal::Identifier::Any(true)));
    }
    identify(principal::Identifier::AndIds(principal::Set { ids: all }))
}

fn add_principal(all: &mut Vec<Principal>, values: impl Iterator<Item = Principal>, negate: bool) {
    let ids: Vec<Principal> = values.collect();
    if !ids.is_empty() {
        let any = identify(principal::Identifier::OrIds(principal::Set { ids }));
        all.push(if negate { identify(principal::Identifier::NotId(Box::new(any))) } else { any });
    }
}
