//! What one file of a folder holds: its objects with their lines, and what is wrong in it.
//!
//! Never here: other files, or what changed. Used by [`super`].

use std::{path::Path, sync::Arc};

use api::note::{Note, ObjectRef, Severity};
use api_mesh::{
    object::{Kind, ObjectError, Stored, Strictness, from_json},
    old,
};
use serde_json::Value;

use super::super::{Place, Problem, path_and_text};
use crate::yaml;

/// What one file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sheet {
    pub(super) objects: Vec<(Place, Arc<Stored>)>,
    pub(super) problems: Vec<Problem>,
    /// Objects of Istio's old groups: they have no effect.
    pub(super) old: Vec<(Place, Value)>,
    /// Its text could not be read at all; the last good objects stay.
    pub(super) unreadable: bool,
}

pub(super) fn problem(place: Place, object: ObjectRef, severity: Severity, path: &str, text: String) -> Problem {
    Problem { place: Some(place), note: Note { severity, object, path: path.to_owned(), text, code: None } }
}

impl Sheet {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> Self {
        let place = |line| Place { file: file.to_owned(), line };
        let whole = ObjectRef::new("File", "", file.display().to_string());
        let mut sheet = Self::default();
        let documents = match std::fs::read_to_string(file)
            .map_err(|error| (1, error.to_string()))
            .and_then(|text| yaml::documents(&text).map_err(|error| (error.line, error.reason)))
        {
            Ok(documents) => documents,
            Err((line, why)) => {
                sheet.unreadable = true;
                sheet.problems.push(problem(place(line), whole, Severity::Error, "", why));
                return sheet;
            }
        };
        for document in documents {
            let value = with_namespace(document.value);
            if is_old(&value) {
                sheet.old.push((place(document.line), value));
                continue;
            }
            match from_json(value, Strictness::Report) {
                Ok((stored, unknown)) => {
                    for path in unknown {
                        let text = "no such field".to_owned();
                        sheet.problems.push(problem(
                            place(document.line),
                            stored.reference(),
                            Severity::Error,
                            &path,
                            text,
                        ));
                    }
                    sheet.objects.push((place(document.line), Arc::new(stored)));
                }
                Err(ObjectError::UnknownKind { api_version, .. }) if !api_version.contains(".istio.io/") => {}
                Err(error) => {
                    let object = error.object().cloned().unwrap_or_else(|| whole.clone());
                    let (path, text) = path_and_text(&error);
                    sheet.problems.push(problem(place(document.line), object, Severity::Error, &path, text));
                }
            }
        }
        sheet
    }
}

fn group_and_kind(value: &Value) -> (&str, &str) {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("apiVersion"), text("kind"))
}

fn is_old(value: &Value) -> bool {
    let (api_version, kind) = group_and_kind(value);
    old::namespaced(api_version, kind).is_some()
}

/// An object without a namespace is in `default`, as for kubectl.
fn with_namespace(mut value: Value) -> Value {
    let (api_version, kind) = group_and_kind(&value);
    let namespaced = Kind::find(api_version, kind).map(Kind::namespaced).or_else(|| old::namespaced(api_version, kind));
    if namespaced == Some(true)
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert_with(|| "default".into());
    }
    value
}
