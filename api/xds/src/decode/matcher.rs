//! Text, header and query matchers, in the shapes of every year.
//!
//! What Envoy can say and the spec cannot is said as a regex where that is exact, else refused: a condition that is not
//! tested would take other requests than it says.
//! Never here: matching. Used by `route` and `authorization`.

use api::{
    pattern::{self, Text},
    spec::{HeaderMatch, QueryMatch, TextMatch},
};
use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
    },
    r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};

use super::{DecodeError, In};

/// A regex that compiles.
pub(super) fn regex(input: &In<'_>, path: &str, raw: &RegexMatcher) -> Result<String, DecodeError> {
    pattern::whole(&raw.regex).map_err(|error| input.invalid(path, error.to_string()))?;
    Ok(raw.regex.clone())
}

/// The text as part of a regex.
fn quoted(text: &str) -> String {
    ::regex::escape(text)
}

pub(super) fn text(input: &In<'_>, path: &str, raw: &StringMatcher) -> Result<TextMatch, DecodeError> {
    let folded =
        |before: &str, text: &str, after: &str| TextMatch::Regex(format!("(?i){before}{}{after}", quoted(text)));
    Ok(match (raw.match_pattern.as_ref(), raw.ignore_case) {
        (Some(MatchPattern::Exact(text)), false) => TextMatch::Exact(text.clone()),
        (Some(MatchPattern::Prefix(text)), false) => TextMatch::Prefix(text.clone()),
        (Some(MatchPattern::Suffix(text)), false) => TextMatch::Suffix(text.clone()),
        (Some(MatchPattern::Contains(text)), false) => TextMatch::Regex(format!(".*{}.*", quoted(text))),
        (Some(MatchPattern::Exact(text)), true) => folded("", text, ""),
        (Some(MatchPattern::Prefix(text)), true) => folded("", text, ".*"),
        (Some(MatchPattern::Suffix(text)), true) => folded(".*", text, ""),
        (Some(MatchPattern::Contains(text)), true) => folded(".*", text, ".*"),
        // Letters of a regex match as they are written, whatever the flag says.
        (Some(MatchPattern::SafeRegex(raw)), _) => TextMatch::Regex(regex(input, path, raw)?),
        (Some(MatchPattern::Custom(_)), _) => return Err(input.guards(path, "custom matchers are not tested")),
        (None, _) => return Err(input.invalid(path, "no pattern")),
    })
}

/// A header matcher; where Envoy treats a missing header in its own way, presence is a matcher of its own.
pub(super) fn header(
    input: &In<'_>,
    path: &str,
    raw: &HeaderMatcher,
) -> Result<impl Iterator<Item = HeaderMatch> + use<>, DecodeError> {
    use HeaderMatchSpecifier as Specifier;
    let name = raw.name.to_ascii_lowercase();
    if name.is_empty() {
        return Err(input.invalid(path, "no name"));
    }
    let mut invert = raw.invert_match;
    let value = match raw.header_match_specifier.as_ref() {
        None | Some(Specifier::PresentMatch(true)) => TextMatch::Present,
        Some(Specifier::PresentMatch(false)) => {
            invert = !invert;
            TextMatch::Present
        }
        Some(Specifier::ExactMatch(text)) => TextMatch::Exact(text.clone()),
        Some(Specifier::PrefixMatch(text)) => TextMatch::Prefix(text.clone()),
        Some(Specifier::SuffixMatch(text)) => TextMatch::Suffix(text.clone()),
        Some(Specifier::ContainsMatch(text)) => TextMatch::Regex(format!(".*{}.*", quoted(text))),
        Some(Specifier::SafeRegexMatch(raw)) => TextMatch::Regex(regex(input, path, raw)?),
        Some(Specifier::StringMatch(raw)) => text(input, path, raw)?,
        Some(Specifier::RangeMatch(_)) => return Err(input.guards(path, "ranges of numbers are not tested")),
    };
    if raw.treat_missing_header_as_empty && !invert {
        let compiled = Text::compile(&value).map_err(|error| input.invalid(path, error.to_string()))?;
        if value == TextMatch::Present || compiled.matches(b"") {
            return Err(input.guards(path, "a missing header is not taken for an empty one"));
        }
    }
    // Envoy's inverted text match still needs the header, unless it says otherwise; ours does not.
    let needs = invert && value != TextMatch::Present && !raw.treat_missing_header_as_empty && !name.starts_with(':');
    let there = needs.then(|| HeaderMatch { name: name.clone(), value: TextMatch::Present, invert: false });
    Ok(std::iter::once(HeaderMatch { name, value, invert }).chain(there))
}

pub(super) fn query(input: &In<'_>, path: &str, raw: &QueryParameterMatcher) -> Result<QueryMatch, DecodeError> {
    use QueryParameterMatchSpecifier as Specifier;
    let value = match raw.query_parameter_match_specifier.as_ref() {
        None | Some(Specifier::PresentMatch(true)) => TextMatch::Present,
        Some(Specifier::PresentMatch(false)) => {
            return Err(input.guards(path, "that a parameter is missing is not tested"));
        }
        Some(Specifier::StringMatch(raw)) => text(input, path, raw)?,
    };
    Ok(QueryMatch { name: raw.name.clone(), value })
}
