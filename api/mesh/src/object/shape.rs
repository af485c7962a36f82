//! The one way a stored shape is written: plain structs and enums, with JSON and schema derived from them.
//!
//! `shapes!` adds to each struct camelCase names and "leave out what is not set", so that a field is one line.
//! Never here: any particular kind. Used by the files that hold one API group each.
//! Called by nobody at run time but serde.

use std::collections::BTreeMap;

use schemars::{Schema, json_schema};
use serde_json::{Value, json};

/// Whether a field says nothing and is left out of JSON.
pub(crate) trait Absent {
    /// True when the field is not set.
    fn absent(&self) -> bool {
        false
    }
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}
impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}
impl<K, V> Absent for BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}
impl Absent for String {}
impl Absent for bool {}
impl Absent for i32 {}
impl Absent for u16 {}
impl Absent for u32 {}
impl Absent for u64 {}
impl Absent for f64 {}
impl Absent for serde_json::Value {}
impl Absent for super::scalar::Duration {}
impl Absent for super::scalar::IntOrString {}

/// Declares stored structs.
macro_rules! shapes {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty, )* }
    )*) => {$(
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        #[schemars(inline)]
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::object::shape::Absent::absent")]
                pub $field: $ty,
            )*
        }
        impl $crate::object::shape::Absent for $name {}
    )*};
}

/// Declares a set of names, written in JSON exactly as given.
macro_rules! names {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal, )* }
    )*) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[schemars(inline)]
        $(#[$meta])*
        pub enum $name {
            $( $(#[$variant_meta])* #[serde(rename = $text)] $variant, )*
        }
        impl $name {
            /// The name as it is written in objects.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }
        impl $crate::object::shape::Absent for $name {}
    )*};
}

pub(crate) use {names, shapes};

/// Rules for `x-kubernetes-validations`: what to tell the user, and the expression.
pub(crate) fn cel(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(message, rule)| json!({ "message": message, "rule": rule })).collect()
}

/// At most one of these fields, as `oneOf` says it.
pub(crate) fn one_of(fields: &[&str]) -> Value {
    let each = fields.iter().map(|field| json!({ "required": [field] }));
    let none = json!({ "not": { "anyOf": each.clone().collect::<Vec<_>>() } });
    std::iter::once(none).chain(each).collect()
}

/// A port number that is at least 1 and at most 65535.
pub(crate) const PORT: (&str, &str) = ("port must be between 1-65535", "0 < self && self <= 65535");

/// An object of which nothing is known.
pub(crate) fn free_form() -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
