//! Server-side apply: merge what a manager declares, drop what it no longer declares, refuse conflicts.
//!
//! Never here: HTTP. Called by `verb::patch`; `managed` keeps the record.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fields::{self, FieldSet};
use super::managed::{self, Entry};
use crate::kinds::Kind;
use crate::reply::Refusal;
use crate::schema::shape::{ListKind, Shape};
use crate::{clock, object};

/// Refuses fields that the kind does not have.
pub(crate) fn declared(kind: &Kind, config: &Value) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    undeclared(managed::shape(kind), config, &mut String::new(), &mut missing);
    if missing.is_empty() {
        return Ok(());
    }
    let (namespace, name) = (object::namespace(config), object::name(config));
    let of = if namespace.is_empty() { format!("/{name}") } else { format!("{namespace}/{name}") };
    let list = if missing.len() == 1 {
        missing.concat()
    } else {
        let lines: Vec<String> = missing.iter().map(|line| format!("  {line}")).collect();
        format!("errors:\n{}", lines.join("\n"))
    };
    Err(Refusal::new(
        500,
        "",
        format!("failed to create typed patch object ({of}; {}, Kind={}): {list}", kind.api_version(), kind.kind),
    ))
}

fn undeclared(shape: Shape<'_>, value: &Value, path: &mut String, missing: &mut Vec<String>) {
    let depth = path.len();
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                path.push('.');
                path.push_str(name);
                match shape.member(name) {
                    Some(shape) => undeclared(shape, inner, path, missing),
                    None => missing.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(depth);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                undeclared(shape.item(), item, path, missing);
                path.truncate(depth);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Records that an applier has made the object; what the server added besides belongs to nobody.
pub(crate) fn own(kind: &Kind, config: &Value, value: &mut Value, manager: &str, now: Timestamp) {
    let mut set = fields::of(managed::shape(kind), config);
    fields::strip(&mut set);
    managed::write(value, vec![entry(kind, manager, "", set, now)]);
}

fn entry(kind: &Kind, manager: &str, subresource: &str, set: FieldSet, now: Timestamp) -> Entry {
    Entry {
        manager: manager.to_owned(),
        applies: true,
        api_version: kind.api_version(),
        subresource: subresource.to_owned(),
        time: clock::seconds(now),
        set,
    }
}

/// What the object becomes when this manager applies its configuration.
pub(crate) fn apply(
    kind: &Kind,
    old: Option<&Value>,
    config: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let shape = managed::shape(kind);
    let empty = json!({});
    let old = old.unwrap_or(&empty);
    let mut entries = managed::read(old);
    if entries.is_empty() {
        let mut set = fields::of(shape, old);
        fields::strip(&mut set);
        set.below.remove("f:status");
        entries.push(Entry {
            applies: false,
            manager: "before-first-apply".to_owned(),
            ..entry(kind, "", "", set, now)
        });
    }
    let mut config_set = fields::of(shape, config);
    fields::strip(&mut config_set);
    let mut new = old.clone();
    merge(shape, &mut new, config);

    let mine = |entry: &Entry| entry.applies && entry.manager == manager && entry.subresource == subresource;
    let last = entries.iter().find(|entry| mine(entry)).cloned();
    let (mut changed, mut gone) = (FieldSet::default(), FieldSet::default());
    fields::compare(shape, Some(old), Some(&new), &mut changed, &mut gone);
    fields::strip(&mut changed);
    let wanted = changed.intersection(&config_set);
    take(entries.iter_mut().filter(|entry| !mine(entry)), &wanted, force)?;
    if let Some(last) = &last {
        let kept: Vec<&FieldSet> = entries.iter().filter(|entry| !mine(entry)).map(|entry| &entry.set).collect();
        drop_undeclared(shape, &mut new, &last.set, &config_set, &kept);
    }
    let same = last.as_ref().is_some_and(|last| last.set == config_set && last.api_version == kind.api_version());
    entries.retain(|entry| !mine(entry));
    let mut line = entry(kind, manager, subresource, config_set, now);
    if let (true, Some(last)) = (same && new == *old, last) {
        line.time = last.time;
    }
    entries.push(line);
    managed::write(&mut new, entries);
    Ok(new)
}

/// Takes the wanted fields from their managers by force, or says who has them.
fn take<'e>(others: impl Iterator<Item = &'e mut Entry>, wanted: &FieldSet, force: bool) -> Result<(), Refusal> {
    let mut conflicts = Vec::new();
    for entry in others {
        let taken = entry.set.intersection(wanted);
        if taken.is_empty() {
            continue;
        }
        if force {
            entry.set.subtract(&taken);
        } else {
            let mut paths: Vec<String> = taken.paths().iter().map(|path| shown(path)).collect();
            paths.sort();
            conflicts.push((entry.shown(), paths));
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflict(&conflicts)) }
}

/// Removes what the manager declared last time, declares no more, and nobody else has.
fn drop_undeclared(shape: Shape<'_>, new: &mut Value, last: &FieldSet, now: &FieldSet, others: &[&FieldSet]) {
    let mut dropped = last.clone();
    dropped.subtract(now);
    for path in dropped.paths() {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        let has = |set: &FieldSet| set.get(&steps).is_some_and(|set| !set.is_empty());
        if !has(now) && !others.iter().any(|set| has(set)) {
            remove(shape, new, &steps);
        }
    }
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> Refusal {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let causes: Vec<Value> = conflicts
        .iter()
        .flat_map(|(manager, paths)| {
            paths.iter().map(move |path| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path})
            })
        })
        .collect();
    let message = if let (1, Some((manager, paths))) = (count, conflicts.first()) {
        format!("Apply failed with 1 conflict: conflict with {manager}: {}", paths.concat())
    } else {
        let parts: Vec<String> = conflicts
            .iter()
            .map(|(manager, paths)| {
                let lines: Vec<String> = paths.iter().map(|path| format!("- {path}")).collect();
                format!("conflicts with {manager}:\n{}", lines.join("\n"))
            })
            .collect();
        format!("Apply failed with {count} conflicts: {}", parts.join("\n"))
    };
    let mut refusal = Refusal::new(409, "Conflict", message);
    refusal.details = Some(Box::new(json!({"causes": causes})));
    refusal
}

