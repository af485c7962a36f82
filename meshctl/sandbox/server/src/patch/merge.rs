//! JSON merge patch (RFC 7386).
//!
//! Never here: lists' keys (see `strategic`). Called by `verb::patch` and `verb::scale`.

use serde_json::{Map, Value};

/// The object with the patch applied; nulls delete.
pub(crate) fn apply(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    merge(&mut new, patch);
    new
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let map = crate::object::object(target);
    for (name, change) in changes {
        if change.is_null() {
            crate::object::take(map, name);
        } else {
            merge(map.entry(name.clone()).or_insert_with(|| Value::Object(Map::new())), change);
        }
    }
}

/// Drops members that are null, at every depth of maps.
pub(crate) fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, inner| !inner.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_deletes_and_lists_are_replaced() {
        let old = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let new = apply(&old, &json!({"a": {"b": null, "d": {"e": 1, "f": null}}, "l": [3]}));
        assert_eq!(new, json!({"a": {"c": 2, "d": {"e": 1}}, "l": [3]}));
    }
}
