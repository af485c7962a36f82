//! Laws of `authz`: whatever the rules and whoever asks, the index finds what the plain reading of the rules finds.
//!
//! The plain reading is written here a second time, from the spec alone, so that both can be wrong only together.
//! Never here: single cases (`tests`). Run by `cargo test -p api`.

use std::fmt::Write as _;

use http::{HeaderMap, Method};
use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    head::{Scheme, Target},
    spec::{AuthorizationClause, AuthorizationRule, PathNormalization},
};

/// A text of few letters, so that texts often hold one another.
fn word() -> impl Strategy<Value = String> {
    "[ab/]{0,4}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    let one = (word(), 0..8u8).prop_map(|(word, shape)| match shape {
        0 => "*".to_owned(),
        1 | 2 => format!("*{word}x"),
        3 | 4 => format!("{word}b*"),
        _ => format!("a{word}"),
    });
    vec(one, 1..12)
}

fn path_texts() -> impl Strategy<Value = Vec<String>> {
    let template = select(vec!["/{*}", "/a/{*}", "/{*}/b", "/{**}", "/a/{**}", "/a/{*}/{**}/b", "/b/{**}/"]);
    let one = prop_oneof![
        template.prop_map(str::to_owned),
        word().prop_map(|word| format!("/{word}")),
        word().prop_map(|word| format!("/{word}*")),
        word().prop_map(|word| format!("*/{word}")),
    ];
    vec(one, 1..12)
}

fn address() -> impl Strategy<Value = IpAddr> {
    let bits = select(vec![0u8, 1, 2, 64, 128, 255]);
    prop_oneof![
        [bits.clone(), bits.clone()].prop_map(|[a, b]| IpAddr::from([10, a, 0, b])),
        [bits.clone(), bits].prop_map(|[a, b]| IpAddr::from([0xfd00, u16::from(a), 0, 0, 0, 0, 0, u16::from(b)])),
    ]
}

fn blocks() -> impl Strategy<Value = Vec<IpNet>> {
    let one = (address(), 0..=128u8).prop_map(|(address, length)| {
        let width = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(width)).unwrap().trunc()
    });
    vec(one, 1..12)
}

fn ports() -> impl Strategy<Value = Vec<u16>> {
    vec(1..6u16, 1..4)
}

fn clauses<T: Clone + std::fmt::Debug>(
    test: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<AuthorizationClause<T>>> {
    vec((test, prop::bool::weighted(0.2)).prop_map(|(test, not)| AuthorizationClause { test, not }), 0..3)
}

fn source() -> impl Strategy<Value = AuthorizationSource> {
    clauses(prop_oneof![
        4 => texts().prop_map(SourceTest::Principals),
        2 => texts().prop_map(SourceTest::Namespaces),
        1 => texts().prop_map(SourceTest::TrustDomains),
        2 => blocks().prop_map(SourceTest::Addresses),
        1 => texts().prop_map(|texts| SourceTest::Header("x".to_owned(), texts)),
    ])
}

fn operation() -> impl Strategy<Value = AuthorizationOperation> {
    clauses(prop_oneof![
        2 => texts().prop_map(OperationTest::Hosts),
        2 => vec(select(vec!["GET", "POST", "P*", "*"]).prop_map(str::to_owned), 1..3).prop_map(OperationTest::Methods),
        4 => path_texts().prop_map(OperationTest::Paths),
        2 => ports().prop_map(OperationTest::Ports),
        1 => blocks().prop_map(OperationTest::Addresses),
        1 => texts().prop_map(OperationTest::ServerNames),
    ])
}

fn layer() -> impl Strategy<Value = Authorization> {
    let action = prop_oneof![Just(AuthorizationAction::Allow), Just(AuthorizationAction::Deny)];
    let rule = (vec(source(), 0..3), vec(operation(), 0..3));
    (action, vec(rule, 0..40)).prop_map(|(action, rules)| {
        let rules = rules.into_iter().enumerate();
        let rule = |(index, (from, to))| AuthorizationRule { name: format!("r{index}"), from, to, origin: None };
        Authorization { action, rules: rules.map(rule).collect() }
    })
}

/// What is asked, owned.
#[derive(Debug, Clone)]
struct Ask {
    principal: Option<String>,
    namespace: Option<String>,
    address: IpAddr,
    destination: SocketAddr,
    server_name: Option<String>,
    method: Method,
    authority: String,
    path: String,
    header: Option<String>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let host = ("[ab]{1,4}", prop::option::of(1..6u16)).prop_map(|(mut host, port)| {
        if let Some(port) = port {
            assert!(write!(host, ":{port}").is_ok());
        }
        host
    });
    let caller = (prop::option::of(word()), prop::option::of(word()), address(), address(), 1..6u16);
    let asked = (select(vec![Method::GET, Method::POST, Method::PUT]), host, word(), prop::option::of("[ab,]{0,4}"));
    (caller, prop::option::of(word()), asked).prop_map(
        |((principal, namespace, address, destination, port), server_name, (method, authority, path, header))| Ask {
            principal,
            namespace,
            address,
            destination: SocketAddr::new(destination, port),
            server_name,
            method,
            authority,
            path: format!("/{path}"),
            header,
        },
    )
}

fn text(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => value.ends_with(end),
        (None, Some(start)) => value.starts_with(start),
        (None, None) => value == pattern,
    }
}

