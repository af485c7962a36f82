//! One virtual host and its rules, compiled.
//!
//! A rule keeps the spec it was made from beside its matchers, its clusters resolved to places in the table, its header
//! changes parsed and its retry plan. A regex that does not compile makes a rule that matches nothing, and a note.
//! Never here: choosing a rule (`route`). Built by `table`.

use std::sync::Arc;

use regex::bytes::Regex;

use super::{ClusterId, edits::Changes, edits::Edits, paths::Paths};
use crate::{
    head::Head,
    name::Percent,
    pattern::{self, Text},
    retry::Plan,
    spec::{Action, Forward, HeaderChanges, PathMatch, PathRewrite, Route, RouteMatch, VirtualHost, WeightedCluster},
    why::Miss,
};

/// A virtual host, compiled.
#[derive(Debug)]
pub struct Host {
    /// What it was made from.
    pub spec: Arc<VirtualHost>,
    pub(super) paths: Paths,
    rules: Box<[Rule]>,
    /// Where each named cluster was when this was compiled: it is good as long as they are there.
    links: Box<[(Box<str>, Option<ClusterId>)]>,
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    host: Arc<VirtualHost>,
    index: usize,
    path: PathTest,
    headers: Box<[HeaderTest]>,
    query: Box<[(Box<str>, Text)]>,
    /// Changes that every way of this rule makes.
    pub changes: Changes,
    /// How it is sent on; none for redirects and replies.
    pub forward: Option<Forwarding>,
}

/// The name of a rule, kept without copying it.
#[derive(Debug, Clone)]
pub struct RuleName {
    host: Arc<VirtualHost>,
    index: usize,
}

impl RuleName {
    /// As it is written; empty: it has none.
    #[expect(clippy::indexing_slicing, reason = "made from a rule, whose index is one of this very host")]
    pub fn as_str(&self) -> &str {
        &self.host.routes[self.index].name
    }
}

/// How a request is sent on, compiled.
#[derive(Debug)]
pub struct Forwarding {
    /// Where to.
    pub targets: Targets,
    /// Copies: where to (none: no such cluster) and which share.
    pub mirrors: Box<[(Option<ClusterId>, Percent)]>,
    /// When to try again.
    pub retry: Option<Plan>,
    pub(crate) rewrite: Option<Regex>,
}

/// Clusters by weight.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    list: Box<[Target]>,
    total: u64,
}

/// One way.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to; none: no cluster of this name (503, flag `NC`).
    pub cluster: Option<ClusterId>,
    /// Name of the cluster.
    pub name: Box<str>,
    /// Changes for requests that take this way.
    pub changes: Changes,
    weight: u64,
}

#[derive(Debug)]
enum PathTest {
    Exact {
        text: Box<str>,
        fold: bool,
    },
    Prefix {
        text: Box<str>,
        fold: bool,
    },
    Segments {
        text: Box<str>,
        fold: bool,
    },
    Regex(Box<Regex>),
    /// A regex that did not compile.
    Never,
}

#[derive(Debug)]
struct HeaderTest {
    name: Box<str>,
    value: Option<Text>,
    invert: bool,
}

impl PathTest {
    fn compile(matches: &RouteMatch, bad: &mut dyn FnMut(String)) -> Self {
        let fold = matches.ignore_case;
        match &matches.path {
            PathMatch::Exact(text) => Self::Exact { text: text.as_str().into(), fold },
            PathMatch::Prefix(text) => Self::Prefix { text: text.as_str().into(), fold },
            PathMatch::SegmentPrefix(text) => Self::Segments { text: text.trim_end_matches('/').into(), fold },
            PathMatch::Regex(pattern) => match pattern::whole(pattern) {
                Ok(regex) => Self::Regex(Box::new(regex)),
                Err(error) => {
                    bad(error.to_string());
                    Self::Never
                }
            },
        }
    }

