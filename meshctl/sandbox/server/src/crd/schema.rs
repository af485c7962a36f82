//! A CRD's schema, parsed once: what may be where, and its defaults.
//!
//! Prunes what is not described and fills defaults. Never here: checking values (see `validate`, `rules`).
//! Called by `crd`, `verb` and `patch` through `schema::shape`.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::object;

/// One node of a structural schema.
#[derive(Debug, Default)]
pub(crate) struct Structural {
    /// `object`, `array`, `string`, …; empty when not said.
    pub(crate) kind: String,
    pub(crate) properties: IndexMap<String, Structural>,
    additional: Option<Box<Structural>>,
    additional_allowed: bool,
    pub(crate) items: Option<Box<Structural>>,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) list_type: Option<String>,
    pub(crate) list_keys: Vec<String>,
    pub(crate) map_type: Option<String>,
    /// The node as written, for value checks.
    pub(crate) checks: super::validate::Checks,
    pub(crate) rules: Vec<super::rules::Rule>,
}

impl Structural {
    pub(crate) fn parse(raw: &Value) -> Self {
        let flag = |name: &str| raw.get(name).and_then(Value::as_bool) == Some(true);
        let text = |name: &str| raw.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            kind: text("type").unwrap_or_default(),
            properties: object::members(raw, "/properties")
                .into_iter()
                .flatten()
                .map(|(name, inner)| (name.clone(), Self::parse(inner)))
                .collect(),
            additional: raw
                .get("additionalProperties")
                .filter(|inner| inner.is_object())
                .map(|inner| Box::new(Self::parse(inner))),
            additional_allowed: raw.get("additionalProperties").and_then(Value::as_bool) == Some(true),
            items: raw.get("items").filter(|inner| inner.is_object()).map(|inner| Box::new(Self::parse(inner))),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            nullable: flag("nullable"),
            default: raw.get("default").cloned(),
            list_type: text("x-kubernetes-list-type"),
            list_keys: object::items(raw, "/x-kubernetes-list-map-keys")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            map_type: text("x-kubernetes-map-type"),
            checks: super::validate::Checks::parse(raw),
            rules: super::rules::parse(raw),
        }
    }

    /// Whether there is a rule here or below.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.properties.values().any(Self::has_rules)
            || self.additional.as_deref().is_some_and(Self::has_rules)
            || self.items.as_deref().is_some_and(Self::has_rules)
    }

    pub(crate) fn property(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name)
    }

    /// The schema of members that are no properties.
    pub(crate) fn additional(&self) -> Option<&Structural> {
        self.additional.as_deref()
    }

    /// Drops undescribed members of a whole object; their paths are appended to `dropped`.
    pub(crate) fn prune_root(&self, value: &mut Value, dropped: &mut Vec<String>) {
        let Value::Object(map) = value else { return };
        let kept: Vec<(String, Value)> = ["apiVersion", "kind", "metadata"]
            .into_iter()
            .filter_map(|name| object::take(map, name).map(|inner| (name.to_owned(), inner)))
            .collect();
        self.prune(value, &mut Vec::new(), dropped);
        let map = object::object(value);
        let rest = std::mem::take(map);
        map.extend(kept);
        map.extend(rest);
    }

    fn prune(&self, value: &mut Value, path: &mut Vec<String>, dropped: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let old = std::mem::take(map);
                for (name, mut inner) in old {
                    path.push(name.clone());
                    let embedded = self.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                    if let Some(schema) = self.property(&name).or(self.additional()) {
                        schema.prune(&mut inner, path, dropped);
                        map.insert(name, inner);
                    } else if self.preserve || self.additional_allowed || embedded {
                        map.insert(name, inner);
                    } else {
                        dropped.push(path.join("."));
                    }
                    path.pop();
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                let last = path.pop().unwrap_or_default();
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(format!("{last}[{index}]"));
                    schema.prune(item, path, dropped);
                    path.pop();
                }
                path.push(last);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Fills defaults where the parent is there; a null where null is not allowed counts as absent.
    pub(crate) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                self.drop_nulls(map);
                for (name, schema) in &self.properties {
                    if let (Some(default), false) = (&schema.default, map.contains_key(name)) {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, inner) in map.iter_mut() {
                    if let Some(schema) = self.property(name).or(self.additional()) {
                        schema.fill(inner);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.fill(item));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn drop_nulls(&self, map: &mut Map<String, Value>) {
        map.retain(|name, inner| {
            !inner.is_null()
                || self
                    .property(name)
                    .or(self.additional())
                    .is_none_or(|schema| schema.nullable || schema.default.is_none())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prunes_and_fills() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "n": {"type": "integer", "default": 3},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }}));
        let mut value = json!({"kind": "W", "spec": {"n": null, "junk": 1, "free": {"b": 1}, "list": [{"zz": 1}], "map": {"k": "v"}}});
        let mut dropped = Vec::new();
        schema.prune_root(&mut value, &mut dropped);
        schema.fill(&mut value);
        assert_eq!(dropped, ["spec.junk", "spec.list[0].zz"]);
        assert_eq!(
            value,
            json!({"kind": "W", "spec": {"n": 3, "free": {"b": 1}, "list": [{"a": "x"}], "map": {"k": "v"}}})
        );
        let mut absent = json!({"kind": "W"});
        schema.fill(&mut absent);
        assert_eq!(absent, json!({"kind": "W"}));
    }
}