/// Templates, every way of filling in their operators tried.
fn template(pattern: &[u8], value: &[u8]) -> bool {
    let splits = |rest: &[u8], least: usize, most: usize| (least..=most).any(|at| template(rest, &value[at..]));
    if let Some(rest) = pattern.strip_prefix(b"{**}") {
        return splits(rest, 0, value.len());
    }
    if let Some(rest) = pattern.strip_prefix(b"{*}") {
        return splits(rest, 1, value.iter().position(|b| *b == b'/').unwrap_or(value.len()));
    }
    match (pattern, value) {
        ([], []) => true,
        ([want, pattern @ ..], [found, value @ ..]) => want == found && template(pattern, value),
        ([], _) | (_, []) => false,
    }
}

fn path(pattern: &str, value: &str) -> bool {
    if pattern.contains('{') { template(pattern.as_bytes(), value.as_bytes()) } else { text(pattern, value) }
}

fn any(texts: &[String], value: Option<&str>) -> bool {
    value.is_some_and(|value| texts.iter().any(|pattern| text(pattern, value)))
}

fn source_holds(clause: &AuthorizationClause<SourceTest>, ask: &Ask, http: bool, deny: bool) -> bool {
    let found = match &clause.test {
        SourceTest::Principals(texts) => any(texts, ask.principal.as_deref()),
        SourceTest::Namespaces(texts) => any(texts, ask.namespace.as_deref()),
        SourceTest::TrustDomains(texts) => any(texts, ask.principal.as_deref().and_then(|text| text.split('/').next())),
        SourceTest::Addresses(blocks) => blocks.iter().any(|block| block.contains(&ask.address)),
        SourceTest::Header(_, texts) => {
            let parts = ask.header.iter().flat_map(|line| line.split(',')).filter(|_| deny != clause.not);
            http && (any(texts, ask.header.as_deref()) || parts.into_iter().any(|part| any(texts, Some(part))))
        }
    };
    found != clause.not
}

fn operation_holds(clause: &AuthorizationClause<OperationTest>, ask: &Ask, http: bool) -> bool {
    let host = ask.authority.split(':').next();
    let found = match &clause.test {
        OperationTest::Hosts(texts) => http && (any(texts, host) || any(texts, Some(&ask.authority))),
        OperationTest::Methods(texts) => http && any(texts, Some(ask.method.as_str())),
        OperationTest::Paths(texts) => http && texts.iter().any(|pattern| path(pattern, &ask.path)),
        OperationTest::Ports(ports) => ports.contains(&ask.destination.port()),
        OperationTest::Addresses(blocks) => blocks.iter().any(|block| block.contains(&ask.destination.ip())),
        OperationTest::ServerNames(texts) => any(texts, ask.server_name.as_deref()),
    };
    found != clause.not
}

/// The first rule that matches, tried one after the other.
fn plain<'l>(layer: &'l Authorization, ask: &Ask, http: bool) -> Option<&'l str> {
    let deny = layer.action == AuthorizationAction::Deny;
    let hit = layer.rules.iter().find(|rule| {
        let from = |all: &AuthorizationSource| all.iter().all(|clause| source_holds(clause, ask, http, deny));
        let to = |all: &AuthorizationOperation| all.iter().all(|clause| operation_holds(clause, ask, http));
        (rule.from.is_empty() || rule.from.iter().any(from)) && (rule.to.is_empty() || rule.to.iter().any(to))
    });
    hit.map(|rule| rule.name.as_str())
}

fn agrees(layer: &Authorization, ask: &Ask, http: bool) {
    let mut headers = HeaderMap::new();
    if let Some(value) = &ask.header {
        headers.insert("x", value.parse().unwrap());
    }
    let target = Target { scheme: Scheme::Http, authority: &ask.authority, path: &ask.path };
    let head = Head::read(&ask.method, target, &headers, PathNormalization::None).unwrap();
    let asked = Peer {
        principal: ask.principal.as_deref(),
        namespace: ask.namespace.as_deref(),
        address: ask.address,
        destination: ask.destination,
        server_name: ask.server_name.as_deref(),
    };
    let head = http.then_some(&head);
    let found = Layer::compile(layer);
    let hit = found.first(&Asked::new(&asked, head)).map(|(_, rule)| &*rule.name);
    let read = if http { layer.clone() } else { for_tcp(layer) };
    assert_eq!(hit, plain(layer, ask, http));
    let policies = Policies::compile(std::slice::from_ref(layer), if http { Carried::Http } else { Carried::Tcp });
    let allowed = check(&policies, &asked, head, &mut ()) == Verdict::Allowed;
    assert_eq!(allowed, plain(&read, ask, http).is_some() == (layer.action == AuthorizationAction::Allow));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_index_finds_what_the_plain_reading_finds(layer in layer(), asks in vec(ask(), 1..20)) {
        for ask in &asks {
            agrees(&layer, ask, true);
            agrees(&layer, ask, false);
        }
    }
}
