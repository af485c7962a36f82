//! Tests of `route`: one table and one request a line.
//!
//! Rules are written `PATH [header=value] [?query=value] -> NAME`, separated by `;`: `=/a` exact, `/a` prefix, `/a/` with a
//! leading `|` by segments, `~re` regex, a leading `i` for either case. Never here: authorization. Run by `cargo test -p api`.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName, Method};

use super::*;
use crate::{
    head::{Scheme, Target},
    spec::{
        Forward, HeaderChanges, HeaderMatch, PathNormalization, QueryMatch, Route, RouteMatch, RouteTable, Spec,
        TextMatch, VirtualHost, WeightedCluster,
    },
    table::Table,
};

fn text(raw: &str) -> TextMatch {
    match raw.split_at_checked(1) {
        Some(("~", pattern)) => TextMatch::Regex(pattern.to_owned()),
        _ if raw == "*" => TextMatch::Present,
        _ => match (raw.strip_suffix('*'), raw.strip_prefix('*')) {
            (Some(start), _) => TextMatch::Prefix(start.to_owned()),
            (_, Some(end)) => TextMatch::Suffix(end.to_owned()),
            _ => TextMatch::Exact(raw.to_owned()),
        },
    }
}

fn matches(raw: &str) -> RouteMatch {
    let mut words = raw.split_whitespace();
    let mut path = words.next().unwrap();
    let mut rule = RouteMatch { ignore_case: path.starts_with('i'), ..RouteMatch::default() };
    path = path.strip_prefix('i').unwrap_or(path);
    rule.path = match path.split_at(1) {
        ("=", rest) => PathMatch::Exact(rest.to_owned()),
        ("|", rest) => PathMatch::SegmentPrefix(rest.to_owned()),
        ("~", rest) => PathMatch::Regex(rest.to_owned()),
        _ => PathMatch::Prefix(path.to_owned()),
    };
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        if let Some(name) = name.strip_prefix('?') {
            rule.query.push(QueryMatch { name: name.to_owned(), value: text(value) });
        } else {
            let invert = name.starts_with('!');
            rule.headers.push(HeaderMatch {
                name: name.trim_start_matches('!').to_owned(),
                value: text(value),
                invert,
            });
        }
    }
    rule
}

fn action(path: Option<PathRewrite>) -> Action {
    Action::Forward(Box::new(Forward {
        clusters: vec![WeightedCluster { cluster: "c".to_owned(), weight: 1, headers: HeaderChanges::default() }],
        timeout: None,
        retry: None,
        path,
        authority: None,
        mirrors: Vec::new(),
        retry_buffer_bytes: 0,
    }))
}

fn route(matches: RouteMatch, name: &str, action: Action) -> Route {
    Route {
        name: name.to_owned(),
        matches,
        action,
        headers: HeaderChanges::default(),
        fault: None,
        operation: String::new(),
        origin: None,
    }
}

fn compile(hosts: Vec<(&str, Vec<Route>)>, ignore_port: bool) -> Arc<Routes> {
    let virtual_hosts = hosts
        .into_iter()
        .map(|(domains, routes)| {
            let list = domains.split(' ').map(str::to_owned).collect();
            Arc::new(VirtualHost { name: domains.to_owned(), domains: list, routes })
        })
        .collect();
    let table = RouteTable { name: "t".to_owned(), virtual_hosts, ignore_port, hosts_apart: false };
    let spec = Spec { routes: BTreeMap::from([("t".to_owned(), Arc::new(table))]), ..Spec::default() };
    Arc::clone(Table::compile(&spec, None).0.routes("t").unwrap())
}

fn rules(text: &str) -> Vec<Route> {
    let rule = |rule: &str| {
        let (left, name) = rule.split_once("->").unwrap();
        route(matches(left), name.trim(), action(None))
    };
    text.split(';').map(rule).collect()
}

fn with_head<T>(request: &str, then: impl FnOnce(&Head<'_>) -> T) -> T {
    let mut words = request.split_whitespace();
    let path = words.next().unwrap();
    let mut headers = HeaderMap::new();
    let (mut method, mut authority) = (Method::GET, "a");
    for word in words {
        match word.split_once('=').unwrap() {
            (":method", value) => method = value.parse().unwrap(),
            (":authority", value) => authority = value,
            (name, value) => drop(headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap())),
        }
    }
    let target = Target { scheme: Scheme::Http, authority, path };
    then(&Head::read(&method, target, &headers, PathNormalization::Base).unwrap())
}

