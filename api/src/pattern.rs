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
        assert!(Text::policy("Secret.com", true).matches(b"sECRET.com"));
        assert!(Text::policy("*.COM", true).matches(b"x.com"));
    }
}
