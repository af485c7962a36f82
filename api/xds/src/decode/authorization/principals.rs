//! Principals of an RBAC policy as callers.
//!
//! Never here: permissions. Called by [`super`].

use api::spec::SourceTest;
use envoy_types::pb::envoy::{
    config::rbac::v3::{Principal, principal::Identifier},
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::{
    super::read,
    DecodeError, In,
    condition::{Condition, Shape, Value, both},
    header_text, literal, policy_text,
};

impl Condition for Principal {
    type Test = SourceTest;

    const NAME: &'static str = "principals";

    fn shape(&self) -> Shape<'_, Self> {
        match &self.identifier {
            Some(Identifier::Any(true)) => Shape::Any,
            Some(Identifier::AndIds(set)) => Shape::And(&set.ids),
            Some(Identifier::OrIds(set)) => Shape::Or(&set.ids),
            Some(Identifier::NotId(inner)) => Shape::Not(inner),
            Some(_) | None => Shape::Value,
        }
    }

    fn value(&self, input: &In<'_>, path: &str) -> Result<Value<SourceTest>, DecodeError> {
        Ok(Value::Is(match &self.identifier {
            Some(Identifier::DirectRemoteIp(net)) => SourceTest::Addresses(vec![read::range(input, path, net)?]),
            Some(Identifier::Header(header)) => {
                let name = header.name.to_ascii_lowercase();
                let test = SourceTest::Header(name, vec![header_text(input, path, header, false)?]);
                return Ok(Value::of_header(header, test));
            }
            Some(Identifier::Authenticated(authenticated)) => match &authenticated.principal_name {
                None => SourceTest::Principals(vec!["*".to_owned()]),
                Some(matcher) => identity(input, path, matcher)?,
            },
            Some(_) => return Err(input.guards(path, "asks for an attribute that is not tested")),
            None => return Err(input.invalid(path, "an empty principal")),
        }))
    }

    fn join(known: SourceTest, more: SourceTest) -> Option<SourceTest> {
        use SourceTest::{Addresses, Header, Namespaces, Principals, TrustDomains};
        Some(match (known, more) {
            (Principals(known), Principals(more)) => Principals(both(known, more)),
            (Namespaces(known), Namespaces(more)) => Namespaces(both(known, more)),
            (TrustDomains(known), TrustDomains(more)) => TrustDomains(both(known, more)),
            (Addresses(known), Addresses(more)) => Addresses(both(known, more)),
            (Header(name, known), Header(other, more)) if name == other => Header(name, both(known, more)),
            (_, _) => return None,
        })
    }

    fn is_covered(_: &SourceTest) -> bool {
        false
    }
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