/// A path as people read it: `.spec.ports[port=80].name`.
fn shown(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("v", value)) => format!("[={value}]"),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let parts: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", parts.join(","))
            }
            _ => step.clone(),
        })
        .collect()
}

fn merge(shape: Shape<'_>, old: &mut Value, config: &Value) {
    match config {
        Value::Object(wanted) if !shape.atomic_map() => {
            if !old.is_object() {
                *old = json!({});
            }
            let map = object::object(old);
            for (name, inner) in wanted {
                if inner.is_null() {
                    object::take(map, name);
                    continue;
                }
                let Some(shape) = shape.member(name) else { continue };
                merge(shape, map.entry(name.clone()).or_insert(Value::Null), inner);
            }
        }
        Value::Array(wanted) => {
            let present = old.as_array().cloned().unwrap_or_default();
            *old = Value::Array(merge_list(shape, present, wanted));
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *old = config.clone(),
    }
}

fn merge_list(shape: Shape<'_>, mut present: Vec<Value>, wanted: &[Value]) -> Vec<Value> {
    match shape.list() {
        ListKind::Atomic => wanted.to_vec(),
        ListKind::Set => {
            for item in wanted {
                if !present.contains(item) {
                    present.push(item.clone());
                }
            }
            present
        }
        ListKind::Map(keys) => {
            for item in wanted {
                let step = fields::key_step(shape.item(), &keys, item);
                match present.iter_mut().find(|other| fields::key_step(shape.item(), &keys, other) == step) {
                    Some(other) => merge(shape.item(), other, item),
                    None => {
                        let mut new = json!({});
                        merge(shape.item(), &mut new, item);
                        present.push(new);
                    }
                }
            }
            present
        }
    }
}

fn remove(shape: Shape<'_>, value: &mut Value, path: &[&str]) {
    let [first, rest @ ..] = path else { return };
    match (first.split_once(':'), value) {
        (Some(("f", name)), Value::Object(map)) => {
            if rest.is_empty() {
                object::take(map, name);
            } else if let (Some(shape), Some(inner)) = (shape.member(name), map.get_mut(name)) {
                remove(shape, inner, rest);
            }
        }
        (Some(("v", _)), Value::Array(items)) => items.retain(|item| fields::value_step(item) != *first),
        (Some(("k", _)), Value::Array(items)) => {
            let ListKind::Map(keys) = shape.list() else { return };
            let is = |item: &Value| fields::key_step(shape.item(), &keys, item).as_deref() == Some(*first);
            if rest.is_empty() {
                items.retain(|item| !is(item));
            } else if let Some(item) = items.iter_mut().find(|item| is(item)) {
                remove(shape.item(), item, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::built_in;

    fn run(old: &Value, config: &Value, manager: &str, force: bool) -> Result<Value, Refusal> {
        let kind = built_in().iter().find(|kind| kind.is("", "configmaps")).unwrap();
        apply(kind, Some(old), config, manager, "", force, Timestamp::UNIX_EPOCH)
    }

    fn config(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
    }

    #[test]
    fn owners_conflict_unless_forced_and_dropped_fields_go() {
        let kind = built_in().iter().find(|kind| kind.is("", "configmaps")).unwrap();
        let mut first = config(&json!({"x": "1", "y": "1"}));
        own(kind, &config(&json!({"x": "1", "y": "1"})), &mut first, "m1", Timestamp::UNIX_EPOCH);
        let refusal = run(&first, &config(&json!({"x": "2"})), "m2", false).unwrap_err();
        assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"m1\": .data.x");
        let forced = run(&first, &config(&json!({"x": "2"})), "m2", true).unwrap();
        assert_eq!(forced["data"], json!({"x": "2", "y": "1"}));
        // m1 no longer declares y, and m2 owns x: only y goes.
        let later = run(&forced, &config(&json!({})), "m1", false).unwrap();
        assert_eq!(later["data"], json!({"x": "2"}));
    }

    #[test]
    fn what_was_there_before_belongs_to_someone() {
        let old = config(&json!({"x": "1"}));
        let refusal = run(&old, &config(&json!({"x": "2"})), "m", false).unwrap_err();
        assert_eq!(
            refusal.message,
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
        );
        assert!(run(&old, &config(&json!({"x": "1"})), "m", false).is_ok());
    }

    #[test]
    fn undeclared_fields_are_named() {
        let kind = built_in().iter().find(|kind| kind.is("", "services")).unwrap();
        let config = json!({"kind": "Service", "metadata": {"name": "n", "namespace": "ns"}, "spec": {"zork": 1}});
        assert_eq!(
            declared(kind, &config).unwrap_err().message,
            "failed to create typed patch object (ns/n; v1, Kind=Service): .spec.zork: field not declared in schema"
        );
    }
}
