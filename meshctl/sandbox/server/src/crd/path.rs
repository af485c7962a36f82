//! JSON paths of printer columns: `.spec.hosts`, `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Never here: JSONPath beyond what CRDs use. Called by `table`.

use serde_json::Value;

/// The values that a path leads to.
pub(crate) fn find<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    let mut rest = path.trim().trim_start_matches('$');
    while !rest.is_empty() {
        let next: Vec<&Value>;
        if let Some(tail) = rest.strip_prefix('[') {
            let Some(end) = tail.find(']') else { return Vec::new() };
            let inner = &tail[..end];
            rest = &tail[end + 1..];
            next = found.into_iter().flat_map(|value| bracket(value, inner)).collect();
        } else {
            let tail = rest.strip_prefix('.').unwrap_or(rest);
            let mut name = String::new();
            let mut end = tail.len();
            let mut characters = tail.char_indices();
            while let Some((at, c)) = characters.next() {
                match c {
                    '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    _ => name.push(c),
                }
            }
            rest = &tail[end..];
            if name.is_empty() {
                if rest.is_empty() { break } else { continue }
            }
            next = found.into_iter().flat_map(|value| member(value, &name)).collect();
        }
        found = next;
    }
    found
}

fn member<'v>(value: &'v Value, name: &str) -> Vec<&'v Value> {
    match (value, name) {
        (Value::Object(map), "*") => map.values().collect(),
        (Value::Array(items), "*") => items.iter().collect(),
        (Value::Object(map), _) => map.get(name).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn bracket<'v>(value: &'v Value, inner: &str) -> Vec<&'v Value> {
    let inner = inner.trim();
    if inner == "*" {
        return member(value, "*");
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let Some((left, right)) = filter.split_once("==") else { return Vec::new() };
        let field = left.trim().trim_start_matches('@');
        let wanted = right.trim().trim_matches(['"', '\'']);
        let Value::Array(items) = value else { return Vec::new() };
        return items
            .iter()
            .filter(|item| {
                find(item, field).first().is_some_and(|found| match found {
                    Value::String(text) => text == wanted,
                    Value::Bool(_) | Value::Number(_) => wanted == format!("{found}"),
                    Value::Null | Value::Array(_) | Value::Object(_) => false,
                })
            })
            .collect();
    }
    if let Ok(index) = inner.parse::<usize>() {
        return value.get(index).into_iter().collect();
    }
    member(value, inner.trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let value = json!({"spec": {"hosts": ["a"]}, "status": {"conditions": [{"type": "X", "status": "1"}, {"type": "Ready", "status": "True"}]},
            "metadata": {"labels": {"istio.io/rev": "r"}}});
        assert_eq!(find(&value, ".spec.hosts"), [&json!(["a"])]);
        assert_eq!(find(&value, ".spec.hosts[0]"), [&json!("a")]);
        assert_eq!(find(&value, ".status.conditions[?(@.type==\"Ready\")].status"), [&json!("True")]);
        assert_eq!(find(&value, ".metadata.labels.istio\\.io/rev"), [&json!("r")]);
        assert!(find(&value, ".spec.none").is_empty());
    }
}
