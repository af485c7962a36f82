//! One rule, compiled, and what it is asked about. This is the plain reading; `index` only saves tries.
//!
//! Never here: the order of rules, or what a match means. Used by `authz`.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    Peer,
    nested::{Blocks, Texts, canonical},
};
use crate::{
    head::Head,
    pattern::Text,
    spec::{AuthorizationAction, AuthorizationClause, AuthorizationRule, OperationTest, Origin, SourceTest},
    why::Miss,
};

/// Values of a clause up to which they are tried one after the other.
const FEW: usize = 8;

/// A request or connection, as rules see it.
pub(super) struct Asked<'a> {
    peer: &'a Peer<'a>,
    pub(super) head: Option<&'a Head<'a>>,
    pub(super) source: IpAddr,
    destination: IpAddr,
}

impl<'a> Asked<'a> {
    pub(super) fn new(peer: &'a Peer<'a>, head: Option<&'a Head<'a>>) -> Self {
        Self { peer, head, source: peer.address.to_canonical(), destination: peer.destination.ip().to_canonical() }
    }

    pub(super) fn principal(&self) -> Option<&'a str> {
        self.peer.principal
    }

    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.peer.namespace
    }

    pub(super) fn port(&self) -> u16 {
        self.peer.destination.port()
    }

    fn trust_domain(&self) -> Option<&'a str> {
        self.peer.principal?.split('/').next()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) origin: Option<Origin>,
    from: Box<[Box<[Clause]>]>,
    to: Box<[Box<[Clause]>]>,
}

#[derive(Debug, Clone)]
struct Clause {
    test: Test,
    not: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Principal(Values),
    Namespace(Values),
    TrustDomain(Values),
    Source(Ranges),
    Header(Header),
    Host(Values),
    Method(Values),
    Path(Values),
    Port(Box<[u16]>),
    Destination(Ranges),
    ServerName(Values),
}

/// A header's values. Where a match would open, the header must be that value as a whole; where a match would close, one
/// of its lines or parts suffices: a caller must not escape a rule by saying more.
#[derive(Debug, Clone)]
struct Header {
    name: Box<str>,
    values: Values,
    closes: bool,
}

impl Header {
    fn matches(&self, head: &Head<'_>) -> bool {
        let Some(whole) = head.header(&self.name) else { return false };
        let part = |value: &[u8]| self.values.hold(value.trim_ascii());
        self.values.hold(&whole)
            || self.closes
                && (whole.split(|b| *b == b',').any(part)
                    || head.headers().get_all(&*self.name).iter().any(|line| part(line.as_bytes())))
    }
}

/// Texts, of which one must match.
#[derive(Debug, Clone)]
enum Values {
    Few(Box<[Text]>),
    Many(Texts, Box<[Text]>),
}

impl Values {
    fn compile(texts: &[String], read: impl Fn(&str) -> Text) -> Self {
        let all = texts.iter().map(|text| read(text));
        if texts.len() <= FEW {
            return Self::Few(all.collect());
        }
        let odd = |text: &Text| !matches!(text, Text::Exact(_) | Text::Prefix(_) | Text::Suffix(_) | Text::Present);
        let plain = texts.iter().map(|text| (text.as_str(), 0)).filter(|(text, _)| !odd(&read(text)));
        Self::Many(Texts::build(plain, &read), all.filter(odd).collect())
    }

    fn hold(&self, value: &[u8]) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|text| text.matches(value)),
            Self::Many(texts, odd) => {
                let mut found = false;
                texts.each(value, &mut |_| found = true);
                found || odd.iter().any(|text| text.matches(value))
            }
        }
    }

    /// A value that is not there matches no text, not even `*`.
    fn hold_for(&self, value: Option<&str>) -> bool {
        value.is_some_and(|value| self.hold(value.as_bytes()))
    }
}

#[derive(Debug, Clone)]
enum Ranges {
    Few(Box<[IpNet]>),
    Many(Blocks),
}

impl Ranges {
    fn compile(blocks: &[IpNet]) -> Self {
        if blocks.len() <= FEW {
            Self::Few(blocks.iter().map(|net| canonical(*net)).collect())
        } else {
            Self::Many(Blocks::build(blocks.iter().map(|net| (net, 0))))
        }
    }

