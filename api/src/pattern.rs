//! How a text matches: compiled once when tables are built, applied to bytes.
//!
//! Exact, prefix, suffix, presence and regex, in either case where asked; regexes match whole values and run in linear
//! time. Values are bytes: a value that is not UTF-8 is matched too, never skipped.
//! Never here: where the text comes from. Used by `authz` and `table`.

use regex::bytes::{Regex, RegexBuilder};

use crate::spec::TextMatch;

/// Largest compiled size of one regex, in bytes.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Why a regex is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a regex we can use: {reason}")]
pub struct PatternError {
    /// The regex.
    pub pattern: String,
    /// What is wrong, in the parser's words.
    pub reason: String,
}

/// Compiles a regex that must match a whole value.
///
/// # Errors
/// Not RE2 syntax, or too large.
pub fn whole(pattern: &str) -> Result<Regex, PatternError> {
    compile(&format!(r"\A(?:{pattern})\z"), pattern)
}

/// Compiles a regex that may match anywhere.
///
/// # Errors
/// Not RE2 syntax, or too large.
pub fn anywhere(pattern: &str) -> Result<Regex, PatternError> {
    compile(pattern, pattern)
}

fn compile(text: &str, shown: &str) -> Result<Regex, PatternError> {
    let build = |unicode: bool| {
        RegexBuilder::new(text).unicode(unicode).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
    };
    // Bytes first, so that `.` takes bytes that are no UTF-8; Unicode only for patterns that cannot be said in bytes.
    build(false).or_else(|_| build(true)).map_err(|error| PatternError {
        pattern: shown.to_owned(),
        reason: if matches!(error, regex::Error::CompiledTooBig(_)) {
            "too large".to_owned()
        } else {
            error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        },
    })
}

/// A compiled text match.
#[derive(Debug, Clone)]
pub enum Text {
    /// It is there.
    Present,
    /// The whole value.
    Exact(Box<[u8]>),
    /// Its beginning.
    Prefix(Box<[u8]>),
    /// Its end.
    Suffix(Box<[u8]>),
    /// The whole value, in either case.
    ExactFold(Box<[u8]>),
    /// Its beginning, in either case.
    PrefixFold(Box<[u8]>),
    /// Its end, in either case.
    SuffixFold(Box<[u8]>),
    /// The whole value.
    Regex(Box<Regex>),
    /// A path with operators for segments.
    Template(Template),
}

impl Text {
    /// Compiles a match.
    ///
    /// # Errors
    /// A regex that is refused.
    pub fn compile(text: &TextMatch) -> Result<Self, PatternError> {
        Ok(match text {
            TextMatch::Present => Self::Present,
            TextMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            TextMatch::Prefix(text) => Self::Prefix(text.as_bytes().into()),
            TextMatch::Suffix(text) => Self::Suffix(text.as_bytes().into()),
            TextMatch::Regex(pattern) => Self::Regex(Box::new(whole(pattern)?)),
        })
    }

    /// Reads the notation of policies: `exact`, `prefix*`, `*suffix`, `*` (there and not empty).
    pub fn policy(text: &str, fold: bool) -> Self {
        let own = |text: &str| text.as_bytes().into();
        match (text.strip_prefix('*'), text.strip_suffix('*'), fold) {
            (Some(""), _, _) => Self::Present,
            (Some(end), _, false) => Self::Suffix(own(end)),
            (Some(end), _, true) => Self::SuffixFold(own(end)),
            (None, Some(start), false) => Self::Prefix(own(start)),
            (None, Some(start), true) => Self::PrefixFold(own(start)),
            (None, None, false) => Self::Exact(own(text)),
            (None, None, true) => Self::ExactFold(own(text)),
        }
    }

    /// Whether a value that is there matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        let starts = |start: &[u8]| value.get(..start.len()).is_some_and(|v| v.eq_ignore_ascii_case(start));
        let ends = |end: &[u8]| {
            value
                .len()
                .checked_sub(end.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|v| v.eq_ignore_ascii_case(end))
        };
        match self {
            Self::Present => true,
            Self::Exact(text) => value == &**text,
            Self::Prefix(text) => value.starts_with(text),
            Self::Suffix(text) => value.ends_with(text),
            Self::ExactFold(text) => value.eq_ignore_ascii_case(text),
            Self::PrefixFold(text) => starts(text),
            Self::SuffixFold(text) => ends(text),
            Self::Regex(regex) => regex.is_match(value),
            Self::Template(template) => template.matches(value),
        }
    }

    /// Reads the notation of policies for paths: as [`Text::policy`], or a template where there are operators.
    pub fn path(text: &str) -> Self {
        if Template::is_one(text) { Self::Template(Template::compile(text)) } else { Self::policy(text, false) }
    }
}

/// Why a path of a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Operators, and no slash before them.
    #[error("a path with {{*}} or {{**}} must start with a slash")]
    Relative,
    /// `{**}` is not the last operator.
    #[error("{{**}} must be the last operator of a path")]
    NotLast,
    /// Braces that are no operators.
    #[error("a path may hold braces only as the operators {{*}} and {{**}}, each a whole segment")]
    Braces,
    /// A segment with a character that may not stand beside operators.
    #[error("{0:?} cannot be a segment of a path with operators")]
    Segment(String),
}

