//! Sets of fields, in the form of `FieldsV1`, and how to find them in objects.
//!
//! Never here: managers. Called by `managed` and `apply`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::FieldKind;
use crate::schema::shape::{ListKind, Shape};

/// A set of paths, as a tree. Steps are those of `FieldsV1`: `f:NAME`, `k:{KEYS}`, `v:VALUE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// The path that ends here is in the set.
    pub(crate) here: bool,
    pub(crate) below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(crate) fn leaf() -> Self {
        Self { here: true, below: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.values().all(Self::is_empty)
    }

    /// Reads `FieldsV1`.
    pub(crate) fn parse(value: &Value) -> Self {
        let Value::Object(map) = value else { return Self::leaf() };
        let mut set = Self { here: map.is_empty() || map.contains_key("."), below: BTreeMap::new() };
        for (step, inner) in map.iter().filter(|(step, _)| *step != ".") {
            set.below.insert(step.clone(), Self::parse(inner));
        }
        set
    }

    /// Reads the top of `FieldsV1`: an empty object there is the empty set.
    pub(crate) fn parse_root(value: &Value) -> Self {
        let mut set = Self::parse(value);
        set.here = false;
        set
    }

    /// Writes `FieldsV1`.
    pub(crate) fn write(&self) -> Value {
        let mut map = Map::new();
        let below: Vec<(&String, &FieldSet)> = self.below.iter().filter(|(_, set)| !set.is_empty()).collect();
        if self.here && !below.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, set) in below {
            map.insert(step.clone(), set.write());
        }
        Value::Object(map)
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.here |= other.here;
        for (step, set) in &other.below {
            self.below.entry(step.clone()).or_default().union(set);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.here {
            self.here = false;
        }
        for (step, set) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(set);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let below = self
            .below
            .iter()
            .filter_map(|(step, set)| {
                let both = set.intersection(other.below.get(step)?);
                (!both.is_empty()).then(|| (step.clone(), both))
            })
            .collect();
        Self { here: self.here && other.here, below }
    }

    pub(crate) fn get(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |set, step| set.below.get(*step))
    }

    pub(crate) fn remove(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.below.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(inner) = self.below.get_mut(*first) {
                    inner.remove(rest);
                    if inner.is_empty() {
                        self.below.remove(*first);
                    }
                }
            }
        }
    }

    /// Every path in the set, deepest first.
    pub(crate) fn paths(&self) -> Vec<Vec<String>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
        for (step, set) in &self.below {
            path.push(step.clone());
            set.collect(path, out);
            path.pop();
        }
        if self.here {
            out.push(path.clone());
        }
    }
}

/// What must never be managed: identity and what only the server writes.
pub(crate) fn strip(set: &mut FieldSet) {
    for path in [
        &["f:apiVersion"][..],
        &["f:kind"],
        &["f:metadata", "f:name"],
        &["f:metadata", "f:namespace"],
        &["f:metadata", "f:creationTimestamp"],
        &["f:metadata", "f:selfLink"],
        &["f:metadata", "f:uid"],
        &["f:metadata", "f:clusterName"],
        &["f:metadata", "f:generation"],
        &["f:metadata", "f:managedFields"],
        &["f:metadata", "f:resourceVersion"],
        &["f:metadata", "f:deletionTimestamp"],
        &["f:metadata", "f:deletionGracePeriodSeconds"],
    ] {
        set.remove(path);
    }
    if let Some(metadata) = set.below.get_mut("f:metadata") {
        metadata.here = false;
    }
    if set.below.get("f:metadata").is_some_and(FieldSet::is_empty) {
        set.below.remove("f:metadata");
    }
}

/// The step to a list's item, by the list's keys; `None` when a key is missing.
pub(crate) fn key_step(shape: Shape<'_>, keys: &[&str], item: &Value) -> Option<String> {
    let mut map = Map::new();
    let mut sorted: Vec<&str> = keys.to_vec();
    sorted.sort_unstable();
    for key in sorted {
        let value = item.get(key).cloned().or_else(|| shape.key_default(key));
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    }
    (!map.is_empty()).then(|| format!("k:{}", Value::Object(map)))
}

pub(crate) fn value_step(item: &Value) -> String {
    format!("v:{item}")
}

