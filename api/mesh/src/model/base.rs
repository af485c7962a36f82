//! What all models share: name and age, labels, visibility, and a version of their content.
//!
//! Never here: fields of one kind. Used by every file of `model` and by `mesh`.
//! Called while objects are parsed and while meshes are resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use api::note::{Note, Notes, ObjectRef, Severity};

use crate::object::Metadata;

/// Labels of a workload, or a selector of them.
pub type Labels = BTreeMap<String, String>;

/// Whether every label that the selector asks for is there with that value.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Hash of a value that is the same in every process.
pub(crate) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A model that many snapshots share, with the version of its content.
#[derive(Debug)]
pub struct Shared<T>(Arc<Versioned<T>>);

#[derive(Debug)]
struct Versioned<T> {
    version: u64,
    value: T,
}

impl<T: Hash> Shared<T> {
    /// Takes a value and its version.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Versioned { version: hash_of(&value), value }))
    }
}

impl<T> Shared<T> {
    /// Version of the content: equal contents have equal versions.
    pub fn version(&self) -> u64 {
        self.0.version
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.version == other.0.version && self.0.value == other.0.value
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.version.hash(state);
    }
}

/// Name and age of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Kind, namespace and name.
    pub object: ObjectRef,
    /// When it was created, in seconds since 1970; objects without a time are the oldest.
    pub created: i64,
}

impl Meta {
    pub(crate) fn of(kind: &str, metadata: &Metadata) -> Self {
        Self {
            object: ObjectRef::new(kind, metadata.namespace.clone(), metadata.name.clone()),
            created: metadata.creation_timestamp.map_or(0, jiff::Timestamp::as_second),
        }
    }

    /// Istio's order: older first, then by name, then by namespace.
    pub(crate) fn age(&self) -> (i64, &str, &str) {
        (self.created, &self.object.name, &self.object.namespace)
    }

    /// Namespace of the object.
    pub fn namespace(&self) -> &str {
        &self.object.namespace
    }
}

/// Which namespaces see an object (`exportTo`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExportTo {
    /// All.
    All,
    /// These; none of them: nobody.
    Namespaces(BTreeSet<String>),
}

impl ExportTo {
    /// Reads `*`, `.`, `~` and names as written in an object of that namespace.
    pub(crate) fn read<'a>(raw: impl IntoIterator<Item = &'a str>, namespace: &str) -> Option<Self> {
        let mut names = BTreeSet::new();
        let mut any = false;
        for text in raw {
            any = true;
            match text.trim() {
                "*" => return Some(Self::All),
                "~" => {}
                "." => {
                    names.insert(namespace.to_owned());
                }
                name => {
                    names.insert(name.to_owned());
                }
            }
        }
        any.then_some(Self::Namespaces(names))
    }

    /// Whether that namespace sees it.
    pub(crate) fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }

    /// Whether that namespace sees an object of namespace `own` that says this, or nothing and the mesh's default holds.
    pub(crate) fn allows(said: Option<&Self>, default: &[String], own: &str, namespace: &str) -> bool {
        match said {
            Some(export) => export.includes(namespace),
            None => default.iter().any(|text| match text.as_str() {
                "*" => true,
                "." => own == namespace,
                name => name == namespace,
            }),
        }
    }

    /// Whether only its own namespace sees it.
    pub(crate) fn is_private_to(&self, namespace: &str) -> bool {
        match self {
            Self::All => false,
            Self::Namespaces(names) => names.len() == 1 && names.contains(namespace),
        }
    }
}

/// Gathers the complaints about one object.
pub(crate) struct Judge<'n> {
    pub(crate) object: ObjectRef,
    notes: &'n mut Notes,
    errors: usize,
}

impl<'n> Judge<'n> {
    pub(crate) fn new(object: ObjectRef, notes: &'n mut Notes) -> Self {
        Self { object, notes, errors: 0 }
    }

    /// How many errors there were so far: a part that adds none is good.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    pub(crate) fn error(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.errors += 1;
        self.notes.error(&self.object, path, text);
    }

    pub(crate) fn warn(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.notes.warn(&self.object, path, text);
    }

    pub(crate) fn coded(&mut self, severity: Severity, code: &str, path: impl Into<String>, text: impl Into<String>) {
        self.errors += usize::from(severity == Severity::Error);
        self.notes.push(Note {
            severity,
            object: self.object.clone(),
            path: path.into(),
            text: text.into(),
            code: Some(code.to_owned()),
        });
    }

    /// A traffic field that is known and does nothing yet.
    pub(crate) fn not_honoured(&mut self, present: bool, path: impl Into<String>) {
        if present {
            let path = path.into();
            let field = path.rsplit('.').next().unwrap_or_default().to_owned();
            self.warn(path, format!("not honoured yet: {field} has no effect"));
        }
    }

    /// A field that guards something and is not enforced yet.
    pub(crate) fn not_enforced(&mut self, present: bool, path: impl Into<String>) {
        if present {
            let path = path.into();
            let field = path.rsplit('.').next().unwrap_or_default().to_owned();
            self.error(path, format!("not enforced yet: {field} is refused rather than ignored"));
        }
    }

    /// A value that must be read from text or number.
    pub(crate) fn read<T, E: std::fmt::Display>(&mut self, path: impl Into<String>, value: Result<T, E>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(path, error.to_string());
                None
            }
        }
    }
}
