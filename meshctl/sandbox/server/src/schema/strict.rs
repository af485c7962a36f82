//! Decodes a built-in kind as the real server's typed decoder does.
//!
//! Drops unknown fields and names them, refuses values of a wrong type, drops nulls. Never here: defaults, rules.
//! Called by `body` for every object of a built-in kind that comes in.

use serde_json::{Map, Value};

use super::{FieldKind, Type};

/// A value that the field's type cannot hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct WrongType(String);

/// Drops what the type does not have; the dropped fields' paths are appended to `unknown`.
pub(crate) fn decode(kind: &'static Type, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), WrongType> {
    object(kind, value, &mut Vec::new(), unknown)
}

fn object(
    kind: &'static Type,
    value: &mut Value,
    path: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<(), WrongType> {
    let Value::Object(map) = value else {
        return Err(mismatch(value, kind.name, path, kind.name.rsplit('.').next().unwrap_or_default()));
    };
    let old = std::mem::take(map);
    let mut kept = Map::with_capacity(old.len());
    for (name, mut inner) in old {
        // The Go decoder matches names without regard to case; the strict one does not.
        let Some(field) = kind.field(&name) else {
            path.push(name);
            unknown.push(join(path));
            path.pop();
            continue;
        };
        if inner.is_null() {
            continue;
        }
        path.push(name.clone());
        check(kind, &field.kind, &mut inner, path, unknown)?;
        path.pop();
        kept.insert(name, inner);
    }
    *map = kept;
    Ok(())
}

fn check(
    owner: &'static Type,
    kind: &FieldKind,
    value: &mut Value,
    path: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<(), WrongType> {
    let wrong = |value: &Value, path: &[String], go: &str| Err(mismatch(value, owner.name, path, go));
    match kind {
        FieldKind::String if !value.is_string() => wrong(value, path, "string"),
        FieldKind::Bytes if !value.is_string() => wrong(value, path, "[]uint8"),
        FieldKind::Bytes => match value.as_str().map(decode_base64) {
            Some(Err(at)) => Err(WrongType(format!("illegal base64 data at input byte {at}"))),
            _ => Ok(()),
        },
        FieldKind::Bool if !value.is_boolean() => wrong(value, path, "bool"),
        FieldKind::Int => whole(value).then_some(()).map_or_else(|| wrong(value, path, "int32"), Ok),
        FieldKind::Float if !value.is_number() => wrong(value, path, "float64"),
        FieldKind::Time | FieldKind::MicroTime | FieldKind::Duration if !value.is_string() => {
            wrong(value, path, "string")
        }
        FieldKind::Time | FieldKind::MicroTime => time(value.as_str().unwrap_or_default()),
        FieldKind::IntOrString if !(value.is_string() || whole(value)) => wrong(value, path, "intstr.IntOrString"),
        FieldKind::Quantity if !(value.is_string() || value.is_number()) => wrong(value, path, "resource.Quantity"),
        FieldKind::Quantity => crate::quantity::canonical(value).map_err(|_| {
            WrongType(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                    .to_owned(),
            )
        }),
        FieldKind::Fields if !value.is_object() => wrong(value, path, "v1.FieldsV1"),
        FieldKind::List(inner) => {
            let Value::Array(items) = value else {
                return wrong(value, path, &format!("[]{}", go_name(inner)));
            };
            list(owner, inner, items, path, unknown)
        }
        FieldKind::Extra => {
            let fits = value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
            if fits { Ok(()) } else { wrong(value, path, "v1.ExtraValue") }
        }
        FieldKind::Map(inner) => {
            let Value::Object(entries) = value else {
                return wrong(value, path, &format!("map[string]{}", go_name(inner)));
            };
            map(owner, inner, entries, path, unknown)
        }
        FieldKind::Type(name) => match super::find(name) {
            Some(inner) if value.is_object() => object(inner, value, path, unknown),
            Some(_) => wrong(value, path, &go_name(kind)),
            None => Ok(()),
        },
        FieldKind::String
        | FieldKind::Bool
        | FieldKind::Float
        | FieldKind::Duration
        | FieldKind::IntOrString
        | FieldKind::Fields
        | FieldKind::Raw
        | FieldKind::Any => Ok(()),
    }
}

fn list(
    owner: &'static Type,
    inner: &FieldKind,
    items: &mut [Value],
    path: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<(), WrongType> {
    let last = path.pop().unwrap_or_default();
    for (index, item) in items.iter_mut().enumerate() {
        path.push(format!("{last}[{index}]"));
        check(owner, inner, item, path, unknown)?;
        path.pop();
    }
    path.push(last);
    Ok(())
}

fn map(
    owner: &'static Type,
    inner: &FieldKind,
    entries: &mut Map<String, Value>,
    path: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<(), WrongType> {
    for (key, item) in entries.iter_mut() {
        if item.is_null() && *inner == FieldKind::String {
            *item = Value::String(String::new());
        }
        path.push(key.clone());
        check(owner, inner, item, path, unknown)?;
        path.pop();
    }
    Ok(())
}

fn time(text: &str) -> Result<(), WrongType> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err(WrongType(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        ))),
    }
}

fn decode_base64(text: &str) -> Result<(), usize> {
    use base64::Engine as _;
    let clean: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
    match base64::engine::general_purpose::STANDARD.decode(&clean) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol { offset: at, .. }) => {
            Err(at)
        }
        Err(_) => Err(clean.len() / 4 * 4),
    }
}