    fn hold(&self, address: IpAddr) -> bool {
        match self {
            Self::Few(blocks) => blocks.iter().any(|block| block.contains(&address)),
            Self::Many(blocks) => {
                let mut found = false;
                blocks.each(address, &mut |_| found = true);
                found
            }
        }
    }
}

/// Texts that are compared with lower-case values.
pub(super) fn lower(text: &str) -> Text {
    Text::policy(&text.to_ascii_lowercase(), false)
}

/// Texts that are compared as they are.
pub(super) fn exact(text: &str) -> Text {
    Text::policy(text, false)
}

fn of_source(clause: &AuthorizationClause<SourceTest>, action: AuthorizationAction) -> Clause {
    let AuthorizationClause { test, not } = clause;
    let test = match test {
        SourceTest::Principals(texts) => Test::Principal(Values::compile(texts, exact)),
        SourceTest::Namespaces(texts) => Test::Namespace(Values::compile(texts, exact)),
        SourceTest::TrustDomains(texts) => Test::TrustDomain(Values::compile(texts, exact)),
        SourceTest::Addresses(blocks) => Test::Source(Ranges::compile(blocks)),
        SourceTest::Header(name, texts) => Test::Header(Header {
            name: name.as_str().into(),
            values: Values::compile(texts, exact),
            closes: (action == AuthorizationAction::Deny) != *not,
        }),
    };
    Clause { test, not: *not }
}

fn of_operation(clause: &AuthorizationClause<OperationTest>) -> Clause {
    let AuthorizationClause { test, not } = clause;
    let test = match test {
        OperationTest::Hosts(texts) => Test::Host(Values::compile(texts, lower)),
        OperationTest::Methods(texts) => Test::Method(Values::compile(texts, exact)),
        OperationTest::Paths(texts) => Test::Path(Values::compile(texts, Text::path)),
        OperationTest::Ports(ports) => {
            let mut ports = ports.clone();
            ports.sort_unstable();
            Test::Port(ports.into())
        }
        OperationTest::Addresses(blocks) => Test::Destination(Ranges::compile(blocks)),
        OperationTest::ServerNames(texts) => {
            Test::ServerName(Values::Few(texts.iter().map(|text| Text::policy(text, true)).collect()))
        }
    };
    Clause { test, not: *not }
}

impl Clause {
    fn holds(&self, asked: &Asked<'_>) -> bool {
        let Asked { peer, head, source, destination } = asked;
        let matches = match &self.test {
            Test::Principal(values) => values.hold_for(peer.principal),
            Test::Namespace(values) => values.hold_for(peer.namespace),
            Test::TrustDomain(values) => values.hold_for(asked.trust_domain()),
            Test::Source(ranges) => ranges.hold(*source),
            Test::Header(header) => head.is_some_and(|head| header.matches(head)),
            Test::Host(values) => head.is_some_and(|head| {
                values.hold(head.host().as_bytes()) || head.port().is_some() && values.hold(head.authority().as_bytes())
            }),
            Test::Method(values) => values.hold_for(head.map(|head| head.method().as_str())),
            Test::Path(values) => values.hold_for(head.map(Head::path)),
            Test::Port(ports) => ports.binary_search(&asked.port()).is_ok(),
            Test::Destination(ranges) => ranges.hold(*destination),
            Test::ServerName(values) => values.hold_for(peer.server_name),
        };
        matches != self.not
    }
}

impl Rule {
    pub(super) fn compile(rule: &AuthorizationRule, action: AuthorizationAction) -> Self {
        let AuthorizationRule { name, from, to, origin } = rule;
        let source = |clauses: &Vec<_>| clauses.iter().map(|clause| of_source(clause, action)).collect();
        Self {
            name: name.as_str().into(),
            origin: origin.clone(),
            from: from.iter().map(source).collect(),
            to: to.iter().map(|clauses| clauses.iter().map(of_operation).collect()).collect(),
        }
    }

    /// The first part that does not hold; none: it matches.
    pub(super) fn miss(&self, asked: &Asked<'_>) -> Option<Miss<'static>> {
        let one_of = |all: &[Box<[Clause]>]| {
            all.is_empty() || all.iter().any(|clauses| clauses.iter().all(|clause| clause.holds(asked)))
        };
        if !one_of(&self.from) {
            Some(Miss::Caller)
        } else if !one_of(&self.to) {
            Some(Miss::Operation)
        } else {
            None
        }
    }
}