fn chosen(routes: &Routes, request: &str) -> Option<String> {
    with_head(request, |head| {
        let silent = select(routes, head, &mut ()).map(|rule| rule.spec().name.clone());
        let mut heard = Vec::new();
        let told = select(routes, head, &mut heard).map(|rule| rule.spec().name.clone());
        assert_eq!(silent, told, "listening changes nothing");
        assert_eq!(heard.last().is_some_and(|(_, miss)| miss.is_none()), told.is_some(), "the last one told matched");
        silent
    })
}

/// Checks a rule list as it is, and again among so many others that the index is used.
fn check(text: &str, request: &str, want: Option<&str>) {
    let few = compile(vec![("*", rules(text))], true);
    assert_eq!(chosen(&few, request).as_deref(), want, "{text}: {request}");
    let other = |index: usize| route(matches(&format!("=/-/{index}")), "other", action(None));
    let many: Vec<Route> = (0..20).map(other).chain(rules(text)).chain((20..40).map(other)).collect();
    assert_eq!(chosen(&compile(vec![("*", many)], true), request).as_deref(), want, "many; {text}: {request}");
}

#[test]
fn earlier_rule_wins() {
    check("/api -> a; / -> b", "/api/x", Some("a"));
    check("/ -> b; /api -> a", "/api/x", Some("b"));
    check("/ -> b; =/api -> a", "/api", Some("b"));
    check("~/a.* -> a; =/api -> b; /ap -> c", "/api", Some("a"));
}

#[test]
fn a_prefix_is_plain_text() {
    check("/api -> a", "/apis", Some("a"));
    check("/api -> a", "/ap", None);
}

#[test]
fn a_segment_prefix_ends_at_a_slash() {
    check("|/api -> a", "/api", Some("a"));
    check("|/api -> a", "/api/x", Some("a"));
    check("|/api -> a", "/apis", None);
    check("|/api/ -> a", "/api", Some("a"));
    check("|/ -> a", "/x", Some("a"));
}

#[test]
fn an_exact_path_is_the_whole_path() {
    check("=/a -> a", "/a", Some("a"));
    check("=/a -> a", "/a?x=1", Some("a"));
    check("=/a -> a", "/a/", None);
}

#[test]
fn a_regex_is_the_whole_path() {
    check("~/v[0-9]+ -> a", "/v12", Some("a"));
    check("~/v[0-9]+ -> a", "/v12/x", None);
    check("~/a|/b -> a", "/b", Some("a"));
    check("~( -> a; / -> b", "/x", Some("b"));
}

#[test]
fn case_counts_unless_told_otherwise() {
    check("=/Login -> a", "/login", None);
    check("i=/Login -> a", "/lOGIN", Some("a"));
    check("i/Login -> a", "/login/x", Some("a"));
    check("i|/Login -> a", "/loginx", None);
}

#[test]
fn dots_do_not_reach_another_rule() {
    check("/admin -> a; / -> b", "/x/../admin", Some("a"));
}

#[test]
fn headers_must_all_hold() {
    check("/ end-user=jason -> a; / -> b", "/ end-user=jason", Some("a"));
    check("/ end-user=jason -> a; / -> b", "/ end-user=jane", Some("b"));
    check("/ x=~v[0-9] y=* -> a", "/ x=v1 y=", Some("a"));
    check("/ x=~v[0-9] y=* -> a", "/ x=v1", None);
    check("/ x=p* -> a", "/ x=path", Some("a"));
    check("/ x=*h -> a", "/ x=path", Some("a"));
    check("/ :method=POST -> a", "/ :method=POST", Some("a"));
    check("/ :authority=b.com -> a", "/ :authority=B.com", Some("a"));
}

#[test]
fn an_inverted_header_holds_where_it_is_missing() {
    check("/ !x=1 -> a", "/", Some("a"));
    check("/ !x=1 -> a", "/ x=1", None);
    check("/ !x=* -> a", "/ x=1", None);
}