fn whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn go_name(kind: &FieldKind) -> String {
    match kind {
        FieldKind::String => "string".to_owned(),
        FieldKind::Bool => "bool".to_owned(),
        FieldKind::Int => "int32".to_owned(),
        FieldKind::Float => "float64".to_owned(),
        FieldKind::Bytes => "[]uint8".to_owned(),
        FieldKind::List(inner) => format!("[]{}", go_name(inner)),
        FieldKind::Map(inner) => format!("map[string]{}", go_name(inner)),
        FieldKind::Type(name) => {
            let (package, name) = name.rsplit_once('.').unwrap_or(("", name));
            format!("{}.{name}", package.rsplit('/').next().unwrap_or_default())
        }
        FieldKind::Time => "v1.Time".to_owned(),
        FieldKind::MicroTime => "v1.MicroTime".to_owned(),
        FieldKind::Duration => "v1.Duration".to_owned(),
        FieldKind::Quantity => "resource.Quantity".to_owned(),
        FieldKind::IntOrString => "intstr.IntOrString".to_owned(),
        FieldKind::Fields => "v1.FieldsV1".to_owned(),
        FieldKind::Raw => "runtime.RawExtension".to_owned(),
        FieldKind::Any => "v1.JSON".to_owned(),
        FieldKind::Extra => "v1.ExtraValue".to_owned(),
    }
}

fn mismatch(value: &Value, owner: &str, path: &[String], go: &str) -> WrongType {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => {
            return WrongType(format!(
                "json: cannot unmarshal number {number} into Go struct field {}.{} of type {go}",
                owner.rsplit('.').next().unwrap_or_default(),
                plain(path)
            ));
        }
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    WrongType(format!(
        "json: cannot unmarshal {found} into Go struct field {}.{} of type {go}",
        owner.rsplit('.').next().unwrap_or_default(),
        plain(path)
    ))
}

fn plain(path: &[String]) -> String {
    let names: Vec<&str> = path.iter().map(|part| part.split('[').next().unwrap_or(part)).collect();
    names.join(".")
}

fn join(path: &[String]) -> String {
    path.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(kind: &str, mut value: Value, want: &Value, unknown: &[&str]) {
        let mut dropped = Vec::new();
        decode(super::super::find(kind).unwrap(), &mut value, &mut dropped).unwrap();
        assert_eq!(value, *want);
        assert_eq!(dropped, unknown);
    }

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        check(
            "core/v1.Service",
            json!({"metadata": {"name": "a", "foo": 1}, "spec": {"ports": [{"port": 80, "zz": 1}]}}),
            &json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}),
            &["metadata.foo", "spec.ports[0].zz"],
        );
    }

    #[test]
    fn wrong_types_are_refused() {
        let mut value = json!({"spec": {"replicas": "two"}});
        let error = decode(super::super::find("apps/v1.Deployment").unwrap(), &mut value, &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }
}