    fn takes(&self, path: &str) -> bool {
        let starts = |text: &str, fold: bool| match path.as_bytes().get(..text.len()) {
            Some(start) if fold => start.eq_ignore_ascii_case(text.as_bytes()),
            Some(start) => start == text.as_bytes(),
            None => false,
        };
        match self {
            Self::Exact { text, fold: false } => path == &**text,
            Self::Exact { text, fold: true } => path.eq_ignore_ascii_case(text),
            Self::Prefix { text, fold } => starts(text, *fold),
            Self::Segments { text, fold } => {
                starts(text, *fold) && matches!(path.as_bytes().get(text.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
            Self::Never => false,
        }
    }
}

impl HeaderTest {
    fn takes(&self, head: &Head<'_>) -> bool {
        let found = head.header(&self.name);
        let holds = match (&self.value, found) {
            (Some(text), Some(value)) => text.matches(&value),
            (Some(_), None) | (None, _) => false,
        };
        // Without a compiled value nothing holds, inverted or not.
        self.value.is_some() && holds != self.invert
    }
}

impl Targets {
    pub(super) fn compile(
        clusters: &[WeightedCluster],
        find: &mut impl FnMut(&str) -> Option<ClusterId>,
        bad: &mut dyn FnMut(String),
    ) -> Self {
        let list: Box<[Target]> = clusters
            .iter()
            .map(|WeightedCluster { cluster, weight, headers }| Target {
                cluster: find(cluster),
                name: cluster.as_str().into(),
                changes: changes(headers, bad),
                weight: if clusters.len() == 1 { 1 } else { u64::from(*weight) },
            })
            .collect();
        let total = list.iter().map(|target| target.weight).sum();
        Self { list, total }
    }

    /// The way for a request with this roll (any number, evenly spread); none where every weight is zero.
    pub fn pick(&self, roll: u64) -> Option<&Target> {
        let mut point = roll.checked_rem(self.total)?;
        self.list.iter().find(|target| match point.checked_sub(target.weight) {
            None => true,
            Some(rest) => {
                point = rest;
                false
            }
        })
    }

    /// All ways.
    pub fn iter(&self) -> std::slice::Iter<'_, Target> {
        self.list.iter()
    }
}

impl<'a> IntoIterator for &'a Targets {
    type Item = &'a Target;
    type IntoIter = std::slice::Iter<'a, Target>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

fn changes(headers: &HeaderChanges, bad: &mut dyn FnMut(String)) -> Changes {
    let HeaderChanges { request, response } = headers;
    Changes { request: Edits::compile(request, bad), response: Edits::compile(response, bad) }
}

impl Rule {
    fn compile(
        host: &Arc<VirtualHost>,
        index: usize,
        route: &Route,
        find: &mut impl FnMut(&str) -> Option<ClusterId>,
        bad: &mut dyn FnMut(String),
    ) -> Self {
        let Route { name: _, matches, action, headers, fault: _, operation: _, origin: _ } = route;
        let text = |raw, bad: &mut dyn FnMut(String)| match Text::compile(raw) {
            Ok(text) => Some(text),
            Err(error) => {
                bad(error.to_string());
                None
            }
        };
        let mut path = PathTest::compile(matches, bad);
        let header_tests = matches
            .headers
            .iter()
            .map(|test| HeaderTest {
                name: test.name.as_str().into(),
                value: text(&test.value, bad),
                invert: test.invert,
            })
            .collect();
        let mut query = Vec::with_capacity(matches.query.len());
        for test in &matches.query {
            match text(&test.value, bad) {
                Some(value) => query.push((test.name.as_str().into(), value)),
                None => path = PathTest::Never,
            }
        }
        let forward = match action {
            Action::Forward(forward) => Some(Forwarding::compile(forward, find, bad)),
            Action::Redirect(_) | Action::Reply { .. } => None,
        };
        Self {
            host: Arc::clone(host),
            index,
            path,
            headers: header_tests,
            query: query.into(),
            changes: changes(headers, bad),
            forward,
        }
    }

    /// Its place in the virtual host.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The virtual host it belongs to.
    pub fn host(&self) -> &VirtualHost {
        &self.host
    }

    /// Its name, for those who outlive the table.
    pub fn name(&self) -> RuleName {
        RuleName { host: Arc::clone(&self.host), index: self.index }
    }

    /// What it was made from.
    #[expect(clippy::indexing_slicing, reason = "a rule is made from the route at its index of this very host")]
    pub fn spec(&self) -> &Route {
        &self.host.routes[self.index]
    }

    /// The first part that does not hold for a request; none: the rule matches.
    pub fn miss(&self, head: &Head<'_>) -> Option<Miss<'_>> {
        if !self.path.takes(head.path()) {
            return Some(Miss::Path);
        }
        if let Some(test) = self.headers.iter().find(|test| !test.takes(head)) {
            return Some(Miss::Header(&test.name));
        }
        let parameter = self
            .query
            .iter()
            .find(|(name, text)| !head.parameter(name).is_some_and(|value| text.matches(value.as_bytes())));
        parameter.map(|(name, _)| Miss::Query(name))
    }
}

impl Forwarding {
    fn compile(
        forward: &Forward,
        find: &mut impl FnMut(&str) -> Option<ClusterId>,
        bad: &mut dyn FnMut(String),
    ) -> Self {
        let Forward { clusters, timeout: _, retry, path, authority: _, mirrors, retry_buffer_bytes: _ } = forward;
        let rewrite = match path {
            Some(PathRewrite::Regex { pattern, .. }) => match pattern::anywhere(pattern) {
                Ok(regex) => Some(regex),
                Err(error) => {
                    bad(error.to_string());
                    None
                }
            },
            Some(PathRewrite::Prefix(_) | PathRewrite::Full(_)) | None => None,
        };
        Self {
            targets: Targets::compile(clusters, find, bad),
            mirrors: mirrors.iter().map(|mirror| (find(&mirror.cluster), mirror.share)).collect(),
            retry: retry.as_ref().map(Plan::compile),
            rewrite,
        }
    }
}

impl Host {
    pub(super) fn compile(
        spec: &Arc<VirtualHost>,
        find: impl Fn(&str) -> Option<ClusterId>,
        mut bad: impl FnMut(usize, String),
    ) -> Self {
        let mut links: Vec<(Box<str>, Option<ClusterId>)> = Vec::new();
        let mut link = |name: &str| {
            let id = find(name);
            if !links.iter().rev().take(8).any(|(known, _)| **known == *name) {
                links.push((name.into(), id));
            }
            id
        };
        let rules = spec
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| Rule::compile(spec, index, route, &mut link, &mut |text| bad(index, text)))
            .collect();
        let paths = Paths::build(spec.routes.iter().map(|route| &route.matches));
        Self { spec: Arc::clone(spec), paths, rules, links: links.into() }
    }

    /// Whether this is what compiling `spec` again would give.
    pub(super) fn still(&self, spec: &Arc<VirtualHost>, find: impl Fn(&str) -> Option<ClusterId>) -> bool {
        (Arc::ptr_eq(&self.spec, spec) || self.spec == *spec) && self.links.iter().all(|(name, id)| find(name) == *id)
    }

    /// Its rules in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Host {
    /// The first rule that matches a request.
    pub(crate) fn first(&self, head: &Head<'_>) -> Option<&Rule> {
        let matches = |at: u32| self.rules.get(at as usize).is_some_and(|rule| rule.miss(head).is_none());
        self.paths.first(head.path(), matches).and_then(|at| self.rules.get(at as usize))
    }
}