#[test]
fn several_lines_of_a_header_are_one_value() {
    check("/ x=a,b -> a", "/ x=a x=b", Some("a"));
    check("/ x=a -> a", "/ x=a x=b", None);
}

#[test]
fn parameters_are_matched_as_they_came() {
    check("/ ?v=1 -> a", "/p?v=1&w", Some("a"));
    check("/ ?v=1 -> a", "/p?w=1", None);
    check("/ ?w=* -> a", "/p?v=1&w", Some("a"));
    check("/ ?v= -> a", "/p?v", Some("a"));
}

#[test]
fn the_host_chooses_before_the_path() {
    let named = |name| vec![route(RouteMatch::default(), name, action(None))];
    let hosts = || vec![("a.com a.com:80", named("a")), ("*.com", named("com")), ("*", named("any"))];
    let (ported, bare) = (compile(hosts(), false), compile(hosts(), true));
    assert_eq!(chosen(&ported, "/ :authority=A.com:80").as_deref(), Some("a"));
    assert_eq!(chosen(&ported, "/ :authority=a.com:81").as_deref(), Some("any"));
    assert_eq!(chosen(&bare, "/ :authority=a.com.:81").as_deref(), Some("a"));
    assert_eq!(chosen(&bare, "/ :authority=b.com").as_deref(), Some("com"));
    assert_eq!(chosen(&compile(vec![("a.com", named("a"))], true), "/ :authority=b.com"), None);
}

#[test]
fn who_listens_hears_why_the_others_lost() {
    let routes = compile(vec![("*", rules("=/a -> a; / x=1 -> b; / ?q=1 -> c; / -> d; / -> e"))], true);
    let mut heard = Vec::new();
    with_head("/b", |head| select(&routes, head, &mut heard).map(Rule::index));
    let misses: Vec<Option<String>> = heard.into_iter().map(|(_, miss)| miss).collect();
    let miss = |text: &str| Some(text.to_owned());
    let want = [
        miss("the path does not match"),
        miss("header x does not match"),
        miss("query parameter q does not match"),
        None,
    ];
    assert_eq!(misses, want);
}

fn rewritten(rule: &str, rewrite: PathRewrite, request: &str) -> String {
    let routes = compile(vec![("*", vec![route(matches(rule), "r", action(Some(rewrite)))])], true);
    with_head(request, |head| path(select(&routes, head, &mut ()).unwrap(), head).into_owned())
}

#[test]
fn a_rewrite_replaces_what_was_matched() {
    let prefix = |text: &str| PathRewrite::Prefix(text.to_owned());
    assert_eq!(rewritten("/api", prefix("/v1"), "/api/x?q"), "/v1/x");
    assert_eq!(rewritten("/api/", prefix("/"), "/api/x"), "/x");
    assert_eq!(rewritten("/api", prefix("/"), "/api/x"), "//x", "as Envoy has it");
    assert_eq!(rewritten("|/api", prefix("/"), "/api/x"), "/x");
    assert_eq!(rewritten("|/api", prefix("/v1"), "/api"), "/v1");
    assert_eq!(rewritten("=/api", prefix("/v1"), "/api"), "/v1");
    assert_eq!(rewritten("~/a.*", prefix("/v1"), "/api"), "/v1");
    assert_eq!(rewritten("/", PathRewrite::Full("/all".to_owned()), "/x/y"), "/all");
    let regex = |pattern: &str, substitution: &str| PathRewrite::Regex {
        pattern: pattern.to_owned(),
        substitution: substitution.to_owned(),
    };
    assert_eq!(
        rewritten("/", regex("^/service/([^/]+)(/.*)$", r"\2/instance/\1"), "/service/foo/v1"),
        "/v1/instance/foo"
    );
    assert_eq!(rewritten("/", regex("one", "two"), "/xxx/one/yyy/one"), "/xxx/two/yyy/two");
    assert_eq!(rewritten("/", regex("nothing", "x"), "/a"), "/a");
}

fn located(rule: &str, redirect: &Redirect, request: &str) -> String {
    let routes = compile(vec![("*", vec![route(matches(rule), "r", Action::Redirect(redirect.clone()))])], true);
    with_head(request, |head| location(select(&routes, head, &mut ()).unwrap(), redirect, head))
}

