//! Headers that routes name and that are not written, because their values are no formats that are offered.
//!
//! Told when a virtual host is new, once, and not with each request.
//! Never here: writing headers (`http::headers`). Asked by `control`.

use std::{collections::HashSet, iter, ptr, sync::Arc};

use api::table::{Host, Routes, Rule, Table, Value};
use http::HeaderName;

use crate::access::format::{Format, FormatError};

/// A header that is not written, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwritten {
    pub(crate) routes: String,
    pub(crate) rule: String,
    pub(crate) header: HeaderName,
    pub(crate) error: FormatError,
}

/// The headers that are not written by virtual hosts of a table that the one before it did not have.
pub(crate) fn unwritten(table: &Table, before: &Table) -> Vec<Unwritten> {
    let mut known: HashSet<*const Routes> = all(before).map(Arc::as_ptr).collect();
    let mut found = Vec::new();
    for routes in all(table).filter(|routes| known.insert(Arc::as_ptr(routes))) {
        let name = &routes.spec.name;
        let kept: HashSet<*const Host> =
            before.routes(name).into_iter().flat_map(|old| old.hosts()).map(ptr::from_ref).collect();
        let new = routes.hosts().filter(|host| !kept.contains(&ptr::from_ref(*host)));
        for rule in new.flat_map(Host::rules) {
            found.extend(of_rule(rule).map(|(header, error)| Unwritten {
                routes: name.clone(),
                rule: rule.name().as_str().to_owned(),
                header: header.clone(),
                error,
            }));
        }
    }
    found
}

/// All route tables, those that stand in a chain too.
fn all(table: &Table) -> impl Iterator<Item = &Arc<Routes>> {
    let chains = table.listeners().flat_map(|listener| listener.chains());
    table.all_routes().chain(chains.filter_map(|chain| chain.routes()))
}

fn of_rule(rule: &Rule) -> impl Iterator<Item = (&HeaderName, FormatError)> {
    let targets = rule.forward.iter().flat_map(|forward| forward.targets.iter());
    let changes = iter::once(&rule.changes).chain(targets.map(|target| &target.changes));
    let edits = changes.flat_map(|changes| [&changes.request, &changes.response]);
    edits.flat_map(|edits| edits.set.iter().chain(&edits.add)).filter_map(|(header, value)| match value {
        Value::Text(_) => None,
        Value::Format(text) => Format::text(Some(text)).err().map(|error| (header, error)),
    })
}
