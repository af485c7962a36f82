//! RBAC filters as layers of authorization. Everything here guards something: what does not fit is refused.
//!
//! A policy is read where it is an `and` of parts, each an `or` of values of one attribute or its negation, however these
//! are nested; that is what Istio and most hands write.
//! Never here: deciding. Called by `http`.

use api::{
    note::ObjectRef,
    spec::{
        Authorization, AuthorizationAction, AuthorizationOperation, AuthorizationRule, AuthorizationSource, Origin,
    },
};
use envoy_types::pb::envoy::{
    config::{
        rbac::v3::{self as pb, Permission, Principal, permission, principal, rbac::Action},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    r#type::matcher::v3::{StringMatcher, path_matcher, string_matcher::MatchPattern},
};

use super::{DecodeError, In, read};

/// A layer; none where the rules only log.
pub(super) fn layer(input: &mut In<'_>, path: &str, raw: &pb::Rbac) -> Result<Option<Authorization>, DecodeError> {
    let action = match Action::try_from(raw.action) {
        Ok(Action::Allow) => AuthorizationAction::Allow,
        Ok(Action::Deny) => AuthorizationAction::Deny,
        Ok(Action::Log) => {
            input.note(path, "nothing is logged for this");
            return Ok(None);
        }
        Err(_) => return Err(input.guards(path, "unknown action")),
    };
    let mut names: Vec<&String> = raw.policies.keys().collect();
    names.sort_unstable();
    let mut rules = Vec::with_capacity(names.len());
    for name in names {
        let Some(policy) = raw.policies.get(name) else { continue };
        let path = format!("{path}policies[{name}].");
        let condition = policy.condition.is_some() || policy.checked_condition.is_some();
        input.refuse(condition, &path, "condition", "conditions in CEL are not tested")?;
        if policy.permissions.is_empty() || policy.principals.is_empty() {
            return Err(input.invalid(path, "no permission or no principal"));
        }
        let mut to = Vec::new();
        for permission in &policy.permissions {
            operations(input, &format!("{path}permissions"), permission, &mut to)?;
        }
        let mut from = Vec::new();
        for principal in &policy.principals {
            sources(input, &format!("{path}principals"), principal, &mut from)?;
        }
        if to.contains(&AuthorizationOperation::default()) {
            to.clear();
        }
        if from.contains(&AuthorizationSource::default()) {
            from.clear();
        }
        rules.push(AuthorizationRule { name: name.clone(), from, to, origin: origin(name) });
    }
    Ok(Some(Authorization { action, rules }))
}

/// The policy that Istio's name of a rule speaks of: `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`.
fn origin(name: &str) -> Option<Origin> {
    let (namespace, rest) = name.strip_prefix("ns[")?.split_once("]-policy[")?;
    let (policy, rest) = rest.split_once("]-rule[")?;
    let index: usize = rest.strip_suffix(']')?.parse().ok()?;
    let object = ObjectRef::new("AuthorizationPolicy", namespace, policy);
    Some(Origin { object, path: format!("spec.rules[{index}]") })
}

/// The alternatives of a permission, each an operation.
fn operations(
    input: &In<'_>,
    path: &str,
    raw: &Permission,
    all: &mut Vec<AuthorizationOperation>,
) -> Result<(), DecodeError> {
    if let Some(permission::Rule::OrRules(set)) = &raw.rule {
        return set.rules.iter().try_for_each(|rule| operations(input, path, rule, all));
    }
    let mut operation = AuthorizationOperation::default();
    add_permission(input, path, raw, &mut operation)?;
    all.push(operation);
    Ok(())
}

fn add_permission(
    input: &In<'_>,
    path: &str,
    raw: &Permission,
    to: &mut AuthorizationOperation,
) -> Result<(), DecodeError> {
    match &raw.rule {
        Some(permission::Rule::Any(true)) => Ok(()),
        Some(permission::Rule::AndRules(set)) => {
            set.rules.iter().try_for_each(|rule| add_permission(input, path, rule, to))
        }
        Some(permission::Rule::OrRules(set)) => one_of_permissions(input, path, &set.rules, false, to),
        Some(permission::Rule::NotRule(inner)) => match &inner.rule {
            Some(permission::Rule::OrRules(set)) => one_of_permissions(input, path, &set.rules, true, to),
            _ => one_of_permissions(input, path, std::slice::from_ref(inner), true, to),
        },
        _ => one_of_permissions(input, path, std::slice::from_ref(raw), false, to),
    }
}

/// Any (or none) of values of one attribute.
fn one_of_permissions(
    input: &In<'_>,
    path: &str,
    raw: &[Permission],
    negate: bool,
    to: &mut AuthorizationOperation,
) -> Result<(), DecodeError> {
    let mut values = Vec::with_capacity(raw.len());
    for rule in raw {
        values.push(attribute(input, path, rule)?);
    }
    // An authority with any port is what every host takes already.
    if values.len() > 1 {
        values.retain(|value| *value != Attribute::HostWithPort);
    }
    let negated = |inner: bool| inner != negate;
    let [first, rest @ ..] = values.as_slice() else { return Err(input.invalid(path, "an empty set of rules")) };
    let kind = (std::mem::discriminant(first), first.inverted());
    if rest.iter().any(|value| (std::mem::discriminant(value), value.inverted()) != kind)
        || (first.inverted() && raw.len() > 1)
    {
        return Err(input.guards(path, "alternatives of different attributes are not tested"));
    }
    let texts = |values: Vec<Attribute>| values.into_iter().filter_map(Attribute::into_text).collect::<Vec<_>>();
    let (inverted, not) = (first.inverted(), negated(first.inverted()));
    debug_assert!(!inverted || values.len() == 1);
    match first {
        Attribute::Host(..) => {
            fill(input, path, if not { &mut to.not_hosts } else { &mut to.hosts }, texts(values), not)
        }
        Attribute::Method(..) => {
            fill(input, path, if not { &mut to.not_methods } else { &mut to.methods }, texts(values), not)
        }
        Attribute::Path(_) => {
            fill(input, path, if not { &mut to.not_paths } else { &mut to.paths }, texts(values), not)
        }
        Attribute::Port(_) => {
            let ports =
                values.iter().filter_map(|value| if let Attribute::Port(port) = value { Some(*port) } else { None });
            let ports = ports.collect();
            fill(input, path, if not { &mut to.not_ports } else { &mut to.ports }, ports, not)
        }
        Attribute::HostWithPort => Err(input.guards(path, "authorities are not tested by regex")),
    }
}

/// Puts values into a list. Two lists that must both hold are one only where both are negations.
fn fill<T>(input: &In<'_>, path: &str, list: &mut Vec<T>, values: Vec<T>, negated: bool) -> Result<(), DecodeError> {
    if !list.is_empty() && !negated {
        return Err(input.guards(path, "one attribute is asked for twice"));
    }
    list.extend(values);
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Attribute {
    Host(String, bool),
    /// A host with any port: written for Envoys beside the host itself.
    HostWithPort,
    Method(String, bool),
    Path(String),
    Port(u16),
}

impl Attribute {
    fn inverted(&self) -> bool {
        match self {
            Self::Host(_, inverted) | Self::Method(_, inverted) => *inverted,
            Self::HostWithPort | Self::Path(_) | Self::Port(_) => false,
        }
    }

    fn into_text(self) -> Option<String> {
        match self {
            Self::Host(text, _) | Self::Method(text, _) | Self::Path(text) => Some(text),
            Self::HostWithPort | Self::Port(_) => None,
        }
    }
}

fn attribute(input: &In<'_>, path: &str, raw: &Permission) -> Result<Attribute, DecodeError> {
    match &raw.rule {
        Some(permission::Rule::DestinationPort(port)) => Ok(Attribute::Port(read::port(input, path, *port)?)),
        Some(permission::Rule::UrlPath(matcher)) => match &matcher.rule {
            Some(path_matcher::Rule::Path(matcher)) => {
                Ok(Attribute::Path(policy_text(input, path, matcher, "", false)?))
            }
            None => Err(input.invalid(path, "no path")),
        },
        Some(permission::Rule::Header(header)) => {
            let host = matches!(header.name.as_str(), ":authority" | "host");
            if !host && header.name != ":method" {
                return Err(input.guards(path, format!("header {} is not tested", header.name)));
            }
            let matcher = header_text(input, path, header)?;
            if host
                && let Some(MatchPattern::SafeRegex(regex)) = &matcher.match_pattern
                && regex.regex.starts_with("(?i)")
                && regex.regex.ends_with(":[0-9]+")
            {
                return Ok(Attribute::HostWithPort);
            }
            let text = policy_text(input, path, &matcher, "", host)?;
            Ok(if host {
                Attribute::Host(text, header.invert_match)
            } else {
                Attribute::Method(text, header.invert_match)
            })
        }
        Some(permission::Rule::AndRules(set)) if set.rules.len() == 1 => match set.rules.first() {
            Some(only) => attribute(input, path, only),
            None => Err(input.invalid(path, "an empty set of rules")),
        },
        Some(_) => Err(input.guards(path, "asks for an attribute that is not tested")),
        None => Err(input.invalid(path, "an empty rule")),
    }
}

fn header_text(input: &In<'_>, path: &str, raw: &HeaderMatcher) -> Result<StringMatcher, DecodeError> {
    use HeaderMatchSpecifier as Specifier;
    let pattern = match &raw.header_match_specifier {
        Some(Specifier::StringMatch(matcher)) => return Ok(matcher.clone()),
        Some(Specifier::ExactMatch(text)) => MatchPattern::Exact(text.clone()),
        Some(Specifier::PrefixMatch(text)) => MatchPattern::Prefix(text.clone()),
        Some(Specifier::SuffixMatch(text)) => MatchPattern::Suffix(text.clone()),
        Some(Specifier::PresentMatch(true)) | None => MatchPattern::Prefix(String::new()),
        Some(
            Specifier::PresentMatch(false)
            | Specifier::ContainsMatch(_)
            | Specifier::RangeMatch(_)
            | Specifier::SafeRegexMatch(_),
        ) => return Err(input.guards(path, "such a match is not tested")),
    };
    Ok(StringMatcher { match_pattern: Some(pattern), ignore_case: false })
}

/// A matcher in the notation of policies: `exact`, `prefix*`, `*suffix`, `*`.
fn policy_text(
    input: &In<'_>,
    path: &str,
    raw: &StringMatcher,
    before: &str,
    any_case: bool,
) -> Result<String, DecodeError> {
    let refused = || input.guards(path, "such a match is not tested");
    if raw.ignore_case && !any_case {
        return Err(refused());
    }
    let plain = |text: &str| -> Result<String, DecodeError> {
        let text = text.strip_prefix(before).ok_or_else(refused)?;
        if text.starts_with('*') || text.ends_with('*') { Err(refused()) } else { Ok(text.to_owned()) }
    };
    match &raw.match_pattern {
        Some(MatchPattern::Exact(text)) => plain(text),
        Some(MatchPattern::Prefix(text)) if text == before || text.is_empty() => Ok("*".to_owned()),
        Some(MatchPattern::Prefix(text)) => Ok(format!("{}*", plain(text)?)),
        Some(MatchPattern::Suffix(text)) if !text.contains('*') && !text.is_empty() => Ok(format!("*{text}")),
        Some(MatchPattern::SafeRegex(regex)) if matches!(regex.regex.as_str(), ".+" | ".*") => Ok("*".to_owned()),
        Some(_) => Err(refused()),
        None => Err(input.invalid(path, "no pattern")),
    }
}

/// The alternatives of a principal, each a source.
fn sources(input: &In<'_>, path: &str, raw: &Principal, all: &mut Vec<AuthorizationSource>) -> Result<(), DecodeError> {
    if let Some(principal::Identifier::OrIds(set)) = &raw.identifier {
        return set.ids.iter().try_for_each(|id| sources(input, path, id, all));
    }
    let mut source = AuthorizationSource::default();
    add_principal(input, path, raw, &mut source)?;
    all.push(source);
    Ok(())
}

fn add_principal(
    input: &In<'_>,
    path: &str,
    raw: &Principal,
    from: &mut AuthorizationSource,
) -> Result<(), DecodeError> {
    match &raw.identifier {
        Some(principal::Identifier::Any(true)) => Ok(()),
        Some(principal::Identifier::AndIds(set)) => {
            set.ids.iter().try_for_each(|id| add_principal(input, path, id, from))
        }
        Some(principal::Identifier::OrIds(set)) => one_of_principals(input, path, &set.ids, false, from),
        Some(principal::Identifier::NotId(inner)) => match &inner.identifier {
            Some(principal::Identifier::OrIds(set)) => one_of_principals(input, path, &set.ids, true, from),
            _ => one_of_principals(input, path, std::slice::from_ref(inner), true, from),
        },
        _ => one_of_principals(input, path, std::slice::from_ref(raw), false, from),
    }
}

fn one_of_principals(
    input: &In<'_>,
    path: &str,
    raw: &[Principal],
    not: bool,
    from: &mut AuthorizationSource,
) -> Result<(), DecodeError> {
    let (mut principals, mut namespaces, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    for id in raw {
        match &id.identifier {
            Some(principal::Identifier::DirectRemoteIp(net)) => blocks.push(read::range(input, path, net)?),
            Some(principal::Identifier::Authenticated(authenticated)) => match &authenticated.principal_name {
                None => principals.push("*".to_owned()),
                Some(matcher) => match namespace(matcher) {
                    Some(name) => namespaces.push(name),
                    None => {
                        principals.push(policy_text(input, path, matcher, "spiffe://", false).or_else(|error| {
                            // The end of a principal is the same with and without its scheme.
                            if let Some(MatchPattern::Suffix(_)) = matcher.match_pattern {
                                policy_text(input, path, matcher, "", false)
                            } else {
                                Err(error)
                            }
                        })?)
                    }
                },
            },
            Some(_) => return Err(input.guards(path, "asks for an attribute that is not tested")),
            None => return Err(input.invalid(path, "an empty principal")),
        }
    }
    match (principals.is_empty(), namespaces.is_empty(), blocks.is_empty()) {
        (false, true, true) => {
            fill(input, path, if not { &mut from.not_principals } else { &mut from.principals }, principals, not)
        }
        (true, false, true) => {
            fill(input, path, if not { &mut from.not_namespaces } else { &mut from.namespaces }, namespaces, not)
        }
        (true, true, false) => {
            fill(input, path, if not { &mut from.not_ip_blocks } else { &mut from.ip_blocks }, blocks, not)
        }
        (true, true, true) => Err(input.invalid(path, "an empty set of principals")),
        _ => Err(input.guards(path, "alternatives of different attributes are not tested")),
    }
}

/// The namespace in Istio's regex `.*/ns/NAMESPACE/.*`, in the notation of policies.
fn namespace(matcher: &StringMatcher) -> Option<String> {
    let Some(MatchPattern::SafeRegex(regex)) = &matcher.match_pattern else { return None };
    let mut name = regex.regex.strip_prefix(".*/ns/")?.strip_suffix("/.*")?;
    if matches!(name, "[^/]+" | ".*" | ".+") {
        return Some("*".to_owned());
    }
    let (mut before, mut after) = ("", "");
    if let Some(rest) = name.strip_prefix("[^/]*").or_else(|| name.strip_prefix(".*")) {
        (before, name) = ("*", rest);
    } else if let Some(rest) = name.strip_suffix("[^/]*").or_else(|| name.strip_suffix(".*")) {
        (after, name) = ("*", rest);
    }
    let plain = name.replace('\\', "");
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let dots_escaped = name.matches('.').count() == name.matches(r"\.").count();
    (!plain.is_empty() && plain.chars().all(known) && dots_escaped).then(|| format!("{before}{plain}{after}"))
}