#[test]
fn a_redirect_keeps_what_it_does_not_change() {
    let some = |text: &str| Some(text.to_owned());
    let to = |redirect: Redirect| located("/a", &redirect, "/a/b?q=1 :authority=x.com:8080");
    assert_eq!(to(Redirect::default()), "http://x.com:8080/a/b?q=1");
    assert_eq!(to(Redirect { scheme: some("https"), ..Redirect::default() }), "https://x.com/a/b?q=1");
    assert_eq!(to(Redirect { authority: some("y.com"), ..Redirect::default() }), "http://y.com/a/b?q=1");
    assert_eq!(to(Redirect { port: Some(81), ..Redirect::default() }), "http://x.com:81/a/b?q=1");
    assert_eq!(to(Redirect { path: some("/n"), ..Redirect::default() }), "http://x.com:8080/n?q=1");
    assert_eq!(to(Redirect { path: some("/n?z"), ..Redirect::default() }), "http://x.com:8080/n?z");
    assert_eq!(to(Redirect { prefix: some("/n"), ..Redirect::default() }), "http://x.com:8080/n/b?q=1");
}

#[test]
fn weights_are_shares() {
    let way = |cluster: &str, weight| WeightedCluster {
        cluster: cluster.to_owned(),
        weight,
        headers: HeaderChanges::default(),
    };
    let Action::Forward(mut forward) = action(None) else { unreachable!() };
    forward.clusters = vec![way("a", 3), way("b", 0), way("c", 1)];
    let routes = compile(vec![("*", vec![route(RouteMatch::default(), "r", Action::Forward(forward))])], true);
    let mut hits = BTreeMap::new();
    with_head("/", |head| {
        let targets = &select(&routes, head, &mut ()).unwrap().forward.as_ref().unwrap().targets;
        for roll in 0..400 {
            *hits.entry(targets.pick(roll).unwrap().name.to_string()).or_insert(0) += 1;
        }
    });
    assert_eq!(hits, BTreeMap::from([("a".to_owned(), 300), ("c".to_owned(), 100)]));
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    fn rule() -> impl Strategy<Value = String> {
        let path = "(=|\\||i|i=)?(/[ab]{1,2}){1,3}|~/[ab](\\.\\*|b\\*|[ab]\\+)|/";
        (path, prop_oneof![3 => Just(""), 1 => Just(" x=1"), 1 => Just(" ?q=1")]).prop_map(|(path, more)| path + more)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// The index answers what trying every rule in order answers.
        #[test]
        fn the_index_changes_no_answer(
            list in proptest::collection::vec(rule(), 1..40),
            path in "(/[ab]{1,2}){1,4}",
            more in prop_oneof![Just(""), Just(" x=1")],
        ) {
            let named: Vec<Route> =
                list.iter().enumerate().map(|(at, rule)| route(matches(rule), &at.to_string(), action(None))).collect();
            let routes = compile(vec![("*", named)], true);
            with_head(&format!("{path}{more}"), |head| {
                let host = routes.host("a", "a").unwrap();
                let plain = host.rules().iter().find(|rule| rule.miss(head).is_none()).map(Rule::index);
                prop_assert_eq!(select(&routes, head, &mut ()).map(Rule::index), plain);
                Ok(())
            })?;
        }

        /// A rule added at the end changes no answer that was there.
        #[test]
        fn a_lower_ranked_rule_never_changes_an_answer(
            list in proptest::collection::vec(rule(), 1..20),
            last in rule(),
            path in "(/[ab]{1,2}){1,4}",
        ) {
            let named = |list: &[String]| list.iter().enumerate()
                .map(|(at, rule)| route(matches(rule), &at.to_string(), action(None))).collect::<Vec<_>>();
            let longer: Vec<String> = list.iter().cloned().chain([last]).collect();
            let (before, after) = (compile(vec![("*", named(&list))], true), compile(vec![("*", named(&longer))], true));
            if let Some(found) = chosen(&before, &path) {
                prop_assert_eq!(chosen(&after, &path), Some(found));
            }
        }
    }
}
