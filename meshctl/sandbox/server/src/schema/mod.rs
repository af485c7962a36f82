//! Which fields the built-in kinds have, and of which type.
//!
//! One table (`types.txt`) serves strict decoding, protobuf, the merge keys of patches, server-side apply and OpenAPI.
//! Never here: defaults and validation of values. Called by `body`, `patch`, `openapi` and `crd` (for ObjectMeta).

pub(crate) mod shape;
pub(crate) mod strict;

use std::collections::HashMap;
use std::sync::LazyLock;

/// A message of the API.
#[derive(Debug)]
pub(crate) struct Type {
    /// `core/v1.Pod`.
    pub(crate) name: &'static str,
    /// Fields by JSON name, inlined ones included, in declaration order.
    pub(crate) fields: Vec<Field>,
    by_name: HashMap<&'static str, usize>,
    own: HashMap<u32, usize>,
    inlined: HashMap<u32, &'static str>,
    /// Server-side apply owns it whole.
    pub(crate) atomic: bool,
}

/// A field of a message.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: FieldKind,
    /// A pointer in the wire format: an explicit zero is kept.
    pub(crate) pointer: bool,
    pub(crate) required: bool,
    /// Key of a strategic merge; empty for a merge of primitives.
    pub(crate) merge: Option<&'static str>,
    /// Keys of a list map in server-side apply.
    pub(crate) keys: Vec<&'static str>,
    pub(crate) set: bool,
    pub(crate) retain: bool,
    pub(crate) atomic: bool,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldKind {
    String,
    Bool,
    Int,
    Float,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    Fields,
    Raw,
    Any,
    /// A list of strings that is a message in protobuf.
    Extra,
    List(Box<FieldKind>),
    Map(Box<FieldKind>),
    Type(&'static str),
}

impl FieldKind {
    /// The type that a value of this kind is an object of.
    pub(crate) fn named(&self) -> Option<&'static Type> {
        if let Self::Type(name) = self { find(name) } else { None }
    }

    /// What a list's items are.
    pub(crate) fn item(&self) -> Option<&FieldKind> {
        if let Self::List(inner) = self { Some(inner) } else { None }
    }

    fn parse(text: &'static str) -> Self {
        if let Some(rest) = text.strip_prefix("[]") {
            return Self::List(Box::new(Self::parse(rest)));
        }
        if let Some(rest) = text.strip_prefix("{}") {
            return Self::Map(Box::new(Self::parse(rest)));
        }
        match text {
            "string" => Self::String,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "float" => Self::Float,
            "bytes" => Self::Bytes,
            "time" => Self::Time,
            "microtime" => Self::MicroTime,
            "duration" => Self::Duration,
            "quantity" => Self::Quantity,
            "intorstring" => Self::IntOrString,
            "fields" => Self::Fields,
            "raw" => Self::Raw,
            "any" => Self::Any,
            "extra" => Self::Extra,
            name => Self::Type(name),
        }
    }
}

impl Type {
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name).map(|index| &self.fields[*index])
    }

    /// A field of this message itself by its protobuf number.
    pub(crate) fn by_number(&self, number: u32) -> Option<&Field> {
        self.own.get(&number).map(|index| &self.fields[*index])
    }

    /// The message whose fields stand inline in JSON but under this number in protobuf.
    pub(crate) fn inlined(&self, number: u32) -> Option<&'static Type> {
        self.inlined.get(&number).and_then(|name| find(name))
    }
}

/// The type of this name.
pub(crate) fn find(name: &str) -> Option<&'static Type> {
    TYPES.get(name)
}

static TYPES: LazyLock<HashMap<&'static str, Type>> = LazyLock::new(|| read(include_str!("types.txt")));

struct Draft {
    atomic: bool,
    /// Own fields with their numbers; `Err` is an inlined type.
    lines: Vec<(u32, Result<Field, &'static str>)>,
}

fn read(text: &'static str) -> HashMap<&'static str, Type> {
    let mut drafts: Vec<(&'static str, Draft)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !line.starts_with(' ') {
            drafts.push((first, Draft { atomic: words.next() == Some("atomic"), lines: Vec::new() }));
            continue;
        }
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let kind = words.next().unwrap_or_default();
        let Some((_, draft)) = drafts.last_mut() else { continue };
        let entry = if first == "~" { Err(kind) } else { Ok(field(first, kind, words)) };
        draft.lines.push((number, entry));
    }
    let drafts: HashMap<&'static str, Draft> = drafts.into_iter().collect();
    drafts.iter().map(|(name, draft)| (*name, finish(name, draft, &drafts))).collect()
}

fn field(name: &'static str, kind: &'static str, flags: impl Iterator<Item = &'static str>) -> Field {
    let mut field = Field {
        name,
        kind: FieldKind::parse(kind),
        pointer: false,
        required: false,
        merge: None,
        keys: Vec::new(),
        set: false,
        retain: false,
        atomic: false,
    };
    for flag in flags {
        match flag.split_once('=') {
            Some(("merge", key)) => field.merge = Some(key),
            Some(("keys", keys)) => field.keys = keys.split(',').collect(),
            _ => match flag {
                "*" => field.pointer = true,
                "!" => field.required = true,
                "merge" => field.merge = Some(""),
                "set" => field.set = true,
                "retain" => field.retain = true,
                "atomic" => field.atomic = true,
                _ => {}
            },
        }
    }
    field
}

fn finish(name: &'static str, draft: &Draft, drafts: &HashMap<&'static str, Draft>) -> Type {
    let mut built = Type {
        name,
        fields: Vec::new(),
        by_name: HashMap::new(),
        own: HashMap::new(),
        inlined: HashMap::new(),
        atomic: draft.atomic,
    };
    // Every object has these; the table leaves them out.
    if draft.lines.iter().any(|(_, line)| matches!(line, Ok(field) if field.name == "metadata")) {
        for name in ["apiVersion", "kind"] {
            built.add(field(name, "string", std::iter::empty()));
        }
    }
    for (number, line) in &draft.lines {
        match line {
            Ok(field) => {
                built.own.insert(*number, built.fields.len());
                built.add(field.clone());
            }
            Err(inner) => {
                built.inlined.insert(*number, inner);
                built.add_inlined(inner, drafts);
            }
        }
    }
    built
}

impl Type {
    fn add(&mut self, field: Field) {
        self.by_name.insert(field.name, self.fields.len());
        self.fields.push(field);
    }

    fn add_inlined(&mut self, name: &str, drafts: &HashMap<&'static str, Draft>) {
        for (_, line) in drafts.get(name).iter().flat_map(|draft| &draft.lines) {
            match line {
                Ok(field) => self.add(field.clone()),
                Err(inner) => self.add_inlined(inner, drafts),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_type_exists() {
        for kind in TYPES.values() {
            for field in &kind.fields {
                let mut inner = &field.kind;
                while let FieldKind::List(next) | FieldKind::Map(next) = inner {
                    inner = next;
                }
                if let FieldKind::Type(name) = inner {
                    assert!(find(name).is_some(), "{}.{}: {name}", kind.name, field.name);
                }
            }
        }
    }

    #[test]
    fn inlined_fields_stand_with_their_parent() {
        let volume = find("core/v1.Volume").unwrap();
        assert!(volume.field("configMap").is_some());
        assert_eq!(volume.by_number(1).unwrap().name, "name");
        assert_eq!(volume.inlined(2).unwrap().name, "core/v1.VolumeSource");
    }
}
