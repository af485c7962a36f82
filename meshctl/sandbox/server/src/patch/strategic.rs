//! Strategic merge patch: merge patch that knows the keys of lists.
//!
//! Never here: which keys (see `schema`). Called by `verb::patch` for built-in kinds.

use serde_json::{Map, Value};

use crate::object;
use crate::reply::Refusal;
use crate::schema::{Field, FieldKind, Type};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

pub(crate) fn apply(root: &'static Type, old: &Value, patch: &Value) -> Result<Value, Refusal> {
    let (Value::Object(old), Value::Object(patch)) = (old, patch) else {
        return Err(Refusal::bad_request("error decoding patch: the patch is no object"));
    };
    merge_map(Some(root), old.clone(), patch).map(Value::Object)
}

fn directive(patch: &Map<String, Value>) -> Option<&str> {
    patch.get(PATCH).and_then(Value::as_str)
}

fn merge_map(
    kind: Option<&'static Type>,
    mut old: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, Refusal> {
    match directive(patch) {
        Some("replace") => {
            let mut whole = patch.clone();
            object::take(&mut whole, PATCH);
            return Ok(whole);
        }
        Some("delete") => return Ok(Map::new()),
        None | Some("merge") => {}
        Some(other) => return Err(Refusal::bad_request(format!("unknown patch type found: {other}"))),
    }
    if let Some(Value::Array(kept)) = patch.get(RETAIN) {
        old.retain(|name, _| kept.iter().any(|wanted| wanted.as_str() == Some(name)));
    }
    for (name, change) in patch {
        if let Some(field) = name.strip_prefix(DELETE) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (old.get_mut(field), change) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if let Some(list) = name.strip_prefix(ORDER) {
            // With a patch of the same list, the order is applied there.
            if !patch.contains_key(list)
                && let (Some(field), Some(Value::Array(items)), Value::Array(order)) =
                    (kind.and_then(|kind| kind.field(list)), old.get_mut(list), change)
            {
                *items = ordered(field, items, items, order);
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        if change.is_null() {
            object::take(&mut old, name);
            continue;
        }
        let field = kind.and_then(|kind| kind.field(name));
        let order = patch.get(&format!("{ORDER}{name}")).and_then(Value::as_array);
        let new = match (old.get(name), change) {
            (before, Value::Object(change)) => {
                let before = before.and_then(Value::as_object).cloned().unwrap_or_default();
                Value::Object(merge_map(field.and_then(|field| field.kind.named()), before, change)?)
            }
            (before, Value::Array(change)) => {
                let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
                Value::Array(merge_list(field, &before, change, order)?)
            }
            (_, other) => other.clone(),
        };
        old.insert(name.clone(), new);
    }
    Ok(old)
}

fn merge_list(
    field: Option<&Field>,
    before: &[Value],
    change: &[Value],
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, Refusal> {
    let Some((field, key)) = field.and_then(|field| Some((field, field.merge?))) else { return Ok(change.to_vec()) };
    if key.is_empty() {
        let mut items = before.to_vec();
        for item in change {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        return Ok(order.map_or_else(|| items.clone(), |order| ordered(field, before, &items, order)));
    }
    let inner = field.kind.item().and_then(FieldKind::named);
    let replace = change.iter().any(|item| item.as_object().and_then(directive) == Some("replace"));
    if replace {
        return Ok(change
            .iter()
            .filter(|item| item.as_object().is_none_or(|item| !item.contains_key(PATCH)))
            .cloned()
            .collect());
    }
    let mut items = before.to_vec();
    for item in change {
        let Value::Object(change) = item else {
            return Err(Refusal::bad_request(format!("invalid patch: a list of maps has an item {item}")));
        };
        let Some(wanted) = change.get(key) else {
            let shown = Value::Object(change.clone());
            return Err(Refusal::bad_request(format!("map: {shown} does not contain declared merge key: {key}")));
        };
        let at = items.iter().position(|item| item.get(key) == Some(wanted));
        match (directive(change), at) {
            (Some("delete"), _) => items.retain(|item| item.get(key) != Some(wanted)),
            (_, Some(at)) => {
                let before = items[at].as_object().cloned().unwrap_or_default();
                items[at] = Value::Object(merge_map(inner, before, change)?);
            }
            (_, None) => items.push(Value::Object(merge_map(inner, Map::new(), change)?)),
        }
    }
    Ok(order.map_or_else(|| items.clone(), |order| ordered(field, before, &items, order)))
}

/// Items of the order as it says; those it does not name stay where the server's order has them among those.
fn ordered(field: &Field, server: &[Value], items: &[Value], order: &[Value]) -> Vec<Value> {
    let key = field.merge.unwrap_or_default();
    let same = |a: &Value, b: &Value| if key.is_empty() { a == b } else { a.get(key) == b.get(key) };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let mut named: Vec<&Value> = items.iter().filter(|item| place(order, item).is_some()).collect();
    named.sort_by_key(|item| place(order, item));
    let mut named = named.into_iter().peekable();
    let mut others = items.iter().filter(|item| place(order, item).is_none()).peekable();
    let mut out = Vec::with_capacity(items.len());
    loop {
        let next = match (others.peek(), named.peek()) {
            (None, None) => return out,
            (Some(_), None) => others.next(),
            (None, Some(_)) => named.next(),
            (Some(other), Some(name)) => match (place(server, other), place(server, name)) {
                (Some(a), Some(b)) if a < b => others.next(),
                _ => named.next(),
            },
        };
        out.extend(next.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;
    use serde_json::json;

    #[track_caller]
    fn check(old: Value, patch: Value, want: Value) {
        let wrap = |spec: Value| json!({"spec": spec});
        let got = apply(schema::find("core/v1.Pod").unwrap(), &wrap(old), &wrap(patch)).unwrap();
        assert_eq!(got, wrap(want));
    }

    #[test]
    fn lists_merge_by_key() {
        check(
            json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "args": ["2"]}, {"name": "c"}]}),
            json!({"containers": [{"name": "a", "image": "x", "args": ["2"]}, {"name": "b"}, {"name": "c"}]}),
        );
    }

    #[test]
    fn directives() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "b", "$patch": "delete"}]}),
            json!({"containers": [{"name": "a"}]}),
        );
        check(
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"containers": [{"name": "z"}]}),
        );
        check(
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}),
            json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
        );
        check(
            json!({"containers": [{"name": "s"}, {"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "s"}, {"name": "b"}, {"name": "a"}]}),
        );
        check(json!({"nodeName": "n", "hostNetwork": true}), json!({"nodeName": null}), json!({"hostNetwork": true}));
        check(
            json!({"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a"}]}),
            json!({"nodeSelector": {"$patch": "replace", "c": "d"}, "tolerations": [{"key": "b"}]}),
            json!({"nodeSelector": {"c": "d"}, "tolerations": [{"key": "b"}]}),
        );
    }

    #[test]
    fn primitive_lists() {
        let pod = schema::find("core/v1.Pod").unwrap();
        let old = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(apply(pod, &old, &patch).unwrap(), json!({"metadata": {"finalizers": ["b", "c"]}}));
    }
}
