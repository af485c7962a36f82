//! Permissions of an RBAC policy as operations.
//!
//! Never here: principals. Called by [`super`].

use api::{
    pattern::Template,
    spec::{AuthorizationClause, AuthorizationOperation, OperationTest},
};
use envoy_types::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        rbac::v3::{Permission, permission::Rule},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
    r#type::matcher::v3::{path_matcher, string_matcher::MatchPattern},
};

use super::{super::read, DecodeError, In, header_text, policy_text};

/// The alternatives of a permission, each an operation.
pub(super) fn alternatives(
    input: &In<'_>,
    path: &str,
    raw: &Permission,
    all: &mut Vec<AuthorizationOperation>,
) -> Result<(), DecodeError> {
    if let Some(Rule::OrRules(set)) = &raw.rule {
        return set.rules.iter().try_for_each(|rule| alternatives(input, path, rule, all));
    }
    let mut operation = AuthorizationOperation::new();
    clauses(input, path, raw, &mut operation)?;
    all.push(operation);
    Ok(())
}

fn clauses(input: &In<'_>, path: &str, raw: &Permission, all: &mut AuthorizationOperation) -> Result<(), DecodeError> {
    let one = std::slice::from_ref(raw);
    all.push(match &raw.rule {
        Some(Rule::Any(true)) => return Ok(()),
        Some(Rule::AndRules(set)) => return set.rules.iter().try_for_each(|rule| clauses(input, path, rule, all)),
        Some(Rule::OrRules(set)) => clause(input, path, &set.rules, false)?,
        Some(Rule::NotRule(inner)) => match &inner.rule {
            Some(Rule::OrRules(set)) => clause(input, path, &set.rules, true)?,
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
    raw: &[Permission],
    not: bool,
) -> Result<AuthorizationClause<OperationTest>, DecodeError> {
    let mut test: Option<OperationTest> = None;
    let mut inverted = false;
    let mut with_port = false;
    for rule in raw {
        match value(input, path, rule, &mut inverted)? {
            // An authority with any port is what every host takes already.
            None => with_port = true,
            Some(value) => test = Some(join(input, path, test, value)?),
        }
    }
    if with_port && !matches!(test, Some(OperationTest::Hosts(_))) {
        return Err(input.guards(path, "authorities are not tested by regex"));
    }
    if inverted && raw.len() > 1 {
        return Err(input.guards(path, "alternatives that are inverted one by one are not tested"));
    }
    let test = test.ok_or_else(|| input.invalid(path, "an empty set of rules"))?;
    Ok(AuthorizationClause { test, not: not != inverted })
}

/// Adds a value to those of the same attribute.
fn join(
    input: &In<'_>,
    path: &str,
    known: Option<OperationTest>,
    more: OperationTest,
) -> Result<OperationTest, DecodeError> {
    fn both<T>(mut known: Vec<T>, more: Vec<T>) -> Vec<T> {
        known.extend(more);
        known
    }
    use OperationTest::{Addresses, Hosts, Methods, Paths, Ports, ServerNames};
    Ok(match (known, more) {
        (None, more) => more,
        (Some(Hosts(known)), Hosts(more)) => Hosts(both(known, more)),
        (Some(Methods(known)), Methods(more)) => Methods(both(known, more)),
        (Some(Paths(known)), Paths(more)) => Paths(both(known, more)),
        (Some(Ports(known)), Ports(more)) => Ports(both(known, more)),
        (Some(Addresses(known)), Addresses(more)) => Addresses(both(known, more)),
        (Some(ServerNames(known)), ServerNames(more)) => ServerNames(both(known, more)),
        (Some(_), _) => return Err(input.guards(path, "alternatives of different attributes are not tested")),
    })
}

/// One value of an attribute; none: a host with any port, written for Envoys beside the host itself.
fn value(
    input: &In<'_>,
    path: &str,
    raw: &Permission,
    inverted: &mut bool,
) -> Result<Option<OperationTest>, DecodeError> {
    Ok(Some(match &raw.rule {
        Some(Rule::DestinationPort(port)) => OperationTest::Ports(vec![read::port(input, path, *port)?]),
        Some(Rule::DestinationIp(net)) => OperationTest::Addresses(vec![read::range(input, path, net)?]),
        Some(Rule::RequestedServerName(matcher)) => {
            OperationTest::ServerNames(vec![policy_text(input, path, matcher, "", true)?])
        }
        Some(Rule::UrlPath(matcher)) => match &matcher.rule {
            Some(path_matcher::Rule::Path(matcher)) => {
                let text = policy_text(input, path, matcher, "", false)?;
                if Template::is_one(&text) {
                    return Err(input.guards(path, "such a match is not tested"));
                }
                OperationTest::Paths(vec![text])
            }
            None => return Err(input.invalid(path, "no path")),
        },
        Some(Rule::UriTemplate(config)) => OperationTest::Paths(vec![template(input, path, config)?]),
        Some(Rule::Header(header)) => {
            *inverted |= header.invert_match;
            match header.name.as_str() {
                ":authority" | "host" if has_any_port(header) => return Ok(None),
                ":authority" | "host" => OperationTest::Hosts(vec![header_text(input, path, header, true)?]),
                ":method" => OperationTest::Methods(vec![header_text(input, path, header, false)?]),
                name => return Err(input.guards(path, format!("header {name} is not tested"))),
            }
        }
        Some(Rule::AndRules(set)) if set.rules.len() == 1 => match set.rules.first() {
            Some(only) => return value(input, path, only, inverted),
            None => return Err(input.invalid(path, "an empty set of rules")),
        },
        Some(_) => return Err(input.guards(path, "asks for an attribute that is not tested")),
        None => return Err(input.invalid(path, "an empty rule")),
    }))
}

fn has_any_port(header: &HeaderMatcher) -> bool {
    if let Some(HeaderMatchSpecifier::StringMatch(matcher)) = &header.header_match_specifier
        && let Some(MatchPattern::SafeRegex(regex)) = &matcher.match_pattern
    {
        return regex.regex.starts_with("(?i)") && regex.regex.ends_with(":[0-9]+");
    }
    false
}

/// Envoy's template in the notation of policies.
fn template(input: &In<'_>, path: &str, config: &TypedExtensionConfig) -> Result<String, DecodeError> {
    let any = config.typed_config.as_ref().ok_or_else(|| input.invalid(path, "no template"))?;
    let raw: UriTemplateMatchConfig = read::message(input, path, any)?;
    let segment = |segment: &str| match segment {
        "*" => "{*}".to_owned(),
        "**" => "{**}".to_owned(),
        plain => plain.to_owned(),
    };
    let text = raw.path_template.split('/').map(segment).collect::<Vec<_>>().join("/");
    if !Template::is_one(&text) || Template::read(&text).is_err() || raw.path_template.contains(['{', '}']) {
        return Err(input.guards(path, format!("template {:?} is not tested", raw.path_template)));
    }
    Ok(text)
}
