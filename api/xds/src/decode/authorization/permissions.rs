//! Permissions of an RBAC policy as operations.
//!
//! Never here: principals. Called by [`super`].

use api::{pattern::Template, spec::OperationTest};
use envoy_types::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        rbac::v3::{Permission, permission::Rule},
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
    r#type::matcher::v3::{path_matcher, string_matcher::MatchPattern},
};

use super::{
    super::read,
    DecodeError, In,
    condition::{Condition, Shape, Value, both},
    header_text, policy_text,
};

impl Condition for Permission {
    type Test = OperationTest;

    const NAME: &'static str = "rules";

    fn shape(&self) -> Shape<'_, Self> {
        match &self.rule {
            Some(Rule::Any(true)) => Shape::Any,
            Some(Rule::AndRules(set)) => Shape::And(&set.rules),
            Some(Rule::OrRules(set)) => Shape::Or(&set.rules),
            Some(Rule::NotRule(inner)) => Shape::Not(inner),
            Some(_) | None => Shape::Value,
        }
    }

    fn value(&self, input: &In<'_>, path: &str) -> Result<Value<OperationTest>, DecodeError> {
        value(input, path, self)
    }

    fn join(known: OperationTest, more: OperationTest) -> Option<OperationTest> {
        use OperationTest::{Addresses, Hosts, Methods, Paths, Ports, ServerNames};
        Some(match (known, more) {
            (Hosts(known), Hosts(more)) => Hosts(both(known, more)),
            (Methods(known), Methods(more)) => Methods(both(known, more)),
            (Paths(known), Paths(more)) => Paths(both(known, more)),
            (Ports(known), Ports(more)) => Ports(both(known, more)),
            (Addresses(known), Addresses(more)) => Addresses(both(known, more)),
            (ServerNames(known), ServerNames(more)) => ServerNames(both(known, more)),
            (_, _) => return None,
        })
    }

    fn is_covered(covers: &OperationTest) -> bool {
        matches!(covers, OperationTest::Hosts(_))
    }
}

/// One value of an attribute. A host with any port is written for Envoys beside the host itself.
fn value(input: &In<'_>, path: &str, raw: &Permission) -> Result<Value<OperationTest>, DecodeError> {
    Ok(Value::Is(match &raw.rule {
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
            let test = match header.name.as_str() {
                ":authority" | "host" if has_any_port(header) => return Ok(Value::Covered),
                ":authority" | "host" => OperationTest::Hosts(vec![header_text(input, path, header, true)?]),
                ":method" => OperationTest::Methods(vec![header_text(input, path, header, false)?]),
                name => return Err(input.guards(path, format!("header {name} is not tested"))),
            };
            return Ok(Value::of_header(header, test));
        }
        Some(Rule::AndRules(set)) => match set.rules.as_slice() {
            [] => return Err(input.invalid(path, "an empty set of rules")),
            [only] => return value(input, path, only),
            _ => return Err(input.guards(path, "asks for an attribute that is not tested")),
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
