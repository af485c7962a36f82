//! Principals of an RBAC policy as callers.
//!
//! Never here: permissions. Called by [`super`].

use api::spec::{AuthorizationClause, AuthorizationSource, SourceTest};
use envoy_types::pb::envoy::{
    config::rbac::v3::{Principal, principal::Identifier},
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::{super::read, DecodeError, In, header_text, literal, policy_text};

/// The alternatives of a principal, each a caller.
pub(super) fn alternatives(
    input: &In<'_>,
    path: &str,
    raw: &Principal,
    all: &mut Vec<AuthorizationSource>,
) -> Result<(), DecodeError> {
    if let Some(Identifier::OrIds(set)) = &raw.identifier {
        return set.ids.iter().try_for_each(|id| alternatives(input, path, id, all));
    }
    let mut source = AuthorizationSource::new();
    clauses(input, path, raw, &mut source)?;
    all.push(source);
    Ok(())
}

fn clauses(input: &In<'_>, path: &str, raw: &Principal, all: &mut AuthorizationSource) -> Result<(), DecodeError> {
    let one = std::slice::from_ref(raw);
    all.push(match &raw.identifier {
        Some(Identifier::Any(true)) => return Ok(()),
        Some(Identifier::AndIds(set)) => return set.ids.iter().try_for_each(|id| clauses(input, path, id, all)),
        Some(Identifier::OrIds(set)) => clause(input, path, &set.ids, false)?,
        Some(Identifier::NotId(inner)) => match &inner.identifier {
            Some(Identifier::OrIds(set)) => clause(input, path, &set.ids, true)?,
            _ => clause(input, path, std::slice::from_ref(inner), true)?,
        },
        _ => clause(input, path, one, false)?,
    });
    Ok(())
}

/// Any (or none) of values of one attribute.
fn clause(
    input: &In<'_>,
    path: &str,
    raw: &[Principal],
    not: bool,
) -> Result<AuthorizationClause<SourceTest>, DecodeError> {
    let mut test: Option<SourceTest> = None;
    let mut inverted = false;
    for id in raw {
        let value = value(input, path, id, &mut inverted)?;
        test = Some(join(input, path, test, value)?);
    }
    if inverted && raw.len() > 1 {
        return Err(input.guards(path, "alternatives that are inverted one by one are not tested"));
    }
    let test = test.ok_or_else(|| input.invalid(path, "an empty set of principals"))?;
    Ok(AuthorizationClause { test, not: not != inverted })
}

/// Adds a value to those of the same attribute.
fn join(input: &In<'_>, path: &str, known: Option<SourceTest>, more: SourceTest) -> Result<SourceTest, DecodeError> {
    fn both<T>(mut known: Vec<T>, more: Vec<T>) -> Vec<T> {
        known.extend(more);
        known
    }
    use SourceTest::{Addresses, Header, Namespaces, Principals, TrustDomains};
    Ok(match (known, more) {
        (None, more) => more,
        (Some(Principals(known)), Principals(more)) => Principals(both(known, more)),
        (Some(Namespaces(known)), Namespaces(more)) => Namespaces(both(known, more)),
        (Some(TrustDomains(known)), TrustDomains(more)) => TrustDomains(both(known, more)),
        (Some(Addresses(known)), Addresses(more)) => Addresses(both(known, more)),
        (Some(Header(name, known)), Header(other, more)) if name == other => Header(name, both(known, more)),
        (Some(_), _) => return Err(input.guards(path, "alternatives of different attributes are not tested")),
    })
}

/// One value of an attribute.
fn value(input: &In<'_>, path: &str, raw: &Principal, inverted: &mut bool) -> Result<SourceTest, DecodeError> {
    Ok(match &raw.identifier {
        Some(Identifier::DirectRemoteIp(net)) => SourceTest::Addresses(vec![read::range(input, path, net)?]),
        Some(Identifier::Header(header)) => {
            *inverted |= header.invert_match;
            let name = header.name.to_ascii_lowercase();
            SourceTest::Header(name, vec![header_text(input, path, header, false)?])
        }
        Some(Identifier::Authenticated(authenticated)) => match &authenticated.principal_name {
            None => SourceTest::Principals(vec!["*".to_owned()]),
            Some(matcher) => identity(input, path, matcher)?,
        },
        Some(_) => return Err(input.guards(path, "asks for an attribute that is not tested")),
        None => return Err(input.invalid(path, "an empty principal")),
    })
}

fn identity(input: &In<'_>, path: &str, matcher: &StringMatcher) -> Result<SourceTest, DecodeError> {
    match &matcher.match_pattern {
        Some(MatchPattern::SafeRegex(regex)) => {
            let regex = regex.regex.as_str();
            let within = |before, after| part(regex.strip_prefix(before)?.strip_suffix(after)?);
            if let Some(namespace) = within(".*/ns/", "/.*") {
                return Ok(SourceTest::Namespaces(vec![namespace]));
            }
            if let Some(account) = account(regex) {
                return Ok(SourceTest::Principals(vec![account]));
            }
            if let Some(domain) = within("spiffe://", "/.*") {
                return Ok(SourceTest::TrustDomains(vec![domain]));
            }
            // Istio's way to say how a principal ends.
            if let Some(end) = regex.strip_prefix("spiffe://.*").and_then(literal).filter(|end| !end.is_empty()) {
                return Ok(SourceTest::Principals(vec![format!("*{end}")]));
            }
        }
        // The end of a principal is the same with and without its scheme.
        Some(MatchPattern::Suffix(_)) => {
            return Ok(SourceTest::Principals(vec![policy_text(input, path, matcher, "", false)?]));
        }
        Some(
            MatchPattern::Exact(_) | MatchPattern::Prefix(_) | MatchPattern::Contains(_) | MatchPattern::Custom(_),
        )
        | None => {}
    }
    Ok(SourceTest::Principals(vec![policy_text(input, path, matcher, "spiffe://", false)?]))
}

/// A part of an identity, in the notation of policies.
fn part(regex: &str) -> Option<String> {
    if matches!(regex, "[^/]+" | ".*" | ".+") {
        return Some("*".to_owned());
    }
    let plain = |regex: &str| literal(regex).filter(|text| !text.is_empty() && !text.contains(['*', '/']));
    let any = ["[^/]*", ".*"];
    if let Some(end) = any.iter().find_map(|any| regex.strip_prefix(any)) {
        Some(format!("*{}", plain(end)?))
    } else if let Some(start) = any.iter().find_map(|any| regex.strip_suffix(any)) {
        Some(format!("{}*", plain(start)?))
    } else {
        plain(regex)
    }
}

/// Istio's regex for a service account of any trust domain, as the end of a principal.
fn account(regex: &str) -> Option<String> {
    let rest = regex.strip_prefix("spiffe://.+/ns/")?.strip_suffix("(/.+)?")?;
    let (namespace, name) = rest.split_once("/(.+/|)sa/")?;
    Some(format!("*/ns/{}/sa/{}", literal(namespace)?, literal(name)?))
}