/// All fields of a value, as an applier owns them.
pub(crate) fn of(shape: Shape<'_>, value: &Value) -> FieldSet {
    match value {
        Value::Object(map) if !map.is_empty() && !shape.atomic_map() => {
            let mut set = FieldSet::default();
            for (name, inner) in map {
                let Some(shape) = shape.member(name) else { continue };
                set.below.insert(format!("f:{name}"), of(shape, inner));
            }
            set
        }
        Value::Array(items) => list(shape, items, of),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => FieldSet::leaf(),
    }
}

fn list(shape: Shape<'_>, items: &[Value], of: impl Fn(Shape<'_>, &Value) -> FieldSet) -> FieldSet {
    match shape.list() {
        ListKind::Atomic => FieldSet::leaf(),
        ListKind::Set => FieldSet {
            here: items.is_empty(),
            below: items.iter().map(|item| (value_step(item), FieldSet::leaf())).collect(),
        },
        ListKind::Map(keys) => {
            let mut set = FieldSet { here: items.is_empty(), below: BTreeMap::new() };
            for item in items {
                if let Some(step) = key_step(shape.item(), &keys, item) {
                    let mut inner = of(shape.item(), item);
                    inner.here = true;
                    set.below.insert(step, inner);
                }
            }
            set
        }
    }
}

/// Whether a field that holds a map or list exists of itself, so that setting it first is a change of its own.
fn counts(shape: Shape<'_>) -> bool {
    match shape {
        Shape::Object(_) | Shape::CustomRoot(_) => false,
        Shape::Field(field, FieldKind::List(_) | FieldKind::Map(_)) => !field.required,
        Shape::Field(..) | Shape::Custom(_) | Shape::Free => true,
    }
}

/// Adds what is new or different to `changed` and what is gone to `gone`.
pub(crate) fn compare(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    changed: &mut FieldSet,
    gone: &mut FieldSet,
) {
    match (old, new) {
        (None, None) => {}
        (Some(old), None) => *gone = all(shape, old),
        (None, Some(new)) => *changed = all(shape, new),
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) if !shape.atomic_map() => {
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                let Some(shape) = shape.member(name) else { continue };
                below(shape, old.get(name), new.get(name), format!("f:{name}"), changed, gone);
            }
        }
        (Some(Value::Array(old_items)), Some(Value::Array(new_items))) => match shape.list() {
            ListKind::Atomic => changed.here = true,
            ListKind::Set => {
                for item in new_items.iter().filter(|item| !old_items.contains(item)) {
                    changed.below.insert(value_step(item), FieldSet::leaf());
                }
                for item in old_items.iter().filter(|item| !new_items.contains(item)) {
                    gone.below.insert(value_step(item), FieldSet::leaf());
                }
            }
            ListKind::Map(keys) => {
                let index = |items: &[Value]| -> BTreeMap<String, Value> {
                    items.iter().filter_map(|item| Some((key_step(shape.item(), &keys, item)?, item.clone()))).collect()
                };
                let (old, new) = (index(old_items), index(new_items));
                for step in old.keys().chain(new.keys().filter(|step| !old.contains_key(*step))) {
                    below(shape.item(), old.get(step), new.get(step), step.clone(), changed, gone);
                }
            }
        },
        (Some(_), Some(_)) => changed.here = true,
    }
}

fn below(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    step: String,
    changed: &mut FieldSet,
    gone: &mut FieldSet,
) {
    let (mut more, mut less) = (FieldSet::default(), FieldSet::default());
    compare(shape, old, new, &mut more, &mut less);
    if step.starts_with("k:") && (old.is_none() || new.is_none()) {
        more.here |= old.is_none();
        less.here |= new.is_none();
    }
    if !more.is_empty() {
        changed.below.insert(step.clone(), more);
    }
    if !less.is_empty() {
        gone.below.insert(step, less);
    }
}

/// All fields of a value that has come or gone whole, maps and lists themselves included.
fn all(shape: Shape<'_>, value: &Value) -> FieldSet {
    let mut set = match value {
        Value::Object(map) if !map.is_empty() && !shape.atomic_map() => {
            let mut set = FieldSet::default();
            for (name, inner) in map {
                let Some(shape) = shape.member(name) else { continue };
                set.below.insert(format!("f:{name}"), all(shape, inner));
            }
            set
        }
        Value::Array(items) => list(shape, items, all),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return FieldSet::leaf();
        }
    };
    set.here |= counts(shape);
    set
}
