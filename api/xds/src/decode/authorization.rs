//! RBAC filters as layers of authorization. Everything here guards something: what does not fit is refused.
//!
//! A policy is read where it is an `and` of clauses, each an `or` of values of one attribute or its negation, however these
//! are nested; that is what Istio and most hands write.
//! Never here: deciding. Called by `http`.

mod condition;
mod permissions;
mod principals;

use api::{
    note::ObjectRef,
    spec::{
        Authorization, AuthorizationAction, AuthorizationOperation, AuthorizationRule, AuthorizationSource, Origin,
    },
};
use envoy_types::pb::envoy::{
    config::{
        rbac::v3::{self as pb, rbac::Action},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::{DecodeError, In};
use condition::alternatives;

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
            alternatives(input, &format!("{path}permissions"), permission, &mut to)?;
        }
        let mut from = Vec::new();
        for principal in &policy.principals {
            alternatives(input, &format!("{path}principals"), principal, &mut from)?;
        }
        if to.iter().any(AuthorizationOperation::is_empty) {
            to.clear();
        }
        if from.iter().any(AuthorizationSource::is_empty) {
            from.clear();
        }
        rules.push(AuthorizationRule { name: name.clone(), from, to, origin: origin(name) });
    }
    Ok(Some(Authorization { action, rules }))
}

/// The object that the name of a rule speaks of: `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`, as Istio writes it, or
/// `ns[NAMESPACE]-KIND[NAME]`.
fn origin(name: &str) -> Option<Origin> {
    let (namespace, rest) = name.strip_prefix("ns[")?.split_once("]-")?;
    let (kind, rest) = rest.split_once('[')?;
    if kind != "policy" {
        return Some(Origin { object: ObjectRef::new(kind, namespace, rest.strip_suffix(']')?), path: String::new() });
    }
    let (policy, rest) = rest.split_once("]-rule[")?;
    let index: usize = rest.strip_suffix(']')?.parse().ok()?;
    let object = ObjectRef::new("AuthorizationPolicy", namespace, policy);
    Some(Origin { object, path: format!("spec.rules[{index}]") })
}

fn not_tested(input: &In<'_>, path: &str) -> DecodeError {
    input.guards(path, "such a match is not tested")
}

/// The value of a header, in the notation of policies.
fn header_text(input: &In<'_>, path: &str, raw: &HeaderMatcher, any_case: bool) -> Result<String, DecodeError> {
    use HeaderMatchSpecifier as Specifier;
    let pattern = match &raw.header_match_specifier {
        Some(Specifier::StringMatch(matcher)) => return policy_text(input, path, matcher, "", any_case),
        Some(Specifier::ExactMatch(text)) => MatchPattern::Exact(text.clone()),
        Some(Specifier::PrefixMatch(text)) => MatchPattern::Prefix(text.clone()),
        Some(Specifier::SuffixMatch(text)) => MatchPattern::Suffix(text.clone()),
        Some(Specifier::PresentMatch(true)) | None => MatchPattern::Prefix(String::new()),
        Some(
            Specifier::PresentMatch(false)
            | Specifier::ContainsMatch(_)
            | Specifier::RangeMatch(_)
            | Specifier::SafeRegexMatch(_),
        ) => return Err(not_tested(input, path)),
    };
    policy_text(input, path, &StringMatcher { match_pattern: Some(pattern), ignore_case: false }, "", any_case)
}

/// A matcher in the notation of policies: `exact`, `prefix*`, `*suffix`, `*`.
fn policy_text(
    input: &In<'_>,
    path: &str,
    raw: &StringMatcher,
    before: &str,
    any_case: bool,
) -> Result<String, DecodeError> {
    let refused = || not_tested(input, path);
    if raw.ignore_case && !any_case {
        return Err(refused());
    }
    let plain = |text: &str| -> Result<String, DecodeError> {
        let text = text.strip_prefix(before).ok_or_else(refused)?;
        if text.starts_with('*') { Err(refused()) } else { Ok(text.to_owned()) }
    };
    match &raw.match_pattern {
        Some(MatchPattern::Exact(text)) if !text.ends_with('*') => plain(text),
        Some(MatchPattern::Prefix(text)) if text == before || text.is_empty() => Ok("*".to_owned()),
        Some(MatchPattern::Prefix(text)) => Ok(format!("{}*", plain(text)?)),
        Some(MatchPattern::Suffix(text)) if !text.is_empty() => Ok(format!("*{text}")),
        Some(MatchPattern::SafeRegex(regex)) if matches!(regex.regex.as_str(), ".+" | ".*") => Ok("*".to_owned()),
        Some(_) => Err(refused()),
        None => Err(input.invalid(path, "no pattern")),
    }
}

/// The text that a regex without operators stands for.
fn literal(regex: &str) -> Option<String> {
    let mut text = String::with_capacity(regex.len());
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().filter(|c| !c.is_ascii_alphanumeric())?,
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '@') || !c.is_ascii() => c,
            _ => return None,
        };
        text.push(c);
    }
    Some(text)
}
