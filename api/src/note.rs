//! What the mesh has to say about an object: one sentence with an address.
//!
//! The admission webhook, pilot's status and `meshctl analyze` print the same notes.
//! Never here: rendering for a terminal, or deciding who sees a note. Made by `api-mesh`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a note matters to the person who wrote the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do; good to know.
    Info,
    /// Accepted, but it does not do (all of) what it says.
    Warn,
    /// Refused at admission; where it is stored already, its last good version serves on.
    Error,
}

/// Names a stored object: kind, namespace (empty for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Kind as users write it, for example `VirtualService`.
    pub kind: String,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
}

impl ObjectRef {
    /// Names an object.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}.{}", self.kind, self.name, self.namespace)
        }
    }
}

/// One remark: which object, which field, what and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// The object it is about.
    pub object: ObjectRef,
    /// Path of the field, for example `spec.http[1].timeout`; empty for the object as a whole.
    pub path: String,
    /// What and why: lower case, no full stop.
    pub text: String,
    /// Istio's analyzer code for the same finding (`IST0101`), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.object, self.text)
        } else {
            write!(f, "{}: {}: {}", self.object, self.path, self.text)
        }
    }
}

/// Notes being gathered; parsing goes on after a complaint, so that a user sees all of them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(Vec<Note>);

impl Notes {
    /// No notes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a note.
    pub fn push(&mut self, note: Note) {
        self.0.push(note);
    }

    /// Adds a note of the given severity.
    pub fn add(&mut self, severity: Severity, object: &ObjectRef, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(Note { severity, object: object.clone(), path: path.into(), text: text.into(), code: None });
    }

    /// Adds an error: the object is refused at admission.
    pub fn error(&mut self, object: &ObjectRef, path: impl Into<String>, text: impl Into<String>) {
        self.add(Severity::Error, object, path, text);
    }

    /// Adds a warning: the object is accepted and the user is told.
    pub fn warn(&mut self, object: &ObjectRef, path: impl Into<String>, text: impl Into<String>) {
        self.add(Severity::Warn, object, path, text);
    }

    /// Whether any note is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|note| note.severity == Severity::Error)
    }

    /// The notes, in the order they were made.
    pub fn iter(&self) -> std::slice::Iter<'_, Note> {
        self.0.iter()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The notes as a list.
    pub fn into_vec(self) -> Vec<Note> {
        self.0
    }
}

impl<'a> IntoIterator for &'a Notes {
    type Item = &'a Note;
    type IntoIter = std::slice::Iter<'a, Note>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
