//! CEL rules of CRDs (`x-kubernetes-validations`).
//!
//! Parsed when the CRD is read; evaluated after the schema holds. Never here: other checks.
//! Called by `crd::schema` (parse) and `crd::check`.

use std::sync::OnceLock;

use cel::{Program, Value as Cel};
use serde_json::Value;

use super::schema::Structural;
use crate::cel_rules;
use crate::object;
use crate::reply::Cause;

/// One rule at one node of the schema; compiled when first needed.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) rule: String,
    message: String,
    message_expression: String,
    reason: String,
    field_path: String,
    program: OnceLock<Result<Program, String>>,
}

impl Rule {
    pub(crate) fn compiled(&self) -> Result<&Program, &str> {
        self.program.get_or_init(|| cel_rules::compile(&self.rule)).as_ref().map_err(String::as_str)
    }

    /// The rule compares with the version before.
    fn is_transition(&self) -> bool {
        self.rule.contains("oldSelf")
    }
}

/// Appends what the rules at and below a node say of a value that the schema allows.
pub(crate) fn check(schema: &Structural, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() {
        return;
    }
    if !schema.rules.is_empty() {
        let own = cel_rules::typed(schema, value);
        let before = old.map(|old| cel_rules::typed(schema, old));
        for rule in &schema.rules {
            if rule.is_transition() && before.is_none() {
                continue;
            }
            if let Some(cause) = one(rule, &own, before.as_ref(), value, path) {
                causes.push(cause);
            }
        }
    }
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if let Some(next) = schema.property(name).or(schema.additional()) {
                    let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    check(next, inner, old.and_then(|old| old.get(name)), &at, causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(next) = &schema.items else { return };
            let keys = &schema.list_keys;
            for (index, item) in items.iter().enumerate() {
                // Only items of list maps have a version before.
                let before = (schema.list_type.as_deref() == Some("map")).then(|| {
                    old.and_then(Value::as_array)?
                        .iter()
                        .find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
                });
                check(next, item, before.flatten(), &format!("{path}[{index}]"), causes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn one(rule: &Rule, own: &Cel, before: Option<&Cel>, value: &Value, path: &str) -> Option<Cause> {
    let variables = || {
        let mut all = vec![("self", own.clone())];
        all.extend(before.map(|before| ("oldSelf", before.clone())));
        all
    };
    let kind = Value::from(match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    });
    let result = match rule.compiled() {
        Ok(program) => cel_rules::run(program, variables()),
        Err(why) => Err(format!("rule compile error: {why}")),
    };
    let detail = match result {
        Ok(Cel::Bool(true)) => return None,
        Ok(_) => rule.text(variables()),
        Err(why) => {
            let shown = if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() };
            format!("{why} evaluating rule: {shown}")
        }
    };
    let field = format!("{path}{}", rule.field_path);
    let field = field.trim_start_matches('.').to_owned();
    Some(match rule.reason.as_str() {
        "FieldValueForbidden" => Cause::forbidden(field, &detail),
        "FieldValueRequired" => Cause::required(field, &detail),
        "FieldValueDuplicate" => Cause::duplicate(field, &kind),
        _ => Cause::invalid(field, &kind, detail),
    })
}

impl Rule {
    fn text(&self, variables: Vec<(&str, Cel)>) -> String {
        if !self.message_expression.is_empty()
            && let Ok(program) = cel_rules::compile(&self.message_expression)
            && let Ok(Cel::String(text)) = cel_rules::run(&program, variables)
        {
            return text.to_string();
        }
        if self.message.is_empty() { format!("failed rule: {}", self.rule.trim()) } else { self.message.clone() }
    }
}

pub(crate) fn parse(raw: &Value) -> Vec<Rule> {
    object::items(raw, "/x-kubernetes-validations")
        .iter()
        .map(|rule| Rule {
            rule: object::text(rule, "/rule").to_owned(),
            message: object::text(rule, "/message").to_owned(),
            message_expression: object::text(rule, "/messageExpression").to_owned(),
            reason: object::text(rule, "/reason").to_owned(),
            field_path: object::text(rule, "/fieldPath").to_owned(),
            program: OnceLock::new(),
        })
        .collect()
}

/// A Go duration (`1h30m`, `250ms`) in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, nanos) =
            [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * nanos;
    }
    if total > 9.2e18 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    let whole = total as i64;
    Some(if negative { -whole } else { whole })
}
