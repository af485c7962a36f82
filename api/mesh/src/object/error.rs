//! Why a JSON value is not an object we know, with the object's name and the field's path.
//!
//! Never here: judgement of values (`model` does that). Returned by [`super::from_json`].
//! Called by the admission webhook and `meshctl`, which print it as it is.

use api::note::ObjectRef;

/// Why a JSON value could not be read as a stored object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not a JSON object.
    #[error("expected an object with apiVersion, kind and metadata")]
    NotAnObject,
    /// `apiVersion`, `kind` or `metadata.name` is missing or no text.
    #[error("{field} is missing or is not text")]
    Unnamed {
        /// Which of them.
        field: &'static str,
    },
    /// A kind, or a version of it, that nothing here reads.
    #[error("{object}: no such kind: {api_version} {}", object.kind)]
    UnknownKind {
        /// The object.
        object: ObjectRef,
        /// What its apiVersion said.
        api_version: String,
    },
    /// A field has the wrong type, an unknown name in a closed set, or is required and absent.
    #[error("{object}: {path}: {source}")]
    Field {
        /// The object.
        object: ObjectRef,
        /// Path of the field, for example `spec.http[1].timeout`.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Fields that the kind does not have.
    #[error("{object}: unknown field{} {}", if paths.len() == 1 { "" } else { "s" }, paths.join(", "))]
    UnknownFields {
        /// The object.
        object: ObjectRef,
        /// Their paths.
        paths: Vec<String>,
    },
}

impl ObjectError {
    /// The object it is about, where it had a name.
    pub fn object(&self) -> Option<&ObjectRef> {
        match self {
            Self::NotAnObject | Self::Unnamed { .. } => None,
            Self::UnknownKind { object, .. } | Self::Field { object, .. } | Self::UnknownFields { object, .. } => {
                Some(object)
            }
        }
    }
}
