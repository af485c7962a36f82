//! Tables: the columns that `kubectl get` shows.
//!
//! Never here: HTTP. Called by `form`.

mod age;
mod cell;
mod columns;
mod pod;
mod rows;

use serde_json::{Value, json};

use crate::crd::path;
use crate::form::{self, Include};
use crate::kinds::{Kind, Model};
use crate::object;

/// Column definitions of a kind.
pub(crate) fn columns(kind: &Kind) -> Vec<Value> {
    if let Model::Custom(custom) = &kind.model {
        let mut all = vec![name_column()];
        for column in &custom.columns {
            all.push(json!({
                "name": object::text(column, "/name"),
                "type": object::text(column, "/type"),
                "format": object::text(column, "/format"),
                "description": object::text(column, "/description"),
                "priority": column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            }));
        }
        if custom.columns.is_empty() {
            all.push(column("Age", "date", 0));
        }
        return all;
    }
    columns::columns(&kind.storage)
        .iter()
        .map(
            |(name, priority)| {
                if *name == "Name" && *priority == 0 { name_column() } else { column(name, "string", *priority) }
            },
        )
        .collect()
}

fn name_column() -> Value {
    json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    })
}

fn column(name: &str, kind: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": "", "description": "", "priority": priority})
}

/// One object's row.
pub(crate) fn row(kind: &Kind, value: &Value, include: Include) -> Value {
    let cells: Vec<Value> = match &kind.model {
        Model::Custom(custom) => {
            let mut cells = vec![Value::from(object::name(value))];
            for column in &custom.columns {
                cells.push(custom_cell(value, column));
            }
            if custom.columns.is_empty() {
                cells.push(age::of(value).into());
            }
            cells
        }
        Model::BuiltIn(_) => rows::cells(&kind.storage, value),
    };
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => form::partial(value, false),
        Include::Object => value.clone(),
    };
    json!({"cells": cells, "object": object})
}

fn custom_cell(value: &Value, column: &Value) -> Value {
    let found = path::find(value, object::text(column, "/jsonPath"));
    let Some(first) = found.first() else { return Value::Null };
    match (object::text(column, "/type"), *first) {
        ("date", Value::String(text)) => age::since(text).into(),
        ("integer", Value::Number(number)) => number.as_i64().map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("string", Value::String(text)) => text.clone().into(),
        ("string", Value::Null) | (_, Value::Null) => Value::Null,
        ("string", other) => other.to_string().into(),
        _ => Value::Null,
    }
}
