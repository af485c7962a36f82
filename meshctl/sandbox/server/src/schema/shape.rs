//! One view of what a field is, over built-in types and CRD schemas alike.
//!
//! Server-side apply and the record of managed fields walk objects by it. Never here: the walk itself.
//! Called by `patch::fields` and `patch::apply`.

use crate::crd::schema::Structural;

use super::{Field, FieldKind, Type};

/// The shape of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    Object(&'static Type),
    /// A field of a built-in type; the second says which layer of its lists and maps is meant.
    Field(&'a Field, &'a FieldKind),
    Custom(&'a Structural),
    /// The root of a custom resource: apiVersion, kind and metadata stand beside the schema.
    CustomRoot(&'a Structural),
    /// Not described: maps are walked, lists are atomic.
    Free,
}

/// How a list is owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind<'a> {
    Atomic,
    Set,
    Map(Vec<&'a str>),
}

impl<'a> Shape<'a> {
    /// The shape of a member; `None` when there is no such field.
    pub(crate) fn member(self, name: &str) -> Option<Shape<'a>> {
        match self {
            Self::Object(kind) => kind.field(name).map(|field| Self::of(field, &field.kind)),
            Self::Field(field, FieldKind::Map(inner)) => Some(Self::of(field, inner)),
            Self::Field(..) => Some(Self::Free),
            Self::CustomRoot(schema) => match name {
                "metadata" => super::find("meta/v1.ObjectMeta").map(Self::Object),
                "apiVersion" | "kind" => Some(Self::Free),
                _ => Self::Custom(schema).member(name),
            },
            Self::Custom(schema) => match schema.property(name) {
                Some(inner) => Some(Self::Custom(inner)),
                None => match schema.additional() {
                    Some(inner) => Some(Self::Custom(inner)),
                    None if schema.preserve || schema.embedded => Some(Self::Free),
                    None => None,
                },
            },
            Self::Free => Some(Self::Free),
        }
    }

    fn of(field: &'a Field, kind: &'a FieldKind) -> Self {
        match (kind, kind.named()) {
            (_, Some(named)) => Self::Object(named),
            // A type that the table lacks: nothing is known of it.
            (FieldKind::Type(_), None) => Self::Free,
            (_, None) => Self::Field(field, kind),
        }
    }

    /// The shape of a list's items.
    pub(crate) fn item(self) -> Shape<'a> {
        match self {
            Self::Field(field, FieldKind::List(inner)) => Self::of(field, inner),
            Self::Custom(schema) => schema.items.as_deref().map_or(Self::Free, Self::Custom),
            Self::Object(_) | Self::Field(..) | Self::CustomRoot(_) | Self::Free => Self::Free,
        }
    }

    /// How the list is owned.
    pub(crate) fn list(self) -> ListKind<'a> {
        match self {
            Self::Field(field, FieldKind::List(_)) => {
                if !field.keys.is_empty() {
                    ListKind::Map(field.keys.clone())
                } else if field.set {
                    ListKind::Set
                } else {
                    ListKind::Atomic
                }
            }
            Self::Custom(schema) => match schema.list_type.as_deref() {
                Some("map") => ListKind::Map(schema.list_keys.iter().map(String::as_str).collect()),
                Some("set") => ListKind::Set,
                _ => ListKind::Atomic,
            },
            Self::Object(_) | Self::Field(..) | Self::CustomRoot(_) | Self::Free => ListKind::Atomic,
        }
    }

    /// Whether a map is owned whole.
    pub(crate) fn atomic_map(self) -> bool {
        match self {
            Self::Object(kind) => kind.atomic,
            Self::Field(field, FieldKind::Map(_)) => field.atomic,
            Self::Field(_, kind) => matches!(kind, FieldKind::Raw | FieldKind::Any | FieldKind::Fields),
            Self::Custom(schema) | Self::CustomRoot(schema) => schema.map_type.as_deref() == Some("atomic"),
            Self::Free => false,
        }
    }

    /// Default of an absent key field of a list item (ports default to TCP).
    pub(crate) fn key_default(self, key: &str) -> Option<serde_json::Value> {
        match self {
            Self::Object(_) if key == "protocol" => Some(serde_json::Value::from("TCP")),
            Self::Custom(schema) => schema.property(key).and_then(|inner| inner.default.clone()),
            Self::Object(_) | Self::Field(..) | Self::CustomRoot(_) | Self::Free => None,
        }
    }
}