/// A path in which `{*}` stands for one segment that is not empty, and the last operator, `{**}`, for any text at all
/// (Envoy's `uri_template`). Unlike Envoy's, its operators take every character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Segments before `{**}`, each after a slash; none: `{*}`.
    head: Box<[Option<Box<[u8]>>]>,
    /// What follows `{**}`; none: there is no `{**}`.
    tail: Option<Box<[u8]>>,
}

impl Template {
    /// Whether a path holds operators.
    pub fn is_one(text: &str) -> bool {
        text.contains("{*}") || text.contains("{**}")
    }

    /// Reads a path of a policy, with operators or without.
    ///
    /// # Errors
    /// Braces that are no operators, an operator after `{**}`, or beside operators what no path holds.
    pub fn read(text: &str) -> Result<Self, TemplateError> {
        let templated = Self::is_one(text);
        let literal = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
        if templated && !text.starts_with('/') {
            return Err(TemplateError::Relative);
        }
        let mut last = false;
        for segment in text.trim_matches('/').split('/') {
            match segment {
                "{*}" | "{**}" if last => return Err(TemplateError::NotLast),
                "{**}" => last = true,
                "{*}" => {}
                _ if segment.contains(['{', '}']) => return Err(TemplateError::Braces),
                _ if templated && (segment.is_empty() || !segment.bytes().all(literal)) => {
                    return Err(TemplateError::Segment(segment.to_owned()));
                }
                _ => {}
            }
        }
        Ok(Self::compile(text))
    }

    /// Reads a template that is one.
    fn compile(text: &str) -> Self {
        let (before, tail) = match text.split_once("/{**}") {
            Some((before, after)) => (before, Some(after.as_bytes().into())),
            None => (text, None),
        };
        let segments = before.split('/').skip(1);
        let head = segments.map(|segment| (segment != "{*}").then(|| segment.as_bytes().into())).collect();
        Self { head, tail }
    }

    /// The plain text that every path it takes begins with.
    pub fn literal(text: &str) -> &str {
        text.split_once("/{*").map_or(text, |(before, _)| text.get(..before.len() + 1).unwrap_or(text))
    }

    fn matches(&self, path: &[u8]) -> bool {
        let mut rest = path;
        for want in &self.head {
            let Some(after) = rest.strip_prefix(b"/") else { return false };
            let end = after.iter().position(|b| *b == b'/').unwrap_or(after.len());
            let (segment, next) = after.split_at(end);
            let good = want.as_deref().map_or(!segment.is_empty(), |want| want == segment);
            if !good {
                return false;
            }
            rest = next;
        }
        match &self.tail {
            None => rest.is_empty(),
            Some(tail) => rest.first() == Some(&b'/') && rest.len() > tail.len() && rest.ends_with(tail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &TextMatch, value: &[u8], want: bool) {
        assert_eq!(Text::compile(text).unwrap().matches(value), want, "{text:?} {value:?}");
    }

    #[test]
    fn a_regex_matches_the_whole_value() {
        let regex = TextMatch::Regex("a|ab".to_owned());
        check(&regex, b"ab", true);
        check(&regex, b"abc", false);
        check(&regex, b"xa", false);
    }

    #[test]
    fn a_value_that_is_no_text_is_matched_too() {
        check(&TextMatch::Regex(".+".to_owned()), b"\xff\xfe", true);
        check(&TextMatch::Regex("é+".to_owned()), "éé".as_bytes(), true);
        check(&TextMatch::Regex("[é]".to_owned()), "é".as_bytes(), true);
    }

    #[test]
    fn a_regex_that_explodes_elsewhere_is_quick_here() {
        check(&TextMatch::Regex("(a+)+$".to_owned()), &[b"a".repeat(59 * 1024), b"!".to_vec()].concat(), false);
        assert!(whole(&"(a{100}){100}{100}".repeat(9)).is_err());
        assert!(whole("(").is_err());
    }

    #[test]
    fn operators_are_whole_segments() {
        let check = |text: &str, good: bool| assert_eq!(Template::read(text).is_ok(), good, "{text}");
        for text in ["/a", "/a*", "*", "*/a", "/a//b", "/{*}", "/{**}/foo", "/foo/{*}/bar/{**}/", "/%2a/{*}"] {
            check(text, true);
        }
        for text in ["/{a}", "/a{*}", "/{*}.txt", "/*/baz/{*}", "/**/baz/{*}", "/{**}/foo/{*}", "a/{*}", "/a//{*}"] {
            check(text, false);
        }
    }

    #[test]
    fn policies_write_stars() {
        for (text, value, want) in [
            ("*", "", true),
            ("*", "x", true),
            ("/a*", "/ab", true),
            ("*.com", "x.com", true),
            ("a", "A", false),
            ("*.com", ".net", false),
        ] {
            assert_eq!(Text::policy(text, false).matches(value.as_bytes()), want, "{text} {value}");
        }
        for (text, value, want) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/", false),
            ("/foo/{**}/", "/foo/bar", false),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz/x", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar", false),
            ("/any/{**}", "/any/*abc", true),
            ("/any/{**}", "/any/%2a\u{e9}", true),
            ("/{**}/end", "/a/b/end", true),
            ("/{**}/end", "/end", false),
            ("/{**}", "/", true),
        ] {
            assert_eq!(Text::path(text).matches(value.as_bytes()), want, "{text} {value}");
            assert!(!want || value.starts_with(Template::literal(text)), "{text} {value}");
        }
        assert!(Text::policy("Secret.com", true).matches(b"sECRET.com"));
        assert!(Text::policy("*.COM", true).matches(b"x.com"));
    }
}
