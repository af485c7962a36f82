//! What is told of headers that routes name and that cannot be written.
//!
//! Never here: what is written (`exchange`). Run by `cargo test`.

use api::{spec::*, table::Table};

use super::spec::{forward, http, route};
use crate::table::headers::unwritten;

/// Sets `x-a` of requests by the rule, and adds `x-b` to replies by its one way.
fn routes(set: &str, add: &str) -> Spec {
    let line = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let mut way = forward("c");
    way.clusters[0].headers.response.add = line("x-b", add);
    let mut rule = route(Action::Forward(Box::new(way)));
    rule.headers.request.set = line("x-a", set);
    http(vec![rule], Vec::new())
}

fn told(table: &Table, before: &Table) -> Vec<String> {
    let all = unwritten(table, before);
    all.iter().map(|found| format!("{} {} {}: {}", found.routes, found.rule, found.header, found.error)).collect()
}

fn check(set: &str, add: &str, want: &[&str]) {
    let (table, _) = Table::compile(&routes(set, add), None);
    assert_eq!(told(&table, &Table::default()), want, "{set} {add}");
}

#[test]
fn what_is_offered_is_not_told() {
    check("plain", "100%%", &[]);
    check("%PROTOCOL%", "at %START_TIME(%s)%", &[]);
}

#[test]
fn what_is_not_offered_is_told_by_rule_and_header() {
    check("%NOPE%", "x", &["r rule x-a: %NOPE% is no operator that is offered"]);
    check("x", "50%", &["r rule x-b: a % stands alone; write %% for one"]);
}

#[test]
fn it_is_told_once() {
    let (first, _) = Table::compile(&routes("%NOPE%", "x"), None);
    let (same, _) = Table::compile(&routes("%NOPE%", "x"), Some(&first));
    assert_eq!(told(&same, &first), Vec::<String>::new());
    let (other, _) = Table::compile(&routes("%NO%", "x"), Some(&same));
    assert_eq!(told(&other, &same), ["r rule x-a: %NO% is no operator that is offered"]);
}
