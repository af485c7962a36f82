//! Checks a custom resource against its schema, with the real server's texts.
//!
//! Never here: CEL (see `rules`), pruning, defaults. Called by `crd::check` before CEL.

use regex::Regex;
use serde_json::{Number, Value};

use super::schema::Structural;
use crate::object;
use crate::reply::Cause;

/// What a schema node demands of a value.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    allowed: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    pattern: Option<(String, Regex)>,
    format: String,
    min_items: Option<u64>,
    max_items: Option<u64>,
    unique: bool,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    required: Vec<String>,
    all_of: Vec<Structural>,
    any_of: Vec<Structural>,
    one_of: Vec<Structural>,
    not: Option<Box<Structural>>,
}

impl Checks {
    pub(crate) fn parse(raw: &Value) -> Self {
        let number = |name: &str| raw.get(name).and_then(Value::as_f64);
        let count = |name: &str| raw.get(name).and_then(Value::as_u64);
        let flag = |name: &str| raw.get(name).and_then(Value::as_bool) == Some(true);
        let schemas = |name: &str| -> Vec<Structural> {
            raw.get(name).and_then(Value::as_array).into_iter().flatten().map(Structural::parse).collect()
        };
        let pattern = raw.get("pattern").and_then(Value::as_str);
        Self {
            allowed: raw.get("enum").and_then(Value::as_array).cloned(),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            // A CRD whose pattern is no regular expression is refused when it is written.
            pattern: pattern.and_then(|text| Some((text.to_owned(), Regex::new(text).ok()?))),
            format: raw.get("format").and_then(Value::as_str).unwrap_or_default().to_owned(),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique: flag("uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            required: object::items(raw, "/required").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: raw.get("not").map(|inner| Box::new(Structural::parse(inner))),
        }
    }
}

/// Appends what is wrong with the value.
pub(crate) fn check(schema: &Structural, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !right_type(schema, value) {
        let wanted = if schema.kind.is_empty() { "integer,string" } else { &schema.kind };
        let found = type_name(value);
        causes.push(Cause::wrong_type(
            path,
            &Value::from(found),
            format!("{path} in body must be of type {wanted}: \"{found}\""),
        ));
        return;
    }
    let checks = &schema.checks;
    if let Some(allowed) = &checks.allowed
        && !allowed.contains(value)
    {
        let list: Vec<String> =
            allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        causes.push(Cause::unsupported(path, value, &list.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    match value {
        Value::Number(number) => numbers(checks, number, value, path, causes),
        Value::String(text) => texts(checks, text, value, path, causes),
        Value::Array(items) => lists(schema, items, path, causes),
        Value::Object(map) => {
            for name in &checks.required {
                if !map.contains_key(name) {
                    causes.push(Cause::required(join(path, name), ""));
                }
            }
            let count = map.len() as u64;
            if let Some(max) = checks.max_properties.filter(|max| count > *max) {
                causes.push(Cause::too_many(path, map.len(), usize::try_from(max).unwrap_or(usize::MAX)));
            }
            if let Some(min) = checks.min_properties.filter(|min| count < *min) {
                let detail = format!("{path} in body should have at least {min} properties");
                causes.push(Cause::invalid(path, &Value::from(count), detail));
            }
            for (name, inner) in map {
                if let Some(next) = schema.property(name).or(schema.additional()) {
                    check(next, inner, &join(path, name), causes);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    combined(checks, value, path, causes);
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn right_type(schema: &Structural, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.kind.as_str() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => whole(value),
        "number" => value.is_number(),
        _ => true,
    }
}

fn whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn numbers(checks: &Checks, number: &Number, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(found) = number.as_f64() else { return };
    let mut complain =
        |text: String| causes.push(Cause::invalid(path, value, format!("{path} in body should be {text}")));
    if let Some(max) = checks.maximum {
        if checks.exclusive_maximum && found >= max {
            complain(format!("less than {max}"));
        } else if found > max {
            complain(format!("less than or equal to {max}"));
        }
    }
    if let Some(min) = checks.minimum {
        if checks.exclusive_minimum && found <= min {
            complain(format!("greater than {min}"));
        } else if found < min {
            complain(format!("greater than or equal to {min}"));
        }
    }
    if let Some(of) = checks.multiple_of
        && of != 0.0
        && (found / of).fract() != 0.0
    {
        complain(format!("a multiple of {of}"));
    }
}

fn texts(checks: &Checks, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        causes.push(Cause::too_long(path, usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = checks.min_length.filter(|min| length < *min) {
        causes.push(Cause::invalid(path, value, format!("{path} in body should be at least {min} chars long")));
    }
    if let Some((shown, regex)) = &checks.pattern
        && !regex.is_match(text)
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should match '{shown}'")));
    }
    if !right_format(&checks.format, text) {
        let detail = format!("{path} in body must be of type {}: {value}", checks.format);
        causes.push(Cause::invalid(path, value, detail));
    }
}

fn right_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "uri" => text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some()) || text.starts_with('/'),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "duration" => super::rules::duration(text).is_some(),
        _ => true,
    }
}

fn lists(schema: &Structural, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let checks = &schema.checks;
    let count = items.len() as u64;
    if let Some(max) = checks.max_items.filter(|max| count > *max) {
        causes.push(Cause::too_many(path, items.len(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = checks.min_items.filter(|min| count < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        causes.push(Cause::invalid(path, &Value::from(count), detail));
    }
    if checks.unique || schema.list_type.as_deref() == Some("set") {
        for (index, item) in items.iter().enumerate() {
            if items[..index].contains(item) {
                causes.push(Cause::duplicate(format!("{path}[{index}]"), item));
            }
        }
    }
    if schema.list_type.as_deref() == Some("map") {
        let key = |item: &Value| -> Vec<Value> {
            schema.list_keys.iter().map(|name| item.get(name).cloned().unwrap_or_default()).collect()
        };
        for (index, item) in items.iter().enumerate() {
            if items[..index].iter().any(|earlier| key(earlier) == key(item)) {
                let shown: serde_json::Map<String, Value> =
                    schema.list_keys.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect();
                causes.push(Cause::duplicate(format!("{path}[{index}]"), &Value::Object(shown)));
            }
        }
    }
    if let Some(inner) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            check(inner, item, &format!("{path}[{index}]"), causes);
        }
    }
}

fn fits(schema: &Structural, value: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(schema, value, path, &mut causes);
    causes
}

fn combined(checks: &Checks, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let empty = Value::from("");
    let mut complain = |text: String| causes.push(Cause::invalid("", &empty, format!("\"{path}\" must {text}")));
    if !checks.any_of.is_empty() && !checks.any_of.iter().any(|schema| fits(schema, value, path).is_empty()) {
        complain("validate at least one schema (anyOf)".to_owned());
    }
    if !checks.one_of.is_empty() {
        match checks.one_of.iter().filter(|schema| fits(schema, value, path).is_empty()).count() {
            1 => {}
            0 => complain("validate one and only one schema (oneOf). Found none valid".to_owned()),
            n => complain(format!("validate one and only one schema (oneOf). Found {n} valid alternatives")),
        }
    }
    if let Some(not) = &checks.not
        && fits(not, value, path).is_empty()
    {
        complain("not validate the schema (not)".to_owned());
    }
    let failed: Vec<Cause> = checks.all_of.iter().flat_map(|schema| fits(schema, value, path)).collect();
    if !failed.is_empty() {
        complain("validate all the schemas (allOf)".to_owned());
        causes.extend(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn texts(schema: &Value, value: &Value, want: &[&str]) {
        let schema = Structural::parse(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"f": schema}}}}),
        );
        let mut causes = Vec::new();
        check(&schema, &json!({"spec": {"f": value}}), "", &mut causes);
        let got: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_real_texts() {
        texts(
            &json!({"type": "string", "enum": ["red", "blue"]}),
            &json!("green"),
            &["spec.f: Unsupported value: \"green\": supported values: \"red\", \"blue\""],
        );
        texts(
            &json!({"type": "integer", "maximum": 10}),
            &json!(11),
            &["spec.f: Invalid value: 11: spec.f in body should be less than or equal to 10"],
        );
        texts(
            &json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
            &json!(["a", "b"]),
            &["spec.f: Too many: 2: must have at most 1 items"],
        );
        texts(
            &json!({"type": "array"}),
            &json!("x"),
            &["spec.f: Invalid value: \"string\": spec.f in body must be of type array: \"string\""],
        );
        texts(
            &json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            &json!(["x", "x"]),
            &["spec.f[1]: Duplicate value: \"x\""],
        );
        texts(
            &json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}),
            &json!({}),
            &[": Invalid value: \"\": \"spec.f\" must validate one and only one schema (oneOf). Found none valid"],
        );
        texts(&json!({"type": "object", "required": ["a"]}), &json!({}), &["spec.f.a: Required value"]);
        texts(
            &json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true}),
            &json!(3),
            &[],
        );
    }
}
