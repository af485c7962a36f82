//! Prints the CustomResourceDefinitions of Istio's kinds as YAML documents; with the word `old`, those of its old groups.
//!
//! Never here: what is in them; `object::crds` makes them from the types, `old::crds` from a list of names.
//! Called by `cargo xtask gen`, which writes `deploy/crds`.
#![allow(clippy::print_stdout, clippy::wildcard_enum_match_arm, reason = "prints for `cargo xtask gen`")]

use std::fmt::Write as _;

use serde_json::Value;

fn main() {
    let (source, crds) = match std::env::args().nth(1).as_deref() {
        Some("old") => ("the list in api/mesh/src/old/kinds.rs", api_mesh::old::crds()),
        _ => ("the types in api/mesh/src/object", api_mesh::object::crds()),
    };
    let mut text = format!("# Generated from {source} by `cargo xtask gen`; do not edit.\n");
    for crd in crds {
        text.push_str("---\n");
        block(&crd, 0, &mut text);
    }
    print!("{text}");
}

/// Writes a value in block style; the cursor is at the start of a line.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                push_indent(indent, text);
                entry(key, field, indent, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                push_indent(indent, text);
                text.push_str("- ");
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        for (at, (key, field)) in fields.iter().enumerate() {
                            if at > 0 {
                                push_indent(indent + 2, text);
                            }
                            entry(key, field, indent + 2, text);
                        }
                    }
                    other => {
                        text.push_str(&scalar(other));
                        text.push('\n');
                    }
                }
            }
        }
        other => {
            push_indent(indent, text);
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn entry(key: &str, field: &Value, indent: usize, text: &mut String) {
    text.push_str(&plain_or_quoted(key));
    match field {
        Value::Object(fields) if !fields.is_empty() => {
            text.push_str(":\n");
            block(field, indent + 2, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push_str(":\n");
            block(field, indent, text);
        }
        other => {
            text.push_str(": ");
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn push_indent(indent: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain_or_quoted(text),
        other => other.to_string(), // numbers, booleans, empty lists and objects read the same in both
    }
}

/// Text as it is where YAML would read it as the same text, else in JSON's quotes, which YAML shares.
fn plain_or_quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with(' ')
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " -_./(),;`:".contains(c))
        && !text.ends_with(':')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                if write!(quoted, "\\u{:04x}", u32::from(c)).is_err() {
                    return text.to_owned();
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
