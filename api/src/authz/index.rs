//! Finds the first rule that matches without trying every rule.
//!
//! Each rule is filed under one question that it needs answered with yes: of its callers or its operations, the one whose
//! values are shared with the fewest other rules. A decision looks up what was asked in each file and tries only the rules
//! found there; a rule that has no such question is always tried. What is found is what trying all in order would find.
//! Never here: whether a rule matches (`rule`). Used by `authz`.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::{
    nested::{Blocks, Texts},
    rule::{Asked, exact, lower},
};
use crate::{
    pattern::Text,
    spec::{AuthorizationClause, AuthorizationRule, OperationTest, SourceTest},
};

/// An attribute that rules are filed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Principal,
    Namespace,
    Host,
    Method,
    Path,
}

/// A value that a rule can be filed under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'s> {
    Text(By, &'s str),
    Block(IpNet),
    Port(u16),
}

/// Rules by what they ask for.
#[derive(Debug, Clone)]
pub(super) struct Index {
    principals: Texts,
    namespaces: Texts,
    hosts: Texts,
    methods: Texts,
    paths: Texts,
    sources: Blocks,
    ports: HashMap<u16, Box<[u32]>, foldhash::fast::RandomState>,
    always: Box<[u32]>,
}

fn texts(by: By, texts: &[String]) -> Option<Vec<Key<'_>>> {
    // a template is found by what stands before its operators
    texts.iter().map(|text| (text != "*").then_some(Key::Text(by, text))).collect()
}

/// The keys of a clause; none where it does not narrow.
fn of_source(clause: &AuthorizationClause<SourceTest>) -> Option<Vec<Key<'_>>> {
    match &clause.test {
        _ if clause.not => None,
        SourceTest::Principals(values) => texts(By::Principal, values),
        SourceTest::Namespaces(values) => texts(By::Namespace, values),
        SourceTest::Addresses(blocks) => Some(blocks.iter().copied().map(Key::Block).collect()),
        SourceTest::TrustDomains(_) | SourceTest::Header(..) => None,
    }
}

fn of_operation(clause: &AuthorizationClause<OperationTest>) -> Option<Vec<Key<'_>>> {
    match &clause.test {
        _ if clause.not => None,
        OperationTest::Hosts(values) => texts(By::Host, values),
        OperationTest::Methods(values) => texts(By::Method, values),
        OperationTest::Paths(values) => texts(By::Path, values),
        OperationTest::Ports(ports) => Some(ports.iter().copied().map(Key::Port).collect()),
        OperationTest::Addresses(_) | OperationTest::ServerNames(_) => None,
    }
}

/// How many rules each value would file.
type Shared<'s> = BTreeMap<Key<'s>, usize>;

/// For each alternative its keys that fewest rules share, with how many share them; none where one has no keys at all.
fn narrowest<'s, C>(
    alternatives: &'s [Vec<C>],
    keys: impl Fn(&'s C) -> Option<Vec<Key<'s>>>,
    shared: &Shared<'s>,
) -> Option<(usize, Vec<Key<'s>>)> {
    let cost = |keys: &Vec<Key<'s>>| keys.iter().filter_map(|key| shared.get(key).copied()).max().unwrap_or(0);
    let mut all = Vec::new();
    let mut worst = None;
    for clauses in alternatives {
        let (share, keys) =
            clauses.iter().filter_map(&keys).map(|keys| (cost(&keys), keys)).min_by_key(|(share, _)| *share)?;
        worst = worst.max(Some(share));
        all.extend(keys);
    }
    worst.map(|worst| (worst, all))
}

impl Index {
    pub(super) fn build(rules: &[AuthorizationRule]) -> Self {
        let mut shared: Shared<'_> = BTreeMap::new();
        for rule in rules {
            let sources = rule.from.iter().flatten().filter_map(of_source).flatten();
            let operations = rule.to.iter().flatten().filter_map(of_operation).flatten();
            for key in sources.chain(operations) {
                *shared.entry(key).or_default() += 1;
            }
        }
        let mut files: BTreeMap<Key<'_>, Vec<u32>> = BTreeMap::new();
        let mut always = Vec::new();
        for (id, rule) in (0u32..).zip(rules) {
            let ways = [narrowest(&rule.from, of_source, &shared), narrowest(&rule.to, of_operation, &shared)];
            match ways.into_iter().flatten().min_by_key(|(share, _)| *share) {
                Some((_, keys)) => keys.into_iter().for_each(|key| files.entry(key).or_default().push(id)),
                None => always.push(id),
            }
        }
        let of = |wanted: By, read: fn(&str) -> Text| {
            let mut pairs: Vec<(u32, &str)> = files
                .iter()
                .filter_map(|(key, ids)| match key {
                    Key::Text(by, text) if *by == wanted => Some(ids.iter().map(move |id| (*id, *text))),
                    Key::Text(..) | Key::Block(_) | Key::Port(_) => None,
                })
                .flatten()
                .collect();
            pairs.sort_unstable();
            Texts::build(pairs.into_iter().map(|(id, text)| (text, id)), read)
        };
        let mut blocks: Vec<(u32, &IpNet)> = Vec::new();
        let mut ports = HashMap::default();
        for (key, ids) in &files {
            match key {
                Key::Block(net) => blocks.extend(ids.iter().map(|id| (*id, net))),
                Key::Port(port) => drop(ports.insert(*port, ids.as_slice().into())),
                Key::Text(..) => {}
            }
        }
        blocks.sort_unstable();
        Self {
            principals: of(By::Principal, exact),
            namespaces: of(By::Namespace, exact),
            hosts: of(By::Host, lower),
            methods: of(By::Method, exact),
            paths: of(By::Path, Text::path),
            sources: Blocks::build(blocks.into_iter().map(|(id, net)| (net, id))),
            ports,
            always: always.into(),
        }
    }

    /// Tells the rules that may match, each list in order; a rule may be told twice.
    pub(super) fn each(&self, asked: &Asked<'_>, hit: &mut impl FnMut(&[u32])) {
        hit(&self.always);
        if let Some(principal) = asked.principal().filter(|_| !self.principals.is_empty()) {
            self.principals.each(principal.as_bytes(), hit);
        }
        if let Some(namespace) = asked.namespace().filter(|_| !self.namespaces.is_empty()) {
            self.namespaces.each(namespace.as_bytes(), hit);
        }
        if let Some(ids) = self.ports.get(&asked.port()) {
            hit(ids);
        }
        if !self.sources.is_empty() {
            self.sources.each(asked.source, hit);
        }
        let Some(head) = asked.head else { return };
        if !self.paths.is_empty() {
            self.paths.each(head.path().as_bytes(), hit);
        }
        if !self.methods.is_empty() {
            self.methods.each(head.method().as_str().as_bytes(), hit);
        }
        if !self.hosts.is_empty() {
            self.hosts.each(head.host().as_bytes(), hit);
            if head.port().is_some() {
                self.hosts.each(head.authority().as_bytes(), hit);
            }
        }
    }
}
