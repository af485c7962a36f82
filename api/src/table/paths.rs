//! Narrows the rules of a virtual host to those whose path may match, so that many rules cost little more than few.
//!
//! Exact paths by hash; prefixes sorted, each knowing the longest other prefix it begins with, so that one binary search
//! finds all prefixes of a path; regexes by the plain text they begin with; the rest is always tried. The rule with the
//! lowest index that matches wins, wherever it was found.
//! Never here: whether a rule matches. Built and asked by `table`.

use hashbrown::HashMap;

use crate::spec::{PathMatch, RouteMatch};

/// Below this number of rules they are tried one by one.
const INDEX_FROM: usize = 9;

/// The index; empty where rules are few.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    all: Option<u32>,
    exact: HashMap<Box<str>, Vec<u32>, foldhash::fast::RandomState>,
    prefixes: Box<[Prefix]>,
    rest: Box<[u32]>,
}

#[derive(Debug, Clone)]
struct Prefix {
    text: Box<str>,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
    rules: Vec<u32>,
}

impl Paths {
    /// Builds the index of rules in order.
    pub(super) fn build<'m>(rules: impl ExactSizeIterator<Item = &'m RouteMatch>) -> Self {
        if rules.len() < INDEX_FROM {
            return Self { all: u32::try_from(rules.len()).ok(), ..Self::default() };
        }
        let mut paths = Self::default();
        let mut prefixes: Vec<(&str, u32)> = Vec::new();
        let mut rest = Vec::new();
        for (at, rule) in (0..).zip(rules) {
            match &rule.path {
                PathMatch::Exact(text) if !rule.ignore_case => {
                    paths.exact.entry(text.as_str().into()).or_default().push(at)
                }
                PathMatch::Prefix(text) if !rule.ignore_case => prefixes.push((text, at)),
                PathMatch::SegmentPrefix(text) if !rule.ignore_case => prefixes.push((text.trim_end_matches('/'), at)),
                PathMatch::Regex(pattern) => match literal(pattern) {
                    "" => rest.push(at),
                    start => prefixes.push((start, at)),
                },
                PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::SegmentPrefix(_) => rest.push(at),
            }
        }
        prefixes.sort_unstable();
        let mut sorted: Vec<Prefix> = Vec::new();
        for (text, at) in prefixes {
            if let Some(same) = sorted.last_mut().filter(|last| &*last.text == text) {
                same.rules.push(at);
                continue;
            }
            let mut parent = sorted.len().checked_sub(1);
            while let Some(up) = parent.and_then(|at| sorted.get(at)).filter(|up| !text.starts_with(&*up.text)) {
                parent = up.parent;
            }
            sorted.push(Prefix { text: text.into(), parent, rules: vec![at] });
        }
        paths.prefixes = sorted.into();
        paths.rest = rest.into();
        paths
    }

    /// The lowest index for which `matches` holds among the rules that may take this path.
    pub(super) fn first(&self, path: &str, matches: impl Fn(u32) -> bool) -> Option<u32> {
        if let Some(count) = self.all {
            return (0..count).find(|at| matches(*at));
        }
        let mut best = None;
        let mut look = |rules: &[u32]| {
            let lower = rules.iter().take_while(|at| best.is_none_or(|best| **at < best));
            if let Some(found) = lower.copied().find(|at| matches(*at)) {
                best = Some(found);
            }
        };
        if let Some(rules) = self.exact.get(path) {
            look(rules);
        }
        let mut at = self.prefixes.partition_point(|prefix| &*prefix.text <= path).checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.prefixes.get(at)) {
            if path.starts_with(&*prefix.text) {
                look(&prefix.rules);
            }
            at = prefix.parent;
        }
        look(&self.rest);
        best
    }
}

/// The plain text that everything this regex matches begins with; may be shorter than it could be.
fn literal(pattern: &str) -> &str {
    if pattern.contains('|') {
        return "";
    }
    let meta = |c: char| matches!(c, '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '\\');
    let end = pattern.find(meta).unwrap_or(pattern.len());
    let (start, rest) = pattern.split_at(end);
    if rest.starts_with(['*', '?', '{']) {
        let mut chars = start.chars();
        chars.next_back();
        chars.as_str()
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_start_of_a_regex() {
        for (pattern, want) in [
            ("/api/v[0-9]+", "/api/v"),
            ("/a.*", "/a"),
            ("/ab*", "/a"),
            ("/ab?c", "/a"),
            ("/ab+", "/ab"),
            ("/ab{0,2}", "/a"),
            ("/a|/b", ""),
            (".*", ""),
            ("(?i)/a", ""),
            ("/é?", "/"),
            ("^/a", ""),
            ("/a\\.b", "/a"),
        ] {
            assert_eq!(literal(pattern), want, "{pattern}");
        }
    }

    /// Ten thousand rules of all sorts, each with a path of its own.
    fn many() -> Vec<RouteMatch> {
        let path = |at: usize| match at % 4 {
            0 => PathMatch::Exact(format!("/exact/{at}")),
            1 => PathMatch::Prefix(format!("/prefix/{at}/")),
            2 => PathMatch::SegmentPrefix(format!("/segment/{at}")),
            _ => PathMatch::Regex(format!("/regex/{at}/[a-z]+")),
        };
        (0..10_000).map(|at| RouteMatch { path: path(at), ..RouteMatch::default() }).collect()
    }

    #[test]
    fn of_many_rules_few_are_tried() {
        let rules = many();
        let paths = Paths::build(rules.iter());
        for path in ["/exact/8000", "/prefix/8001/x", "/segment/8002/y", "/regex/8003/abc", "/none"] {
            let tried = std::cell::Cell::new(0);
            paths.first(path, |_| {
                tried.set(tried.get() + 1);
                false
            });
            assert!(tried.get() <= 4, "{path}: {}", tried.get());
        }
    }
}
